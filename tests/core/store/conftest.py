"""Projects in temporary folders."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from fields import blank_slide

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.files import encode_chunk
from napari_nucleiseg.core.store.ledger import put_redo
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.core.store.project import Project


@pytest.fixture
def fresh_project(tmp_path):
    """Return a function that gives an empty project on every call."""
    opened = []

    def close_all():
        while opened:
            opened.pop().close()

    def make(slide=None):
        close_all()
        folder = tmp_path / "p.nucleiseg"
        shutil.rmtree(folder, ignore_errors=True)
        opened.append(Project.create(folder, slide or blank_slide()))
        return opened[-1]

    yield make
    close_all()


@pytest.fixture
def draw():
    """Return a function that lets Ada draw a nucleus of some pixels and returns its id."""

    def put(project, pixels, nucleus_id=PERSON_ID_START):
        y0, x0 = pixels.min(0).tolist()
        y1, x1 = (pixels.max(0) + 1).tolist()
        region = Region.from_bounds(y0, x0, y1, x1)
        image = project.labels.read(region)
        image[tuple((pixels - (y0, x0)).T)] = nucleus_id
        y, x = pixels.mean(0)
        with project.changing():
            with project.ledger.transaction() as database:
                cell = int(project.census.cells(np.array([[y, x]]))[0])
                database.execute(
                    "INSERT INTO nuclei VALUES (?, NULL, 'Ada', ?, ?, ?, ?, ?, ?, ?, 1, 0, 1, 0, 0)",
                    (nucleus_id, cell, y, x, y0, x0, y1, x1),
                )
                entry, _ = put_redo(database, region, encode_chunk(image))
            project.labels.apply(region, image, entry)
            project.census.recount([region])
        return nucleus_id

    return put


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MiB that can be filled and made read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can make a small disk")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"cannot make a small disk here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
