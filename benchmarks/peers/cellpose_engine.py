"""Cellpose's distributed_eval with the stand-in as its model, one worker in this process: labels in a zarr, boxes.

It takes no slide but a zarr of one channel, which is made beforehand and not counted.
"""

import contextlib
import io
import warnings

import numpy as np
import stand_in
import tifffile
import zarr
from cpu_torchvision import declare_operators

declare_operators()

import cellpose.models  # noqa: E402
from cellpose.contrib.distributed_segmentation import distributed_eval  # noqa: E402

DIAMETER_PX = 30


class Dark:
    """Labels of dark pieces, as a model of Cellpose returns them."""

    def __init__(self, level):
        self.level = level

    def eval(self, grey, **_):
        with stand_in.inside():
            return stand_in.pieces(stand_in.darkness(grey[..., None]) > self.level)[:1]


def grey_zarr(path, folder):
    pixels = zarr.open(tifffile.imread(path, aszarr=True, level=0), mode="r")
    height, width = pixels.shape[:2]
    side = 1024
    grey = zarr.open(str(folder / "grey.zarr"), mode="w", shape=(height, width), chunks=(side, side), dtype=np.uint8)
    for y in range(0, height, side):
        for x in range(0, width, side):
            grey[y : y + side, x : x + side] = np.rint(pixels[y : y + side, x : x + side].mean(-1))
    return grey


def run(grey, folder, job):
    warnings.simplefilter("ignore")
    cellpose.models.CellposeModel = lambda **_: Dark(job["level"])
    workers = {
        "n_workers": 1, "ncpus": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None,
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        _, boxes = distributed_eval(
            input_zarr=grey, blocksize=(job["tile_px"],) * 2, write_path=str(folder / "out.zarr"), model_kwargs={},
            eval_kwargs={"diameter": DIAMETER_PX}, cluster_kwargs=workers, temporary_directory=str(folder),
        )  # fmt: skip
    return len(boxes)


if __name__ == "__main__":
    stand_in.measure(run, prepare=grey_zarr)
