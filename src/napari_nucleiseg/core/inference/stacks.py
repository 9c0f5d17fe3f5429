"""From a z-stack to nuclei in three dimensions: block by block with overlap, in bounded memory."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions, Instances, decoder
from napari_nucleiseg.core.errors import ModelError, VoxelSizeError
from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.core.inference.device import not_finite
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.slides.voxels import (
    SLAB,
    VolumeLike,
    check_volume,
    checked_voxel,
    extent,
    grey_levels,
    linear,
    read_block,
)

Cancelled = Callable[[], bool]
# Of voxels so much larger than the network's, nuclei cannot be seen; of so much smaller ones, a block is too much.
_COARSEST, _FINEST = 10.0, 50.0
# At the edge of the stack a few mirrored voxels are enough.
_MIRRORED = 4
# A nucleus whose centroid is this near to two blocks may be found by both; what is there already stays.
_SLACK = 1.0


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What may be chosen for a stack.

    Parameters
    ----------
    threshold : float or None
        Foreground probability above which a voxel belongs to a nucleus; None takes what the weights recommend.
    min_area_um2 : float or None
        Smaller nuclei are dropped: those whose volume is below that of a ball with this section, square micrometres.
    device : str
        ``auto``, ``cuda``, ``mps`` or ``cpu``.
    """

    threshold: float | None = None
    min_area_um2: float | None = None
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class BlockDone:
    """What is reported after each block.

    Parameters
    ----------
    done, total : int
        Blocks.
    nuclei : int
        Found so far; the ids are 1 to this.
    """

    done: int
    total: int
    nuclei: int


@dataclass(frozen=True, slots=True)
class Block:
    """Part of a stack, in the network's voxels, half-open ``(z, y, x)``.

    Parameters
    ----------
    core : tuple of slice
        What it owns: a nucleus belongs to the block in whose core its centroid lies.
    start, shape : tuple of int
        What the network sees; reaches beyond the stack at its edges.
    """

    core: tuple[slice, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]


def plan_blocks(sides: tuple[int, ...], spec: ModelSpec) -> list[Block]:
    """Return the blocks that cover a stack of these sides, in the network's voxels."""
    along = [_blocks_along(side, spec) for side in sides]
    return [
        Block(tuple(part[0] for part in parts), tuple(part[1] for part in parts), tuple(part[2] for part in parts))
        for parts in itertools.product(*along)
    ]


def _blocks_along(side: int, spec: ModelSpec) -> list[tuple[slice, int, int]]:
    found = []
    count = math.ceil(side / spec.tile_px)
    for number in range(count):
        first, stop = side * number // count, side * (number + 1) // count
        start = max(first - spec.halo_px, -_MIRRORED)
        wanted = min(stop + spec.halo_px, side + _MIRRORED) - start
        found.append((slice(first, stop), start, math.ceil(wanted / spec.size_multiple) * spec.size_multiple))
    return found


def segment_stack(
    volume: VolumeLike,
    model: LoadedModel,
    voxel_um: tuple[float, float, float],
    options: StackOptions | None = None,
    *,
    out: NDArray[np.int32] | None = None,
    on_progress: Callable[[BlockDone], None] | None = None,
    cancelled: Cancelled = lambda: False,
    levels: tuple[float, float] | None = None,
) -> NDArray[np.int32]:
    """Find the nuclei of a z-stack.

    Parameters
    ----------
    volume : array-like, shape (z, y, x) or (z, y, x, 3)
        One channel, bright nuclei; or colours, dark nuclei. Read block by block, so it may be a lazy array.
    model : LoadedModel
        Of a network for stacks.
    voxel_um : tuple of float
        Micrometres per voxel ``(z, y, x)``.
    options : StackOptions, optional
        Default what the weights recommend.
    out : ndarray of int32, shape (z, y, x), optional
        Zeros to write the labels to, such as an ``np.memmap`` where they do not fit into memory.
    on_progress : callable, optional
        Called after each block.
    cancelled : callable
        Polled before each block; after it says True, the labels of the blocks that are done are returned.
    levels : tuple of float, optional
        Grey values that become 0 and 1, of a volume that is part of a stack; default its own, see `grey_levels`.

    Returns
    -------
    ndarray of int32, shape (z, y, x)
        0 is background, nuclei are 1..n.

    Raises
    ------
    ModelError
        If the model is none for stacks, or cannot run.
    VoxelSizeError
        If the voxel size cannot be right, or does not suit the model.
    UnsupportedImageError
        If it is no stack of real numbers.
    """
    check_volume(volume)
    labels = np.zeros(tuple(volume.shape[:3]), np.int32) if out is None else out
    for step in segment_blocks(volume, model, voxel_um, labels, options, cancelled=cancelled, levels=levels):
        if on_progress is not None:
            on_progress(step)
    return labels


