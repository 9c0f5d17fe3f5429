"""Crops have their sizes, change as they should, and lie together by size."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.dino.grids import GridSamples
from napari_nucleiseg.core.training.dino.patches import PatchSamples
from napari_nucleiseg.core.training.dino.picture_crops import jitter_colours, patch_views, resized_crop
from napari_nucleiseg.core.training.dino.views import BatchMaker, grouped

STILL = DinoConfig(global_px=32, local_px=16, flip=0.0, jitter_share=0.0, grey=0.0, solarise=0.0, blur=(0.0, 0.0, 0.0))


@pytest.fixture
def patch():
    """Colours that are dark above and left, without any flat place."""
    y, x = np.mgrid[:64, :64]
    return np.stack([4 * y // 2 + 20, 3 * x + 10, y + x + 30], axis=-1).astype(np.uint8)


def test_views_have_their_number_and_sizes_and_cover_their_share(patch):
    large, small = patch_views(patch, DinoConfig(global_px=32, local_px=16), np.random.default_rng(0))
    assert [view.shape for view in large] == [(32, 32, 3)] * 2
    assert [view.shape for view in small] == [(16, 16, 3)] * 8
    for scale in ((0.4, 1.0), (0.05, 0.4)):
        covered = []
        for seed in range(200):
            view = resized_crop(patch, 16, scale, np.random.default_rng(seed)).astype(float)
            # Red goes 2 a row and green 3 a column, over 15 of 16 pixels from middle to middle.
            height, width = (view[-1, :, 0] - view[0, :, 0]).mean() / 2, (view[:, -1, 1] - view[:, 0, 1]).mean() / 3
            covered.append(height * width * (16 / 15) ** 2 / 64**2)
        assert scale[0] * 0.7 < min(covered) < scale[0] * 1.5
        assert scale[1] * 0.8 < max(covered) < scale[1] * 1.1


@pytest.mark.parametrize("change", [{"flip": 1.0}, {"grey": 1.0}, {"blur": (1.0, 1.0, 1.0)}, {"jitter_share": 1.0}])
def test_each_change_does_what_it_says_and_nothing_else(patch, change):
    (plain, *_), _ = patch_views(patch, STILL, np.random.default_rng(0))
    (changed, *_), _ = patch_views(patch, replace(STILL, **change), np.random.default_rng(0))
    assert not np.array_equal(plain, changed)
    if "flip" in change:
        assert np.array_equal(changed, plain[:, ::-1])
    if "grey" in change:
        assert np.ptp(changed, axis=2).max() <= 1
    if "blur" in change:
        assert np.abs(np.diff(changed.astype(int), axis=0)).sum() <= np.abs(np.diff(plain.astype(int), axis=0)).sum()


def test_turns_are_by_quarters_and_off_by_default(patch):
    def first(config, seed):
        return patch_views(patch, config, np.random.default_rng(seed))[0][0].astype(int)

    turned, plain = replace(STILL, turns=True), [first(STILL, seed) for seed in range(12)]
    assert all(view[0].mean() < view[-1].mean() for view in plain)
    seen = {tuple(np.sign(first(turned, seed)[[0, -1]].mean(axis=(1, 2)) - 100)) for seed in range(12)}
    assert len(seen) > 1


def test_bright_pixels_of_the_second_view_alone_turn_negative(patch):
    large, small = patch_views(patch, replace(STILL, solarise=1.0), np.random.default_rng(1))
    assert large[1].max() < 128 < large[0].max()
    assert max(view.max() for view in small) > 128


def test_jitter_changes_by_no_more_than_its_strength(patch):
    for seed in range(20):
        bright = jitter_colours(patch, (0.4, 0.0, 0.0, 0.0), np.random.default_rng(seed)).astype(float)
        inside = (bright > 0) & (bright < 255)
        ratio = bright[inside] / patch[inside]
        assert 0.58 < np.median(ratio) < 1.42
        assert np.array_equal(jitter_colours(patch, (0.0, 0.0, 0.0, 0.0), np.random.default_rng(seed)), patch)


def test_crops_of_regions_are_published_sizes_and_parts_of_the_grid():
    grid = np.arange(16 * 16 * 3, dtype=np.float32).reshape(16, 16, 3)
    samples = GridSamples([grid], DinoConfig(flip=0.5))
    large, small = samples.crops(np.random.default_rng(0))
    assert [crop.shape for crop in large] == [(14, 14, 3)] * 2
    assert [crop.shape for crop in small] == [(6, 6, 3)] * 8
    steps = {float(crop[0, 1, 0] - crop[0, 0, 0]) for crop in (*large, *small)}
    assert steps == {3.0, -3.0}
    assert all(np.isin(crop, grid).all() for crop in (*large, *small))


@pytest.mark.parametrize(("shape", "large", "small"), [((2, 2), (2, 2), (1, 1)), ((8, 5), (7, 4), (3, 2))])
def test_of_smaller_grids_crops_are_smaller_in_proportion(shape, large, small):
    found = GridSamples([np.zeros((*shape, 3), np.float32)], DinoConfig()).crops(np.random.default_rng(0))
    assert found[0][0].shape[:2] == large
    assert found[1][0].shape[:2] == small


def test_crops_of_one_size_lie_together_and_come_back_in_order():
    sizes = [[4, 4, 2], [3, 3, 1], [4, 4, 2]]
    samples = [
        [np.full((size, size, 1), 10 * place + view, np.float32) for view, size in enumerate(row)]
        for place, row in enumerate(sizes)
    ]
    views = grouped(samples)
    assert sorted(tuple(group.shape[:3]) for group in views.groups) == [(1, 1, 1), (2, 2, 2), (2, 3, 3), (4, 4, 4)]
    said = views.encode(lambda group: group.mean(dim=(1, 2)))
    assert said[:, 0].tolist() == [0, 10, 20, 1, 11, 21, 2, 12, 22]


def test_a_batch_is_the_same_whoever_makes_its_parts(patch):
    samples = PatchSamples(np.stack([patch, patch[::-1]]), replace(STILL, local_crops=3))
    whole = BatchMaker(samples, seed=3, size=4).batch(7)
    parts = [BatchMaker(samples, seed=3, size=4, part=range(2 * part, 2 * part + 2)).batch(7) for part in range(2)]
    for views in ("seen_by_both", "local"):
        together = getattr(whole, views).groups[0].unflatten(0, (-1, 4))
        split = [getattr(part, views).groups[0].unflatten(0, (-1, 2)) for part in parts]
        assert torch.equal(together, torch.cat(split, dim=1))
    other = BatchMaker(samples, seed=3, size=4).batch(8)
    assert not torch.equal(other.local.groups[0], whole.local.groups[0])
