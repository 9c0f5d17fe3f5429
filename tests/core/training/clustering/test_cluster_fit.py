"""A fit is seeded, reports every step, never keeps too few clusters, and takes regions of any size."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stained import stained_picture

from napari_nucleiseg.core.errors import DataError, ModelError
from napari_nucleiseg.core.evaluation import foreground_scores
from napari_nucleiseg.core.training.clustering import fit
from napari_nucleiseg.core.training.clustering.apply import as_input, label_everywhere, to_labels
from napari_nucleiseg.core.training.clustering.choice import proposed_clusters, ranked
from napari_nucleiseg.core.training.clustering.config import PRESETS, ClusterConfig, load_cluster_config, preset
from napari_nucleiseg.core.training.clustering.crops import NOT_SEEN, crops_of
from napari_nucleiseg.core.training.clustering.fit import cluster, count_clusters

SMALL = ClusterConfig(width=8, blocks=1, iterations=6, least_iterations=6, min_clusters=3, device="cpu")


def last(*arguments, **more):
    *_, step = cluster(*arguments, **more)
    return step


def test_every_step_reports_labels_clusters_and_losses():
    image, _ = stained_picture()
    steps = list(cluster(image, SMALL))
    *fitting, end = steps
    assert [step.iteration for step in fitting] == [1, 2, 3, 4, 5, 6]
    for step in fitting:
        assert step.labels.shape == image.shape[:2]
        assert step.labels.dtype == np.int16
        assert 1 <= step.clusters <= 8
        assert set(step.losses) == {"total", "pseudo_label", "affine", "spatial", "boundary"}
        assert step.result is None
    assert end.result is not None
    assert np.array_equal(end.result.labels, end.labels)


def test_a_seed_gives_the_same_clusters_and_leaves_other_random_numbers_alone():
    image, _ = stained_picture()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, other, third = (last(image, settings_) for settings_ in (SMALL, SMALL, replace_seed(1)))
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(one.labels, other.labels)
    assert not np.array_equal(one.labels, third.labels)


def replace_seed(seed):
    return replace(SMALL, seed=seed)


def test_closing_stops_at_once_and_enough_keeps_what_there_is():
    image, _ = stained_picture()
    steps = cluster(image, SMALL)
    next(steps)
    steps.close()
    assert list(steps) == []
    answers = itertools.chain([False], itertools.repeat(True))
    ended = list(cluster(image, SMALL, enough=lambda: next(answers)))
    assert [step.iteration for step in ended[:-1]] == [1, 2]
    assert ended[-1].result is not None


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 100), least=st.integers(2, 6), rate=st.sampled_from([0.05, 0.5, 5.0]))
def test_no_fewer_clusters_are_kept_than_asked_for_if_there_ever_were_as_many(seed, least, rate):
    image, _ = stained_picture(36, 40)
    config = ClusterConfig(width=8, blocks=1, iterations=8, min_clusters=least, learning_rate=rate, seed=seed)
    *fitting, end = cluster(image, config)
    most = max([step.clusters for step in fitting] or [0])
    assert end.clusters >= min(least, most)
    assert count_clusters(end.labels, config.least_share) == end.clusters


def test_it_stops_when_few_clusters_are_left():
    image, _ = stained_picture()
    config = ClusterConfig(width=8, blocks=1, min_clusters=8, least_iterations=3, device="cpu")
    *fitting, _end = cluster(image, config)
    assert len(fitting) == 2  # the third step finds no more than eight, learns nothing and ends the fit


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_runs(name):
    image, _ = stained_picture(33, 47)
    config = replace(preset(name), width=8, iterations=3)
    end = last(image, config)
    assert end.labels.shape == (33, 47)
    assert end.result.network.is_free == (config.offsets == "free")


def test_the_fitted_network_says_in_eval_mode_what_the_fit_said():
    image, _ = stained_picture()
    end = last(image, SMALL)
    with torch.inference_mode():
        again = to_labels(end.result.network.cluster_logits(as_input(image[None], torch.device("cpu"))))[0]
    assert (again == end.labels).mean() > 0.995
    assert not end.result.network.training


def test_discs_of_another_colour_are_clusters_and_proposed():
    image, mask = stained_picture(64, 64)
    labels = last(image, ClusterConfig(width=16, blocks=1, iterations=12, min_clusters=4, device="cpu")).labels
    proposed = np.isin(labels, proposed_clusters(ranked(labels, image)))
    assert foreground_scores(mask.astype(np.uint8), proposed.astype(np.uint8)).dice > 0.75


def test_a_large_region_is_fitted_by_crops_and_labelled_whole():
    image, _ = stained_picture(150, 180)
    config = ClusterConfig(width=8, blocks=1, iterations=2, fit_px=64 * 64, device="cpu")
    first, _second, end = cluster(image, config)
    seen = first.labels != NOT_SEEN
    assert seen.sum() == 64 * 64
    assert (end.labels != NOT_SEEN).all()


def test_labels_of_a_large_picture_do_not_show_tiles(monkeypatch):
    image, _ = stained_picture(90, 100)
    network = last(image, SMALL).result.network
    whole = label_everywhere(network, image, torch.device("cpu"))
    monkeypatch.setattr("napari_nucleiseg.core.training.clustering.apply.TILE_PX", 32)
    assert (label_everywhere(network, image, torch.device("cpu")) == whole).mean() > 0.9999


@settings(max_examples=30, deadline=None)
@given(height=st.integers(32, 300), width=st.integers(32, 300), fit_side=st.integers(64, 200), seed=st.integers(0, 9))
def test_crops_are_bounded_and_lie_apart_within_the_picture(height, width, fit_side, seed):
    image, _ = stained_picture(height, width)
    config = ClusterConfig(fit_px=fit_side**2, seed=seed)
    crops = crops_of(image, config)
    count, tall, wide, _ = crops.pixels.shape
    assert count * tall * wide <= config.fit_px
    assert crops.whole == (height * width <= config.fit_px)
    covered = np.zeros((height, width), int)
    for (y, x), pixels in zip(crops.places, crops.pixels, strict=True):
        assert np.array_equal(image[y : y + tall, x : x + wide], pixels)
        covered[y : y + tall, x : x + wide] += 1
    assert covered.sum() == count * tall * wide
    assert covered.max() == 1


def test_crops_are_taken_where_there_is_tissue():
    image = np.full((192, 192, 3), 245, np.uint8)
    image[128:, 128:] = stained_picture(64, 64)[0]
    for seed in range(5):
        assert crops_of(image, ClusterConfig(fit_px=64 * 64, seed=seed)).places == ((128, 128),)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.full((64, 64, 3), 244, np.uint8), r"white \(glass\): there is nothing to tell apart"),
        (np.full((64, 64, 3), (120, 60, 130), np.uint8), "of one colour: there is nothing to tell apart"),
        (np.zeros((20, 64, 3), np.uint8), "too small to be clustered; choose one of at least 32 x 32 px"),
        (np.zeros((64, 64), np.uint8), "8-bit RGB"),
    ],
)
def test_what_cannot_be_clustered_is_said(image, sentence):
    with pytest.raises(DataError, match=sentence):
        next(cluster(image, SMALL))


def test_the_noise_of_a_camera_on_glass_is_no_content():
    noise = np.random.default_rng(0).normal(240, 2, (128, 128, 3))
    with pytest.raises(DataError, match="glass"):
        next(cluster(np.clip(noise, 0, 255).astype(np.uint8), SMALL))


def test_free_offsets_want_a_region_that_is_fitted_at_once():
    image, _ = stained_picture(90, 90)
    with pytest.raises(ModelError, match="free offsets are tied to one picture"):
        next(cluster(image, ClusterConfig(width=8, offsets="free", fit_px=64 * 64)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"iterations": 0}, "iterations must be between 1"),
        ({"offsets": "guessed"}, "offsets must be predicted or free, not guessed"),
        ({"width": 4}, "cannot be more than the clusters to begin with"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        (
            {"pseudo_label_weight": 0, "affine_weight": 0, "boundary_weight": 0, "spatial": "published"},
            "at least one loss that has a gradient",
        ),
    ],
)
def test_wrong_settings_are_said(change, sentence):
    with pytest.raises(DataError, match=sentence):
        next(cluster(stained_picture()[0], ClusterConfig(**change)))


def test_settings_come_from_a_file(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"boundary_beta": 4, "spatial": "soft"}')
    assert load_cluster_config(str(path)) == ClusterConfig(boundary_beta=4, spatial="soft")
    path.write_text('{"beta": 4}')
    with pytest.raises(DataError, match="unknown fields: beta"):
        load_cluster_config(str(path))
    with pytest.raises(DataError, match="there are default, "):
        preset("best")


def test_a_step_that_is_too_large_ends_the_fit_with_what_there_was(monkeypatch):
    image, _ = stained_picture()
    real = fit.cluster_losses

    def broken(said, config, draw, iteration):
        losses = real(said, config, draw, iteration)
        return losses._replace(total=losses.total * float("nan")) if iteration == 3 else losses

    monkeypatch.setattr(fit, "cluster_losses", broken)
    *fitting, end = cluster(image, SMALL)
    assert len(fitting) == 2
    assert end.result is not None
