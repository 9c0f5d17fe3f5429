"""What is proposed next is where the model is unsure, never what is annotated or held out, and the same every time."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from faint import faint_slide, grey_model, one_tile, tissue_with

from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.regions import HOLD_OUT, REFERENCE, TEACH, AnnotatedRegion, put_region
from napari_nucleiseg.core.teaching.queue import QueueConfig, next_regions, rank, rank_pictures
from napari_nucleiseg.core.teaching.windows import Window, grid_windows

FAINT_CELLS = (2, 5, 11)
SIDE_PX = 128
CONFIG = QueueConfig(side_um=32.0, regions=3, upper=0.0, views=1, device="cpu")


def cell(place):
    """The window of a cell of the slide, level-0 pixels."""
    row, column = divmod(place, 4)
    return Region(row * SIDE_PX, column * SIDE_PX, SIDE_PX, SIDE_PX)


def put(project, box, role):
    corners = ((box.y, box.x), (box.y, box.x1), (box.y1, box.x1), (box.y1, box.x))
    put_region(project, AnnotatedRegion(0, "", role, tuple((float(y), float(x)) for y, x in corners)))


@pytest.fixture
def segmented(tmp_path):
    """A slide of 4 x 4 cells, three of which hold faint nuclei, all segmented as one tile."""
    slide, labels = faint_slide(FAINT_CELLS)
    with Project.create(tmp_path / "p.nucleiseg", slide) as project:
        project.write_tile(one_tile(labels), "m@1", "k")
        yield slide, project


def proposed(segmented, config=CONFIG):
    return next_regions(rank(grey_model(), *segmented, config), config)


def test_where_the_model_is_unsure_comes_first(segmented):
    found = proposed(segmented)
    assert {one.region for one in found} == {cell(place) for place in FAINT_CELLS}
    assert all(one.reason.startswith("The model is not sure of ") for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_every_score_tells_the_unsure_windows(segmented):
    seen = list(rank(grey_model(), *segmented, CONFIG))
    faint = {cell(place) for place in FAINT_CELLS}
    for score in range(3):
        least = min(one.look.scores[score] for one in seen if one.window.region in faint)
        assert least > max(one.look.scores[score] for one in seen if one.window.region not in faint)
    assert all((one.look.unsure > 0) == (one.window.region in faint) for one in seen)


@pytest.mark.parametrize("role", [HOLD_OUT, TEACH])
def test_no_region_that_is_held_out_or_taught_is_ever_proposed(segmented, role):
    taken = cell(5).expand(3)
    put(segmented[1], taken, role)
    for seed in range(3):
        config = replace(CONFIG, regions=16, seed=seed, views=0)
        found = proposed(segmented, config)
        assert found
        assert not any(one.region.overlaps(taken) for one in found)


def test_what_is_held_out_is_not_even_looked_at(segmented):
    put(segmented[1], cell(5), HOLD_OUT)
    put(segmented[1], cell(6), TEACH)
    seen = list(rank(grey_model(), *segmented, CONFIG))
    assert [one.window.region for one in seen if one.annotated] == [cell(6)]
    assert cell(5) not in {one.window.region for one in seen}


def test_around_a_small_taught_region_nothing_that_is_held_out_is_looked_at(segmented):
    small = Region(cell(6).y + 10, cell(6).x + 4, 20, 20)
    put(segmented[1], cell(5), HOLD_OUT)
    put(segmented[1], small, TEACH)
    put(segmented[1], cell(15), TEACH)
    seen = list(rank(grey_model(), *segmented, CONFIG))
    assert [one.window.region for one in seen if one.annotated] == [cell(15)]
    assert not any(one.window.region.overlaps(cell(5)) for one in seen)


def test_a_reference_region_takes_nothing_away(segmented):
    put(segmented[1], Region(0, 0, 512, 512), REFERENCE)
    assert len(proposed(segmented)) == 3


def test_the_same_seed_gives_the_same_regions(segmented):
    config = replace(CONFIG, candidates=6, upper=0.5)
    first, again = proposed(segmented, config), proposed(segmented, config)
    assert first == again
    windows = {
        seed: tuple(one.window for one in rank(grey_model(), *segmented, replace(config, seed=seed, views=0)))
        for seed in (1, 2)
    }
    assert windows[1] != windows[2]


def test_the_number_of_windows_bounds_the_work_and_it_can_be_stopped(segmented):
    model = grey_model()
    config = replace(CONFIG, candidates=5)
    seen = list(rank(model, *segmented, config))
    assert [(one.done, one.total) for one in seen] == [(number, 5) for number in range(1, 6)]
    assert model.network.forwards == 10  # each window as it is, and one view of it
    stopped = rank(model, *segmented, config)
    some = list(islice(stopped, 2))
    stopped.close()
    assert model.network.forwards == 14
    assert len(next_regions(some, config)) == 2


def test_a_project_without_tiles_says_what_to_do(tmp_path):
    slide, _ = faint_slide(())
    with (
        Project.create(tmp_path / "p.nucleiseg", slide) as project,
        pytest.raises(TeachingError, match="Segment a part"),
    ):
        next(rank(grey_model(), slide, project, CONFIG))


def test_a_slide_that_is_annotated_throughout_says_so(segmented):
    put(segmented[1], Region(0, 0, 512, 512), TEACH)
    with pytest.raises(TeachingError, match="no tissue left"):
        list(rank(grey_model(), *segmented, CONFIG))


def test_glass_is_not_proposed(tmp_path):
    _, labels = faint_slide(())
    picture = np.full((512, 512, 3), 245, np.uint8)
    glass = Slide("/slides/b.svs", (picture,), (YX(1, 1),), YX(0.25, 0.25), fingerprint="f2")
    with Project.create(tmp_path / "p.nucleiseg", glass) as project:
        project.write_tile(one_tile(labels), "m@1", "k")
        with pytest.raises(TeachingError, match="glass"):
            list(rank(grey_model(), glass, project, CONFIG))


def test_nothing_looked_at_and_wrong_settings_are_sentences(segmented):
    with pytest.raises(TeachingError, match="No part of the slide"):
        next_regions([], CONFIG)
    with pytest.raises(TeachingError, match="upper must be between 0 and 1, not 2"):
        next(rank(grey_model(), *segmented, replace(CONFIG, upper=2.0)))


def test_plain_pictures_are_ranked_like_a_slide():
    pictures = [tissue_with(faint, 64, 2, seed=number)[0] for number, faint in enumerate([(1,), (), (0, 3)])]
    grid = grid_windows(pictures, 64)
    assert len(grid) == 12
    found = next_regions(rank_pictures(grey_model(), pictures, grid, config=CONFIG), CONFIG)
    unsure = [(0, Region(0, 64, 64, 64)), (2, Region(0, 0, 64, 64)), (2, Region(64, 64, 64, 64))]
    assert {(one.picture, one.region) for one in found} == set(unsure)
    taught = [Window(*unsure[1])]
    rest = list(rank_pictures(grey_model(), pictures, grid, taught, CONFIG))
    assert [one.window for one in rest if one.annotated] == taught
    assert taught[0] not in [one.window for one in rest if not one.annotated]
    with pytest.raises(TeachingError, match="no windows"):
        list(rank_pictures(grey_model(), pictures, [], config=CONFIG))


def test_among_uncertain_windows_one_of_another_stain_is_preferred_to_more_of_the_same():
    pink = tissue_with(range(4), 64, 2)[0]
    violet = tissue_with((0,), 64, 2, stroma=(190, 160, 220), seed=1)[0]
    pictures = [pink, violet]
    config = replace(CONFIG, regions=2, upper=0.7, views=0)
    grid = grid_windows(pictures, 64)
    apart = next_regions(rank_pictures(grey_model(), pictures, grid, config=config), config)
    assert {one.picture for one in apart} == {0, 1}
    taught = [window for window in grid if window.picture == 0][:1]
    first = next_regions(rank_pictures(grey_model(), pictures, grid, taught, config), config)[0]
    assert first.picture == 1
    assert first.reason.endswith("unlike what you have annotated.")
