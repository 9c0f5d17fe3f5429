"""COCO annotations: one slide as one image, one annotation a nucleus; written as a stream."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.exchange.outlines import Outlines, trace
from napari_nucleiseg.core.exchange.source import LabelSource, NucleiBlock, Progress, iterate_blocks, no_progress
from napari_nucleiseg.core.exchange.whole_file import whole_file

IMAGE_ID = 1


def write_coco(source: LabelSource, path: str | os.PathLike[str], *, on_progress: Progress = no_progress) -> int:
    """Write all nuclei in COCO's format for instances.

    Outlines are polygons along pixel edges, in level-0 pixels; a nucleus with holes, which COCO's polygons cannot have,
    is run-length encoded. A nucleus without class has the category 0, ``nucleus``.

    Parameters
    ----------
    source : LabelSource
        Nuclei; read block by block.
    path : path
        File to write; replaced only when the export is complete.
    on_progress : callable
        Called with blocks done and in all.

    Returns
    -------
    int
        Number of nuclei written.

    Raises
    ------
    ExportError
        If the file cannot be written.
    """
    height, width = source.region.height, source.region.width
    image = {"id": IMAGE_ID, "file_name": source.name, "width": width, "height": height}
    categories = [{"id": 0, "name": "nucleus", "supercategory": "nucleus"}]
    categories += [{"id": n, "name": found.name, "supercategory": "nucleus"} for n, found in source.classes.items()]
    count = 0
    with whole_file(path) as file:
        file.write(f'{{"images":[{_json(image)}],"categories":{_json(categories)},"annotations":[')
        for block in iterate_blocks(source, on_progress):
            for annotation in _annotations(block, (height, width)):
                file.write(",\n" if count else "\n")
                file.write(_json(annotation))
                count += 1
        file.write("\n]}\n")
    return count


def _annotations(block: NucleiBlock, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    corner = block.region.y, block.region.x
    table = block.table
    outlines = trace(block.labels, table.ids, block.boxes - np.tile(corner, 2), corner)
    for row, polygons in outlines.polygons():
        nucleus = int(table.ids[row])
        y0, x0, y1, x1 = block.boxes[row].tolist()
        mask = block.labels[y0 - corner[0] : y1 - corner[0], x0 - corner[1] : x1 - corner[1]] == nucleus
        holed = any(len(polygon) > 1 for polygon in polygons)
        score = float(table.scores[row])
        yield {
            "id": nucleus,
            "image_id": IMAGE_ID,
            "category_id": int(table.classes[row]),
            "segmentation": _run_lengths(mask, (y0, x0), size) if holed else _polygons(outlines, polygons),
            "area": int(np.count_nonzero(mask)),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
            **({"score": round(score, 4)} if math.isfinite(score) else {}),
        }


def _polygons(outlines: Outlines, polygons: list[list[int]]) -> list[list[int]]:
    return [outlines.ring(polygon[0]).ravel().tolist() for polygon in polygons]


def _run_lengths(mask: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """Return lengths of runs outside and inside by turns, column after column of the whole image."""
    xs, ys = np.nonzero(mask.T)
    places = (xs + corner[1]) * size[0] + ys + corner[0]
    begins = places[np.diff(places, prepend=-2) != 1]
    ends = places[np.diff(places, append=-2) != 1] + 1
    edges = np.stack([begins, ends], axis=1).ravel()
    counts = np.diff(edges, prepend=0, append=size[0] * size[1]).tolist()
    return {"size": list(size), "counts": counts}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
