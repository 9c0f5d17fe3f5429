"""Which device a network runs on, what that device can do, and how the CPU's memory is kept at hand."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from napari_nucleiseg.core.errors import ModelError

# Kinds of devices that stopped working: a driver does not recover until the process ends.
_lost_kinds: set[str] = set()

# Of glibc's malloc.h: what mallopt may be told.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
KEPT_BYTES = 1 << 30
"""Largest piece of freed memory, and largest rest at its end, that the C library keeps; see `bound_kept_memory`."""

# Resident bytes when nothing was kept; None until something is.
_resident_without: int | None = None


def choose_device(wanted: str = "auto") -> torch.device:
    """Return the device called `wanted`; ``auto`` takes CUDA, else Apple's MPS, else the CPU.

    A GPU that stopped working in this process is not taken by ``auto`` again. Where the answer is the CPU, the process
    keeps freed memory from now on (`keep_freed_memory`).

    Raises
    ------
    ModelError
        If the wanted device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        wanted = next(kind for kind, present in there.items() if present and kind not in _lost_kinds)
    kind, _, number = wanted.partition(":")
    if kind not in there or (number and not number.isdecimal()):
        raise ModelError(f"there is no device called {wanted}; choose auto, cuda, mps or cpu")
    if not there[kind]:
        raise ModelError(f"this machine (or this torch {torch.__version__}) has no {kind}; choose auto or cpu")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ModelError(f"this machine has no {wanted}; its GPUs are cuda:0 to cuda:{last}: choose one, auto or cpu")
    if kind == "cpu":
        keep_freed_memory()
    return torch.device(wanted)


def give_up_device(device: torch.device) -> None:
    """Remember that a GPU stopped working, so that ``auto`` does not take it again."""
    if device.type != "cpu":
        _lost_kinds.add(device.type)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself, so that it is faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        try:
            return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - no public name for it
        except (AttributeError, RuntimeError):
            return False
    return False


@functools.cache
def keep_freed_memory() -> bool:
    """Have the C library keep memory that tensors gave back instead of returning it to the system.

    Otherwise every layer of every tile gets its memory anew, page by page, which takes a third of the time of a forward
    on a CPU. No more arenas than there are, because only the first holds pieces larger than 64 MiB; a thread that gets
    another one gains less. Every arena keeps its own, so forwards should be made in one thread; all the same, what
    works for long calls `bound_kept_memory` between pieces of work. Only glibc can be told; elsewhere nothing changes.

    Returns
    -------
    bool
        Whether the library took it.
    """
    global _resident_without  # noqa: PLW0603 - the C library keeps for the whole process
    mallopt = _of_the_c_library("mallopt")
    if mallopt is None:
        return False
    wanted = {_MMAP_THRESHOLD: KEPT_BYTES, _TRIM_THRESHOLD: KEPT_BYTES, _ARENA_MAX: 1}
    taken = [mallopt(name, value) == 1 for name, value in wanted.items()]
    _resident_without = _resident_bytes()
    return all(taken)


def bound_kept_memory() -> None:
    """Return what `keep_freed_memory` keeps to the system if the process grew by twice `KEPT_BYTES` with it.

    Growth counts from the last time that nothing was kept. It is seldom done, for other threads may have to wait some
    hundredths of a second meanwhile.
    """
    now = _resident_bytes()
    if _resident_without is not None and now is not None and now > _resident_without + 2 * KEPT_BYTES:
        give_back_memory()


def give_back_memory() -> None:
    """Return to the system what `keep_freed_memory` keeps; for the end of work that held much."""
    global _resident_without  # noqa: PLW0603 - as above
    trim = _of_the_c_library("malloc_trim")
    if trim is not None:
        trim(0)
        if _resident_without is not None:
            _resident_without = _resident_bytes()


def _resident_bytes() -> int | None:
    """Return how much memory the process has now; None where the system does not say so in Linux's way."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_the_c_library(name: str) -> Callable[..., int] | None:
    """Return a function that only glibc has; None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
