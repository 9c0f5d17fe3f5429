"""Paint gets from a project into patches on the encoder's grid, token by token, with the place that it belongs to."""

import numpy as np
import pytest

from blob_encoder import PARAMS, blobs
from napari_nucleiseg.core.attention.patches import plan_patches
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.encoders import build_encoder
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.attention import DO_NOT_LOOK, LOOK_HERE, paint_attention
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.regions import AnnotatedRegion, put_region
from napari_nucleiseg.core.teaching.heads.painted import collect_painted, collect_unpainted, paint_fingerprint

SPEC = build_encoder("hipt-256", PARAMS)[0]
# A token is 32 level-0 pixels wide, a patch 256: the slide has twice the resolution of the encoder.
SIDE, TOKEN, PATCH = 1600, 32, 256


@pytest.fixture
def painted_project(tmp_path):
    image, _ = blobs(0, SIDE, 150)
    slide = Slide("/slides/a.svs", (image,), (YX(1, 1),), YX(0.25, 0.25), fingerprint="print")
    with Project.create(tmp_path / "a.nucleiseg", slide) as project:
        yield slide, project


def paint(project, y, x, height, width, kind=LOOK_HERE):
    paint_attention(project, Region(y, x, height, width), np.full((height, width), kind, np.uint8))


def test_nothing_painted_gives_nothing(painted_project):
    slide, project = painted_project
    assert collect_painted(project, slide, SPEC) == ()


def test_each_token_says_how_much_of_it_is_painted(painted_project):
    slide, project = painted_project
    paint(project, 256 + 32, 512 + 48, 32, 64)
    paint(project, 256 + 128, 512, 16, 32, DO_NOT_LOOK)
    (one,) = collect_painted(project, slide, SPEC)
    look, avoid = np.zeros((8, 8)), np.zeros((8, 8))
    look[1, 1:4] = 0.5, 1, 0.5
    avoid[4, 0] = 0.5
    np.testing.assert_array_equal(one.look, look)
    np.testing.assert_array_equal(one.avoid, avoid)
    assert one.look.dtype == one.avoid.dtype == np.float32
    assert (one.row, one.column, one.slide, one.fingerprint) == (1, 2, project.slide_name, "print")
    plan = plan_patches(slide, SPEC, Region(256, 512, 1, 1))
    np.testing.assert_array_equal(one.pixels, plan.read(slide, plan.tiles[0]))
    assert one.pixels.shape == (128, 128, 3)


def test_a_grid_that_falls_between_pixels_loses_no_paint(tmp_path):
    image, _ = blobs(1, 800, 30)
    slide = Slide("/slides/b.svs", (image,), (YX(1, 1),), YX(0.35, 0.35), fingerprint="b")
    with Project.create(tmp_path / "b.nucleiseg", slide) as project:
        paint(project, 101, 57, 333, 211)
        found = collect_painted(project, slide, SPEC)
    step = 0.5 / 0.35 * 16
    assert sum(float(one.look.sum()) for one in found) == pytest.approx(333 * 211 / step**2, rel=1e-5)
    assert max(float(one.look.max()) for one in found) == pytest.approx(1)


def test_patches_that_touch_are_one_place(painted_project):
    slide, project = painted_project
    for y, x in ((0, 0), (256, 256), (256, 512), (1024, 0), (0, 1024)):
        paint(project, y + 100, x + 100, 40, 40)
    found = collect_painted(project, slide, SPEC)
    groups = {(one.row, one.column): one.group for one in found}
    assert groups[0, 0] == groups[1, 1] == groups[1, 2]
    assert len(set(groups.values())) == 3
    assert all(group.startswith("print:") for group in groups.values())


def test_the_end_of_a_stroke_makes_no_patch(painted_project):
    slide, project = painted_project
    paint(project, 100, 200, 60, 58)  # two columns of it lie in the next patch
    assert [(one.row, one.column) for one in collect_painted(project, slide, SPEC)] == [(0, 0)]


def test_paint_in_a_region_that_is_held_out_is_marked(painted_project):
    slide, project = painted_project
    corners = ((1030.0, 10.0), (1030.0, 200.0), (1200.0, 200.0), (1200.0, 10.0))
    put_region(project, AnnotatedRegion(0, "", "hold out", corners))
    paint(project, 1050, 50, 40, 40)
    paint(project, 50, 50, 40, 40)
    assert [(one.row, one.held) for one in collect_painted(project, slide, SPEC)] == [(0, False), (4, True)]


def test_paint_beside_the_scanned_part_of_a_slide_is_passed_over(tmp_path):
    image, _ = blobs(2, SIDE, 100)
    slide = Slide("/s.svs", (image,), (YX(1, 1),), YX(0.25, 0.25), fingerprint="s", bounds=Region(0, 0, 700, 700))
    with Project.create(tmp_path / "s.nucleiseg", slide) as project:
        paint(project, 1300, 1300, 50, 50)
        assert collect_painted(project, slide, SPEC) == ()
        paint(project, 300, 300, 50, 50)
        assert [(one.row, one.column) for one in collect_painted(project, slide, SPEC)] == [(1, 1)]


def test_patches_without_paint_lie_on_tissue_and_away_from_paint(painted_project):
    slide, project = painted_project
    paint(project, 600, 600, 40, 40)
    others = collect_unpainted(project, slide, SPEC, count=100)
    plan = plan_patches(slide, SPEC, slide.content)
    near = {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
    pictures = {plan.read(slide, tile).tobytes(): plan.place_of(tile) for tile in plan.tiles}
    places = {pictures[other.tobytes()] for other in others}
    assert len(others) == len(places) > 10
    assert places.isdisjoint(near)
    assert others.shape[1:] == (128, 128, 3)
    again = collect_unpainted(project, slide, SPEC, count=5, seed=1)
    assert np.array_equal(again, collect_unpainted(project, slide, SPEC, count=5, seed=1))
    assert not np.array_equal(again, collect_unpainted(project, slide, SPEC, count=5, seed=2))


def test_glass_is_no_tissue(tmp_path):
    glass = np.full((SIDE, SIDE, 3), 244, np.uint8)
    glass[:512, :512] = blobs(0, 512, 20)[0]
    slide = Slide("/g.svs", (glass,), (YX(1, 1),), YX(0.25, 0.25), fingerprint="g")
    with Project.create(tmp_path / "g.nucleiseg", slide) as project:
        assert 1 <= len(collect_unpainted(project, slide, SPEC, count=100)) <= 9


def test_every_stroke_changes_what_paint_is_recognised_by(painted_project):
    slide, project = painted_project
    paint(project, 100, 100, 40, 40)
    paint(project, 1000, 1000, 40, 40)
    first = collect_painted(project, slide, SPEC)
    assert paint_fingerprint(first) == paint_fingerprint(first[::-1])
    paint(project, 100, 100, 1, 8, DO_NOT_LOOK)
    assert paint_fingerprint(collect_painted(project, slide, SPEC)) != paint_fingerprint(first)


def test_an_encoder_of_regions_has_no_patches_to_paint(painted_project):
    slide, project = painted_project
    paint(project, 100, 100, 40, 40)
    regions, _ = build_encoder("hipt-4k", {"features": 8, "embed": 8, "depth": 1, "heads": 1})
    with pytest.raises(DataError, match="looks at regions made of patches"):
        collect_painted(project, slide, regions)
