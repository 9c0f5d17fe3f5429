"""The map that is shown is the one that was wished for, cell by cell, where it lies on the slide."""

from dataclasses import replace

import numpy as np
import pytest

from napari_nucleiseg.core.attention.look import Looked
from napari_nucleiseg.core.attention.patches import plan_patches
from napari_nucleiseg.core.attention.shown import MapWish, all_heads, query_map, region_query_map, shown_map
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.tissue import TissueMask
from napari_nucleiseg.core.store.tokens import PatchTokens
from tiny_encoders import SIDE, TOKEN, patch_encoder, slide_of

SPEC = patch_encoder().spec  # 3 layers of 3 heads on 4 x 4 tokens of 8 px
SLIDE = slide_of(np.zeros((400, 400, 3), np.uint8), mpp=YX(0.25, 0.5))  # rows half as large as columns
PLAN = plan_patches(SLIDE, SPEC, Region(64, 32, 128, 96))


def heads_of(rng, layers, *shape):
    return rng.random((layers, *shape)).astype(np.float16)


def looked_at(seed=0, plan=PLAN, *, with_region=True, known=None):
    """A view about which random things are known."""
    rng = np.random.default_rng(seed)
    tokens = {
        tile: PatchTokens(
            rng.normal(size=12).astype(np.float16), heads_of(rng, 3, 3, 4, 4), rng.random((4, 4)).astype(np.float16)
        )
        for tile in plan.tiles
    }
    shape = plan.rows, plan.columns
    region = PatchTokens(np.zeros(8, np.float16), heads_of(rng, 2, 2, *shape), rng.random(shape).astype(np.float16))
    kept = dict(list(tokens.items())[:known])
    return Looked(plan, kept, region if with_region else None)


def raw_of(looked, layer, head):
    """Attention of a head laid out token by token, the slow way."""
    plan = looked.plan
    out = np.full((plan.rows * 4, plan.columns * 4), np.nan, np.float32)
    for tile, tokens in looked.patches.items():
        row, column = plan.place_of(tile)
        for y in range(4):
            for x in range(4):
                out[row * 4 + y, column * 4 + x] = head(tokens, layer)[y, x]
    return out


def one(number):
    return lambda tokens, layer: tokens.attention[layer, number].astype(np.float32)


def mean(tokens, layer):
    return tokens.attention[layer].astype(np.float32).mean(axis=0)


def largest(tokens, layer):
    return tokens.attention[layer].astype(np.float32).max(axis=0)


def rollout(tokens, _layer):
    return tokens.rollout.astype(np.float32)


HEADS = {"0": one(0), "2": one(2), "mean": mean, "max": largest, "rollout": rollout}


def ranks(values):
    """Percentiles within one input, ties at their mean rank, NaN left out."""
    known = values[~np.isnan(values)]
    below = [(known < value).sum() + ((known == value).sum() + 1) / 2 for value in known]
    out = np.full(values.shape, np.nan)
    out[~np.isnan(values)] = np.array(below) / max(len(known), 1)
    return out


def per_patch(values, function):
    """Apply to each patch of a map by itself."""
    out = np.empty(values.shape)
    for y in range(0, values.shape[0], 4):
        for x in range(0, values.shape[1], 4):
            out[y : y + 4, x : x + 4] = function(values[y : y + 4, x : x + 4])
    return out


def test_tokens_lie_where_they_were_seen():
    assert (PLAN.rows, PLAN.columns, PLAN.origin) == (2, 3, YX(64, 32))
    shown = shown_map([looked_at()], MapWish())
    assert shown.values.shape == shown.grid.shape == (8, 12)
    assert shown.values.dtype == np.float32
    assert shown.grid.token_px == YX(2 * TOKEN, TOKEN)
    assert shown.grid.origin == YX(64, 32)
    region = shown_map([looked_at()], MapWish("region")).grid
    assert (region.shape, region.token_px, region.origin) == ((2, 3), YX(2 * SIDE, SIDE), YX(64, 32))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("layer", [-1, 0, 2])
def test_each_head_is_shown_as_it_is(head, layer):
    looked = looked_at()
    wanted = raw_of(looked, layer, HEADS[head])
    raw = shown_map([looked], MapWish(head=head, layer=layer, scale="raw"))
    np.testing.assert_allclose(raw.values, wanted, rtol=1e-6)
    shares = shown_map([looked], MapWish(head=head, layer=layer, scale="share"))
    np.testing.assert_allclose(shares.values, per_patch(wanted, lambda part: part / part.sum()), rtol=1e-5)
    percentiles = shown_map([looked], MapWish(head=head, layer=layer))
    np.testing.assert_allclose(percentiles.values, per_patch(wanted, ranks), rtol=1e-6)


