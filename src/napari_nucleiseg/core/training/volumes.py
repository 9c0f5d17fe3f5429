"""Labelled z-stacks in memory and random crops of them at the network's voxel size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from napari_nucleiseg.core.errors import DataError, SlideError
from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.core.slides.stacks import open_stack
from napari_nucleiseg.core.slides.tiffpage import DECODE_ERRORS
from napari_nucleiseg.core.slides.voxels import check_volume, grey_levels, read_block
from napari_nucleiseg.core.training.config import AugmentConfig, DataSet
from napari_nucleiseg.core.training.weightmap import numbered

_SUFFIXES = (".tif", ".tiff")
# Half of the crops are around a nucleus: in sparse stacks most places are empty.
_AROUND_NUCLEI = 0.5
# Of a few annotated planes, most places show nothing.
_TRIES = 20


@dataclass(frozen=True, slots=True, eq=False)
class LabelledStack:
    """A z-stack with its nuclei.

    Parameters
    ----------
    name : str
        Stem of the file.
    volume : ndarray, shape (z, y, x) or (z, y, x, 3)
        As stored.
    labels : ndarray of int32, shape (z, y, x)
        Instance ids, 0 is background; negative means not annotated.
    weights : ndarray of float32, shape (z, y, x), or None
        How much each voxel counts; None is 1 wherever it is annotated.
    voxel_um : ZYX
        Micrometres per voxel.
    levels : tuple of float
        Grey values that become 0 and 1.
    boxes : ndarray of float64, shape (n, 3)
        Middle of the box of each nucleus, voxels.
    """

    name: str
    volume: NDArray[Any]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32] | None
    voxel_um: ZYX
    levels: tuple[float, float]
    boxes: NDArray[np.float64]

    @property
    def size_um3(self) -> float:
        """Volume, cubic micrometres."""
        return float(self.labels.size * np.prod(self.voxel_um))


StackSet = tuple[list[LabelledStack], float]


def load_stacks(data: DataSet) -> list[LabelledStack]:
    """Read all pairs of a data set of stacks.

    A folder has ``images/`` and ``labels/`` whose TIFFs pair up by name, ``(z, y, x)``, images also of three colours. A
    folder ``weights/`` may say how much each voxel counts: 0 is not annotated, so that a few planes of a stack can be
    annotated and the others be left (Çiçek et al., MICCAI 2016). Negative labels say the same.

    Raises
    ------
    DataError
        If the folder lacks one of them, a pair is incomplete, sizes differ, or the voxel size is not known.
    """
    root = Path(data.path)
    if not (root / "images").is_dir() or not (root / "labels").is_dir():
        raise DataError(f"{root} needs two folders, images/ and labels/, whose files have the same names")
    found = [
        _load(path, root, data)
        for path in sorted((root / "images").iterdir())
        if path.suffix.lower() in _SUFFIXES and any(fnmatch(path.stem, pattern) for pattern in data.include)
    ]
    if not found:
        raise DataError(f"{root / 'images'} holds no stack (.tif) that matches {', '.join(data.include)}")
    return found


def _load(path: Path, root: Path, data: DataSet) -> LabelledStack:
    try:
        stack = open_stack(path)
        volume = np.asarray(stack.channel(0))
        check_volume(volume)
    except SlideError as error:
        raise DataError(f"{error} A network for stacks learns from stacks: planes along z.") from error
    if len(stack.volumes) > 1:
        raise DataError(f"{path} holds {len(stack.volumes)} channels; save the one that shows nuclei by itself")
    ids = _read_beside(root / "labels", path, volume.shape[:3])
    labels = numbered(ids.astype(np.int64) if ids.dtype.kind == "f" else ids)
    weighted = (root / "weights").is_dir()
    weights = _read_beside(root / "weights", path, volume.shape[:3]).astype(np.float32) if weighted else None
    voxel_um = _voxel(path, stack.voxel_um, data)
    return LabelledStack(path.stem, volume, labels, weights, voxel_um, grey_levels(volume), middles_of(labels))


def middles_of(labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the middle of the box of each nucleus of labels ``(z, y, x)``, voxels, shape (n, 3)."""
    boxes = (box for box in ndimage.find_objects(np.maximum(labels, 0)) if box is not None)
    middles = [[(part.start + part.stop) / 2 for part in box] for box in boxes]
    return np.array(middles, np.float64).reshape(-1, 3)


