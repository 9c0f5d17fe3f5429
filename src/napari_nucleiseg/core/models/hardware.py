"""Which device a network runs on, and what that device can do."""

from __future__ import annotations

import torch

from napari_nucleiseg.core.errors import ModelError

# Kinds of devices that stopped working: a driver does not recover until the process ends.
_lost_kinds: set[str] = set()


def choose_device(wanted: str = "auto") -> torch.device:
    """Return the device called `wanted`; ``auto`` takes CUDA, else Apple's MPS, else the CPU.

    A GPU that stopped working in this process is not taken by ``auto`` again.

    Raises
    ------
    ModelError
        If the wanted device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(kind for kind, present in there.items() if present and kind not in _lost_kinds))
    kind, _, number = wanted.partition(":")
    if kind not in there or (number and not number.isdecimal()):
        raise ModelError(f"there is no device called {wanted}; choose auto, cuda, mps or cpu")
    if not there[kind]:
        raise ModelError(f"this machine (or this torch {torch.__version__}) has no {kind}; choose auto or cpu")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ModelError(f"this machine has no {wanted}; its GPUs are cuda:0 to cuda:{last}: choose one, auto or cpu")
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
