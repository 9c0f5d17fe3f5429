"""Small scans of dark discs, and an engine of unattended runs in this process with a network that finds them."""

import threading
from dataclasses import replace

import tifffile
import torch

from dark_model import CARD, SPEC, Dark, disc_picture
from napari_nucleiseg.core.batch.engines.here import LocalEngine
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.viewer.batch_engine import BatchEngine


def write_scan(path, shape=(700, 900), mpp_um=0.5):
    """Write a scan of dark discs, 32 pixels from one to the next; it does not state its pixel size if that is None."""
    path.parent.mkdir(exist_ok=True, parents=True)
    height, width = shape
    size = "" if mpp_um is None else f"|MPP = {mpp_um}"
    facts = f"Aperio Image Library v1\r\n{width}x{height} |AppMag = 20{size}"
    tifffile.imwrite(path, disc_picture(shape), tile=(256, 256), photometric="rgb", description=facts, metadata=None)
    return path


class HereEngine(BatchEngine):
    """Runs in this process; a test can hold it before it asks whether to go on, and sees which threads ran."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        self.threads = set()
        self.jobs = []

    def place(self, job):
        return LocalEngine(in_process=True)

    def run(self, job, entries, mpp_um, *, cancelled, paused):
        self.jobs.append((job, tuple(entries), mpp_um))
        # A tile a task, so that a test can hold it between two.
        job = replace(job, unit_s=1e-6)
        for event in super().run(job, entries, mpp_um, cancelled=cancelled, paused=paused):
            self.threads.add(threading.current_thread())
            yield event
            self.reached.set()
            assert self.gate.wait(60), "nobody opened the gate"


def find_dark_pixels(monkeypatch):
    """Have every model of unattended runs be the one that calls dark pixels nuclei; return its network."""
    torch.set_num_threads(1)
    network = Dark().eval()
    model = LoadedModel(SPEC, CARD, network)
    for module in ("run", "work"):
        monkeypatch.setattr(
            f"napari_nucleiseg.core.batch.unattended.{module}.load_model", lambda _name, accept_licence: model
        )
    return network
