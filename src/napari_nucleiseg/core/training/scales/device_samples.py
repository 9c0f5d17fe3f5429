"""Crops of pretraining by scale cut, turned and coloured where the network is: a processor is too slow for a GPU.

The slides lie in the device's memory at each magnification, read as `samples` reads crops; a crop is a gather. Which
crop a number stands for and how its colours change is chosen by the same sampler, and colours go through tables of
what OpenCV makes of each, so that both give the same crops but for roundings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_nucleiseg.core.slides.stains import DENSITY, UNMIX
from napari_nucleiseg.core.training.augment import stain_change
from napari_nucleiseg.core.training.scales.samples import BRIGHT_PERCENTILE, CropChoice, Places, ScaleSampler

MOST_BYTES = 8 * 1024**3
"""Of the device's memory, for slides; larger ones are read crop by crop as before."""
PIXEL_BYTES = 4
_STRIP = 2048  # rows read at a time
_COLOURS = 256**3
_LIGHTEST = 225  # lighter is glass, as `augment.lab_statistics` has it
_LEAST_TISSUE = 100  # pixels


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A region of a slide at one magnification.

    Parameters
    ----------
    places : Places
        What crops are taken from.
    y, x : int
        Where it begins, level-0 pixels: whole pixels of the crops.
    height, width : int
        Pixels of the crops.
    """

    places: Places
    y: int
    x: int
    height: int
    width: int

    def strips(self) -> Iterator[NDArray[np.int32]]:
        """Read it from top to bottom, each pixel's red, green, blue and a 0 as the bytes of one number."""
        factor = self.places.factor
        for top in range(0, self.height, _STRIP):
            rows = min(_STRIP, self.height - top)
            image = self.places.source.slide.read_box(self.y + top * factor, self.x, factor, factor, (rows, self.width))
            yield _packed(image)


