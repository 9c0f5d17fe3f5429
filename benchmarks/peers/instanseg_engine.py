"""InstanSeg's eval_whole_slide_image with the stand-in as its model: labels of the whole slide, in a zarr."""

import os
import warnings
from pathlib import Path

import numpy as np
import stand_in
import torch
import zarr

# Before it is imported: tqdm reads it once.
os.environ["TQDM_DISABLE"] = "1"

import instanseg.utils.utils
from instanseg.inference_class import InstanSeg


class Dark(torch.nn.Module):
    """Labels of dark pieces, as a model of InstanSeg returns them."""

    cells_and_nuclei = False

    def __init__(self, job):
        super().__init__()
        self.pixel_size = job["mpp_um"]
        self.level = job["level_normalised"]

    def forward(self, pixels, target_segmentation=None):
        del target_segmentation
        with stand_in.inside():
            labels, _ = stand_in.pieces(stand_in.darkness(pixels[0].permute(1, 2, 0).numpy()) > self.level)
            return torch.from_numpy(labels)[None, None]


def run(path, folder, job):
    warnings.simplefilter("ignore")
    # It looks for the parameters of a TorchScript; the stand-in is none.
    instanseg.utils.utils._filter_kwargs = lambda _model, _wanted: {}  # noqa: SLF001
    # It writes beside the slide.
    link = folder / Path(path).name
    link.symlink_to(path)
    engine = InstanSeg(Dark(job), device="cpu", image_reader="tiffslide", verbosity=0)
    engine.eval_whole_slide_image(str(link), pixel_size=job["mpp_um"], tile_size=job["tile_px"])


def nuclei_in(folder):
    (written,) = folder.glob("*.zarr")
    return len(np.unique(zarr.open(str(written), mode="r")[:])) - 1


if __name__ == "__main__":
    stand_in.measure(run, count=nuclei_in)
