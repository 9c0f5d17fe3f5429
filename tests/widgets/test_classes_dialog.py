"""A person names, colours, adds and removes classes of nuclei; panel and outlines follow."""

import cv2
import numpy as np
import pytest
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QMessageBox

from gui_parts import WAIT_MS, open_and_settle, until_idle
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.classes import read_classes
from napari_nucleiseg.core.store.schema import CLASSES
from napari_nucleiseg.viewer.outlines import OUTLINE
from napari_nucleiseg.widgets.classes_dialog import FRESH, ClassesDialog

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def correcting(viewer, panel, disc_slide, qtbot):
    """The panel while nuclei are corrected."""
    open_and_settle(viewer, panel, disc_slide, qtbot)
    qtbot.mouseClick(panel.panel.view_button, LEFT)
    until_idle(qtbot, panel)
    qtbot.mouseClick(panel.panel.correct.toggle, LEFT)
    until_idle(qtbot, panel)
    return panel


def lab(colour):
    """CIELAB of ``#rrggbb``."""
    rgb = np.array([[[int(colour[place : place + 2], 16) for place in (1, 3, 5)]]], np.float32) / 255
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0, 0]


@pytest.mark.parametrize("colour", [*(colour for _, _, colour in CLASSES), *FRESH])
def test_no_class_looks_like_nuclei_without_one(colour):
    assert np.linalg.norm(lab(colour) - lab(OUTLINE)) > 35


def in_dialog(qtbot, panel, act):
    """Press "Edit…" and do something in the dialog, which is modal."""
    seen = []

    def look():
        found = [widget for widget in QApplication.topLevelWidgets() if isinstance(widget, ClassesDialog)]
        if found and found[0].isVisible():
            seen.append(found[0])
            timer.stop()
            act(found[0])

    timer = QTimer()
    timer.timeout.connect(look)
    timer.start(50)
    qtbot.mouseClick(panel.panel.correct.classes_button, LEFT)
    qtbot.waitUntil(lambda: bool(seen), timeout=WAIT_MS)
    qtbot.wait(100)
    until_idle(qtbot, panel)


def ok(qtbot, dialog):
    qtbot.mouseClick(dialog.buttons.button(QDialogButtonBox.StandardButton.Ok), LEFT)


def classes(panel):
    return {entry.number: (entry.name, entry.colour) for entry in read_classes(project(panel).ledger.reader)}


def project(panel):
    return panel.controller.editing.project


def test_a_class_is_renamed_recoloured_and_one_added(correcting, qtbot):
    ids = project(correcting).nuclei_in(Region(0, 0, 768, 1024)).ids[:2].tolist()
    correcting.controller.editing.classify(ids, 1)
    until_idle(qtbot, correcting)

    def act(dialog):
        assert dialog.table.item(0, 2).text() == "2"
        dialog.table.item(0, 1).setText("Carcinoma")
        dialog.set_colour(0, "#ff00ff")
        qtbot.mouseClick(dialog.add_button, LEFT)
        dialog.table.item(dialog.table.rowCount() - 1, 1).setText("Mitosis")
        ok(qtbot, dialog)

    in_dialog(qtbot, correcting, act)
    assert classes(correcting)[1] == ("Carcinoma", "#ff00ff")
    assert classes(correcting)[7][0] == "Mitosis"
    shown = correcting.panel.correct._shown
    qtbot.waitUntil(lambda: len(correcting.panel.correct._shown) == 7, timeout=WAIT_MS)
    assert (1, "Carcinoma", "#ff00ff") in correcting.panel.correct._shown, shown
    nuclei = correcting.controller.editing.opened.nuclei
    qtbot.waitUntil(lambda: nuclei._classes.colours[0] == "#ff00ff", timeout=WAIT_MS)
    correcting.controller.editing.undo()
    correcting.controller.editing.undo()
    until_idle(qtbot, correcting)
    assert classes(correcting)[1][0] == "Tumor"
    qtbot.waitUntil(lambda: nuclei._classes.colours[0] == "#e6194b", timeout=WAIT_MS)


