"""Nothing is cut off in a narrow panel, in either theme; every control explains itself."""

import pytest
from qtpy.QtCore import QRect, Qt
from qtpy.QtGui import QPixmap, QScreen
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QFrame,
    QGridLayout,
    QLabel,
    QScrollArea,
    QScrollBar,
)

from gui_parts import WAIT_MS, choose_action, open_and_settle, until_idle
from napari_nucleiseg.viewer.messages import Counts, Hint, Progress
from napari_nucleiseg.widgets.facts import ElidedLabel
from napari_nucleiseg.widgets.teach import PREVIEW_PX


def cut_off(widget):
    """Texts that do not fit where they are shown."""
    bad = []
    for label in widget.findChildren(QLabel):
        if not label.isVisible() or isinstance(label, ElidedLabel):
            continue
        if label.wordWrap():
            if label.heightForWidth(label.width()) > label.height() + 1:
                bad.append(label.text())
        elif label.sizeHint().width() > label.width() + 1:
            bad.append(label.text())
    for button in widget.findChildren(QAbstractButton):
        narrow = button.minimumSizeHint().width() > button.width() + 1
        if button.isVisible() and button.text() and narrow:
            bad += [button.text()]
    return bad


@pytest.fixture(params=["dark", "light"])
def full_panel(request, viewer, panel, disc_slide, qtbot):
    """The panel with everything shown, as narrow as it goes."""
    viewer.theme = request.param
    open_and_settle(viewer, panel, disc_slide, qtbot)
    panel.panel.show_counts(Counts("view", 1_234_567, 98.7, 0.42))
    panel.panel.show_hint(
        Hint("Zoom in to follow: this view needs 12,345 tiles. What is done already is shown; “View” computes it all.")
    )
    panel.panel.show_progress(Progress("Segmenting", 12_345, 123_456, left_s=3000))
    panel.setFixedWidth(300)
    qtbot.wait(100)
    return panel


def test_nothing_is_cut_off(full_panel):
    assert full_panel.panel.width() <= 300
    assert cut_off(full_panel) == []


def test_the_bar_has_room_for_its_text(full_panel):
    bar = full_panel.panel.bar
    assert "50 min left" in bar.text()
    assert bar.fontMetrics().horizontalAdvance(bar.text()) <= bar.width() - 4


def test_no_sideways_scrolling(full_panel):
    for area in full_panel.findChildren(QScrollArea):
        assert area.widget().minimumSizeHint().width() <= area.viewport().width()


def test_the_welcome_page_fits_too(viewer, panel, qtbot):
    panel.setFixedWidth(300)
    qtbot.wait(100)
    assert panel.welcome.isVisible()
    assert cut_off(panel) == []


def test_every_control_explains_itself(full_panel):
    kinds = (QAbstractButton, QComboBox, QAbstractSlider, QAbstractSpinBox)
    controls = [
        control
        for part in (full_panel.panel, full_panel.welcome)
        for kind in kinds
        for control in part.findChildren(kind)
        if not isinstance(control, QScrollBar)
    ]
    assert len(controls) > 12
    assert [control for control in controls if not control.toolTip()] == []


def test_what_follows_correcting_stands_in_three_rows_of_three(full_panel):
    correct = full_panel.panel.correct
    grid = next(layout for layout in correct.findChildren(QGridLayout) if layout.indexOf(correct.more_button) >= 0)
    assert (grid.rowCount(), grid.columnCount(), grid.count()) == (3, 3, 9)
    widths = [grid.itemAt(place).widget().width() for place in range(9)]
    assert max(widths) < 1.3 * min(widths)


@pytest.fixture
def laptop(monkeypatch):
    """A screen of 1366 x 768 pixels, as far as anybody asks."""
    monkeypatch.setattr(QScreen, "availableGeometry", lambda _screen: QRect(0, 0, 1366, 768))


@pytest.mark.usefixtures("laptop")
def test_no_dock_makes_the_window_larger_than_the_screen_of_a_laptop(viewer, panel, disc_slide, qtbot):
    viewer.window.resize(1366, 728)
    open_and_settle(viewer, panel, disc_slide, qtbot)
    docks, opened = panel.docks, []
    for show in (
        docks.show_table, docks.show_regions, docks.show_history, docks.show_teach, docks.show_versions,
        docks.show_unlabelled, docks.show_models, docks.show_cluster, docks.show_heads, docks.show_like,
        docks.show_by_text, docks.show_plots, docks.show_batch,
    ):  # fmt: skip
        show()
        qtbot.wait(50)
        opened.append((show.__name__, viewer.window.geometry()[2:]))
    until_idle(qtbot, panel)
    assert [one for one in opened if one[1] != (1366, 728)] == []


