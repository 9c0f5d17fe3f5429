"""Pictures and a small scan of dark discs, and a network that finds them."""

import pytest
import tifffile
import torch

from dark_model import CARD, SPEC, Dark, disc_picture
from napari_nucleiseg.core.models.weights import LoadedModel


@pytest.fixture
def network():
    return Dark().eval()


@pytest.fixture
def _dark_model(monkeypatch, network):
    """Whatever model is asked for, it is the one that calls dark pixels nuclei."""
    torch.set_num_threads(1)
    monkeypatch.setattr(
        "napari_nucleiseg.core.batch.segmentation.load_model",
        lambda _name, accept_licence: LoadedModel(SPEC, CARD, network),
    )


@pytest.fixture(scope="session")
def picture():
    return disc_picture((192, 256))


@pytest.fixture
def write_scan():
    """Write a picture as an Aperio SVS would be."""

    def write(path, image, mpp_um=0.5):
        height, width = image.shape[:2]
        facts = f"Aperio Image Library v1\r\n{width}x{height} |AppMag = 20|MPP = {mpp_um}"
        tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", description=facts, metadata=None)

    return write
