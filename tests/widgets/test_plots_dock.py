"""A person at the plots: a mouse that draws ranges, lassos and rectangles, keys, buttons, and the table beside them."""

import csv
import itertools

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QFileDialog

from gui_parts import WAIT_MS, click, hover, open_and_settle, until_idle
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.counting import inside_polygon
from napari_nucleiseg.viewer.plot_layers import SELECTED, VALUES
from napari_nucleiseg.viewer.visible import visible_region
from napari_nucleiseg.widgets import commands
from napari_nucleiseg.widgets.plots import NO_NUCLEI, NOT_CORRECTING, NOTHING_IN_VIEW
from plots_parts import PlacedPlots

ALL = 24 * 32
LEFT = Qt.MouseButton.LeftButton
PLAIN, SHIFT, ALT, CONTROL = (
    Qt.KeyboardModifier.NoModifier,
    Qt.KeyboardModifier.ShiftModifier,
    Qt.KeyboardModifier.AltModifier,
    Qt.KeyboardModifier.ControlModifier,
)


@pytest.fixture
def dock(viewer, panel, disc_slide, qtbot):
    """The plots beside the panel, on a slide that is segmented."""
    panel.docks.plots.engine = PlacedPlots()
    open_and_settle(viewer, panel, disc_slide, qtbot)
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    click(qtbot, panel.panel.correct.plots_button)
    made = panel.docks.widget("Measurements")
    qtbot.waitUntil(lambda: len(made.plots.cloud) == ALL, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    made.plots.wishes.across = "x_px"
    made.plots.wishes.up = "y_px"
    return made


@pytest.fixture
def scatter(dock, qtbot):
    """The same as a scatter plot of where nuclei lie."""
    click(qtbot, dock.form.kinds["scatter"])
    assert dock.canvas is dock.scatter
    return dock


def nuclei_of(panel):
    return panel.controller.display.shelf.now.project.nuclei_in(Region(0, 0, 768, 1024))


def spot(canvas, x, y):
    """The screen pixel of a value."""
    across, up = canvas.pixels(np.array([x], float), np.array([y], float))
    return QPoint(round(across[0]), round(up[0]))


def draw(qtbot, canvas, spots, modifier=PLAIN):
    """Press, move over some places, and let go."""
    qtbot.mousePress(canvas, LEFT, modifier, spots[0])
    for one, other in itertools.pairwise(spots):
        for part in np.linspace(0, 1, 6)[1:]:
            hover(qtbot, canvas, one + (other - one) * float(part))
    qtbot.mouseRelease(canvas, LEFT, modifier, spots[-1])


def drag_range(qtbot, canvas, low, high, modifier=PLAIN):
    draw(qtbot, canvas, [spot(canvas, low, 3), spot(canvas, high, 5)], modifier)


def value_of(canvas, place):
    return canvas.values(QPointF(place))


# ---------------------------------------------------------------------- how it is opened


def test_it_says_what_is_missing(viewer, panel, disc_slide, qtbot):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    panel.docks.show_plots()
    until_idle(qtbot, panel)
    dock = panel.docks.widget("Measurements")
    assert dock.canvas.empty == NO_NUCLEI
    assert not any(button.isEnabled() for button in (dock.list_button, dock.export_button, dock.class_button))
    assert dock.selected.text() == dock.words.text() == ""
    click(qtbot, panel.panel.view_button)
    qtbot.waitUntil(lambda: len(dock.plots.cloud) == ALL, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert dock.canvas.empty == ""
    assert dock.words.text().startswith("<b>Area, µm²</b>, 768 nuclei<br>median ")
    viewer.scene.camera.center = (9000.0, 9000.0)
    qtbot.waitUntil(lambda: dock.canvas.empty == NOTHING_IN_VIEW, timeout=WAIT_MS)
    until_idle(qtbot, panel)


def test_a_key_and_the_menu_open_it_too(viewer, panel, disc_slide, qtbot, monkeypatch):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    canvas = viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    qtbot.keyClick(canvas, Qt.Key.Key_M, SHIFT)
    dock = panel.docks.widget("Measurements")
    assert dock.isVisible()
    viewer.window.remove_dock_widget(panel.docks.frame("Measurements"))
    assert not dock.isVisible()
    assert not dock.plots.is_open
    monkeypatch.setattr(commands, "open_panel", lambda _viewer: panel)
    commands.show_plots(viewer)
    assert dock.isVisible()
    assert dock.plots.is_open


# ---------------------------------------------------------------------- histogram


def test_a_dragged_range_is_selected_marked_and_told_in_words(viewer, dock, panel, qtbot):
    canvas = dock.canvas
    assert canvas.histogram.counts.sum() == ALL
    x = nuclei_of(panel).centroids[:, 1]
    low, high = (value_of(canvas, spot(canvas, value, 1))[0] for value in (200, 610))
    drag_range(qtbot, canvas, 200, 610)
    inside = (x >= low) & (x <= high)
    assert 0 < inside.sum() < ALL
    assert dock.plots.selected.tolist() == nuclei_of(panel).ids[inside].tolist()
    assert f"{inside.sum():,} selected." in dock.selected.text()
    assert NOT_CORRECTING in dock.selected.text()
    assert f", {inside.sum():,} nuclei" in dock.words.text()
    until_idle(qtbot, panel)
    assert any(SELECTED in layer.name for layer in viewer.layers)

    drag_range(qtbot, canvas, 800, 900, SHIFT)
    more = inside | ((x >= 800) & (x <= 900))
    assert (
        abs(len(dock.plots.selected) - more.sum()) <= 48
    )  # a column of discs at each end: a pixel of the plot is wide
    assert np.isin(nuclei_of(panel).ids[inside], dock.plots.selected).all()
    drag_range(qtbot, canvas, 300, 1000, ALT)
    assert nuclei_of(panel).centroids[np.isin(nuclei_of(panel).ids, dock.plots.selected), 1].max() < 305
    qtbot.keyClick(canvas, Qt.Key.Key_Escape)
    assert len(dock.plots.selected) == 0
    until_idle(qtbot, panel)
    assert not any(SELECTED in layer.name for layer in viewer.layers)


def test_a_bar_is_selected_by_a_click_and_holds_as_many_as_it_says(dock, panel, qtbot):
    canvas = dock.canvas
    middle = len(canvas.histogram.edges) // 2
    place = spot(canvas, canvas.histogram.edges[middle : middle + 2].mean(), 1)
    qtbot.mouseClick(canvas, LEFT, pos=place)
    count = int(canvas.histogram.counts[:, middle].sum())
    assert len(dock.plots.selected) == count > 0
    assert f"{count:,} nuclei" in canvas.told(middle)


def test_classes_are_stacked_and_named(dock, panel, qtbot):
    click(qtbot, panel.panel.correct.toggle)
    until_idle(qtbot, panel)
    drag_range(qtbot, dock.canvas, 0, 500)
    chosen = len(dock.plots.selected)
    qtbot.waitUntil(dock.class_button.isEnabled, timeout=WAIT_MS)
    qtbot.keyClick(dock.canvas, Qt.Key.Key_2)
    qtbot.waitUntil(lambda: dock.canvas.histogram.numbers == (0, 2), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert dock.canvas.histogram.counts.sum(axis=1).tolist() == [ALL - chosen, chosen]
    (_, name, colour) = panel.controller.editing.classes()[1]
    assert next((title, shade.name()) for title, shade in dock.canvas.key()) == (name, colour)
    assert dock.canvas.key()[1][0] == "No class"


def test_the_wheel_comes_nearer_with_finer_bins_and_a_double_click_goes_back(dock, qtbot):
    canvas = dock.canvas
    wide = canvas.histogram.edges
    assert not dock.form.all_button.isEnabled()
    turn(canvas, spot(canvas, 500, 3), 3)
    assert canvas.is_near
    narrow = canvas.histogram.edges
    assert narrow[-1] - narrow[0] < 0.7 * (wide[-1] - wide[0])
    assert canvas.window_seen.left < 500 < canvas.window_seen.right
    click(qtbot, dock.form.all_button)
    assert canvas.histogram.edges.tolist() == wide.tolist()
    turn(canvas, spot(canvas, 500, 3), 2)
    qtbot.mouseDClick(canvas, LEFT, pos=spot(canvas, 500, 3))
    assert not canvas.is_near
    turn(canvas, spot(canvas, 500, 3), -4)
    assert not canvas.is_near  # there is nothing farther away


def turn(canvas, place, steps):
    """Turn the wheel over a place, towards it or back."""
    where = QPointF(place)
    event = QWheelEvent(
        where, QPointF(canvas.mapToGlobal(place)), QPoint(), QPoint(0, 120 * steps), Qt.MouseButton.NoButton, PLAIN,
        Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(canvas, event)


# ---------------------------------------------------------------------- scatter


def test_a_lasso_selects_what_lies_in_it_and_no_more(viewer, scatter, panel, qtbot):
    canvas = scatter.canvas
    corners = [(150, 150), (600, 100), (620, 300), (380, 260), (330, 600), (120, 500)]
    spots = [spot(canvas, x, y) for x, y in corners]
    draw(qtbot, canvas, spots)
    until_idle(qtbot, panel)
    table = nuclei_of(panel)
    places = np.stack(canvas.pixels(table.centroids[:, 1], table.centroids[:, 0]), axis=1)
    drawn = np.array([(place.x(), place.y()) for place in spots], float)
    inside = inside_polygon(places, drawn)
    chosen = np.isin(table.ids, scatter.plots.selected)
    assert 50 < inside.sum() < 400
    # Where the hand went over a point, a pixel decides.
    near = np.array([distance(place, drawn) for place in places]) < 2.5
    assert (chosen == inside)[~near].all()
    assert near.sum() < 40
    assert any(SELECTED in layer.name for layer in viewer.layers)


def distance(place, corners):
    """How far a place lies from a closed line."""
    found = []
    for one, other in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = np.clip(np.dot(place - one, other - one) / np.dot(other - one, other - one), 0, 1)
        found.append(np.hypot(*(place - one - along * (other - one))))
    return min(found)


def test_a_rectangle_adds_with_shift_and_takes_away_with_control(scatter, panel, qtbot):
    canvas = scatter.canvas
    click(qtbot, scatter.form.shapes["rectangle"])
    x, y = nuclei_of(panel).centroids[:, ::-1].T

    def box(x0, y0, x1, y1, modifier=PLAIN):
        draw(qtbot, canvas, [spot(canvas, x0, y0), spot(canvas, x1, y1)], modifier)
        until_idle(qtbot, panel)

    # Between the discs, which lie 32 pixels apart, so that no pixel matters.
    box(2, 2, 320, 320)
    first = (x < 320) & (y < 320)
    assert len(scatter.plots.selected) == first.sum() == 100
    box(640, 2, 704, 64, SHIFT)
    assert len(scatter.plots.selected) == 104
    box(2, 2, 160, 320, CONTROL)
    assert len(scatter.plots.selected) == 54
    qtbot.keyClick(canvas, Qt.Key.Key_A, CONTROL)
    assert len(scatter.plots.selected) == ALL
    click(qtbot, scatter.clear_button)
    assert len(scatter.plots.selected) == 0


def test_a_click_on_a_point_flies_to_its_nucleus_and_beside_points_nothing_happens(viewer, scatter, panel, qtbot):
    canvas, table = scatter.canvas, nuclei_of(panel)
    y, x = table.centroids[300]
    qtbot.mouseClick(canvas, LEFT, pos=spot(canvas, x, y))
    assert scatter.plots.selected.tolist() == [table.ids[300]]
    assert np.array(viewer.scene.camera.center[-2:]) == pytest.approx((y * 0.5, x * 0.5), abs=1)
    until_idle(qtbot, panel)
    assert len(scatter.plots.cloud) == ALL  # the plot stays, though the view has gone near
    assert "nucleus in the plot" in viewer.layers
    row = canvas.row_at(*canvas.pixels(np.array([x]), np.array([y])))
    assert canvas.told(row).startswith(f"Nucleus {table.ids[300]}\nFrom the left, px: ")
    centre = viewer.scene.camera.center
    qtbot.mouseClick(canvas, LEFT, SHIFT, spot(canvas, *table.centroids[10, ::-1]))
    assert len(scatter.plots.selected) == 2
    far = QPoint(round(canvas.area().left()) + 2, round(canvas.area().top()) + 2)
    qtbot.mouseClick(canvas, LEFT, pos=far)
    assert len(scatter.plots.selected) == 2
    assert viewer.scene.camera.center == centre
    scatter.plots.clear()
    assert "nucleus in the plot" not in viewer.layers


def test_selected_points_are_yellow_and_others_step_back(scatter, panel, qtbot):
    canvas, table = scatter.canvas, nuclei_of(panel)
    one, other = table.centroids[100, ::-1], table.centroids[500, ::-1]

    def colour(place):
        picture = canvas.grab().toImage()
        ratio = picture.devicePixelRatio()
        where = spot(canvas, *place)
        return picture.pixelColor(round(where.x() * ratio), round(where.y() * ratio))

    before = colour(other)
    assert before.blue() > 150 > before.red()
    scatter.plots.select(table.ids[100:101])
    yellow, faded = colour(one), colour(other)
    assert (yellow.red() > 200, yellow.green() > 180, yellow.blue() < 60) == (True, True, True)
    assert faded.blue() < before.blue() - 40


def test_a_click_on_the_slide_marks_the_point(viewer, scatter, panel, qtbot):
    table = nuclei_of(panel)
    camera = viewer.scene.camera
    camera.zoom, camera.center = 4.0, tuple(table.centroids[200] * 0.5)
    until_idle(qtbot, panel)
    canvas = viewer.window._qt_viewer.canvas.native
    middle = canvas.rect().center()
    hover(qtbot, canvas, middle)
    qtbot.mouseClick(canvas, LEFT, pos=middle)
    until_idle(qtbot, panel)
    assert scatter.plots.selected.tolist() == [table.ids[200]]
    assert len(scatter.scatter._selected) == 1


# ---------------------------------------------------------------------- the table, and acts


def test_a_selection_is_shown_in_the_table_and_rows_are_selected_in_the_plot(scatter, panel, qtbot):
    canvas = scatter.canvas
    click(qtbot, scatter.form.shapes["rectangle"])
    draw(qtbot, canvas, [spot(canvas, 2, 2), spot(canvas, 320, 320)])
    until_idle(qtbot, panel)
    chosen = scatter.plots.selected
    click(qtbot, scatter.list_button)
    table = panel.docks.widget("Nuclei table")
    qtbot.waitUntil(lambda: table.model.rowCount() == 100, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert sorted(table.nuclei.listing.ids.tolist()) == chosen.tolist()
    assert table.filter.only.isVisible()
    assert table.filter.only.isChecked()
    assert table.filter.count.text() == "100 of 768 nuclei"
    assert scatter.plots.selected.tolist() == chosen.tolist()  # listing them selects nothing else

    # Both docks beside each other, as a person may put them.
    window = panel.window()
    plots_dock, table_dock = panel.docks.frame("Measurements").parent(), panel.docks.frame("Nuclei table").parent()
    window.splitDockWidget(plots_dock, table_dock, Qt.Orientation.Horizontal)
    plots_dock.show()
    qtbot.waitUntil(lambda: scatter.isVisible() and table.isVisible(), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    table.view.selectRow(7)
    assert scatter.plots.selected.tolist() == [table.nuclei.listing.ids[7]]
    table.filter.only.setChecked(False)
    qtbot.waitUntil(lambda: table.model.rowCount() == ALL, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert not table.filter.only.isVisible()


def test_acts_wait_for_correcting_and_change_all_that_is_selected(scatter, panel, qtbot):
    canvas = scatter.canvas
    click(qtbot, scatter.form.shapes["rectangle"])
    draw(qtbot, canvas, [spot(canvas, 2, 2), spot(canvas, 320, 320)])
    until_idle(qtbot, panel)
    assert not scatter.approve_button.isEnabled()
    click(qtbot, panel.panel.correct.toggle)
    until_idle(qtbot, panel)
    assert scatter.approve_button.isEnabled()
    click(qtbot, scatter.approve_button)
    until_idle(qtbot, panel)
    assert nuclei_of(panel).approved.sum() == 100
    scatter.class_menu.aboutToShow.emit()
    first = scatter.class_menu.actions()[0]
    assert first.text().endswith("\t1")
    first.trigger()
    until_idle(qtbot, panel)
    assert (nuclei_of(panel).classes == 1).sum() == 100
    qtbot.keyClick(canvas, Qt.Key.Key_R)
    qtbot.waitUntil(lambda: len(scatter.plots.cloud) == ALL - 100, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert len(scatter.plots.selected) == 0
    click(qtbot, panel.panel.correct.undo_button)
    qtbot.waitUntil(lambda: len(scatter.plots.cloud) == ALL, timeout=WAIT_MS)
    until_idle(qtbot, panel)


def test_a_selection_is_exported_where_the_user_says(dock, panel, qtbot, tmp_path, monkeypatch):
    path = tmp_path / "chosen"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_a, **_k: (str(path), ""))
    drag_range(qtbot, dock.canvas, 100, 400)
    click(qtbot, dock.export_button)
    until_idle(qtbot, panel)
    with path.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        found = [int(row["id"]) for row in csv.DictReader(file)]
    assert found == dock.plots.selected.tolist()
    assert dock.hint.text() == f"{len(found)} nuclei written to chosen.csv."


def test_nuclei_are_coloured_by_what_is_plotted_and_the_ends_are_told(viewer, dock, panel, qtbot):
    click(qtbot, dock.form.coloured)
    until_idle(qtbot, panel)
    assert any(VALUES in layer.name for layer in viewer.layers)
    assert dock.scale.isVisible()
    assert dock.scale.text().startswith("From the left, px: from blue, ")
    click(qtbot, dock.form.coloured)
    until_idle(qtbot, panel)
    assert not any(VALUES in layer.name for layer in viewer.layers)
    assert not dock.scale.isVisible()


# ---------------------------------------------------------------------- life


def test_nothing_is_measured_while_it_is_closed(viewer, dock, panel, qtbot):
    dock.plots.select_all()
    until_idle(qtbot, panel)
    viewer.window.remove_dock_widget(panel.docks.frame("Measurements"))
    until_idle(qtbot, panel)
    assert not any(SELECTED in layer.name for layer in viewer.layers)
    asked = len(dock.plots.engine.asked)
    viewer.scene.camera.center = (100.0, 100.0)
    panel.controller.display.tile_done.emit(Region(0, 0, 64, 64))
    until_idle(qtbot, panel)
    assert len(dock.plots.engine.asked) == asked
    panel.docks.show_plots()
    until_idle(qtbot, panel)
    assert len(dock.plots.engine.asked) > asked
    assert dock.plots.engine.asked[-1] == visible_region(viewer, viewer.layers[0])
    assert any(SELECTED in layer.name for layer in viewer.layers)


def test_nothing_of_it_is_left_when_the_panel_is_closed(viewer, dock, panel, qtbot):
    dock.plots.select_all()
    until_idle(qtbot, panel)
    panel.docks.show_table()  # which lies before it now
    callbacks = len(viewer.mouse_drag_callbacks)
    panel.shutdown()
    assert not dock.plots.is_open
    assert len(viewer.mouse_drag_callbacks) == callbacks - 1
    assert not any(SELECTED in layer.name for layer in viewer.layers)
    dock.plots.refresh()  # a late call does nothing
    assert not dock.plots.is_measuring


def test_it_follows_the_theme(viewer, dock, panel, qtbot):
    shades = []
    for theme in ("dark", "light"):
        viewer.theme = theme
        qtbot.wait(50)
        shades.append(dock.canvas.colour().name())
        picture = dock.canvas.grab().toImage()
        ink = {picture.pixelColor(x, y).lightness() for x in range(picture.width()) for y in range(4)}
        assert (max(ink) < 128) == (theme == "dark")
    assert len(set(shades)) == 2


def test_regions_are_offered_beside_view_and_slide(dock, panel, qtbot):
    titles = [dock.form.source.itemText(place) for place in range(dock.form.source.count())]
    assert titles == ["In view", "Whole slide"]
    dock.form.source.setCurrentIndex(1)
    dock.form.source.activated.emit(1)
    until_idle(qtbot, panel)
    assert dock.plots.wishes.source == "slide"
    assert dock.plots.engine.asked[-1] is None


def test_every_quantity_explains_itself(dock):
    choice = dock.form.across
    for place in range(choice.count()):
        assert choice.itemText(place)
        assert choice.itemData(place, Qt.ItemDataRole.ToolTipRole)
    for button in dock.findChildren(type(dock.list_button)):
        assert button.toolTip(), button.text()
