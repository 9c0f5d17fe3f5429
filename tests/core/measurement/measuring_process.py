"""Measures a project in small blocks until it is killed; says when the first is kept. Words: folder, slide."""

import sys

from napari_nucleiseg.core.measurement import grid
from napari_nucleiseg.core.measurement.measure import measure
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project

grid.BLOCK_PX = int(sys.argv[3])
slide = open_slide(sys.argv[2])
with Project.open(sys.argv[1], slide, writable=False) as project:
    for block in measure(project, slide):
        sys.stdout.write(f"{block.done}\n")
        sys.stdout.flush()
sys.stdout.write("done\n")
