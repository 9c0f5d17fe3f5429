"""Plots by themselves: axes, many points, words, and places that mean the same to the mouse and to the eye."""

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QApplication

from gui_parts import hover
from napari_nucleiseg.viewer.plot_data import Cloud, summary_of
from napari_nucleiseg.viewer.plot_raster import MOST_DOTS
from napari_nucleiseg.widgets.plot_canvas import PlotCanvas, Window, _numbers
from napari_nucleiseg.widgets.plot_histogram import HistogramCanvas
from napari_nucleiseg.widgets.plot_key import key_of
from napari_nucleiseg.widgets.plot_scatter import ScatterCanvas
from napari_nucleiseg.widgets.plot_words import number_text, selected_text, summary_text


def cloud_of(across, up, classes=None):
    count = len(across)
    numbers = np.zeros(count, np.int32) if classes is None else np.array(classes, np.int32)
    values = {"across": np.array(across, np.float32), "up": np.array(up, np.float32)}
    return Cloud(
        np.arange(1, count + 1, dtype=np.uint32), np.zeros((count, 2)), np.zeros((count, 4), int), numbers, values
    )


@pytest.fixture
def scatter(qtbot):
    made = ScatterCanvas()
    qtbot.addWidget(made)
    made.resize(500, 300)
    made.show()
    return made


def pixel(canvas, place):
    picture = canvas.grab().toImage()
    return picture.pixelColor(place * picture.devicePixelRatio())


def test_places_and_values_are_each_others_inverse(qtbot):
    canvas = PlotCanvas("test")
    qtbot.addWidget(canvas)
    canvas.resize(640, 333)
    canvas.all = Window(-3.0, 7.0, 100.0, 400.0)
    for across, up in ((-3.0, 100.0), (7.0, 400.0), (1.25, 333.0)):
        x, y = canvas.pixels(np.array([across]), np.array([up]))
        assert canvas.values(QPointF(x[0], y[0])) == pytest.approx((across, up))
        assert canvas.area().adjusted(-1, -1, 1, 1).contains(QPointF(x[0], y[0]))


