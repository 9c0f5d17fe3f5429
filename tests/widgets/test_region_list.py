"""A person says where everything is corrected: regions are drawn on the slide, listed, changed and undone."""

from types import SimpleNamespace

import numpy as np
import pytest
from psygnal import Signal
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QLineEdit

from dark_model import disc_centres
from gui_parts import WAIT_MS, click, hover, open_and_settle, until_idle
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.store.regions import AnnotatedRegion, read_regions
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.visible import visible_region
from napari_nucleiseg.widgets.region_list import DONE, FOR, NAME, RegionList

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def regions(viewer, panel, disc_slide, qtbot):
    """The list of regions beside the panel, on a slide that is segmented."""
    open_and_settle(viewer, panel, disc_slide, qtbot)
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    click(qtbot, panel.panel.correct.regions_button)
    made = panel.docks.widget("Regions")
    qtbot.wait(200)
    viewer.reset_view()
    until_idle(qtbot, panel)
    return made


def kept(panel):
    return read_regions(panel.controller.display.shelf.now.project.ledger.reader)


def until(qtbot, panel, condition):
    qtbot.waitUntil(condition, timeout=WAIT_MS)
    until_idle(qtbot, panel)


def on_screen(viewer, point):
    """Where a place of the slide, level-0 ``(y, x)`` of 0.5 um, is on the canvas."""
    camera, size = viewer.scene.camera, viewer.canvas.size
    away = (np.array(point) * 0.5 - camera.center[-2:]) * camera.zoom
    return QPoint(round(size[1] / 2 + away[1]), round(size[0] / 2 + away[0]))


def drag(qtbot, viewer, start, stop, pause_ms=30):
    canvas = viewer.window._qt_viewer.canvas.native
    hover(qtbot, canvas, on_screen(viewer, start))
    qtbot.mousePress(canvas, LEFT, pos=on_screen(viewer, start))
    for part in (0.25, 0.5, 0.75, 1.0):
        hover(qtbot, canvas, on_screen(viewer, np.array(start) + part * (np.array(stop) - start)))
        qtbot.wait(pause_ms)
    qtbot.mouseRelease(canvas, LEFT, pos=on_screen(viewer, stop))


def draw(qtbot, viewer, panel, regions, start=(200, 200), stop=(400, 500)):
    before = len(kept(panel))
    click(qtbot, regions.rectangle_button)
    until_idle(qtbot, panel)
    drag(qtbot, viewer, start, stop)
    until(qtbot, panel, lambda: len(kept(panel)) > before)
    qtbot.wait(500)  # time to be kept twice
    assert len(kept(panel)) == before + 1
    until(qtbot, panel, lambda: regions.table.rowCount() == before + 1)


def inside(region):
    low, high = region.polygon.min(0), region.polygon.max(0)
    centres = disc_centres((768, 1024))
    return int(((centres > low) & (centres < high)).all(1).sum())


def layer_of(viewer):
    return next(layer for layer in viewer.layers if layer.name.endswith("regions"))


def choose(box, text):
    box.setCurrentIndex(box.findText(text))
    box.activated.emit(box.currentIndex())


def test_a_dragged_rectangle_becomes_a_region(viewer, regions, panel, qtbot):
    assert regions.nothing.isVisible()
    draw(qtbot, viewer, panel, regions)
    (region,) = kept(panel)
    assert (region.name, region.role, region.complete, region.done) == ("Region 1", "teach", True, False)
    assert region.polygon.min(0) == pytest.approx([200, 200], abs=4)
    assert region.polygon.max(0) == pytest.approx([400, 500], abs=4)
    assert panel.session.editing
    assert viewer.layers.selection.active != layer_of(viewer)  # back to what was done before
    assert layer_of(viewer).nshapes == 1
    assert regions.table.item(0, 0).text() == "Region 1"
    until(qtbot, panel, lambda: regions.table.item(0, 4).text() == f"0 of {inside(region)}")
    assert inside(region) > 20
    assert regions.table.horizontalHeader().defaultAlignment() & Qt.AlignmentFlag.AlignLeft


def test_progress_follows_approvals(viewer, regions, panel, qtbot):
    draw(qtbot, viewer, panel, regions)
    (region,) = kept(panel)
    project = panel.controller.editing.project
    ids = project.nuclei_in(region.box).ids[:3].tolist()
    panel.controller.editing.approve(ids)
    until(qtbot, panel, lambda: regions.table.item(0, 4).text() == f"3 of {inside(region)}")


