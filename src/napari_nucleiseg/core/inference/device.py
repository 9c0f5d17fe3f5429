"""How a network runs on its device, and what happens when the memory or the device gives out."""

from __future__ import annotations

import copy
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.hardware import choose_device, give_up_device, has_fast_bfloat16
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel

logger = logging.getLogger(__name__)
Message = Callable[[str], None]

# Words in the messages of drivers whose device is gone or unusable until the process ends.
_LOST_DEVICE = ("cuda error", "cudnn", "cublas", "hip error", "mps backend", "device-side assert", "driver shutting")
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def set_torch_threads(*, beside_gui: bool) -> int:
    """Give torch all cores, or all but one where a window must stay fluid; return how many."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores - 1) if beside_gui else cores
    torch.set_num_threads(threads)
    return threads


def default_batch_size(device: torch.device) -> int:
    """Tiles forwarded together: one on a CPU, where more gains nothing and delays the first."""
    return {"cuda": 8, "mps": 2}.get(device.type, 1)


@dataclass(slots=True, eq=False)
class _Placed:
    """A network as it runs on one device, and how many tiles at once have turned out to be too many."""

    network: nn.Module
    device: torch.device
    dtype: torch.dtype
    max_batch: int | None = None


# Copies of networks by device and precision: a pan must not move the weights again.
_copies: weakref.WeakKeyDictionary[nn.Module, dict[tuple[str, torch.dtype], _Placed]] = weakref.WeakKeyDictionary()
_copies_lock = threading.Lock()


def _placed(network: nn.Module, device: torch.device, dtype: torch.dtype) -> _Placed:
    with _copies_lock:
        copies = _copies.setdefault(network, {})
        key = (str(device), dtype)
        if key not in copies:
            ready = _fuse(copy.deepcopy(network).eval()).requires_grad_(False)
            ready = ready.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            copies[key] = _Placed(ready, device, dtype)
        return copies[key]


def _fuse(network: nn.Module) -> nn.Module:
    """Fold each batch normalisation into the convolution just before it in a Sequential; exact but for rounding."""
    for module in list(network.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        for place in range(len(module) - 1):
            first, second = module[place], module[place + 1]
            if type(first) is nn.Conv2d and type(second) is nn.BatchNorm2d and second.track_running_stats:
                module[place] = fuse_conv_bn_eval(first, second)
                module[place + 1] = nn.Identity()
    return network


class Forward:
    """Runs a model on batches of tiles, for one thread; survives a full memory and a lost GPU.

    Parameters
    ----------
    model : LoadedModel
        Its own network is left untouched, on the CPU.
    device : str
        ``auto``, ``cuda``, ``mps``, ``cpu``.
    heads : sequence of str
        Outputs to return.
    on_message : callable, optional
        Told in a sentence when the device or the batch had to change; default the log.
    """

    def __init__(
        self, model: LoadedModel, device: str = "auto", *, heads: Sequence[str], on_message: Message | None = None
    ) -> None:
        self.spec: ModelSpec = model.spec
        self.heads: tuple[HeadSpec, ...] = tuple(model.spec.head(name) for name in heads)
        self._model = model
        self._tell = on_message or logger.warning
        self._floats: Tensor | None = None
        self._use(choose_device(device))

    @property
    def device(self) -> torch.device:
        """Where it runs now."""
        return self._placed.device

    @property
    def max_batch(self) -> int | None:
        """Most tiles at once since the memory was found to be full; None if it never was."""
        return self._placed.max_batch

    @property
    def precision(self) -> str:
        """The number format it multiplies in, e.g. ``bfloat16``."""
        return str(self._placed.dtype).removeprefix("torch.")

    @property
    def network(self) -> nn.Module:
        """The network as it runs: folded, on `device`."""
        return self._placed.network

    def _use(self, device: torch.device) -> None:
        dtype = torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
        self._placed = _placed(self._model.network, device, dtype)
        mean, std = torch.tensor(self.spec.mean, device=device), torch.tensor(self.spec.std, device=device)
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8] | NDArray[np.float16]]:
        """Return the maps of a batch.

        Parameters
        ----------
        batch : ndarray of uint8, shape (n, y, x, 3)
            RGB.

        Returns
        -------
        dict of str to ndarray, shape (n, channels, y, x)
            Sigmoid heads as uint8 (probability times 255, rounded), others as float16 in model pixels.

        Raises
        ------
        ModelError
            If not even one tile fits, or the network cannot run.
        """
        parts, start = [], 0
        while start < len(batch):
            part = batch[start : start + (self.max_batch or len(batch))]
            parts.append(self._run(part))
            start += len(part)
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8] | NDArray[np.float16]]:
        try:
            return self._forward(batch)
        except RuntimeError as error:
            remedy = self._remedy(error, len(batch))
        # Outside the except clause, so that the failed tensors are no longer held by the traceback.
        self._floats = None
        self._tell(remedy)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return self(batch)

    def _remedy(self, error: RuntimeError, size: int) -> str:
        """Change batch size or device after `error`; return what to say, or raise if nothing helps."""
        text = str(error).lower()
        if isinstance(error, torch.OutOfMemoryError) or any(words in text for words in _NO_MEMORY):
            if size > 1:
                self._placed.max_batch = size // 2
                at_once = "one tile" if size // 2 == 1 else f"{size // 2} tiles"
                return f"The {self.device.type} memory is full: going on with {at_once} at a time."
            if self.device.type == "cpu":
                raise ModelError(
                    f"there is not enough memory to run {self.spec.name} on one tile; close other programs "
                    "or use a model with smaller tiles"
                ) from error
            self._move_to_cpu()
            return "Not even one tile fits into the GPU's memory: going on, more slowly, on the CPU."
        if any(words in text for words in _LOST_DEVICE):
            give_up_device(self.device)
            self._move_to_cpu()
            return f"The GPU stopped working ({str(error).splitlines()[0]}): going on, more slowly, on the CPU."
        raise ModelError(f"{self.spec.name} cannot run: {error}") from error

    def _move_to_cpu(self) -> None:
        self._use(torch.device("cpu"))
        self._placed.max_batch = 1

    @torch.inference_mode()
    def _forward(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8] | NDArray[np.float16]]:
        placed = self._placed
        n, height, width = batch.shape[:3]
        # Normalised as rows of bytes (an inner axis of three would be slow). The last axis is colour already, which is
        # what channels_last wants: a view, no copy.
        rows = self._floats_of(torch.from_numpy(batch).to(placed.device).view(n, height, width * 3))
        torch.addcmul(self._shift.repeat(width), rows, self._scale.repeat(width), out=rows)
        x = rows.view(n, height, width, 3).permute(0, 3, 1, 2)
        with torch.autocast(placed.device.type, placed.dtype, enabled=placed.dtype != torch.float32):
            raw = cast("dict[str, Tensor]", placed.network(x))
        return {head.name: _stored(raw[head.name], head) for head in self.heads}

    def _floats_of(self, values: Tensor) -> Tensor:
        """Convert to float32 in the memory of the last batch: to get it anew costs more than to fill it."""
        if self._floats is None or self._floats.shape != values.shape or self._floats.device != values.device:
            self._floats = None  # given back before more is asked for
            self._floats = torch.empty_like(values, dtype=torch.float32)
        return self._floats.copy_(values)


def _stored(raw: Tensor, head: HeadSpec) -> NDArray[np.uint8] | NDArray[np.float16]:
    """Activate a head and shrink it, on the device, to what is kept of it."""
    value = raw.float()
    if head.activation == "sigmoid":
        value = torch.sigmoid(value).mul_(255).round_().to(torch.uint8)
    else:
        value = value.to(torch.float16)
    return cast("NDArray[np.uint8]", value.cpu().numpy())
