"""Instances of a z-stack by watershed on a regressed distance to the nucleus' border, in three dimensions.

The regression of a distance map and the watershed on its maxima follow Naylor et al. (IEEE TMI 2019), with balls in
place of discs. Voxels are cubes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from napari_nucleiseg.core.decoders.base import DecodeOptions, Instances, LabelledPixels, Maps
from napari_nucleiseg.core.models.spec import HeadSpec

SEED_LEVEL = 0.5
SMOOTHING_UM = 0.4


class VolumeDecoder:
    """Foreground probability and a distance map in 0..1, of stacks; see the module.

    Where there is a map of nuclei without the borders at which they touch, centres are looked for inside it only.
    """

    name = "volume"
    heads = (
        HeadSpec("nuclei", 1, "sigmoid", "Nucleus probability"),
        HeadSpec("distance", 1, "sigmoid", "Distance to the border"),
    )
    as_stored: frozenset[str] = frozenset()
    revision = 1

    def decode(self, maps: Maps, mpp_um: float, options: DecodeOptions) -> Instances:
        """Find the nuclei of maps ``(1, z, y, x)``.

        Parameters
        ----------
        maps : mapping of str to ndarray of float32
            ``nuclei``, ``distance`` and, if there is one, ``separated``; 0..1.
        mpp_um : float
            Side of a voxel.
        options : DecodeOptions
            The smallest area is that of the section through the middle of a ball: it stands for the ball's volume.

        Returns
        -------
        Instances
            Labels ``(z, y, x)``, centroids ``(n, 3)`` in voxels, areas in voxels, boxes ``(n, 6)``.
        """
        sigma = SMOOTHING_UM / mpp_um
        probability = ndimage.gaussian_filter(np.asarray(maps["nuclei"][0], np.float32), sigma)
        distance = ndimage.gaussian_filter(np.asarray(maps["distance"][0], np.float32), sigma)
        foreground = probability > options.threshold
        seeds = (distance > SEED_LEVEL) & foreground
        if "separated" in maps:
            seeds &= np.asarray(maps["separated"][0]) > options.threshold
        markers, count = ndimage.label(seeds)
        # A piece without a centre stays a nucleus.
        pieces, pieces_count = ndimage.label(foreground)
        bare = np.ones(pieces_count + 1, np.bool_)
        bare[pieces[seeds]] = False
        bare[0] = False
        markers = np.where(bare[pieces], pieces + count, markers).astype(np.int32)
        labels = watershed(-distance, markers, mask=foreground).astype(np.int32)
        return instances_of_volume(labels, probability, volume_of(options.min_area_um2) / mpp_um**3)

    def targets(self, labels: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """Return what each head should have said of ``(z, y, x)``; negative labels are not annotated.

        The distance to the border is divided by its largest value in the nucleus, and only what is annotated is a
        border: of a nucleus of which one plane is known, it is the distance in that plane.
        """
        inside = labels > 0
        interior = _interior_of(labels)
        distance = ndimage.distance_transform_edt(interior | (labels < 0)) + 1
        count = max(int(labels.max(initial=0)), 0) + 1
        largest = np.ones(count, np.float32)
        np.maximum.at(largest, labels[inside], distance[inside].astype(np.float32))
        normalised = np.where(inside, distance / largest[np.maximum(labels, 0)], 0)
        apart = inside & ~(_touching(labels) & ~interior)
        maps = {"nuclei": inside, "distance": normalised, "separated": apart}
        return {name: values[None].astype(np.float32) for name, values in maps.items()}


def volume_of(area_um2: float) -> float:
    """Return the volume, cubic micrometres, of the ball whose section through the middle has this area."""
    return 4 / 3 * math.pi * math.sqrt(area_um2 / math.pi) ** 3


def instances_of_volume(labels: NDArray[np.int32], probability: NDArray[np.float32], min_voxels: float) -> Instances:
    """Drop nuclei of fewer voxels than `min_voxels`, renumber the rest 1..n and measure them.

    Parameters
    ----------
    labels : ndarray of int32, shape (z, y, x)
        Instance ids, 0 is background; gaps are allowed.
    probability : ndarray of float32, shape (z, y, x)
        Foreground probability, averaged into the score.
    min_voxels : float
        Smallest volume to keep.
    """
    flat = np.flatnonzero(labels)
    ids = labels.ravel()[flat]
    sizes = np.bincount(ids, minlength=1)
    keep = sizes >= max(min_voxels, 1)
    keep[0] = False
    count = int(keep.sum())
    renumber = np.zeros(len(sizes), np.int32)
    renumber[keep] = np.arange(1, count + 1)
    ids = renumber[ids]
    kept = np.zeros(labels.shape, np.int32)
    kept.ravel()[flat] = ids
    places = np.unravel_index(flat, labels.shape)
    voxels = np.bincount(ids, minlength=count + 1)[1:]
    sums = [np.bincount(ids, place, count + 1)[1:] for place in places]
    centroids = np.stack(sums, axis=1) / np.maximum(voxels, 1)[:, None]
    found = ndimage.find_objects(kept)
    boxes = np.array([[part.start for part in box] + [part.stop for part in box] for box in found], np.int64)
    scores = np.bincount(ids, probability.ravel()[flat], count + 1)[1:] / np.maximum(voxels, 1)
    return Instances(
        labels.shape,
        LabelledPixels(flat, ids),
        centroids.astype(np.float32),
        voxels.astype(np.int64),
        boxes.reshape(-1, 6),
        scores.astype(np.float32),
    )


def _interior_of(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the voxels of nuclei whose six neighbours belong to the same nucleus, or are not annotated."""
    interior = labels > 0
    padded = np.pad(labels, 1, mode="edge")
    middle = slice(1, -1)
    for axis in range(labels.ndim):
        for side in (slice(None, -2), slice(2, None)):
            beside = padded[tuple(side if axis == one else middle for one in range(labels.ndim))]
            interior &= (beside == labels) | (beside < 0)
    return interior


def _touching(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return where two different nuclei lie within one voxel of a place."""
    highest = ndimage.maximum_filter(labels, 3)
    lowest = ndimage.minimum_filter(np.where(labels > 0, labels, np.iinfo(np.int32).max), 3)
    return np.asarray(highest > lowest, np.bool_)


DECODER = VolumeDecoder()
