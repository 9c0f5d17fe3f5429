"""Plots without a window: measured anew when something changed, tied to slide and table, and acted on."""

import csv
from dataclasses import fields

import cv2
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel

from dark_model import disc_centres, disc_picture
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.regions import AnnotatedRegion, put_region, remove_region
from napari_nucleiseg.state import IN_VIEW, WHOLE_SLIDE, PlotWishes
from napari_nucleiseg.viewer import nuclei_list, plots
from napari_nucleiseg.viewer.given_anew import FOUND_ANEW
from napari_nucleiseg.viewer.nuclei_list import NucleiList
from napari_nucleiseg.viewer.plot_data import LESS, MORE
from napari_nucleiseg.viewer.plot_layers import SELECTED, VALUES
from plots_parts import WindowlessPlots

HEIGHT, WIDTH = 768, 1024
ALL = 24 * 32
WHOLE = Region(0, 0, HEIGHT, WIDTH)


@pytest.fixture
def bare_plots(pump, tmp_path):
    made = WindowlessPlots(ViewerModel(), pump, tmp_path)
    yield made
    made.engine.gate.set()
    made.close()


@pytest.fixture
def ready(bare_plots, disc_slide):
    """Plots, seen, of a slide that is segmented."""
    bare_plots.open(disc_slide)
    bare_plots.segment()
    bare_plots.show()
    assert len(bare_plots.plots.cloud) == ALL
    return bare_plots


def truth(ready, region=WHOLE):
    return ready.project.nuclei_in(region)


# ---------------------------------------------------------------------- what is wished for


@pytest.mark.parametrize("field", fields(PlotWishes), ids=lambda field: field.name)
def test_every_wish_explains_itself(field):
    assert field.metadata["title"]
    assert field.metadata["tip"]


# ---------------------------------------------------------------------- what is measured


def test_nothing_is_measured_without_a_slide_or_nuclei_or_while_nobody_looks(bare_plots, disc_slide):
    bare_plots.show()
    bare_plots.open(disc_slide)
    assert bare_plots.engine.asked == []
    bare_plots.plots.close()
    bare_plots.segment()
    assert bare_plots.engine.asked == []
    bare_plots.plots.open()
    bare_plots.settle()
    assert len(bare_plots.plots.cloud) == ALL


def test_what_is_plotted_is_what_the_project_and_the_measurement_say(ready):
    cloud, table = ready.plots.cloud, truth(ready)
    assert cloud.ids.tolist() == table.ids.tolist()
    assert (cloud.of("area_um2") == table.areas_um2).all()
    assert (cloud.of("score") == table.scores).all()
    # Discs of 7 pixels of half a micrometre, all alike.
    assert cloud.of("equivalent_diameter_um") == pytest.approx(7.3, abs=0.5)
    assert {column.name for column in ready.engine.columns()} <= set(cloud.values)


def test_the_view_is_followed_once_it_rests_and_a_slide_is_not(ready):
    asked = len(ready.engine.asked)
    ready.see(Region(0, 0, 192, 256))
    assert len(ready.engine.asked) == asked + 1
    expected = truth(ready, ready.engine.asked[-1]).ids
    assert 0 < len(expected) < ALL
    assert ready.plots.cloud.ids.tolist() == expected.tolist()
    ready.wishes.source = WHOLE_SLIDE
    ready.settle()
    assert ready.engine.asked[-1] is None
    assert len(ready.plots.cloud) == ALL
    asked = len(ready.engine.asked)
    ready.see(Region(300, 300, 192, 256))
    assert len(ready.engine.asked) == asked


