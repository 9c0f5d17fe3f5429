"""The deformable convolution does what a plain loop over pixels and taps does, gradients too."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models import deformable
from napari_nucleiseg.core.models.deformable import (
    FreeDeformation,
    PredictedDeformation,
    by_grid_sample,
    deform_conv2d,
)


def bilinear(plane, y, x):
    """Value of a plane between its pixels; zero outside, as if it were surrounded by zeros."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
                total += plane[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def by_loop(x, offset, mask, weight):
    batch, _, height, width = x.shape
    outputs, inputs, kernel, _ = weight.shape
    out = np.zeros((batch, outputs, height, width))
    for n, row, column, tap in np.ndindex(batch, height, width, kernel * kernel):
        dy, dx = tap // kernel - kernel // 2, tap % kernel - kernel // 2
        y = row + dy + offset[n, 2 * tap, row, column]
        at_x = column + dx + offset[n, 2 * tap + 1, row, column]
        for channel in range(inputs):
            seen = bilinear(x[n, channel], y, at_x) * mask[n, tap, row, column]
            out[n, :, row, column] += weight[:, channel, tap // kernel, tap % kernel] * seen
    return out


def problem(seed, height, width, *, batch=1, inputs=2, outputs=3, kernel=3, reach=2.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, inputs, height, width, generator=generator, dtype=torch.float64)
    offset = reach * torch.randn(batch, 2 * kernel**2, height, width, generator=generator, dtype=torch.float64)
    mask = torch.rand(batch, kernel**2, height, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator, dtype=torch.float64)
    return x, offset, mask, weight


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    batch=st.integers(1, 2),
    kernel=st.sampled_from([1, 3]),
    reach=st.sampled_from([0.0, 0.5, 4.0]),
)
def test_it_is_the_plain_loop(seed, height, width, batch, kernel, reach):
    given_ = problem(seed, height, width, batch=batch, kernel=kernel, reach=reach)
    expected = by_loop(*(tensor.numpy() for tensor in given_))
    np.testing.assert_allclose(by_grid_sample(*given_).numpy(), expected, atol=1e-9)


def test_without_offsets_and_with_whole_masks_it_is_a_convolution():
    x, offset, mask, weight = problem(0, 6, 7)
    found = by_grid_sample(x, torch.zeros_like(offset), torch.ones_like(mask), weight)
    assert torch.allclose(found, functional.conv2d(x, weight, padding=1), atol=1e-12)


def test_gradients_are_those_of_small_steps():
    # Away from whole offsets, where the interpolation has a kink.
    x, offset, mask, weight = problem(3, 3, 4, inputs=1, outputs=1)
    offset = offset.round() + 0.3
    tensors = [tensor.requires_grad_() for tensor in (x, offset, mask, weight)]
    assert torch.autograd.gradcheck(by_grid_sample, tensors, eps=1e-6, atol=1e-5)


def test_it_is_the_operator_of_torchvision_where_that_is_installed():
    operator = deformable._of_torchvision("cpu")
    if operator is None:
        pytest.skip("torchvision is no dependency; compared where it is installed and works")
    ours = [tensor.requires_grad_() for tensor in problem(5, 6, 5, batch=2)]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    x, offset, mask, weight = theirs
    expected = operator(x, offset, weight, padding=1, mask=mask)
    found = by_grid_sample(*ours)
    assert torch.allclose(found, expected, atol=1e-9)
    found.square().sum().backward()
    expected.square().sum().backward()
    assert all(torch.allclose(one.grad, other.grad, atol=1e-8) for one, other in zip(ours, theirs, strict=True))


def test_an_operator_that_does_not_work_is_not_used(monkeypatch):
    class Broken:
        @staticmethod
        def deform_conv2d(*_arguments, **_more):
            raise NotImplementedError("no kernel for this device")

    monkeypatch.setattr("importlib.import_module", lambda _name: Broken)
    deformable._of_torchvision.cache_clear()
    assert deformable._of_torchvision("cpu") is None
    deformable._of_torchvision.cache_clear()


def test_an_operator_that_is_there_is_used_with_its_arguments_in_their_places(monkeypatch):
    asked = {}

    def operator(x, offset, weight, *, padding, mask):
        asked.update(offset=offset.shape[1], mask=mask.shape[1], padding=padding)
        return functional.conv2d(x, weight, padding=padding)

    monkeypatch.setattr(deformable, "_of_torchvision", lambda _device: operator)
    assert deform_conv2d(*problem(0, 4, 4)).shape == (1, 3, 4, 4)
    assert asked == {"offset": 18, "mask": 9, "padding": 1}


def test_places_are_computed_in_float32_whatever_comes_in():
    low = [tensor.to(torch.bfloat16) for tensor in problem(1, 5, 5)]
    found = deform_conv2d(*low)
    assert found.dtype == torch.float32
    assert torch.allclose(found, by_grid_sample(*(tensor.float() for tensor in low)), atol=1e-6)


def test_predicted_offsets_begin_at_zero_and_stay_within_reach():
    torch.manual_seed(0)
    layer = PredictedDeformation(4, 5, reach_px=3.0)
    x = torch.randn(1, 4, 8, 9)
    offset, mask = layer.offsets_and_masks(x)
    assert not offset.any()
    assert torch.equal(mask, torch.ones_like(mask))
    assert torch.allclose(layer(x), functional.conv2d(x, layer.weight, padding=1), atol=1e-5)
    torch.nn.init.normal_(layer.where.weight, std=50)
    offset, mask = layer.offsets_and_masks(x)
    assert 2.9 < offset.abs().max() <= 3.0
    assert 0 <= mask.min() < mask.max() <= 2


def test_without_reach_predicted_offsets_are_a_convolution():
    layer = PredictedDeformation(2, 2, reach_px=0.0)
    assert torch.isfinite(layer(torch.randn(1, 2, 4, 4))).all()


def test_free_offsets_are_parameters_of_one_size():
    torch.manual_seed(0)
    layer = FreeDeformation(3, 4, 6, 7)
    assert {name: tuple(value.shape) for name, value in layer.named_parameters()} == {
        "weight": (4, 3, 3, 3),
        "offset": (1, 18, 6, 7),
        "mask": (1, 9, 6, 7),
    }
    assert all(0 <= value.min() < value.max() <= 1 for value in layer.parameters())
    assert layer(torch.randn(2, 3, 6, 7)).shape == (2, 4, 6, 7)
    with pytest.raises(ModelError, match="tied to a picture of 6 x 7 px"):
        layer(torch.randn(1, 3, 7, 6))
