"""A person at the table of nuclei: rows and slide are tied to each other both ways, and many are changed at once."""

import itertools
import threading

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QEvent, QPoint, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QApplication

from dark_model import disc_centres, disc_picture
from gui_parts import WAIT_MS, click, open_and_settle, until_idle
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.viewer import nuclei_list
from napari_nucleiseg.viewer.given_anew import FOUND_ANEW
from napari_nucleiseg.viewer.visible import visible_region
from napari_nucleiseg.widgets.nuclei_model import COLUMNS
from napari_nucleiseg.widgets.nuclei_table import CLASS_PX

ALL = 24 * 32
LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def table(viewer, panel, disc_slide, qtbot):
    """The table beside the panel, on a slide that is segmented and can be corrected."""
    open_and_settle(viewer, panel, disc_slide, qtbot)
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    click(qtbot, panel.panel.correct.toggle)
    click(qtbot, panel.panel.correct.table_button)
    made = panel.docks.widget("Nuclei table")
    qtbot.waitUntil(lambda: made.model.rowCount() == ALL, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    return made


def cell(table, row, column):
    return table.model.data(table.model.index(row, column))


def press_row(qtbot, table, row, modifier=Qt.KeyboardModifier.NoModifier):
    place = table.view.visualRect(table.model.index(row, 2)).center()
    qtbot.mouseClick(table.view.viewport(), LEFT, modifier, place)


def choose(box, text):
    place = box.findText(text)
    assert place >= 0, [box.itemText(i) for i in range(box.count())]
    box.setCurrentIndex(place)
    box.activated.emit(place)


def until_listed(qtbot, panel, table, rows):
    """Wait for a list of so many rows, and for what comes of it."""
    qtbot.waitUntil(lambda: table.model.rowCount() == rows, timeout=WAIT_MS)
    until_idle(qtbot, panel)


def history(panel):
    return [(step.kind, step.nuclei) for step in panel.controller.editing.project.editor.history() if not step.undone]


def shown(panel):
    return len(panel.controller.editing.project.nuclei_in(Region(0, 0, 768, 1024)))


def test_rows_say_what_is_known_of_each_nucleus(table, panel, qtbot):
    qtbot.waitUntil(lambda: cell(table, 0, 2) != "…", timeout=WAIT_MS)
    nuclei = panel.controller.editing.project.nuclei_in(Region(0, 0, 768, 1024))
    assert cell(table, 0, 0) == str(nuclei.ids[0])
    assert float(cell(table, 0, 2)) == pytest.approx(nuclei.areas_um2[0], abs=0.06)
    assert float(cell(table, 0, 3)) == pytest.approx(nuclei.scores[0], abs=6e-4)
    assert cell(table, 0, 4).startswith("nuclei")
    assert cell(table, 0, 5) == ""
    y, x = nuclei.centroids[0] * 0.5
    assert (float(cell(table, 0, 6)), float(cell(table, 0, 7))) == pytest.approx((x, y), abs=0.06)
    assert table.filter.count.text() == f"{ALL} nuclei"
    # Words stand below the beginning of their title.
    model, role = table.view.model(), Qt.ItemDataRole.TextAlignmentRole
    left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
    words = [place for place, column in enumerate(COLUMNS) if not column.is_number]
    assert [model.headerData(place, Qt.Orientation.Horizontal, role) for place in words] == [left] * len(words)
    assert [model.index(0, place).data(role) for place in words] == [left] * len(words)
    assert table.class_button.minimumWidth() == CLASS_PX > table.class_button.minimumSizeHint().width()


def test_a_click_on_a_row_flies_there_and_rings_the_nucleus(viewer, table, panel, qtbot):
    qtbot.waitUntil(lambda: cell(table, 3, 2) != "…", timeout=WAIT_MS)
    active = viewer.layers.selection.active
    press_row(qtbot, table, 3)
    until_idle(qtbot, panel)
    nucleus = panel.controller.editing.project.nuclei_in(Region(0, 0, 768, 1024)).centroids[3]
    assert np.array(viewer.scene.camera.center[-2:]) == pytest.approx(nucleus * 0.5, abs=1.0)
    assert viewer.scene.camera.zoom >= 1.6
    ring = viewer.layers["nucleus in the table"]
    assert ring.data[0] == pytest.approx(nucleus, abs=1.0)
    assert panel.controller.editing.window.layer is not None  # near enough to correct
    if active in viewer.layers:
        assert viewer.layers.selection.active == active or viewer.layers.selection.active.name.endswith("(correct)")
    qtbot.keyClick(table.view, Qt.Key.Key_Down)
    assert table.rows().tolist() == [4]
    until_idle(qtbot, panel)
    after = panel.controller.editing.project.nuclei_in(Region(0, 0, 768, 1024)).centroids[4]
    assert np.array(viewer.scene.camera.center[-2:]) == pytest.approx(after * 0.5, abs=1.0)


def test_with_another_pixel_size_no_row_and_no_ring_stays(viewer, table, panel, qtbot):
    qtbot.waitUntil(lambda: cell(table, 3, 2) != "…", timeout=WAIT_MS)
    press_row(qtbot, table, 3)
    until_idle(qtbot, panel)
    assert "nucleus in the table" in viewer.layers
    panel.controller.set_pixel_size(YX(0.25, 0.25))
    until_idle(qtbot, panel)
    assert table.model.rowCount() == 0
    assert [layer.name for layer in viewer.layers] == ["discs"]


def test_a_click_flies_there_without_correcting_too(viewer, table, panel, qtbot):
    click(qtbot, panel.panel.correct.toggle)
    until_idle(qtbot, panel)
    press_row(qtbot, table, 2)
    until_idle(qtbot, panel)
    nucleus = panel.controller.display.shelf.now.project.nuclei_in(Region(0, 0, 768, 1024)).centroids[2]
    assert np.array(viewer.scene.camera.center[-2:]) == pytest.approx(nucleus * 0.5, abs=1.0)
    assert not table.approve_button.isEnabled()
    assert "Switch on “Correct nuclei”" in table.selected.text()


def test_picking_on_the_slide_selects_and_shows_the_row(viewer, table, panel, qtbot):
    row = 700
    panel.controller.editing.picked.emit(int(panel.docks.widget("Nuclei table").model._nuclei.listing.ids[row]))
    assert table.rows().tolist() == [row]
    assert table.view.viewport().rect().contains(table.view.visualRect(table.model.index(row, 0)).center())
    qtbot.waitUntil(lambda: "nucleus in the table" in viewer.layers, timeout=WAIT_MS)
    panel.controller.editing.picked.emit(0)
    assert "nucleus in the table" not in viewer.layers


def test_a_click_on_a_title_sorts(table, panel, qtbot):
    header = table.view.horizontalHeader()
    place = header.sectionViewportPosition(7) + 10
    qtbot.mouseClick(header.viewport(), LEFT, pos=QPoint(place, 8))
    until_idle(qtbot, panel)
    qtbot.waitUntil(lambda: cell(table, 0, 7) != "…", timeout=WAIT_MS)
    first = float(cell(table, 0, 7))
    qtbot.mouseClick(header.viewport(), LEFT, pos=QPoint(place, 8))
    until_idle(qtbot, panel)
    qtbot.waitUntil(lambda: cell(table, 0, 7) != "…", timeout=WAIT_MS)
    ys = disc_centres((768, 1024))[:, 0] * 0.5
    assert sorted([first, float(cell(table, 0, 7))]) == pytest.approx([ys.min(), ys.max()], abs=0.3)


def test_several_rows_are_approved_as_one_step_and_undone(table, panel, qtbot):
    press_row(qtbot, table, 0)
    press_row(qtbot, table, 4, Qt.KeyboardModifier.ShiftModifier)
    assert table.selected.text() == "5 selected. "
    click(qtbot, table.approve_button)
    until_idle(qtbot, panel)
    assert history(panel) == [("approve", 5)]
    qtbot.waitUntil(lambda: [cell(table, row, 5) for row in range(6)] == ["Approved"] * 5 + [""], timeout=WAIT_MS)
    assert table.rows().tolist() == [0, 1, 2, 3, 4]  # the selection outlives the new list
    click(qtbot, panel.panel.correct.undo_button)
    until_idle(qtbot, panel)
    qtbot.waitUntil(lambda: cell(table, 0, 5) == "", timeout=WAIT_MS)
    assert history(panel) == []


def test_going_through_what_is_not_approved_by_keys(viewer, table, panel, qtbot):
    choose(table.filter.status, "Not approved")
    until_idle(qtbot, panel)
    press_row(qtbot, table, 0)
    ids = table.model._nuclei.listing.ids[:3].tolist()
    for number in (1, 2):
        qtbot.keyClick(table.view, Qt.Key.Key_Y)
        until_listed(qtbot, panel, table, ALL - number)
        assert table.rows().tolist() == [0]  # the next one has come up, and is shown
        assert table.model._nuclei.listing.ids[0] == ids[number]
    assert table.filter.count.text() == f"{ALL - 2} of {ALL} nuclei"
    click(qtbot, table.filter.clear)
    until_listed(qtbot, panel, table, ALL)


def test_rejected_and_deleted_nuclei_leave_the_slide_and_can_be_listed(table, panel, qtbot):
    press_row(qtbot, table, 1)
    click(qtbot, table.reject_button)
    until_idle(qtbot, panel)
    press_row(qtbot, table, 5)
    press_row(qtbot, table, 6, Qt.KeyboardModifier.ControlModifier)
    click(qtbot, table.delete_button)
    until_idle(qtbot, panel)
    assert [kind for kind, _ in history(panel)] == ["delete", "reject"]
    assert shown(panel) == ALL - 3
    until_listed(qtbot, panel, table, ALL - 3)
    choose(table.filter.status, "Rejected")
    until_listed(qtbot, panel, table, 3)
    qtbot.waitUntil(lambda: cell(table, 0, 5) == "Rejected", timeout=WAIT_MS)


def test_a_class_is_given_to_all_selected_and_listed_by_it(table, panel, qtbot):
    table.view.selectAll()
    assert len(table.rows()) == ALL
    press_row(qtbot, table, 2)
    press_row(qtbot, table, 3, Qt.KeyboardModifier.ControlModifier)
    qtbot.keyClick(table.view, Qt.Key.Key_3)
    until_idle(qtbot, panel)
    assert history(panel) == [("classify", 2)]
    qtbot.waitUntil(lambda: cell(table, 2, 1) == "Immune cells", timeout=WAIT_MS)
    assert table.model.data(table.model.index(2, 1), Qt.ItemDataRole.DecorationRole).name() == "#4363d8"
    choose(table.filter.class_number, "Immune cells")
    until_listed(qtbot, panel, table, 2)
    choose(table.filter.class_number, "Necrosis")
    until_idle(qtbot, panel)
    assert table.nothing.isVisible()
    assert "Show all" in table.nothing.text()


def test_digits_that_are_no_class_do_nothing(table, panel, qtbot):
    press_row(qtbot, table, 2)
    qtbot.keyClick(table.view, Qt.Key.Key_7)
    # French keyboards have a key for it.
    squared = QKeyEvent(QEvent.Type.KeyPress, 0, Qt.KeyboardModifier.NoModifier, "²")
    QApplication.sendEvent(table.view, squared)
    until_idle(qtbot, panel)
    assert history(panel) == []


def test_ids_that_a_model_gives_anew_are_not_selected_but_those_of_approved_nuclei_are(table, panel, qtbot):
    chosen = table.nuclei.listing.ids[10:15].tolist()
    panel.controller.editing.approve(chosen[:2])
    until_idle(qtbot, panel)
    table.view.select(np.arange(10, 15))
    project = panel.controller.editing.project
    panel.session.min_area_um2 = 10.0
    runs = "SELECT count(DISTINCT run) FROM nuclei WHERE state = 0"
    qtbot.waitUntil(lambda: project.ledger.reader.execute(runs).fetchone()[0] == 2, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    until_listed(qtbot, panel, table, ALL)
    assert np.isin(chosen[2:], table.nuclei.listing.ids).any()
    assert table.nuclei.listing.ids[table.rows()].tolist() == chosen[:2]
    assert table.selected.text() == "2 selected. "


def test_a_row_that_may_be_another_nucleus_by_now_is_not_selected_in_the_next_list(
    viewer, table, panel, monkeypatch, qtbot
):
    monkeypatch.setattr(nuclei_list, "TILE_S", 60.0)
    display = panel.controller.display
    display.tile_done.emit(Region(0, 0, 8, 8))  # the next one is waited for
    until_idle(qtbot, panel)
    qtbot.waitUntil(lambda: cell(table, 3, 2) != "…", timeout=WAIT_MS)
    told = []
    table.nuclei.given_anew.connect(told.append)
    display.tile_done.emit(Region(0, 0, 768, 1024))
    qtbot.waitUntil(lambda: bool(told), timeout=WAIT_MS)
    camera = tuple(viewer.scene.camera.center)
    press_row(qtbot, table, 3)
    assert table.selected.text() == FOUND_ANEW
    qtbot.keyClick(table.view, Qt.Key.Key_D)
    until_idle(qtbot, panel)
    assert history(panel) == []
    assert tuple(viewer.scene.camera.center) == camera
    table.nuclei.refresh()
    until_idle(qtbot, panel)
    assert table.rows().tolist() == []
    press_row(qtbot, table, 3)
    qtbot.keyClick(table.view, Qt.Key.Key_D)
    until_idle(qtbot, panel)
    assert history(panel) == [("delete", 1)]


def test_a_selection_is_not_carried_to_another_slide(viewer, table, panel, tmp_path, qtbot):
    first = viewer.layers[0]
    picture = disc_picture((768, 1024))
    picture[:9, :9] = 200  # another slide
    other = tmp_path / "other.tif"
    tifffile.imwrite(other, picture, resolution=(20000, 20000), resolutionunit="CENTIMETER")
    open_and_settle(viewer, panel, other, qtbot)
    click(qtbot, panel.panel.view_button)
    until_listed(qtbot, panel, table, ALL)
    second = panel.controller.display.shelf.now.layer
    viewer.layers.selection.active = first
    until_idle(qtbot, panel)
    table.view.select(np.arange(3, 6))
    viewer.layers.selection.active = second
    until_idle(qtbot, panel)
    click(qtbot, panel.panel.correct.toggle)
    until_idle(qtbot, panel)
    assert table.rows().tolist() == []
    assert not table.delete_button.isEnabled()
    qtbot.keyClick(table.view, Qt.Key.Key_D)
    until_idle(qtbot, panel)
    assert shown(panel) == ALL


def test_only_what_is_in_view_and_of_some_area(viewer, table, panel, qtbot):
    table.filter.in_view.click()
    viewer.scene.camera.zoom = 6.0
    viewer.scene.camera.center = (100.0, 200.0)
    qtbot.wait(400)
    until_idle(qtbot, panel)
    seen = visible_region(viewer, viewer.layers[0])
    y, x = disc_centres((768, 1024)).T
    inside = ((y >= seen.y) & (y < seen.y1) & (x >= seen.x) & (x < seen.x1)).sum()
    assert 0 < inside < ALL
    assert table.model.rowCount() == inside
    table.filter.most.setValue(20)  # discs measure 38 square micrometres
    until_listed(qtbot, panel, table, 0)
    click(qtbot, table.filter.clear)
    until_idle(qtbot, panel)
    until_listed(qtbot, panel, table, ALL)
    assert table.filter.most.text() == "any"


def test_letters_that_judge_nothing_are_left_to_the_viewer(table, panel, qtbot):
    press_row(qtbot, table, 0)
    assert panel.session.outlines
    qtbot.keyClick(table.view, Qt.Key.Key_N)
    assert not panel.session.outlines
    assert table.rows().tolist() == [0]


def test_a_closed_table_comes_back(viewer, table, panel, qtbot):
    viewer.window.remove_dock_widget(panel.docks.frame("Nuclei table"))
    assert not table.model._nuclei.is_open
    assert "nucleus in the table" not in viewer.layers
    click(qtbot, panel.panel.correct.table_button)
    assert panel.docks.widget("Nuclei table") is table
    assert table.isVisible()
    until_listed(qtbot, panel, table, ALL)


def test_without_results_it_says_what_to_do(viewer, panel, disc_slide, qtbot):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    click(qtbot, panel.panel.correct.table_button)
    table = panel.docks.widget("Nuclei table")
    assert table.nothing.isVisible()
    assert "segment the slide" in table.nothing.text()
    click(qtbot, panel.panel.view_button)  # and it fills by itself
    until_idle(qtbot, panel)
    qtbot.waitUntil(lambda: table.model.rowCount() == ALL, timeout=WAIT_MS)
    viewer.layers.remove(viewer.layers[0])
    qtbot.waitUntil(lambda: table.model.rowCount() == 0, timeout=WAIT_MS)


def test_the_window_closes_with_all_docks_open(viewer, table, panel, qtbot):
    click(qtbot, panel.panel.correct.regions_button)
    click(qtbot, panel.panel.correct.history_button)
    table.view.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    viewer.close()
    panel.controller.join()
    assert not table.model._nuclei.is_open


@pytest.fixture
def held(monkeypatch):
    """Very many is a hundred here; the third part of what is done to so many waits until `go` is set."""
    from napari_nucleiseg.core.store import editor
    from napari_nucleiseg.viewer import long_edits

    for module in (editor, long_edits):
        monkeypatch.setattr(module, "PART", 100)
    go, parts = threading.Event(), itertools.count(1)

    def hold(method):
        def wait(*arguments, **options):
            if next(parts) == 3:
                assert go.wait(WAIT_MS / 1000), "nobody went on"
            return method(*arguments, **options)

        return wait

    for name in ("review", "paint", "classify", "_turn"):
        monkeypatch.setattr(editor.Editor, name, hold(getattr(editor.Editor, name)))
    yield go
    go.set()


def stop_when_seen(qtbot, panel, title, go):
    """Wait for the bar, press Stop as a person would, and let the work go on to its next part."""
    qtbot.waitUntil(lambda: panel.panel.bar.isVisible() and panel.panel.bar.value() > 0, timeout=WAIT_MS)
    assert panel.panel.bar.format().startswith(title)
    click(qtbot, panel.panel.stop_button)
    go.set()
    until_idle(qtbot, panel)
    assert not panel.panel.bar.isVisible()


def approved(panel):
    return int(panel.controller.editing.project.nuclei_in(Region(0, 0, 768, 1024)).approved.sum())


def test_approving_very_many_is_stopped_and_what_is_done_is_one_step(table, panel, qtbot, held):
    table.view.selectAll()
    click(qtbot, table.approve_button)
    stop_when_seen(qtbot, panel, f"Approving 200 of {ALL}", held)
    assert panel.panel.hint.text() == f"Stopped: 300 of {ALL} nuclei are approved; undo takes that back."
    assert approved(panel) == 300
    assert history(panel) == [("approve", 300)]
    panel.controller.editing.undo()
    until_idle(qtbot, panel)
    assert approved(panel) == 0


def test_deleting_very_many_is_stopped_and_undone(table, panel, qtbot, held):
    table.view.selectAll()
    click(qtbot, table.delete_button)
    stop_when_seen(qtbot, panel, "Deleting", held)
    left = shown(panel)
    assert 0 < left < ALL
    assert panel.panel.hint.text() == f"Stopped: {ALL - left} of {ALL} nuclei are deleted; undo brings them back."
    np.testing.assert_array_equal(
        panel.controller.editing.window.ids,
        panel.controller.editing.project.labels.read(panel.controller.editing.window.region),
    )
    assert history(panel) == [("delete", ALL - left)]
    panel.controller.editing.undo()
    until_idle(qtbot, panel)
    assert shown(panel) == ALL


def test_a_long_way_through_the_history_is_stopped_and_gone_on(table, panel, qtbot, held):
    editing = panel.controller.editing
    ids = table.model._nuclei.listing.ids.tolist()
    held.set()
    for nucleus in ids[:20]:
        editing.classify([nucleus], 1)
    until_idle(qtbot, panel)
    held.clear()
    parts = itertools.count(1)
    turn = editing.project.editor._turn

    def wait(*arguments, **options):
        if next(parts) == 8:
            assert held.wait(WAIT_MS / 1000)
        return turn(*arguments, **options)

    editing.project.editor._turn = wait
    editing.jump(0)
    stop_when_seen(qtbot, panel, "Going there 7 of 20", held)
    assert panel.panel.hint.text().startswith("Stopped: 8 of 20 changes on the way are turned")
    assert len(history(panel)) == 12
    editing.jump(0)
    until_idle(qtbot, panel)
    assert history(panel) == []
    editing.jump(1 << 60)
    until_idle(qtbot, panel)
    assert len(history(panel)) == 20


def test_what_was_done_before_a_failure_is_shown(table, panel, qtbot, monkeypatch):
    from napari_nucleiseg.core.errors import StoreError

    editing, parts = panel.controller.editing, itertools.count(1)
    paint = editing.project.editor.paint

    def fail(*arguments, **options):
        if next(parts) == 2:
            raise StoreError("The disk that holds this is full.")
        return paint(*arguments, **options)

    monkeypatch.setattr(editing.project.editor, "paint", fail)
    table.view.selectAll()
    click(qtbot, table.delete_button)
    until_idle(qtbot, panel)
    assert "full" in panel.panel.hint.text()
    assert 0 < shown(panel) < ALL
    np.testing.assert_array_equal(editing.window.ids, editing.project.labels.read(editing.window.region))
    assert not panel.panel.bar.isVisible()
