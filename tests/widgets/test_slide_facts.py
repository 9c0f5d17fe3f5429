"""What was said of a slide's pixels is remembered and can be corrected; its colours and pictures can be seen."""

import threading

import numpy as np
import pytest
import tifffile
from PIL import ImageCms
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QDialog, QDialogButtonBox, QLabel, QMessageBox
from test_questions import answer

from dark_model import disc_picture
from gui_parts import WAIT_MS, open_and_settle, until_idle
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project, pixel_size_of
from napari_nucleiseg.viewer.counting import count_view
from napari_nucleiseg.widgets.dialogs import PixelSizeDialog


def give(panel, mpp_um, qtbot):
    """Answer the question for the pixel size."""

    def fill(dialog):
        dialog.box.setValue(mpp_um)
        qtbot.mouseClick(dialog.buttons.button(QDialogButtonBox.StandardButton.Ok), Qt.MouseButton.LeftButton)

    return answer(fill, PixelSizeDialog)


def segment_view(panel, qtbot):
    qtbot.mouseClick(panel.panel.view_button, Qt.MouseButton.LeftButton)
    until_idle(qtbot, panel)


def choose(panel, beginning):
    """Choose from the menu of the slide."""
    (action,) = (item for item in panel.panel.facts.menu.actions() if item.text().startswith(beginning))
    assert action.isEnabled()
    action.trigger()


def test_a_pixel_size_that_was_given_is_known_next_time(viewer, panel, disc_png, qtbot):
    open_and_settle(viewer, panel, disc_png, qtbot)
    give(panel, 0.5, qtbot)
    segment_view(panel, qtbot)
    assert panel.panel.count.text() == "768"
    viewer.layers.clear()
    until_idle(qtbot, panel)
    open_and_settle(viewer, panel, disc_png, qtbot)
    slide_layer = next(layer for layer in viewer.layers if "slide" in layer.metadata)
    assert slide_layer.scale == pytest.approx([0.5, 0.5])
    assert panel.panel.hint.text().startswith("One pixel measures 0.5 µm, as was said when")
    assert not panel.panel.facts.button.isVisible()
    (nuclei,) = (layer for layer in viewer.layers if layer.name.endswith("nuclei"))
    assert nuclei.scale == pytest.approx([0.5, 0.5])


