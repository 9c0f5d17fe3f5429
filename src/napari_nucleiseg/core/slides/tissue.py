"""Where on a slide there is tissue: a coarse mask that rather keeps some glass than loses a nucleus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide, UInt8Image

MASK_UM = 8.0
"""Edge of a mask pixel in micrometres, where the slide is neither tiny nor huge."""

_SMALLEST_SIDE = 96
_MOST_PIXELS = 4_000_000
_STRIP = 256
# Where a slide does not say how large its pixels are; only sizes of specks and holes depend on it.
_ASSUMED_MPP_UM = 0.5

# Grey values below the glass: Otsu's threshold is held between these, so that a picture full of tissue
# (where it parts nuclei from stroma) and one full of glass (where it parts noise) come out right.
_LEAST_CONTRAST, _MOST_CONTRAST = 7, 14
# A single pixel this dark is kept even where its surroundings are glass: it may be a lone cell.
_SURE_CONTRAST = 24
_BLACK = 6
# Dust is grey, a lone nucleus is not: grey specks go, coloured ones only if smaller than any nucleus.
_GREY = 12
_DUST_UM2 = 400.0
_SPECK_UM2 = 15.0
_HOLE_UM2 = 20_000.0
_MARGIN_UM = 20.0
# DAB is brown: red over green over blue by so much. Eosin has less green than blue, however yellow a scan is.
_RED_OVER_BLUE, _GREEN_OVER_BLUE = 40, 5
_BROWN_FROM = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class TissueMask:
    """Tissue on a slide, coarsely.

    Parameters
    ----------
    mask : ndarray of bool, shape (y, x)
        True on tissue.
    downsample : YX
        Level-0 pixels per mask pixel, ``(y, x)``.
    brown : float
        Share of the tissue that is brown, 0..1.
    """

    mask: NDArray[np.bool_]
    downsample: YX
    brown: float = 0.0

    @property
    def looks_immunostained(self) -> bool:
        """Whether so much of the tissue is brown that the stain will be DAB."""
        return self.brown > _BROWN_FROM

    def covers(self, region: Region) -> bool:
        """Whether any tissue lies in `region` (level-0 pixels); never False where it might."""
        return bool(self._part(region).any())

    def fraction(self, region: Region) -> float:
        """Return the part of the mask pixels under `region` (level-0 pixels) that is tissue, 0..1."""
        part = self._part(region)
        return float(part.mean()) if part.size else 0.0

    @property
    def tissue_fraction(self) -> float:
        """The part of the slide that is tissue, 0..1."""
        return float(self.mask.mean())

    def _part(self, region: Region) -> NDArray[np.bool_]:
        if region.is_empty:
            return self.mask[:0, :0]
        coarse = region.scaled_outward(1 / self.downsample.y, 1 / self.downsample.x)
        inside = coarse.intersect(Region(0, 0, *self.mask.shape))
        return self.mask[inside.slices]


def tissue_mask(slide: Slide) -> TissueMask:
    """Find the tissue of a slide from one coarse level; where that is damaged, all counts as tissue.

    Parameters
    ----------
    slide : Slide
        Read at about 8 um per pixel; finer for small pictures, coarser for huge slides.

    Raises
    ------
    SlideError
        If it cannot be read.
    """
    mpp = slide.mpp_um or YX(_ASSUMED_MPP_UM, _ASSUMED_MPP_UM)
    factor = _mask_downsample(slide, mpp)
    picture = _read_coarse(slide, factor)
    mask = find_tissue(picture, YX(mpp.y * factor.y, mpp.x * factor.x))
    # Damage is shown as glass. What level 0 itself lacks stays that; where a coarser level is damaged it may be whole.
    damage = [tile.region for tile in slide.damage_at(factor) if tile.downsample != slide.downsamples[0]]
    hurt = _painted(mask.shape, factor, damage)
    mask |= hurt
    if slide.bounds is not None:
        mask &= _painted(mask.shape, factor, [slide.bounds])
    return TissueMask(mask, factor, _brown_share(picture, mask & ~hurt))


def _painted(shape: tuple[int, ...], factor: YX, regions: Sequence[Region]) -> NDArray[np.bool_]:
    """Return a mask at `factor` that is True in regions of level-0 pixels."""
    mask = np.zeros(shape, np.bool_)
    for region in regions:
        mask[region.scaled_outward(1 / factor.y, 1 / factor.x).intersect(Region(0, 0, *mask.shape)).slices] = True
    return mask


def _brown_share(picture: UInt8Image, mask: NDArray[np.bool_]) -> float:
    red, green, blue = np.moveaxis(picture[mask].astype(np.int16), 1, 0)
    brown = (red - blue > _RED_OVER_BLUE) & (green - blue > _GREEN_OVER_BLUE)
    return float(brown.mean()) if brown.size else 0.0


def find_tissue(picture: UInt8Image, pixel_um: YX) -> NDArray[np.bool_]:
    """Tell tissue from glass in a coarse picture.

    Parameters
    ----------
    picture : ndarray of uint8, shape (y, x, 3)
        RGB.
    pixel_um : YX
        Its pixel size in micrometres.

    Returns
    -------
    ndarray of bool, shape (y, x)
        True on tissue, with a margin around it.
    """
    contrast = _contrast(picture)
    smooth = np.asarray(cv2.GaussianBlur(contrast, (0, 0), 1.0), dtype=np.uint8)
    threshold = float(np.clip(_otsu(smooth), _LEAST_CONTRAST, _MOST_CONTRAST))
    mask = ((smooth > threshold) | (contrast > _SURE_CONTRAST)).astype(np.uint8)
    mask[picture.max(axis=2) <= _BLACK] = 0
    area_um2 = pixel_um.y * pixel_um.x
    coloured = picture.max(axis=2) - picture.min(axis=2) >= _GREY
    mask = _without_small(mask, _SPECK_UM2 / area_um2)
    mask = _without_small(mask, _DUST_UM2 / area_um2, coloured)
    reach = max(1, math.ceil(_MARGIN_UM / pixel_um.y)), max(1, math.ceil(_MARGIN_UM / pixel_um.x))
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach[1] + 1, 2 * reach[0] + 1))
    glass = np.asarray(cv2.dilate(mask, brush) == 0, dtype=np.uint8)
    return np.asarray(_without_small(glass, _HOLE_UM2 / area_um2) == 0, dtype=np.bool_)


def _mask_downsample(slide: Slide, mpp: YX) -> YX:
    """Choose the mask's grid: that of a level if one is near the wanted pixel size."""
    height, width = slide.shape
    wanted = MASK_UM / math.sqrt(mpp.y * mpp.x)
    wanted = min(wanted, max(1.0, max(height, width) / _SMALLEST_SIDE))
    wanted = max(wanted, math.sqrt(height * width / _MOST_PIXELS))
    ratios = [abs(math.log2(max(factor) / wanted)) for factor in slide.downsamples]
    nearest = int(np.argmin(ratios))
    if ratios[nearest] <= 1:
        return slide.downsamples[nearest]
    whole = float(max(1, round(wanted)))
    return YX(whole, whole)


