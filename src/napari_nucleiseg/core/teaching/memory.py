"""Whether a step fits into memory, and what to do where it does not: smaller batches, then smaller crops.

It is looked up before the first step, for a system that is out of memory may end the program without a word.
"""

from __future__ import annotations

from dataclasses import replace

import psutil
import torch

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.teaching.config import FinetuneConfig

SMALLEST_CROP_PX = 96
# A step takes more than what its backward pass keeps, by a tenth on a CPU; and others want memory too.
_BESIDE = 1.5
# What torch says when the CPU's allocator fails, which is no class of its own.
_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def does_not_fit(error: BaseException) -> bool:
    """Whether an error means that memory does not suffice."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error).lower() for word in _WORDS)


def free_bytes(device: torch.device) -> int | None:
    """Return how much memory a device has left for this process; None if it does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return int(psutil.virtual_memory().available) if device.type == "cpu" else None


def fitting(
    config: FinetuneConfig, bytes_per_px: float, free: int | None, margin_px: int = 0
) -> tuple[FinetuneConfig, str]:
    """Return a configuration whose steps fit into memory, and a sentence where it is another one.

    Where not even the smallest fits it is returned nevertheless: the estimate may be wrong.

    Parameters
    ----------
    config : FinetuneConfig
        What is wanted.
    bytes_per_px : float
        What the backward pass keeps in memory of each pixel that goes in.
    free : int or None
        Bytes that are left; None if nobody knows.
    margin_px : int
        What the network loses on each side of a crop.
    """

    def needed(one: FinetuneConfig) -> float:
        return _BESIDE * bytes_per_px * (one.crop_px + 2 * margin_px) ** 2 * (one.batch_size + one.quiet_size)

    told = ""
    while free is not None and needed(config) > free:
        try:
            config, told = smaller(config, MemoryError())
        except ModelError:
            break
    return config, told.replace("did not suffice", "would not suffice")


def smaller(config: FinetuneConfig, error: BaseException) -> tuple[FinetuneConfig, str]:
    """Return a configuration that needs about half the memory, and a sentence that says so.

    Raises
    ------
    ModelError
        If there is nothing left to halve.
    """
    if config.batch_size > 1:
        size = config.batch_size // 2
        return replace(config, batch_size=size), f"Memory did not suffice: going on with {size} crops at a time."
    side = config.crop_px // 64 * 32
    if side < SMALLEST_CROP_PX:
        raise ModelError(
            "there is not enough memory to teach a model, not even with one small crop at a time. Close other "
            f"programs, or choose the CPU as device. ({error})"
        ) from error
    return replace(config, crop_px=side), f"Memory did not suffice: going on with crops of {side} px."
