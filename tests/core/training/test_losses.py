"""Losses: focal with gamma 0 is cross-entropy, unannotated pixels count for nothing, perfect maps cost nothing."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.training.losses import LOSSES, LossOptions, class_weights, cross_entropy, slopes, soft_dice


def random_batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    nuclei = (torch.rand(2, 1, 16, 16, generator=generator) > 0.6).float()
    return {
        "nuclei": nuclei,
        "separated": nuclei,
        "distance": nuclei * 0.5,
        "offsets": torch.randn(2, 2, 16, 16, generator=generator) * nuclei,
        "hover": torch.rand(2, 2, 16, 16, generator=generator) * nuclei,
        "attention": nuclei,
        "known": torch.ones(2, 1, 16, 16),
        "painted": torch.ones(2, 1, 16, 16),
        "weights": torch.rand(2, 1, 16, 16, generator=generator),
    }


def test_focal_with_gamma_zero_is_cross_entropy():
    batch = random_batch()
    logits = torch.randn(2, 1, 16, 16)
    plain = functional.binary_cross_entropy_with_logits(logits, batch["nuclei"])
    assert float(cross_entropy(logits, batch["nuclei"], batch["known"], gamma=0)) == pytest.approx(float(plain))


def test_focal_term_weighs_easy_pixels_down():
    easy, hard = torch.full((1, 1, 1, 1), 4.0), torch.full((1, 1, 1, 1), -1.0)
    one = torch.ones(1, 1, 1, 1)
    for logits in (easy, hard):
        p = torch.sigmoid(logits)
        expected = float(-((1 - p) ** 2) * torch.log(p))
        assert float(cross_entropy(logits, one, one, gamma=2)) == pytest.approx(expected, rel=1e-4)


def test_dice_is_that_of_the_formula():
    logits = torch.tensor([[[[20.0, 20.0, -20.0, -20.0]]]])
    target = torch.tensor([[[[1.0, 0.0, 1.0, 0.0]]]])
    # p = 1 1 0 0, g = 1 0 1 0: 2 * 1 / (2 + 2), each with the smoothing 1.
    assert float(soft_dice(logits, target, torch.ones_like(target))) == pytest.approx(1 - 3 / 5, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_unannotated_pixels_have_no_gradient(name):
    batch = random_batch()
    for what in ("known", "painted"):
        batch[what][:, :, :, 8:] = 0
    raw = torch.randn(2, batch[name].shape[1], 16, 16, requires_grad=True)
    LOSSES[name](raw, batch, LossOptions(focal_gamma=1.0)).backward()
    assert raw.grad[..., 8:].abs().max() == 0
    assert raw.grad[..., :8].abs().max() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_perfect_maps_cost_nothing(name):
    batch = random_batch()
    target = batch[name]
    raw = target if name in ("offsets", "hover") else torch.logit(target.clamp(1e-6, 1 - 1e-6))
    assert float(LOSSES[name](raw, batch, LossOptions())) < 1e-3


def test_the_ridge_between_neighbours_counts_on_background_only():
    batch = random_batch()
    batch["weights"] = torch.full((2, 1, 16, 16), 9.0)
    raw = torch.zeros(2, 1, 16, 16, requires_grad=True)
    LOSSES["separated"](raw, batch, LossOptions(dice=0)).backward()
    inside = batch["separated"] > 0
    # The gradient of cross-entropy at zero is half a weight: 1 inside, 1 + 9 outside.
    ratio = raw.grad[~inside].abs() / raw.grad[inside].abs().mean()
    assert torch.allclose(ratio, torch.full_like(ratio, 10.0))


def test_balanced_classes_count_the_same():
    target = torch.zeros(1, 1, 10, 10)
    target[..., :2] = 1
    known = torch.ones_like(target)
    known[..., 9:] = 0
    weights = class_weights(target, known) * known
    assert float(weights[target > 0].sum()) == pytest.approx(float(weights[target == 0].sum()))
    assert float(weights.sum()) == pytest.approx(90)


def hover_batch():
    """Two touching nuclei and what their distances are."""
    labels = np.zeros((24, 32), np.int32)
    labels[6:17, 4:15] = 1
    labels[6:17, 15:28] = 2
    maps = {key: torch.from_numpy(value)[None] for key, value in decoder("hover").targets(labels).items()}
    return maps | {"known": torch.ones(1, 1, 24, 32)}


def test_slopes_are_those_of_the_published_kernel():
    ys, xs = torch.meshgrid(torch.arange(12.0), torch.arange(15.0), indexing="ij")
    # Of a plane that rises by one a pixel: the sum of y^2 / (y^2 + x^2) over 24 of 25 pixels, which is half of 24.
    found = slopes(torch.stack([3 * ys + 7 * xs, 3 * ys + 7 * xs])[None])[:, :, 2:-2, 2:-2]
    assert torch.allclose(found[:, 0], torch.tensor(36.0))
    assert torch.allclose(found[:, 1], torch.tensor(84.0))


def test_distances_cost_their_squared_error_and_that_of_their_slopes():
    batch = hover_batch()
    shifted = batch["hover"] + 0.5
    inside = batch["nuclei"] > 0  # far from the picture's edge, where all neighbours are shifted alike
    assert inside[..., 2:-2, 2:-2].sum() == inside.sum()
    assert float(LOSSES["hover"](shifted, batch, LossOptions())) == pytest.approx(0.25, rel=1e-4)
    smooth = torch.zeros_like(batch["hover"])
    error = (batch["hover"] ** 2).mean() + (slopes(batch["hover"]) ** 2)[inside.expand(-1, 2, -1, -1)].mean()
    assert float(LOSSES["hover"](smooth, batch, LossOptions())) == pytest.approx(float(error), rel=1e-5)


def test_a_slope_is_learnt_only_where_all_neighbours_are_annotated():
    batch = hover_batch()
    batch["known"][..., 16:] = 0
    raw = torch.randn(1, 2, 24, 32, requires_grad=True)
    LOSSES["hover"](raw, batch, LossOptions()).backward()
    assert raw.grad[..., 16:].abs().max() == 0
    # The outermost annotated columns learn their value, and no slope from what is unknown.
    changed = {**batch, "hover": torch.where(batch["known"] > 0, batch["hover"], 9.0)}
    plain = LOSSES["hover"](raw.detach(), batch, LossOptions())
    assert torch.equal(LOSSES["hover"](raw.detach(), changed, LossOptions()), plain)
