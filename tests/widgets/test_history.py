"""A person looks at what was done on the slide, goes to the place of a step, and back to an earlier state."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from psygnal import Signal
from qtpy.QtCore import Qt

from gui_parts import WAIT_MS, click, open_and_settle, until_idle
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.journal import Step
from napari_nucleiseg.widgets.history_list import HistoryList
from napari_nucleiseg.widgets.wording import step_text, when_text

LEFT = Qt.MouseButton.LeftButton
EVERYTHING = Region(0, 0, 768, 1024)


@pytest.fixture
def history(viewer, panel, disc_slide, qtbot):
    """The history beside the panel, on a slide that is segmented and can be corrected."""
    open_and_settle(viewer, panel, disc_slide, qtbot)
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    click(qtbot, panel.panel.correct.toggle)
    click(qtbot, panel.panel.correct.history_button)
    until_idle(qtbot, panel)
    return panel.docks.widget("History")


def do_three_things(panel, history, qtbot):
    editing = panel.controller.editing
    ids = editing.project.nuclei_in(EVERYTHING).ids
    editing.approve(ids[:2].tolist())
    editing.delete([int(ids[-1])])
    editing.classify([int(ids[5])], 2)
    qtbot.waitUntil(lambda: len(rows(history)) == 3, timeout=WAIT_MS)
    until_idle(qtbot, panel)


def rows(history):
    model = history.model
    return [
        tuple(model.data(model.index(row, column)) for column in range(model.columnCount()))
        for row in range(model.rowCount())
    ]


def what(history):
    return [row[0] for row in rows(history)]


def press_row(qtbot, history, row, press="mouseClick"):
    place = history.view.visualRect(history.model.index(row, 0)).center()
    getattr(qtbot, press)(history.view.viewport(), LEFT, pos=place)


def test_it_says_what_where_when_and_who(history, panel, qtbot):
    assert history.nothing.isVisible()
    do_three_things(panel, history, qtbot)
    assert what(history) == ["Gave a class to 1 nucleus", "Deleted 1 nucleus", "Approved 2 nuclei"]
    _, where, when, who = rows(history)[1]
    y, x = (float(part) for part in (768 - 16, 1024 - 16))
    assert where == f"{x / 2:,.0f}, {y / 2:,.0f} µm"
    assert when.startswith("today ")
    assert who == panel.controller.editing.project.editor.person
    assert not history.nothing.isVisible()
    assert history.view.horizontalHeader().defaultAlignment() & Qt.AlignmentFlag.AlignLeft


def test_a_name_given_in_the_preferences_stands_there(history, panel, qtbot):
    panel.session.editing = False
    panel.session.person = "Ada Lovelace"
    panel.session.editing = True
    until_idle(qtbot, panel)
    do_three_things(panel, history, qtbot)
    assert {row[3] for row in rows(history)} == {"Ada Lovelace"}


def test_a_click_goes_to_the_place(viewer, history, panel, qtbot):
    do_three_things(panel, history, qtbot)
    press_row(qtbot, history, 1)
    until_idle(qtbot, panel)
    assert np.array(viewer.scene.camera.center[-2:]) == pytest.approx([376, 504], abs=2)


def test_undone_steps_are_grey_and_a_double_click_goes_to_a_state(history, panel, qtbot):
    do_three_things(panel, history, qtbot)
    editing = panel.controller.editing
    before = len(editing.project.nuclei_in(EVERYTHING))
    press_row(qtbot, history, 2)
    press_row(qtbot, history, 2, "mouseDClick")
    qtbot.waitUntil(lambda: len([text for text in what(history) if text.endswith("(undone)")]) == 2, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert len(editing.project.nuclei_in(EVERYTHING)) == before + 1
    model = history.model
    grey = [model.data(model.index(row, 0), Qt.ItemDataRole.ForegroundRole) for row in range(3)]
    assert [colour and colour.name() for colour in grey] == ["#858585", "#858585", None]
    assert model.data(model.index(2, 0), Qt.ItemDataRole.FontRole).bold()
    history.view.selectRow(0)
    click(qtbot, history.jump_button)  # and forward again
    qtbot.waitUntil(lambda: not any(text.endswith("(undone)") for text in what(history)), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert len(editing.project.nuclei_in(EVERYTHING)) == before


def test_older_steps_come_as_one_scrolls(history, panel, qtbot):
    editor = panel.controller.editing.project.editor
    ids = editor._ledger.reader.execute("SELECT id FROM nuclei WHERE state = 0 ORDER BY id").fetchall()
    for (nucleus_id,) in ids[:250]:
        editor.classify([nucleus_id], 1)
    panel.controller.editing.edited.emit()
    qtbot.waitUntil(lambda: history.model.rowCount() == 200, timeout=WAIT_MS)

    def all_come():
        """Scroll to the end, again if the list was made anew meanwhile."""
        history.view.scrollToTop()
        history.view.scrollToBottom()
        return history.model.rowCount() == 250

    qtbot.waitUntil(all_come, timeout=WAIT_MS)
    numbers = [step.number for step in history._history.steps]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == 250


def test_without_correcting_nothing_is_turned(history, panel, qtbot):
    do_three_things(panel, history, qtbot)
    click(qtbot, panel.panel.correct.toggle)
    until_idle(qtbot, panel)
    press_row(qtbot, history, 2)
    assert not history.jump_button.isEnabled()
    assert "Switch on “Correct nuclei”" in history.hint.text()


def test_with_another_pixel_size_nothing_was_done(history, panel, qtbot):
    do_three_things(panel, history, qtbot)
    panel.controller.set_pixel_size(YX(0.25, 0.25))
    until_idle(qtbot, panel)
    assert rows(history) == []


class Told(SimpleNamespace):
    """A history of steps with these numbers, newest first."""

    read = Signal(bool)

    def tell(self, project, *numbers, only_added=False):
        self.project = project
        self.steps = [Step(number, "paint", "Ada", 0.0, None, 1, False) for number in numbers]
        self.read.emit(only_added)


def test_the_step_stays_selected_and_not_its_row(qtbot):
    told = Told(can_change=True, now=0, has_more=False, project="one", steps=[])
    listed = HistoryList(told)
    qtbot.addWidget(listed)
    told.tell("one", 3, 2, 1)
    listed.view.selectRow(1)
    assert listed.selected.number == 2
    told.tell("one", 4, 3, 2, 1)
    assert listed.selected.number == 2
    told.tell("one", 4, 3, 2, 1, 0, only_added=True)
    told.tell("one", 5, 3, 2, 1)
    assert listed.selected.number == 2
    told.tell("another", 3, 2, 1)
    assert listed.selected is None
    assert not listed.jump_button.isEnabled()
    listed.view.selectRow(0)
    told.tell("another", 2, 1)
    assert listed.selected is None


@pytest.mark.parametrize(
    ("kind", "nuclei", "text"),
    [
        ("paint", 1, "Painted 1 nucleus"),
        ("merge", 1234, "Joined 1,234 nuclei"),
        ("change region", 0, "Changed a region"),
        ("something new", 2, "Something new 2 nuclei"),
    ],
)
def test_steps_in_words(kind, nuclei, text):
    assert step_text(Step(1, kind, "Ada", 0.0, None, nuclei, False)) == text


def test_times_in_words():
    now = time.mktime((2026, 3, 5, 12, 0, 0, 0, 0, -1))
    assert when_text(now - 60, now) == "today 11:59:00"
    assert when_text(now - 86_400, now).endswith(" 12:00")
    assert "2025" in when_text(now - 300 * 86_400, now)
