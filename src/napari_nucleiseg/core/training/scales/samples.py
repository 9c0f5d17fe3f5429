"""Crops of slides at several magnifications: where they lie, how they are read, how their colours change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_nucleiseg.core.decoders.component_tree import StainLevels
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.slides.pyramid import Slide, UInt8Image
from napari_nucleiseg.core.slides.stains import stain_densities
from napari_nucleiseg.core.slides.tissue import TissueMask, tissue_mask
from napari_nucleiseg.core.training.augment import jitter_stains, lab_statistics, transfer_stain
from napari_nucleiseg.core.training.samples import read_picture
from napari_nucleiseg.core.training.scales.config import ScaleConfig
from napari_nucleiseg.core.training.scales.shapes import UNKNOWN, shape_labels, slide_levels

# Mean and standard deviation of L, a, b over the tissue of 15 pictures of breast (NuCLS, CC0), as OpenCV scales them.
TARGET_COLOURS = np.array([[143.0, 155.0, 110.0], [40.0, 7.0, 7.5]], np.float32)
BRIGHT_PERCENTILE = 90
_MOST_PLACES = 250_000
# To measure the stain of a slide on.
_STAIN_CROPS = 16


@dataclass(frozen=True, slots=True, eq=False)
class ScaleSource:
    """An open slide to take crops from.

    Parameters
    ----------
    name : str
        For people.
    slide : Slide
        With a stated pixel size.
    regions : tuple of Region
        Level-0 pixels; crops lie inside one of them. Empty means all that holds pixels.
    licence : str
        SPDX identifier.
    """

    name: str
    slide: Slide
    regions: tuple[Region, ...] = ()
    licence: str = ""

    def factor(self, magnification: float) -> int | None:
        """Return the level-0 pixels per pixel of a magnification, a power of two; None where the slide is too coarse.

        Raises
        ------
        MissingPixelSizeError
            If the slide does not state its pixel size.
        """
        mpp = self.slide.require_mpp()
        octaves = round(math.log2(10.0 / magnification / math.sqrt(mpp.y * mpp.x)))
        return None if octaves < 0 else int(2**octaves)


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where crops of one slide and magnification may begin.

    Parameters
    ----------
    source : ScaleSource
        The slide.
    factor : int
        Level-0 pixels per pixel of the crop.
    corners : ndarray of int64, shape (n, 2)
        Top-left corners ``(y, x)``, level-0 pixels.
    lowest, highest : ndarray of int64, shape (n, 2)
        Between which (both included) each corner may be moved.
    step : float
        Distance of neighbouring corners, level-0 pixels.
    """

    source: ScaleSource
    factor: int
    corners: NDArray[np.int64]
    lowest: NDArray[np.int64]
    highest: NDArray[np.int64]
    step: float

    @property
    def area(self) -> float:
        """Tissue that crops begin on, level-0 pixels."""
        return len(self.corners) * self.step**2

    def choose(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Return which of the corners `rng` chooses, and where it was moved to, ``y, x``, level-0 pixels."""
        chosen = int(rng.integers(len(self.corners)))
        moved = self.corners[chosen] + np.rint(rng.uniform(-0.5, 0.5, 2) * self.step).astype(np.int64)
        moved = np.clip(moved, self.lowest[chosen], self.highest[chosen])
        y, x = (moved // self.factor * self.factor).tolist()
        return chosen, max(y, int(self.lowest[chosen, 0])), max(x, int(self.lowest[chosen, 1]))

    def read(self, y: int, x: int, crop_px: int) -> UInt8Image:
        """Read the crop ``(crop_px, crop_px, 3)`` that begins there; pixels are exact means over whole pixels."""
        return self.source.slide.read_box(y, x, self.factor, self.factor, (crop_px, crop_px))


@dataclass(frozen=True, slots=True, eq=False)
class CropChoice:
    """Which crop a number stands for.

    Parameters
    ----------
    rng : Generator
        From which the change of its colours is still to be drawn.
    level, slide, corner : int
        Its magnification, which of the slides that have crops of it, and which of the corners there.
    y, x : int
        Top-left corner, level-0 pixels.
    turns : int
        Quarter turns, counter-clockwise.
    mirrored : bool
        Whether left and right are exchanged after that.
    """

    rng: np.random.Generator
    level: int
    slide: int
    corner: int
    y: int
    x: int
    turns: int
    mirrored: bool


def find_places(source: ScaleSource, factor: int, crop_px: int, tissue: TissueMask, least: float) -> Places | None:
    """Find where crops of a slide have enough tissue.

    Parameters
    ----------
    source : ScaleSource
        The slide.
    factor, crop_px : int
        Level-0 pixels per pixel of a crop, side of a crop.
    tissue : TissueMask
        Of the slide.
    least : float
        Least share of tissue, 0..1.

    Returns
    -------
    Places or None
        None if there is no such place.
    """
    side = crop_px * factor
    corners, lowest, highest = [], [], []
    step = max(side / 4, 1.0, math.sqrt(source.slide.region.area / _MOST_PLACES))
    for region in source.regions or (source.slide.content,):
        box = region.intersect(source.slide.content)
        if min(box.height, box.width) < side:
            continue
        ys, xs = (
            np.unique(np.append(np.arange(start, end - side, step), end - side).astype(np.int64))
            for start, end in ((box.y, box.y1), (box.x, box.x1))
        )
        grid = np.stack(np.meshgrid(ys, xs, indexing="ij"), axis=-1).reshape(-1, 2)
        grid = grid[_tissue_share(grid, side, tissue) >= least]
        corners.append(grid)
        lowest.append(np.full_like(grid, (box.y, box.x)))
        highest.append(np.full_like(grid, (box.y1 - side, box.x1 - side)))
    if not sum(map(len, corners)):
        return None
    return Places(source, factor, np.concatenate(corners), np.concatenate(lowest), np.concatenate(highest), step)


def _tissue_share(corners: NDArray[np.int64], side: int, tissue: TissueMask) -> NDArray[np.float64]:
    """Return the share of tissue under squares of level-0 pixels, shape (n,)."""
    sums = cv2.integral(tissue.mask.astype(np.uint8)).astype(np.float64)
    scale = np.array(tissue.downsample)
    limit = np.array(tissue.mask.shape)
    first = np.clip(np.floor(corners / scale + 1e-6).astype(np.int64), 0, limit - 1)
    last = np.clip(np.ceil((corners + side) / scale - 1e-6).astype(np.int64), first + 1, limit)
    (y0, x0), (y1, x1) = first.T, last.T
    area: NDArray[np.int64] = (y1 - y0) * (x1 - x0)
    share: NDArray[np.float64] = (sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]) / area
    return share


class ScaleSampler:
    """Makes crop number n as a function of the configuration and n alone, each magnification in turn.

    Parameters
    ----------
    sources : sequence of ScaleSource
        Open slides; tissue of all counts the same.
    config : ScaleConfig
        The run.
    spec : ModelSpec
        Normalisation of the network.
    stream : int
        Sets with different numbers give different crops under one seed.
    augmented : bool
        Whether colours are jittered.

    Raises
    ------
    DataError
        If no slide has crops of one of the magnifications.
    """

    def __init__(
        self,
        sources: Sequence[ScaleSource],
        config: ScaleConfig,
        spec: ModelSpec,
        *,
        stream: int = 0,
        augmented: bool = True,
    ) -> None:
        self.config, self.stream, self.augmented = config, stream, augmented
        self.mean = np.asarray(spec.mean, np.float32) * 255
        self.std = np.asarray(spec.std, np.float32) * 255
        self.colours = TARGET_COLOURS
        if config.stain_target:
            self.colours = lab_statistics(standardised(read_picture(Path(config.stain_target))))
        masks = [tissue_mask(source.slide) for source in sources]
        self.places = [self._places(sources, masks, power) for power in config.magnifications]
        areas = [np.array([places.area for places in level]) for level in self.places]
        self.chances = [area / area.sum() for area in areas]
        self.stains: dict[int, StainLevels] = {}
        """Of the slides that have crops of the highest magnification, once they were looked at."""

    def _places(self, sources: Sequence[ScaleSource], masks: Sequence[TissueMask], power: float) -> list[Places]:
        config = self.config
        found: list[Places] = []
        fine_enough = False
        for source, mask in zip(sources, masks, strict=True):
            factor = source.factor(power)
            if factor is None:
                continue
            fine_enough = True
            if places := find_places(source, factor, config.crop_px, mask, config.tissue):
                found.append(places)
        if found:
            return found
        if not fine_enough:
            raise DataError(f"no slide is as fine as {power:g}x; leave that magnification out (magnifications)")
        side = config.crop_px * 10.0 / power
        raise DataError(
            f"too little tissue, and no place for crops of {power:g}x: a square of {side:.0f} µm is needed, "
            f"{config.tissue:.0%} of it tissue. Choose larger regions or slides, smaller crops (crop_px), or leave "
            "that magnification out (magnifications)."
        )

    def picture(self, number: int) -> tuple[UInt8Image, int]:
        """Return crop `number`, ``(crop_px, crop_px, 3)`` uint8 RGB, and the place of its magnification in the list."""
        choice = self.choose(number)
        return self._coloured(choice.rng, self._read(choice)), choice.level

    def choose(self, number: int) -> CropChoice:
        """Choose crop `number`."""
        rng = np.random.default_rng((self.config.seed, self.stream, number))
        level = number % len(self.places)
        slide = int(rng.choice(len(self.places[level]), p=self.chances[level]))
        corner, y, x = self.places[level][slide].choose(rng)
        return CropChoice(rng, level, slide, corner, y, x, int(rng.integers(4)), bool(rng.random() < 0.5))

    def _read(self, choice: CropChoice) -> UInt8Image:
        """Return a crop in the slide's own colours."""
        places = self.places[choice.level][choice.slide]
        image = np.rot90(places.read(choice.y, choice.x, self.config.crop_px), choice.turns)
        return np.ascontiguousarray(image[:, ::-1] if choice.mirrored else image)

    @property
    def jitter(self) -> float:
        """How far the stains of a crop change; see `jitter_stains`."""
        return self.config.hed_jitter if self.augmented else 0.0

    def _coloured(self, rng: np.random.Generator, image: UInt8Image) -> UInt8Image:
        """Change the colours of a crop."""
        if rng.random() < self.config.reinhard:
            image = transfer_stain(standardised(image), self.colours, 1.0)
        return jitter_stains(image, self.jitter, rng) if self.jitter else image

    def crop(self, number: int, *, stained: bool | None = None) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
        """Return crop `number` as the network wants it.

        Parameters
        ----------
        number : int
            Which.
        stained : bool, optional
            Whether to give the optical density of haematoxylin; default where the loss asks for it.

        Returns
        -------
        dict of ndarray
            ``image`` ``(3, y, x)``, ``level`` (), with `stained` ``haematoxylin`` ``(1, y, x)``, and where the loss
            asks for it ``shape`` ``(1, y, x)``, see `shape_labels`; of any but the highest magnification all of that
            is unknown.
        """
        choice = self.choose(number)
        own = self._read(choice)
        image = self._coloured(choice.rng, own)
        crop: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {
            "image": self.normalised(image),
            "level": np.asarray(choice.level, np.int64),
        }
        if self.config.weight("haematoxylin") if stained is None else stained:
            crop["haematoxylin"] = np.ascontiguousarray(stain_densities(image)[None, ..., 0])
        if self.config.weight("shape"):
            is_finest = self.config.magnifications[choice.level] == max(self.config.magnifications)
            unknown = np.full((1, *own.shape[:2]), UNKNOWN, np.float32)
            crop["shape"] = self._shape(own, choice.level, choice.slide) if is_finest else unknown
        return crop

    def normalised(self, image: UInt8Image) -> NDArray[np.float32]:
        """Return a picture as the network wants it, ``(3, y, x)``."""
        return np.ascontiguousarray(((image - self.mean) / self.std).transpose(2, 0, 1))

    def _shape(self, image: UInt8Image, level: int, chosen: int) -> NDArray[np.float32]:
        """Return what is a nucleus in a crop, by the stain of all of its slide."""
        places = self.places[level][chosen]
        mpp = places.source.slide.require_mpp()
        mpp_um = places.factor * math.sqrt(mpp.y * mpp.x)
        if chosen not in self.stains:
            rng = np.random.default_rng((self.config.seed, self.stream))
            crops = [places.read(*places.choose(rng)[1:], self.config.crop_px) for _ in range(_STAIN_CROPS)]
            self.stains[chosen] = slide_levels(crops, mpp_um)
        return shape_labels(image, mpp_um, self.stains[chosen])

    def batch(self, number: int, size: int | None = None) -> Mapping[str, Tensor]:
        """Return batch `number`: what `crop` gives of each, ``(batch, ...)``."""
        size = size or self.config.batch_size
        crops = [self.crop(number * size + index) for index in range(size)]
        return {key: torch.from_numpy(np.stack([crop[key] for crop in crops])) for key in crops[0]}


def standardised(image: UInt8Image) -> UInt8Image:
    """Return a picture whose brightest tenth is white."""
    bright = max(float(np.percentile(image, BRIGHT_PERCENTILE)), 1.0)
    table = np.clip(np.arange(256) * (255.0 / bright), 0, 255).astype(np.uint8)
    bright_image: UInt8Image = table[image]
    return bright_image
