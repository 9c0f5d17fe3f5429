"""What to do where a step does not fit into memory: smaller batches, then smaller crops."""

from __future__ import annotations

from dataclasses import replace

import torch

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.teaching.config import FinetuneConfig

SMALLEST_CROP_PX = 96
# What torch says when the CPU's allocator fails, which is no class of its own.
_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def does_not_fit(error: BaseException) -> bool:
    """Whether an error means that memory does not suffice."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error).lower() for word in _WORDS)


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
