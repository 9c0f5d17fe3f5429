"""What labelled pictures are like: sizes, pixel sizes, colours, stains, nuclei and how close they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_nucleiseg.core.decoders.measure import centroids_of
from napari_nucleiseg.core.slides.stains import stain_densities
from napari_nucleiseg.core.training.config import DataSet
from napari_nucleiseg.core.training.samples import picture_files, read_pair

# Colours are measured on a grid of about so many pixels a picture: means do not change with more.
_COLOUR_PIXELS = 200_000
# A pixel whose darkest channel is at least this is glass, not tissue.
_GLASS = 225
# Nuclei with at most one pixel of background between them touch: a network sees no gap there.
_TOUCHING = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))
_QUANTILES = (10, 50, 90)
# Densities far below this are noise of the camera: a stain that is hardly there has no spread.
_FAINT = 0.1
# Below this many values a quantile near the end of a distribution is chance.
_FEW = 20


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution in short: its median and the values that a tenth lie below and above; 0 where there is nothing.

    Parameters
    ----------
    low, median, high : float
        10, 50 and 90 %.
    """

    low: float = 0.0
    median: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, slots=True)
class SetFacts:
    """One data set.

    Parameters
    ----------
    path : str
        Its folder.
    pictures, empty_pictures : int
        Labelled pictures, and how many of them hold no nucleus.
    nuclei : int
        Of all pictures.
    mpp_um : float
        Micrometres per pixel, the median over pictures.
    mpp_given : bool
        Whether a person stated it; otherwise it is estimated from the size of nuclei, picture by picture.
    mpp_range_um : tuple of float
        Smallest and largest of the pictures.
    area_mm2 : float
        Annotated area.
    """

    path: str
    pictures: int
    empty_pictures: int
    nuclei: int
    mpp_um: float
    mpp_given: bool
    mpp_range_um: tuple[float, float]
    area_mm2: float


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What all data sets of a run together are like.

    Parameters
    ----------
    sets : tuple of SetFacts
        One a data set.
    pictures, nuclei : int
        Totals.
    side_px, side_um : Spread
        Shorter side of the pictures.
    mpp_um : float
        Micrometres per pixel, the median over pictures.
    mpp_given : bool
        Whether it is stated for all sets.
    mean, std : tuple of float
        Of red, green and blue over tissue, 0..1.
    haematoxylin, eosin : Spread
        Mean optical density (natural logarithm) of tissue, over pictures.
    stain_spread : float
        Standard deviation over pictures of the logarithm of those densities, mean of both stains; 0 for one picture.
    light_spread : float
        Standard deviation over pictures of the brightest tenth of their pixels, 0..1; 0 for one picture.
    diameter_um : Spread
        Equivalent diameters of nuclei, those cut by the picture's edge left out.
    smallest_area_um2 : float
        2 % of the nuclei are smaller; 0 without nuclei.
    distance_um : Spread
        From each nucleus' centre to the nearest other one.
    touching_share : float
        Share of nuclei with at most a pixel of background to another one, 0..1.
    foreground_share : float
        Share of the annotated pixels that lie in nuclei, 0..1.
    labelled_share : float
        Share of the pixels that are annotated, as nucleus or as background, 0..1.
    nuclei_per_picture : Spread
        Number of nuclei.
    area_mm2 : float
        Annotated area.
    """

    sets: tuple[SetFacts, ...]
    pictures: int
    nuclei: int
    side_px: Spread
    side_um: Spread
    mpp_um: float
    mpp_given: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    haematoxylin: Spread
    eosin: Spread
    stain_spread: float
    light_spread: float
    diameter_um: Spread
    smallest_area_um2: float
    distance_um: Spread
    touching_share: float
    foreground_share: float
    labelled_share: float
    nuclei_per_picture: Spread
    area_mm2: float


@dataclass(frozen=True, slots=True, eq=False)
class PictureFacts:
    """One picture; lengths are micrometres, arrays have one entry a nucleus.

    `colour_sums` holds the count, sums and sums of squares of RGB over tissue, shape (3, 3).
    """

    side_px: int
    mpp_um: float
    pixels: int
    annotated: int
    foreground: int
    nuclei: int
    touching: int
    areas_um2: NDArray[np.float64]
    distances_um: NDArray[np.float64]
    colour_sums: NDArray[np.float64]
    densities: tuple[float, float]
    light: float


def take_fingerprint(data: Sequence[DataSet], on_picture: Callable[[int, int], None] | None = None) -> Fingerprint:
    """Measure data sets; one picture is held in memory at a time.

    Parameters
    ----------
    data : sequence of DataSet
        Folders with ``images/`` and ``labels/``.
    on_picture : callable, optional
        Called with the number of pictures done and of all.

    Raises
    ------
    DataError
        If a folder is not a data set, or a picture cannot be read.
    """
    total = sum(len(picture_files(item)) for item in data)
    measured: list[list[PictureFacts]] = []
    done = 0
    for item in data:
        found = []
        for picture in _pictures(item):
            found.append(picture)
            done += 1
            if on_picture is not None:
                on_picture(done, total)
        measured.append(found)
    facts = tuple(_set_facts(item, found) for item, found in zip(data, measured, strict=True))
    return _together(facts, [picture for found in measured for picture in found])


def _pictures(data: DataSet) -> Iterator[PictureFacts]:
    for path in picture_files(data):
        yield measure_picture(*read_pair(path, data))


def measure_picture(image: NDArray[np.uint8], labels: NDArray[np.int32], mpp_um: float) -> PictureFacts:
    """Measure one picture.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB.
    labels : ndarray of int32, shape (y, x)
        Instance ids, 0 is background, negative is not annotated.
    mpp_um : float
        Micrometres per pixel.
    """
    nuclei = np.maximum(labels, 0)
    areas = np.bincount(nuclei.ravel())
    ids = np.flatnonzero(areas[1:]) + 1
    centres = centroids_of(nuclei)[ids].astype(np.float64) * mpp_um
    cut = np.unique(np.concatenate([nuclei[0], nuclei[-1], nuclei[:, 0], nuclei[:, -1]]))
    whole = np.setdiff1d(ids, cut)
    step = max(1, round((labels.size / _COLOUR_PIXELS) ** 0.5))
    pixels = image[::step, ::step].reshape(-1, 3)
    tissue = pixels[pixels.min(axis=1) < _GLASS]
    # A picture of glass alone has no tissue to measure; its pixels are all there is.
    tissue = tissue if len(tissue) > len(pixels) / 100 else pixels
    scaled = tissue.astype(np.float64) / 255
    density = stain_densities(tissue).mean(axis=0)
    return PictureFacts(
        side_px=min(labels.shape),
        mpp_um=mpp_um,
        pixels=labels.size,
        annotated=int((labels >= 0).sum()),
        foreground=int(areas[1:].sum()),
        nuclei=len(ids),
        touching=count_touching(nuclei),
        areas_um2=(areas[whole if len(whole) else ids] * mpp_um**2).astype(np.float64),
        distances_um=_nearest(centres),
        colour_sums=np.stack([np.full(3, float(len(scaled))), scaled.sum(axis=0), (scaled**2).sum(axis=0)]),
        densities=(float(density[0]), float(density[1])),
        light=float(np.percentile(pixels.max(axis=1), 90)) / 255,
    )


def count_touching(nuclei: NDArray[np.int32]) -> int:
    """Return how many ids of an instance map ``(y, x)`` have at most one pixel of background to another id."""
    found: set[int] = set()
    height, width = nuclei.shape
    for down, right in _TOUCHING:
        here = nuclei[: height - down, max(0, -right) : width - max(0, right)]
        there = nuclei[down:, max(0, right) : width + min(0, right)]
        pairs = (here != there) & (here > 0) & (there > 0)
        found |= {*np.unique(here[pairs]).tolist(), *np.unique(there[pairs]).tolist()}
    return len(found)


def _nearest(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance from each point to the nearest other one; nothing for a single point."""
    if len(centres) < 2:
        return np.zeros(0)
    return np.asarray(cKDTree(centres).query(centres, k=[2])[0], dtype=np.float64).ravel()


