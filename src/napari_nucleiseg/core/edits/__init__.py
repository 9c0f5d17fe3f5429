"""What a person does to nuclei, as pure functions on an instance map: each returns the pixels it changes.

A map is uint32 ``(y, x)``, 0 is background. The pixel in row i and column j has its centre at the point ``(i, j)``, as
in napari. Pixels that touch at a corner hang together. What a person may well do (a line that misses, a point outside)
changes nothing and gives None; an argument without meaning is a ValueError.
"""

from napari_nucleiseg.core.edits.change import Edited, apply, inverse
from napari_nucleiseg.core.edits.cutting import keep_largest_piece, pieces, split, steadied
from napari_nucleiseg.core.edits.drawing import draw_polygon, erase, fill, paint
from napari_nucleiseg.core.edits.joining import merge
from napari_nucleiseg.core.edits.masks import Patch
from napari_nucleiseg.core.edits.proposal import place, propose, resize
from napari_nucleiseg.core.edits.removal import delete, delete_inside
from napari_nucleiseg.core.edits.shape import fill_holes, grow, shrink, smooth

__all__ = [
    "Edited",
    "Patch",
    "apply",
    "delete",
    "delete_inside",
    "draw_polygon",
    "erase",
    "fill",
    "fill_holes",
    "grow",
    "inverse",
    "keep_largest_piece",
    "merge",
    "paint",
    "pieces",
    "place",
    "propose",
    "resize",
    "shrink",
    "smooth",
    "split",
    "steadied",
]
