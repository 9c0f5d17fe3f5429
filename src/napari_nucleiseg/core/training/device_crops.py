"""Crops cut, turned and coloured where the network is: on a GPU the processor could not prepare them fast enough.

The pictures lie in the device's memory, with what every head should say of them; a crop is a gather. What is learned
from is what `batches` makes of the same configuration, except that targets are taken from the whole picture and turned
with it, while there they are made of each crop anew.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.training.batches import colours_of, crop_sampler, target_sources
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.device_augment import DeviceAugmentation
from napari_nucleiseg.core.training.samples import LabelledImage, PictureSet, connected, picture_sets

_TURNING = {"nuclei", "offsets", "distance", "separated"}
NODE_UM = 30.0  # of the grid of elastic displacements
REST_PX = 8
FIELDS = 8
Names = tuple[tuple[str, int], ...]
# A crop's pixel that is wider than this many of the picture's is the mean of four places in it.
BROAD = 1.2


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Pictures with their targets, one after the other in the device's memory.

    Parameters
    ----------
    rgb : Tensor of int32, shape (pixels,)
        Four bytes of each pixel of all pictures: red, green, blue, nothing. The pictures are mirrored beyond their
        edges as far as a crop may reach. One number is fetched several times faster than three bytes.
    fields : Tensor of int64, shape (pixels, 2)
        Eight numbers of float16: known, border weight, the targets of `names`, zeros; offsets in pixels of the
        picture.
    names : tuple of (str, int)
        Targets with their numbers of channels.
    places : ndarray of float64, shape (pictures, 5)
        First pixel, height, width, margin (pixels of the picture), micrometres per pixel.
    """

    rgb: Tensor
    fields: Tensor
    names: Names
    places: NDArray[np.float64]


def pool_of(pictures: Sequence[LabelledImage], config: TrainConfig, spec: ModelSpec, device: torch.device) -> Pool:
    """Bring pictures to the device, with the targets of the heads that are trained.

    Parameters
    ----------
    pictures : sequence of LabelledImage
        Labels below 0 are not annotated.
    config, spec : TrainConfig, ModelSpec
        Crops, augmentation and losses; pixel size.
    device : torch.device
        Where they go.
    """
    sources = target_sources(config.losses, spec)
    side = config.crop_px + 2 * spec.output_margin_px

    def prepared(picture: LabelledImage) -> tuple[NDArray[np.int32], NDArray[np.int64], tuple[float, ...], Names]:
        step = spec.mpp_um * max(config.augment.scale, 1.0) / picture.mpp_um
        margin = _margin(picture.labels.shape, side * step, 3 * config.augment.elastic_um / picture.mpp_um)
        planes = _planes(picture, margin, sources, spec.mpp_um / picture.mpp_um)
        names = tuple((name, len(values)) for name, values in planes.items() if name not in ("known", "weights"))
        image = _mirrored(picture.image, margin)
        place = (*image.shape[:2], margin, picture.mpp_um)
        bytes_ = np.zeros((image.shape[0] * image.shape[1], 4), np.uint8)
        bytes_[:, :3] = image.reshape(-1, 3)
        fields = np.zeros((len(bytes_), FIELDS), np.float16)
        values = np.concatenate([plane.reshape(len(plane), -1) for plane in planes.values()])
        fields[:, : len(values)] = values.T
        return bytes_.view(np.int32)[:, 0], fields.view(np.int64), place, names

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(prepared, pictures))
    sizes = [len(image) for image, *_ in found]
    return Pool(
        torch.cat([torch.from_numpy(image) for image, *_ in found]).to(device),
        torch.cat([torch.from_numpy(fields) for _, fields, *_ in found]).to(device),
        found[0][3],
        np.column_stack([np.cumsum([0, *sizes[:-1]]), [place for _, _, place, _ in found]]),
    )


def _margin(shape: tuple[int, ...], reach: float, elastic: float) -> int:
    """Return how far beyond the edge a turned crop of side `reach` may see, pixels of the picture."""
    half_diagonal = reach / math.sqrt(2)
    centre = min(min(shape) / 2, reach / 2)
    return math.ceil(max(0.0, half_diagonal - centre) + elastic) + REST_PX


