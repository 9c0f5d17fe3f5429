"""What fails after it was stopped, without a window: it is said, and what runs now is left alone."""

import threading
from types import SimpleNamespace

import pytest

from napari_nucleiseg.core.errors import MissingPixelSizeError
from napari_nucleiseg.viewer.by_text import ByText
from napari_nucleiseg.viewer.comparing import Comparing
from napari_nucleiseg.viewer.like_view import LikeView
from napari_nucleiseg.viewer.like_wishes import COLOUR, LikeWishes
from napari_nucleiseg.viewer.next_region import NextRegion
from napari_nucleiseg.viewer.regions import Regions


class Held:
    """Fails; each call waits for its gate."""

    def __init__(self):
        self.gates, self.begun = (threading.Event(), threading.Event()), (threading.Event(), threading.Event())
        self.calls = 0

    def __call__(self, *_what, **_options):
        call, self.calls = self.calls, self.calls + 1
        self.begun[call].set()
        assert self.gates[call].wait(60), "nobody opened the gate"
        raise MissingPixelSizeError("discs.tif is not there any more")


def comparing(ready, held):
    made = Comparing(ready.controller.teaching, ready.controller.display)
    ready.controller.teaching.engine.versions = held
    return made, lambda: made.begin(SimpleNamespace()), made.stop, made.running_changed


def next_region(ready, held):
    display = ready.controller.display
    made = NextRegion(ready.controller.teaching, Regions(ready.controller.editing, display), display)
    ready.controller.teaching.engine.rank = held
    return made, made.next, made.drop, made.running_changed


def heads(ready, held):
    ready.engine.prepare = held
    return ready.heads, ready.heads.look, ready.heads.stop, ready.heads.progress_changed


def like(ready, held):
    made = LikeView(ready.controller, SimpleNamespace(look=held), LikeWishes(source=COLOUR))
    made.open()
    made.take(ready.controller.display.shelf.now)
    return made, made.refresh, made.stop, made.progress_changed


def by_text(ready, held):
    made = ByText(ready.controller, SimpleNamespace(look=held))
    made.wishes.prompts, made.wishes.clip = "tumour = dark; pale", "tiny"
    return made, made.view, made.stop, made.progress_changed


@pytest.mark.parametrize("make", [comparing, next_region, heads, like, by_text])
def test_a_failure_of_what_was_stopped_is_said_and_what_runs_now_goes_on(ready, make):
    held = Held()
    made, begin, stop, changed = make(ready, held)
    said, ends = [], []
    made.said.connect(lambda hint: said.append(hint.text))
    begin()
    assert held.begun[0].wait(60)
    stop()
    begin()
    changed.connect(lambda value: ends.append(value) if value in (None, False) else None)
    held.gates[0].set()
    ready.pump.run_until(lambda: "discs.tif is not there any more." in said)
    assert held.begun[1].wait(60)
    early = list(ends)
    stop()
    held.gates[1].set()
    ready.settle()
    assert early == []
    assert ready.questions == []
