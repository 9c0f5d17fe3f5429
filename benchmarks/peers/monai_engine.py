"""MONAI's SlidingWindowInferer with the stand-in as its network: probabilities of two classes, in memory; no nuclei.

It takes no slide but an array of all its pixels, which is read beforehand and not counted, as is no file at the end.
Its overlap is the default, a quarter of the window.
"""

import numpy as np
import stand_in
import tifffile
import torch
from monai.inferers import SlidingWindowInferer


class Dark:
    """Two channels: the probability of anything else and that of a nucleus."""

    def __init__(self, level):
        self.level = level

    def __call__(self, windows):
        with stand_in.inside():
            pixels = windows.numpy().transpose(0, 2, 3, 1)
            nuclei = np.stack([stand_in.darkness(one) > self.level for one in pixels])
            return torch.from_numpy(np.stack([~nuclei, nuclei], axis=1).astype(np.float32))


def pixels_of(path, folder):
    """All pixels of a slide as a network takes them: float32 (1, 3, y, x), 0 to 255."""
    del folder
    pixels = tifffile.imread(path, level=0).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def run(pixels, folder, job):
    del folder
    inferer = SlidingWindowInferer(roi_size=(job["tile_px"],) * 2, sw_batch_size=1)
    with torch.inference_mode():
        inferer(pixels, Dark(job["level"]))


if __name__ == "__main__":
    stand_in.measure(run, prepare=pixels_of)