def _mirrored(values: NDArray[np.generic], margin: int) -> NDArray[np.generic]:
    rest = ((0, 0),) * (values.ndim - 2)
    return np.ascontiguousarray(np.pad(values, ((margin, margin), (margin, margin), *rest), mode="reflect"))


def _planes(
    picture: LabelledImage, margin: int, sources: Sequence[str], coarser: float
) -> dict[str, NDArray[np.float32]]:
    """Return known, weights and targets ``(channels, y, x)`` of the mirrored picture, in the order they are kept."""
    labels = connected(_mirrored(picture.labels, margin).astype(np.int32))
    known = (labels >= 0)[None].astype(np.float32)
    labels = np.maximum(labels, 0)
    planes = {"known": known, "weights": _mirrored(picture.weights, margin)[None].astype(np.float32)}
    for name in sources:
        planes |= decoder(name).targets(labels)
    if "separated" in planes and coarser > BROAD:
        planes["separated"] = _apart(labels, round(coarser))[None]
    return planes


def _apart(labels: NDArray[np.int32], reach: int) -> NDArray[np.float32]:
    """Foreground without what lies within `reach` pixels of another nucleus: one pixel of the coarser crop."""
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    inside, values = labels > 0, labels.astype(np.float32)
    lowest = cv2.erode(np.where(inside, values, np.float32(1e9)), kernel)
    highest = cv2.dilate(values, kernel)
    apart: NDArray[np.float32] = (inside & (lowest == highest)).astype(np.float32)
    return apart


