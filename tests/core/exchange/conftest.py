"""A field of nuclei with the cases that trip exporters: touching, cut by the rim, holed, in two parts, huge ids."""

import cv2
import numpy as np
import pytest

from napari_nucleiseg.core.exchange.source import source_of_labels
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.project import Project


@pytest.fixture(scope="session")
def labels():
    rng = np.random.default_rng(5)
    image = np.zeros((700, 900), np.int64)
    for k in range(1, 160):
        y, x = int(rng.integers(0, 700)), int(rng.integers(0, 900))
        axes = int(rng.integers(4, 14)), int(rng.integers(4, 14))
        mask = cv2.ellipse(np.zeros(image.shape, np.uint8), (x, y), axes, int(rng.integers(180)), 0, 360, 1, -1)
        image[mask.astype(bool)] = k * 16384 + 3
    image[100:110, 100:110] = 2**31 + 7  # a person's
    image[103:106, 103:106] = 0
    image[200:205, 300:305] = 5
    image[205:209, 305:309] = 5  # touches the rest of 5 at a corner only
    image[400:404, 10:14] = 9
    image[420:424, 10:14] = 9  # a second part
    image[0, 0] = 11  # a single pixel in the corner
    return image


@pytest.fixture
def source(labels):
    return source_of_labels(labels, YX(0.5, 0.25), name="field", origin="nuclei@123")


class NoPixels:
    """A level that has a size and nothing else."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, height, width):
        self.shape = (height, width, 3)


@pytest.fixture
def fresh_project(tmp_path):
    """Return a function that makes the empty project of a slide of some size."""
    opened = []

    def make(shape=(700, 900), name="p"):
        slide = Slide(f"/slides/{name}.svs", (NoPixels(*shape),), (YX(1, 1),), YX(0.5, 0.25), fingerprint="slide")
        opened.append(Project.create(tmp_path / f"{name}.nucleiseg", slide))
        return opened[-1]

    yield make
    for project in opened:
        project.close()


@pytest.fixture
def project(fresh_project):
    return fresh_project()
