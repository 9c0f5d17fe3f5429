"""Batches of augmented crops with their targets, prepared ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.training.augment import augment, lab_statistics
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.samples import (
    IMAGE_SUFFIXES,
    CropSampler,
    PictureSet,
    picture_sets,
    read_picture,
)

# Which decoder knows the target of which head; that of attention is painted by people.
TARGET_SOURCES = {
    "nuclei": "offsets",
    "offsets": "offsets",
    "distance": "distance",
    "separated": "border",
    "hover": "hover",
}
COLOUR_WINDOW_PX, LEAST_WINDOW_PX = 512, 129
Made = TypeVar("Made")


def target_sources(losses: Iterable[str], spec: ModelSpec) -> list[str]:
    """Return the decoders that know the targets of those heads of a network that are trained, by name."""
    trained = {head.name for head in spec.heads} & set(losses)
    return sorted({TARGET_SOURCES[head] for head in trained & TARGET_SOURCES.keys()})


class BatchMaker:
    """Makes batch number n as a function of the configuration and n alone, whatever the threads do.

    Parameters
    ----------
    config : TrainConfig
        The run.
    spec : ModelSpec
        Pixel size, normalisation and heads of the network.
    sets : sequence of (list of LabelledImage, float), optional
        Pictures of each data set and the share of the set; default those that the configuration names.
    """

    def __init__(self, config: TrainConfig, spec: ModelSpec, sets: Sequence[PictureSet] | None = None) -> None:
        if spec.fitting_side(config.crop_px) != config.crop_px:
            raise DataError(
                f"network {spec.name} cannot give crops of {config.crop_px} px; the next side that fits is "
                f"{spec.fitting_side(config.crop_px)}"
            )
        self.config, self.spec = config, spec
        self.margin = spec.output_margin_px
        self.sampler = crop_sampler(picture_sets(config) if sets is None else sets, config, spec)
        self.colours = colours_of(config.unlabelled, config.unlabelled_exclude)
        self.decoders = [decoder(name) for name in target_sources(config.losses, spec)]
        mean, std = (np.asarray(values, np.float32) * 255 for values in (spec.mean, spec.std))
        self._normal = (np.arange(256, dtype=np.float32)[:, None] - mean) / std

    def crop(self, number: int) -> dict[str, NDArray[np.float32]]:
        """Return crop `number` with its targets, each ``(channels, y, x)``.

        Of networks that lose a margin the image is larger than the targets by it.
        """
        rng = self.sampler.rng(number)
        crop = self.sampler.draw(rng)
        image = augment(crop.image, self.config.augment, self.colours, rng)
        inner = slice(self.margin, self.margin + self.config.crop_px)
        labels, weights = crop.labels[inner, inner], crop.weights[inner, inner]
        known = labels >= 0
        labels = np.maximum(labels, 0)
        sample = {"image": self._normalised(image)}
        if self.config.self_training:
            sample["clean"] = self._normalised(crop.image)
        for item in self.decoders:
            sample |= item.targets(labels)
        if "attention" in self.config.losses:
            shape = (self.config.crop_px, self.config.crop_px)
            painted = np.full(shape, -1, np.int8) if crop.attention is None else crop.attention[inner, inner]
            sample["attention"] = np.maximum(painted, 0)[None].astype(np.float32)
            sample["painted"] = (painted >= 0)[None].astype(np.float32)
        return sample | {"known": known[None].astype(np.float32), "weights": np.ascontiguousarray(weights[None])}

    def _normalised(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.ascontiguousarray(np.asarray(cv2.LUT(image, self._normal[None]), np.float32).transpose(2, 0, 1))

    def batch(self, number: int) -> dict[str, Tensor]:
        """Return batch `number`: tensors ``(batch, channels, y, x)`` float32 by name."""
        size = self.config.batch_size
        crops = [self.crop(number * size + index) for index in range(size)]
        return {key: torch.from_numpy(np.stack([crop[key] for crop in crops])) for key in crops[0]}

    def batches(
        self, start: int, stop: int, ahead: int = 4, workers: int = 2
    ) -> Generator[Mapping[str, Tensor], None, None]:
        """Yield batches `start` to `stop`, some prepared ahead."""
        return prepared(self.batch, start, stop, ahead, workers)


def crop_sampler(sets: Sequence[PictureSet], config: TrainConfig, spec: ModelSpec) -> CropSampler:
    """Return what chooses the crops of a run, at the network's pixel size and with the margin that it loses."""
    return CropSampler(
        sets,
        spec.mpp_um,
        config.crop_px + 2 * spec.output_margin_px,
        scale=config.augment.scale,
        elastic_um=config.augment.elastic_um,
        seed=config.seed,
    )


def prepared(
    make: Callable[[int], Made], start: int, stop: int, ahead: int = 4, workers: int = 2
) -> Generator[Made, None, None]:
    """Yield ``make(number)`` for `start` to `stop`, some prepared ahead in threads; close it to stop them."""
    with ThreadPoolExecutor(workers, thread_name_prefix="crops") as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for number in range(start, stop):
                while len(waiting) < ahead and number + len(waiting) < stop:
                    waiting.append(pool.submit(make, number + len(waiting)))
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def colours_of(folder: str, exclude: tuple[str, ...]) -> list[NDArray[np.float32]]:
    """LAB statistics of windows of the pictures in `folder`, none if there is no folder named.

    Raises
    ------
    DataError
        If none of its pictures has colours to take over, or one cannot be read.
    """
    if not folder:
        return []
    if not Path(folder).is_dir():
        raise DataError(f"there is no folder {folder} of pictures whose colours are to be taken over (`unlabelled`)")
    found = []
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or any(fnmatch(path.stem, item) for item in exclude):
            continue
        image = read_picture(path)
        # Strips at the edges say little, but a small picture is all that there is of its colours.
        rows, columns = (min(side, LEAST_WINDOW_PX) for side in image.shape[:2])
        for y in range(0, image.shape[0], COLOUR_WINDOW_PX):
            for x in range(0, image.shape[1], COLOUR_WINDOW_PX):
                window = image[y : y + COLOUR_WINDOW_PX, x : x + COLOUR_WINDOW_PX]
                if window.shape[0] >= rows and window.shape[1] >= columns and np.mean(window.min(axis=2) < 215) > 0.3:
                    found.append(lab_statistics(window))
    if not found:
        raise DataError(
            f"the pictures in {folder} lend no colours: none is there, or all are nearly white; name a folder of "
            "pictures of tissue as `unlabelled`, or none"
        )
    return found