@pytest.mark.parametrize(
    ("head", "wanted"),
    [("1", lambda said: said.attention[-1, 1]), ("mean", lambda said: said.attention[-1].astype(float).mean(0)),
     ("max", lambda said: said.attention[-1].max(0)), ("rollout", lambda said: said.rollout)],
)  # fmt: skip
def test_each_head_of_the_region_is_shown_as_it_is(head, wanted):
    looked = looked_at()
    shown = shown_map([looked], MapWish("region", region_head=head, scale="raw"))
    np.testing.assert_allclose(shown.values, wanted(looked.region), rtol=1e-3)
    first = shown_map([looked], MapWish("region", region_head="0", region_layer=0))
    np.testing.assert_allclose(first.values, ranks(looked.region.attention[0, 0].astype(float)), rtol=1e-6)


def tissue_of_tokens(inside):
    """A mask that is finer than tokens by two, of which the upper left corner of the slide is what is looked at."""
    mask = np.zeros((400 // 8, 400 // 4), np.bool_)
    mask[8:24, 8:32] = np.repeat(np.repeat(inside, 2, 0), 2, 1)
    return TissueMask(mask, YX(8.0, 4.0))


def test_glass_is_left_out_and_moves_no_rank():
    looked = looked_at()
    inside = np.random.default_rng(3).random((8, 12)) < 0.5
    inside[:4, :4] = False  # a patch of glass
    shown = shown_map([looked], MapWish(head="1"), tissue_of_tokens(inside)).values
    wanted = np.where(inside, raw_of(looked, -1, one(1)), np.nan)
    np.testing.assert_allclose(shown, per_patch(wanted, ranks), rtol=1e-6)
    cells = inside.reshape(2, 4, 3, 4).any(axis=(1, 3))
    region = shown_map([looked], MapWish("region", region_head="0"), tissue_of_tokens(inside)).values
    raw = looked.region.attention[-1, 0].astype(float)
    np.testing.assert_allclose(region, ranks(np.where(cells, raw, np.nan)), rtol=1e-6)


def test_what_is_not_known_yet_is_nan():
    looked = looked_at(known=4, with_region=False)
    for head in HEADS:
        shown = shown_map([looked], MapWish(head=head)).values
        assert np.isnan(shown[4:, 4:]).all()
        assert not np.isnan(shown[:4]).any()
        assert not np.isnan(shown[4:, :4]).any()


def test_nothing_known_is_all_nan_and_has_limits():
    shown = shown_map([looked_at(known=0, with_region=False)], MapWish(scale="raw"))
    assert np.isnan(shown.values).all()
    assert shown.limits == (0.0, 1.0)


@pytest.mark.parametrize(("step", "count"), [(4, 2), (2, 4), (3, 2), (16, 2)])
def test_shifted_maps_are_averaged_where_they_cover_the_view(step, count):
    plan = plan_patches(slide_of(np.zeros((400, 400, 3), np.uint8)), SPEC, Region(64, 32, 64, 96))
    looks = [looked_at(seed, moved) for seed, moved in enumerate(plan.shifts(step, count))]
    shown = shown_map(looks, MapWish(head="2"))
    height, width = 2 * SIDE, 3 * SIDE
    total, covered = np.zeros((height, width)), np.zeros((height, width))
    for looked in looks:  # pixel by pixel of the view
        scores = per_patch(raw_of(looked, -1, one(2)), ranks)
        fine = np.repeat(np.repeat(scores, TOKEN, 0), TOKEN, 1)
        shift = looked.plan.shift_px
        total[shift:, shift:] += fine[: height - shift, : width - shift]
        covered[shift:, shift:] += 1
    assert shown.grid.origin == plan.origin
    cell = int(shown.grid.token_px.y)
    assert shown.grid.shape == (height // cell, width // cell)
    fine = np.repeat(np.repeat(shown.values, cell, 0), cell, 1)
    np.testing.assert_allclose(fine, total / covered, rtol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_both_levels_together_are_their_weighted_mean(weight):
    looked = looked_at()
    wish = MapWish("both", head="2", region_head="1", weight=weight)
    patch = shown_map([looked], replace(wish, level="patch")).values
    region = np.repeat(np.repeat(shown_map([looked], replace(wish, level="region")).values, 4, 0), 4, 1)
    both = shown_map([looked], wish)
    np.testing.assert_allclose(both.values, weight * region + (1 - weight) * patch, rtol=1e-6)
    assert both.grid == shown_map([looked], replace(wish, level="patch")).grid


def test_both_levels_of_shifted_maps_count_by_how_many_cover_a_cell():
    plan = plan_patches(slide_of(np.zeros((400, 400, 3), np.uint8)), SPEC, Region(64, 32, 64, 96))
    looks = [looked_at(seed, moved) for seed, moved in enumerate(plan.shifts(4, 2))]
    wish = MapWish("both", head="0", region_head="1")
    both = shown_map(looks, wish)
    fine, coarse = (shown_map(looks, replace(wish, level=level)) for level in ("patch", "region"))
    assert both.grid.token_px == fine.grid.token_px == YX(4, 4)
    # Both levels are shifted alike here, so that each cell has as many of both.
    broad = coarse.grid.on_pixels(coarse.values, Region(64, 32, 64, 96), both.grid.shape)
    np.testing.assert_allclose(both.values, (broad + fine.values) / 2, rtol=1e-5)


def test_all_heads_are_those_that_can_be_wished_for():
    looked = looked_at()
    patch = all_heads([looked], MapWish())
    assert list(patch) == ["0", "1", "2", "mean", "max", "rollout"]
    region = all_heads([looked], MapWish("region"))
    assert list(region) == ["0", "1", "mean", "max", "rollout"]
    both = all_heads([looked], MapWish("both"))
    assert set(both) == {f"{head},{other}" for head in "012" for other in "01"}
    for name, shown in patch.items():
        np.testing.assert_array_equal(shown.values, shown_map([looked], MapWish(head=name)).values)
    for name, shown in both.items():
        head, other = name.split(",")
        wish = MapWish("both", head=head, region_head=other)
        np.testing.assert_array_equal(shown.values, shown_map([looked], wish).values)


def test_limits_are_those_of_the_scale():
    looked = looked_at()
    assert shown_map([looked], MapWish()).limits == (0.0, 1.0)
    raw = shown_map([looked], MapWish(scale="raw"))
    assert raw.limits[0] == 0.0
    assert np.quantile(raw.values, 0.98) <= raw.limits[1] <= raw.values.max()


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        (MapWish(head="3"), "there is no head 3; there are 3, counted from 0, and mean, max, rollout"),
        (MapWish(head="best"), "there is no head best"),
        (MapWish(head="-1"), "there is no head -1"),
        (MapWish(layer=3), "there is no layer 4; there are 3"),
        (MapWish(layer=-4), "there is no layer"),
        (MapWish("region", region_head="2"), "there is no head 2; there are 2"),
        (MapWish("region", region_layer=2), "there is no layer 3; there are 2"),
        (MapWish("both", weight=2.0), "lies between 0 and 1"),
        (MapWish(scale="log"), "there is no scale called log"),  # type: ignore[arg-type]
    ],
)
def test_what_is_not_there_is_said(wish, sentence):
    with pytest.raises(DataError, match=sentence):
        shown_map([looked_at()], wish)


@pytest.mark.parametrize("level", ["region", "both"])
def test_a_region_that_was_not_looked_at_is_said(level):
    with pytest.raises(DataError, match="choose an encoder of regions and wait"):
        shown_map([looked_at(with_region=False)], MapWish(level))


def test_a_token_that_was_asked_is_shown_over_its_patch():
    looked = looked_at()
    attention = np.random.default_rng(1).random((3, 3, 4, 4)).astype(np.float32)
    tile = PLAN.tiles[4]  # second row, second column
    shown = query_map(looked, tile, attention, MapWish(head="1", layer=0, scale="raw"))
    np.testing.assert_array_equal(shown.values, attention[0, 1])
    assert shown.grid.origin == YX(64 + 64, 32 + 32)
    assert shown.grid.token_px == PLAN.token_step
    box = PLAN.box_of(tile)
    assert (shown.grid.origin, shown.grid.rows * shown.grid.token_px.y) == ((box.y, box.x), box.height)
    mean_of_heads = query_map(looked, tile, attention, MapWish(head="mean", scale="raw"))
    np.testing.assert_allclose(mean_of_heads.values, attention[2].mean(axis=0), rtol=1e-6)


def test_a_patch_that_was_asked_is_shown_over_the_region():
    looked = looked_at()
    said = looked_at(7).region
    shown = region_query_map(looked, said, MapWish(region_head="1", scale="raw"))
    np.testing.assert_array_equal(shown.values, said.attention[-1, 1].astype(np.float32))
    assert (shown.grid.origin, shown.grid.token_px) == (YX(64, 32), YX(2 * SIDE, SIDE))
    rolled = region_query_map(looked, said, MapWish(region_head="rollout", scale="raw"))
    np.testing.assert_array_equal(rolled.values, said.rollout.astype(np.float32))


def test_glass_stays_glass_where_both_levels_are_put_together():
    looked = looked_at()
    side = PLAN.spec.side
    inside = np.random.default_rng(5).random((PLAN.rows * side, PLAN.columns * side)) > 0.4
    tissue = tissue_of_tokens(inside)
    shown = shown_map([looked], MapWish("both", head="0", region_head="0"), tissue)
    patches = shown_map([looked], MapWish("patch", head="0"), tissue)
    assert np.array_equal(np.isnan(patches.values), ~inside)
    assert np.array_equal(np.isnan(shown.values), np.isnan(patches.values))
