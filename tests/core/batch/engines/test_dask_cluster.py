"""A real scheduler and workers as processes on loopback: they are killed, and the labels are the same."""

import contextlib
import operator
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from skimage import data

from napari_nucleiseg.core.batch.engines.base import Ending, EngineLostError, Task
from napari_nucleiseg.core.batch.engines.cluster import DaskEngine
from napari_nucleiseg.core.batch.job import SegmentJob
from napari_nucleiseg.core.batch.segmentation import segment_slides
from napari_nucleiseg.core.batch.unattended.database import read_run_database
from napari_nucleiseg.core.batch.unattended.job import BatchJob
from napari_nucleiseg.core.batch.unattended.start import make_engine
from napari_nucleiseg.core.errors import MissingDependencyError, ModelError, StoreError
from project_content import assert_same

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill(process):
    """Kill a process and all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    def __init__(self):
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler, self.workers = None, []

    def start(self, workers=2):
        self.start_scheduler()
        for _ in range(workers):
            self.add_worker()

    def start_scheduler(self):
        self.scheduler = start(
            "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"
        )
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        pytest.fail("the scheduler did not start")

    def add_worker(self):
        self.workers.append(
            start(
                "distributed.cli.dask_worker",
                self.address,
                "--nthreads",
                "1",
                "--no-dashboard",
                "--no-nanny",
                "--host",
                "127.0.0.1",
            )
        )

    def stop(self):
        for process in (*self.workers, self.scheduler):
            if process is not None:
                kill(process)
        self.workers = []


@pytest.fixture
def cluster():
    cluster = Cluster()
    yield cluster
    cluster.stop()


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "tissue.svs"
    tissue = np.tile(data.immunohistochemistry(), (5, 5, 1))
    height, width = tissue.shape[:2]
    facts = f"Aperio Image Library v1\r\n{width}x{height} |AppMag = 20|MPP = 0.5"
    tifffile.imwrite(path, tissue, tile=(256, 256), photometric="rgb", description=facts, metadata=None)
    return path


def begin(slide, out, *more):
    program = "import sys; from napari_nucleiseg.cli import main; sys.exit(main())"
    words = ("batch", str(slide), "--out", str(out), "--no-measure", "--format", "csv", *more)
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def looked_at(out):
    """Return slides and runs as the run's database tells them; none while it is being made."""
    with contextlib.suppress(StoreError):
        return read_run_database(out)
    return {}, ()


def wait_for_tiles(out, least, process):
    """Wait until so many tiles are whole, as the run's database tells."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        row = looked_at(out)[0].get("tissue")
        if row and row.tiles_done >= least:
            return
        time.sleep(0.1)
    pytest.fail(f"the run did not come so far: {process.stdout.read() if process.poll() is not None else 'slow'}")


def wait_for_runs(out, count, process):
    """Wait until so many runs have begun, as the run's database tells."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if len(looked_at(out)[1]) == count:
            return
        time.sleep(0.1)
    pytest.fail(f"no run began: {process.stdout.read() if process.poll() is not None else 'slow'}")


def test_killed_worker_scheduler_and_client_change_nothing(cluster, slide, tmp_path):
    list(segment_slides(SegmentJob((str(slide),), str(tmp_path / "plain"), device="cpu")))
    out = tmp_path / "out"
    where = ("--scheduler", cluster.address)
    cluster.start()

    client = begin(slide, out, *where)
    wait_for_tiles(out, 1, client)
    kill(cluster.workers[0])  # the other one goes on with its task
    cluster.add_worker()
    kill(cluster.scheduler)
    told, _ = client.communicate(timeout=120)
    assert client.returncode == 1
    assert "scheduler is gone" in told

    cluster.stop()
    cluster.start()
    client = begin(slide, out, *where)
    wait_for_runs(out, 2, client)
    time.sleep(1)  # in the middle of something
    kill(client)
    client.stdout.close()

    told, _ = (client := begin(slide, out, *where)).communicate(timeout=240)
    assert client.returncode == 0, told
    assert_same(out / "tissue.nucleiseg", tmp_path / "plain" / "tissue.nucleiseg")
    assert read_run_database(out)[0]["tissue"].nuclei > 1000
    assert [run.state for run in read_run_database(out)[1]] == ["stopped", "stopped", "done"]


def collected(engine, count):
    found, until = [], time.monotonic() + 60
    while len(found) < count and time.monotonic() < until:
        found += engine.collect(0.2)
    return {outcome.task.name: outcome for outcome in found}


def test_a_cluster_of_this_machine_does_tasks_and_tells_what_went_wrong():
    engine = make_engine(BatchJob(("a",), "b", engine="dask", workers=1))
    try:
        engine.submit(Task("good", operator.add, (1, 2)))
        engine.submit(Task("bad", operator.truediv, (1, 0)))
        found = collected(engine, 2)
        # Afterwards: what waits for a worker that dies is taken for a cause of it.
        engine.submit(Task("dies", os._exit, (9,)))
        found |= collected(engine, 1)
        assert engine.describe().startswith("dask on this machine")
    finally:
        engine.close()
    assert found["good"].value == 3
    assert "ZeroDivisionError" in found["bad"].sentence
    assert found["dies"].ending is Ending.DIED


def test_nobody_at_the_address_is_told(monkeypatch):
    monkeypatch.setattr("napari_nucleiseg.core.batch.engines.cluster._CONNECT_S", 1.0)
    with pytest.raises(EngineLostError, match="start one with `dask scheduler`"):
        DaskEngine.connected(f"tcp://127.0.0.1:{free_port()}")


def test_batch_systems_are_named_and_need_their_package(monkeypatch):
    with pytest.raises(ModelError, match="there is no batch system cron"):
        DaskEngine.queued("cron", 2)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(MissingDependencyError, match="napari-nucleiseg\\[cluster\\]"):
        DaskEngine.queued("slurm", 2)
