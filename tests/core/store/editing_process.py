"""Edits, segments or exports until it is killed; says the number of each action when it is done.

Action n of a seed is the same in every process, so that whoever kills this knows what must be there. The process that
is started forks one child a run: a fresh interpreter would take ten times as long as what it is killed for.
"""

import os
import sys

import numpy as np
from fields import Grid, blank_slide, disc, random_tiles

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store import redo as redo_module
from napari_nucleiseg.core.store.chunks import ChunkPyramid
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.core.store.project import Project

SHAPE = (1100, 1100)
GRID = Grid(SHAPE, 220)
SLIDE = blank_slide(*SHAPE)
KINDS = {
    "paint": ("draw", "extend", "erase", "classify", "undo", "undo", "redo"),
    "mixed": ("draw", "extend", "erase", "delete", "approve", "classify", "undo", "redo", "tile", "tile", "flush"),
    # Most of what people take goes back to the models.
    "given back": ("draw", "delete", "approve", "unapprove", "unapprove", "classify", "undo", "redo", "tile", "tile"),
}
_TILES = {}


def small_bounds():
    """Have files written and notes dropped all the time."""
    ChunkPyramid.__init__.__kwdefaults__.update(waiting_bytes=4 << 20, kept_bytes=4 << 20)
    redo_module.REDO_BYTES = 20_000


def tiles_of(seed):
    if seed not in _TILES:
        _TILES[seed] = random_tiles(seed, GRID, n=400)
    return _TILES[seed]


def action(mode, seed, number):
    """Return kind, pixels, their middle and a number below 4 of an action."""
    rng = np.random.default_rng((seed, number))
    kind = KINDS[mode][rng.integers(len(KINDS[mode]))]
    middle = tuple(rng.integers(5, SHAPE[0] - 5, 2).tolist())
    pixels = disc(*middle, rng.integers(2, 40))
    return kind, pixels[((pixels >= 0) & (pixels < SHAPE)).all(1)], middle, int(rng.integers(4))


def parts(project, mode, seed, number):
    """Do one action on a project; what was yielded is durable, and a kill may come between two parts."""
    kind, pixels, middle, choice = action(mode, seed, number)
    editor = project.editor
    under = int(project.labels.read(Region(*middle, 1, 1))[0, 0])
    if kind in {"undo", "redo"}:
        yield from editor.turn_in_parts(back=kind == "undo")
    elif kind == "tile":
        tile = tiles_of(choice % 2)[number % len(GRID)]
        project.write_tile(tile, "m", f"{choice % 2}")
    elif kind == "flush":
        project.flush(settle=bool(choice % 2))
    elif kind == "classify":
        editor.classify([under], choice)
    elif kind == "approve":
        editor.review([under], approved=choice > 0)
    elif kind == "unapprove":
        editor.review([under], approved=False)
    elif kind == "delete":
        region = Region(*middle, 150, 150).intersect(Region(0, 0, *SHAPE))
        yield from editor.delete_in_parts(np.unique(project.labels.read(region)).tolist())
    else:
        y0, x0 = pixels.min(0).tolist()
        region = Region.from_bounds(y0, x0, *(pixels.max(0) + 1).tolist())
        image = project.labels.read(region)
        image[tuple((pixels - (y0, x0)).T)] = {"draw": editor.new_id, "extend": lambda: under, "erase": int}[kind]()
        editor.paint(region, image, kind=kind)
    yield None


class Plain:
    """What must come out of ``paint``: the same on one array, with everything kept for every undo."""

    def __init__(self, image, classes):
        self.now = image, classes
        self.done, self.undone = [], []
        self.next_id = PERSON_ID_START

    def act(self, seed, number):
        kind, pixels, middle, choice = action("paint", seed, number)
        image, classes = self.now
        under = int(image[middle])
        if kind in {"undo", "redo"}:
            origin, target = (self.done, self.undone) if kind == "undo" else (self.undone, self.done)
            if origin:
                target.append(self.now)
                self.now = origin.pop()
        elif kind == "classify":
            if under:
                self._change(image, {**classes, under: choice})
        else:
            new = {"draw": self.next_id, "extend": under, "erase": 0}[kind]
            self.next_id += kind == "draw"
            after = image.copy()
            after[tuple(pixels.T)] = new
            if new not in classes:
                former, counts = np.unique(image[tuple(pixels.T)], return_counts=True)
                classes = {**classes, new: classes.get(int(former[counts.argmax()]), 0)}
            self._change(after, classes)

    def _change(self, image, classes):
        present = set(np.unique(image).tolist()) - {0}
        classes = {key: value for key, value in classes.items() if key in present}
        if classes != self.now[1] or not np.array_equal(image, self.now[0]):
            self.done.append(self.now)
            self.undone = []
            self.now = image, classes


def say(what):
    os.write(1, f"{what}\n".encode())


def export_as(form, project):
    from napari_nucleiseg.core.exchange.formats import export
    from napari_nucleiseg.core.exchange.source import source_of_project

    export(source_of_project(project), project.folder.with_name(f"out.{form}"), form)


def run(mode, folder, seed, number):
    """Act for ever."""
    project = Project.open(folder, SLIDE)
    say("open")
    while True:
        if mode == "export":
            export_as(("geojson", "csv", "tif", "zarr")[number % 4], project)
        else:
            for _ in parts(project, mode, seed, number):
                pass
        say(number)
        number += 1


def serve():
    """Fork a child for every line on stdin, and say when it has ended."""
    small_bounds()
    import napari_nucleiseg.core.exchange.geojson
    import napari_nucleiseg.core.exchange.label_tiff
    import napari_nucleiseg.core.exchange.ome_zarr
    import napari_nucleiseg.core.exchange.table  # noqa: F401  # before the fork, so that children need not

    say("ready")
    for line in sys.stdin:
        mode, folder, seed, number = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            try:
                run(mode, folder, int(seed), int(number))
            except BaseException as error:  # noqa: BLE001  # whatever it is, the one who waits must be told
                say(f"failed {type(error).__name__}: {error}")
            os._exit(1)
        say(f"child {child}")
        os.waitpid(child, 0)
        say("ended")


if __name__ == "__main__":
    serve()
