"""What an hour of work leaves behind, in small: the same round of looking and correcting, again and again."""

import gc
import itertools
import statistics
import threading
from collections import deque

import numpy as np
import psutil
import pytest
from qtpy.QtCore import QCoreApplication, QEvent

from gui_parts import WAIT_MS, open_and_settle, until_idle

# Rounds that fill the caches, and that must leave nothing.
WARM, COUNTED = 3, 4
# Objects of Python: they vary by 350 from look to look, and a layer that somebody still holds has 2,400.
LEFT = 1000
# What grows by every round up to a bound: notes of changes up to some bytes of them, statements up to 128, and the
# cursors of a connection, which forgets those that are gone after every 200.
BOUNDED = ("RedoLog", "_lru_cache_wrapper", "Connection")
PANS = ((200, 260), (420, 700), (560, 400))


class Session:
    """Somebody who does the same again and again, with Follow on and the heatmap shown."""

    def __init__(self, viewer, panel, qtbot):
        self.viewer, self.panel, self.qtbot = viewer, panel, qtbot
        self.editing = panel.controller.editing
        self.number = 0

    def settle(self):
        until_idle(self.qtbot, self.panel)

    def round(self):
        """Look at three places, decode with another threshold, paint, take it back, delete, take that back."""
        for place in PANS:
            self.pan(place)
        self.number += 1
        self.panel.session.threshold = 0.4 if self.number % 2 else 0.6
        self.qtbot.wait(350)  # until nobody moves the slider any more
        self.settle()
        self.paint()
        self.editing.undo()
        self.settle()
        layer = self.editing.window.layer
        self.editing.delete([int(np.unique(np.asarray(layer.data))[-1])])
        self.settle()
        self.editing.undo()
        self.settle()

    def pan(self, place):
        self.viewer.scene.camera.center = tuple(np.asarray(place) * 0.5)  # micrometres
        self.qtbot.wait(30)
        self.settle()

    def paint(self):
        layer = self.editing.window.layer
        layer.mode, layer.brush_size = "paint", 10
        layer.selected_label = self.editing.project.editor.new_id()
        with layer.block_history():
            for step in range(6):
                layer.paint((40 + step, 40), layer.selected_label)
        self.settle()


CONTAINERS = (list, dict, set, deque)


class Census:
    """What there is at one moment: open files, threads, objects of Python, and how many entries each container has."""

    def __init__(self):
        for _ in range(3):
            QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
            gc.collect()
        process = psutil.Process()
        self.files, self.threads = process.num_fds(), threading.active_count()
        objects = gc.get_objects()
        self.objects = len(objects)
        # The collector does not know a dict of numbers, but it knows what has it.
        dicts = (one for owner in objects for one in gc.get_referents(owner) if type(one) is dict)
        self.entries = {id(one): len(one) for one in objects if type(one) in CONTAINERS}
        self.entries |= {id(one): len(one) for one in dicts}


def always_growing(looks):
    """Containers that had more entries at each look than at the one before: who has them, and how many there were."""
    kept = set.intersection(*(set(look.entries) for look in looks))
    lengths = {one: [look.entries[one] for look in looks] for one in kept}
    growing = {one for one, found in lengths.items() if all(now > then for then, now in itertools.pairwise(found))}
    growing.discard(id(looks))
    every = (one for owner in gc.get_objects() for one in (owner, *gc.get_referents(owner)))
    there = {id(one): one for one in every if id(one) in growing and type(one) in CONTAINERS}
    named = {owner_of(one): lengths[number] for number, one in there.items()}
    return {name: found for name, found in named.items() if not any(bound in name for bound in BOUNDED)}


def owner_of(container):
    """Say in which attribute of what a container is, and what was put in last."""
    owners = []
    for holder in gc.get_referrers(container):
        names = [name for name, value in holder.items() if value is container] if isinstance(holder, dict) else []
        whose = [type(one).__qualname__ for one in gc.get_referrers(holder) if getattr(one, "__dict__", None) is holder]
        owners.append(".".join((*(whose or [type(holder).__qualname__])[:1], *map(str, names[:1]))))
    return f"{', '.join(owners)} with {str(list(container)[-2:])[:120]}"


@pytest.fixture
def session(viewer, panel, disc_slide, qtbot):
    open_and_settle(viewer, panel, str(disc_slide), qtbot)
    panel.controller.segment_slide()
    qtbot.wait(100)
    until_idle(qtbot, panel)
    viewer.scene.camera.zoom *= 2
    panel.session.follow = panel.session.editing = True
    panel.session.heatmap = "separated"
    someone = Session(viewer, panel, qtbot)
    qtbot.waitUntil(lambda: someone.editing.window.layer is not None, timeout=WAIT_MS)
    someone.settle()
    return someone


@pytest.mark.slow
def test_rounds_of_work_leave_nothing_behind(session):
    looks = []
    for number in range(WARM + COUNTED):
        session.round()
        if number >= WARM - 1:
            looks.append(Census())
    assert always_growing(looks) == {}
    assert looks[-1].files <= looks[0].files
    assert looks[-1].threads <= looks[0].threads
    first, last = (statistics.median(look.objects for look in part) for part in (looks[:2], looks[-2:]))
    assert last - first < LEFT
