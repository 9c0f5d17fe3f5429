"""How an encoder runs on its device: pixels or features in, features and attention of every head out."""

from __future__ import annotations

import copy
import logging
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.encoders import Encoder, LoadedEncoder
from napari_nucleiseg.core.models.hardware import choose_device, give_up_device, has_fast_bfloat16
from napari_nucleiseg.core.store.tokens import PatchTokens

logger = logging.getLogger(__name__)
Message = Callable[[str], None]
T = TypeVar("T")
# Patches at once; on a CPU few, so that the first answer comes soon.
BATCHES = {"cuda": 64, "mps": 16, "cpu": 4}

_copies: weakref.WeakKeyDictionary[nn.Module, dict[str, nn.Module]] = weakref.WeakKeyDictionary()
_copies_lock = threading.Lock()


class EncoderForward:
    """Runs an encoder, for one thread; survives a full memory and a lost GPU.

    Parameters
    ----------
    encoder : LoadedEncoder
        Its own network is left untouched, on the CPU.
    device : str
        ``auto``, ``cuda``, ``mps``, ``cpu``.
    exact : bool
        Compute in float32 also where the hardware multiplies bfloat16 faster.
    on_message : callable, optional
        Told in a sentence when the device or the batch had to change; default the log.
    """

    def __init__(
        self,
        encoder: LoadedEncoder,
        device: str = "auto",
        *,
        exact: bool = False,
        on_message: Message | None = None,
    ) -> None:
        self.spec = encoder.spec
        self._source, self._exact = encoder, exact
        self._tell = on_message or logger.warning
        self._use(choose_device(device))

    def _use(self, device: torch.device) -> None:
        self.device = device
        self.batch_size = BATCHES.get(device.type, 4)
        self._dtype = torch.bfloat16 if has_fast_bfloat16(device) and not self._exact else torch.float32
        with _copies_lock:
            copies = _copies.setdefault(self._source.network, {})
            if str(device) not in copies:
                placed = copy.deepcopy(self._source.network).eval().requires_grad_(False)
                copies[str(device)] = placed.to(device)
            self._network = copies[str(device)]
        mean, std = torch.tensor(self.spec.mean), torch.tensor(self.spec.std)
        self._mean, self._std = (255 * mean).to(device), (255 * std).to(device)

    def patches(self, pixels: NDArray[np.uint8]) -> list[PatchTokens]:
        """Return what the encoder says of patches.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n, y, x, 3)
            RGB at the encoder's pixel size.

        Raises
        ------
        ModelError
            If not even one patch fits, or the network cannot run.
        """
        found: list[PatchTokens] = []
        while len(found) < len(pixels):
            part = pixels[len(found) : len(found) + self.batch_size]
            said = self._run(lambda part=part: self._attend(self._normalised(part)), len(part))  # type: ignore[misc]
            if said is not None:
                features, attention, rollout = said
                found += [PatchTokens(*parts) for parts in zip(features, attention, rollout, strict=True)]
        return found

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of patches alone, ``(n, embed)`` float32; see `patches`."""
        found: list[NDArray[np.float32]] = []
        done = 0
        while done < len(pixels):
            part = pixels[done : done + self.batch_size]
            said = self._run(lambda part=part: self._describe(self._normalised(part)), len(part))  # type: ignore[misc]
            if said is not None:
                found.append(said)
                done += len(part)
        return np.concatenate(found) if found else np.zeros((0, self.spec.embed), np.float32)

    def query(self, pixels: NDArray[np.uint8], token: int) -> NDArray[np.float32]:
        """Return what one token of one patch attends to, ``(layers, heads, side, side)`` float32.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (y, x, 3)
            The patch.
        token : int
            0 is the class token, then row by row from 1.
        """
        while True:
            said = self._run(lambda: self._attend(self._normalised(pixels[None]), token, rollout=False), 1)
            if said is not None:
                return np.asarray(said[1][0], np.float32)

    def region(self, features: NDArray[np.floating], token: int = 0) -> PatchTokens:
        """Return what a region encoder says of a grid of features.

        Parameters
        ----------
        features : ndarray, shape (rows, columns, features)
            Of the patches of the region.
        token : int
            The one that attends: 0 is the class token, then row by row from 1.

        Returns
        -------
        PatchTokens
            Attention ``(layers, heads, rows, columns)``.
        """
        if features.shape[-1] != self.spec.features:
            raise ModelError(
                f"{self.spec.name} reads {self.spec.features} features of a patch, not {features.shape[-1]}; "
                "use it with the encoder of patches that it was trained with"
            )
        grid = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).permute(2, 0, 1)[None]
        while True:
            said = self._run(lambda: self._attend(grid.to(self.device), token), 1)
            if said is not None:
                return PatchTokens(said[0][0], said[1][0], said[2][0])

    @torch.inference_mode()
    def _attend(
        self, x: Tensor, token: int = 0, *, rollout: bool = True
    ) -> tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.float16]]:
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            said = self._encoder.attend(x, query=token, rollout=rollout)
        rolled = said.attention[:, 0, 0] if said.rollout is None else said.rollout
        first, second, third = (_half(part) for part in (said.features, said.attention, rolled))
        return first, second, third

    @torch.inference_mode()
    def _describe(self, x: Tensor) -> NDArray[np.float32]:
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            return np.asarray(self._encoder(x).float().cpu().numpy(), np.float32)

    @property
    def _encoder(self) -> Encoder:
        return self._network  # type: ignore[return-value]  # what is registered as an encoder can do this

    def _normalised(self, pixels: NDArray[np.uint8]) -> Tensor:
        values = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).float()
        return ((values - self._mean) / self._std).permute(0, 3, 1, 2)

    def _run(self, call: Callable[[], T], size: int) -> T | None:
        """Return what `call` returns; None if batch or device had to change and it is to be tried again."""
        try:
            return call()
        except RuntimeError as error:
            remedy = self._remedy(error, size)
        self._tell(remedy)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _remedy(self, error: RuntimeError, size: int) -> str:
        text = str(error).lower()
        full = isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "allocate memory" in text
        if full and size > 1:
            self.batch_size = size // 2
            return f"The {self.device.type} memory is full: going on with {size // 2} patches at a time."
        if self.device.type != "cpu" and (full or "cuda" in text or "cublas" in text or "mps" in text):
            if not full:
                give_up_device(self.device)
            self._use(torch.device("cpu"))
            return f"The GPU cannot be used ({str(error).splitlines()[0]}): going on, more slowly, on the CPU."
        if full:
            raise ModelError(f"there is not enough memory to run {self.spec.name}; close other programs") from error
        raise ModelError(f"{self.spec.name} cannot run: {error}") from error


def _half(values: Tensor) -> NDArray[np.float16]:
    return np.asarray(values.to(torch.float16).cpu().numpy(), np.float16)