class DeviceBatchMaker:
    """Makes batch number n on the device, as a function of the configuration and n alone.

    Parameters
    ----------
    config : TrainConfig
        The run.
    spec : ModelSpec
        Pixel size, normalisation and heads of the network.
    device : torch.device
        Where crops are made and stay.
    sets : sequence of (list of LabelledImage, float), optional
        Pictures of each data set and the share of the set; default those that the configuration names.
    """

    def __init__(
        self, config: TrainConfig, spec: ModelSpec, device: torch.device, sets: Sequence[PictureSet] | None = None
    ) -> None:
        self.config, self.spec, self.device = config, spec, device
        self.sampler = crop_sampler(picture_sets(config) if sets is None else sets, config, spec)
        self.pool = pool_of(self.sampler.images, config, spec, device)
        self.side = self.sampler.crop_px
        colours = colours_of(config.unlabelled, config.unlabelled_exclude)
        self.augmentation = DeviceAugmentation(config.augment, colours, device)
        self.mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1) * 255

    @staticmethod
    def can_make(config: TrainConfig, spec: ModelSpec) -> bool:
        """Tell whether the targets of all heads that are trained turn with a picture."""
        trained = {head.name for head in spec.heads} & config.losses.keys()
        return trained <= _TURNING and spec.fitting_side(config.crop_px) == config.crop_px

    def batches(self, start: int, stop: int) -> Generator[Mapping[str, Tensor], None, None]:
        """Yield batches `start` to `stop`."""
        for number in range(start, stop):
            yield self.batch(number)

    def batch(self, number: int) -> dict[str, Tensor]:
        """Return batch `number`: tensors ``(batch, channels, y, x)`` float32 by name, on the device."""
        rng = np.random.default_rng((self.config.seed, number))
        noise = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        draws = self._draw(rng)
        geometry = torch.from_numpy(draws.astype(np.float32)).to(self.device)
        first = torch.from_numpy(draws[:, 0].astype(np.int64)).to(self.device)
        ys, xs = self._grid(geometry, noise)
        image = self._colours(first, geometry, ys, xs, broad=bool((draws[:, 5] > BROAD).any()))
        batch = self._targets(first, geometry, ys, xs)
        if self.config.self_training:
            batch["clean"] = (image - self.mean) / self.std
        changed = self.augmentation(image, rng, noise)
        return batch | {"image": (changed - self.mean) / self.std}

    def _draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Choose crops: first pixel, height, width, centre y, x, step, cosine, sine, flip, elastic; each a row."""
        rows = []
        for _ in range(self.config.batch_size):
            at = self.sampler.place(rng)
            first, height, width, margin, mpp = self.pool.places[at.picture]
            place = (first, height, width, at.y + margin - 0.5, at.x + margin - 0.5, at.step)
            turn = (np.cos(at.angle), np.sin(at.angle), at.flip, self.config.augment.elastic_um / mpp)
            rows.append((*place, *turn))
        return np.asarray(rows)

    def _grid(self, geometry: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return where the pixels of each crop lie in its picture, ``(batch, y, x)`` each."""
        steps = torch.arange(self.side, device=self.device) - (self.side - 1) / 2
        gy, gx = steps[None, :, None], steps[None, None, :]
        _, _, _, centre_y, centre_x, step, cos, sin, flip, elastic = geometry.T[:, :, None, None]
        ys = centre_y + step * (cos * gy - sin * flip * gx)
        xs = centre_x + step * (sin * gy + cos * flip * gx)
        if self.config.augment.elastic_um:
            nodes = max(4, round(self.side * self.spec.mpp_um / NODE_UM) + 3)
            coarse = torch.randn((len(geometry), 2, nodes, nodes), device=self.device, generator=noise)
            bent = F.interpolate(coarse, (self.side, self.side), mode="bicubic", align_corners=False)
            ys, xs = ys + elastic * bent[:, 0], xs + elastic * bent[:, 1]
        return ys, xs

    def _colours(self, first: Tensor, geometry: Tensor, ys: Tensor, xs: Tensor, *, broad: bool) -> Tensor:
        """Return the crops' colours 0..255, ``(batch, 3, y, x)``; of broad pixels the mean of four places in each."""
        if not broad:
            return self._bilinear(first, geometry, ys, xs)
        step, cos, sin, flip = geometry.T[5:9, :, None, None]
        quarter = step / 4
        found: Tensor | None = None
        for dy, dx in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            down = quarter * (cos * dy - sin * flip * dx)
            right = quarter * (sin * dy + cos * flip * dx)
            part = self._bilinear(first, geometry, ys + down, xs + right)
            found = part if found is None else found + part
        assert found is not None  # noqa: S101 - four places
        return found / 4

    def _bilinear(self, first: Tensor, geometry: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
        height, width = geometry.T[1:3, :, None, None]
        ys, xs = torch.minimum(ys.clamp(min=0), height - 1.001), torch.minimum(xs.clamp(min=0), width - 1.001)
        y0, x0 = ys.floor(), xs.floor()
        fy, fx = (ys - y0)[..., None], (xs - x0)[..., None]
        index = first[:, None, None] + y0.long() * width.long() + x0.long()
        row = width.long()
        corners = [self._pixels(index + shift) for shift in (0, 1)]
        below = [self._pixels(index + row + shift) for shift in (0, 1)]
        top = torch.lerp(corners[0], corners[1], fx)
        return torch.lerp(top, torch.lerp(below[0], below[1], fx), fy)[..., :3].permute(0, 3, 1, 2)

    def _pixels(self, index: Tensor) -> Tensor:
        """Return four bytes of each pixel as numbers, ``(batch, y, x, 4)``."""
        return self.pool.rgb[index][..., None].view(torch.uint8).float()

    def _targets(self, first: Tensor, geometry: Tensor, ys: Tensor, xs: Tensor) -> dict[str, Tensor]:
        """Return known, weights and targets; offsets are turned with the crop."""
        margin = self.spec.output_margin_px
        inner = slice(margin, margin + self.config.crop_px)
        height, width = geometry.T[1:3, :, None, None]
        y = torch.minimum(ys[:, inner, inner].round().clamp(min=0), height - 1).long()
        x = torch.minimum(xs[:, inner, inner].round().clamp(min=0), width - 1).long()
        packed = self.pool.fields[first[:, None, None] + y * width.long() + x]
        values = packed.view(torch.float16).float().permute(0, 3, 1, 2)
        channels = [1, 1, *(count for _, count in self.pool.names)]
        parts = torch.split(values[:, : sum(channels)], channels, dim=1)
        found = {"known": parts[0], "weights": parts[1]}
        found |= {name: part for (name, _), part in zip(self.pool.names, parts[2:], strict=True)}
        if "offsets" in found:
            step, cos, sin, flip = geometry.T[5:9, :, None, None]
            dy, dx = found["offsets"].unbind(1)
            found["offsets"] = torch.stack([(cos * dy + sin * dx) / step, flip * (cos * dx - sin * dy) / step], dim=1)
        return found
