"""A synthetic H&E slide of any size, drawn where it is looked at, whose every nucleus is known."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.noise import Double, Float
from napari_nucleiseg.core.slides.outlines import Covered, Window, covered_pixels
from napari_nucleiseg.core.slides.phantom import EPITHELIUM, Compartments, Nuclei, Phantom, pitch_for_density
from napari_nucleiseg.core.slides.pyramid import Slide, UInt8Image
from napari_nucleiseg.core.slides.tiled import TiledLevel

BLOCK = 512
_COARSEST_PX = 1024
# Coarser than this a nucleus is smaller than a pixel and is painted as its compartment's share of nuclear area.
_DRAWN_MPP_UM = 4.0

# Optical densities per unit of stain in red, green and blue (haematoxylin, eosin), and the light through glass.
_HAEMATOXYLIN = (0.65, 0.70, 0.29)
_EOSIN = (0.16, 0.82, 0.46)
_LIGHT = (244.0, 243.0, 245.0)

_GLASS = 0.01
_TEXTURE_PERIOD_UM = 256.0
_TEXTURE_MPP_UM = 0.25


class _Stain(NamedTuple):
    """Amounts of stain per pixel, float32 ``(y, x)``."""

    haematoxylin: Float
    eosin: Float


@dataclass(eq=False)
class SyntheticSlide(Slide):
    """A `Slide` that also tells the truth about its nuclei.

    Parameters
    ----------
    phantom : Phantom
        The tissue, in micrometres. Slides of equal extent (in um), seed, density, touching and glass
        show the same nuclei under the same ids, whatever their pixel size.
    """

    phantom: Phantom = field(kw_only=True)

    def truth_nuclei(self, region: Region) -> Nuclei:
        """Return the nuclei whose centroid lies on a pixel of `region` (level 0), in ascending order of id."""
        pixel = self.require_mpp().y
        bounds = [value * pixel for value in (region.y, region.x, region.y1, region.x1)]
        nuclei = self.phantom.nuclei(*bounds)
        y, x = nuclei.centroids_um.T
        return nuclei.take((y >= bounds[0]) & (x >= bounds[1]) & (y < bounds[2]) & (x < bounds[3]))

    def truth_ids(self, region: Region) -> NDArray[np.int32]:
        """Return the ids ``(n,)`` of the nuclei whose centroid lies in `region`, ascending."""
        return self.truth_nuclei(region).ids

    def truth_centroids(self, region: Region) -> Double:
        """Return the exact centroids of the nuclei whose centroid lies in `region`.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            ``(y, x)`` in level-0 pixels, in the order of `truth_ids`; the centre of the first pixel is (0, 0),
            as in napari and in scikit-image's ``regionprops``.
        """
        return np.asarray(self.truth_nuclei(region).centroids_um / self.require_mpp().y - 0.5, dtype=np.float64)

    def truth_labels(self, region: Region) -> NDArray[np.int32]:
        """Draw the label image of `region` (level-0 pixels, also beyond the slide).

        Returns
        -------
        ndarray of int32, shape (height, width)
            0 is background; ids are unique over the slide and the same in every region. A pixel belongs
            to a nucleus if its centre lies inside.
        """
        pixel = self.require_mpp().y
        labels = np.zeros((region.height, region.width), np.int32)
        for part in _tiles(region, BLOCK):
            window = Window(part.y, part.x, (part.height, part.width), pixel)
            nuclei = self.phantom.nuclei(*window.bounds_um)
            target = labels[part.y - region.y : part.y1 - region.y, part.x - region.x : part.x1 - region.x]
            covered = covered_pixels(nuclei, window)
            drawn = np.zeros(part.area, np.int32)
            drawn[covered.pixel] = nuclei.ids[covered.nucleus]
            target[...] = drawn.reshape(part.height, part.width)
        return labels


def synthetic_slide(
    height: int = 100_000,
    width: int = 100_000,
    mpp_um: float = 0.5,
    seed: int = 0,
    *,
    density_per_mm2: float = 4000,
    touching: float = 0.0,
    glass: bool = True,
) -> SyntheticSlide:
    """Make a slide of H&E-like tissue that is drawn on the fly, with known nuclei.

    Pixels are a pure function of the parameters and of the place, whatever is read in which order.

    Parameters
    ----------
    height, width : int
        Size of level 0 in pixels.
    mpp_um : float
        Micrometres per pixel: 0.25 is a 40x scan, 0.5 a 20x scan of the same tissue if the extent in um agrees.
    seed : int
        Another seed is another tissue.
    density_per_mm2 : float
        Mean nuclei per mm2 of solid tissue, 50 to 8,000; at high densities nuclei are smaller.
    touching : float
        Part of the sites, 0..1, with two nuclei pressed together; all others stay more than 1 um apart.
    glass : bool
        False fills the slide with solid tissue: no outline, no lumina.

    Returns
    -------
    SyntheticSlide
        Levels of 2x steps, the coarsest at most 1,024 px.

    Raises
    ------
    ValueError
        If a size or pixel size is not positive, or the density cannot be had.
    """
    if height < 1 or width < 1 or not 0.01 <= mpp_um <= 100:
        raise ValueError(f"cannot make a slide of {height} x {width} px at {mpp_um} µm per pixel")
    pitch = pitch_for_density(float(density_per_mm2), float(touching))
    phantom = Phantom(height * mpp_um, width * mpp_um, pitch, seed, touching, glass)
    rows, columns = phantom.lattice
    if 2 * rows * columns >= 2**31:
        raise ValueError(f"{height} x {width} px at {mpp_um} µm hold more nuclei than 32-bit ids; make it smaller")
    facts = {"seed": f"{seed}", "density_per_mm2": f"{density_per_mm2:g}", "touching": f"{touching:g}"}
    return _slide(phantom, (height, width), mpp_um, facts)


def _slide(phantom: Phantom, shape: tuple[int, int], mpp_um: float, facts: dict[str, str]) -> SyntheticSlide:
    count = 1 + max(0, math.ceil(math.log2(max(shape) / _COARSEST_PX)))
    levels = tuple(_level(phantom, shape, mpp_um, index) for index in range(count))

    def close() -> None:
        for level in levels:
            level.forget()

    return SyntheticSlide(
        path=f"synthetic slide {phantom.seed}.synthetic",
        levels=levels,
        downsamples=tuple(YX(2.0**index, 2.0**index) for index in range(count)),
        mpp_um=YX(mpp_um, mpp_um),
        objective_power=10 / mpp_um,
        vendor="synthetic H&E",
        reader="synthetic",
        associated={"thumbnail": lambda: levels[-1][...]},
        properties=facts,
        fingerprint=hashlib.sha256(f"{phantom} {shape} {mpp_um}".encode()).hexdigest()[:32],
        on_close=close,
        phantom=phantom,
    )


def _tiles(region: Region, edge: int) -> Iterator[Region]:
    for y in range(region.y, region.y1, edge):
        for x in range(region.x, region.x1, edge):
            yield Region(y, x, edge, edge).intersect(region)


def _level(phantom: Phantom, shape: tuple[int, int], mpp_um: float, index: int) -> TiledLevel:
    factor = 2**index
    height, width = -(-shape[0] // factor), -(-shape[1] // factor)

    def read_tile(row: int, column: int) -> UInt8Image:
        y, x = row * BLOCK, column * BLOCK
        size = min(BLOCK, height - y), min(BLOCK, width - x)
        return _render(phantom, Window(y, x, size, mpp_um * factor), mpp_um, index)

    # Drawing is many small array operations, which threads only slow down: no pool.
    return TiledLevel((height, width), (BLOCK, BLOCK), read_tile, downsample=YX(factor, factor), pool_from=sys.maxsize)


def _render(phantom: Phantom, window: Window, mpp_um: float, level: int) -> UInt8Image:
    """Draw one window as RGB uint8 ``(y, x, 3)``."""
    chromatin, grain = (_texture(which, mpp_um, level, window) for which in (0, 1))
    tissue = phantom.compartments(*window.centres_um(), pixel_um=window.pixel_um)
    solid = tissue.cover * (1 - tissue.lumen)
    if not solid.any():
        return _transmit(_Stain(solid, _GLASS + 0.004 * grain))
    stain = _cytoplasm(phantom, tissue, solid, window, grain)
    if window.pixel_um <= _DRAWN_MPP_UM:
        nuclear, coverage = _nuclear_stain(phantom.nuclei(*window.bounds_um), window)
        nuclear *= 1 + 0.3 * chromatin
    else:
        nuclear, coverage = _nuclear_mean(phantom, tissue, solid)
    return _transmit(_Stain(stain.haematoxylin + nuclear, stain.eosin * (1 - 0.45 * coverage)))


def _cytoplasm(phantom: Phantom, tissue: Compartments, solid: Float, window: Window, grain: Float) -> _Stain:
    """Stain outside nuclei: granular epithelium, fibrous stroma, pale lymphoid tissue."""
    eosin = 0.30 * tissue.epithelium + 0.42 * tissue.stroma + 0.20 * tissue.lymphoid
    haematoxylin = 0.09 * tissue.epithelium + 0.02 * tissue.stroma + 0.13 * tissue.lymphoid
    grainy = 0.10 * grain
    # Fibres are some 6 um wide: gone where a pixel is wider.
    contrast = 0.16 * max(0.0, 1 - window.pixel_um / 4)
    if contrast > 0:
        fibres = np.sin(np.float32(22) * phantom.fibres(*window.centres_um()))
        grainy = grainy + contrast * tissue.stroma * fibres
    return _Stain(solid * haematoxylin, solid * np.maximum(eosin + grainy, 0.03) + (_GLASS + 0.004 * grain))


def _nuclear_mean(phantom: Phantom, tissue: Compartments, solid: Float) -> tuple[Float, Float]:
    """Stain and coverage where nuclei are smaller than a pixel: the share of nuclear area of each compartment."""
    share, stain = _nuclear_share(phantom.pitch_um, phantom.touching)
    kinds = (tissue.epithelium, tissue.stroma, tissue.lymphoid)
    coverage = solid * sum(np.float32(share[k]) * kinds[k] for k in range(3))
    # Light passes beside the nuclei, so a mixed pixel is a little brighter than its mean stain.
    nuclear = solid * sum(np.float32(0.9 * share[k] * stain[k]) * kinds[k] for k in range(3))
    return np.asarray(nuclear, np.float32), np.asarray(coverage, np.float32)


@lru_cache(maxsize=32)
def _nuclear_share(pitch_um: float, touching: float) -> tuple[list[float], list[float]]:
    """Measure, on a fixed sample, the part of each pure compartment that nuclei cover and their mean stain."""
    edge_um = 1500.0
    sample = Phantom(edge_um, edge_um, pitch_um, seed=2, touching=touching, glass=False)
    nuclei = sample.nuclei(0, 0, edge_um, edge_um)
    grid = (np.arange(0, edge_um, 10.0) + 5.0).astype(np.float64)
    tissue = sample.compartments(grid[:, None], grid[None, :])
    share, stain = [], []
    for kind, weight in enumerate((tissue.epithelium, tissue.stroma, tissue.lymphoid)):
        own = nuclei.take(nuclei.kind == kind)
        area = float(weight.mean()) * edge_um**2
        share.append(float(own.area_um2.sum() / area) if area > 0 else 0.0)
        stain.append(float(own.stain.mean()) if len(own) else 0.0)
    return share, stain


def _nuclear_stain(nuclei: Nuclei, window: Window) -> tuple[Float, Float]:
    """Sum the haematoxylin of all nuclei, and the part of each pixel they cover."""
    # The edge is as soft as the optics: 0.7 um, or a pixel.
    soft = math.hypot(window.pixel_um, 0.7)
    covered = covered_pixels(nuclei, window, soft / 2)
    part = np.minimum(covered.depth_um / np.float32(soft) + np.float32(0.5), 1)
    amount = part * nuclei.stain.astype(np.float32)[covered.nucleus]
    if window.pixel_um < 1.5:
        amount *= _inner_structure(covered, nuclei)
    pixels = window.shape[0] * window.shape[1]
    stain = np.bincount(covered.pixel, weights=amount, minlength=pixels).astype(np.float32)
    coverage = np.bincount(covered.pixel, weights=part, minlength=pixels).astype(np.float32)
    return stain.reshape(window.shape), np.minimum(coverage, 1).reshape(window.shape)


def _inner_structure(covered: Covered, nuclei: Nuclei) -> Float:
    """Darker membrane, and a nucleolus in every larger epithelial nucleus."""
    membrane = np.maximum(1 - np.abs(covered.depth_um - np.float32(0.5)) / np.float32(0.7), 0)
    large = ((nuclei.kind == EPITHELIUM) & (nuclei.major_um > 4.0)).astype(np.float32)[covered.nucleus]
    centre_u = (0.35 * np.cos(3 * nuclei.phase)).astype(np.float32)[covered.nucleus]
    centre_v = (0.35 * np.sin(3 * nuclei.phase)).astype(np.float32)[covered.nucleus]
    apart = ((covered.u - centre_u) ** 2 + (covered.v - centre_v) ** 2) / np.float32(0.055)
    nucleolus = np.maximum(1 - apart, 0) * large
    return np.asarray(0.85 + 0.30 * membrane + 0.55 * nucleolus, dtype=np.float32)


def _texture(which: int, mpp_um: float, level: int, window: Window) -> Float:
    """Cut the window out of a periodic texture (0: chromatin, 1: grain), float32 of about unit variance at 0.25 um."""
    period, tile = _texture_tile(which, mpp_um, level)
    y, x = window.y % period, window.x % period
    return tile[y : y + window.shape[0], x : x + window.shape[1]]


@lru_cache(maxsize=64)
def _texture_tile(which: int, mpp_um: float, level: int) -> tuple[int, Float]:
    """Return the period of a texture in pixels of a level, and the texture, wrapped far enough for any block."""
    period = _texture_period(which, mpp_um, level)
    edge = len(period)
    return edge, np.pad(period, (0, BLOCK), mode="wrap")


@lru_cache(maxsize=64)
def _texture_period(which: int, mpp_um: float, level: int) -> Float:
    """Make one period of a texture at the pixel size of a level: an area mean of the finer levels."""
    if level > 0:
        finer = _texture_period(which, mpp_um, level - 1)
        half = max(1, len(finer) // 2)
        return np.asarray(cv2.resize(finer, (half, half), interpolation=cv2.INTER_AREA).reshape(half, half))
    edge = round(_TEXTURE_PERIOD_UM / _TEXTURE_MPP_UM)
    white = np.random.default_rng([11, which]).standard_normal((edge, edge))
    frequency = np.hypot(np.fft.fftfreq(edge)[:, None], np.fft.rfftfreq(edge)[None, :]) / _TEXTURE_MPP_UM
    # Cycles per um: chromatin is clumped at about 1.5 um, cytoplasm granular at 2 um and grainy like a sensor.
    band = np.exp(-((frequency / 0.45) ** 2)) * frequency if which == 0 else np.exp(-((frequency / 0.25) ** 2)) + 0.01
    coloured = np.fft.irfft2(np.fft.rfft2(white) * band, s=(edge, edge))
    coloured = (coloured / coloured.std()).astype(np.float32)
    # A power of two of pixels, so that every level halves it exactly.
    wanted = 2 ** max(6, round(math.log2(_TEXTURE_PERIOD_UM / mpp_um)))
    return np.asarray(cv2.resize(coloured, (wanted, wanted), interpolation=cv2.INTER_AREA))


def _transmit(stain: _Stain) -> UInt8Image:
    """Beer-Lambert: the light that passes two stains, as RGB uint8."""
    out = np.empty((*stain.eosin.shape, 3), np.uint8)
    for channel in range(3):
        density = stain.haematoxylin * np.float32(_HAEMATOXYLIN[channel] * math.log(10) * 0.43)
        density += stain.eosin * np.float32(_EOSIN[channel] * math.log(10) * 0.43)
        np.negative(density, out=density)
        np.exp(density, out=density)
        density *= np.float32(_LIGHT[channel])
        out[..., channel] = density + np.float32(0.5)
    return out
