"""What a pan costs napari beside direct zarr and dask, on a small and a huge slide, without a canvas.

Run ``python benchmarks/panning.py [--rounds 3] [--pans 24]``. napari's own image layer is told of views of 1,000 x
1,600 px at scripted places, as its canvas tells it, and cuts them out of the pyramid: small pans, jumps, and zooms
between the levels of the file. All see the same places in turn; what is read once is not read again in a later round.
Pans are means: napari cuts out whole chunks, so that most small pans cost nothing and some cost much. Wall clock, since
it is waiting that counts.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ["NAPARI_CONFIG"] = ""  # the user's settings are neither read nor written

import dask.array as da
import numpy as np
import tifffile
import zarr
from napari.layers import Image

from alias_slide import write_alias_slide
from measuring import record, table, verdict
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.viewer.layers import slide_layer

SIDES = (8_000, 100_000)
VIEW = (1000, 1600)
OURS, ZARR, DASK = "ours", "tifffile + zarr", "dask.from_zarr"
# Slide pixels per screen pixel, just before a coarser level would do.
ZOOMS = (1.9, 2.5, 3.9, 7.5, 15.0)


def layers_of(path):
    """The slide as an image layer: ours, and over zarr without and with dask."""
    slide = open_slide(str(path))
    levels, attributes, _ = slide_layer(slide)
    group = zarr.open(tifffile.imread(path, aszarr=True), mode="r")
    arrays = [group[key] for key in sorted(group.array_keys(), key=int)]
    plain = {"rgb": True, "multiscale": True, "contrast_limits": (0, 255)}
    pixel = slide.mpp_um.y
    return {
        OURS: (Image(levels, **{**attributes, "metadata": {}}), pixel),
        ZARR: (Image(arrays, **plain), 1.0),
        DASK: (Image([da.from_zarr(one) for one in arrays], **plain), 1.0),
    }


def look(layer, pixel, y, x, zoom=1.0):
    """Milliseconds until a layer has cut out the view that begins at (y, x) of level 0."""
    corners = np.array([[y, x], [y + VIEW[0] * zoom, x + VIEW[1] * zoom]]) * pixel
    start = time.perf_counter()
    layer._update_draw(zoom * pixel, corners, VIEW)  # noqa: SLF001 - as the canvas does
    return (time.perf_counter() - start) * 1e3


def measured(path, side, rounds, pans):
    """Milliseconds of pans, jumps and zooms by reader."""
    layers = layers_of(path)
    found = {name: {"pan": [], "jump": [], "zoom": []} for name in layers}
    room = side - 2200 - 60 * pans
    for turn in range(rounds):
        top = int(room * (turn + 1) / (rounds + 1))
        for name, (layer, pixel) in layers.items():
            found[name]["jump"].append(look(layer, pixel, top, top))
            found[name]["pan"] += [look(layer, pixel, top + 40 * step, top + 60 * step) for step in range(1, pans)]
            middle = side // 2 + 512 * turn
            zooms = [zoom for zoom in ZOOMS if VIEW[1] * zoom < side]
            corners = [(max(0, middle - VIEW[0] * zoom // 2), max(0, middle - VIEW[1] * zoom // 2)) for zoom in zooms]
            found[name]["zoom"].append(
                max(look(layer, pixel, y, x, zoom) for zoom, (y, x) in zip(zooms, corners, strict=True))
            )
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pans", type=int, default=24)
    wanted = parser.parse_args()
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES:
            path = write_alias_slide(Path(folder) / f"{side}.svs", side)
            found[side] = measured(path, side, wanted.rounds, wanted.pans)
            for name, times in found[side].items():
                pan = times["pan"]
                rows.append((f"{side:,}", name, f"{np.mean(pan):.1f}", f"{np.percentile(pan, 95):.1f}",
                             f"{np.median(times['jump']):.1f}", f"{np.median(times['zoom']):.0f}"))  # fmt: skip
    header = ("slide, px", "reader", "pan, mean ms", "pan, 95 %", "jump, median", "worst zoom, median")
    table(header, rows, title=f"A view of {VIEW[0]:,} x {VIEW[1]:,} px, {wanted.rounds} rounds of {wanted.pans} pans")
    small, large = (found[side] for side in SIDES)
    pans = {name: np.mean(times["pan"]) for name, times in large.items()}
    good = verdict("pan at 100,000 px, of direct zarr", pans[OURS] / pans[ZARR], 1.0, goal="G9")
    good &= verdict("pan at 100,000 px, of dask.from_zarr", pans[OURS] / pans[DASK], 0.3, goal="G9")
    growth = pans[OURS] / np.mean(small[OURS]["pan"])
    good &= verdict("pan at 100,000 px, of one at 8,000", growth, 1.3, goal="G9")
    good &= verdict("pan, 95 %, ms", np.percentile(large[OURS]["pan"], 95), 33, form="{:.1f}", goal="G9")
    good &= verdict("worst zoom, median ms", np.median(large[OURS]["zoom"]), 100, form="{:.0f}", goal="G9")
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)