def test_a_window_that_becomes_smaller_shows_fewer_and_a_view_that_stays_is_not_measured_again(ready):
    asked = len(ready.engine.asked)
    ready.viewer.scene.camera.zoom *= 1.0000001
    ready.settle()
    assert len(ready.engine.asked) == asked
    height, width = ready.viewer.canvas.size
    ready.viewer.canvas.size = (height // 2, width // 2)
    ready.settle()
    assert len(ready.engine.asked) == asked + 1
    assert 0 < len(ready.plots.cloud) < ALL


def test_an_edit_is_measured_and_no_other_block_twice(ready):
    gone = ready.plots.cloud.ids[:5].tolist()
    ready.controller.session.editing = True
    ready.settle()
    ready.editing.delete(gone)
    ready.settle()
    assert len(ready.plots.cloud) == ALL - 5
    assert not np.isin(gone, ready.plots.cloud.ids).any()


def test_a_region_limits_what_is_plotted_and_goes_with_it(ready):
    ready.controller.session.editing = True
    ready.settle()
    triangle = AnnotatedRegion(0, "Corner", "reference", ((0, 0), (0, 600), (600, 0)))
    ready.editing.jobs.enqueue("edit", lambda: put_region(ready.project, triangle))
    ready.settle()
    ready.editing.edited.emit()
    ready.settle()
    ready.wishes.source = "1"
    ready.settle()
    table = truth(ready)
    inside = table.centroids.sum(axis=1) < 600
    assert 0 < inside.sum() < ALL / 2
    assert ready.plots.cloud.ids.tolist() == table.ids[inside].tolist()
    ready.editing.jobs.enqueue("edit", lambda: remove_region(ready.project, ready.regions.regions[0]))
    ready.settle()
    ready.editing.edited.emit()
    ready.settle()
    assert ready.wishes.source == IN_VIEW
    assert len(ready.plots.cloud) == ALL


def hold_halfway(ready, disc_slide):
    """Segment the slide and measure half of its nuclei."""
    ready.open(disc_slide)
    ready.segment()
    ready.engine.in_halves = True
    ready.engine.gate.clear()
    ready.plots.open()
    ready.pump.run_until(lambda: any(progress is not None for progress in ready.progress), 20)


def test_measuring_tells_how_far_it_is_and_can_be_stopped(bare_plots, disc_slide):
    hold_halfway(bare_plots, disc_slide)
    assert bare_plots.plots.is_measuring
    told = bare_plots.progress[-1]
    assert (told.title, told.done, told.total) == ("Measuring nuclei", 1, 2)
    bare_plots.plots.stop()
    bare_plots.engine.gate.set()
    bare_plots.settle()
    assert bare_plots.progress[-1] is None
    assert not bare_plots.plots.is_measuring
    assert len(bare_plots.plots.cloud) == ALL / 2
    assert bare_plots.said == ["Stopped: 1 of 2 parts of the slide are measured."]
    bare_plots.plots.refresh()  # and goes on when something has changed
    bare_plots.settle()
    assert len(bare_plots.plots.cloud) == ALL


def test_what_is_measured_so_far_is_plotted_but_never_less_than_before(bare_plots, disc_slide, monkeypatch):
    monkeypatch.setattr("napari_nucleiseg.viewer.plots.PART_S", 0.0)
    hold_halfway(bare_plots, disc_slide)
    bare_plots.pump.run_until(lambda: len(bare_plots.plots.cloud) == ALL / 2)
    bare_plots.engine.gate.set()
    bare_plots.settle()
    assert len(bare_plots.plots.cloud) == ALL
    sizes = []
    bare_plots.plots.measured.connect(lambda: sizes.append(len(bare_plots.plots.cloud)))
    bare_plots.plots.refresh()
    bare_plots.settle()
    assert sizes == [ALL]


def test_tiles_that_are_done_meanwhile_are_measured_after_what_is_being_measured(ready):
    ready.engine.gate.clear()
    ready.plots.refresh()
    asked = len(ready.engine.asked)
    ready.controller.display.tile_done.emit(Region(0, 0, 64, 64))
    ready.controller.display.tile_done.emit(Region(0, 64, 64, 64))
    ready.pump.run_for(0.3)
    assert len(ready.engine.asked) <= asked + 1
    ready.engine.gate.set()
    ready.settle()
    ready.pump.run_for(0.1)
    assert len(ready.engine.asked) >= asked + 1
    assert len(ready.plots.cloud) == ALL


def test_what_cannot_be_measured_is_a_sentence(ready):
    ready.engine.failure = DataError("This is not the slide.")
    ready.plots.refresh()
    ready.settle()
    assert ready.said[-1] == "This is not the slide."
    assert ready.progress[-1:] in ([], [None])


def test_all_goes_with_the_slide(ready):
    ready.plots.select_all()
    ready.settle()
    ready.viewer.layers.remove(ready.controller.display.shelf.now.layer)
    ready.settle()
    assert len(ready.plots.cloud) == len(ready.plots.selected) == 0
    assert ready.shown() == {}


@pytest.fixture
def on_another(ready, tmp_path):
    """The same, but another slide, whose nuclei have the same ids, is in hand and plotted; and both layers."""
    first = ready.controller.display.shelf.now.layer
    tile = {"tile": (256, 256), "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "another.tif", np.roll(disc_picture((HEIGHT, WIDTH)), 8, axis=1), **tile)
    ready.open(tmp_path / "another.tif")
    ready.segment()
    ready.wishes.source = WHOLE_SLIDE
    ready.settle()
    cloud = ready.plots.cloud
    assert np.intersect1d(cloud.ids, truth(ready).ids).tolist() == cloud.ids.tolist() != []
    return ready, first, ready.controller.display.shelf.now.layer


def test_nothing_of_the_former_slide_is_plotted_not_even_where_this_one_cannot_be_measured(on_another):
    ready, first, _ = on_another
    ready.engine.failure = DataError("This is not the slide.")
    ready.viewer.layers.selection.active = first
    assert len(ready.plots.cloud) == 0
    ready.plots.select_all()
    ready.settle()
    assert ready.said[-1] == "This is not the slide."
    assert len(ready.plots.cloud) == len(ready.plots.selected) == 0
    ready.engine.failure = None
    ready.plots.refresh()
    ready.settle()
    assert ready.plots.cloud.centroids.tolist() == truth(ready).centroids.tolist()


def test_nothing_of_the_former_slide_is_plotted_when_plots_are_seen_again(on_another):
    ready, first, _ = on_another
    ready.plots.close()
    ready.viewer.layers.selection.active = first
    ready.engine.gate.clear()
    sizes = []
    ready.plots.measured.connect(lambda: sizes.append((len(ready.plots.cloud), ready.plots.is_measuring)))
    ready.plots.open()
    assert sizes == [(0, True)]
    ready.engine.gate.set()
    ready.settle()
    assert len(ready.plots.cloud) == ALL


def test_a_fence_drawn_before_a_switch_selects_nothing_of_the_next_slide(on_another):
    ready, first, _ = on_another
    box = np.array([(-1.0, -1.0), (1e4, -1.0), (1e4, 1e4), (-1.0, 1e4)])
    ready.plots.fence("area_um2", "score", box)
    ready.viewer.layers.selection.active = first
    ready.settle()
    assert len(ready.plots.cloud) == ALL
    assert len(ready.plots.selected) == 0
    ready.plots.fence("area_um2", "score", box)
    ready.settle()
    assert len(ready.plots.selected) == ALL


# ---------------------------------------------------------------------- selecting


def test_a_fence_selects_by_value_and_adds_and_takes_away(ready):
    plots, table = ready.plots, truth(ready)
    cloud = plots.cloud
    # Any two quantities will do: these two are known of each nucleus beforehand.
    cloud.values["y"], cloud.values["x"] = (cloud.centroids[:, axis].astype(np.float32) for axis in (0, 1))
    y, x = table.centroids.T

    def fence(x0, x1, **how):
        plots.fence("x", "y", np.array([(x0, -1.0), (x1, -1.0), (x1, 400.0), (x0, 400.0)]), **how)
        ready.settle()

    fence(0, 300)
    assert plots.selected.tolist() == table.ids[(x < 300) & (y < 400)].tolist()
    fence(600, 700, how=MORE)
    chosen = (y < 400) & ((x < 300) | ((x >= 600) & (x < 700)))
    assert plots.selected.tolist() == table.ids[chosen].tolist()
    fence(100, 650, how=LESS)
    assert plots.selected.tolist() == table.ids[chosen & ((x < 100) | (x >= 650))].tolist()
    fence(5000, 6000)
    assert len(plots.selected) == 0


def test_two_fences_in_quick_succession_both_count(ready):
    cloud = ready.plots.cloud
    cloud.values["x"] = cloud.centroids[:, 1].astype(np.float32)
    box = np.array([(0.0, 0.0), (200.0, 0.0), (200.0, 200.0), (0.0, 200.0)])
    ready.plots.fence("x", "x", box)
    ready.plots.fence("x", "x", box + 500, MORE)
    ready.settle()
    x = truth(ready).centroids[:, 1]
    assert len(ready.plots.selected) == ((x < 200) | ((x >= 500) & (x < 700))).sum()


def test_a_range_and_a_bar_select_and_clearing_ends_it(ready):
    plots = ready.plots
    score = plots.cloud.of("score")
    middle = float(np.median(score))
    plots.range("score", middle, 1.0)
    assert plots.selected.tolist() == plots.cloud.ids[score >= np.float32(middle)].tolist()
    plots.clear()
    assert len(plots.selected) == 0


def test_a_selection_outlives_a_move_of_the_view(ready):
    ready.plots.select(ready.plots.cloud.ids)
    ready.see(Region(0, 0, 192, 256))
    assert len(ready.plots.cloud) < ALL
    assert len(ready.plots.selected) == ALL


def approve(ready, ids):
    ready.controller.session.editing = True
    ready.settle()
    ready.editing.approve(ids.tolist())
    ready.settle()
    ready.controller.session.editing = False
    ready.settle()


def test_ids_that_a_model_gives_anew_are_not_selected_but_those_of_approved_nuclei_are(ready):
    chosen = truth(ready).ids[100:110]
    approve(ready, chosen[:3])
    ready.plots.select(chosen)
    ready.plots.close()  # who does not look selects no others either
    ready.controller.session.min_area_um2 = 10.0
    ready.settle()
    ready.segment()
    assert np.isin(chosen[3:], truth(ready).ids).any()
    ready.show()
    assert ready.plots.selected.tolist() == chosen[:3].tolist()


def test_only_what_lies_where_a_model_has_written_is_not_selected_and_not_listed_alone_any_more(ready):
    listed, told = NucleiList(ready.editing, ready.controller.display), []
    listed.given_anew.connect(lambda ids: told.append(sorted(ids.tolist())))
    table = truth(ready)
    listed.only = table.ids
    ready.plots.select(table.ids)
    tile = Region(100, 200, 300, 400)
    inside = np.isin(table.ids, truth(ready, tile).ids)
    assert 0 < inside.sum() < ALL
    ready.controller.display.tile_done.emit(tile)
    ready.settle()
    assert ready.plots.selected.tolist() == listed.only.tolist() == table.ids[~inside].tolist()
    assert told == [table.ids[inside].tolist()]


@pytest.fixture
def renewed(bare_plots, tmp_path, monkeypatch):
    """Plots and a list of nuclei that a model has found anew since; and them as they were, at least 6 px away."""
    small = disc_centres((HEIGHT, WIDTH))[::5]
    picture = disc_picture((HEIGHT, WIDTH))
    for y, x in small.tolist():
        cv2.circle(picture, (x, y), 7, (214, 170, 205), -1)
        cv2.circle(picture, (x, y), 4, (70, 50, 120), -1)
    tile = {"tile": (256, 256), "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "mixed.tif", picture, **tile)
    bare_plots.open(tmp_path / "mixed.tif")
    bare_plots.segment()
    bare_plots.controller.session.editing = True
    bare_plots.show()
    listed = NucleiList(bare_plots.editing, bare_plots.controller.display)
    listed.open()
    bare_plots.settle()
    for module in (nuclei_list, plots):
        monkeypatch.setattr(module, "TILE_S", 60.0)
    bare_plots.controller.display.tile_done.emit(Region(0, 0, 8, 8))  # the next one is waited for
    bare_plots.settle()
    before = truth(bare_plots)
    bare_plots.controller.session.min_area_um2 = 20.0
    bare_plots.settle()
    bare_plots.segment()
    after = truth(bare_plots)
    assert len(listed.listing) == len(bare_plots.plots.cloud) == len(before.ids) > len(after.ids)
    common = np.intersect1d(before.ids, after.ids)
    moved = before.centroids[np.isin(before.ids, common)] - after.centroids[np.isin(after.ids, common)]
    others = common[np.abs(moved).max(axis=1) > 6]
    yield bare_plots, listed, others
    listed.close()


def test_a_row_of_a_nucleus_that_was_found_anew_is_not_gone_to_and_not_changed(renewed):
    ready, listed, others = renewed
    said, hinted, chosen = [], [], []
    listed.said.connect(lambda hint: said.append(hint.text))
    listed.chosen.connect(chosen.append)
    ready.editing.hinted.connect(lambda hint: hinted.append(hint.text))
    rows = listed.listing.rows_of(others[:3].tolist()).tolist()
    ids = truth(ready).ids.tolist()
    camera = tuple(ready.viewer.scene.camera.center)
    listed.go_to(rows[0])
    listed.choose(np.array(rows))
    listed.delete(rows, kind="delete")
    listed.classify(rows, 1)
    listed.approve(rows, approved=True)
    ready.settle()
    assert tuple(ready.viewer.scene.camera.center) == camera
    assert (chosen, said, len(ready.plots.selected)) == ([], [FOUND_ANEW], 0)
    assert hinted.count("3 of them have been found anew: nothing was done.") == 3
    assert ready.project.editor.history() == []
    assert truth(ready).ids.tolist() == ids
    listed.refresh()
    ready.settle()
    listed.delete(listed.listing.rows_of(others[:3].tolist()), kind="delete")
    ready.settle()
    assert truth(ready).ids.tolist() == [nucleus for nucleus in ids if nucleus not in others[:3]]


def test_a_point_of_a_nucleus_that_was_found_anew_is_not_gone_to_and_not_selected(renewed):
    ready, _, others = renewed
    shown, cloud = ready.plots, ready.plots.cloud
    (row,) = cloud.rows_of(others[:1])
    score, camera = cloud.of("score"), tuple(ready.viewer.scene.camera.center)
    cloud.values["x"] = np.zeros(len(cloud), np.float32)
    for act in (
        lambda: shown.go_to(row),
        lambda: shown.range("score", float(score.min()), float(score.max())),
        lambda: shown.fence("x", "x", np.array([(-1.0, -1.0), (-1.0, 1.0), (1.0, 1.0), (1.0, -1.0)])),
        shown.select_all,
    ):
        act()
        ready.settle()
        assert not np.isin(shown.selected, others).any()
        assert ready.said.pop() == FOUND_ANEW
    assert tuple(ready.viewer.scene.camera.center) == camera
    shown.refresh()
    ready.settle()
    shown.go_to(int(shown.cloud.rows_of(others[:1])[0]))
    assert shown.selected.tolist() == others[:1].tolist()
    assert ready.said[-1] == ""


def test_a_nucleus_picked_on_the_slide_is_pointed_at_once_its_row_is_known(renewed):
    ready, listed, others = renewed
    pointed = []
    listed.pointed.connect(lambda row: pointed.append(int(listed.listing.ids[row])))
    listed._on_picked(int(others[0]))
    ready.settle()
    assert pointed == []
    listed.refresh()
    ready.settle()
    assert pointed == [others[0]]


def test_a_selection_is_gone_with_the_results_of_another_pixel_size(ready):
    ready.plots.select_all()
    ready.controller.set_pixel_size(YX(0.45, 0.45))
    ready.settle()
    assert len(ready.plots.selected) == len(ready.plots.cloud) == 0


# ---------------------------------------------------------------------- on the slide


def test_selected_nuclei_are_marked_where_they_lie_and_no_others(ready):
    table = truth(ready)
    chosen = table.ids[table.centroids[:, 1] < WIDTH / 2]
    ready.plots.select(chosen)
    ready.settle()
    layer = ready.shown()[SELECTED]
    assert np.array(layer.colormap.map(np.array([1.0])))[0, :3] == pytest.approx((1, 1, 0))
    for nucleus, (y, x) in zip(table.ids, table.centroids, strict=True):
        row, column = np.rint(layer.world_to_data((y * 0.5, x * 0.5))).astype(int)
        assert np.isfinite(layer.data[row, column]) == (nucleus in chosen)
    assert layer.opacity == 0.75
    ready.plots.clear()
    ready.settle()
    assert ready.shown() == {}


def test_marks_follow_the_view_and_are_finer_from_near(ready):
    ready.plots.select_all()
    ready.settle()
    before = ready.shown()[SELECTED].extent.world
    ready.see(Region(100, 100, 96, 128))
    after = ready.shown()[SELECTED]
    assert (after.extent.world[1] - after.extent.world[0] < before[1] - before[0]).all()
    assert after.scale == pytest.approx((0.5, 0.5))
    ready.see(Region(600, 800, 96, 128))
    moved = ready.shown()[SELECTED].extent.world
    assert (moved[0] < (600 * 0.5, 800 * 0.5)).all()
    assert (moved[1] > (690 * 0.5, 920 * 0.5)).all()


def test_nuclei_are_coloured_by_what_is_plotted_and_what_odd_ones_have_does_not_matter(ready):
    told = []
    ready.layers.coloured.connect(told.append)
    score = ready.plots.cloud.of("score")
    ready.wishes.across = "score"
    ready.wishes.coloured = True
    ready.settle()
    layer = ready.shown()[VALUES]
    low, high = np.percentile(score, (2, 98))
    assert layer.contrast_limits == pytest.approx((low, max(high, low + 1e-9)), abs=1.0)
    assert told[-1] == pytest.approx(tuple(layer.contrast_limits))
    y, x = truth(ready).centroids[17]
    row, column = np.rint(layer.world_to_data((y * 0.5, x * 0.5))).astype(int)
    assert layer.data[row, column] == pytest.approx(score[17])
    ready.wishes.coloured = False
    ready.settle()
    assert ready.shown() == {}
    assert told[-1] is None


def test_going_to_a_nucleus_flies_there_and_leaves_the_plot_as_it_is(ready):
    asked = len(ready.engine.asked)
    ready.plots.go_to(100)
    ready.settle()
    centre = truth(ready).centroids[100]
    assert np.array(ready.viewer.scene.camera.center[-2:]) == pytest.approx(centre * 0.5, abs=1)
    assert ready.ringed() == pytest.approx(centre, abs=1)
    assert ready.plots.selected.tolist() == [truth(ready).ids[100]]
    assert len(ready.plots.cloud) == ALL
    assert len(ready.engine.asked) == asked
    ready.see(Region(0, 0, 192, 256))  # whoever moves on by hand plots what is seen there
    assert len(ready.plots.cloud) < ALL


def test_a_click_on_the_slide_selects_the_nucleus_there_and_beside_nuclei_nothing(ready):
    table = truth(ready)
    ready.layers.click(tuple(table.centroids[40] * 0.5))
    ready.settle()
    assert ready.plots.selected.tolist() == [table.ids[40]]
    ready.layers.click(tuple(table.centroids[41] * 0.5), MORE)
    ready.settle()
    assert ready.plots.selected.tolist() == [table.ids[40], table.ids[41]]
    for beside in ((0.2, 0.2), (-50.0, 9000.0)):
        ready.layers.click(beside)
        ready.settle()
        assert len(ready.plots.selected) == 2


def test_what_is_picked_while_correcting_is_selected(ready):
    ready.editing.picked.emit(int(truth(ready).ids[3]))
    assert ready.plots.selected.tolist() == [truth(ready).ids[3]]
    ready.editing.picked.emit(0)
    assert len(ready.plots.selected) == 1


def test_layers_and_clicks_end_when_nobody_looks(ready):
    ready.plots.select_all()
    ready.settle()
    callbacks = len(ready.viewer.mouse_drag_callbacks)
    ready.layers.close()
    ready.plots.close()
    ready.settle()
    assert ready.shown() == {}
    assert len(ready.viewer.mouse_drag_callbacks) == callbacks - 1
    ready.show()
    assert set(ready.shown()) == {SELECTED}  # the selection is still there


# ---------------------------------------------------------------------- the table


def test_a_selection_is_listed_alone_and_rows_that_are_chosen_are_selected(ready):
    listed = NucleiList(ready.editing, ready.controller.display)
    listed.chosen.connect(ready.plots.choose)
    wanted = []
    ready.plots.list_wanted.connect(wanted.append)
    ready.acts.show_in_list()
    assert wanted == []  # nothing is selected
    ready.plots.select(ready.plots.cloud.ids[10:30])
    ready.acts.show_in_list()
    listed.open()
    listed.show_only(wanted[0])
    ready.settle()
    assert sorted(listed.listing.ids.tolist()) == ready.plots.cloud.ids[10:30].tolist()
    listed.choose(np.array([2, 0]))
    assert ready.plots.selected.tolist() == sorted(listed.listing.ids[[0, 2]].tolist())
    listed.show_only(None)
    ready.settle()
    assert len(listed.listing) == ALL
    listed.close()


# ---------------------------------------------------------------------- acts


def test_acts_need_correcting_and_a_selection(ready):
    ready.plots.select_all()
    assert not ready.acts.can_change
    for act in (ready.acts.approve, ready.acts.reject, lambda: ready.acts.classify(1)):
        act()
    ready.settle()
    assert not truth(ready).approved.any()
    ready.controller.session.editing = True
    ready.settle()
    assert ready.acts.can_change
    ready.plots.clear()
    assert not ready.acts.can_change


def test_selected_nuclei_are_approved_given_a_class_and_rejected_as_one_step_each(ready):
    ready.controller.session.editing = True
    ready.settle()
    chosen = ready.plots.cloud.ids[:50]
    ready.plots.select(chosen)
    ready.acts.approve()
    ready.settle()
    ready.acts.classify(2)
    ready.settle()
    table = truth(ready)
    assert table.ids[table.approved].tolist() == table.ids[table.classes == 2].tolist() == chosen.tolist()
    assert (ready.plots.cloud.classes == 2).sum() == 50
    ready.acts.classify(7)  # there is none of this number
    ready.settle()
    assert (truth(ready).classes == 2).sum() == 50
    ready.acts.reject()
    ready.settle()
    assert len(truth(ready)) == len(ready.plots.cloud) == ALL - 50
    assert len(ready.plots.selected) == 0
    steps = [(step.kind, step.nuclei) for step in ready.project.editor.history()]
    assert steps == [("reject", 50), ("classify", 50), ("approve", 50)]


def test_a_selection_is_written_with_its_measurements_and_nothing_else(ready, tmp_path):
    chosen = ready.plots.cloud.ids[100:120]
    path = tmp_path / "some.csv"
    ready.acts.export(str(path))
    ready.settle()
    assert not path.exists()  # nothing is selected
    ready.plots.select(chosen)
    ready.acts.export(str(path))
    ready.settle()
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == chosen.tolist()
    values = ready.plots.cloud.of("perimeter_um")[100:120]
    assert [float(row["perimeter_um"]) for row in rows] == pytest.approx(values.tolist(), rel=1e-3)
    assert ready.said[-1] == "20 nuclei written to some.csv."


def test_a_table_that_cannot_be_written_is_a_sentence(ready, tmp_path):
    ready.plots.select_all()
    ready.acts.export(str(tmp_path / "nowhere" / "deeper" / "some.csv"))
    ready.settle()
    assert "written to" not in ready.said[-1]
    assert "nowhere" in ready.said[-1]
    assert not ready.acts.long_work.is_running
