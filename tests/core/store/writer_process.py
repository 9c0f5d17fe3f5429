"""Writes tiles of a random field into a project until it is killed; says each one when it is done."""

import sys

import numpy as np
from fields import Grid, blank_slide, random_tiles

from napari_nucleiseg.core.store import redo as redo_module
from napari_nucleiseg.core.store.chunks import ChunkPyramid
from napari_nucleiseg.core.store.project import Project


def say(what):
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def main():
    folder, seed, options = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    # Small bounds, so that files are written and notes dropped all the time.
    ChunkPyramid.__init__.__kwdefaults__.update(waiting_bytes=4 << 20, kept_bytes=4 << 20)
    redo_module.REDO_BYTES = 50_000
    slide = blank_slide(2000, 2000)
    tiles = random_tiles(ord(options), Grid(slide.shape, 400), n=900)
    project = Project.open_or_create(folder, slide)
    say("open")
    rng = np.random.default_rng(seed)
    while True:
        for index in rng.permutation(len(tiles)):
            project.write_tile(tiles[index], "m", options)
            say(index)
            if rng.random() < 0.2:
                project.flush()


main()
