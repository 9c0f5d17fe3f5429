"""A person at the panel: buttons, sliders, camera and keys in a real window, on the real engine and store."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication

from dark_model import disc_centres
from gui_parts import WAIT_MS, click, open_and_settle, until_idle
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.visible import visible_region


def truth_in(region):
    y, x = disc_centres((768, 1024)).T
    return int(((y >= region.y) & (y < region.y1) & (x >= region.x) & (x < region.x1)).sum())


def count_shown(panel):
    return int(panel.panel.count.text().replace(",", ""))


@pytest.fixture
def opened(viewer, panel, disc_slide, qtbot):
    """The panel with the picture of discs open, all of it in view."""
    open_and_settle(viewer, panel, disc_slide, qtbot)
    return panel


def nuclei_layer(viewer):
    return next(layer for layer in viewer.layers if layer.name.endswith("nuclei"))


def look_at(viewer, qtbot, region, mpp=0.5):
    """Zoom so that `region` fills the canvas."""
    height, width = viewer.canvas.size
    viewer.scene.camera.zoom = min(height / (region.height * mpp), width / (region.width * mpp))
    viewer.scene.camera.center = (region.centre.y * mpp, region.centre.x * mpp)
    qtbot.wait(300)


def test_a_dropped_slide_fills_the_panel(viewer, opened):
    facts = opened.panel.facts
    assert facts.isVisible()
    assert facts.name.whole == "discs.tif"
    assert facts.extent.text() == "1,024 × 768 px  ·  0.512 × 0.384 mm"
    assert "0.5 µm/px" in facts.scan.text()
    assert not facts.button.isVisible()
    layer = viewer.layers[0]
    assert tuple(map(str, layer.units)) == ("micrometer", "micrometer")
    assert layer.scale == pytest.approx([0.5, 0.5])
    assert layer.axis_labels == ("y", "x")


def test_segment_view_shows_every_nucleus(viewer, opened, qtbot):
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    assert count_shown(opened) == 24 * 32
    labels = np.asarray(nuclei_layer(viewer).data[0])
    assert len(np.unique(labels)) - 1 == 24 * 32
    for y, x in disc_centres((768, 1024)):
        assert labels[y, x] > 0
    mm2 = 768 * 1024 * 0.25e-6
    assert float(opened.panel.density.text().replace(",", "")) == pytest.approx(24 * 32 / mm2, rel=0.02)
    assert opened.panel.share.text() == "All of the tissue in view is segmented"


def test_no_row_above_or_below_the_numbers_is_empty(viewer, opened, qtbot):
    rows = opened.panel._progress_part, opened.panel.status, opened.panel.share
    assert not rows[0].isVisible()
    assert not (rows[2].isVisible() and not rows[2].text())
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    assert all(row.isVisible() for row in rows)
    assert "tiles in" in opened.panel.status.text()
    top = opened.panel.count.mapTo(opened, opened.panel.count.rect().topLeft()).y()
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    assert opened.panel.status.text() == "All tiles were done before"
    # Where a hint says why nothing is done, no empty row stands above it.
    opened.panel.show_outcome("")
    assert rows[0].isVisible()
    assert opened.panel.count.mapTo(opened, opened.panel.count.rect().topLeft()).y() == top
    opened.panel.show_hint(Hint("Zoom in to follow"))
    assert not rows[0].isVisible()
    opened.panel.show_hint(Hint())
    assert rows[0].isVisible()
    opened.panel.show_counts(None)
    assert not rows[2].isVisible()


def test_a_taught_version_is_known_by_both_ends_of_its_title(opened, qtbot):
    panel = opened.panel
    (first, *_others) = panel._cards.values()
    title = "nuclei, taught with a slide of a long name.svs, another slide of a long name.svs"
    taught = [replace(first, name=f"nuclei-{number}", parent="0123456789ab", title=title) for number in (2, 3)]
    opened.setFixedWidth(300)
    panel.show_models((first, *taught))
    shown = {}
    for card in taught:
        panel.model.setCurrentIndex(panel.model.findData(card.name))
        qtbot.wait(20)
        shown[card.name] = panel.model.shown_text
    assert all(text.startswith("nuclei") and "…" in text and text.endswith(f"({name})") for name, text in shown.items())
    panel.model.showPopup()
    qtbot.waitUntil(panel.model.view().isVisible)
    assert panel.model.view().width() > panel.model.width()
    panel.model.hidePopup()
    panel._show_licence("nuclei-3")
    assert panel.model.toolTip().startswith(f"{title} (nuclei-3)")


def test_nuclei_lie_on_the_slide_in_micrometres(viewer, opened, qtbot):
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    layer = nuclei_layer(viewer)
    assert layer.scale == pytest.approx(viewer.layers[0].scale)
    assert layer.translate == pytest.approx(viewer.layers[0].translate)
    assert layer.units == viewer.layers[0].units
    assert not layer.editable
    assert layer.contour in {1, 2}


def test_outlines_reach_the_screen(viewer, opened, qtbot):
    look_at(viewer, qtbot, Region(100, 100, 200, 300))
    before = viewer.screenshot(flash=False)
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    after = viewer.screenshot(flash=False)
    changed = (before != after).any(axis=-1)
    assert 0.01 < changed.mean() < 0.5
    green = after[changed][:, :3].astype(int)
    assert (green[:, 1] > green[:, 0] + 40).mean() > 0.5


def test_following_segments_what_comes_into_view_and_nothing_twice(viewer, opened, engine, qtbot):
    look_at(viewer, qtbot, Region(0, 0, 200, 240))
    click(qtbot, opened.panel.follow)
    assert opened.session.follow
    until_idle(qtbot, opened)
    first = engine.log.tiles
    assert 0 < first < 12
    region = visible_region(viewer, viewer.layers[0])
    assert count_shown(opened) == truth_in(region)
    look_at(viewer, qtbot, Region(560, 780, 200, 240))
    until_idle(qtbot, opened)
    second = engine.log.tiles
    assert second > first
    look_at(viewer, qtbot, Region(0, 0, 200, 240))
    until_idle(qtbot, opened)
    assert engine.log.tiles == second
    assert count_shown(opened) == truth_in(region)


def test_following_asks_to_zoom_in_and_shows_what_there_is(viewer, opened, engine, qtbot):
    look_at(viewer, qtbot, Region(0, 0, 200, 240))
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    done = engine.log.tiles
    opened.session.follow_limit = 2
    viewer.reset_view()
    click(qtbot, opened.panel.follow)
    until_idle(qtbot, opened)
    assert engine.log.tiles == done
    assert "Zoom in to follow" in opened.panel.hint.text()
    assert opened.panel.hint.isVisible()
    assert nuclei_layer(viewer).visible
    assert "of the tissue in view is segmented" in opened.panel.share.text()


def test_sliders_decode_again_without_the_network(viewer, opened, engine, qtbot):
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    forwards, before = engine.log.tiles, count_shown(opened)
    slider = opened.panel.min_area.slider
    slider.setFocus()
    for _ in range(20):
        qtbot.keyClick(slider, Qt.Key.Key_PageUp)  # discs of radius 7 at 0.5 um are 38.5 um2
    assert opened.session.min_area_um2 == 60
    qtbot.wait(300)
    until_idle(qtbot, opened)
    assert before > 0
    assert count_shown(opened) == 0
    opened.panel.min_area.box.setValue(8)
    qtbot.wait(300)
    until_idle(qtbot, opened)
    assert count_shown(opened) == before
    assert engine.log.tiles == forwards


def test_whole_slide_goes_on_where_it_stopped(opened, engine, qtbot):
    engine.log.hold_after = 3
    click(qtbot, opened.panel.slide_button)
    qtbot.waitUntil(lambda: engine.log.tiles > 3, timeout=WAIT_MS)
    assert opened.panel.bar.isVisible()
    click(qtbot, opened.panel.stop_button)
    assert not opened.panel.bar.isVisible()
    assert not opened.controller.is_running
    engine.log.gate.set()
    until_idle(qtbot, opened)
    assert engine.log.tiles <= 5
    click(qtbot, opened.panel.slide_button)
    until_idle(qtbot, opened)
    assert count_shown(opened) == 24 * 32
    assert 12 <= engine.log.tiles <= 16  # what was forwarded but not written yet when it stopped is done again


def test_a_tile_that_is_written_as_the_run_is_stopped_is_told_like_any_other(opened, qtbot, monkeypatch):
    written, gate, told = threading.Event(), threading.Event(), []
    write = Project.write_tile

    def write_and_wait(*args):
        write(*args)
        written.set()
        assert gate.wait(30)

    monkeypatch.setattr(Project, "write_tile", write_and_wait)
    opened.controller.display.tile_done.connect(told.append)
    opened.controller.segment_view()
    assert written.wait(30)
    opened.controller.cancel()
    gate.set()
    qtbot.waitUntil(lambda: len(told) > 0, timeout=WAIT_MS)
    until_idle(qtbot, opened)
    assert len(told) == 1
    assert opened.controller.display.shelf.now.project.count_in(told[0]) > 0


def test_keys_do_what_buttons_do(viewer, opened, engine, qtbot):
    def press(key, modifier=Qt.KeyboardModifier.NoModifier):
        qtbot.keyClick(viewer.window._qt_viewer.canvas.native, key, modifier)

    shift = Qt.KeyboardModifier.ShiftModifier
    press(Qt.Key.Key_N, shift)
    until_idle(qtbot, opened)
    assert count_shown(opened) == 24 * 32
    press(Qt.Key.Key_N)
    assert not nuclei_layer(viewer).visible
    assert not opened.panel.outlines.isChecked()
    press(Qt.Key.Key_N)
    assert nuclei_layer(viewer).visible
    press(Qt.Key.Key_F, shift)
    assert opened.panel.follow.isChecked()
    press(Qt.Key.Key_Q, shift)
    assert not opened.panel.follow.isChecked()


def test_letters_are_keys_also_where_a_list_was_used_last(viewer, opened, qtbot):
    model = opened.panel.model
    model.setFocus()
    qtbot.keyClick(model, Qt.Key.Key_R)  # a model's title begins with "Nuclei", another's name with "research"
    qtbot.keyClick(model, Qt.Key.Key_N)
    assert opened.session.model == "nuclei"
    assert not opened.session.outlines
    qtbot.keyClick(model, Qt.Key.Key_Down)
    assert opened.session.model == "research"


def test_the_wheel_scrolls_and_turns_nothing(viewer, opened, qtbot):
    panel = opened.panel
    panel.follow.setFocus()
    before = (opened.session.model, opened.session.threshold, opened.session.min_area_um2)
    for control in (panel.model, panel.threshold.slider, panel.threshold.box, panel.min_area.slider):
        place = QPointF(control.rect().center())
        turn = QWheelEvent(
            place,
            QPointF(control.mapToGlobal(control.rect().center())),
            QPoint(),
            QPoint(0, -120),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(control, turn)
    assert (opened.session.model, opened.session.threshold, opened.session.min_area_um2) == before


def test_keys_are_given_back(viewer, engine):
    from napari_nucleiseg.state import Session
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.widgets.nuclei import NucleiWidget

    def theirs(_viewer):
        """What another plugin does at this key."""

    viewer.bind_key("N", theirs)
    before = dict(viewer.keymap)
    widget = NucleiWidget(viewer, Controller(viewer, Session(), engine))
    assert len(viewer.keymap) == 19
    assert dict(viewer.keymap) != before
    widget.shutdown()
    widget.controller.join()
    assert dict(viewer.keymap) == before


def test_heatmap_comes_and_goes(viewer, opened, qtbot):
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    opened.panel.heatmap.setCurrentIndex(1)
    opened.panel.heatmap.activated.emit(1)
    layer = next(layer for layer in viewer.layers if "probability" in layer.name)
    assert list(viewer.layers).index(layer) == 1
    y, x = disc_centres((768, 1024))[40]
    assert layer.data[0][y, x] > 240
    assert layer.data[0][y + 16, x + 16] < 15
    opened.session.heatmap = ""
    assert layer not in viewer.layers


def test_selected_shape_is_segmented_and_counted(viewer, opened, qtbot):
    click(qtbot, opened.panel.shape_button)
    assert "Draw a rectangle" in opened.panel.hint.text()
    shapes = viewer.layers["Regions"]
    assert shapes.mode == "add_rectangle"
    zoom = viewer.scene.camera.zoom
    assert 3 <= shapes.current_edge_width * shapes.scale[-1] * zoom <= 5  # broad enough to see, whatever the zoom
    triangle = np.array([[96.0, 96.0], [96.0, 480.0], [480.0, 96.0]])
    shapes.add_polygons(triangle)
    click(qtbot, opened.panel.shape_button)
    until_idle(qtbot, opened)
    y, x = disc_centres((768, 1024)).T
    inside = (y > 96) & (x > 96) & (y + x < 576)
    assert opened.panel.count_caption.text() == "nuclei in shape"
    assert shapes.mode == "pan_zoom"  # whoever drags now wants to look around
    # Discs whose centre lies on the very edge may fall to either side.
    edge = np.abs(y + x - 576) <= 2
    assert (inside & ~edge).sum() <= count_shown(opened) <= (inside | edge).sum()


def test_closing_the_window_in_mid_job_ends_it_cleanly(viewer, opened, engine, qtbot, disc_slide):
    engine.log.hold_after = 0
    click(qtbot, opened.panel.slide_button)
    qtbot.waitUntil(lambda: engine.log.tiles >= 1, timeout=WAIT_MS)
    viewer.close()
    engine.log.gate.set()
    opened.controller.join()
    assert engine.log.tiles < 12
    from napari_nucleiseg.core.slides.registry import open_slide
    from napari_nucleiseg.core.store.project import Project

    slide = open_slide(disc_slide)
    with Project.open(engine.project_folder(slide), slide) as project:  # the lock was given back
        assert project.writable


def test_closing_the_dock_ends_work(viewer, opened, engine, qtbot):
    engine.log.hold_after = 0
    click(qtbot, opened.panel.slide_button)
    qtbot.waitUntil(lambda: engine.log.tiles >= 1, timeout=WAIT_MS)
    viewer.window.remove_dock_widget(opened)
    engine.log.gate.set()
    opened.controller.join()
    assert engine.log.tiles < 12


def test_the_active_slide_is_the_one_that_is_meant(viewer, opened, qtbot, tmp_path, disc_slide):
    other = tmp_path / "other.tif"
    other.write_bytes(disc_slide.read_bytes())
    viewer.open(other, plugin="napari-nucleiseg")
    assert opened.panel.facts.name.whole == "other.tif"
    viewer.layers.selection.active = viewer.layers[0]
    assert opened.panel.facts.name.whole == "discs.tif"


def test_removing_the_slide_takes_its_layers_and_gives_the_lock_back(viewer, opened, engine, qtbot, disc_slide):
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    lock = engine.folder / "discs.nucleiseg" / "project.lock"
    assert lock.exists()
    viewer.layers.remove(viewer.layers[0])
    assert not viewer.layers
    assert opened.welcome.isVisible()
    qtbot.waitUntil(lambda: not lock.exists(), timeout=WAIT_MS)


def test_results_of_an_earlier_session_are_there_at_once(viewer, opened, engine, qtbot, disc_slide):
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    forwards = engine.log.tiles
    viewer.layers.clear()
    qtbot.waitUntil(lambda: not (engine.folder / "discs.nucleiseg" / "project.lock").exists(), timeout=WAIT_MS)
    viewer.open(disc_slide, plugin="napari-nucleiseg")
    until_idle(qtbot, opened)
    assert len(np.unique(np.asarray(nuclei_layer(viewer).data[0]))) - 1 == 24 * 32
    assert engine.log.tiles == forwards


def test_outlines_fit_the_zoom_until_the_user_sets_them(viewer, opened, qtbot):
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    layer = nuclei_layer(viewer)
    viewer.scene.camera.zoom = 8.0
    qtbot.waitUntil(lambda: layer.contour == 1, timeout=WAIT_MS)
    viewer.scene.camera.zoom = 1.5
    qtbot.waitUntil(lambda: layer.contour == 2, timeout=WAIT_MS)
    layer.contour = 0
    viewer.scene.camera.zoom = 8.0
    qtbot.waitUntil(lambda: layer.opacity == pytest.approx(0.7), timeout=WAIT_MS)
    assert layer.contour == 0
    viewer.scene.camera.zoom = 0.2
    qtbot.waitUntil(lambda: layer.opacity == pytest.approx(0.55), timeout=WAIT_MS)
    layer.opacity = 0.3
    viewer.scene.camera.zoom = 1.5
    qtbot.wait(400)
    assert layer.opacity == pytest.approx(0.3)


def test_the_eye_of_the_layer_and_the_box_of_the_panel_agree(viewer, opened, qtbot):
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    nuclei_layer(viewer).visible = False
    assert not opened.panel.outlines.isChecked()
    nuclei_layer(viewer).visible = True
    assert opened.panel.outlines.isChecked()


def test_who_was_asked_to_go_back_to_two_dimensions_is_not_asked_there(viewer, opened, qtbot):
    viewer.dims.ndisplay = 3
    click(qtbot, opened.panel.view_button)
    assert "Switch to the two-dimensional view" in opened.panel.hint.text()
    viewer.dims.ndisplay = 2
    assert opened.panel.hint.text() == ""
    opened.controller.hint_changed.emit(Hint("Something else."))
    viewer.dims.ndisplay = 3
    viewer.dims.ndisplay = 2
    assert opened.panel.hint.text() == "Something else."


def test_a_panel_opened_anew_takes_up_the_results(viewer, opened, engine, qtbot):
    from napari_nucleiseg.state import Session
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.widgets.nuclei import NucleiWidget

    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    viewer.window.remove_dock_widget(opened)
    opened.controller.join()
    again = NucleiWidget(viewer, Controller(viewer, Session(), engine))
    viewer.window.add_dock_widget(again, name="Nuclei again", area="right")
    until_idle(qtbot, again)
    assert [layer.name for layer in viewer.layers] == ["discs", "discs nuclei"]
    click(qtbot, again.panel.view_button)
    until_idle(qtbot, again)
    assert engine.log.tiles == 12
    again.shutdown()
    again.controller.join()


def test_another_model_brings_the_settings_that_are_best_for_it(panel, engine, qtbot):
    from dataclasses import replace

    from dark_model import CARD, RESEARCH

    qtbot.waitUntil(lambda: panel.panel.model.count() == 2, timeout=WAIT_MS)
    engine.models = lambda: (CARD, replace(RESEARCH, threshold=0.35, min_area_um2=2.0))
    listed = []
    panel.controller.models_listed.connect(listed.append)
    panel.controller.catalogue.list()
    qtbot.waitUntil(lambda: bool(listed), timeout=WAIT_MS)
    panel.session.threshold = 0.7
    panel.session.model = "research"
    assert (panel.session.threshold, panel.session.min_area_um2) == (0.35, 2.0)
    assert panel.panel.threshold.box.value() == 0.35
    panel.session.model = "nuclei"
    assert (panel.session.threshold, panel.session.min_area_um2) == (CARD.threshold, CARD.min_area_um2)


def test_a_shape_and_the_eye_of_one_slide_say_nothing_of_another(viewer, opened, qtbot, tmp_path, disc_slide):
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    first = viewer.layers[0]
    other = tmp_path / "other.tif"
    other.write_bytes(disc_slide.read_bytes())
    viewer.open(other, plugin="napari-nucleiseg")
    until_idle(qtbot, opened)
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    viewer.layers.selection.active = first
    until_idle(qtbot, opened)
    opened.panel.shape_button.click()
    viewer.layers["Regions"].add_polygons(np.array([[96.0, 96.0], [96.0, 480.0], [480.0, 96.0]]))
    click(qtbot, opened.panel.shape_button)
    until_idle(qtbot, opened)
    assert opened.panel.count_caption.text() == "nuclei in shape"
    viewer.layers.selection.active = viewer.layers["other"]
    until_idle(qtbot, opened)
    assert opened.panel.count_caption.text() == "nuclei in view"
    viewer.layers["discs nuclei"].visible = False
    assert opened.panel.outlines.isChecked()
    assert viewer.layers["other nuclei"].visible
    viewer.layers.selection.active = first
    assert not opened.panel.outlines.isChecked()
    viewer.layers.selection.active = viewer.layers["other"]
    assert opened.panel.outlines.isChecked()