def test_role_completeness_done_and_name_are_kept_and_undone(viewer, regions, panel, qtbot):
    draw(qtbot, viewer, panel, regions)
    choose(regions.table.cellWidget(0, 1), "Hold out")
    until(qtbot, panel, lambda: kept(panel)[0].role == "hold out")
    until(qtbot, panel, lambda: np.allclose(layer_of(viewer).edge_color[0, :3], [1.0, 0.549, 0.102], atol=0.01))
    choose(regions.table.cellWidget(0, 2), "Approved only")
    until(qtbot, panel, lambda: not kept(panel)[0].complete)
    regions.table.item(0, 3).setCheckState(Qt.CheckState.Checked)
    until(qtbot, panel, lambda: kept(panel)[0].done)
    regions.table.item(0, 0).setText("Invasive front")
    until(qtbot, panel, lambda: kept(panel)[0].name == "Invasive front")
    until(qtbot, panel, lambda: layer_of(viewer).features["title"][0] == "Invasive front ✓")
    kinds = [step.kind for step in panel.controller.editing.project.editor.history()]
    assert kinds == ["change region"] * 4 + ["region"]
    for _ in range(4):
        click(qtbot, panel.panel.correct.undo_button)
        until_idle(qtbot, panel)
    assert (kept(panel)[0].role, kept(panel)[0].name, kept(panel)[0].done) == ("teach", "Region 1", False)
    until(qtbot, panel, lambda: regions.table.cellWidget(0, 1).currentText() == "Teach")


def test_a_moved_and_a_deleted_shape_are_kept(viewer, regions, panel, qtbot):
    draw(qtbot, viewer, panel, regions)
    draw(qtbot, viewer, panel, regions, (500, 600), (700, 900))
    layer = layer_of(viewer)
    viewer.layers.selection.active = layer
    layer.mode = "select"
    layer.selected_data = {0}
    # A hand that rests on the way makes no step of its own.
    drag(qtbot, viewer, (300, 350), (350, 350), pause_ms=300)
    until(qtbot, panel, lambda: kept(panel)[0].polygon.min(0)[0] > 220)
    assert kept(panel)[0].polygon.min(0) == pytest.approx([250, 200], abs=5)
    layer.selected_data = {1}
    layer.remove_selected()
    until(qtbot, panel, lambda: len(kept(panel)) == 1)
    kinds = [step.kind for step in panel.controller.editing.project.editor.history()]
    assert kinds == ["remove region", "change region", "region", "region"]
    panel.controller.editing.undo()
    until(qtbot, panel, lambda: layer.nshapes == 2)
    assert layer.features["region"].tolist() == [1, 2]


def test_a_polygon_is_clicked(viewer, regions, panel, qtbot):
    click(qtbot, regions.polygon_button)
    until_idle(qtbot, panel)
    canvas = viewer.window._qt_viewer.canvas.native
    for point in ((100, 100), (100, 500), (400, 400)):
        hover(qtbot, canvas, on_screen(viewer, point))
        qtbot.wait(60)  # nobody clicks before the pointer is there
        qtbot.mouseClick(canvas, LEFT, pos=on_screen(viewer, point))
        qtbot.wait(300)
    hover(qtbot, canvas, on_screen(viewer, (380, 150)))
    qtbot.wait(50)
    qtbot.mouseDClick(canvas, LEFT, pos=on_screen(viewer, (380, 150)))
    until(qtbot, panel, lambda: len(kept(panel)) == 1)
    assert len(kept(panel)[0].vertices) in {3, 4}  # a double click made by Qt is one click or two
    assert kept(panel)[0].polygon.min(0) == pytest.approx([100, 100], abs=4)


def test_the_list_goes_to_a_region_and_deletes_it(viewer, regions, panel, qtbot):
    draw(qtbot, viewer, panel, regions)
    viewer.scene.camera.zoom = 20
    viewer.scene.camera.center = (370.0, 500.0)
    until_idle(qtbot, panel)
    place = regions.table.visualItemRect(regions.table.item(0, 0)).center()
    qtbot.mouseClick(regions.table.viewport(), LEFT, pos=place)
    until_idle(qtbot, panel)
    assert visible_region(viewer, viewer.layers[0]).contains(kept(panel)[0].box)
    click(qtbot, regions.delete_button)
    until(qtbot, panel, lambda: kept(panel) == ())
    until(qtbot, panel, lambda: layer_of(viewer).nshapes == 0)
    assert regions.nothing.isVisible()


def test_without_correcting_nothing_can_be_changed(viewer, regions, panel, qtbot):
    draw(qtbot, viewer, panel, regions)
    click(qtbot, panel.panel.correct.toggle)
    until_idle(qtbot, panel)
    assert not layer_of(viewer).editable
    assert not regions.table.cellWidget(0, 1).isEnabled()
    assert "Switch on “Correct nuclei”" in regions.hint.text()
    layer_of(viewer).selected_data = {0}
    layer_of(viewer).remove_selected()  # by a script
    until(qtbot, panel, lambda: layer_of(viewer).nshapes == 1)  # comes back
    assert len(kept(panel)) == 1


