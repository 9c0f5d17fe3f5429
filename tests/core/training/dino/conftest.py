"""Pictures of two kinds of tissue and a run that takes a second."""

import cv2
import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.scales.config import SlideSet


def two_tissues(seed, side=192):
    """Purple nuclei: many small ones on pink, or few large ones on lilac."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), ((230, 150, 190), (190, 175, 225))[seed % 2], np.float32)
    radius, count = ((4, 160), (14, 16))[seed % 2]
    for y, x in rng.integers(0, side, (count, 2)):
        cv2.circle(image, (int(x), int(y)), radius, (95, 55, 140), -1)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 1) + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def two_kinds(tmp_path_factory):
    """Folder of four pictures, two of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    for number in range(4):
        tifffile.imwrite(folder / f"p{number}.tif", two_tissues(number), photometric="rgb")
    return folder


@pytest.fixture
def config(two_kinds, tmp_path):
    """Four steps of the smallest networks."""
    return DinoConfig(
        out=str(tmp_path / "run"),
        params={"embed": 16, "depth": 2, "heads": 2, "input_px": 48, "patch_px": 8, "mpp_um": 0.5},
        slides=(SlideSet(str(two_kinds), 0.5, licence="CC0-1.0", name="discs"),),
        hold_out=0.25,
        patches=40,
        global_px=32,
        local_px=16,
        local_crops=2,
        head_hidden=16,
        head_bottleneck=8,
        prototypes=32,
        batch_size=4,
        steps=4,
        measure_every=2,
        measured=4,
        checkpoint_seconds=0.0,
        device="cpu",
        threads=1,
    )
