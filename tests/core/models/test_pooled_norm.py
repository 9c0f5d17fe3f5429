"""What was pooled to one value a channel can be normalised while learning from a single picture."""

import pytest
import torch
from torch import nn

from napari_nucleiseg.core.models.pooled_norm import PooledBatchNorm


@pytest.fixture
def norm():
    return PooledBatchNorm(2).train()


def test_a_single_value_is_refused_by_torch_and_normalised_here(norm):
    x = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.BatchNorm2d(2).train()(x)
    norm.running_mean.copy_(torch.tensor([1.0, -1.0]))
    norm.running_var.fill_(4.0)
    assert torch.allclose(norm(x).flatten(), torch.tensor([1.0, -0.5]), atol=1e-4)
    assert norm.running_mean.tolist() == [1.0, -1.0], "one value says nothing of the others"


def test_two_pictures_are_normalised_as_torch_does(norm):
    torch.manual_seed(0)
    x, plain = torch.randn(2, 2, 1, 1), nn.BatchNorm2d(2).train()
    assert torch.equal(norm(x), plain(x))
    assert torch.equal(norm.running_var, plain.running_var)


def test_it_learns_from_a_single_value(norm):
    norm(torch.ones(1, 2, 1, 1)).sum().backward()
    assert norm.weight.grad.abs().min() > 0
