"""What a machine can do for a training run: its memory, and the time and memory that a network takes on it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from napari_nucleiseg.core.models.hardware import choose_device, has_fast_bfloat16
from napari_nucleiseg.core.models.registry import build_network
from napari_nucleiseg.core.slides.capacity import memory_bytes
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.loop import train, trained_spec

_PROBE_PX = 128
_PROBE_STEPS = 6
# The first steps of a run pay for memory and kernels that later ones find ready.
_SLOW_STEPS = 2
# Beside what the backward pass is kept for lie gradients of the same size and the library's working space.
_BESIDE_SAVED = 2.0


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a run is planned for.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    name : str
        For people.
    cores : int
        Cores of the CPU that this process may use.
    memory_gb : float
        GiB that a run may take: of the GPU, otherwise of the computer.
    bfloat16 : bool
        Whether the hardware multiplies bfloat16 itself.
    """

    device: str
    name: str
    cores: int
    memory_gb: float
    bfloat16: bool


def look_at_machine(device: str = "auto", memory_gb: float = 0.0) -> Machine:
    """Return what this machine offers.

    Parameters
    ----------
    device : str
        See `choose_device`.
    memory_gb : float
        GiB to plan for; 0 takes what there is.

    Raises
    ------
    ModelError
        If the device is not there.
    """
    chosen = choose_device(device)
    there, name = memory_bytes() / 2**30, "CPU"
    if chosen.type == "cuda":
        facts = torch.cuda.get_device_properties(chosen)
        there, name = facts.total_memory / 2**30, facts.name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(str(chosen), name, cores, memory_gb or there, has_fast_bfloat16(chosen))


def bytes_per_pixel(config: TrainConfig) -> float:
    """Return the bytes of memory that one step takes for each model pixel of its batch.

    What the backward pass needs is what autograd keeps of a forward pass; that is counted on the CPU in float32, for a
    batch of two small crops, so that no GPU is needed to plan for one.

    Parameters
    ----------
    config : TrainConfig
        Names the network and its parameters.

    Raises
    ------
    DataError
        If it makes no sense.
    """
    spec = trained_spec(config)
    network = build_network(spec).train()
    side = spec.fitting_side(_PROBE_PX) + 2 * spec.output_margin_px
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        maps = network(torch.zeros(2, 3, side, side))
    weights = {item.untyped_storage().data_ptr() for item in network.parameters()}
    activations = sum(size for place, size in kept.items() if place not in weights)
    del maps
    return _BESIDE_SAVED * activations / (2 * side**2)


def seconds_per_step(config: TrainConfig, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long one step of a run takes, by taking a few in a folder that is thrown away.

    Parameters
    ----------
    config : TrainConfig
        The run; it is not validated while it is timed.
    clock : callable
        Returns seconds.

    Raises
    ------
    DataError
        If the configuration or the data do not fit.
    """
    with tempfile.TemporaryDirectory(prefix="nucleiseg-plan-") as folder:
        probe = replace(config, out=folder, validate=(), steps=_PROBE_STEPS + 1, warmup=0, resume=False)
        marks = []
        with closing(train(probe)) as steps:  # type: ignore[type-var] # a generator
            for step in steps:
                marks.append(clock())
                if step.step == _PROBE_STEPS:  # the last step also writes weights
                    break
    return (marks[-1] - marks[_SLOW_STEPS - 1]) / (len(marks) - _SLOW_STEPS)
