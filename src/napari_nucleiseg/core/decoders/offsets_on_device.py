"""The steps of the offsets decoder for a batch on any device, for where maps are there already.

Everything has a size that is known beforehand, so that the host waits for nothing: pixels outside nuclei vote with no
weight, and peaks are numbered by passes over the cells. No result depends on the order in which threads write: votes
are whole numbers, and where discs meet, the nearest peak is chosen as `offsets` does.
"""

from __future__ import annotations

import math

import cv2
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.decoders.measure import SMOOTHING_UM
from napari_nucleiseg.core.decoders.offsets import CELL_UM, MAX_REACH_UM, MIN_VOTES_UM2, PEAK_RADIUS_UM, VOTE_SIGMA_UM

# Touching peaks of exactly one height are one peak: real ones have two or three cells, this is enough for hundreds.
ROUNDS = 6


def label_offsets(nuclei: Tensor, offsets: Tensor, mpp_um: float, threshold: float) -> Tensor:
    """Find the nuclei of a batch; see `OffsetDecoder`.

    Parameters
    ----------
    nuclei : Tensor, shape (b, 1, y, x)
        Foreground probability: uint8 (times 255) or floats in 0..1.
    offsets : Tensor of floats, shape (b, 2, y, x)
        Pixels to the centre of the nucleus, ``(y, x)``; on the same device.
    mpp_um : float
        Micrometres per pixel.
    threshold : float
        Probability above which a pixel belongs to a nucleus, 0..1.

    Returns
    -------
    Tensor of int32, shape (b, y, x)
        On the device: 0 is background, nuclei of each picture are numbered from 1 in raster order of their peaks;
        gaps are possible, and nothing is dropped for its size.
    """
    probability = nuclei[:, 0].float()
    if nuclei.dtype == torch.uint8:
        probability = probability * (1 / 255)
    foreground = blurred(probability, SMOOTHING_UM / mpp_um) > threshold
    batch, height, width = foreground.shape
    cell = max(1, round(CELL_UM / mpp_um))
    rows, columns = -(-height // cell), -(-width // cell)
    vote_y = _to_cell(offsets[:, 0], torch.arange(height, device=offsets.device)[:, None], cell, rows)
    vote_x = _to_cell(offsets[:, 1], torch.arange(width, device=offsets.device), cell, columns)
    landed = (vote_y * columns + vote_x).view(batch, -1)
    votes = torch.zeros((batch, rows * columns), dtype=torch.int32, device=nuclei.device)
    votes.scatter_add_(1, landed, foreground.view(batch, -1).to(torch.int32))
    owner = nearest_peaks(votes.view(batch, rows, columns).float(), cell * mpp_um, mpp_um)
    return owner.view(batch, -1).gather(1, landed).view(batch, height, width) * foreground


def _to_cell(offset: Tensor, start: Tensor, cell: int, count: int) -> Tensor:
    """Return the index of the cell each pixel points into, kept within ``0..count - 1``, int64."""
    # A network gone wild must not make an index of something that is no number: a GPU would not survive it.
    position = torch.nan_to_num(offset.float()) + start
    return ((position + 0.5) * (1 / cell)).clamp_(0, count - 1).long()


def blurred(values: Tensor, sigma: float) -> Tensor:
    """Do as ``cv2.GaussianBlur(values, (0, 0), sigma)`` for a batch of float32 ``(b, y, x)``.

    Sums of shifted copies and no convolution, for which a GPU may round to ten bits.
    """
    # The number of taps that OpenCV takes for floats.
    half = round(sigma * 8 + 1) // 2
    weights = cv2.getGaussianKernel(2 * half + 1, sigma, cv2.CV_32F).ravel()[half:].tolist()
    for axis in (2, 1):
        length = values.shape[axis]
        padded = values.index_select(axis, _mirrored(length, half, values.device))
        values = padded.narrow(axis, half, length) * weights[0]
        for step in range(1, half + 1):
            pair = padded.narrow(axis, half - step, length) + padded.narrow(axis, half + step, length)
            values.add_(pair, alpha=weights[step])
    return values


def _mirrored(length: int, pad: int, device: torch.device) -> Tensor:
    """Return for each place from ``-pad`` to ``length + pad - 1`` the one that a mirror at both ends shows."""
    period = max(1, 2 * (length - 1))
    places = torch.arange(-pad, length + pad, device=device).remainder(period)
    return torch.minimum(places, period - places)


def nearest_peaks(votes: Tensor, cell_um: float, mpp_um: float) -> Tensor:
    """Return for each cell the id (from 1) of the nearest peak of votes within reach, else 0; see `nearest_peak`.

    Parameters
    ----------
    votes : Tensor of float32, shape (b, y, x)
        Pixels that point into each cell.
    cell_um, mpp_um : float
        Side of a cell and of a pixel, micrometres.

    Returns
    -------
    Tensor of int32, shape (b, y, x)
        Ids of each picture are its own.
    """
    sigma = VOTE_SIGMA_UM / cell_um
    smooth = blurred(votes, sigma)
    floor = MIN_VOTES_UM2 / mpp_um**2 / (2 * math.pi * sigma**2)
    highest = _dilated(smooth, max(1, round(PEAK_RADIUS_UM / cell_um)))
    peaks = (smooth >= highest) & (smooth > floor)
    return _discs(numbered(peaks), MAX_REACH_UM / cell_um)


def _dilated(values: Tensor, radius: int) -> Tensor:
    """Return the maximum within OpenCV's ellipse of a radius: it is the union of a few rectangles."""
    side = 2 * radius + 1
    lengths = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)).sum(axis=1).tolist()
    found = values
    for width in sorted(set(lengths)):
        height = sum(length >= width for length in lengths)
        around = F.max_pool2d(values, (height, width), stride=1, padding=(height // 2, width // 2))
        found = torch.maximum(found, around)
    return found


def numbered(peaks: Tensor) -> Tensor:
    """Number the groups of touching cells (corners count) of each picture from 1, in raster order.

    Parameters
    ----------
    peaks : Tensor of bool, shape (b, y, x)
        At most 16 million cells a picture.

    Returns
    -------
    Tensor of int32, shape (b, y, x)
        0 where there is none.
    """
    batch, rows, columns = peaks.shape
    count = rows * columns
    inside = peaks.view(batch, -1)
    # Each cell looks for the first of its group; those that come first have the highest rank.
    own = torch.arange(count, 0, -1, dtype=torch.float32, device=peaks.device) * inside
    rank = own
    for _ in range(ROUNDS):
        seen = F.max_pool2d(rank.view(peaks.shape), 3, stride=1, padding=1).view(batch, -1) * inside
        # The cell that was first so far is told what its group sees now, and each looks at what its first one knows:
        # the way doubles with every round. A maximum is the same in whatever order it is taken.
        rank = torch.maximum(rank.scatter_reduce(1, _place(rank, count), seen, "amax"), seen)
        rank = rank.gather(1, _place(rank, count)) * inside
    first = inside & (rank == own)
    ids = first.cumsum(1).gather(1, _place(rank, count)) * inside
    return ids.to(torch.int32).view(peaks.shape)


def _place(rank: Tensor, count: int) -> Tensor:
    """Return the index of the cell of a rank; any index for rank 0."""
    return (count - rank).clamp_(max=count - 1).long()


def _discs(ids: Tensor, reach: float) -> Tensor:
    """Paint a disc of radius `reach` around each id above 0; where discs meet, the nearest one's is on top."""
    side = math.floor(reach)
    rows, columns = ids.shape[1:]
    padded = F.pad(ids, (side, side, side, side))
    canvas = torch.zeros_like(ids)
    steps = [(y, x) for y in range(-side, side + 1) for x in range(-side, side + 1) if y * y + x * x <= reach**2]
    # The order of `offsets`, so that equally near ones give way in the same manner.
    for y, x in sorted(steps, key=lambda step: -(step[0] ** 2 + step[1] ** 2)):
        here = padded[:, side - y : side - y + rows, side - x : side - x + columns]
        canvas = torch.where(here > 0, here, canvas)
    return canvas
