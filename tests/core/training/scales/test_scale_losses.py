"""Each term of the loss is what its formula says, and leaves no trace where it must not."""

import copy

import pytest
import torch
from torch import nn

from napari_nucleiseg.core.models.scale_attention import ScaleAttention
from napari_nucleiseg.core.training.scales.losses import (
    TRANSFORMS,
    haematoxylin_mismatch,
    halved,
    scale_equivariance,
    self_training,
    shape_mismatch,
    smoothness,
    statistics_kept,
)


def test_smoothness_is_the_sum_of_two_mean_differences():
    attention = torch.tensor([[[[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]]])
    assert float(smoothness(attention)) == pytest.approx(1 / 3 + 2 / 4)
    assert float(smoothness(torch.full((2, 1, 5, 5), 0.3))) == 0


def test_the_six_transforms_differ_and_are_undone():
    x = torch.arange(2 * 9.0).view(2, 1, 3, 3)
    seen = [there(x) for there, _ in TRANSFORMS]
    assert len({tuple(values.flatten().tolist()) for values in (*seen, x)}) == 7
    for (_, back), values in zip(TRANSFORMS, seen, strict=True):
        assert torch.equal(back(values), x)


def test_scale_equivariance_compares_half_sizes_of_all_but_the_lowest():
    image = torch.rand(3, 3, 8, 8)
    level = torch.tensor([0, 1, 2])

    def look(x):
        return x.mean(dim=1, keepdim=True)

    # A mean of channels is the same at half size.
    exact = look(image)
    assert float(scale_equivariance(exact, image, level, 2, look)) == pytest.approx(0, abs=1e-12)
    wrong = exact.clone()
    wrong[0] += 1  # the lowest magnification does not count
    assert float(scale_equivariance(wrong, image, level, 2, look)) == pytest.approx(0, abs=1e-12)
    wrong[1] += 1
    assert float(scale_equivariance(wrong, image, level, 2, look)) == pytest.approx(0.5)
    assert float(scale_equivariance(exact, image, torch.zeros(3), 2, look)) == 0
    assert halved(image).shape == (3, 3, 4, 4)


def test_haematoxylin_mismatch_is_one_minus_the_correlation():
    density = torch.rand(2, 1, 6, 6)
    assert float(haematoxylin_mismatch(3 * density - 1, density)) == pytest.approx(0, abs=1e-6)
    assert float(haematoxylin_mismatch(-density, density)) == pytest.approx(2, abs=1e-6)
    assert float(haematoxylin_mismatch(density, torch.ones(2, 1, 6, 6))) == pytest.approx(1)


def test_self_training_counts_what_all_views_are_sure_of():
    raw = torch.zeros(1, 1, 1, 4, requires_grad=True)
    views = torch.tensor([[0.95, 0.95, 0.02, 0.5], [0.95, 0.4, 0.03, 0.5]]).view(2, 1, 1, 1, 4)
    loss = self_training(raw, views, 0.9)
    assert float(loss.detach()) == pytest.approx(0.6931, abs=1e-3)
    loss.backward()
    assert raw.grad.flatten().sign().tolist() == [-1, 0, 1, 0]
    assert float(self_training(raw, views * 0 + 0.5, 0.9).detach()) == 0


def test_shapes_count_where_they_are_known():
    shape = torch.tensor([[[[1.0, 0.0, -1.0]]]])
    right, wrong = torch.tensor([[[[9.0, -9.0, 9.0]]]]), torch.tensor([[[[-9.0, -9.0, -9.0]]]])
    assert float(shape_mismatch(right, shape)) == pytest.approx(0, abs=1e-3)
    assert float(shape_mismatch(wrong, shape)) == pytest.approx(4.5, abs=1e-3)
    assert float(shape_mismatch(right, torch.full_like(shape, -1))) == 0


def test_a_look_leaves_no_trace_in_the_statistics():
    torch.manual_seed(0)
    network = ScaleAttention(width=2).train()
    x = torch.randn(2, 3, 24, 24)
    before = copy.deepcopy(network.state_dict())
    with statistics_kept(network):
        seen = network.confidence(x)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    # It normalises by the batch all the same.
    assert torch.allclose(seen, network.confidence(x))
    assert any(not torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(m.track_running_stats for m in network.modules() if isinstance(m, nn.BatchNorm2d))
