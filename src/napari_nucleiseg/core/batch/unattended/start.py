"""Chooses where a run is done, and says with what."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import psutil
import torch

from napari_nucleiseg.core.batch.engines.base import Engine
from napari_nucleiseg.core.batch.engines.here import LocalEngine
from napari_nucleiseg.core.batch.unattended.job import DASK, BatchJob
from napari_nucleiseg.core.models.weights import LoadedModel

# What a worker needs with torch, a model and its caches; seldom more.
WORKER_BYTES = 2 << 30
_NAMED = ("napari-nucleiseg", "torch", "numpy", "scikit-image", "zarr", "tifffile", "distributed")


def make_engine(job: BatchJob) -> Engine:
    """Return the engine that a job asks for.

    Raises
    ------
    MissingDependencyError
        If it needs a package that is not installed.
    EngineLostError
        If no scheduler answers.
    """
    if job.engine == DASK:
        from napari_nucleiseg.core.batch.engines.cluster import DaskEngine

        if job.scheduler:
            return DaskEngine.connected(job.scheduler)
        workers = job.workers or default_workers(job.threads)
        if job.jobqueue:
            return DaskEngine.queued(job.jobqueue, workers, threads=job.threads)
        return DaskEngine.started_here(workers, threads=job.threads)
    devices = job.devices or _gpus(job.device)
    return LocalEngine(
        job.workers or len(devices) or default_workers(job.threads), threads=job.threads, devices=devices
    )


def default_workers(threads: int) -> int:
    """Return how many processes of so many threads suit this machine: by its cores, and by its free memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    room = psutil.virtual_memory().available // WORKER_BYTES
    return int(max(1, min(cores // threads, room)))


def _gpus(device: str) -> tuple[str, ...]:
    """Return the GPUs that workers take in turn: all there are, unless one device was named."""
    if device not in {"auto", "cuda"} or not torch.cuda.is_available():
        return ()
    return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))


def versions(model: LoadedModel) -> dict[str, str]:
    """Return what made the results: model, packages, Python, system."""
    found = {"model": model.version, "python": platform.python_version(), "system": platform.platform()}
    for name in _NAMED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
