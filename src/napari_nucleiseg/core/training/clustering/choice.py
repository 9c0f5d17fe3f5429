"""Which clusters are nuclei: ordered by haematoxylin, the richest proposed, their pixels decoded into nuclei."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions, Instances, decoder
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.slides.stains import stain_densities


@dataclass(frozen=True, slots=True)
class RankedCluster:
    """One cluster of a picture and how it is stained.

    Parameters
    ----------
    cluster : int
        Its number in the label map.
    share : float
        Part of the labelled pixels that belong to it, 0..1.
    haematoxylin : float
        Mean optical density of haematoxylin.
    darkness : float
        Mean of 1 - grey, 0..1.
    proposed : bool
        Whether it is taken for nuclei unless a person says otherwise.
    """

    cluster: int
    share: float
    haematoxylin: float
    darkness: float
    proposed: bool


def ranked(labels: NDArray[np.integer], image: NDArray[np.uint8]) -> tuple[RankedCluster, ...]:
    """Order the clusters of a picture by their density of haematoxylin, darker ones first where that is equal.

    Parameters
    ----------
    labels : ndarray of integers, shape (y, x)
        Cluster of each pixel; negative where it was not looked at.
    image : ndarray of uint8, shape (y, x, 3)
        RGB of the same pixels.

    Returns
    -------
    tuple of RankedCluster
        Those are proposed that come before the largest step of the stain, see `richest`; the first one always is.

    Raises
    ------
    DataError
        If the two are not of one size, or nothing is labelled.
    """
    if labels.shape != image.shape[:2]:
        raise DataError(
            f"the label map ({labels.shape[0]} x {labels.shape[1]} px) and the picture "
            f"({image.shape[0]} x {image.shape[1]} px) must be of one size"
        )
    seen = labels >= 0
    if not seen.any():
        raise DataError("no pixel is labelled, so there are no clusters to order; go on with the fit")
    ids = labels[seen].astype(np.intp)
    pixels = image[seen]
    counts = np.bincount(ids)
    stain = np.bincount(ids, stain_densities(pixels[None])[0, :, 0])
    dark = np.bincount(ids, 1 - pixels.mean(axis=1) / 255)
    there = np.flatnonzero(counts)
    density, darkness = stain / np.maximum(counts, 1), dark / np.maximum(counts, 1)
    order = np.array(sorted(there.tolist(), key=lambda cluster: (-density[cluster], -darkness[cluster], cluster)))
    proposed = set(order[: richest(density[order], counts[order])].tolist())
    return tuple(
        RankedCluster(
            cluster=cluster,
            share=float(counts[cluster] / len(ids)),
            haematoxylin=float(density[cluster]),
            darkness=float(darkness[cluster]),
            proposed=cluster in proposed,
        )
        for cluster in order.tolist()
    )


def richest(density: NDArray[np.float64], counts: NDArray[np.integer]) -> int:
    """Return how many of the first clusters belong together by their stain: Otsu's criterion over clusters.

    The split into two groups is the one with the largest variance between them, each cluster weighted by its pixels,
    so that a few specks of ink are no group of their own.

    Parameters
    ----------
    density : ndarray of float64, shape (n,)
        Mean stain of each cluster, descending.
    counts : ndarray of integers, shape (n,)
        Pixels of each.

    Returns
    -------
    int
        From 1 to n - 1; 1 if there is only one.
    """
    if len(density) < 2:
        return 1
    upper = np.cumsum(counts)[:-1].astype(np.float64)
    lower = counts.sum() - upper
    sums = np.cumsum(density * counts)
    difference = sums[:-1] / upper - (sums[-1] - sums[:-1]) / lower
    return int(np.argmax(upper * lower * difference**2)) + 1


def proposed_clusters(clusters: Collection[RankedCluster]) -> tuple[int, ...]:
    """Return the numbers of the clusters that are proposed as nuclei."""
    return tuple(item.cluster for item in clusters if item.proposed)


def nuclei_of_clusters(
    labels: NDArray[np.integer], chosen: Collection[int], mpp_um: float, options: DecodeOptions | None = None
) -> Instances:
    """Turn the pixels of the chosen clusters into nuclei: cleaned, and parted where they touch.

    Parameters
    ----------
    labels : ndarray of integers, shape (y, x)
        Cluster of each pixel.
    chosen : collection of int
        Clusters that are nuclei; with none there are no nuclei.
    mpp_um : float
        Micrometres per pixel.
    options : DecodeOptions, optional
        Smallest area; a pixel is chosen or not, so the threshold has no effect.
    """
    foreground = np.isin(labels, list(chosen)).astype(np.float32)
    return decoder("watershed").decode({"nuclei": foreground[None]}, mpp_um, options or DecodeOptions())