def _read_coarse(slide: Slide, factor: YX) -> UInt8Image:
    """Read the slide at `factor`, strip by strip, so that no more than the result is held."""
    height, width = (max(1, math.ceil(size / step)) for size, step in zip(slide.shape, factor, strict=True))
    picture = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):
        rows = min(_STRIP, height - top)
        picture[top : top + rows] = slide.read_box(top * factor.y, 0, factor.y, factor.x, (rows, width))
    return picture


def _contrast(picture: UInt8Image) -> UInt8Image:
    """How far each pixel lies below the glass in its darkest channel (of stained tissue mostly green), uint8."""
    darkest = picture.min(axis=2)
    return np.asarray(np.clip(_glass_level(picture, darkest) - darkest.astype(np.int16), 0, 255), dtype=np.uint8)


def _glass_level(picture: UInt8Image, darkest: NDArray[np.uint8]) -> int:
    """Return the grey value of glass: the commonest among bright neutral ones, if there are a fair number of them."""
    # Noise must not make pale tissue neutral here and there.
    calm = np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.0), dtype=np.uint8)
    grey = calm.max(axis=2) - calm.min(axis=2) <= 14
    # Parts that were not scanned are often painted pure white; glass is what the camera saw.
    scanned = darkest[darkest < 254]
    if scanned.size < 0.01 * darkest.size:
        return 255
    bright = int(np.percentile(scanned, 99))
    # Pale stroma is nearly neutral too, but darker than the brightest of the picture.
    neutral = grey & (darkest >= max(200, bright - 16)) & (darkest < 254)
    counts = np.bincount(darkest[neutral], minlength=256).astype(np.float64)
    if counts.sum() < 0.03 * darkest.size:
        return max(235, bright)
    return int(np.argmax(np.convolve(counts, np.ones(5), mode="same")))


def _otsu(values: UInt8Image) -> float:
    threshold, _ = cv2.threshold(values, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return float(threshold)


def _without_small(
    mask: NDArray[np.uint8], least_pixels: float, spared: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Clear connected parts below `least_pixels` pixels; those with a spared pixel or leaving the picture stay."""
    count, parts, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)
    keep = facts[:, cv2.CC_STAT_AREA] >= least_pixels
    if spared is not None:
        keep |= np.bincount(parts[spared], minlength=count) > 0
    for edge in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        keep[np.unique(edge)] = True
    keep[0] = False
    return np.asarray(keep.astype(np.uint8)[parts], dtype=np.uint8)
