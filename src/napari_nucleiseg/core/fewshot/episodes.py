"""Episodes to learn what is like what: superpixels as classes of their own (no labels), or nuclei as one class.

Ouyang et al., Self-supervision with superpixels (SSL-ALPNet), ECCV 2020; prototype alignment of Wang et al., PANet,
ICCV 2019. Written from the papers; only a projection of frozen features learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb, slic
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.fewshot.field import AUTO, FeatureField, field_of

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.encoders import LoadedEncoder
    from napari_nucleiseg.core.models.weights import LoadedModel

FELZENSZWALB, SLIC = SUPERPIXELS = ("felzenszwalb", "slic")
SUPERPIXEL_UM = 7.0
SHARPNESS = 20.0
# How much a pixel of either side counts, as published: most of a picture is the other side.
OTHER_WEIGHT, LIKE_WEIGHT = 0.05, 1.0
# A window belongs to a side if more than this share of it does.
_INSIDE = 0.95
_LEAST_CELLS = 4


@dataclass(frozen=True, slots=True, eq=False)
class EpisodeView:
    """A view to make episodes of.

    Parameters
    ----------
    features : ndarray of float32, shape (channels, rows, columns)
        Of the picture.
    other : ndarray of float32, shape (channels, rows, columns)
        Of the same picture with another gamma.
    segments : ndarray of int32, shape (rows, columns)
        Superpixels or nuclei, from 1 on; 0 is no segment.
    is_class : bool
        True: all segments are of one class (nuclei), so the query is another view. False: each is a class of its own.
    """

    features: NDArray[np.float32]
    other: NDArray[np.float32]
    segments: NDArray[np.int32]
    is_class: bool


def episode_view(
    model: LoadedModel | LoadedEncoder,
    image: NDArray[np.uint8],
    mpp_um: float,
    labels: NDArray[np.int32] | None = None,
    *,
    layer: str = AUTO,
    method: str = FELZENSZWALB,
    seed: int = 0,
) -> EpisodeView:
    """Make a view to learn from.

    Parameters
    ----------
    model, image, mpp_um, layer
        As for `field_of`.
    labels : ndarray of int32, shape (y, x), optional
        Nuclei; without them superpixels are used.
    method : {"felzenszwalb", "slic"}
        Of superpixels.
    seed : int
        Of the gamma, 0.5 to 1.5.

    Raises
    ------
    DataError
        If labels do not fit, or there is no such method.
    """
    if labels is not None and labels.shape != image.shape[:2]:
        raise DataError(f"the labels are {labels.shape} px but the picture {image.shape[:2]}; they must be equal")
    gamma = float(np.random.default_rng(seed).uniform(0.5, 1.5))
    curved = np.clip(255 * (image.astype(np.float32) / 255) ** gamma, 0, 255).astype(np.uint8)
    field = field_of(model, image, mpp_um, layer)
    other = field_of(model, curved, mpp_um, layer)
    segments = superpixels_of(image, field, method) if labels is None else on_field(labels, field)
    return EpisodeView(field.features, other.features, segments, labels is not None)


def on_field(labels: NDArray[np.int32], field: FeatureField) -> NDArray[np.int32]:
    """Return an instance map of the view as seen by the middles of a field's steps."""
    ys, xs = (
        np.minimum(((np.arange(count) + 0.5) * size).astype(np.intp), length - 1)
        for count, size, length in zip(field.features.shape[1:], field.step, labels.shape, strict=True)
    )
    return np.asarray(labels[np.ix_(ys, xs)], np.int32)