@pytest.mark.usefixtures("laptop")
def test_a_dock_that_is_too_low_is_scrolled_and_its_controls_take_the_keys(viewer, panel, disc_slide, qtbot):
    viewer.window.resize(1200, 1)  # as low as it goes
    open_and_settle(viewer, panel, disc_slide, qtbot)
    panel.docks.show_teach()
    teach, frame = panel.docks.widget("Teach"), panel.docks.frame("Teach")
    assert frame.focusPolicy() == Qt.FocusPolicy.NoFocus
    qtbot.waitUntil(lambda: frame.verticalScrollBar().isVisible(), timeout=WAIT_MS)
    assert frame.height() < teach.minimumSizeHint().height() <= teach.height()
    assert not teach.teach_button.visibleRegion().isEmpty()
    shown = [button for button in teach.findChildren(QAbstractButton) if button.isVisible()]
    lowest = max(shown, key=lambda button: button.mapTo(teach, button.rect().bottomLeft()).y())
    assert lowest.visibleRegion().isEmpty()
    frame.ensureWidgetVisible(lowest)
    assert not lowest.visibleRegion().isEmpty()


def test_a_dock_has_the_height_it_needs_where_the_screen_has_room(viewer, panel, disc_slide, qtbot):
    viewer.window.resize(1200, 1)
    open_and_settle(viewer, panel, disc_slide, qtbot)
    panel.docks.show_teach()
    teach, frame = panel.docks.widget("Teach"), panel.docks.frame("Teach")
    qtbot.waitUntil(lambda: frame.height() >= teach.minimumSizeHint().height() > 100, timeout=WAIT_MS)
    assert not frame.verticalScrollBar().isVisible()
    teach.preview.setPixmap(QPixmap(PREVIEW_PX, PREVIEW_PX))  # now it needs more
    qtbot.waitUntil(lambda: frame.height() >= teach.minimumSizeHint().height() > PREVIEW_PX, timeout=WAIT_MS)
    qtbot.wait(50)
    assert not frame.verticalScrollBar().isVisible()


def test_the_menu_explains_itself_and_opens_what_it_says(full_panel, qtbot):
    correct, docks = full_panel.panel.correct, full_panel.docks
    menu = correct.more_button.menu()
    entries = [action for action in menu.actions() if not action.isSeparator()]
    assert len(entries) == 5
    assert menu.toolTipsVisible()
    assert all(action.toolTip() != action.text().replace("…", "") for action in entries)
    for action, name in ((correct.by_text_action, "By text"), (correct.batch_action, "Batch")):
        assert docks.widget(name) is None
        choose_action(qtbot, correct.more_button, action)
        qtbot.waitUntil(lambda name=name: docks.widget(name) is not None, timeout=WAIT_MS)


def test_tooltips_name_the_keys(full_panel):
    panel = full_panel.panel
    for control, key in (
        (panel.follow, "Shift+F"),
        (panel.view_button, "Shift+N"),
        (panel.shape_button, "Shift+S"),
        (panel.slide_button, "Shift+W"),
        (panel.stop_button, "Shift+Q"),
        (panel.outlines, "(N)"),
        (panel.heatmap, "(H"),
    ):
        assert key in control.toolTip()


def test_the_keys_are_nobody_elses(viewer, panel):
    from napari.utils.shortcuts import default_shortcuts

    from napari_nucleiseg.widgets import shortcuts

    taken = {str(binding) for bindings in default_shortcuts.values() for binding in bindings}
    ours = {value.text for value in vars(shortcuts).values() if isinstance(value, shortcuts.Shortcut)}
    assert len(ours) == 19
    assert not ours & taken


def test_a_long_name_is_shortened_and_told_in_the_tooltip(viewer, panel, disc_slide, tmp_path, qtbot):
    path = tmp_path / ("a-very-long-name-of-a-slide-" * 4 + "end.tif")
    path.write_bytes(disc_slide.read_bytes())
    panel.setFixedWidth(300)
    open_and_settle(viewer, panel, path, qtbot)
    name = panel.panel.facts.name
    assert name.whole == path.name
    assert "…" in name.text()
    assert name.text().endswith("end.tif")
    assert str(path) in name.toolTip()
    assert panel.panel.width() <= 300


def test_nothing_is_cut_off_while_correcting(full_panel, qtbot):
    full_panel.session.editing = True
    until_idle(qtbot, full_panel)
    qtbot.wait(50)
    assert full_panel.panel.correct.keys.isVisible()
    assert full_panel.panel.minimumSizeHint().width() <= 300 - 16  # beside a scroll bar
    assert cut_off(full_panel) == []


def test_a_long_licence_is_read_whole_beside_its_button(full_panel, qtbot):
    panel = full_panel.panel
    panel.licence.setText("CC-BY-NC-SA-4.0 AND CC-BY-NC-4.0 · research use only")
    qtbot.wait(50)
    assert panel.licence.height() > 2 * panel.licence.fontMetrics().height() - 4
    assert cut_off(full_panel) == []


def test_thin_lines_are_seen_and_switches_stand_in_columns(full_panel):
    panel = full_panel.panel
    shown = panel.grab().toImage()
    lines = [line for line in panel.findChildren(QFrame) if line.height() == 1 and line.isVisible()]
    assert len(lines) >= 3
    for line in lines:
        place = line.mapTo(panel, line.rect().center())
        seen, beside = (shown.pixelColor(place.x(), place.y() + down).lightness() for down in (0, 4))
        assert abs(seen - beside) > 15
    for upper, lower in ((panel.outlines, panel.thorough), (panel.tissue_only, panel.ignore_brown)):
        assert upper.x() == lower.x()
