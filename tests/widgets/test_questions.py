"""What the panel asks, and what it says when something is wrong."""

import shutil
from dataclasses import replace

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialogButtonBox, QMessageBox

from dark_model import RESEARCH
from gui_parts import WAIT_MS, answer, open_and_settle, until_idle
from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.pixelsize import LARGEST_MPP_UM, given_mpp
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.widgets.dialogs import PixelSizeDialog


@pytest.fixture
def said(monkeypatch):
    """Sentences shown as napari notifications."""
    from napari.utils import notifications

    sentences = []
    monkeypatch.setattr(notifications, "show_error", sentences.append)
    return sentences


def test_pixel_size_is_asked_for_and_never_guessed(viewer, panel, disc_png, qtbot):
    open_and_settle(viewer, panel, disc_png, qtbot)
    layer = viewer.layers[0]
    assert layer.metadata["needs_mpp"]
    assert layer.metadata["mpp_um"] is None
    assert tuple(map(str, layer.units)) == ("pixel", "pixel")
    assert panel.panel.facts.button.isVisible()

    def fill(dialog):
        ok = dialog.buttons.button(QDialogButtonBox.StandardButton.Ok)
        assert not ok.isEnabled()
        assert "does not say how large its pixels are" in dialog.question.text()
        qtbot.mouseClick(dialog.presets[1], Qt.MouseButton.LeftButton)
        assert dialog.box.value() == 0.5
        qtbot.mouseClick(ok, Qt.MouseButton.LeftButton)

    seen = answer(fill, PixelSizeDialog)
    qtbot.mouseClick(panel.panel.view_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(seen), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert layer.scale == pytest.approx([0.5, 0.5])
    assert tuple(map(str, layer.units)) == ("micrometer", "micrometer")
    assert not layer.metadata["needs_mpp"]
    assert panel.panel.count.text() == "768"  # what was asked for was done after the answer
    assert not panel.panel.facts.button.isVisible()


def test_no_answer_means_no_segmentation(viewer, panel, disc_png, engine, qtbot):
    open_and_settle(viewer, panel, disc_png, qtbot)
    seen = answer(lambda dialog: dialog.reject(), PixelSizeDialog)
    qtbot.mouseClick(panel.panel.follow, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(seen), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert engine.log.tiles == 0
    assert not panel.panel.follow.isChecked()
    assert panel.panel.facts.button.isVisible()


def test_no_pixel_size_can_be_given_that_would_be_refused_later(panel, disc_png, qtbot):
    dialog = PixelSizeDialog(open_slide(disc_png), panel)
    ok = dialog.buttons.button(QDialogButtonBox.StandardButton.Ok)
    for value in (0.001, 0.019, 0.02, 0.25, 20.0, 20.1, 99.0):
        dialog.box.setValue(value)
        assert not ok.isEnabled() or given_mpp(tuple(dialog.mpp_um))
    assert dialog.box.maximum() == LARGEST_MPP_UM
    dialog.deleteLater()


def test_objective_is_a_hint_and_no_more(viewer, panel, disc_png, qtbot):
    slide = replace(open_slide(disc_png), objective_power=40.0)
    dialog = PixelSizeDialog(slide, panel)
    assert "40× objective, which usually means 0.25 µm" in dialog.question.text()
    assert dialog.box.value() == 0.0
    dialog.deleteLater()


def test_licence_is_asked_for_once(viewer, panel, disc_slide, engine, qtbot):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    assert panel.panel.licence.text() == "CC0-1.0"
    panel.session.model = "research"
    assert panel.panel.licence.text() == "CC-BY-NC-SA-4.0 · research use only"

    def refuse(box):
        assert RESEARCH.licence in box.text()
        assert "kept discs" in box.informativeText()
        assert box.defaultButton() is box.button(QMessageBox.StandardButton.No)
        qtbot.mouseClick(box.button(QMessageBox.StandardButton.No), Qt.MouseButton.LeftButton)

    seen = answer(refuse)
    qtbot.mouseClick(panel.panel.view_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(seen), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert engine.log.tiles == 0
    seen = answer(lambda box: qtbot.mouseClick(box.button(QMessageBox.StandardButton.Yes), Qt.MouseButton.LeftButton))
    qtbot.mouseClick(panel.panel.view_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(seen), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert engine.log.tiles > 0


def test_another_folder_is_asked_for_where_none_can_be_made(viewer, panel, disc_slide, engine, qtbot, monkeypatch):
    from napari_nucleiseg.widgets import dialogs

    refused = engine.folder / "a file"
    refused.write_text("in the way")
    elsewhere = engine.folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(engine, "project_folder", lambda *_: refused / "discs.nucleiseg")
    monkeypatch.setattr(dialogs.QFileDialog, "getExistingDirectory", lambda *_: str(elsewhere))
    open_and_settle(viewer, panel, disc_slide, qtbot)
    sentences = []

    def choose(box):
        sentences.append(box.informativeText())
        qtbot.mouseClick(box.button(QMessageBox.StandardButton.Open), Qt.MouseButton.LeftButton)

    answer(choose)
    qtbot.mouseClick(panel.panel.view_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(sentences), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert "cannot be written" in sentences[0]
    assert (elsewhere / "discs.nucleiseg" / "project.sqlite").exists()
    assert panel.panel.count.text() == "768"


def test_somebody_elses_work_is_shown_but_not_touched(viewer, panel, disc_slide, engine, qtbot, said):
    slide = open_slide(disc_slide)
    with Project.create(engine.project_folder(slide), slide):
        open_and_settle(viewer, panel, disc_slide, qtbot)
        qtbot.mouseClick(panel.panel.view_button, Qt.MouseButton.LeftButton)
        until_idle(qtbot, panel)
        assert said == []
        assert "are in use by" in panel.panel.hint.text()
        assert "Close the slide there" in panel.panel.hint.text()
        assert panel.panel.take_over_button.isVisible()
        assert engine.log.tiles == 0
    qtbot.mouseClick(panel.panel.view_button, Qt.MouseButton.LeftButton)
    until_idle(qtbot, panel)
    assert panel.panel.count.text() == "768"


def test_a_full_disk_is_said_once_and_done_tiles_stay(viewer, panel, disc_slide, engine, qtbot, said, monkeypatch):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    write = Project.write_tile
    written = []

    def fill_up(self, nuclei, *rest):
        if len(written) == 3:
            raise StoreError("The disk that holds it is full. Everything finished so far is kept.")
        written.append(nuclei.tile_index)
        write(self, nuclei, *rest)

    monkeypatch.setattr(Project, "write_tile", fill_up)
    qtbot.mouseClick(panel.panel.slide_button, Qt.MouseButton.LeftButton)
    until_idle(qtbot, panel)
    assert said == ["The disk that holds it is full. Everything finished so far is kept."]
    assert panel.panel.hint.text() == said[0]
    assert int(panel.panel.count.text()) > 0
    assert not panel.panel.bar.isVisible()


def test_a_vanished_slide_is_said_and_nothing_hangs(viewer, panel, disc_slide, engine, qtbot, said, monkeypatch):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    slide = panel.controller.slide

    def gone(*_args, **_kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(type(slide), "read_box", gone)
    qtbot.mouseClick(panel.panel.slide_button, Qt.MouseButton.LeftButton)
    until_idle(qtbot, panel)
    assert len(said) == 1
    assert "cannot be read" in said[0]
    shutil.rmtree(engine.folder / "discs.nucleiseg", ignore_errors=True)


@pytest.mark.parametrize("size", [YX(0.25, 0.5), YX(0.252341, 0.252341)])
def test_a_pixel_size_that_is_left_as_it_was_stays_as_the_slide_says(viewer, panel, disc_png, size):
    dialog = PixelSizeDialog(replace(open_slide(disc_png), mpp_um=size), panel)
    assert dialog.mpp_um == size
    for side in size:
        assert f"{side:.4g} µm" in dialog.question.text()
    dialog.box.setValue(0.3)
    assert dialog.mpp_um == YX(0.3, 0.3)
    dialog.deleteLater()
