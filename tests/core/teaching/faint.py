"""A network whose doubts are known: dark is surely nucleus, grey perhaps; and tissue with some of both."""

import cv2
import numpy as np
from torch import nn

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.nuclei import TileNuclei

STROMA, SURE, FAINT = (224, 170, 200), (60, 50, 110), (140, 120, 150)
SPEC = ModelSpec(
    name="faint",
    title="Dark is nucleus",
    mpp_um=0.5,
    heads=(HeadSpec("separated", 1, "sigmoid", "Nucleus probability"),),
    decoder="border",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    tile_px=64,
    halo_px=32,
)


class Grey(nn.Module):
    """Half sure at the grey of `FAINT`, more so the darker; counts its forwards."""

    def __init__(self):
        super().__init__()
        self.forwards = 0

    def __deepcopy__(self, _memo):
        return self

    def forward(self, x):
        self.forwards += len(x)
        return {"separated": (0.537 - x.mean(dim=1, keepdim=True)) * 20}


def grey_model():
    return LoadedModel(SPEC, ModelCard("faint", "faint", sha256="e" * 64, min_area_um2=4.0), Grey().eval())


def tissue_with(faint_cells, side_px, cells, *, stroma=STROMA, seed=0):
    """A picture of ``cells x cells`` squares with four nuclei each; those of `faint_cells` are faint."""
    rng = np.random.default_rng(seed)
    picture = np.full((side_px * cells, side_px * cells, 3), stroma, np.float64)
    labels = np.zeros(picture.shape[:2], np.int32)
    step = side_px // 2
    for place in range(cells * cells):
        row, column = divmod(place, cells)
        for quarter in range(4):
            y, x = row * side_px + step // 2 + quarter // 2 * step, column * side_px + step // 2 + quarter % 2 * step
            cv2.circle(labels, (x, y), side_px // 10, place * 4 + quarter + 1, -1)
            cv2.circle(picture, (x, y), side_px // 10, FAINT if place in faint_cells else SURE, -1)
    picture += rng.normal(0, 3, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8), labels


def faint_slide(faint_cells, *, cells=4, side_px=128):
    """A slide in memory at 0.25 um/px, and its nuclei."""
    picture, labels = tissue_with(faint_cells, side_px, cells)
    return Slide("/slides/b.svs", (picture,), (YX(1, 1),), YX(0.25, 0.25), fingerprint="f2"), labels


def one_tile(labels):
    """All nuclei of a label image as one tile's, with boxes and centroids as far as the store needs them."""
    count = int(labels.max())
    whole = Region(0, 0, *labels.shape)
    places = [np.argwhere(labels == number) for number in range(1, count + 1)]
    boxes = [(*pixels.min(0), *(pixels.max(0) + 1)) for pixels in places]
    return TileNuclei(
        0,
        whole,
        whole,
        labels,
        np.array([pixels.mean(0) for pixels in places]),
        np.array([len(pixels) / 16 for pixels in places], np.float32),
        np.array(boxes, np.int64),
        np.ones(count, np.float32),
    )
