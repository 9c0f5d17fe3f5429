"""How a network runs on its device, and what happens when the memory or the device gives out."""

from __future__ import annotations

import copy
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.device_decode import DeviceDecode
from napari_nucleiseg.core.inference.graphs import Graphs, graphs_wanted
from napari_nucleiseg.core.inference.transfer import MapArrays, Pictures, Transfer, transfer_of
from napari_nucleiseg.core.models.hardware import choose_device, give_up_device, has_fast_bfloat16
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel

logger = logging.getLogger(__name__)
Message = Callable[[str], None]
T = TypeVar("T")

# Among the maps of a device: the sum of each head, which is finite only if all of it is. No head is called so.
_SUMS = "sums of heads"
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


def default_readers(device: torch.device) -> int:
    """Threads that read ahead: two keep up with a CPU; beside a GPU reading has half of the cores, up to eight."""
    return max(2, min(8, (os.cpu_count() or 2) // 2)) if device.type == "cuda" else 2


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
    graphs : bool, optional
        Replay recorded work (see `Graphs`) on a CUDA device, the only one that can; default what the environment says.
    decode : DeviceDecode, optional
        Finds the nuclei on the device; `start` then wants windows.
    on_message : callable, optional
        Told in a sentence when the device or the batch had to change; default the log.
    """

    def __init__(
        self,
        model: LoadedModel,
        device: str = "auto",
        *,
        heads: Sequence[str],
        graphs: bool | None = None,
        decode: DeviceDecode | None = None,
        on_message: Message | None = None,
    ) -> None:
        self.spec: ModelSpec = model.spec
        self.heads: tuple[HeadSpec, ...] = tuple(model.spec.head(name) for name in heads)
        self._model = model
        self._tell = on_message or logger.warning
        self._floats: Tensor | None = None
        self._decode = decode
        self._wants_graphs = graphs_wanted() if graphs is None else graphs
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

    @property
    def graphs(self) -> Graphs | None:
        """What was recorded; None where nothing is to be."""
        return self._graphs

    @property
    def ahead(self) -> int:
        """Batches to `start` before the maps of the first are waited for: one on a device that computes by itself."""
        return int(self.device.type == "cuda")

    def _use(self, device: torch.device) -> None:
        dtype = torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
        self._placed = _placed(self._model.network, device, dtype)
        self._transfer = transfer_of(device)
        self._graphs = Graphs(self.compute_apart, self._tell) if self._wants_graphs and device.type == "cuda" else None
        mean, std = torch.tensor(self.spec.mean, device=device), torch.tensor(self.spec.std, device=device)
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def __call__(self, batch: Pictures) -> MapArrays:
        """Return the maps of a batch.

        Parameters
        ----------
        batch : ndarray of uint8, shape (n, y, x, 3), or a sequence of pictures of one shape (y, x, 3)
            RGB.

        Returns
        -------
        dict of str to ndarray, shape (n, channels, y, x)
            Sigmoid heads as uint8 (probability times 255, rounded), others as float16 in model pixels.

        Raises
        ------
        ModelError
            If not even one tile fits, the network cannot run, or what it says is not finite.
        """
        return self.start(batch)()

    def start(self, batch: Pictures, windows: Sequence[Region] = ()) -> Callable[[], MapArrays]:
        """Begin with a batch; return what waits for its maps and gives them, see `__call__`.

        A CUDA device then computes by itself and copies back what it has found while it computes the next batch;
        other devices have finished when this returns. Where nuclei are found on the device, `windows` say which part
        of each picture, in pixels of its maps, they are looked for in.
        """
        parts: list[Callable[[], MapArrays]] = []
        at = 0
        while at < len(batch):
            end = at + (self.max_batch or len(batch))
            part, inside = batch[at:end], windows[at:end]
            fetched = self._attempt(partial(self._forward, part, inside), len(part), self._transfer)
            if fetched is not None:
                parts.append(partial(self._finish, part, inside, fetched, self._transfer))
                at += len(part)
        return parts[0] if len(parts) == 1 else partial(_joined, parts)

    def _finish(
        self, batch: Pictures, windows: Sequence[Region], fetched: Callable[[], MapArrays], way: Transfer
    ) -> MapArrays:
        """Wait for the maps of a batch; a device that is lost meanwhile costs doing it again."""
        maps = self._attempt(fetched, len(batch), way)
        return self.start(batch, windows)() if maps is None else maps

    def _attempt(self, call: Callable[[], T], size: int, way: Transfer) -> T | None:
        """Return what `call` returns; None if batch or device had to change and it is to be tried again."""
        try:
            return call()
        except RuntimeError as error:
            # Another batch may have found out first that the device is lost.
            remedy = self._remedy(error, size) if way is self._transfer else ""
        # Outside the except clause, so that the failed tensors are no longer held by the traceback.
        self._floats = None
        if remedy:
            self._tell(remedy)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

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
    def _forward(self, batch: Pictures, windows: Sequence[Region]) -> Callable[[], MapArrays]:
        pixels = self._transfer.send(batch)
        maps = (self._graphs or self.compute)(pixels)
        sums = {_SUMS: maps.pop(_SUMS)}
        found = self._decode(maps, windows) if self._decode else maps
        return partial(self._sound, self._transfer.fetch({**found, **sums}))

    def _sound(self, fetched: Callable[[], MapArrays]) -> MapArrays:
        """Wait for maps and return them, or raise if something in them is not finite."""
        maps = dict(fetched())
        sums = maps.pop(_SUMS)
        broken = [head.name for head, value in zip(self.heads, sums, strict=True) if not np.isfinite(value)]
        if broken:
            raise not_finite(self.spec.name, broken, self.device)
        return maps

    @torch.inference_mode()
    def compute(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the maps of pixels that are on the device already, as they are kept, and leave them there.

        Parameters
        ----------
        pixels : Tensor of uint8, shape (n, y, x, 3)
            RGB.

        Returns
        -------
        dict of str to Tensor, shape (n, channels, y, x)
            uint8 or float16, see `__call__`; and the sum of each head, float32, ``(heads,)``.
        """
        placed = self._placed
        n, height, width = pixels.shape[:3]
        # Normalised as rows of bytes (an inner axis of three would be slow). The last axis is colour already, which is
        # what channels_last wants: a view, no copy.
        rows = self._floats_of(pixels.view(n, height, width * 3))
        torch.addcmul(self._shift.repeat(width), rows, self._scale.repeat(width), out=rows)
        x = rows.view(n, height, width, 3).permute(0, 3, 1, 2)
        with torch.autocast(placed.device.type, placed.dtype, enabled=placed.dtype != torch.float32):
            raw = cast("dict[str, Tensor]", placed.network(x))
        maps: dict[str, Tensor] = {}
        sums: list[Tensor] = []
        for head in self.heads:
            value = _activated(raw[head.name], head)
            # Of what is kept (float16 ends at 65504), but before it becomes bytes, which are always numbers. Float16
            # does not hold the sum; a CPU is faster at turning it into float32 first than at doing both at once.
            sums.append(value.float().sum())
            maps[head.name] = _as_bytes(value) if head.activation == "sigmoid" else value
        return {**maps, _SUMS: torch.stack(sums)}

    @torch.inference_mode()
    def compute_apart(self, pixels: Tensor) -> dict[str, Tensor]:
        """Do as `compute`, in memory that no other call uses: a recording keeps it."""
        self._floats = None
        maps = self.compute(pixels)
        self._floats = None
        return maps

    def _floats_of(self, values: Tensor) -> Tensor:
        """Convert to float32 in the memory of the last batch: to get it anew costs more than to fill it."""
        if self._floats is None or self._floats.shape != values.shape or self._floats.device != values.device:
            self._floats = None  # given back before more is asked for
            self._floats = torch.empty_like(values, dtype=torch.float32)
        return self._floats.copy_(values)


def not_finite(name: str, heads: Sequence[str], device: torch.device) -> ModelError:
    """Return the error of a network some of whose heads say NaN or infinity."""
    elsewhere = "" if device.type == "cpu" else ", or compute on the device cpu, where numbers are more exact"
    return ModelError(
        f"{name} says what is no number (NaN or infinite) for {', '.join(heads)}: its weights are damaged, or its "
        f"numbers grow too large for the {device.type}. Get its weights again or choose another model{elsewhere}."
    )


def _activated(raw: Tensor, head: HeadSpec) -> Tensor:
    """Return the probabilities of a head in float32, or what else it says as it is kept."""
    return torch.sigmoid(raw.float()) if head.activation == "sigmoid" else raw.to(torch.float16)


def _as_bytes(probability: Tensor) -> Tensor:
    """Return probabilities times 255, rounded; their memory may be used for that."""
    if probability.device.type != "cpu":
        return probability.mul_(255).round_().to(torch.uint8)
    # The same numbers in a seventh of the time.
    rows = probability.contiguous().view(-1, probability.shape[-1]).numpy()
    return torch.from_numpy(cv2.convertScaleAbs(rows, alpha=255)).view(probability.shape)


def _joined(parts: Sequence[Callable[[], MapArrays]]) -> MapArrays:
    """Wait for the parts of a batch that was too large and put their maps together."""
    maps = [part() for part in parts]
    return {name: np.concatenate([one[name] for one in maps]) for name in maps[0]}
