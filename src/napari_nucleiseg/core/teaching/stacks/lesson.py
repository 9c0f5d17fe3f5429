"""What a person corrected in a z-stack, and which part of it a network is measured on and does not learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.core.slides.voxels import VolumeLike, check_volume, checked_voxel
from napari_nucleiseg.core.teaching.examples import UNKNOWN
from napari_nucleiseg.core.teaching.verdict import LEAST_NUCLEI
from napari_nucleiseg.core.training.weightmap import numbered

LEAST_TO_LEARN = 8
# Shares of the planes that are tried one after another, until enough nuclei are held out.
SHARES = (0.25, 0.33, 0.4, 0.5)

Box = tuple[slice, slice]


@dataclass(frozen=True, slots=True, eq=False)
class StackLesson:
    """Planes of a stack on which every nucleus is right.

    Parameters
    ----------
    name : str
        Of the stack, for people.
    volume : array-like, shape (z, y, x) or (z, y, x, 3)
        One channel; may be lazy.
    labels : ndarray of int, shape (z, y, x)
        Instance ids, 0 is background. Only `planes` of it are believed.
    planes : tuple of int
        Numbers of the planes that a person vouches for, from 0, ascending.
    voxel_um : ZYX
        Micrometres per voxel.
    fingerprint : str
        What identifies the stack wherever it lies, see `stack_key`.
    licence : str
        SPDX expression of the stack; empty is one's own.
    """

    name: str
    volume: VolumeLike
    labels: NDArray[np.integer]
    planes: tuple[int, ...]
    voxel_um: ZYX
    fingerprint: str = ""
    licence: str = ""

    def checked(self) -> None:
        """Refuse what nobody can learn from.

        Raises
        ------
        TeachingError
            If no plane is named, or one that is not there, or labels and stack differ in size.
        UnsupportedImageError
            If it is no stack of real numbers.
        VoxelSizeError
            If the voxel size cannot be right.
        """
        check_volume(self.volume)
        checked_voxel(self.voxel_um)
        shape = tuple(self.volume.shape[:3])
        if self.labels.shape != shape:
            raise TeachingError(
                f"The labels have the shape {self.labels.shape} and the stack {shape}: make them equal."
            )
        if not self.planes:
            raise TeachingError("Say which planes are right: the first and the last plane that you corrected.")
        if self.planes[0] < 0 or self.planes[-1] >= shape[0]:
            raise TeachingError(
                f"The stack has the planes 0 to {shape[0] - 1}; there is no plane "
                f"{self.planes[0] if self.planes[0] < 0 else self.planes[-1]}."
            )

    @property
    def digest(self) -> str:
        """What identifies exactly these labels of this stack, 16 hexadecimal digits."""
        found = hashlib.sha256(repr((self.fingerprint, self.name, self.planes, self.voxel_um)).encode())
        for plane in self.planes:
            found.update(np.ascontiguousarray(self.labels[plane]).tobytes())
        return found.hexdigest()[:16]

    @property
    def told(self) -> str:
        """The planes for people."""
        first, last, count = self.planes[0], self.planes[-1], len(self.planes)
        if count == 1:
            return f"plane {first}"
        return f"planes {first} to {last}" if last - first + 1 == count else f"{count} planes, {first} to {last}"


@dataclass(frozen=True, slots=True, eq=False)
class StackDivision:
    """What is learned and what is held out, cut apart across all planes: a nucleus is on one side only.

    Neighbouring planes show the same nuclei, so that planes held out would not be new to the network.

    Parameters
    ----------
    labels : dict of int to ndarray of int32, shape (y, x)
        What is learned of each plane; negative is not known.
    held : tuple of slice
        Rows and columns that are held out.
    learned_nuclei, held_nuclei : int
        Different nuclei of each side.
    """

    labels: dict[int, NDArray[np.int32]]
    held: Box
    learned_nuclei: int
    held_nuclei: int

    @property
    def told(self) -> str:
        """How the new model is judged, a sentence."""
        if not self.held_nuclei:
            return "There are no corrected nuclei to judge by."
        return (
            f"Judged on a part of the planes that it did not learn from ({self.held_nuclei} nuclei). Parts of one "
            "stack are alike: on other stacks it may do less well."
        )


def divide_stack(lesson: StackLesson) -> StackDivision:
    """Hold out one side of the corrected planes: as little of it as holds enough nuclei to judge by.

    Raises
    ------
    TeachingError
        If fewer than `LEAST_TO_LEARN` nuclei are left to learn from.
    """
    labels = numbered(np.stack([np.asarray(lesson.labels[plane]) for plane in lesson.planes]))
    planes = dict(zip(lesson.planes, labels, strict=True))
    count = len(_ids(planes.values()))
    tried = [_side_of(planes, count, share) for share in SHARES]
    enough = (one for one in tried if LEAST_NUCLEI <= len(one[1]) <= count - LEAST_TO_LEARN)
    # Where there are too few nuclei to judge by, as many as possible are learned from.
    box, held = next(enough, tried[0])
    learned = count - len(held)
    if learned < LEAST_TO_LEARN:
        raise TeachingError(
            f"There are only {count} nuclei on {lesson.told}; at least {LEAST_TO_LEARN} are needed to learn from, and "
            f"{LEAST_NUCLEI} more to judge by. Correct more planes, and teach again."
        )
    return StackDivision({z: _without(plane, box, held) for z, plane in planes.items()}, box, learned, len(held))


def _side_of(planes: Mapping[int, NDArray[np.int32]], count: int, share: float) -> tuple[Box, NDArray[np.int32]]:
    """Return the side of the planes that holds most nearly `share` of all nuclei, and their ids."""
    height, width = next(iter(planes.values())).shape
    found = [(box, _ids(plane[box] for plane in planes.values())) for box in _sides(height, width, share)]
    return min(found, key=lambda one: abs(len(one[1]) - share * count))


def _sides(height: int, width: int, share: float) -> list[Box]:
    """Return the top, bottom, left and right `share` of a plane."""
    rows, columns = max(1, round(height * share)), max(1, round(width * share))
    every = slice(None)
    return [
        (slice(0, rows), every),
        (slice(height - rows, height), every),
        (every, slice(0, columns)),
        (every, slice(width - columns, width)),
    ]


def _ids(planes: Iterable[NDArray[np.int32]]) -> NDArray[np.int32]:
    found = [np.unique(plane) for plane in planes]
    ids = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int32)
    return np.asarray(ids[ids > 0], np.int32)


def _without(plane: NDArray[np.int32], box: Box, held: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return a plane of which nothing is known where it is held out, nor of any nucleus that reaches there."""
    known = np.where(np.isin(plane, held), UNKNOWN, plane).astype(np.int32)
    known[box] = UNKNOWN
    return known