def test_a_class_in_use_is_asked_for_before_it_goes(correcting, qtbot, monkeypatch):
    asked = []

    def answer(box):
        asked.append(box.text())
        return QMessageBox.StandardButton.Yes

    monkeypatch.setattr(QMessageBox, "exec", answer)
    ids = project(correcting).nuclei_in(Region(0, 0, 768, 1024)).ids[:3].tolist()
    correcting.controller.editing.classify(ids, 3)
    until_idle(qtbot, correcting)

    def act(dialog):
        for row in (4, 2):  # one without nuclei, one with
            dialog.table.selectRow(row)
            qtbot.mouseClick(dialog.remove_button, LEFT)
        ok(qtbot, dialog)

    in_dialog(qtbot, correcting, act)
    assert asked == ["3 nuclei are of the class Immune cells."]
    assert sorted(classes(correcting)) == [1, 2, 4, 6]
    assert (project(correcting).nuclei_in(Region(0, 0, 768, 1024)).classes == 0).all()


def test_equal_names_cannot_be_accepted(correcting, qtbot):
    before = classes(correcting)

    def act(dialog):
        dialog.table.item(1, 1).setText("tumor")
        assert "Two classes are called tumor" in dialog.problem.text()
        assert not dialog.buttons.button(QDialogButtonBox.StandardButton.Ok).isEnabled()
        dialog.reject()

    in_dialog(qtbot, correcting, act)
    assert classes(correcting) == before


EVERYTHING = Region(0, 0, 768, 1024)


def shown(panel):
    """The class that the layer of all nuclei shows of each that has one."""
    found = panel.controller.display.shelf.now.nuclei._classes
    numbers = found.of(np.arange(1 << 16))
    return {int(nucleus): int(numbers[nucleus]) for nucleus in np.flatnonzero(numbers)}


def stored(panel):
    table = panel.controller.display.shelf.now.project.nuclei_in(EVERYTHING)
    pairs = zip(table.ids.tolist(), table.classes.tolist(), strict=True)
    return {nucleus: number for nucleus, number in pairs if number}


@pytest.mark.parametrize("corrects", [True, False])
def test_classes_are_shown_with_what_another_size_finds(correcting, qtbot, corrects):
    ids = project(correcting).nuclei_in(EVERYTHING).ids[:3].tolist()
    correcting.controller.editing.classify(ids, 3)
    until_idle(qtbot, correcting)
    if not corrects:
        qtbot.mouseClick(correcting.panel.correct.toggle, LEFT)
        until_idle(qtbot, correcting)
    assert shown(correcting) == stored(correcting) == dict.fromkeys(ids, 3)
    former = correcting.session.min_area_um2
    for size, count in ((500.0, 0), (former, 3)):
        correcting.session.min_area_um2 = size
        qtbot.mouseClick(correcting.panel.view_button, LEFT)
        until_idle(qtbot, correcting)
        assert len(stored(correcting)) == count
        qtbot.waitUntil(lambda: shown(correcting) == stored(correcting), timeout=WAIT_MS)


def test_classes_of_a_slide_that_is_opened_again_are_shown_before_anybody_corrects_it(
    correcting, viewer, disc_slide, qtbot
):
    ids = project(correcting).nuclei_in(EVERYTHING).ids[:3].tolist()
    correcting.controller.editing.classify(ids, 2)
    until_idle(qtbot, correcting)
    viewer.layers.remove(correcting.controller.display.shelf.now.layer)
    until_idle(qtbot, correcting)
    open_and_settle(viewer, correcting, disc_slide, qtbot)
    qtbot.mouseClick(correcting.panel.view_button, LEFT)
    until_idle(qtbot, correcting)
    assert not correcting.session.editing
    qtbot.waitUntil(lambda: shown(correcting) == dict.fromkeys(ids, 2), timeout=WAIT_MS)
    nuclei = correcting.controller.display.shelf.now.nuclei
    np.testing.assert_allclose(nuclei.get_color(ids[0])[:3], np.array([0x00, 0xD5, 0xFF]) / 255, atol=0.01)