def segment_blocks(
    volume: VolumeLike,
    model: LoadedModel,
    voxel_um: tuple[float, float, float],
    labels: NDArray[np.int32],
    options: StackOptions | None = None,
    *,
    cancelled: Cancelled = lambda: False,
    levels: tuple[float, float] | None = None,
) -> Iterator[BlockDone]:
    """Find the nuclei of a z-stack, one block at each step, written to `labels`; see `segment_stack`.

    Where `labels` is not 0, nothing is changed.
    """
    chosen = options or StackOptions()
    step = model_step(model, voxel_um)
    check_volume(volume)
    if labels.shape != tuple(volume.shape[:3]):
        raise ModelError(f"the labels have the shape {labels.shape}, the stack {tuple(volume.shape[:3])}")
    decode = decode_options(model, chosen)
    levels = levels or grey_levels(volume)
    network = _StackForward(model, chosen.device)
    sides = extent(tuple(volume.shape), step)
    blocks = plan_blocks(sides, model.spec)
    found = int(labels.max(initial=0))
    for number, block in enumerate(blocks, start=1):
        if cancelled():
            return
        maps = network(read_block(volume, step, block.start, block.shape, levels))
        inside, first = _inside(block, sides)
        maps = {name: values[(slice(None), *inside)] for name, values in maps.items()}
        instances = decoder(model.spec.decoder).decode(maps, model.spec.mpp_um, decode)
        foreground = maps["nuclei"][0] > decode.threshold if "nuclei" in maps else instances.labels > 0
        numbers = _owned(instances, block, first, _seen(labels, instances.labels.shape, first, step), found)
        found = max(found, int(numbers.max(initial=0)))
        _write(labels, numbers[instances.labels], foreground, first, step)
        yield BlockDone(number, len(blocks), found)


def model_step(model: LoadedModel, voxel_um: tuple[float, float, float]) -> ZYX:
    """Return the stack's voxels per voxel of the model; refuse what does not fit together."""
    spec = model.spec
    if spec.dimensions != 3:
        raise ModelError(
            f"model {model.card.name} is for slides and pictures, not for stacks. Train one for stacks first "
            "(napari-nucleiseg train --network unet-3d)."
        )
    voxel = checked_voxel(voxel_um)
    step = ZYX(*(spec.mpp_um / side for side in voxel))
    if min(step) < 1 / _COARSEST or max(step) > _FINEST:
        raise VoxelSizeError(
            f"model {model.card.name} sees voxels of {spec.mpp_um:g} µm, and those of this stack measure "
            f"{voxel.z:g} x {voxel.y:g} x {voxel.x:g} µm: that is too far apart. Check the voxel size."
        )
    return step


def decode_options(model: LoadedModel, options: StackOptions) -> DecodeOptions:
    """Return what the decoder is told: what was chosen, else what the weights recommend."""
    card = model.card
    chosen = DecodeOptions(
        card.threshold if options.threshold is None else options.threshold,
        card.min_area_um2 if options.min_area_um2 is None else options.min_area_um2,
    )
    if problem := chosen.validation_error():
        raise ModelError(problem)
    return chosen