def parts_of(places: Places, crop_px: int) -> tuple[list[Part], NDArray[np.int64]]:
    """Return the regions that crops of one slide and magnification lie in, and in which of them each corner does.

    A region begins at the first whole pixel of a crop in it. A crop at the edge of one that begins elsewhere moves by
    less than a pixel.
    """
    factor = places.factor
    ends, which = np.unique(np.hstack([places.lowest, places.highest]), axis=0, return_inverse=True)
    parts = []
    for row in ends:
        first = -(-row[:2] // factor) * factor
        size = np.maximum((row[2:] - first) // factor, 0) + crop_px
        parts.append(Part(places, *map(int, first), *map(int, size)))
    return parts, which.reshape(-1)


def can_make(sampler: ScaleSampler, device: torch.device, most_bytes: int = MOST_BYTES) -> bool:
    """Tell whether the batches of a run are to be made on the device.

    Parameters
    ----------
    sampler : ScaleSampler
        Of the run.
    device : torch.device
        Where the network is.
    most_bytes : int
        That slides may take up there; never more than half of what is free.
    """
    if device.type != "cuda" or sampler.config.weight("shape"):
        return False  # shapes are found by a tree of regions, which no GPU builds
    if torch.cuda.is_available():
        most_bytes = min(most_bytes, torch.cuda.mem_get_info(device)[0] // 2)
    crop_px = sampler.config.crop_px
    parts = [part for level in sampler.places for places in level for part in parts_of(places, crop_px)[0]]
    return sum(part.height * part.width for part in parts) * PIXEL_BYTES <= most_bytes


class DeviceScaleBatches:
    """Makes batch number n on the device, as a function of the configuration and n alone.

    Parameters
    ----------
    sampler : ScaleSampler
        Chooses the crops.
    device : torch.device
        Where they are made and stay.

    Raises
    ------
    SlideError
        If a slide cannot be read.
    """

    def __init__(self, sampler: ScaleSampler, device: torch.device) -> None:
        self.sampler, self.device = sampler, device
        self.side = sampler.config.crop_px
        self.parts: list[Part] = []
        self.part_of: list[list[NDArray[np.int64]]] = []
        """Of each magnification and slide: the part that each corner lies in."""
        for level in sampler.places:
            self.part_of.append([])
            for places in level:
                parts, which = parts_of(places, self.side)
                self.part_of[-1].append(which + len(self.parts))
                self.parts += parts
        sizes = [part.height * part.width for part in self.parts]
        self.firsts = np.cumsum([0, *sizes[:-1]]).tolist()
        self.pool = torch.empty(sum(sizes), dtype=torch.int32, device=device)
        for first, part in zip(self.firsts, self.parts, strict=True):
            for strip in part.strips():
                self.pool[first : first + len(strip)] = torch.from_numpy(strip).to(device)
                first += len(strip)  # noqa: PLW2901 - the strips follow one another
        self.mean, self.std = (torch.from_numpy(values).to(device) for values in (sampler.mean, sampler.std))
        self.density = torch.from_numpy(DENSITY).to(device)
        self.unmix = torch.from_numpy(UNMIX[:, 0].copy()).to(device)
        self.target = torch.from_numpy(np.asarray(sampler.colours, np.float32)).to(device)
        if sampler.config.reinhard:
            self.to_lab, self.to_rgb = (_table(code).to(device) for code in (cv2.COLOR_RGB2LAB, cv2.COLOR_LAB2RGB))

    @torch.no_grad()
    def batch(self, number: int, size: int | None = None) -> dict[str, Tensor]:
        """Return batch `number` as `ScaleSampler.batch` does, on the device."""
        config = self.sampler.config
        size = size or config.batch_size
        choices = [self.sampler.choose(number * size + index) for index in range(size)]
        brought = np.array([choice.rng.random() < config.reinhard for choice in choices])
        numbers = self._sent(np.array([[*self._address(choice), choice.level] for choice in choices], np.int64))
        pixels = self._gathered(numbers[:, :3])
        if brought.all():
            pixels = self._transferred(pixels)
        elif brought.any():
            rows = self._sent(np.flatnonzero(brought))
            pixels[rows] = self._transferred(pixels[rows])
        image = _unpacked(pixels)
        if self.sampler.jitter:
            image = self._jittered(image, choices)
        batch = {"image": ((image - self.mean) / self.std).permute(0, 3, 1, 2), "level": numbers[:, 3]}
        if config.weight("haematoxylin"):
            stain = (self.density[image.int()] * self.unmix).sum(dim=3)
            batch["haematoxylin"] = stain.clamp(min=0)[:, None]
        return batch

    def _sent(self, values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def _address(self, choice: CropChoice) -> tuple[int, int, int]:
        """Return where the first pixel of a crop lies in the pool, and the steps to the pixels below and beside it."""
        number = int(self.part_of[choice.level][choice.slide][choice.corner])
        part, factor, last = self.parts[number], self.parts[number].places.factor, self.side - 1
        y, x = (max((at - start) // factor, 0) for at, start in ((choice.y, part.y), (choice.x, part.x)))
        # From one pixel to the next of the turned crop, and where that begins in the crop as it lies on the slide.
        down, across, begins = (
            ((1, 0), (0, 1), (0, 0)),
            ((0, -1), (1, 0), (0, last)),
            ((-1, 0), (0, -1), (last, last)),
            ((0, 1), (-1, 0), (last, 0)),
        )[choice.turns]
        if choice.mirrored:
            begins = (begins[0] + last * across[0], begins[1] + last * across[1])
            across = (-across[0], -across[1])
        first = self.firsts[number] + (y + begins[0]) * part.width + x + begins[1]
        return first, down[0] * part.width + down[1], across[0] * part.width + across[1]

    def _gathered(self, addresses: Tensor) -> Tensor:
        """Return the crops' pixels as they are packed, ``(batch, y, x)``."""
        steps = torch.arange(self.side, device=self.device)
        first, down, across = addresses.T[:, :, None, None]
        return self.pool[first + down * steps[:, None] + across * steps]

    def _transferred(self, pixels: Tensor) -> Tensor:
        """Make the brightest tenth white, then bring the colours to the target (Reinhard et al. 2001)."""
        lab = _unpacked(self.to_lab[self._standardised(pixels)]).flatten(1, 2)
        tissue = (lab[..., :1] < _LIGHTEST).double()
        tissue = torch.where(tissue.sum(dim=1, keepdim=True) > _LEAST_TISSUE, tissue, torch.ones_like(tissue))
        total = tissue.sum(dim=1, keepdim=True)
        mean = (lab * tissue).sum(dim=1, keepdim=True) / total
        spread = ((((lab - mean) ** 2 * tissue).sum(dim=1, keepdim=True) / total).sqrt() + 1e-3).float()
        mean = mean.float()
        gain = ((spread + (self.target[1] - spread)) / spread).clamp(0.5, 2.0)
        moved = (lab - mean) * gain + (mean + (self.target[0] - mean))
        return self.to_rgb[_index_of(moved.clamp(0, 255).int())].view(pixels.shape)

    def _standardised(self, pixels: Tensor) -> Tensor:
        """Return each colour of a crop whose brightest tenth is made white, as a place in a table of all colours."""
        values = _bytes(pixels)[..., :3].long()
        flat = values.flatten(1)
        counts = torch.zeros((len(flat), 256), dtype=torch.int64, device=self.device)
        counts.scatter_add_(1, flat, torch.ones_like(flat))
        # The values of two ranks, between which the percentile lies; as `numpy.percentile` reckons.
        rank = BRIGHT_PERCENTILE / 100 * (flat.shape[1] - 1)
        below = counts.cumsum(dim=1)
        low, high = ((below <= int(rank) + more).sum(dim=1, keepdim=True).double() for more in (0, 1))
        part = rank - int(rank)
        bright = low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)
        levels = torch.arange(256, device=self.device, dtype=torch.float64)
        table = (levels * (255.0 / bright.clamp(min=1))).clamp(0, 255).long()
        return _index_of(table.gather(1, flat).view(values.shape))

    def _jittered(self, image: Tensor, choices: list[CropChoice]) -> Tensor:
        """Change the densities of the stains, as `augment.jitter_stains` does."""
        drawn = [stain_change(self.sampler.jitter, choice.rng) for choice in choices]
        change = self._sent(np.array([np.vstack([matrix, shift]) for matrix, shift in drawn], np.float32))
        density = self.density[image.int()]
        # No matrix product: a GPU would round to fewer digits.
        mixed = change[:, None, None, 3]
        for stain in range(3):
            mixed = mixed + density[..., stain, None] * change[:, None, None, stain]
        return (256 * torch.exp(-mixed.clamp(min=0)) - 1).clamp(0, 255).floor()


def _packed(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return red, green, blue and a 0 of each pixel as the bytes of one number, lowest first, shape (pixels,)."""
    packed = np.zeros((image.shape[0] * image.shape[1], PIXEL_BYTES), np.uint8)
    packed[:, :3] = image.reshape(-1, 3)
    return packed.view("<i4")[:, 0]


def _bytes(pixels: Tensor) -> Tensor:
    """Return the four bytes of packed pixels, ``(..., 4)`` uint8."""
    return pixels[..., None].view(torch.uint8)


def _unpacked(pixels: Tensor) -> Tensor:
    """Return the colours of packed pixels, ``(..., 3)`` float32, 0..255."""
    return _bytes(pixels)[..., :3].float()


def _index_of(colours: Tensor) -> Tensor:
    """Return the places in a table of all colours, of whole numbers ``(..., 3)``."""
    return colours[..., 0] + colours[..., 1] * 256 + colours[..., 2] * 65536


def _table(code: int) -> Tensor:
    """Return what OpenCV's conversion makes of each colour, packed as the colours are that it is looked up by."""
    colours = np.arange(_COLOURS, dtype="<i4").view(np.uint8).reshape(4096, 4096, 4)
    return torch.from_numpy(_packed(cv2.cvtColor(np.ascontiguousarray(colours[..., :3]), code).astype(np.uint8)))
