"""Candidates and marks of "Find the like" without a window: what counts as new, whole and known; what lies where."""

import numpy as np
import pytest

from dark_model import DarkEngine, disc_centres, disc_picture
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.like_accept import Accepted, accept
from napari_nucleiseg.viewer.like_candidates import bold_nuclei, candidates_in, seen_at
from napari_nucleiseg.viewer.like_engine import frame_of
from napari_nucleiseg.viewer.like_layers import SHADES, shades_of
from napari_nucleiseg.viewer.like_marks import SlideMark, mark_in, mask_of
from napari_nucleiseg.viewer.opened import OpenedSlide
from napari_nucleiseg.viewer.segmentation import wish_of
from napari_nucleiseg.widgets.like_words import count_text, known_text, mark_text

SHAPE = (256, 320)


@pytest.fixture
def slide():
    """A picture of discs of 0.5 um a pixel."""
    return Slide(path="discs", levels=(disc_picture(SHAPE),), downsamples=(YX(1.0, 1.0),), mpp_um=YX(0.5, 0.5))


@pytest.fixture
def engine(tmp_path):
    return DarkEngine(tmp_path)


def everything(steps):
    """Run a generator to its end; return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def bold(slide, engine, region, project=None):
    opened = OpenedSlide(slide, None, project=project)
    wish = wish_of(Session(threshold=0.9), opened, region)
    return everything(bold_nuclei(wish, engine, lambda: False))[1]


def inside(region, margin=0):
    """Discs whose centre lies so far inside a region."""
    return [c for c in disc_centres(SHAPE).tolist() if region.expand(-margin).contains_point(*c)]


def test_a_model_is_bold_and_finds_each_nucleus_once(slide, engine):
    region = Region(0, 0, *SHAPE)
    labels = bold(slide, engine, region)  # two tiles meet in it
    found = candidates_in(region, labels, None, slide.shape)
    assert len(found) == len(disc_centres(SHAPE))
    middles = found.centroids[1:]
    away = np.linalg.norm(middles[:, None] - disc_centres(SHAPE)[None], axis=2).min(axis=1)
    assert away.max() < 1
    assert not found.ids.any()


def test_what_a_border_cuts_is_no_candidate_unless_it_is_the_slides(slide, engine):
    region = Region(0, 0, 112, 112)  # through discs below and right
    found = candidates_in(region, bold(slide, engine, region), None, slide.shape)
    assert len(found) == len(inside(region, margin=8)) == 9
    assert found.within(Region(0, 0, 64, 112)).tolist() == [False, *(y < 64 for y, _x in found.centroids[1:])]


def test_nuclei_that_are_there_are_candidates_under_their_id(slide, engine, tmp_path):
    region = Region(0, 0, *SHAPE)
    labels = bold(slide, engine, region)
    with Project.create(tmp_path / "project", slide) as project:
        numbers = [int(labels[y, x]) for y, x in disc_centres(SHAPE)[:3]]
        ids = [project.editor.new_id() for _ in numbers]
        image = np.zeros(SHAPE, np.uint32)
        for number, name in zip(numbers, ids, strict=True):
            image[labels == number] = name
        project.editor.paint(region, image)
        project.editor.classify(ids[:1], 2)
        found = candidates_in(region, labels, project, slide.shape)
        assert len(found) == len(disc_centres(SHAPE))
        assert found.ids[found.ids > 0].tolist() == ids
        assert found.classes[1] == 2
        assert found.classes[2:].max() == 0


def test_accepting_twice_changes_nothing_and_what_was_covered_meanwhile_is_left_out(slide, engine, tmp_path):
    region = Region(0, 0, *SHAPE)
    found = candidates_in(region, bold(slide, engine, region), None, slide.shape)
    with Project.create(tmp_path / "project", slide) as project:
        first, second = Accepted(set()), Accepted(set())
        (changed,) = accept(project, found, [1, 2, 3], 4, first)
        assert len(first.new) == project.census.total() == 3
        assert project.nuclei_in(region).classes.tolist() == [4, 4, 4]
        assert changed.ids == first.new
        again = list(accept(project, found, [2, 3, 5], 4, second))
        assert len(again) == 1
        assert len(second.new) == 1
        assert second.hidden == 2
        project.editor.undo()
        project.editor.undo()
        assert project.census.total() == 0


@pytest.mark.parametrize(
    ("mpp_um", "view"), [(0.5, (40, 50, 90, 100)), (0.25, (0, 0, 255, 320)), (1.0, (9, 9, 50, 60))]
)
def test_a_frame_covers_its_view_and_a_small_move_needs_nothing_new(slide, mpp_um, view):
    frame = frame_of(slide, Region(*view), mpp_um)
    assert frame.region.contains(Region(*view).intersect(Region(0, 0, SHAPE[0] - 2, SHAPE[1] - 2)))
    assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0
    labels = np.arange(frame.region.area, dtype=np.int32).reshape(frame.region.height, frame.region.width)
    small = seen_at(labels, frame.region, frame.origin, frame.step, frame.shape)
    assert small.shape == frame.shape
    if mpp_um == 0.5:
        assert (small == labels).all()
        y, x, height, width = view
        assert frame_of(slide, Region(y + 1, x + 1, height, width), mpp_um) == frame


def test_marks_are_micrometres_of_the_slide():
    point = SlideMark(1, True, np.array([[20.0, 30.0]]), Region(0, 0, 9, 9))
    seen = mark_in(point, YX(10.0, 10.0), 0.5, (100, 100))
    assert seen.where == (19.5, 39.5)
    assert mark_in(point, YX(10.0, 10.0), 0.5, (20, 100)) is None
    assert mark_in(point, YX(21.0, 10.0), 0.5, (100, 100)) is None
    assert not point.turned().is_like
    labels = np.zeros((100, 100), np.int32)
    labels[18:24, 36:44] = 7
    assert mask_of(seen, labels, 4).sum() == 48
    assert 40 < mask_of(seen, np.zeros_like(labels), 4).sum() < 60
    square = SlideMark(2, False, np.array([[12.0, 12.0], [12.0, 22.0], [22.0, 22.0], [22.0, 12.0]]), Region(0, 0, 9, 9))
    area = mark_in(square, YX(10.0, 10.0), 0.5, (100, 100))
    assert abs(int(area.where.sum()) - 400) < 45
    assert not square.is_point


def test_shades_grow_with_similarity():
    shades = shades_of(np.array([0.5, 0.6, 0.75, 0.99, 1.0], np.float32), 0.5)
    assert shades.tolist() == sorted(shades.tolist())
    assert (shades[0], shades[-1]) == (1, len(SHADES))


def test_words_count_rightly():
    assert count_text(1, 0) == "1 proposal"
    assert count_text(1234, 2) == "1,234 proposals, 2 chosen"
    assert known_text(5, 2, is_marked=True) == "3 new, 2 are nuclei already"
    assert known_text(2, 2, is_marked=True).endswith("already")
    assert "lower" in known_text(0, 0, is_marked=True)
    assert mark_text(2, is_point=False, is_like=False) == "2  Region  ·  unlike"
