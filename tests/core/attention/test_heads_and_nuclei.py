"""Heads meet the nuclei of a slide's project: areas in tokens, ranking, attention of each nucleus, and its picture."""

import cv2
import numpy as np
import pytest

from napari_nucleiseg.core.attention.look import Looked
from napari_nucleiseg.core.attention.nuclei import (
    attention_of_nuclei,
    nuclei_fractions,
    painted_nuclei,
    rank_looked,
    rank_region,
)
from napari_nucleiseg.core.attention.patches import plan_patches
from napari_nucleiseg.core.attention.ranking import rank_heads
from napari_nucleiseg.core.attention.shown import MapWish, shown_map
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.tissue import TissueMask
from napari_nucleiseg.core.store.nuclei import TileNuclei
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.tokens import PatchTokens
from tiny_encoders import patch_encoder, slide_of

SPEC = patch_encoder().spec
HEIGHT, WIDTH = 1200, 1100  # two levels of labels at least
WHOLE = Region(0, 0, HEIGHT, WIDTH)


def discs(seed=0, count=500):
    """Label image of discs that do not touch, numbered in no order of place."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    number = 0
    for _ in range(count):
        y, x, radius = rng.integers(HEIGHT), rng.integers(WIDTH), rng.integers(4, 13)
        ring, inside = (np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(2))
        cv2.circle(ring, (int(x), int(y)), int(radius) + 2, 1, -1)
        if labels[ring > 0].any():
            continue
        number += 1
        cv2.circle(inside, (int(x), int(y)), int(radius), 1, -1)
        labels[inside > 0] = number
    return labels


def put(folder, slide, labels):
    """A project that holds a label image."""
    project = Project.create(folder, slide)
    count = int(labels.max())
    places = [np.argwhere(labels == number) for number in range(1, count + 1)]
    boxes = np.array([[*p.min(0), *(p.max(0) + 1)] for p in places], np.int64).reshape(-1, 4)
    nuclei = TileNuclei(
        0, slide.region, slide.region, labels, np.array([p.mean(0) for p in places]).reshape(-1, 2),
        np.array([len(p) for p in places], np.float32), boxes, np.ones(count, np.float32),
    )  # fmt: skip
    project.write_tile(nuclei, "m@1", "k")
    project.flush()
    return project


def blank(mpp=0.5):
    return slide_of(np.broadcast_to(np.uint8(255), (HEIGHT, WIDTH, 3)), mpp=mpp)


LABELS = discs()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = put(tmp_path_factory.mktemp("nuclei") / "p.nucleiseg", blank(), LABELS)
    yield project
    project.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    project = put(tmp_path_factory.mktemp("nuclei") / "q.nucleiseg", blank(), np.zeros_like(LABELS))
    yield project
    project.close()


def planned(mpp, region=WHOLE, shift=0):
    plan = plan_patches(blank(mpp), SPEC, region)
    return next(plan.shifts(0, 1)) if not shift else list(plan.shifts(shift, 2))[1]


def slow_fractions(plan, labels):
    """Pixels of nuclei in each token over all of its pixels, those beside the slide too."""
    step, origin = plan.token_step, plan.origin
    out = np.zeros((plan.rows * SPEC.side, plan.columns * SPEC.side))
    for row, column in np.ndindex(out.shape):
        y, x = round(origin.y + row * step.y), round(origin.x + column * step.x)
        y1, x1 = round(origin.y + (row + 1) * step.y), round(origin.x + (column + 1) * step.x)
        out[row, column] = np.count_nonzero(labels[y:y1, x:x1]) / ((y1 - y) * (x1 - x))
    return out


@pytest.mark.parametrize("mpp", [0.5, 0.25, YX(0.25, 0.5), YX(0.5, 0.25), 0.125])
@pytest.mark.parametrize("region", [Region(300, 300, 200, 200), Region(1000, 900, 200, 200), Region(0, 0, 9, 9)])
def test_a_token_is_covered_by_as_many_pixels_as_are_nuclei(project, mpp, region):
    plan = planned(mpp, region)
    found = nuclei_fractions(project, Looked(plan))
    np.testing.assert_allclose(found, slow_fractions(plan, LABELS), atol=1e-5)
    assert found.dtype == np.float32


def test_a_shifted_grid_has_other_tokens(project):
    plan = planned(0.5, Region(960, 900, 300, 300), shift=5)
    np.testing.assert_allclose(nuclei_fractions(project, Looked(plan)), slow_fractions(plan, LABELS), atol=1e-5)


@pytest.mark.parametrize("mpp", [0.37, YX(0.31, 0.77)])
def test_tokens_that_are_no_whole_pixels_are_covered_nearly_exactly(project, mpp):
    plan = planned(mpp)
    found = nuclei_fractions(project, Looked(plan))
    # Areas of a picture of 16 times as many pixels, which tokens cut where they end.
    step, origin = plan.token_step, plan.origin
    shape = plan.rows * SPEC.side, plan.columns * SPEC.side
    matrix = np.array([[step.x / 40, 0, origin.x - 0.5 + step.x / 80], [0, step.y / 40, origin.y - 0.5 + step.y / 80]])
    fine = cv2.warpAffine(
        (LABELS > 0).astype(np.uint8), matrix, (40 * shape[1], 40 * shape[0]),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    )  # fmt: skip
    wanted = fine.reshape(shape[0], 40, shape[1], 40).mean(axis=(1, 3))
    assert np.abs(found - wanted).max() < 0.12
    assert np.abs(found - wanted).mean() < 0.01
    assert found.mean() == pytest.approx(wanted.mean(), rel=0.02)


def looked_with(plan, planted, *, region=None):
    """Random attention, but one head looks where `planted` says, ``(layer, head)`` being (1, 2)."""
    rng = np.random.default_rng(0)
    side, patches = SPEC.side, {}
    for tile in plan.tiles:
        row, column = plan.place_of(tile)
        attention = rng.random((3, 3, side, side))
        here = planted[row * side : (row + 1) * side, column * side : (column + 1) * side]
        attention[1, 2] = here + 0.05 * attention[1, 2]
        patches[tile] = PatchTokens(
            np.zeros(12, np.float16), attention.astype(np.float16), attention[0, 0].astype(np.float16)
        )
    return Looked(plan, patches, region)


def test_the_head_that_looks_at_nuclei_is_found(project):
    plan = planned(0.5, Region(100, 100, 500, 500))
    ranked = rank_looked(project, looked_with(plan, slow_fractions(plan, LABELS)))
    assert (ranked[0].layer, ranked[0].head) == (1, 2)
    assert ranked[0].auroc > 0.99
    assert ranked[1].auroc < 0.6
    assert len(ranked) == 9


def test_glass_is_not_compared(project):
    plan = planned(0.5, Region(0, 0, 512, 512))
    fractions = slow_fractions(plan, LABELS)
    tissue = TissueMask(np.arange(HEIGHT)[:, None] + np.zeros(WIDTH) < 256, YX(1, 1))
    planted = fractions.copy()
    planted[32:][fractions[32:] == 0] = 1.5  # glass is attended to more than nuclei are
    looked = looked_with(plan, planted)
    with_glass, without = (
        next(each for each in rank_looked(project, looked, mask) if (each.layer, each.head) == (1, 2))
        for mask in (None, tissue)
    )
    assert with_glass.auroc < 0.6
    assert without.auroc > 0.95
    assert without.uniform.glass == pytest.approx(0.45, abs=0.1)
    assert with_glass.uniform.glass == 0


def region_said(plan, planted):
    rng = np.random.default_rng(1)
    attention = rng.random((2, 2, plan.rows, plan.columns))
    attention[0, 1] = planted
    return PatchTokens(np.zeros(8, np.float16), attention.astype(np.float16), attention[0, 0].astype(np.float16))


def test_the_head_of_the_region_that_looks_where_nuclei_are_dense_is_found(project):
    plan = planned(0.5, Region(0, 0, 512, 512))
    dense = slow_fractions(plan, LABELS).reshape(plan.rows, SPEC.side, plan.columns, SPEC.side).mean(axis=(1, 3))
    ranked = rank_region(project, looked_with(plan, np.zeros((64, 64)), region=region_said(plan, dense)))
    assert (ranked[0].layer, ranked[0].head) == (0, 1)
    assert ranked[0].auroc > 0.99
    assert len(ranked) == 4


CORNER = Region(1000, 900, 200, 200)


def mirrored_labels(plan):
    """Labels as an encoder sees the slide: mirrored beyond its lower and right edge."""
    area = plan.area_px
    return np.pad(LABELS, ((0, max(area.y1 - HEIGHT, 0)), (0, max(area.x1 - WIDTH, 0))), mode="reflect")


def inside(plan):
    """Tokens whose middle lies on the slide."""
    rows, columns = (np.arange(count * SPEC.side) * 8 + 4 for count in (plan.rows, plan.columns))
    return (plan.origin.y + rows < HEIGHT)[:, None] & (plan.origin.x + columns < WIDTH)


def test_tokens_beside_the_slide_do_not_count(project):
    plan = planned(0.5, CORNER)
    on_slide = inside(plan)
    assert 0.02 < 1 - on_slide.mean() < 0.5
    np.testing.assert_array_equal(plan.on_slide(), on_slide)
    looked = looked_with(plan, slow_fractions(plan, mirrored_labels(plan)))
    fractions = slow_fractions(plan, LABELS)
    rows, columns = on_slide.any(axis=1), on_slide.any(axis=0)
    cut = looked.all_attention()[:, :, rows][..., columns], fractions[rows][:, columns]
    for tissue in (None, TissueMask(np.ones((HEIGHT, WIDTH), np.bool_), YX(1, 1))):
        found = rank_looked(project, looked, tissue)
        for mine, theirs in zip(found, rank_heads(*cut), strict=True):
            assert (mine.layer, mine.head) == (theirs.layer, theirs.head)
            assert (mine.auroc, mine.average_precision) == pytest.approx((theirs.auroc, theirs.average_precision))
            assert tuple(mine.attention) == pytest.approx(tuple(theirs.attention), abs=1e-6)
            assert tuple(mine.uniform) == pytest.approx(tuple(theirs.uniform), abs=1e-6)
        assert found[0].auroc > 0.99


@pytest.mark.parametrize("shift", [0, 20])
def test_of_patches_only_what_lies_on_the_slide_counts(project, shift):
    """With the shift, those of the last row and column lie wholly beside it."""
    plan = planned(0.5, CORNER, shift=shift)
    shape = plan.rows, SPEC.side, plan.columns, SPEC.side
    tokens, on_slide = (values.reshape(shape) for values in (slow_fractions(plan, LABELS), inside(plan)))
    known = on_slide.any(axis=(1, 3))
    dense = np.where(known, (tokens * on_slide).sum(axis=(1, 3)) / np.maximum(on_slide.sum(axis=(1, 3)), 1), 1)
    assert known.all() == (shift == 0)
    ranked = rank_region(project, looked_with(plan, np.zeros((99, 99)), region=region_said(plan, dense)))
    assert (ranked[0].layer, ranked[0].head, ranked[0].auroc) == (0, 1, 1)
    assert ranked[0].uniform.nuclei == pytest.approx(dense[known].mean(), abs=1e-3)


def test_without_nuclei_or_region_there_is_nothing_to_rank(project, empty):
    plan = planned(0.5, Region(0, 0, 100, 100))
    looked = looked_with(plan, np.zeros((16, 16)), region=region_said(plan, 0))
    for rank in (rank_looked, rank_region):
        with pytest.raises(DataError, match="no nuclei here to rank heads against"):
            rank(empty, looked)
    with pytest.raises(DataError, match="no nuclei here"):
        attention_of_nuclei(empty, looked, shown_map([looked], MapWish()))
    with pytest.raises(DataError, match="Choose a transformer of regions"):
        rank_region(project, looked_with(plan, np.zeros((16, 16))))
    assert not nuclei_fractions(empty, looked).any()


def test_each_nucleus_gets_the_attention_of_its_tokens(project):
    plan = planned(0.5, Region(256, 256, 320, 320))
    down, across = np.mgrid[: plan.rows * SPEC.side, : plan.columns * SPEC.side]
    looked = looked_with(plan, (down + across) / 100)
    shown = shown_map([looked], MapWish(head="2", layer=1, scale="raw"))
    measured = attention_of_nuclei(project, looked, shown)
    table = project.nuclei_in(plan.region)
    np.testing.assert_array_equal(measured.ids, table.ids)
    assert (np.diff(measured.ids.astype(np.int64)) > 0).all()
    assert len(measured.ids) > 20
    for number, (mean, most) in enumerate(zip(measured.means, measured.maxima, strict=True)):
        pixels = np.argwhere(int(table.ids[number]) == LABELS)
        tokens = (pixels - (plan.origin.y, plan.origin.x)).astype(int) // 8
        inside = ((tokens >= 0) & (tokens < shown.grid.shape)).all(axis=1)
        values = shown.values[tuple(tokens[inside].T)]
        # Its pixels are not read: it is measured as an ellipse in its box.
        assert mean == pytest.approx(values.mean(), abs=0.02)
        assert most <= values.max() + 1e-6


def test_nuclei_are_painted_in_their_values_and_nothing_else_is(project):
    region = Region(200, 300, 400, 300)
    table = project.nuclei_in(region)
    ids, values = table.ids[::2], np.linspace(0, 1, len(table.ids[::2])).astype(np.float32)
    picture, grid = painted_nuclei(project, region, ids, values)
    assert (picture.shape, grid.origin, grid.token_px) == ((400, 300), YX(200, 300), YX(1, 1))
    wanted = np.full((400, 300), np.nan, np.float32)
    part = LABELS[200:600, 300:600]
    for number, value in zip(ids, values, strict=True):
        wanted[part == int(number)] = value
    np.testing.assert_array_equal(picture, wanted)
    assert np.isnan(picture).any()
    assert (~np.isnan(picture)).any()


def test_a_large_picture_is_painted_coarsely(project):
    table = project.nuclei_in(WHOLE)
    values = np.ones(len(table.ids), np.float32)
    picture, grid = painted_nuclei(project, WHOLE, table.ids, values, most_px=700)
    assert max(picture.shape) <= 700
    assert grid.rows * grid.token_px.y == pytest.approx(HEIGHT)
    covered = (~np.isnan(picture)).mean()
    assert (LABELS > 0).mean() <= covered < 2 * (LABELS > 0).mean()


def test_no_nuclei_are_painted_as_nothing(project):
    picture, _ = painted_nuclei(project, WHOLE, np.zeros(0, np.uint32), np.zeros(0, np.float32))
    assert np.isnan(picture).all()
