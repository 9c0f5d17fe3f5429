"""Patches of slides and pictures to learn from, read once and kept in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.slides.pyramid import Slide, UInt8Image
from napari_nucleiseg.core.slides.tissue import tissue_mask
from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.dino.picture_crops import patch_views
from napari_nucleiseg.core.training.scales.samples import Places, ScaleSource, find_places
from napari_nucleiseg.core.training.view_config import ViewConfig

# Slides that are coarser than the encoder by more than this are left out: they would be enlarged out of nothing.
MOST_ENLARGED = 1.25


class Square(Protocol):
    """What a patch is."""

    @property
    def input_px(self) -> int:
        """Its side."""

    @property
    def mpp_um(self) -> float:
        """Micrometres of a pixel."""


class PatchSamples:
    """Patches whose crops teach an encoder of pixels.

    Parameters
    ----------
    patches : ndarray of uint8, shape (n, y, x, 3)
        RGB at the encoder's pixel size.
    config : DinoConfig
        How crops are cut.
    """

    def __init__(self, patches: UInt8Image, config: DinoConfig) -> None:
        self.patches, self.config = patches, config

    def __len__(self) -> int:
        """Return how many patches there are."""
        return len(self.patches)

    def crops(self, rng: np.random.Generator) -> tuple[list[UInt8Image], list[UInt8Image]]:
        """Return global and local crops ``(y, x, 3)`` of a patch that `rng` chooses."""
        return patch_views(self.patches[int(rng.integers(len(self.patches)))], self.config, rng)


def read_patches(
    sources: Sequence[ScaleSource], spec: Square, config: ViewConfig, count: int, stream: int = 0
) -> UInt8Image:
    """Read patches of tissue, ``(n, input_px, input_px, 3)``; slides count by how much tissue they have.

    Parameters
    ----------
    sources : sequence of ScaleSource
        Open slides.
    spec : Square
        Side and pixel size of a patch: the spec of an encoder.
    config : ViewConfig
        Least share of tissue, seed.
    count : int
        Most patches; fewer where slides have less room.
    stream : int
        Another number gives other patches under the same seed.

    Raises
    ------
    DataError
        If there is no place for a single patch.
    MissingPixelSizeError
        If a slide does not state its pixel size.
    """
    sources = fine_enough(sources, spec.mpp_um)
    places = places_of(sources, spec.mpp_um, [spec.input_px] * len(sources), config.tissue)
    chosen = choose_places(places, count, np.random.default_rng((config.seed, stream, 2)))
    patches = np.empty((len(chosen), spec.input_px, spec.input_px, 3), np.uint8)
    for row, (which, y, x) in enumerate(chosen):
        slide = places[which].source.slide
        patches[row] = slide.read_box(y, x, *steps_of(slide, spec.mpp_um), (spec.input_px, spec.input_px))
    return patches


def steps_of(slide: Slide, mpp_um: float) -> tuple[float, float]:
    """Return the level-0 pixels per pixel of another size, ``(y, x)``."""
    mpp = slide.require_mpp()
    return mpp_um / mpp.y, mpp_um / mpp.x


def places_of(sources: Sequence[ScaleSource], mpp_um: float, sides: Sequence[int], tissue: float) -> list[Places]:
    """Find where each slide has room for a square with enough tissue.

    Parameters
    ----------
    sources : sequence of ScaleSource
        Open slides.
    mpp_um : float
        Micrometres per pixel of the squares.
    sides : sequence of int
        Of each slide: side of its squares in such pixels.
    tissue : float
        Least share of a square that is tissue.

    Raises
    ------
    DataError
        If no slide has any.
    """
    found = []
    for source, side in zip(sources, sides, strict=True):
        level_side = math.ceil(max(steps_of(source.slide, mpp_um)) * side - 1e-6)
        if places := find_places(source, 1, level_side, tissue_mask(source.slide), tissue):
            found.append(places)
    if found:
        return found
    side = min(sides)
    raise DataError(
        f"too little tissue: no slide has room for a square of {side * mpp_um:.0f} µm ({side} pixels of {mpp_um:g} µm) "
        f"that is to {tissue:.0%} tissue. Choose larger slides or regions, or a smaller share (tissue)."
    )


def fine_enough(sources: Sequence[ScaleSource], mpp_um: float) -> list[ScaleSource]:
    """Return the slides that need not be enlarged to be looked at with such pixels.

    Raises
    ------
    DataError
        If there is none.
    MissingPixelSizeError
        If a slide does not state its pixel size.
    """
    found = [source for source in sources if min(steps_of(source.slide, mpp_um)) * MOST_ENLARGED >= 1]
    if not found:
        raise DataError(
            f"no slide is as fine as {mpp_um:g} micrometres per pixel, at which the encoder looks; "
            "choose finer slides, or another pixel size of the encoder (params mpp_um)"
        )
    return found


def choose_places(places: Sequence[Places], count: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Choose corners ``(which of places, y, x)`` at level 0, in the order in which they are best read.

    No corner is taken twice, and each is moved at random by up to half the distance to the next.
    """
    areas = np.array([item.area for item in places])
    # A corner of one slide may stand for more tissue than that of another.
    weights = np.concatenate([np.full(len(item.corners), item.step**2) for item in places])
    owner = np.repeat(np.arange(len(places)), [len(item.corners) for item in places])
    first = np.cumsum([0, *(len(item.corners) for item in places)])[:-1]
    count = min(count, len(weights))
    taken = np.sort(rng.choice(len(weights), count, replace=False, p=weights / areas.sum()))
    chosen = []
    for number in taken.tolist():
        which = int(owner[number])
        item, row = places[which], number - first[which]
        moved = item.corners[row] + np.rint(rng.uniform(-0.5, 0.5, 2) * item.step).astype(np.int64)
        y, x = np.clip(moved, item.lowest[row], item.highest[row]).tolist()
        chosen.append((which, y, x))
    return chosen