def test_very_many_points_are_density_and_a_few_are_dots(scatter):
    rng = np.random.default_rng(0)
    middle = scatter.area().center().toPoint()
    for count, opaque in ((MOST_DOTS // 10, True), (MOST_DOTS * 2, False)):
        # Most lie at the rims, one in the middle.
        rims = rng.choice([0.0, 2.0], count - 1)
        scatter.show_cloud(cloud_of([*rims, 1.0], [*rims, 1.0]), "across", "up", {})
        seen, paper = pixel(scatter, middle), pixel(scatter, middle + QPoint(30, 0))
        shade = scatter.colour()
        share = (seen.blue() - paper.blue()) / (shade.blue() - paper.blue())
        assert (share > 0.8) == opaque, (count, share)
        assert share > 0.15


def test_what_has_no_value_is_not_drawn_and_not_hit(scatter):
    scatter.show_cloud(cloud_of([0, 1, np.nan], [0, 1, 0.5]), "across", "up", {})
    x, y = scatter.pixels(np.array([1.0]), np.array([1.0]))
    assert scatter.row_at(x[0], y[0]) == 1
    assert scatter.row_at(scatter.area().center().x(), scatter.area().center().y()) is None
    scatter.select(np.array([1, 3], np.uint32))
    scatter.grab()


def test_classes_have_their_colours_and_names(scatter):
    names = {2: ("Tumour", "#ff0000"), 3: ("Stroma", "")}
    scatter.show_cloud(cloud_of([0, 1, 2], [0, 1, 2], [2, 0, 3]), "across", "up", names)
    x, y = scatter.pixels(np.array([0.0]), np.array([0.0]))
    seen = pixel(scatter, QPoint(round(x[0]), round(y[0])))
    assert seen.red() > 180
    assert seen.green() < 90
    assert [name for name, _ in scatter.key()] == ["Tumour", "Stroma", "No class"]
    assert key_of([0], names, scatter.colour()) == []
    assert key_of([7], {}, scatter.colour())[0][0] == "Class 7"
    assert scatter.told(0).startswith("Nucleus 1, Tumour")


def test_an_empty_plot_says_so_and_takes_no_mouse(scatter, qtbot):
    scatter.empty = "Nothing yet."
    told = []
    scatter.clicked.connect(lambda *what: told.append(what))
    qtbot.mouseClick(scatter, Qt.MouseButton.LeftButton, pos=QPoint(200, 100))
    assert told == []
    scatter.empty = ""
    qtbot.mouseClick(scatter, Qt.MouseButton.LeftButton, pos=QPoint(200, 100))
    assert told == [(200.0, 100.0, "new")]


def test_escape_drops_a_line_that_is_being_drawn_and_only_then_the_selection(scatter, qtbot):
    keys, fences = [], []
    scatter.key_pressed.connect(keys.append)
    scatter.fenced.connect(lambda *what: fences.append(what))
    qtbot.mousePress(scatter, Qt.MouseButton.LeftButton, pos=QPoint(200, 100))
    hover(qtbot, scatter, QPoint(260, 140))
    qtbot.keyClick(scatter, Qt.Key.Key_Escape)
    qtbot.mouseRelease(scatter, Qt.MouseButton.LeftButton, pos=QPoint(260, 140))
    assert keys == fences == []
    qtbot.keyClick(scatter, Qt.Key.Key_Escape)
    assert keys == ["Escape"]


def test_the_right_button_moves_the_plot(scatter, qtbot):
    scatter.show_cloud(cloud_of([0, 10], [0, 10]), "across", "up", {})
    before = scatter.window_seen
    qtbot.mousePress(scatter, Qt.MouseButton.RightButton, pos=QPoint(200, 100))
    hover(qtbot, scatter, QPoint(243, 100))
    qtbot.mouseRelease(scatter, Qt.MouseButton.RightButton, pos=QPoint(243, 100))
    after = scatter.window_seen
    moved = 43 / scatter.area().width() * (before.right - before.left)
    assert before.left - after.left == pytest.approx(moved)
    assert (after.low, after.high) == pytest.approx((before.low, before.high))


def test_other_quantities_are_seen_whole(scatter):
    cloud = cloud_of([0, 10], [0, 10])
    scatter.show_cloud(cloud, "across", "up", {})
    scatter.look(Window(0, 1, 0, 1))
    scatter.show_cloud(cloud, "across", "up", {})
    assert scatter.is_near  # the same nuclei measured anew
    scatter.show_cloud(cloud, "up", "across", {})
    assert not scatter.is_near


def test_marked_parts_of_bars_hold_what_is_selected(qtbot):
    canvas = HistogramCanvas()
    qtbot.addWidget(canvas)
    canvas.resize(500, 300)
    values = np.random.default_rng(0).normal(size=400)
    canvas.show_cloud(cloud_of(values, values), "across", {})
    canvas.select(np.arange(1, 101, dtype=np.uint32))
    canvas.grab()
    assert canvas._marked.sum() == 100
    assert (canvas._marked <= canvas.histogram.counts.sum(axis=0)).all()


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.0, 0.5, 1.0], ["0.0", "0.5", "1.0"]),
        ([0.0, 20.0, 40.0], ["0", "20", "40"]),
        ([0.02, 0.04], ["0.02", "0.04"]),
        ([0.0, 5000.0], ["0", "5,000"]),
        ([0.0, 2e6], ["0", "2e+06"]),
        ([-0.0, 1.0], ["0", "1"]),
        ([3.0], ["3"]),
    ],
)
def test_numbers_have_the_digits_that_tell_them_apart(values, texts):
    assert _numbers(np.array(values)) == texts


def test_words():
    summary = summary_of(np.array([1, 2, 3, 4, np.nan], np.float32))
    text = summary_text("Area, µm²", summary)
    assert text.startswith("<b>Area, µm²</b>, 4 nuclei<br>median 2.50, middle half 1.75 to 3.25<br>mean 2.50 ± 1.12")
    assert text.endswith("1 without a value")
    assert "not measured" in summary_text("Area, µm²", None)
    assert [number_text(value) for value in (0, 0.0341, 28, 99.96, 1234.5)] == ["0", "0.0341", "28.0", "100", "1,234"]
    assert selected_text(5, 5) == "5 selected."
    assert selected_text(5, 2) == "5 selected, 2 of them plotted."


def test_only_digits_of_numbers_act_on_the_selection(scatter):
    keys = []
    scatter.key_pressed.connect(keys.append)
    for text in ("7", "²"):  # French keyboards have a key for it
        QApplication.sendEvent(scatter, QKeyEvent(QEvent.Type.KeyPress, 0, Qt.KeyboardModifier.NoModifier, text))
    assert keys == ["7"]