def _read_beside(folder: Path, image: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    for suffix in _SUFFIXES:
        path = folder / f"{image.stem}{suffix}"
        if not path.exists():
            continue
        try:
            values: NDArray[Any] = tifffile.imread(path)
        except (OSError, *DECODE_ERRORS) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        if values.shape != shape:
            raise DataError(f"{image.name}: the stack is {shape}, {path.parent.name} says {values.shape}")
        if values.dtype.kind not in "iufb":
            raise DataError(f"{path} must hold numbers, not {values.dtype}")
        return values
    raise DataError(f"{folder} has no file called {image.stem} ({', '.join(_SUFFIXES)})")


def _voxel(path: Path, stated: ZYX | None, data: DataSet) -> ZYX:
    """Return the voxel size: what the data set states, else the file."""
    z = data.z_um or (stated and stated.z)
    y, x = (data.mpp_um, data.mpp_um) if data.mpp_um else (stated and stated.y, stated and stated.x)
    if not (z and y and x):
        raise DataError(
            f"{path} does not say how large its voxels are; state mpp_um and z_um of the data set, such as "
            f"{data.path},mpp_um=0.25,z_um=1"
        )
    return ZYX(z, y, x)


@dataclass(frozen=True, slots=True, eq=False)
class StackCrop:
    """A block of a labelled stack at the network's voxel size: all ``(z, y, x)``.

    `image` is float32 0..1, `labels` int32 with negative ones where nothing is known, `weights` float32.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]


class StackSampler:
    """Draws random crops; the crop with number i is a function of the seed and i alone.

    Parameters
    ----------
    sets : sequence of (list of LabelledStack, float)
        Stacks of each data set and the probability share of the set.
    mpp_um : float
        Side of the network's voxels.
    sides : tuple of int
        Of the crops, ``(z, y, x)``.
    augment : AugmentConfig
        `scale`, `colour` (brightness, contrast and gamma), `blur_px` and `noise` are heeded; crops are mirrored along
        every axis and turned by right angles in the plane besides.
    seed : int
        Seed.
    """

    def __init__(
        self, sets: Sequence[StackSet], mpp_um: float, sides: tuple[int, int, int], augment: AugmentConfig, seed: int
    ) -> None:
        self.stacks = [stack for stacks, _ in sets for stack in stacks]
        chance = [
            share * stack.size_um3 / sum(one.size_um3 for one in stacks) for stacks, share in sets for stack in stacks
        ]
        self.chance = np.asarray(chance) / np.sum(chance)
        self.mpp_um, self.sides, self.augment, self.seed = mpp_um, sides, augment, seed

    def draw(self, number: int) -> StackCrop:
        """Cut crop `number`."""
        rng = np.random.default_rng((self.seed, number))
        stack = self.stacks[int(rng.choice(len(self.stacks), p=self.chance))]
        scale = self.augment.scale
        factor = float(np.exp(rng.uniform(-1, 1) * np.log(scale))) if scale > 1 else 1.0
        step = ZYX(*(self.mpp_um * factor / side for side in stack.voxel_um))
        # The sides change places when the crop is turned.
        turned = bool(rng.random() < 0.5)
        sides = (self.sides[0], self.sides[2], self.sides[1]) if turned else self.sides
        start, labels, weights = self._known_part(stack, step, sides, rng)
        image = read_block(stack.volume, step, start, sides, stack.levels)
        flips = np.flatnonzero(rng.random(3) < 0.5)
        image = self._changed(image, rng)
        return StackCrop(_moved(image, flips, turned), _moved(labels, flips, turned), _moved(weights, flips, turned))

    def _known_part(
        self, stack: LabelledStack, step: ZYX, sides: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[tuple[int, ...], NDArray[np.int32], NDArray[np.float32]]:
        """Return a place with its labels and weights; where little is annotated, one at which something is."""
        for _ in range(_TRIES):
            start = self._start(stack, step, sides, rng)
            labels, weights = _nearest(stack, step, start, sides)
            if weights.any():
                break
        return start, labels, weights

    def _start(
        self, stack: LabelledStack, step: ZYX, sides: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[int, ...]:
        """Return the first voxel of a crop, inside the stack where that is large enough."""
        around = len(stack.boxes) and rng.random() < _AROUND_NUCLEI
        place = stack.boxes[int(rng.integers(len(stack.boxes)))] if around else rng.uniform(0, stack.labels.shape)
        start = []
        for at, factor, side, length in zip(place, step, sides, stack.labels.shape, strict=True):
            room = length / factor - side
            first = at / factor - side / 2 + (rng.uniform(-side / 4, side / 4) if around else 0)
            start.append(round(float(np.clip(first, 0, room) if room > 0 else room / 2)))
        return tuple(start)

    def _changed(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Change brightness, contrast and gamma; blur; add noise."""
        change = self.augment
        if change.colour:
            gamma = float(np.exp(rng.normal(0, 2 * change.colour)))
            contrast, brightness = 1 + rng.normal(0, change.colour), rng.normal(0, 0.5 * change.colour)
            image = np.clip(image, 0, 1) ** np.float32(gamma) * np.float32(contrast) + np.float32(brightness)
        if change.blur_px and rng.random() < 0.35:
            image = ndimage.gaussian_filter(image, rng.uniform(0.2, change.blur_px))
        if change.noise and rng.random() < 0.5:
            image = image + rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0, change.noise))
        return np.asarray(np.clip(image, 0, 1), np.float32)


def _nearest(
    stack: LabelledStack, step: ZYX, start: tuple[int, ...], sides: tuple[int, ...]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return labels and weights of a crop; beyond the stack nothing is known."""
    places, inside = [], np.ones(sides, np.bool_)
    for axis, (first, side, factor) in enumerate(zip(start, sides, step, strict=True)):
        at = np.floor((first + np.arange(side) + 0.5) * factor).astype(np.intp)
        length = stack.labels.shape[axis]
        within = ((at >= 0) & (at < length)).reshape([-1 if one == axis else 1 for one in range(3)])
        inside &= within
        places.append(np.clip(at, 0, length - 1))
    grid = np.ix_(*places)
    labels = np.where(inside, stack.labels[grid], -1).astype(np.int32)
    weights = np.ones(sides, np.float32) if stack.weights is None else stack.weights[grid]
    labels[weights <= 0] = -1
    return labels, np.where(labels >= 0, weights, 0).astype(np.float32)


def _moved(values: NDArray[Any], flips: NDArray[np.integer], turned: bool) -> NDArray[Any]:
    values = values.transpose(0, 2, 1) if turned else values
    return np.ascontiguousarray(np.flip(values, tuple(int(axis) for axis in flips)))
