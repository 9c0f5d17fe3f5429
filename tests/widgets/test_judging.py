"""Nuclei against a reference: the question, layers by mistake, numbers, and all gone when one has seen it."""

import json
import threading

import numpy as np
import pytest
from qtpy.QtWidgets import QDialog, QFileDialog

from gui_parts import WAIT_MS, answer, choose_action, click, open_and_settle, until_idle
from napari_nucleiseg.core.batch import slide_evaluation
from napari_nucleiseg.core.evaluation.kinds import Kind
from napari_nucleiseg.core.exchange.formats import export
from napari_nucleiseg.core.exchange.source import source_of_project
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.regions import AnnotatedRegion
from napari_nucleiseg.viewer.judging import ALL, COVERED, FOUND_ANEW, VIEW, Wish
from napari_nucleiseg.widgets import docks
from napari_nucleiseg.widgets.judging_dialog import JudgingDialog

NAMES = ["Merged", "Split", "Added", "Missed", "Reference"]
ALL_NUCLEI = 24 * 32
EDGE = Region(0, 0, 64, 64)


def changed(features):
    """A reference that lacks the first nucleus and knows one more; it cuts one in two, and takes two for one."""
    first, second, third, fourth, *rest = [json.loads(json.dumps(one)) for one in features]
    assert first is not None
    ys, xs = (np.array(second["geometry"]["coordinates"][0])[:, axis] for axis in (1, 0))
    middle = float(np.median(xs)), (float(ys.min()), float(ys.max()), float(xs.min()), float(xs.max()))
    (y0, y1, x0, x1) = middle[1]
    halves = [box(y0, y1, x0, middle[0]), box(y0, y1, middle[0], x1)]
    points = np.concatenate([np.array(one["geometry"]["coordinates"][0]) for one in (third, fourth)])
    (left, top), (right, low) = points.min(0).tolist(), points.max(0).tolist()
    return [*rest, *halves, box(top, low, left, right), box(2, 8, 2, 8)]


def box(y0, y1, x0, x1):
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "detection"},
    }


@pytest.fixture
def segmented(viewer, panel, disc_slide, qtbot):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    return panel


@pytest.fixture
def reference(segmented, tmp_path):
    """What was found, but for a few nuclei of the first two rows."""
    project = segmented.controller.display.shelf.now.project
    path = tmp_path / "truth.geojson"
    export(source_of_project(project), path, "geojson")
    document = json.loads(path.read_text())
    document["features"] = changed(document["features"])
    path.write_text(json.dumps(document))
    return path


def judged(qtbot, panel, wish):
    """Compare, without the question."""
    panel.docks.judging.begin(wish)
    qtbot.waitUntil(lambda: panel.docks.judging.is_shown, timeout=WAIT_MS)
    until_idle(qtbot, panel)


def dock_of(panel):
    return panel.docks.widget(docks.JUDGING)


def column(table, title):
    titles = [table.horizontalHeaderItem(place).text() for place in range(table.columnCount())]
    return [table.item(row, titles.index(title)).text() for row in range(table.rowCount())]


def test_the_button_asks_and_the_slide_shows_what_is_wrong(viewer, segmented, reference, qtbot):
    before = [layer.name for layer in viewer.layers]

    def fill(dialog):
        assert not dialog.ok_button.isEnabled()
        dialog.path.setText(str(reference))
        assert [dialog.place.itemData(place) for place in range(dialog.place.count())] == [COVERED, VIEW]
        click(qtbot, dialog.ok_button)

    asked = answer(fill, JudgingDialog)
    choose_action(qtbot, segmented.panel.correct.more_button, segmented.panel.correct.compare_action)
    assert asked
    judging = segmented.docks.judging
    qtbot.waitUntil(lambda: judging.is_shown, timeout=WAIT_MS)
    until_idle(qtbot, segmented)
    assert [layer.name for layer in viewer.layers] == [*before, *NAMES]
    dock = dock_of(segmented)
    assert f"{ALL_NUCLEI - 4:,} of {ALL_NUCLEI:,} nuclei of the reference are right" in dock.text.text()
    for told in ("1 missed", "1 added", "1 split", "1 merged", "truth.geojson"):
        assert told in dock.text.text()
    assert column(dock.table, "") == ["Whole slide"]
    assert column(dock.table, "Correct") == [str(ALL_NUCLEI - 4)]
    assert column(dock.table, "Reference") == [f"{ALL_NUCLEI}"]
    # A nucleus that was missed is red where only the reference has it, and all else is clear.
    missed, added = viewer.layers["Missed"], viewer.layers["Added"]
    assert (missed.data[0][5, 5], missed.data[0][20, 20], np.count_nonzero(missed.data[0][...])) == (1, 0, 36)
    assert np.count_nonzero(added.data[0][...]) > 0
    assert missed.get_color(1).tolist() == pytest.approx([1, 0x3B / 255, 0x30 / 255, 1])
    assert missed.units == segmented.controller.display.shelf.now.nuclei.units
    assert segmented.controller.display.shelf.now.nuclei.visible


