"""The engine of a dask cluster: a running scheduler, a batch system, or processes that dask starts here."""

from __future__ import annotations

import queue
import time
from contextlib import suppress
from typing import Any

from napari_nucleiseg.core.batch.engines.base import Ending, Engine, EngineLostError, Outcome, Task, ended
from napari_nucleiseg.core.batch.engines.worker import settle
from napari_nucleiseg.core.errors import MissingDependencyError, ModelError

INSTALL = "Install it with: pip install 'napari-nucleiseg[cluster]'"
# Classes of dask-jobqueue by the batch system's name.
JOBQUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
    "moab": "MoabCluster",
    "oar": "OARCluster",
}
_CONNECT_S = 10.0
# How long workers may be away (restarting, or waiting in a queue) before it is said that there are none.
_PATIENCE_S = 600.0
DIED = "its workers died in the middle of it (killed, or out of memory)"
_LOST = "no more tasks can be done: {}. What is finished is kept; start it again and run the same command to go on"


class DaskEngine(Engine):
    """Workers of a dask cluster; use `connected`, `queued` or `started_here`.

    Parameters
    ----------
    client : distributed.Client
        Connected.
    cluster : object, optional
        What was started for this run, and ends with it.
    described : str
        Where that is, in words.
    threads : int
        Threads of torch in each worker; 0 leaves it to the worker.

    Attributes
    ----------
    client : distributed.Client
        For who wants to know more of the cluster.
    """

    def __init__(self, client: Any, cluster: Any = None, described: str = "", threads: int = 0) -> None:
        self.client, self._cluster, self._described = client, cluster, described
        self._futures: dict[Any, Task] = {}
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._attempt = 0
        self._seen_workers, self._seen_at = 0, 0.0
        self._alone_since: float | None = None
        if threads:
            client.register_plugin(_plugin(threads))

    @classmethod
    def connected(cls, address: str) -> DaskEngine:
        """Use a running scheduler.

        Parameters
        ----------
        address : str
            E.g. ``tcp://host:8786``.

        Raises
        ------
        MissingDependencyError
            If dask.distributed is not installed.
        EngineLostError
            If nobody answers there.
        """
        distributed = _distributed()
        try:
            client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise EngineLostError(
                f"no dask scheduler answers at {address} ({error}); start one with `dask scheduler`, and workers with "
                "`dask worker ADDRESS --nthreads 1`"
            ) from error
        return cls(client, None, f"dask at {address}")

    @classmethod
    def started_here(cls, workers: int, *, threads: int = 1) -> DaskEngine:
        """Start a scheduler and workers, each a process, on this machine.

        Raises
        ------
        MissingDependencyError
            If dask.distributed is not installed.
        """
        distributed = _distributed()
        cluster = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", processes=True
        )
        client = distributed.Client(cluster, set_as_default=False)
        return cls(client, cluster, "dask on this machine", threads)

    @classmethod
    def queued(cls, system: str, workers: int, *, threads: int = 1) -> DaskEngine:
        """Ask a batch system for workers, as its dask-jobqueue configuration says.

        Raises
        ------
        MissingDependencyError
            If dask-jobqueue is not installed.
        ModelError
            If there is no such batch system, or it is not configured.
        """
        distributed = _distributed()
        if system not in JOBQUEUES:
            raise ModelError(f"there is no batch system {system}; choose from {', '.join(JOBQUEUES)}")
        try:
            import dask_jobqueue
        except ImportError as error:
            raise MissingDependencyError(f"Batch systems need dask-jobqueue. {INSTALL}") from error
        try:
            cluster = getattr(dask_jobqueue, JOBQUEUES[system])()
        except (ValueError, TypeError, RuntimeError) as error:
            raise ModelError(
                f"dask-jobqueue is not configured for {system} ({error}); set cores, memory and queue in "
                "~/.config/dask/jobqueue.yaml"
            ) from error
        cluster.scale(workers)
        return cls(distributed.Client(cluster, set_as_default=False), cluster, f"dask on {system}", threads)

    @property
    def workers(self) -> int:
        """Threads of all workers that the scheduler knows now; at least 1, so that tasks wait for the first."""
        if time.monotonic() - self._seen_at > 1.0:
            with suppress(OSError, TimeoutError, RuntimeError):
                self._seen_workers = sum(self.client.nthreads().values())
            self._seen_at = time.monotonic()
        return max(1, self._seen_workers)

    @property
    def waiting(self) -> int:
        """Tasks given and not collected."""
        return len(self._futures)

    def submit(self, task: Task) -> None:
        """Give a task to the scheduler."""
        self._attempt += 1
        self._require()
        future = self.client.submit(
            task.function, *task.arguments, key=f"{task.name}-{self._attempt}", pure=False, retries=0
        )
        self._futures[future] = task
        future.add_done_callback(self._ended.put)

    def collect(self, timeout_s: float) -> list[Outcome]:
        """Return what ended."""
        outcomes = []
        with suppress(queue.Empty):
            future = self._ended.get(timeout=timeout_s)
            while True:
                task = self._futures.pop(future, None)
                if task is not None:
                    outcomes.append(_outcome(future, task))
                future = self._ended.get_nowait()
        self._require()
        return outcomes

    def describe(self) -> str:
        """Return e.g. ``dask at tcp://host:8786, 12 workers``."""
        return f"{self._described}, {self.workers} worker{'s' * (self.workers > 1)}"

    def close(self) -> None:
        """Let go of the scheduler; end what was started for this run."""
        with suppress(OSError, TimeoutError, RuntimeError):
            self.client.cancel(list(self._futures))
        self._futures.clear()
        with suppress(OSError, TimeoutError, RuntimeError):
            self.client.close(timeout=5)
        if self._cluster is not None:
            with suppress(OSError, TimeoutError, RuntimeError):
                self._cluster.close(timeout=10)

    def _require(self) -> None:
        """Make sure that the scheduler is there, and that workers are or may still come."""
        if self.client.status != "running":
            raise EngineLostError(_LOST.format("the dask scheduler is gone"))
        if self.workers and self._seen_workers:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > _PATIENCE_S:
            raise EngineLostError(
                _LOST.format(f"the dask scheduler has had no worker for {_PATIENCE_S / 60:.0f} minutes")
            )


def _outcome(future: Any, task: Task) -> Outcome:
    if future.status == "finished":
        return Outcome(task, Ending.DONE, future.result())
    if future.status != "error":
        return Outcome(task, Ending.DIED, None, "the scheduler dropped it", "CancelledError")
    error = future.exception()
    if isinstance(error, _distributed().KilledWorker):
        return Outcome(task, Ending.DIED, None, DIED, "KilledWorker")
    return ended(task, error)


def _distributed() -> Any:
    try:
        import distributed
        import distributed.client
    except ImportError as error:
        raise MissingDependencyError(f"Clusters need dask.distributed. {INSTALL}") from error
    return distributed


def _plugin(threads: int) -> Any:
    distributed = _distributed()

    class Settled(distributed.WorkerPlugin):  # type: ignore[misc, name-defined]
        """Gives each worker its threads, also one that comes later."""

        name = "nucleiseg-threads"

        def setup(self, worker: Any) -> None:  # noqa: ARG002
            settle(threads)

    return Settled()
