"""Pictures of tissue and a run that takes a second."""

import cv2
import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.training.scales.config import ScaleConfig, SlideSet

MPP_UM = 0.25


def tissue_picture(seed, side=288):
    """Purple nuclei of 7 um on pink fibres."""
    rng = np.random.default_rng(seed)
    fibres = cv2.GaussianBlur(rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), sigmaX=6, sigmaY=1.5)
    image = np.array((225, 170, 205), np.float32) + (fibres * 60)[..., None]
    for _ in range(45):
        y, x = rng.integers(0, side, 2)
        cv2.circle(image, (int(x), int(y)), 13, (95, 55, 140), -1)
    image = cv2.GaussianBlur(image, (0, 0), 1) + rng.normal(0, 5, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def tissue(tmp_path_factory):
    """Folder of four pictures."""
    folder = tmp_path_factory.mktemp("tissue")
    for number in range(4):
        tifffile.imwrite(folder / f"p{number}.tif", tissue_picture(number), photometric="rgb")
    return folder


@pytest.fixture
def config(tissue, tmp_path):
    """Eight steps of the smallest networks."""
    return ScaleConfig(
        out=str(tmp_path / "run"),
        network="scale-attention-fast",
        params={"width": 2},
        slides=(SlideSet(str(tissue), MPP_UM, licence="CC0-1.0", name="discs"),),
        hold_out=0.25,
        crop_px=32,
        batch_size=3,
        steps=8,
        learning_rate=1e-3,
        classifier_width=2,
        validate_every=4,
        validation_crops=2,
        checkpoint_every=2,
        settled_tau=False,
        device="cpu",
        threads=1,
    )
