"""Batches of crops of labelled stacks with their targets, and scores on whole stacks."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.evaluation.scores import mean_scores, scores
from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.core.inference.stacks import StackOptions, segment_stack
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.slides.voxels import extent
from napari_nucleiseg.core.training.batches import prepared
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.volumes import LabelledStack, StackSampler, StackSet, load_stacks

LARGEST_CROP_PX = 192
# Terms of foreground losses that look at windows of a plane.
_FLAT_TERMS = ("ms_ssim", "boundary")


class VolumeBatchMaker:
    """Makes batch number n of crops of stacks as a function of the configuration and n alone.

    Crops are cubes of `TrainConfig.crop_px` voxels; lower ones where no stack is as high.

    Parameters
    ----------
    config : TrainConfig
        The run.
    spec : ModelSpec
        Of a network for stacks.
    sets : sequence of (list of LabelledStack, float), optional
        Stacks of each data set and the share of the set; default those that the configuration names.

    Raises
    ------
    DataError
        If crops do not fit the network or the memory, or something is asked for that stacks do not have.
    """

    def __init__(self, config: TrainConfig, spec: ModelSpec, sets: Sequence[StackSet] | None = None) -> None:
        _check(config, spec)
        self.config, self.spec = config, spec
        sets = [(load_stacks(item), item.share) for item in config.train] if sets is None else sets
        heights = [extent(stack.labels.shape, _step(stack, spec))[0] for stacks, _ in sets for stack in stacks]
        self.sides = (min(config.crop_px, spec.fitting_side(max(heights))), config.crop_px, config.crop_px)
        self.sampler = StackSampler(sets, spec.mpp_um, self.sides, config.augment, config.seed)
        self._decoder = decoder(spec.decoder)

    def crop(self, number: int) -> dict[str, NDArray[np.float32]]:
        """Return crop `number` with its targets, each ``(1, z, y, x)`` float32."""
        crop = self.sampler.draw(number)
        sigma = self.config.border_sigma_um / self.spec.mpp_um
        ridge = border_ridge(crop.labels, self.config.border_weight, sigma)
        image = (crop.image - np.float32(self.spec.mean[0])) / np.float32(self.spec.std[0])
        # Targets know of voxels that nobody annotated: they are no border of a nucleus.
        targets = self._decoder.targets(crop.labels)
        return {"image": image[None], **targets, "known": crop.weights[None], "weights": ridge[None]}

    def batch(self, number: int) -> dict[str, Tensor]:
        """Return batch `number`: tensors ``(batch, 1, z, y, x)`` float32 by name."""
        size = self.config.batch_size
        crops = [self.crop(number * size + index) for index in range(size)]
        return {key: torch.from_numpy(np.stack([crop[key] for crop in crops])) for key in crops[0]}

    def batches(
        self, start: int, stop: int, ahead: int = 4, workers: int = 2
    ) -> Generator[Mapping[str, Tensor], None, None]:
        """Yield batches `start` to `stop`, some prepared ahead."""
        return prepared(self.batch, start, stop, ahead, workers)


def _step(stack: LabelledStack, spec: ModelSpec) -> ZYX:
    return ZYX(*(spec.mpp_um / side for side in stack.voxel_um))


def _check(config: TrainConfig, spec: ModelSpec) -> None:
    side = config.crop_px
    if side > LARGEST_CROP_PX:
        raise DataError(
            f"network {spec.name} is for stacks, and a cube of {side} voxels a side is {side**3 / 1e6:.0f} million of "
            f"them: choose crop_px between 32 and {LARGEST_CROP_PX}, such as 64"
        )
    if side % spec.size_multiple:
        fitting = side + -side % spec.size_multiple
        raise DataError(f"network {spec.name} cannot give crops of {side} px; the next side that fits is {fitting}")
    if flat := [name for name in _FLAT_TERMS if config.terms.get(name)]:
        raise DataError(f"the loss {' and '.join(flat)} looks at pictures; leave it out of terms for stacks")
    if config.self_training:
        raise DataError("self_training is for pictures; for stacks leave it at 0")


def border_ridge(labels: NDArray[np.int32], height: float, sigma: float) -> NDArray[np.float32]:
    """Return ``height * exp(-(d1 + d2)^2 / (2 sigma^2))`` of a stack; see `border_weights`.

    Parameters
    ----------
    labels : ndarray of int32, shape (z, y, x)
        Instance ids; 0 and below are no nuclei.
    height, sigma : float
        Height and width of the ridge, in voxels.
    """
    boxes: Sequence[tuple[slice, ...] | None] = ndimage.find_objects(np.maximum(labels, 0))
    if height == 0 or sum(box is not None for box in boxes) < 2:
        return np.zeros(labels.shape, np.float32)
    reach = int(np.ceil(4 * sigma))
    nearest = np.full(labels.shape, 1e6, np.float32)
    second = nearest.copy()
    for number, box in enumerate(boxes, start=1):
        if box is None:
            continue
        window = tuple(slice(max(part.start - reach, 0), part.stop + reach) for part in box)
        distance = ndimage.distance_transform_edt(labels[window] != number).astype(np.float32)
        first = nearest[window]
        second[window] = np.minimum(second[window], np.maximum(first, distance))
        nearest[window] = np.minimum(first, distance)
    return np.asarray(height * np.exp(-((nearest + second) ** 2) / (2 * sigma**2)), np.float32)


class VolumeValidator:
    """Finds the nuclei of the validation stacks and scores them; false if there are none.

    Parameters
    ----------
    config : TrainConfig
        Names the validation sets.
    spec : ModelSpec
        Of a network for stacks.
    """

    def __init__(self, config: TrainConfig, spec: ModelSpec) -> None:
        self.config, self.spec = config, spec
        self.stacks = [stack for item in config.validate for stack in load_stacks(item)]

    def __bool__(self) -> bool:
        return bool(self.stacks)

    def scores(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Return mean AJI, PQ, F1 and Dice of voxels that are annotated, and ``choice`` = (AJI + PQ) / 2."""
        was_training = network.training
        model = LoadedModel(self.spec, ModelCard("validated", self.spec.name), network.eval())
        options = StackOptions(self.config.threshold, self.config.min_area_um2, str(device))
        found = []
        for stack in self.stacks:
            labels = segment_stack(stack.volume, model, stack.voxel_um, options)
            unknown = stack.labels < 0 if stack.weights is None else (stack.labels < 0) | (stack.weights <= 0)
            truth, seen = (np.where(unknown, 0, one) for one in (stack.labels, labels))
            width = truth.shape[-1]
            found.append(scores(truth.reshape(-1, width), seen.reshape(-1, width), distances=False))
        network.train(was_training)
        mean = mean_scores(found)
        return {"aji": mean.aji, "pq": mean.pq, "f1": mean.f1, "dice": mean.dice, "choice": (mean.aji + mean.pq) / 2}
