"""Lists and lines whose text is longer than the room there is: cut with an ellipsis, whole when opened or told."""

import pytest
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QApplication, QToolTip, QVBoxLayout, QWidget

from napari_nucleiseg.state import BY_SHAPE, METHODS, UnlabelledWishes
from napari_nucleiseg.viewer.by_text_wishes import ByTextWishes
from napari_nucleiseg.widgets.curve import CurveView, CurveWording
from napari_nucleiseg.widgets.form import Choice, TextBox

LONG = "Nuclei by shape, learned from a slide with a long name.svs"


@pytest.fixture
def made(qtbot):
    def choice(title):
        found = Choice(UnlabelledWishes(), "network", {BY_SHAPE: title, METHODS[1]: "Other"})
        qtbot.addWidget(found)
        found.resize(170, 24)
        found.show()
        qtbot.waitExposed(found)
        return found

    return choice


def test_a_long_title_ends_in_an_ellipsis(made):
    shown = made(LONG).grab().toImage()
    # Whatever comes after the cut is not drawn, not even in part.
    assert shown == made(LONG + " and even more of it").grab().toImage()
    cut = [end for end in range(3, len(LONG)) if made(LONG[:end].rstrip() + "…").grab().toImage() == shown]
    assert cut
    short = made("Short").grab().toImage()
    assert short != made("Short…").grab().toImage()


def test_opened_the_list_has_room_for_all_of_it(made, qtbot):
    choice = made(LONG)
    choice.showPopup()
    qtbot.waitUntil(choice.view().isVisible)
    assert choice.view().width() >= choice.fontMetrics().horizontalAdvance(LONG)
    choice.hidePopup()


def test_the_middle_can_be_left_out_and_the_tooltip_tells_all(qtbot):
    choice = Choice(UnlabelledWishes(), "network", {BY_SHAPE: LONG}, Qt.TextElideMode.ElideMiddle)
    qtbot.addWidget(choice)
    choice.resize(170, 24)
    choice.show()
    qtbot.waitExposed(choice)
    start, end = choice.shown_text.split("…")
    assert LONG.startswith(start)
    assert LONG.endswith(end)
    assert min(len(start), len(end)) > 3
    place = choice.rect().center()
    QApplication.sendEvent(choice, QHelpEvent(QEvent.Type.ToolTip, place, choice.mapToGlobal(place)))
    assert QToolTip.text().startswith(f"{LONG}\n")
    assert choice.toolTip() in QToolTip.text()
    QToolTip.hideText()


def test_a_long_line_shows_its_beginning_while_nobody_writes_in_it(qtbot):
    window = QWidget()
    row = QVBoxLayout(window)
    wishes = ByTextWishes()
    line, other = TextBox(wishes, "prompts"), TextBox(wishes, "background")
    row.addWidget(line)
    row.addWidget(other)
    qtbot.addWidget(window)
    window.setFixedWidth(160)
    window.show()
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    bare = other.toolTip()
    other.setFocus()
    wishes.prompts = f"{LONG} & <more>"
    assert line.cursorPosition() == 0
    assert "&amp; &lt;more&gt;" in line.toolTip()
    line.setFocus()
    line.selectAll()
    qtbot.keyClicks(line, LONG)
    assert line.cursorPosition() == len(LONG)  # it shows where one writes
    other.setFocus()
    qtbot.waitUntil(lambda: line.cursorPosition() == 0)
    assert LONG in line.toolTip()
    assert bare
    assert LONG not in other.toolTip()


def test_what_an_empty_curve_says_is_wrapped_where_it_is_narrow(qtbot):
    view = CurveView(
        CurveWording(empty="What comes here is told in a sentence that is longer than the picture is wide")
    )
    qtbot.addWidget(view)
    view.resize(260, 150)
    shown = view.grab().toImage()
    ground = shown.pixelColor(0, 0)
    inked = [x for x in range(shown.width()) for y in range(shown.height()) if shown.pixelColor(x, y) != ground]
    assert inked
    assert min(inked) >= 8
    assert max(inked) < shown.width() - 8
