"""Somebody else writes to the slide: who that is is said, and their place is taken only when one says so."""

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from gui_parts import WAIT_MS, answer, open_and_settle, until_idle
from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.lock import Holder, Occupant, read_holder
from napari_nucleiseg.core.store.project import LOCK, Project
from napari_nucleiseg.widgets.wording import take_over_text

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def folder(disc_slide, engine):
    """A project with nothing in it yet."""
    slide = open_slide(disc_slide)
    made = engine.project_folder(slide)
    Project.create(made, slide).close()
    return made


@pytest.fixture
def other():
    """A program that runs until it is ended."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def hold(folder, process):
    """Have another program hold the lock, as it would itself."""
    holder = Holder("ada", platform.node(), process.pid, time.time() - 90, "t")
    (folder / LOCK).write_text(json.dumps(asdict(holder)))


def end(process):
    process.kill()
    process.wait()


def press(button, kind, seen):
    def act(box):
        seen.append((box.text(), box.informativeText(), box.defaultButton() is box.button(kind)))
        button.mouseClick(box.button(kind), LEFT)

    return answer(act)


def begin_to_correct(panel, qtbot):
    qtbot.mouseClick(panel.panel.correct.toggle, LEFT)
    qtbot.wait(100)
    until_idle(qtbot, panel)


def test_a_program_that_runs_is_left_alone_unless_one_insists(viewer, panel, disc_slide, folder, other, qtbot):
    hold(folder, other)
    open_and_settle(viewer, panel, disc_slide, qtbot)
    begin_to_correct(panel, qtbot)
    assert not panel.session.editing
    assert "in use by ada" in panel.panel.hint.text()
    button, seen = panel.panel.take_over_button, []
    assert button.isVisible()
    press(qtbot, QMessageBox.StandardButton.No, seen)
    qtbot.mouseClick(button, LEFT)
    until_idle(qtbot, panel)
    ((text, details, is_default),) = seen
    assert f"ada writes to this slide in a program that is running on this machine (process {other.pid})" in text
    assert "since today" in text
    assert "nothing more can be written there" in details
    assert is_default
    assert read_holder(folder / LOCK).pid == other.pid
    assert button.isVisible()
    press(qtbot, QMessageBox.StandardButton.Yes, seen)
    qtbot.mouseClick(button, LEFT)
    qtbot.waitUntil(lambda: panel.session.editing and panel.controller.editing.project is not None, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert not seen[1][2]
    assert read_holder(folder / LOCK).pid == os.getpid()
    assert panel.controller.editing.project.writable
    assert not button.isVisible()
    assert panel.panel.hint.text() == ""


def test_who_lost_the_slide_writes_nothing_more(viewer, panel, disc_slide, folder, qtbot):
    with Project.open(folder) as theirs:
        open_and_settle(viewer, panel, disc_slide, qtbot)
        begin_to_correct(panel, qtbot)
        seen = []
        press(qtbot, QMessageBox.StandardButton.Yes, seen)
        qtbot.mouseClick(panel.panel.take_over_button, LEFT)
        qtbot.waitUntil(lambda: panel.session.editing, timeout=WAIT_MS)
        until_idle(qtbot, panel)
        assert seen[0][0].startswith("Another window of this program writes to this slide, since today")
        with pytest.raises(StoreError, match="was taken over by"), theirs.changing():
            pass
        theirs._closed = True  # its lock is not its own any more, which closing would say as well
        theirs.ledger.close()


def test_the_place_of_a_program_that_ended_is_taken_without_asking(viewer, panel, disc_slide, folder, other, qtbot):
    hold(folder, other)
    open_and_settle(viewer, panel, disc_slide, qtbot)
    end(other)
    begin_to_correct(panel, qtbot)
    assert panel.session.editing
    assert panel.controller.editing.project.writable
    assert read_holder(folder / LOCK).pid == os.getpid()


def test_what_was_to_be_segmented_is_segmented_after_taking_over(viewer, panel, disc_slide, folder, other, qtbot):
    hold(folder, other)
    open_and_settle(viewer, panel, disc_slide, qtbot)
    qtbot.mouseClick(panel.panel.view_button, LEFT)
    until_idle(qtbot, panel)
    end(other)
    seen = []
    press(qtbot, QMessageBox.StandardButton.Yes, seen)
    qtbot.mouseClick(panel.panel.take_over_button, LEFT)
    qtbot.waitUntil(lambda: panel.panel.count.text() == "768", timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert seen[0][0].endswith("has ended.")
    assert seen[0][2]


def test_another_machine_is_judged_by_its_last_sign_of_life():
    holder = Holder("ada", "elsewhere", 7, time.time() - 3600, "t")
    text, _ = take_over_text(Occupant(holder, False, False, False, 12.0))
    assert text.startswith("ada writes to this slide on elsewhere, whose last sign of life was 12 s ago, since ")
    text, _ = take_over_text(Occupant(holder, False, False, True, 1260.0))
    assert text == "The program of ada on elsewhere gave no sign of life for 21 minutes."
    assert "Nobody" in take_over_text(None)[0]
