"""What a person corrected, as small pictures at the model's pixel size; what nobody looked at is marked as unknown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.regions import HOLD_OUT, TEACH

UNKNOWN = -1
NOWHERE = Region(0, 0, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A corrected piece of a slide.

    Parameters
    ----------
    slide : str
        Name of the slide, for people.
    fingerprint : str
        What identifies the slide wherever it lies.
    region : str
        Name of the annotated region, for people.
    number : int
        Of the region in the slide's project; 0 for approved nuclei outside of all regions.
    role : str
        ``teach`` or ``hold out``.
    image : ndarray of uint8, shape (y, x, 3)
        RGB at the model's pixel size, with some of what surrounds the region.
    labels : ndarray of int32, shape (y, x)
        Ids of nuclei; 0 is known to be background, negative is unknown.
    mpp_um : float
        Micrometres per pixel.
    box : Region
        What the picture covers, level-0 pixels.
    classes : tuple of int
        Classes of the nuclei in it, ascending; 0 is "no class".
    attention : ndarray of int8, shape (y, x), or None
        Where a person painted how the model should look: 1 look here, 0 do not, negative unknown.
    """

    slide: str
    fingerprint: str
    region: str
    number: int
    role: str
    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    mpp_um: float
    box: Region = NOWHERE
    classes: tuple[int, ...] = ()
    attention: NDArray[np.int8] | None = None

    @property
    def known(self) -> NDArray[np.bool_]:
        """Pixels that a person vouches for, shape (y, x)."""
        return self.labels >= 0

    @property
    def teaches(self) -> bool:
        """Whether there is anything to learn from: nuclei, background, or painted attention."""
        return self.attention is not None or bool(self.known.any())

    @property
    def ids(self) -> NDArray[np.int32]:
        """Ids of the nuclei, ascending."""
        return np.unique(self.labels[self.labels > 0])

    @property
    def key(self) -> tuple[str, int]:
        """What tells its region from all others: examples of one key are never both learnt from and held out."""
        return self.fingerprint or self.slide, self.number

    @property
    def title(self) -> str:
        """Name of the region for people, with its slide."""
        return f"{self.region} of {self.slide}"


def within(example: Example, inside: NDArray[np.bool_]) -> Example:
    """Return what an example says of the pixels `inside`, shape (y, x); of all others nothing is known."""
    labels = np.where(inside, example.labels, UNKNOWN).astype(np.int32)
    return replace(example, labels=labels, attention=painted_inside(example.attention, inside))


def painted_inside(attention: NDArray[np.int8] | None, inside: NDArray[np.bool_]) -> NDArray[np.int8] | None:
    """Return painted attention on the pixels `inside`, shape (y, x); None if there is none."""
    if attention is None:
        return None
    kept = np.where(inside, attention, UNKNOWN).astype(np.int8)
    return kept if (kept >= 0).any() else None


def fingerprint_of(examples: Iterable[Example]) -> str:
    """Return what identifies exactly these pictures and labels, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.key, example.role, example.labels.shape, example.mpp_um)).encode())
        digest.update(np.ascontiguousarray(example.image).tobytes())
        digest.update(np.ascontiguousarray(example.labels).tobytes())
        if example.attention is not None:
            digest.update(b"attention" + np.ascontiguousarray(example.attention).tobytes())
    return digest.hexdigest()[:16]


def count_nuclei(examples: Iterable[Example]) -> int:
    """Return the number of nuclei in all of them."""
    return sum(len(example.ids) for example in examples)


def by_role(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Return those to learn from and those to be held out."""
    teach = [example for example in examples if example.role == TEACH]
    return teach, [example for example in examples if example.role == HOLD_OUT]
