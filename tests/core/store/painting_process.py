"""Paints attention until it is killed; says the number of each stroke when it is done.

Stroke n of a seed is the same in every process, so that whoever kills this knows what must be there.
"""

import os
import sys

import numpy as np
from fields import blank_slide

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.attention import paint_attention
from napari_nucleiseg.core.store.project import Project

SHAPE = (900, 1100)
SLIDE = blank_slide(*SHAPE)


def stroke(seed, number):
    """Return what stroke `number` does: ``undo``, ``redo`` or ``paint``, where and with what."""
    rng = np.random.default_rng((seed, number))
    kind = ("paint", "paint", "paint", "undo", "redo")[rng.integers(5)]
    height, width = (int(side) for side in rng.integers(1, 400, 2))
    y, x = int(rng.integers(SHAPE[0] - height + 1)), int(rng.integers(SHAPE[1] - width + 1))
    return kind, Region(y, x, height, width), int(rng.integers(3))


def act(project, seed, number):
    """Do stroke `number`."""
    kind, region, value = stroke(seed, number)
    if kind == "paint":
        paint_attention(project, region, np.full((region.height, region.width), value, np.uint8))
    else:
        getattr(project.editor, kind)()


class Plain:
    """What must come out: the same on one array, with the whole of it kept for every undo."""

    def __init__(self):
        self.now = np.zeros(SHAPE, np.uint8)
        self.done, self.undone = [], []

    def act(self, seed, number):
        kind, region, value = stroke(seed, number)
        if kind != "paint":
            origin, target = (self.done, self.undone) if kind == "undo" else (self.undone, self.done)
            if origin:
                target.append(self.now)
                self.now = origin.pop()
            return
        after = self.now.copy()
        after[region.slices] = value
        if not np.array_equal(after, self.now):
            self.done.append(self.now)
            self.undone = []
            self.now = after


if __name__ == "__main__":
    folder, seed, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with Project.open(folder, SLIDE, take_over=True) as project:
        while True:
            act(project, seed, number)
            os.write(1, f"{number}\n".encode())
            number += 1
