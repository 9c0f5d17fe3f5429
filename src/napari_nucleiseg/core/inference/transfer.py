"""How pictures get to a device and maps come back from it: at once, or beside what the device computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# A batch (n, y, x, 3), or its pictures one by one.
Pictures = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
MapArrays = dict[str, NDArray[np.uint8] | NDArray[np.float16]]


class Transfer(Protocol):
    """Carries batches to a device and maps back."""

    def send(self, pictures: Pictures) -> Tensor:
        """Return the pictures on the device, uint8, ``(n, y, x, 3)``."""

    def fetch(self, maps: Mapping[str, Tensor]) -> Callable[[], MapArrays]:
        """Begin to carry maps back; return what waits until they are there and gives them."""


def transfer_of(device: torch.device) -> Transfer:
    """Return what suits a device."""
    return OverlappedTransfer(device) if device.type == "cuda" else DirectTransfer(device)


class DirectTransfer:
    """Waits for each copy: for a CPU, which needs none, and for devices without streams.

    Parameters
    ----------
    device : torch.device
        Where to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def send(self, pictures: Pictures) -> Tensor:
        """Return the pictures on the device, uint8, ``(n, y, x, 3)``; on a CPU a batch is not copied."""
        return torch.from_numpy(_batch(pictures)).to(self._device)

    def fetch(self, maps: Mapping[str, Tensor]) -> Callable[[], MapArrays]:
        """Carry maps back; what is returned gives them."""
        arrays = {name: cast("NDArray[np.uint8]", value.cpu().numpy()) for name, value in maps.items()}
        return lambda: dict(arrays)


class OverlappedTransfer:
    """Copies from and to page-locked memory on streams of their own, so that a CUDA device computes meanwhile.

    Memory is taken from torch's pools and goes back there when the last array that shows it is gone; the pools
    themselves wait for copies under way.

    Parameters
    ----------
    device : torch.device
        A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._up, self._down = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def send(self, pictures: Pictures) -> Tensor:
        """Return the pictures on the device, uint8, ``(n, y, x, 3)``; what is computed next waits for them."""
        locked = page_locked((len(pictures), *pictures[0].shape), torch.uint8)
        np.stack(list(pictures), out=locked.numpy())
        with torch.cuda.stream(self._up):
            there = locked.to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._up)
        there.record_stream(computing)
        return there

    def fetch(self, maps: Mapping[str, Tensor]) -> Callable[[], MapArrays]:
        """Begin to carry maps back once they are computed; return what waits until they are there and gives them."""
        ready = {name: value.contiguous() for name, value in maps.items()}
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        arrays: MapArrays = {}
        with torch.cuda.stream(self._down):
            for name, value in ready.items():
                locked = page_locked(tuple(value.shape), value.dtype)
                locked.copy_(value, non_blocking=True)
                value.record_stream(self._down)
                arrays[name] = locked.numpy()
            # Blocking: whoever waits sleeps instead of spinning, so that reading and decoding have all cores.
            done = torch.cuda.Event(blocking=True)
            done.record(self._down)

        def wait() -> MapArrays:
            done.synchronize()
            return arrays

        return wait


def page_locked(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return memory that a GPU reads and writes itself, uninitialised."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


def _batch(pictures: Pictures) -> NDArray[np.uint8]:
    if isinstance(pictures, np.ndarray):
        return pictures
    return np.stack(pictures) if len(pictures) > 1 else pictures[0][None]
