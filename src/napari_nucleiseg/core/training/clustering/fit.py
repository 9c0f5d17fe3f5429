"""Cluster one picture without labels: fetch, forward, decide, report, stop?, losses, backward, step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_nucleiseg.core.errors import DataError, ModelError
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.s3net import S3Net
from napari_nucleiseg.core.training.clustering.affine import AffineDraw
from napari_nucleiseg.core.training.clustering.apply import (
    as_input,
    label_everywhere,
    settle_statistics,
    to_labels,
)
from napari_nucleiseg.core.training.clustering.config import ClusterConfig
from napari_nucleiseg.core.training.clustering.crops import Crops, crops_of
from napari_nucleiseg.core.training.clustering.losses import cluster_losses

LabelMap = NDArray[np.int16]
SMALLEST_PX = 32
LEAST_CONTRAST = 12  # grey levels; below this there is nothing but noise of a scanner on glass
GLASS = 220


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """A network fitted to one picture, and what it says of it.

    Parameters
    ----------
    labels : ndarray of int16, shape (y, x)
        Cluster of each pixel, the number of its channel.
    network : S3Net
        On the CPU, in eval mode, with the statistics of the picture; which clusters are nuclei is not chosen yet.
    config : ClusterConfig
        What it was fitted with.
    iteration : int
        The step whose state was kept.
    """

    labels: LabelMap
    network: S3Net
    config: ClusterConfig
    iteration: int


@dataclass(frozen=True, slots=True, eq=False)
class ClusterStep:
    """What one step reports.

    Parameters
    ----------
    iteration, total : int
        Steps done, and at most.
    labels : ndarray of int16, shape (y, x)
        Cluster of each pixel as the network sees it at this step; -1 where this step did not look (regions larger
        than ``fit_px``).
    clusters : int
        How many of them there are.
    losses : dict of str to float
        Each term, unweighted, and their weighted sum ``total``; empty on the last step, after which nothing is learned.
    seconds : float
        Wall time of this step.
    result : Clustering or None
        On the last step: what is kept.
    """

    iteration: int
    total: int
    labels: LabelMap
    clusters: int
    losses: dict[str, float]
    seconds: float
    result: Clustering | None = None


@dataclass(slots=True, eq=False)
class _Kept:
    """The last state with enough clusters; until there is one, that with the most."""

    clusters: int = 0
    iteration: int = 0
    labels: LabelMap = field(default_factory=lambda: np.zeros((0, 0, 0), np.int16))
    state: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, network: S3Net, labels: LabelMap, clusters: int, iteration: int, least: int) -> None:
        if clusters >= min(least, self.clusters + 1):
            self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}
            self.labels, self.clusters, self.iteration = labels, clusters, iteration


def count_clusters(labels: LabelMap, least_share: float = 0.0) -> int:
    """Return how many clusters hold at least this share of all labelled pixels."""
    counts = np.bincount(labels[labels >= 0].astype(np.intp))
    return int((counts > max(least_share * counts.sum(), 0)).sum())


def never() -> bool:
    """Say that it is not enough yet."""
    return False


def cluster(
    image: NDArray[np.uint8], config: ClusterConfig | None = None, *, enough: Callable[[], bool] = never
) -> Generator[ClusterStep, None, None]:
    """Fit a fresh network to one picture; closing the generator drops the fit at once.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB at the network's own pixel size (0.5 um), at least 32 px on each side.
    config : ClusterConfig, optional
        Settings.
    enough : callable
        Polled after each step; once it says True the fit ends with what it has.

    Yields
    ------
    ClusterStep
        One a step; the last one carries the result. The first has as many clusters as the fresh network happens to
        find.

    Raises
    ------
    DataError
        If the settings make no sense, or the picture is too small or holds nothing to tell apart.
    ModelError
        If the device is not there, or free offsets are asked for a region that is too large to be fitted at once.
    """
    config = config or ClusterConfig()
    crops = crops_of(_checked(image, config), config)
    device = choose_device(config.device)
    network, draw = _fresh(config, crops, device)
    parameters = [*network.parameters(), *draw.parameters()]
    optimiser = torch.optim.SGD(parameters, lr=config.learning_rate, momentum=config.momentum)
    x = as_input(crops.pixels, device)
    kept, found = _Kept(), np.zeros((0,), np.int16)
    for iteration in range(1, config.iterations + 1):
        began = time.perf_counter()
        said = network.clusters(x)
        found = to_labels(said.main)
        clusters = count_clusters(found, config.least_share)
        kept.offer(network, found, clusters, iteration, config.min_clusters)
        if clusters <= config.min_clusters and iteration >= config.least_iterations:
            break
        losses = cluster_losses(said, config, draw, iteration)
        terms = losses.as_dict()
        if not math.isfinite(terms["total"]):
            break  # too large a step; what was kept is from before
        optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        optimiser.step()
        seconds = time.perf_counter() - began
        yield ClusterStep(iteration, config.iterations, crops.mosaic(found), clusters, terms, seconds)
        if enough():
            break
    yield _last_step(kept, network, config, image=image, crops=crops, x=x)


def _last_step(
    kept: _Kept, network: S3Net, config: ClusterConfig, *, image: NDArray[np.uint8], crops: Crops, x: Tensor
) -> ClusterStep:
    """Go back to what was kept, give the network the statistics of its picture, and label all of it."""
    began = time.perf_counter()
    network.load_state_dict(kept.state)
    settle_statistics(network, x)
    labels = crops.mosaic(kept.labels) if crops.whole else label_everywhere(network, image, x.device)
    result = Clustering(labels, network.cpu(), config, kept.iteration)
    clusters, seconds = count_clusters(labels, config.least_share), time.perf_counter() - began
    return ClusterStep(kept.iteration, config.iterations, labels, clusters, {}, seconds, result)


def _checked(image: NDArray[np.uint8], config: ClusterConfig) -> NDArray[np.uint8]:
    """Return the picture, or raise a sentence about it or the settings."""
    if problem := config.validation_error():
        raise DataError(problem)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"clusters are found in 8-bit RGB pictures, not in {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST_PX:
        raise DataError(
            f"the region is {height} x {width} px at the pixel size of the network, too small to be clustered; "
            f"choose one of at least {SMALLEST_PX} x {SMALLEST_PX} px"
        )
    # The mean of neighbours, so that the noise of a camera on glass does not count as content.
    smooth = cv2.blur(image, (5, 5)).reshape(-1, 3)
    if int(np.ptp(smooth, axis=0).max()) < LEAST_CONTRAST:
        colour = "white (glass)" if smooth.mean() > GLASS else "of one colour"
        raise DataError(f"the region is {colour}: there is nothing to tell apart; choose one with tissue")
    return image


def _fresh(config: ClusterConfig, crops: Crops, device: torch.device) -> tuple[S3Net, AffineDraw]:
    """Return a network and a draw of transforms with fresh weights; the caller's random numbers are left alone."""
    height, width = crops.pixels.shape[1:3] if config.offsets == "free" else (0, 0)
    if config.offsets == "free" and not crops.whole:
        raise ModelError(
            f"the region is {crops.shape[0]} x {crops.shape[1]} px, more than is fitted at once ({config.fit_px:,} px),"
            " and free offsets are tied to one picture; choose a smaller region, a larger fit_px or predicted offsets"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = S3Net(config.width, config.blocks, config.reach_px, height, width)
        if config.smooth_start and not network.is_free:
            network.begin_smooth()
        draw = AffineDraw(config.width, torch.Generator().manual_seed(config.seed))
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.train(), draw.to(device)
