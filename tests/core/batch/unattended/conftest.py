"""Small scans of dark discs and a model that finds them, in this process; and what an undisturbed run makes of them."""

import os

import pytest
import tifffile
import torch

from dark_model import CARD, SPEC, Dark, disc_picture
from napari_nucleiseg.core.batch.engines.here import LocalEngine
from napari_nucleiseg.core.batch.job import SegmentJob
from napari_nucleiseg.core.batch.segmentation import segment_slides
from napari_nucleiseg.core.batch.unattended import work
from napari_nucleiseg.core.batch.unattended.job import BatchJob
from napari_nucleiseg.core.batch.unattended.run import run_batch
from napari_nucleiseg.core.models.weights import LoadedModel


@pytest.fixture
def network():
    return Dark().eval()


@pytest.fixture
def dark(monkeypatch, network):
    """Whatever model is asked for, it is the one that calls dark pixels nuclei."""
    torch.set_num_threads(1)
    model = LoadedModel(SPEC, CARD, network)
    for module in ("unattended.run", "unattended.work", "segmentation"):
        monkeypatch.setattr(f"napari_nucleiseg.core.batch.{module}.load_model", lambda _name, accept_licence: model)
    yield network
    work.forget()


@pytest.fixture
def write_slide(tmp_path):
    def write(name="a.svs", shape=(700, 900), mpp_um=0.5):
        path = tmp_path / "slides" / name
        path.parent.mkdir(exist_ok=True)
        height, width = shape
        facts = f"Aperio Image Library v1\r\n{width}x{height} |AppMag = 20|MPP = {mpp_um}"
        tifffile.imwrite(
            path, disc_picture(shape), tile=(256, 256), photometric="rgb", description=facts, metadata=None
        )
        return path

    return write


@pytest.fixture
def job_for(tmp_path):
    def make(*paths, **changes):
        settings = {"formats": (), "measure": False, "unit_s": 1e-6, "device": "cpu"} | changes
        return BatchJob(tuple(map(str, paths)), str(tmp_path / "out"), **settings)

    return make


@pytest.fixture
def later():
    """Set the time of a file a second on, which drives tell from the one before."""

    def touch(path):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 1))

    return touch


@pytest.fixture
def run_here():
    """Run a job in this process and return all events."""

    def run(job, **more):
        return list(run_batch(job, engine=more.pop("engine", None) or LocalEngine(in_process=True), **more))

    return run


@pytest.fixture
def undisturbed(tmp_path, dark):
    """Segment a slide by the plain loop; return the project's folder."""

    def segment(path):
        out = tmp_path / "plain"
        list(segment_slides(SegmentJob((str(path),), str(out), device="cpu")))
        return out / f"{path.stem}.nucleiseg"

    return segment
