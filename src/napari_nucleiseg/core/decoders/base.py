"""What every decoder offers: heads to nuclei (decode) and nuclei to heads (targets)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.spec import HeadSpec

Maps = Mapping[str, NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What a user may turn without running the network again.

    Parameters
    ----------
    threshold : float
        Foreground probability above which a pixel belongs to a nucleus, 0..1.
    min_area_um2 : float
        Nuclei smaller than this many square micrometres are dropped.
    """

    threshold: float = 0.5
    min_area_um2: float = 8.0

    def validation_error(self) -> str | None:
        """Return what is wrong with the values as a sentence, or None."""
        if not 0.0 < self.threshold < 1.0:
            return f"the threshold must lie between 0 and 1, not {self.threshold}"
        if not math.isfinite(self.min_area_um2) or self.min_area_um2 < 0:
            return f"the smallest area cannot be negative and must be a finite number ({self.min_area_um2} um2)"
        return None


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPixels:
    """The pixels of a label image that may be other than 0.

    Parameters
    ----------
    flat : ndarray of integers, shape (m,)
        Raveled positions in ascending order.
    labels : ndarray of int32, shape (m,)
        What is there.
    """

    flat: NDArray[np.integer]
    labels: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Instances:
    """Nuclei of one decoded field, numbered 1..n in raster order of nothing in particular.

    Parameters
    ----------
    shape : tuple of int
        ``(height, width)`` of the field; of stacks ``(z, y, x)``.
    pixels : LabelledPixels
        Which nucleus is where. To pass over all of a field, as `labels` does, costs several times as much.
    centroids : ndarray of float32, shape (n, 2)
        ``(y, x)`` in pixels; row i belongs to id i + 1.
    areas : ndarray of int64, shape (n,)
        Pixels of each nucleus.
    boxes : ndarray of int64, shape (n, 4)
        ``(y0, x0, y1, x1)`` half-open.
    scores : ndarray of float32, shape (n,)
        Mean foreground probability inside the nucleus, 0..1.
    """

    shape: tuple[int, ...]
    pixels: LabelledPixels
    centroids: NDArray[np.float32]
    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]
    scores: NDArray[np.float32]

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """The nuclei as a label image, int32 ``(y, x)``; 0 is background."""
        labels = np.zeros(self.shape, np.int32)
        labels.reshape(-1)[self.pixels.flat] = self.pixels.labels
        return labels

    def __len__(self) -> int:
        return len(self.areas)


class Decoder(Protocol):
    """Turns activated maps into nuclei; and labels into training targets. Stateless."""

    name: str
    heads: tuple[HeadSpec, ...]
    # Heads that may come as they are stored (probability times 255 as uint8, others as float16): to convert a whole map
    # costs more than what is done with it.
    as_stored: frozenset[str]
    # One more whenever the same maps give other nuclei, so that no slide holds nuclei of both.
    revision: int

    def decode(self, maps: Maps, mpp_um: float, options: DecodeOptions) -> Instances:
        """Find the nuclei.

        Parameters
        ----------
        maps : mapping of str to ndarray of float32, shape (channels, y, x)
            Activated heads (sigmoid maps in 0..1, offsets in model pixels); those of `as_stored` may also be
            uint8 or float16, as they are stored.
        mpp_um : float
            Micrometres per pixel of the maps.
        options : DecodeOptions
            Threshold and smallest area.
        """

    def targets(self, labels: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """Return what each head should have said of an instance map ``(y, x)``: ``(channels, y, x)`` each."""


def as_float32(values: NDArray[np.float16] | NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert numbers to float32."""
    if values.dtype == np.float32:
        return cast("NDArray[np.float32]", values)
    # torch converts half precision several times faster than numpy does.
    import torch

    return cast("NDArray[np.float32]", torch.from_numpy(values).float().numpy())


_MODULES = ("offsets", "distance", "border", "watershed", "hover", "volume")


def decoder(name: str) -> Decoder:
    """Return the decoder called `name`.

    Raises
    ------
    ModelError
        If there is none.
    """
    import importlib

    if name not in _MODULES:
        raise ModelError(f"there is no decoder called {name}; there are {', '.join(_MODULES)}")
    found: Decoder = importlib.import_module(f"napari_nucleiseg.core.decoders.{name}").DECODER
    return found
