"""Losses of a clustering: which have a gradient, what they are least for, and that each can be switched off."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.models.s3net import Clusters
from napari_nucleiseg.core.training.clustering.affine import AffineDraw, random_affine, valid_share, warp
from napari_nucleiseg.core.training.clustering.config import ClusterConfig, preset
from napari_nucleiseg.core.training.clustering.losses import (
    boundary_refinement,
    cluster_losses,
    pseudo_label_loss,
    published_spatial,
    response_spatial,
    rotated_consistency,
    soft_spatial,
    warped_consistency,
)


def logits(seed=0, clusters=5, height=24, width=20, batch=1):
    return torch.randn(batch, clusters, height, width, generator=torch.Generator().manual_seed(seed))


def sure(labels, clusters=3):
    """Logits that leave no doubt about labels ``(y, x)``."""
    return 50 * torch.nn.functional.one_hot(labels, clusters).permute(2, 0, 1)[None].float()


def halves(height=32, width=32):
    labels = torch.zeros(height, width, dtype=torch.int64)
    labels[:, width // 2 :] = 1
    return labels


def said(seed=0):
    main, auxiliary = logits(seed).requires_grad_(), logits(seed + 1).requires_grad_()
    return Clusters(main, auxiliary, logits(seed + 2, clusters=7))


def draw(seed=0, channels=7):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AffineDraw(channels, torch.Generator().manual_seed(seed))


def test_pseudo_labels_pull_each_pixel_to_its_highest_cluster():
    main = logits().requires_grad_()
    pseudo_label_loss(main).backward()
    highest = torch.nn.functional.one_hot(main.argmax(1), 5).permute(0, 3, 1, 2).bool()
    assert (main.grad[highest] < 0).all()
    assert (main.grad[~highest] > 0).all()
    assert float(pseudo_label_loss(sure(halves()))) == pytest.approx(0, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), height=st.integers(2, 9), width=st.integers(2, 9))
def test_the_published_turn_of_both_branches_cancels_out(seed, height, width):
    main, auxiliary = logits(seed, 4, height, width), logits(seed + 1, 4, height, width)
    plain = torch.nn.functional.cross_entropy(auxiliary, main.argmax(1))
    assert float(rotated_consistency(main, auxiliary)) == pytest.approx(float(plain), rel=1e-5)


def test_only_the_auxiliary_branch_learns_from_a_transform():
    given_ = said()
    rotated_consistency(given_.main, given_.auxiliary).backward()
    assert given_.main.grad is None
    assert given_.auxiliary.grad.abs().sum() > 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), push=st.floats(-100, 100))
def test_a_learned_transform_is_never_near_the_identity(seed, push):
    module = draw(seed)
    torch.nn.init.constant_(module.correct[-1].bias, push)
    theta = module(logits(seed, 7, 16, 16))
    assert float((theta[0, :, :2] - torch.eye(2)).detach().norm()) > 0.4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), height=st.integers(8, 40), width=st.integers(8, 40))
def test_a_random_transform_turns_in_pixels_whatever_the_shape(seed, height, width):
    theta = random_affine(1, width / height, torch.Generator().manual_seed(seed))[0, :, :2]
    # From -1..1 to pixels and back.
    half = torch.tensor([width / 2, height / 2])
    in_pixels = half[:, None] * theta / half[None, :]
    scale = in_pixels.det().sqrt()
    assert 0.79 < scale < 1.26
    assert torch.allclose(in_pixels @ in_pixels.T, scale**2 * torch.eye(2), atol=1e-4)
    assert math.cos(math.pi / 6) + 1e-4 >= float(in_pixels[0, 0] / scale)


def test_the_identity_and_a_quarter_turn_warp_as_they_should():
    maps = logits(0, 2, 6, 6)
    identity = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    assert torch.allclose(warp(maps, identity), maps, atol=1e-5)
    quarter = torch.tensor([[[0.0, -1, 0], [1, 0, 0]]])
    assert torch.allclose(warp(maps, quarter), torch.rot90(maps, 1, (2, 3)), atol=1e-5)
    assert valid_share(quarter, (6, 6)).all()
    assert not valid_share(torch.tensor([[[1.0, 0, 3], [0, 1, 0]]]), (6, 6)).any()


def test_the_correction_of_a_transform_is_learned():
    given_, module = said(), draw()
    warped_consistency(given_.main, given_.auxiliary, module(given_.features)).backward()
    assert module.correct[-1].weight.grad.abs().sum() > 0
    assert given_.main.grad is None


def test_the_soft_spatial_term_counts_borders_and_has_a_gradient():
    # One border of 32 pixels among 32 x 31 pairs beside each other, none among those below each other.
    assert float(soft_spatial(sure(halves()))) == pytest.approx(2 / 31 / 2, rel=1e-4)
    assert float(soft_spatial(sure(torch.zeros(8, 8, dtype=torch.int64)))) == pytest.approx(0, abs=1e-6)
    main = logits().requires_grad_()
    soft_spatial(main).backward()
    assert main.grad.abs().sum() > 0


def test_the_responses_of_neighbours_differ_by_their_logits():
    main = torch.zeros(1, 2, 4, 5)
    main[0, 0, :, 3:] = 10
    # One of four steps to the right in one of two channels, none down.
    assert float(response_spatial(main)) == pytest.approx(10 / 4 / 2)
    # Where no cluster stands out the soft assignment hardly tells, the responses do.
    faint = (logits() * 0.01).requires_grad_()
    response_spatial(faint).backward()
    by_responses = float(faint.grad.abs().sum())
    faint.grad = None
    soft_spatial(faint).backward()
    assert by_responses > float(faint.grad.abs().sum()) > 0


def test_the_published_spatial_term_has_no_gradient():
    main = logits().requires_grad_()
    term = published_spatial(main, 0)
    assert float(term) > 0
    assert not term.requires_grad
    assert float(published_spatial(sure(torch.zeros(8, 8, dtype=torch.int64)), 0)) == 0


def test_the_boundary_refinement_wants_what_survives_shrinking():
    main = logits(height=40, width=37).requires_grad_()
    boundary_refinement(main, 16).backward()
    assert main.grad.abs().sum() > 0
    assert float(boundary_refinement(sure(torch.ones(40, 37, dtype=torch.int64)), 16)) == pytest.approx(0, abs=1e-5)
    speck, half = torch.zeros(32, 32, dtype=torch.int64), halves()
    speck[::8, ::8] = 1
    assert speck.sum() < half.sum()
    finest = float(boundary_refinement(sure(speck), 16)), float(boundary_refinement(sure(speck), 2))
    # Specks vanish altogether; half a picture only blurs at its border.
    assert finest[0] == pytest.approx(2 * 16 / 1024, rel=0.1)
    assert 0 < float(boundary_refinement(sure(half), 2)) < float(boundary_refinement(sure(half), 16)) < 0.25


@pytest.mark.parametrize("term", ["pseudo_label", "affine", "spatial", "boundary"])
@pytest.mark.parametrize("forms", [{}, {"affine": "rotation", "spatial": "published"}])
def test_a_weight_of_zero_switches_its_term_off(term, forms):
    weights = {"pseudo_label_weight": 1.0, "affine_weight": 1.0, "spatial_weight": 1.0, "boundary_weight": 1.0}
    on = ClusterConfig(**weights, **forms)
    off = ClusterConfig(**{**weights, f"{term}_weight": 0.0}, **forms)
    with_it, without = (cluster_losses(said(), config, draw(), 1).as_dict() for config in (on, off))
    assert with_it[term] > 0
    assert without[term] == 0
    assert with_it["total"] - without["total"] == pytest.approx(with_it[term], rel=1e-4)


def test_the_published_spatial_term_only_shifts_the_total():
    grads = []
    for weight in (0.0, 4.0):
        given_ = said()
        config = ClusterConfig(spatial="published", spatial_weight=weight)
        cluster_losses(given_, config, draw(), 1).total.backward()
        grads.append(given_.main.grad)
    assert torch.equal(*grads)


def test_weights_are_those_that_were_published():
    def weights(name):
        config = preset(name)
        return config.pseudo_label_weight, config.affine_weight, config.spatial_weight, config.learning_rate

    assert weights("published") == (3.5, 0.2, 4.0, 0.36)
    assert weights("repository-first") == (3.0, 0.2, 4.0, 0.35)
    assert weights("repository-last") == (3.5, 0.2, 4.0, 0.2)
    boundary = preset("boundary")
    assert (boundary.pseudo_label_weight, boundary.affine_weight, boundary.boundary_weight) == (3.5, 0.5, 2.0)
    assert (boundary.spatial_weight, boundary.boundary_beta, boundary.learning_rate) == (0.0, 16, 0.36)
