"""Steps before and after a foreign network do what the bioimage.io format says of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.steps import apply_steps, why_not


def step(name, **kwargs):
    return {"id": name, "kwargs": kwargs}


@pytest.fixture(scope="module")
def x():
    return torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (2, 3, 9, 7)).astype(np.float32))


def test_fixed_figures_are_subtracted_and_divided_by_for_each_channel(x):
    mean, std = [10.0, 20.0, 30.0], [1.0, 2.0, 4.0]
    found = apply_steps(x, [step("fixed_zero_mean_unit_variance", axis="channel", mean=mean, std=std)])
    for channel in range(3):
        assert torch.allclose(found[:, channel], (x[:, channel] - mean[channel]) / std[channel])


def test_linear_steps_follow_each_other(x):
    found = apply_steps(
        x, [step("scale_linear", gain=2.0), step("scale_linear", axis="channel", offset=[1.0, 2.0, 3.0])]
    )
    assert torch.allclose(found[:, 2], 2 * x[:, 2] + 3)


@pytest.mark.parametrize("axes", [None, ["channel", "y", "x"], ["y", "x"]])
def test_the_mean_becomes_0_and_the_deviation_1_over_the_axes_that_are_named(x, axes):
    found = apply_steps(x, [step("zero_mean_unit_variance", **({} if axes is None else {"axes": axes}))])
    over = {None: (0, 1, 2, 3), 3: (1, 2, 3), 2: (2, 3)}[axes and len(axes)]
    assert torch.allclose(found.mean(dim=over), torch.zeros(()), atol=1e-5)
    assert torch.allclose(found.std(dim=over, correction=0), torch.ones(()), atol=1e-5)


@given(low=st.floats(0, 40), high=st.floats(50, 100))
def test_percentiles_are_those_of_numpy(low, high):
    values = np.random.default_rng(1).normal(100, 30, (2, 3, 8, 5)).astype(np.float32)
    found = apply_steps(
        torch.from_numpy(values), [step("scale_range", axes=["y", "x"], min_percentile=low, max_percentile=high)]
    )
    bottom, top = np.percentile(values, [low, high], axis=(2, 3), keepdims=True)
    assert np.allclose(found.numpy(), (values - bottom) / (top - bottom + 1e-6), atol=1e-3)


def test_clipping_sigmoid_and_softmax(x):
    assert apply_steps(x, [step("clip", min=10.0, max=20.0)]).min() >= 10
    assert torch.allclose(apply_steps(x, [step("sigmoid")]), torch.sigmoid(x))
    shares = apply_steps(x, [step("softmax", axis="channel")])
    assert torch.allclose(shares.sum(dim=1), torch.ones(2, 9, 7))


def test_a_type_is_made(x):
    assert apply_steps(x, [step("ensure_dtype", dtype="uint8")]).dtype == torch.uint8


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (step("binarize", threshold=0.5), "binarize"),
        (step("zero_mean_unit_variance", axes=["z"]), "axis z"),
        (step("ensure_dtype", dtype="bool"), "type bool"),
        (step("scale_range", reference_tensor="raw"), "second tensor"),
    ],
)
def test_what_cannot_be_done_is_said_and_refused(x, wrong, why):
    assert why in why_not([wrong])
    with pytest.raises(ModelError, match=why):
        apply_steps(x, [wrong])
