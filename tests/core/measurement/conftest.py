"""Label images with the cases that trip a measure, and projects of slides that lie in memory."""

import numpy as np
import pytest
from measured_parts import blobs, tile_of_labels

from napari_nucleiseg.core.store.project import Project


@pytest.fixture(scope="session")
def field():
    """Blobs, and: a hole, two parts, a corner that touches, a line, a single pixel in the corner of the image."""
    image = blobs((300, 400), 90)
    image[100:110, 100:110] = 200
    image[103:106, 103:106] = 0
    image[200:205, 300:305], image[205:209, 305:309] = 201, 201
    image[20:24, 10:14], image[40:44, 10:14] = 202, 202
    image[250, 50:80] = 203
    image[0, :3] = 0
    image[0, 0] = 204
    return image


@pytest.fixture(scope="session")
def picture():
    """Noise of all colours, as large as `field`."""
    return np.random.default_rng(1).integers(0, 256, (300, 400, 3)).astype(np.uint8)


@pytest.fixture
def project_of(tmp_path):
    """Return a function that makes the project of a slide with the nuclei of a label image."""
    opened = []

    def make(slide, labels, name="p"):
        project = Project.create(tmp_path / f"{name}.nucleiseg", slide)
        opened.append(project)
        project.write_tile(tile_of_labels(labels, slide.mpp_um), "nuclei@1", "")
        return project

    yield make
    for project in opened:
        project.close()
