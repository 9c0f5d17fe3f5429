"""Pictures of two kinds of tissue and a warm start that takes a second."""

import cv2
import numpy as np
import pytest
import tifffile
import torch

from napari_nucleiseg.core.training.scales.config import SlideSet
from napari_nucleiseg.core.training.warm.config import WarmConfig
from torchvision_shim import import_timm

PARAMS = {"width": 4, "depth": 2, "widest": 8}


@pytest.fixture(scope="session", autouse=True)
def _libraries():
    """Let lightly and MONAI be imported beside any torch; one thread, so that sums come out the same."""
    import_timm()
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tissue(tmp_path_factory):
    """Folder of four pictures: many small purple discs on pink, or few large ones on lilac."""
    folder = tmp_path_factory.mktemp("tissue")
    for number in range(4):
        rng = np.random.default_rng(number)
        image = np.full((160, 160, 3), ((230, 150, 190), (190, 175, 225))[number % 2], np.uint8)
        radius, count = ((4, 120), (13, 12))[number % 2]
        for y, x in rng.integers(0, 160, (count, 2)):
            cv2.circle(image, (int(x), int(y)), radius, (95, 55, 140), -1)
        noisy = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
        tifffile.imwrite(folder / f"p{number}.tif", noisy, photometric="rgb")
    return folder


@pytest.fixture
def config(tissue, tmp_path):
    """Four steps of a very small network."""
    return WarmConfig(
        out=str(tmp_path / "run"),
        params=PARAMS,
        slides=(SlideSet(str(tissue), 0.5, licence="CC0-1.0", name="discs"),),
        hold_out=0.25,
        patches=40,
        patch_px=48,
        view_px=32,
        hidden=16,
        projection=8,
        memory=24,
        mask_px=8,
        batch_size=8,
        steps=4,
        measure_every=2,
        measured=8,
        checkpoint_seconds=0.0,
        device="cpu",
        threads=1,
    )
