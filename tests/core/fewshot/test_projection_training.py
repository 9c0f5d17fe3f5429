"""Episodes teach a projection: seeded, cancellable, from superpixels or labels; its file."""

import numpy as np
import pytest

from napari_nucleiseg.core.errors import DataError, WeightsError
from napari_nucleiseg.core.fewshot.episodes import EpisodeView, episode_view, superpixels_of
from napari_nucleiseg.core.fewshot.field import colour_field, field_of
from napari_nucleiseg.core.fewshot.projection import (
    Projection,
    ProjectionConfig,
    load_projection,
    save_projection,
    train_projection,
)
from napari_nucleiseg.core.models.weights import load_model


def planted_view(*, is_class, seed=0, size=33):
    """Two channels tell segments from the rest, six are noise sixteen times as strong."""
    rng = np.random.default_rng(seed)
    segments = np.zeros((size, size), np.int32)
    for number, (y, x) in enumerate(((y, x) for y in range(2, size - 6, 9) for x in range(2, size - 6, 9)), start=1):
        segments[y : y + 5, x : x + 5] = number

    def features():
        noise = rng.normal(0, 0.3, (8, size, size))
        noise[2:] *= 4
        noise[0] += segments > 0
        noise[1] -= segments > 0
        return noise.astype(np.float32)

    return EpisodeView(features(), features(), segments, is_class)


def test_episodes_of_labels_lower_the_loss_and_find_the_channels_that_tell():
    config = ProjectionConfig(steps=60, side=32, window=0, learning_rate=0.05)
    steps = list(train_projection([planted_view(is_class=True)], config))
    losses = [step.loss for step in steps]
    assert np.mean(losses[-15:]) < 0.9 * np.mean(losses[:5])
    strength = np.linalg.norm(steps[-1].projection.weight, axis=0)
    assert strength[:2].min() > strength[2:].max()
    assert any(step.alignment > 0 for step in steps)


@pytest.mark.parametrize("window", [0, 4])
def test_the_same_seed_gives_the_same_projection(window):
    views = [planted_view(is_class=False), planted_view(is_class=False, seed=1)]

    def last(seed):
        *_, step = train_projection(views, ProjectionConfig(steps=8, side=24, window=window, seed=seed))
        return step.projection.weight

    np.testing.assert_array_equal(last(0), last(0))
    assert not np.array_equal(last(0), last(1))


def test_whoever_stops_keeps_what_was_learned():
    steps = train_projection([planted_view(is_class=True)], ProjectionConfig(steps=1000, side=24))
    first, second = next(steps), next(steps)
    steps.close()
    assert (first.step, second.step, second.total) == (1, 2, 1000)
    assert not np.array_equal(first.projection.weight, second.projection.weight)


def test_views_of_a_network_with_superpixels_or_labels(two_kinds):
    model = load_model("nuclei-label-free")
    free = episode_view(model, two_kinds.image, 0.5, seed=3)
    taught = episode_view(model, two_kinds.image, 0.5, two_kinds.labels)
    assert (free.is_class, taught.is_class) == (False, True)
    assert set(np.unique(taught.segments)) == set(np.unique(two_kinds.labels))
    assert free.segments.min() == 1
    assert not np.array_equal(free.features, free.other)
    *_, step = train_projection([free], ProjectionConfig(steps=3, side=32))
    assert np.isfinite(step.loss)
    seen = step.projection.apply(field_of(model, two_kinds.image, 0.5))
    assert seen.features.shape == free.features.shape
    with pytest.raises(DataError, match="must be equal"):
        episode_view(model, two_kinds.image, 0.5, two_kinds.labels[:9])


def test_both_kinds_of_superpixels_cover_the_view(two_kinds):
    field = colour_field(two_kinds.image, 0.5)
    for method in ("felzenszwalb", "slic"):
        found = superpixels_of(two_kinds.image, field, method)
        assert found.shape == field.features.shape[1:]
        assert found.min() == 1
        assert found.max() > 20
    with pytest.raises(DataError, match="no superpixels called watershed"):
        superpixels_of(two_kinds.image, field, "watershed")


def test_a_projection_comes_back_from_its_file_and_fits_only_its_layers(two_kinds, tmp_path):
    field = colour_field(two_kinds.image, 0.5)
    weight = np.random.default_rng(0).normal(size=(4, field.channels)).astype(np.float32)
    save_projection(tmp_path / "p.safetensors", Projection(weight, ("colour",)))
    found = load_projection(tmp_path / "p.safetensors")
    np.testing.assert_array_equal(found.weight, weight)
    assert found.apply(field).channels == 4
    with pytest.raises(DataError, match="trained on"):
        Projection(weight, ("decoder.0",)).apply(field)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    for name in ("bad.safetensors", "missing.safetensors"):
        with pytest.raises(WeightsError, match="no projection"):
            load_projection(tmp_path / name)
    with pytest.raises(WeightsError, match="cannot be written"):
        save_projection(tmp_path / "no" / "folder" / "p.safetensors", found)


def test_nothing_to_learn_from_gets_a_sentence():
    view = planted_view(is_class=True)
    empty = EpisodeView(view.features, view.other, np.zeros_like(view.segments), is_class=True)
    other = EpisodeView(view.features[:3], view.other[:3], view.segments, is_class=True)
    for views, config, said in (
        ([], ProjectionConfig(), "missing"),
        ([view, other], ProjectionConfig(), "different layers"),
        ([empty], ProjectionConfig(), "nothing to learn"),
        ([view], ProjectionConfig(steps=0), "at least one step"),
        ([view], ProjectionConfig(learning_rate=0.0), "learning rate"),
    ):
        with pytest.raises(DataError, match=said):
            list(train_projection(views, config))