def test_regions_of_an_earlier_session_are_there(viewer, regions, panel, engine, disc_slide, qtbot):
    draw(qtbot, viewer, panel, regions)
    viewer.layers.clear()
    qtbot.waitUntil(lambda: not (engine.folder / "discs.nucleiseg" / "project.lock").exists(), timeout=WAIT_MS)
    assert regions.table.rowCount() == 0
    viewer.open(disc_slide, plugin="napari-nucleiseg")
    until(qtbot, panel, lambda: regions.table.rowCount() == 1)
    assert layer_of(viewer).nshapes == 1


def test_segmenting_a_shape_draws_on_no_annotated_region(viewer, regions, panel, qtbot):
    draw(qtbot, viewer, panel, regions)
    draw(qtbot, viewer, panel, regions, (500, 600), (700, 900))
    click(qtbot, panel.panel.shape_button)
    assert layer_of(viewer).mode != "add_rectangle"


def test_regions_of_another_pixel_size_are_gone_with_its_results(viewer, regions, panel, qtbot):
    draw(qtbot, viewer, panel, regions)
    assert layer_of(viewer) in viewer.layers
    panel.controller.set_pixel_size(YX(0.25, 0.25))
    until(qtbot, panel, lambda: regions.table.rowCount() == 0)
    assert panel.docks.regions.regions == ()
    assert not [layer for layer in viewer.layers if layer.name.endswith("regions")]


class Told(SimpleNamespace):
    """Regions with these numbers."""

    changed, said = Signal(), Signal(Hint)

    def tell(self, project, *numbers):
        corner = ((0.0, 0.0), (0.0, 9.0), (9.0, 0.0))
        self.project = project
        self.regions = tuple(AnnotatedRegion(number, f"Region {number}", "teach", corner) for number in numbers)
        self.changed.emit()


def test_a_name_half_typed_is_given_to_its_region_though_the_list_shifts(qtbot):
    put = []
    told = Told(can_change=True, project="one", regions=(), shares={}, put=put.append)
    listed = RegionList(told)
    qtbot.addWidget(listed)
    listed.show()
    told.tell("one", 2, 3)
    listed.table.setCurrentCell(0, NAME)
    listed.table.editItem(listed.table.item(0, NAME))
    (editor,) = listed.table.findChildren(QLineEdit)
    editor.setText("Invasive front")
    told.tell("one", 1, 2, 3)
    assert [listed.table.item(row, NAME).text() for row in range(3)] == ["Region 1", "Region 2", "Region 3"]
    assert [listed.table.cellWidget(row, FOR).currentText() for row in range(3)] == ["Teach"] * 3
    qtbot.keyClick(editor, Qt.Key.Key_Return)
    qtbot.wait(50)  # a name is given after the key
    assert [(region.number, region.name) for region in put] == [(2, "Invasive front")]
    told.tell("one", 3)
    listed.table.item(0, DONE).setCheckState(Qt.CheckState.Checked)
    assert [(region.number, region.done) for region in put[1:]] == [(3, True)]


def test_a_name_half_typed_is_given_to_no_region_of_another_slide(qtbot):
    put = []
    told = Told(can_change=True, project="one", regions=(), shares={}, put=put.append)
    listed = RegionList(told)
    qtbot.addWidget(listed)
    listed.show()
    told.tell("one", 1)
    listed.table.editItem(listed.table.item(0, NAME))
    (editor,) = listed.table.findChildren(QLineEdit)
    editor.setText("Invasive front")
    told.tell("another", 1)
    qtbot.keyClick(editor, Qt.Key.Key_Return)
    qtbot.wait(50)
    assert put == []
    assert listed.table.item(0, NAME).text() == "Region 1"


def test_the_region_stays_selected_and_not_its_row(qtbot):
    removed = []
    told = Told(can_change=True, project="one", regions=(), shares={}, remove=removed.append)
    listed = RegionList(told)
    qtbot.addWidget(listed)
    told.tell("one", 2, 3)
    listed.table.selectRow(0)
    assert listed.selected.number == 2
    told.tell("one", 1, 2, 3)
    assert listed.selected.number == 2
    listed.delete_button.click()
    assert [region.number for region in removed] == [2]
    told.tell("one", 1, 3)
    assert listed.selected is None
    assert not listed.delete_button.isEnabled()
    listed.table.selectRow(0)
    told.tell("another", 1, 3)
    assert listed.selected is None
    assert not listed.delete_button.isEnabled()