def test_taking_it_away_leaves_the_window_as_it_was(viewer, segmented, reference, qtbot):
    before = [(layer.name, layer.visible) for layer in viewer.layers]
    segmented.docks.judging.begin(Wish(str(reference)))
    segmented.docks.compare_with_reference()  # asks nothing while one is at work
    qtbot.waitUntil(lambda: segmented.docks.judging.is_shown, timeout=WAIT_MS)
    until_idle(qtbot, segmented)
    scratch = segmented.docks.judging._judged.reference.project.folder
    assert scratch.exists()
    dock = dock_of(segmented)
    assert dock.stop_button.text() == "Take away"
    click(qtbot, dock.stop_button)
    until_idle(qtbot, segmented)
    assert [(layer.name, layer.visible) for layer in viewer.layers] == before
    qtbot.waitUntil(lambda: not scratch.exists(), timeout=WAIT_MS)
    assert not dock.table.isVisible()
    click(qtbot, dock.again_button)
    qtbot.waitUntil(lambda: segmented.docks.judging.is_shown, timeout=WAIT_MS)
    until_idle(qtbot, segmented)
    viewer.layers.remove("Missed")  # may go alone
    assert segmented.docks.judging.is_shown
    viewer.layers.remove("Reference")  # as good as the button
    until_idle(qtbot, segmented)
    assert [(layer.name, layer.visible) for layer in viewer.layers] == before


def test_the_view_and_regions_are_compared_alone(viewer, segmented, reference, qtbot):
    viewer.scene.camera.zoom *= 4
    until_idle(qtbot, segmented)
    judged(qtbot, segmented, Wish(str(reference), VIEW))
    report = segmented.docks.judging._judged.report
    assert [region.name for region in report.regions] == ["View"]
    assert 0 < report.total.scores.truth_count < ALL_NUCLEI / 4
    segmented.session.editing = True
    until_idle(qtbot, segmented)
    corners = ((0.0, 0.0), (0.0, 400.0), (300.0, 400.0), (300.0, 0.0))
    for name, role in (("First", "hold out"), ("Second", "reference")):
        segmented.docks.regions.put(AnnotatedRegion(0, name, role, corners))
        until_idle(qtbot, segmented)
    dialog = JudgingDialog(segmented, segmented.docks.regions.regions, Wish(str(reference), ALL))
    assert dialog.place.currentText() == "All annotated regions (2)"
    assert dialog.ok_button.isEnabled()
    judged(qtbot, segmented, dialog.wish)
    report = segmented.docks.judging._judged.report
    assert [region.name for region in report.regions] == ["First", "Second"]
    assert report.total.scores.truth_count == report.regions[0].scores.truth_count


def test_a_mistake_that_is_mended_is_right_when_compared_again(
    viewer, segmented, reference, qtbot, monkeypatch, tmp_path
):
    monkeypatch.setattr("napari_nucleiseg.widgets.judging.ask_comparison", lambda *_: Wish(str(reference)))
    choose_action(qtbot, segmented.panel.correct.more_button, segmented.panel.correct.compare_action)
    judging = segmented.docks.judging
    qtbot.waitUntil(lambda: judging.is_shown, timeout=WAIT_MS)
    until_idle(qtbot, segmented)
    dock = dock_of(segmented)
    out = tmp_path / "wrong.geojson"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(out.with_suffix("")), ""))
    click(qtbot, dock.write_button)
    qtbot.waitUntil(lambda: "5 nuclei that are wrong written" in dock.hint.text(), timeout=WAIT_MS)
    until_idle(qtbot, segmented)
    kinds = [one["properties"]["classification"]["name"] for one in json.loads(out.read_text())["features"]]
    assert sorted(kinds) == ["Added", "Merged", "Missed", "Split", "Split"]
    segmented.session.editing = True
    until_idle(qtbot, segmented)
    project = segmented.controller.display.shelf.now.project
    (wrong,) = judging._judged.report.pred.of(Kind.ADDED).tolist()
    project.editor.paint(EDGE, np.where(project.labels.read(EDGE) == wrong, 0, project.labels.read(EDGE)))
    segmented.controller.editing.edited.emit()
    assert not np.asarray(viewer.layers["Added"].data[0][...]).any()
    click(qtbot, dock.again_button)
    qtbot.waitUntil(lambda: judging.is_shown and not judging.is_running, timeout=WAIT_MS)
    until_idle(qtbot, segmented)
    assert "0 added" in dock.text.text()


