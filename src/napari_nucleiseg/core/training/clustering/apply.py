"""A fitted network on pictures: its input, its statistics, and its labels tile by tile in bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.models.s3net import S3Net, receptive_radius_px

TILE_PX = 512


def as_input(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Normalise pictures ``(n, y, x, 3)`` uint8 RGB as the network wants them: float32 ``(n, 3, y, x)``."""
    spec = network_spec("s3net")
    x = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def to_labels(logits: Tensor) -> NDArray[np.int16]:
    """Return the highest channel of each pixel, ``(batch, y, x)``."""
    return logits.detach().argmax(dim=1).to(torch.int16).cpu().numpy()


@torch.no_grad()
def settle_statistics(network: S3Net, x: Tensor) -> None:
    """Give every batch normalisation the statistics of exactly this batch, and put the network into eval mode.

    Fitting normalises by the statistics of its picture; their running means lag behind after a few steps.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over what is seen from now on, which is one batch
    network.cluster_logits(x)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    network.eval()


@torch.inference_mode()
def label_everywhere(network: S3Net, image: NDArray[np.uint8], device: torch.device) -> NDArray[np.int16]:
    """Label a picture of any size with a network in eval mode, tile by tile; the seams cannot be seen.

    Parameters
    ----------
    network : S3Net
        With predicted offsets, on `device`.
    image : ndarray of uint8, shape (y, x, 3)
        RGB at the network's pixel size.
    device : torch.device
        Where the network is.

    Returns
    -------
    ndarray of int16, shape (y, x)
        Cluster of each pixel.
    """
    height, width = image.shape[:2]
    halo = receptive_radius_px(network.block_count, network.reach_px)
    labels = np.empty((height, width), np.int16)
    for y in range(0, height, TILE_PX):
        for x in range(0, width, TILE_PX):
            top, left = max(y - halo, 0), max(x - halo, 0)
            window = image[top : y + TILE_PX + halo, left : x + TILE_PX + halo]
            found = to_labels(network.cluster_logits(as_input(window[None], device)))[0]
            core = found[y - top : y - top + TILE_PX, x - left : x - left + TILE_PX]
            labels[y : y + core.shape[0], x : x + core.shape[1]] = core
    return labels