def spread_of(values: Sequence[float] | NDArray[np.float64]) -> Spread:
    """Return the quantiles of some values; of none, zeros."""
    if not len(values):
        return Spread()
    low, median, high = np.percentile(np.asarray(values, np.float64), _QUANTILES)
    return Spread(float(low), float(median), float(high))


def _set_facts(data: DataSet, pictures: Sequence[PictureFacts]) -> SetFacts:
    sizes = [picture.mpp_um for picture in pictures]
    return SetFacts(
        path=data.path,
        pictures=len(pictures),
        empty_pictures=sum(not picture.nuclei for picture in pictures),
        nuclei=sum(picture.nuclei for picture in pictures),
        mpp_um=float(np.median(sizes)),
        mpp_given=data.mpp_um is not None,
        mpp_range_um=(min(sizes), max(sizes)),
        area_mm2=_area_mm2(pictures),
    )


def _area_mm2(pictures: Sequence[PictureFacts]) -> float:
    return float(sum(picture.annotated * picture.mpp_um**2 for picture in pictures)) / 1e6


def _together(sets: tuple[SetFacts, ...], pictures: Sequence[PictureFacts]) -> Fingerprint:
    areas = np.concatenate([picture.areas_um2 for picture in pictures])
    nuclei = sum(picture.nuclei for picture in pictures)
    annotated = sum(picture.annotated for picture in pictures)
    count, sums, squares = np.sum([picture.colour_sums for picture in pictures], axis=0)
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    densities = np.array([picture.densities for picture in pictures])
    return Fingerprint(
        sets=sets,
        pictures=len(pictures),
        nuclei=nuclei,
        side_px=spread_of([picture.side_px for picture in pictures]),
        side_um=spread_of([picture.side_px * picture.mpp_um for picture in pictures]),
        mpp_um=float(np.median([picture.mpp_um for picture in pictures])),
        mpp_given=all(item.mpp_given for item in sets),
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        std=(float(std[0]), float(std[1]), float(std[2])),
        haematoxylin=spread_of(densities[:, 0]),
        eosin=spread_of(densities[:, 1]),
        stain_spread=float(np.log(densities + _FAINT).std(axis=0).mean()),
        light_spread=float(np.std([picture.light for picture in pictures])),
        diameter_um=spread_of(2 * np.sqrt(areas / np.pi)),
        smallest_area_um2=_smallest(areas),
        distance_um=spread_of(np.concatenate([picture.distances_um for picture in pictures])),
        touching_share=sum(picture.touching for picture in pictures) / nuclei if nuclei else 0.0,
        foreground_share=sum(picture.foreground for picture in pictures) / annotated if annotated else 0.0,
        labelled_share=annotated / sum(picture.pixels for picture in pictures),
        nuclei_per_picture=spread_of([picture.nuclei for picture in pictures]),
        area_mm2=_area_mm2(pictures),
    )


def _smallest(areas: NDArray[np.float64]) -> float:
    """Return the area that 2 % of the nuclei fall below, of few nuclei 10 %; 0 without any."""
    return float(np.percentile(areas, 2 if len(areas) >= _FEW else 10)) if len(areas) else 0.0
