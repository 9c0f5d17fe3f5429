"""What a worker knows of itself: how many threads it may use, and which device is its own."""

from __future__ import annotations

_own_device: list[str] = []


def settle(threads: int, device: str = "") -> None:
    """Give the libraries of this process their threads, and remember its device.

    Parameters
    ----------
    threads : int
        Of torch and OpenCV.
    device : str
        E.g. ``cuda:1``; empty: what a task says.
    """
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    _own_device[:] = [device] if device else []


def own_device(wanted: str) -> str:
    """Return this worker's device, or the `wanted` one where it has none of its own."""
    return _own_device[0] if _own_device else wanted
