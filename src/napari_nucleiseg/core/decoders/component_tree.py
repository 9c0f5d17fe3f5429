"""Nuclei without any learning, each at its own level of stain: the plumpest regions with the sharpest rims.

One threshold for a picture loses pale nuclei and fuses dark ones. Regions above falling thresholds form a tree (Jones
1999; maximally stable regions, Matas et al. 2002); choosing those that do not overlap and look most like one nucleus
follows Arteta et al., Learning to detect cells using non-overlapping extremal regions, MICCAI 2012, with a stated score
in place of a learned one. What is dense but belongs to no such region is parted as the classical floor does it, and its
plump pieces count as well: nuclei whose rim is blurred or lies in a crowd.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed
from skimage.filters import threshold_otsu
from skimage.measure import regionprops

from napari_nucleiseg.core.decoders.base import Instances
from napari_nucleiseg.core.decoders.classical import parted
from napari_nucleiseg.core.decoders.measure import instances_of

# Pixels above this share of 1 are the brightest of the picture: no threshold lies among them.
_HIGHEST = 99.8
_LEAST_OUTLINE_PX = 4
# A piece of what is left belongs to regions that were chosen where they take up more than this share of it.
_MOST_COVERED = 0.2


@dataclass(frozen=True, slots=True)
class ShapeOptions:
    """Settings of `segment_by_shape`; chosen on pictures of Kumar's training part and of TNBC 01-03.

    Parameters
    ----------
    smoothing_um : float
        Width (sigma) of the Gaussian over the haematoxylin channel.
    levels : int
        Number of thresholds.
    faintest : float
        Lowest threshold: 0 is the mean of what Otsu's threshold calls unstained, 1 that of what it calls stained.
    least_solidity : float
        Share of its convex hull that a nucleus fills at least, 0..1.
    least_roundness : float
        Four pi times area over squared length of the outline, at least: 1 for a disk, .3 for a nucleus six times as
        long as wide, .1 for a fibre.
    min_area_um2, max_area_um2 : float
        Of a nucleus.
    least_edge : float
        Least score: how much the stain falls across the outline, in the same unit as `faintest` per micrometre, less
        for shapes that are hardly convex.
    piece_solidity : float
        Like `least_solidity`, of the pieces of what is left; 2 leaves all of them out.
    least_piece_density : float
        Mean share by which stain exceeds the threshold in a piece, 0..1.
    """

    smoothing_um: float = 0.4
    levels: int = 24
    faintest: float = 0.2
    least_solidity: float = 0.8
    least_roundness: float = 0.3
    min_area_um2: float = 8.0
    max_area_um2: float = 250.0
    least_edge: float = 0.16
    piece_solidity: float = 0.85
    least_piece_density: float = 0.1


@dataclass(frozen=True, slots=True)
class StainLevels:
    """Haematoxylin of a slide or picture, as `skimage.color.rgb2hed` measures it.

    Parameters
    ----------
    threshold : float
        Otsu's.
    unstained, stained : float
        Means of what lies below and above it; equal where there is no stain at all.
    """

    threshold: float
    unstained: float
    stained: float


@dataclass(slots=True, eq=False)
class _Node:
    """A region above one threshold: where it lies, its filled area in pixels, its score and those inside of it."""

    outline: NDArray[np.int32]
    area: float
    score: float
    chosen: list[_Node] = field(default_factory=list)


def haematoxylin_of(
    image: NDArray[np.uint8], mpp_um: float, options: ShapeOptions | None = None
) -> NDArray[np.float32]:
    """Return the smoothed haematoxylin channel ``(y, x)`` of an RGB picture."""
    sigma = (options or ShapeOptions()).smoothing_um / mpp_um
    return np.asarray(cv2.GaussianBlur(rgb2hed(image)[..., 0].astype(np.float32), (0, 0), sigma), np.float32)


def stain_levels(stains: Iterable[NDArray[np.float32]]) -> StainLevels:
    """Measure the haematoxylin channels of a picture, or of some pictures of a slide, all their pixels together."""
    values = np.concatenate([stain.ravel() for stain in stains])
    threshold = float(threshold_otsu(values))
    is_stained = values > threshold
    unstained = float(values[~is_stained].mean())
    return StainLevels(threshold, unstained, float(values[is_stained].mean()) if is_stained.any() else unstained)


def segment_by_shape(
    image: NDArray[np.uint8], mpp_um: float, options: ShapeOptions | None = None, levels: StainLevels | None = None
) -> Instances:
    """Find nuclei in a picture of haematoxylin-stained tissue.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB, bright field; 0.25 um per pixel serves best.
    mpp_um : float
        Micrometres per pixel.
    options : ShapeOptions, optional
        Settings.
    levels : StainLevels, optional
        Of the slide; default those of the picture, which then needs to hold some nuclei.

    Returns
    -------
    Instances
        Nuclei, none of which overlap; the score says how sharp the outline is, of a piece how dense it is, 0..1.

    Notes
    -----
    A region's score is the mean gradient of stain along its outline times the root of
    ``(solidity - least_solidity) / (1 - least_solidity)``. From the highest threshold down, a region takes the place of
    those inside of it where its score is at least their mean, weighted by area.
    """
    return shapes_in(haematoxylin_of(image, mpp_um, options), mpp_um, options, levels)


def shapes_in(
    stain: NDArray[np.float32], mpp_um: float, options: ShapeOptions | None = None, levels: StainLevels | None = None
) -> Instances:
    """Find nuclei in a haematoxylin channel ``(y, x)`` as `haematoxylin_of` returns it; see `segment_by_shape`."""
    options = options or ShapeOptions()
    levels = levels or stain_levels([stain])
    labels, sharpness = np.zeros(stain.shape, np.int32), np.zeros(stain.shape, np.float32)
    if levels.stained > levels.unstained:
        for number, node in enumerate(_best_regions(stain, levels, mpp_um, options), start=1):
            cv2.drawContours(labels, [node.outline], -1, number, cv2.FILLED)
            cv2.drawContours(sharpness, [node.outline], -1, min(1.0, node.score), cv2.FILLED)
        density = np.clip(1 - levels.threshold / np.maximum(stain, levels.threshold), 0, 1)
        _add_pieces(labels, sharpness, density.astype(np.float32), mpp_um, options)
    return instances_of(labels, sharpness, options.min_area_um2 / mpp_um**2)


def _best_regions(stain: NDArray[np.float32], levels: StainLevels, mpp_um: float, options: ShapeOptions) -> list[_Node]:
    """Return the regions that score best and do not overlap."""
    contrast = levels.stained - levels.unstained
    across, down = (cv2.Sobel(stain, cv2.CV_32F, dx, 1 - dx, ksize=3) / 8 for dx in (1, 0))
    edge = np.hypot(across, down).astype(np.float32) / np.float32(contrast * mpp_um)
    first, last = levels.unstained + options.faintest * contrast, float(np.percentile(stain, _HIGHEST))
    inside: list[tuple[tuple[int, int], _Node]] = []
    for threshold in np.linspace(first, max(first, last), options.levels, endpoint=False)[::-1]:
        above = (stain > threshold).astype(np.uint8)
        _, regions, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=4)
        children: dict[int, list[_Node]] = {}
        for (y, x), node in inside:
            children.setdefault(int(regions[y, x]), []).append(node)
        inside = []
        for number in np.flatnonzero(stats[:, cv2.CC_STAT_AREA] * mpp_um**2 >= options.min_area_um2):
            if number == 0:  # what lies below the threshold
                continue
            left, top, width, height, _ = stats[number]
            part = regions[top : top + height, left : left + width] == number
            node = _region(part, (int(left), int(top)), edge, mpp_um, options)
            _choose(node, children.get(int(number), []), options)
            y, x = np.argwhere(part)[0]
            inside.append(((int(top + y), int(left + x)), node))
    return [chosen for _, node in inside for chosen in node.chosen]


def _region(
    part: NDArray[np.bool_], corner: tuple[int, int], edge: NDArray[np.float32], mpp_um: float, options: ShapeOptions
) -> _Node:
    """Score one region, given as a mask whose corner lies at ``(x, y)``."""
    framed = cv2.copyMakeBorder(part.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    outlines, _ = cv2.findContours(framed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # Half of the outline's pixels lie outside of the polygon through their centres.
    outline = np.asarray(max(outlines, key=cv2.contourArea), np.int32)
    area, hull = (cv2.contourArea(line) + len(outline) / 2 for line in (outline, cv2.convexHull(outline)))
    outline = outline - 1 + np.array(corner, np.int32)
    solidity = (area / hull - options.least_solidity) / max(1 - options.least_solidity, 1e-6)
    node = _Node(outline, area, -1.0)
    roundness = 4 * np.pi * area / max(cv2.arcLength(outline, closed=True), 1.0) ** 2
    if solidity <= 0 or roundness < options.least_roundness or area * mpp_um**2 > options.max_area_um2:
        return node
    x, y = outline[:, 0].T
    # Where the picture ends there is no rim to judge by.
    seen = (x > 0) & (y > 0) & (x < edge.shape[1] - 1) & (y < edge.shape[0] - 1)
    if np.count_nonzero(seen) > _LEAST_OUTLINE_PX:
        node.score = float(edge[y[seen], x[seen]].mean()) * min(1.0, solidity) ** 0.5
    return node


def _choose(node: _Node, children: list[_Node], options: ShapeOptions) -> None:
    """Decide between a region and those inside of it."""
    inner = [chosen for child in children for chosen in child.chosen]
    least = max(0.0, options.least_edge)
    if inner:
        least = max(least, sum(one.score * one.area for one in inner) / sum(one.area for one in inner))
    node.chosen = [node] if node.score > 0 and node.score >= least else inner


def _add_pieces(
    labels: NDArray[np.int32],
    scores: NDArray[np.float32],
    density: NDArray[np.float32],
    mpp_um: float,
    options: ShapeOptions,
) -> None:
    """Add the plump pieces of what is dense and belongs to no region; in place."""
    number = int(labels.max())
    for piece in regionprops(parted(density > 0, mpp_um), intensity_image=density):
        inside = labels[piece.slice]
        free = piece.image & (inside == 0)
        if np.count_nonzero(free) < (1 - _MOST_COVERED) * piece.area:
            continue
        has_size = options.min_area_um2 <= piece.area * mpp_um**2 <= options.max_area_um2
        is_plump = has_size and piece.solidity >= options.piece_solidity
        if is_plump and piece.intensity_mean >= options.least_piece_density:
            number += 1
            inside[free] = number
            scores[piece.slice][free] = piece.intensity_mean