def test_it_is_stopped_while_it_compares(viewer, segmented, reference, qtbot, monkeypatch):
    began, gate = threading.Event(), threading.Event()
    real = slide_evaluation.evaluate_slide

    def slow(*words, on_progress, **more):
        began.set()
        assert gate.wait(60)
        return real(*words, on_progress=on_progress, **more)

    monkeypatch.setattr(slide_evaluation, "evaluate_slide", slow)
    monkeypatch.setattr("napari_nucleiseg.widgets.judging.ask_comparison", lambda *_: Wish(str(reference)))
    choose_action(qtbot, segmented.panel.correct.more_button, segmented.panel.correct.compare_action)
    qtbot.waitUntil(began.is_set, timeout=WAIT_MS)
    dock = dock_of(segmented)
    qtbot.waitUntil(dock.bar.isVisible, timeout=WAIT_MS)
    assert dock.stop_button.text() == "Stop"
    click(qtbot, dock.stop_button)
    gate.set()
    until_idle(qtbot, segmented)
    assert not segmented.docks.judging.is_running
    assert "Reference" not in viewer.layers
    assert "Stopped." in dock.hint.text()
    assert not dock.bar.isVisible()


def test_what_cannot_be_compared_is_said(viewer, panel, disc_slide, qtbot, tmp_path, monkeypatch):
    broken = tmp_path / "broken.geojson"
    broken.write_text("{ not json")
    monkeypatch.setattr("napari_nucleiseg.widgets.judging.ask_comparison", lambda *_: Wish(str(broken)))
    panel.docks.compare_with_reference()
    dock = dock_of(panel)
    assert "Open a slide first" in dock.hint.text()
    open_and_settle(viewer, panel, disc_slide, qtbot)
    click(qtbot, dock.compare_button)
    assert "no nuclei to compare yet" in dock.hint.text()
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    click(qtbot, dock.compare_button)
    qtbot.waitUntil(lambda: "broken.geojson" in dock.hint.text(), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert dock.hint.isVisible()
    assert not panel.docks.judging.is_running


def test_closing_the_slide_ends_it(viewer, segmented, reference, qtbot):
    judged(qtbot, segmented, Wish(str(reference)))
    scratch = segmented.docks.judging._judged.reference.project.folder
    viewer.layers.remove(segmented.controller.display.shelf.now.layer)
    until_idle(qtbot, segmented)
    assert len(viewer.layers) == 0
    assert segmented.docks.judging.wish is None
    qtbot.waitUntil(lambda: not scratch.exists(), timeout=WAIT_MS)


def test_another_pixel_size_ends_it(viewer, segmented, reference, qtbot):
    judged(qtbot, segmented, Wish(str(reference)))
    segmented.controller.set_pixel_size(YX(0.4, 0.4))
    until_idle(qtbot, segmented)
    assert not segmented.docks.judging.is_shown
    assert "Reference" not in viewer.layers


def test_the_question_can_be_left(segmented, qtbot):
    asked = answer(QDialog.reject, JudgingDialog)
    choose_action(qtbot, segmented.panel.correct.more_button, segmented.panel.correct.compare_action)
    assert asked
    assert segmented.docks.judging.wish is None


def test_nuclei_that_are_found_anew_end_the_comparison(segmented, reference, qtbot):
    judged(qtbot, segmented, Wish(str(reference)))
    segmented.controller.display.tile_done.emit(Region(0, 0, 0, 0))  # nothing was found there
    until_idle(qtbot, segmented)
    assert segmented.docks.judging.is_shown
    said = []
    segmented.docks.judging.said.connect(said.append)
    segmented.session.min_area_um2 += 1
    click(qtbot, segmented.panel.view_button)
    until_idle(qtbot, segmented)
    qtbot.waitUntil(lambda: not segmented.docks.judging.is_shown, timeout=WAIT_MS)
    assert [(hint.text, hint.is_warning) for hint in said if hint.text] == [(FOUND_ANEW, True)]
