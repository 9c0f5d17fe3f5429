"""Pictures of two kinds of tissue and a masked autoencoder that takes a second."""

import cv2
import numpy as np
import pytest
import tifffile
import torch

from napari_nucleiseg.core.training.mae.config import MaeConfig
from napari_nucleiseg.core.training.scales.config import SlideSet


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """One thread, so that sums come out the same."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stripes(tmp_path_factory):
    """Folder of four pictures with wide bars of nuclei on pink, which tell what lies between two tokens."""
    folder = tmp_path_factory.mktemp("stripes")
    for number in range(4):
        rng = np.random.default_rng(number)
        image = np.full((160, 160, 3), (230, 165, 200), np.uint8)
        for offset in range(-160, 320, 24):
            cv2.line(image, (offset, 0), (offset + 160 * (number % 2), 160), (95, 55, 140), 9)
        noisy = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
        tifffile.imwrite(folder / f"p{number}.tif", noisy, photometric="rgb")
    return folder


@pytest.fixture
def config(stripes, tmp_path):
    """Four steps of the smallest networks."""
    return MaeConfig(
        out=str(tmp_path / "run"),
        params={"embed": 16, "depth": 2, "heads": 2, "input_px": 48, "patch_px": 8, "mpp_um": 0.5},
        slides=(SlideSet(str(stripes), 0.5, licence="CC0-1.0", name="stripes"),),
        hold_out=0.25,
        patches=40,
        view_px=32,
        decoder_embed=16,
        decoder_depth=1,
        decoder_heads=2,
        batch_size=8,
        steps=4,
        learning_rate=256 / 8 * 1e-3,
        measure_every=2,
        measured=8,
        checkpoint_seconds=0.0,
        device="cpu",
        threads=1,
    )