class _StackForward:
    """Runs a network on blocks ``(z, y, x)``."""

    def __init__(self, model: LoadedModel, device: str) -> None:
        self._spec, self._device = model.spec, choose_device(device)
        network = model.network if self._device.type == "cpu" else copy.deepcopy(model.network).to(self._device)
        self._network = network.eval()

    @torch.inference_mode()
    def __call__(self, block: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        spec = self._spec
        try:
            x = (torch.from_numpy(block)[None, None].to(self._device) - spec.mean[0]) / spec.std[0]
            raw = self._network(x)
            kept = {head: raw[head.name][0].float() for head in spec.heads}
            maps = {
                head.name: (torch.sigmoid(values) if head.activation == "sigmoid" else values).cpu().numpy()
                for head, values in kept.items()
            }
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error).lower():
                sides = " x ".join(map(str, block.shape))
                raise ModelError(
                    f"the memory of the {self._device.type} does not hold {spec.name} on a block of {sides} voxels. "
                    "Choose the device cpu, close other programs, or train a narrower network (width)."
                ) from error
            raise ModelError(f"{spec.name} cannot run: {error}") from error
        if broken := [name for name, values in maps.items() if not np.isfinite(values.sum())]:
            raise not_finite(spec.name, broken, self._device)
        return maps


def _inside(block: Block, sides: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """Return the part of a block's maps that lies in the stack, and its first voxel."""
    first = tuple(max(start, 0) for start in block.start)
    stops = (min(start + length, side) for start, length, side in zip(block.start, block.shape, sides, strict=True))
    parts = tuple(slice(at - start, stop - start) for at, start, stop in zip(first, block.start, stops, strict=True))
    return parts, first


def _seen(labels: NDArray[np.int32], shape: tuple[int, ...], first: tuple[int, ...], step: ZYX) -> NDArray[np.int32]:
    """Return the labels that are there already, at the middle of the network's voxels."""
    places = [
        np.minimum(((start + np.arange(side) + 0.5) * factor).astype(np.intp), length - 1)
        for start, side, factor, length in zip(first, shape, step, labels.shape, strict=True)
    ]
    box = tuple(slice(int(place[0]), int(place[-1]) + 1) for place in places)
    return labels[box][np.ix_(*(place - place[0] for place in places))]


def _owned(
    instances: Instances, block: Block, first: tuple[int, ...], seen: NDArray[np.int32], found: int
) -> NDArray[np.int32]:
    """Return the number of each nucleus of a block, 0 for those that other blocks own or have found.

    Returns
    -------
    ndarray of int32, shape (n + 1,)
        By id; new numbers begin after `found`.
    """
    centroids = instances.centroids + np.asarray(first, np.float32)
    lows = np.array([core.start for core in block.core]) - 0.5 - _SLACK
    highs = np.array([core.stop for core in block.core]) - 0.5 + _SLACK
    mine = np.all((centroids >= lows) & (centroids < highs), axis=1)
    taken = np.bincount(instances.labels[seen > 0], minlength=len(instances) + 1)[1:]
    mine &= 2 * taken <= instances.areas
    numbers = np.zeros(len(instances) + 1, np.int32)
    numbers[1:][mine] = found + 1 + np.arange(int(mine.sum()), dtype=np.int32)
    return numbers


def _write(
    labels: NDArray[np.int32],
    block: NDArray[np.int32],
    foreground: NDArray[np.bool_],
    first: tuple[int, ...],
    step: ZYX,
) -> None:
    """Write a block's nuclei at the stack's own voxels, where there is none yet, some planes at a time.

    Where the stack is finer than the network, outlines are those of the foreground interpolated in between: no steps.
    """
    ranges = [
        range(math.floor(start * factor), min(math.ceil((start + side) * factor), length))
        for start, side, factor, length in zip(first, block.shape, step, labels.shape, strict=True)
    ]
    at = [
        (np.arange(inside.start, inside.stop) + 0.5) / factor - 0.5 - start
        for inside, start, factor in zip(ranges, first, step, strict=True)
    ]
    nearest = [np.clip(np.floor(place + 0.5).astype(np.intp), 0, side - 1) for place, side in
               zip(at, block.shape, strict=True)]  # fmt: skip
    soft = foreground.astype(np.float32) if max(step) > 1 else None
    for begin in range(0, len(ranges[0]), SLAB):
        planes = slice(begin, begin + SLAB)
        box = (slice(ranges[0][begin], ranges[0][begin] + len(at[0][planes])),
               *(slice(one.start, one.stop) for one in ranges[1:]))  # fmt: skip
        new = block[np.ix_(nearest[0][planes], nearest[1], nearest[2])]
        if soft is not None:
            shares = linear(linear(linear(soft, at[0][planes], 0), at[1], 1), at[2], 2)
            new = np.where(shares > 0.5, new, 0)
        there = labels[box]
        np.copyto(there, new, where=there == 0)
