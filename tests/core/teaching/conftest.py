"""One torch thread, and projects with nuclei on a painted slide."""

import numpy as np
import pytest
from tissue import painted_slide

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.nuclei import TileNuclei
from napari_nucleiseg.core.store.project import Project


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def slide_and_project(tmp_path):
    """A painted slide of 512 px at 0.25 um/px and its project, in which a model found all nuclei."""
    slide, labels = painted_slide()
    project = Project.create(tmp_path / "p.nucleiseg", slide)
    project.write_tile(tile_of(labels), "m@1", "k")
    yield slide, project
    project.close()


def tile_of(labels):
    """All nuclei of a label image as one tile's."""
    ids = np.unique(labels[labels > 0])
    places = [np.argwhere(labels == one) for one in ids]
    whole = Region(0, 0, *labels.shape)
    return TileNuclei(
        0,
        whole,
        whole,
        labels,
        np.array([pixels.mean(0) for pixels in places]),
        np.array([len(pixels) / 16 for pixels in places], np.float32),
        np.array([[*pixels.min(0), *(pixels.max(0) + 1)] for pixels in places]),
        np.full(len(ids), 0.9, np.float32),
    )