def superpixels_of(image: NDArray[np.uint8], field: FeatureField, method: str = FELZENSZWALB) -> NDArray[np.int32]:
    """Return superpixels of a view on the steps of its field, from 1 on, about as large as nuclei.

    Raises
    ------
    DataError
        If there is no such method.
    """
    rows, columns = field.features.shape[1:]
    small = np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    cells = max((SUPERPIXEL_UM / (field.stride * field.mpp_um)) ** 2, _LEAST_CELLS)
    if method == FELZENSZWALB:
        found = felzenszwalb(small, scale=2 * cells, sigma=0.8, min_size=max(round(cells / 2), 2)) + 1
    elif method == SLIC:
        found = slic(small, max(1, round(rows * columns / cells)), 10.0, start_label=1)
    else:
        raise DataError(f"there are no superpixels called {method}; there are {', '.join(SUPERPIXELS)}")
    return np.asarray(found, np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """What is marked, and what must be found: features ``(channels, y, x)`` and masks ``(y, x)`` of 0 and 1."""

    support: Tensor
    support_mask: Tensor
    query: Tensor
    query_mask: Tensor


def draw(views: Sequence[EpisodeView], side: int, rng: np.random.Generator) -> Episode | None:
    """Draw an episode of crops of `side` steps; None where the draw holds nothing to be found."""
    view = views[int(rng.integers(len(views)))]
    top, left = (int(rng.integers(max(length - side, 0) + 1)) for length in view.segments.shape)
    crop = slice(top, top + side), slice(left, left + side)
    segments = view.segments[crop]
    ids = np.unique(segments[segments > 0])
    if not len(ids):
        return None
    count = int(rng.integers(1, min(5, len(ids)) + 1)) if view.is_class else 1
    mask = np.isin(segments, rng.choice(ids, count, replace=False)).astype(np.float32)
    support = view.features[(slice(None), *crop)]
    if view.is_class:
        known = _drawn(mask, segments)
        second = views[int(rng.integers(len(views)))]
        places = [int(rng.integers(max(length - side, 0) + 1)) for length in second.segments.shape]
        there = tuple(slice(place, place + side) for place in places)
        query, target = second.other[(slice(None), *there)], (second.segments[there] > 0).astype(np.float32)
    else:
        known, query, target = mask, view.other[(slice(None), *crop)], mask
    query, target = _turned(query, target, rng)
    if target.sum() < _LEAST_CELLS or mask.sum() < _LEAST_CELLS:
        return None
    return Episode(*(torch.from_numpy(np.ascontiguousarray(part)) for part in (support, known, query, target)))


def _drawn(mask: NDArray[np.float32], segments: NDArray[np.int32]) -> NDArray[np.float32]:
    """Mark what is of the class but was not chosen as unknown, -1: it must not count as the other side."""
    return np.where((segments > 0) & (mask == 0), np.float32(-1), mask)


def _turned(
    features: NDArray[np.float32], mask: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn and mirror a query at random, and warp it by a small affinity."""
    turns, is_mirrored = int(rng.integers(4)), bool(rng.integers(2))
    features, mask = np.rot90(features, turns, (1, 2)), np.rot90(mask, turns)
    if is_mirrored:
        features, mask = features[:, :, ::-1], mask[:, ::-1]
    theta = np.eye(2, 3) + np.concatenate((rng.uniform(-0.15, 0.15, (2, 2)), rng.uniform(-0.1, 0.1, (2, 1))), axis=1)
    both = torch.from_numpy(np.concatenate((features, mask[None])).astype(np.float32))[None]
    grid = F.affine_grid(torch.from_numpy(theta.astype(np.float32))[None], list(both.shape), align_corners=False)
    warped = F.grid_sample(both, grid, padding_mode="reflection", align_corners=False)[0].numpy()
    return warped[:-1], (warped[-1] > 0.5).astype(np.float32)


def prototypes(features: Tensor, mask: Tensor, window: int) -> Tensor:
    """Return the prototype of a side, and those of windows that lie in it, ``(n, channels)``; `window` 0 for none."""
    weight = mask / mask.sum().clamp_min(1e-6)
    found = [(features * weight).sum(dim=(1, 2))[None]]
    if window and min(mask.shape) >= window:
        shares = F.avg_pool2d(mask[None, None], window)[0, 0]
        means = F.avg_pool2d(features[None], window)[0]
        found.append(means[:, shares > _INSIDE].T)
    return torch.cat(found)


def answers(features: Tensor, like: Tensor, other: Tensor) -> Tensor:
    """Return what both sides say of each place, the other first, ``(2, y, x)``; ALPNet's, and PANet's for one each."""
    directions = F.normalize(features, dim=0)
    said = []
    for side in (other, like):
        similar = SHARPNESS * torch.einsum("cyx,nc->nyx", directions, F.normalize(side, dim=1))
        said.append((torch.softmax(similar, dim=0) * similar).sum(dim=0))
    return torch.stack(said)


def loss_of(episode: Episode, project: torch.nn.Module, window: int, alignment: float) -> tuple[Tensor, Tensor]:
    """Return the loss on the query and that of prototype alignment, which swaps the roles by the predicted mask.

    Parameters
    ----------
    episode : Episode
        What is marked and what must be found.
    project : nn.Module
        From ``(1, channels, y, x)`` to the same with other channels.
    window : int
        Side of the windows of local prototypes (ALPNet); 0 for the global ones alone (PANet).
    alignment : float
        Weight of the second; 0 leaves it out.
    """
    support, query = project(episode.support[None])[0], project(episode.query[None])[0]
    like, other = (episode.support_mask == 1).float(), (episode.support_mask == 0).float()
    said = answers(query, prototypes(support, like, window), prototypes(support, other, window))
    weights = torch.tensor([OTHER_WEIGHT, LIKE_WEIGHT])
    loss = F.cross_entropy(said[None], episode.query_mask[None].long(), weights)
    if not alignment:
        return loss, torch.zeros(())
    found = said.argmax(dim=0).float()
    if not 0 < float(found.mean()) < 1:
        return loss, torch.zeros(())
    back = answers(support, prototypes(query, found, window), prototypes(query, 1 - found, window))
    known = torch.where(episode.support_mask < 0, torch.full_like(like, -100), episode.support_mask).long()
    return loss, alignment * F.cross_entropy(back[None], known[None], weights, ignore_index=-100)