def test_a_pixel_size_can_be_corrected_and_old_results_are_not_mixed_with_new_ones(
    viewer, panel, disc_slide, engine, tmp_path, monkeypatch, qtbot
):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    segment_view(panel, qtbot)
    panel.session.heatmap = "separated"
    qtbot.wait(50)
    assert len(viewer.layers) == 3
    seen = give(panel, 0.4, qtbot)
    choose(panel, "Change the pixel size")
    assert "says 0.5 µm per pixel" in seen[0].question.text()
    until_idle(qtbot, panel)
    assert [layer.scale.tolist() for layer in viewer.layers] == [[0.4, 0.4]]  # what was found at 0.5 is not shown
    assert panel.panel.count.text() == "–"
    other = tmp_path / "other"
    monkeypatch.setattr("qtpy.QtWidgets.QFileDialog.getExistingDirectory", lambda *_: str(other))

    def take_another(box):
        assert "was made with 0.5 µm per pixel, but discs.tif is now opened with 0.4" in box.informativeText()
        qtbot.mouseClick(box.button(QMessageBox.StandardButton.Open), Qt.MouseButton.LeftButton)

    asked = answer(take_another)
    qtbot.mouseClick(panel.panel.view_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(asked), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert panel.panel.count.text() == "768"
    slide = open_slide(disc_slide)
    assert pixel_size_of(engine.folder / "discs.nucleiseg", slide) == YX(0.5, 0.5)
    assert pixel_size_of(other / "discs.nucleiseg", slide) == YX(0.4, 0.4)


def test_a_count_that_comes_late_is_not_taken_for_one_at_the_new_pixel_size(
    viewer, panel, disc_slide, monkeypatch, qtbot
):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    segment_view(panel, qtbot)
    counts, begun, may_end = count_view, threading.Event(), threading.Event()

    def slow(*args, **options):
        begun.set()
        assert may_end.wait(WAIT_MS / 1000)
        return counts(*args, **options)

    monkeypatch.setattr("napari_nucleiseg.viewer.display.count_view", slow)
    panel.controller.display.count()
    qtbot.waitUntil(begun.is_set, timeout=WAIT_MS)
    give(panel, 0.4, qtbot)
    choose(panel, "Change the pixel size")
    may_end.set()
    until_idle(qtbot, panel)
    assert panel.panel.count.text() == "–"


def test_a_correction_holds_when_slides_are_switched(viewer, panel, disc_slide, disc_png, qtbot):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    segment_view(panel, qtbot)
    corrected = viewer.layers[0]
    give(panel, 0.4, qtbot)
    choose(panel, "Change the pixel size")
    open_and_settle(viewer, panel, disc_png, qtbot)
    viewer.layers.selection.active = corrected
    until_idle(qtbot, panel)
    assert corrected.scale == pytest.approx([0.4, 0.4])


def test_a_correction_of_what_the_file_says_is_known_next_time(viewer, panel, disc_slide, engine, qtbot):
    from dataclasses import replace

    slide = replace(open_slide(disc_slide), mpp_um=YX(0.25, 0.25))
    Project.create(engine.folder / "discs.nucleiseg", slide).close()
    open_and_settle(viewer, panel, disc_slide, qtbot)
    assert viewer.layers[0].scale == pytest.approx([0.25, 0.25])
    assert panel.panel.hint.text().endswith("The file says 0.5 µm.")


def test_results_of_another_slide_say_nothing_of_this_one(disc_slide, disc_png, tmp_path):
    slide = open_slide(disc_slide)
    Project.create(tmp_path / "p.nucleiseg", slide).close()
    assert pixel_size_of(tmp_path / "p.nucleiseg", slide) == YX(0.5, 0.5)
    assert pixel_size_of(tmp_path / "p.nucleiseg", open_slide(disc_png)) is None
    assert pixel_size_of(tmp_path / "none.nucleiseg", slide) is None
    (tmp_path / "p.nucleiseg" / "project.sqlite").write_bytes(b"no database, but long enough to be read as one" * 99)
    assert pixel_size_of(tmp_path / "p.nucleiseg", slide) is None


@pytest.fixture
def swapping_profile():
    """An RGB profile whose red is sRGB's blue."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    places = {bytes(profile[132 + 12 * k : 136 + 12 * k]): 136 + 12 * k for k in range(count)}
    red, blue = (slice(places[tag], places[tag] + 8) for tag in (b"rXYZ", b"bXYZ"))
    profile[red], profile[blue] = profile[blue], profile[red]
    return bytes(profile)


def test_colours_are_shown_by_the_profile_on_request(viewer, panel, disc_slide, tmp_path, swapping_profile, qtbot):
    path = tmp_path / "profiled.tif"
    tifffile.imwrite(
        path, disc_picture((256, 256)), tile=(128, 128), iccprofile=swapping_profile,
        resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    open_and_settle(viewer, panel, path, qtbot)
    layer = viewer.layers[0]
    stored = np.asarray(layer.data[0][:64, :64]).astype(int)
    choose(panel, "Colours by the scanner's profile")
    shown = np.asarray(layer.data[0][:64, :64]).astype(int)
    assert np.abs(shown - stored[..., ::-1]).max() <= 2
    assert np.array_equal(panel.controller.slide.levels[0][:64, :64], stored)  # what models see
    open_and_settle(viewer, panel, disc_slide, qtbot)
    assert not panel.panel.facts.srgb.isChecked()
    viewer.layers.selection.active = layer
    until_idle(qtbot, panel)
    assert panel.panel.facts.srgb.isChecked()
    choose(panel, "Colours by the scanner's profile")
    assert np.array_equal(np.asarray(layer.data[0][:64, :64]), stored)


def test_without_a_profile_there_is_nothing_to_convert(viewer, panel, disc_slide, qtbot):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    assert not panel.panel.facts.srgb.isEnabled()


def test_the_label_of_a_slide_can_be_seen(viewer, panel, disc_slide, qtbot):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    facts, label = panel.panel.facts, np.full((40, 60, 3), (200, 30, 30), np.uint8)
    assert not any(action.text().startswith("Show the") for action in facts.menu.actions())
    slide = panel.controller.slide
    slide.associated = {"label": lambda: label, "macro": lambda: label}
    panel.controller.slide_changed.emit(slide)
    panel.controller.slide_changed.emit(slide)  # the menu does not grow
    assert [item.text() for item in facts.menu.actions()][-2:] == ["Show the label", "Show the macro"]
    choose(panel, "Show the label")

    def shown():
        return [d for d in QApplication.topLevelWidgets() if isinstance(d, QDialog) and d.windowTitle() == "Label"]

    qtbot.waitUntil(lambda: bool(shown()), timeout=WAIT_MS)
    (dialog,) = shown()
    pixmap = dialog.findChild(QLabel).pixmap()
    assert (pixmap.width(), pixmap.height()) == (60, 40)
    assert pixmap.toImage().pixelColor(5, 5).getRgb()[:3] == (200, 30, 30)
    dialog.close()
