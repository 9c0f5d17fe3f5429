"""Labelled pictures in memory and random crops of them at the model's pixel size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage import measure

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.training.config import DataSet, TrainConfig
from napari_nucleiseg.core.training.weightmap import border_weights, numbered

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
LABEL_SUFFIXES = (".tif", ".tiff", ".png")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImage:
    """A picture with its nuclei.

    Parameters
    ----------
    name : str
        Stem of the file.
    image : ndarray of uint8, shape (y, x, 3)
        RGB.
    labels : ndarray of int32, shape (y, x)
        Instance ids, 0 is background; negative means not annotated (ignored).
    mpp_um : float
        Micrometres per pixel.
    weights : ndarray of float32, shape (y, x)
        Border weights w(x) - w_c(x), see `border_weights`.
    attention : ndarray of int8, shape (y, x), optional
        Where a person painted how the model should look: 1 look here, 0 do not, negative not painted.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    mpp_um: float
    weights: NDArray[np.float32]
    attention: NDArray[np.int8] | None = None


PictureSet = tuple[list[LabelledImage], float]


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture as ``(y, x, 3)`` uint8 RGB.

    Raises
    ------
    DataError
        If it cannot be read or is not an 8-bit grey or colour picture.
    """
    try:
        image = _read(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as a picture: {error}") from error
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] < 3 or image.dtype != np.uint8:
        raise DataError(f"{path} is not an 8-bit colour picture (shape {image.shape}, {image.dtype})")
    return np.ascontiguousarray(image[..., :3])


def read_labels(path: Path) -> NDArray[np.int32]:
    """Read an instance map as ``(y, x)`` int32, with numbers in place of ids that are large; see `numbered`.

    Raises
    ------
    DataError
        As `read_ids`.
    """
    return numbered(read_ids(path))


def read_ids(path: Path) -> NDArray[np.integer[Any]]:
    """Read an instance map as ``(y, x)``, with the ids and in the type of the file.

    Raises
    ------
    DataError
        If it cannot be read or is not a single plane of whole numbers.
    """
    try:
        labels = _read(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as a label image: {error}") from error
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise DataError(f"{path} is not a label image: one plane of whole numbers is needed, it is {labels.shape}")
    return labels


def _read(path: Path) -> NDArray[Any]:
    """Read a file by its kind; raise an OSError, ValueError or RuntimeError where that fails."""
    found: NDArray[Any]
    if not path.stat().st_size:
        raise ValueError("the file is empty")
    found = tifffile.imread(path) if path.suffix.lower() in (".tif", ".tiff") else imagecodecs.imread(path)
    return found


def load_data_set(data: DataSet, border_weight: float, border_sigma_um: float) -> list[LabelledImage]:
    """Read all pairs of a data set.

    Raises
    ------
    DataError
        If the folder lacks ``images/`` or ``labels/``, a pair is incomplete, sizes differ or nothing matches.
    """
    found = []
    for path in picture_files(data):
        image, labels, mpp_um = read_pair(path, data)
        weights = border_weights(labels, border_weight, border_sigma_um / mpp_um)
        found.append(LabelledImage(path.stem, image, labels, mpp_um, weights))
    return found


def picture_files(data: DataSet) -> list[Path]:
    """Return the pictures of a data set, sorted by name.

    Raises
    ------
    DataError
        If the folder lacks ``images/`` or ``labels/``, or nothing matches.
    """
    root = Path(data.path)
    if not (root / "images").is_dir() or not (root / "labels").is_dir():
        raise DataError(f"{root} needs two folders, images/ and labels/, whose files have the same names")
    found = [
        path
        for path in sorted((root / "images").iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and any(fnmatch(path.stem, pattern) for pattern in data.include)
    ]
    if not found:
        raise DataError(f"{root} holds no picture that matches {', '.join(data.include)}")
    return found


def read_pair(path: Path, data: DataSet) -> tuple[NDArray[np.uint8], NDArray[np.int32], float]:
    """Return a picture of a data set, its labels and micrometres per pixel, estimated where they are not stated.

    Raises
    ------
    DataError
        If its labels are missing, or one of the two cannot be read or is of another size.
    """
    image, labels = read_picture(path), read_labels(_label_path(Path(data.path), path.stem))
    if image.shape[:2] != labels.shape:
        raise DataError(f"{path.name}: the picture is {image.shape[:2]}, its label image {labels.shape}")
    return image, labels, _guess_mpp(labels, data.nucleus_um) if data.mpp_um is None else data.mpp_um


def picture_sets(config: TrainConfig) -> list[PictureSet]:
    """Read the data sets that a run learns from, each with its share; see `load_data_set`."""
    border = config.border_weight, config.border_sigma_um
    return [(load_data_set(item, *border), item.share) for item in config.train]


def _label_path(root: Path, stem: str) -> Path:
    for suffix in LABEL_SUFFIXES:
        path = root / "labels" / f"{stem}{suffix}"
        if path.exists():
            return path
    # Some programs write .TIF; the folder is gone through only where no usual name is there.
    others = {path.suffix.lower(): path for path in (root / "labels").iterdir() if path.stem == stem}
    for suffix in LABEL_SUFFIXES:
        if suffix in others:
            return others[suffix]
    raise DataError(f"{root / 'labels'} has no label image called {stem} ({', '.join(LABEL_SUFFIXES)})")


def _guess_mpp(labels: NDArray[np.int32], nucleus_um: float) -> float:
    areas = np.bincount(labels[labels > 0])
    areas = areas[areas > 0]
    if not len(areas):
        return 0.5
    diameter = 2 * np.sqrt(np.median(areas) / np.pi)
    return float(np.clip(nucleus_um / diameter, 0.1, 1.5))


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A square piece of a labelled picture, resampled: image uint8 (y, x, 3), labels int32 (y, x), weights float32.

    `attention` is int8 (y, x), or None where nothing was painted.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]
    attention: NDArray[np.int8] | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a crop lies: its picture, how many pixels of that one of its own is, angle, flip, centre in pixels."""

    picture: int
    step: float
    angle: float
    flip: float
    y: float
    x: float


class CropSampler:
    """Draws random crops; the crop with number i is a function of the seed and i alone.

    Parameters
    ----------
    sets : sequence of (list of LabelledImage, float)
        Pictures of each data set and the probability share of the set.
    mpp_um : float
        Pixel size of the crops.
    crop_px : int
        Side of the crops.
    scale : float
        Largest random magnification up or down.
    elastic_um : float
        Standard deviation of the elastic displacement.
    seed : int
        Seed.
    """

    def __init__(
        self,
        sets: Sequence[PictureSet],
        mpp_um: float,
        crop_px: int,
        *,
        scale: float,
        elastic_um: float,
        seed: int,
    ) -> None:
        self.images = [image for images, _ in sets for image in images]
        chance = [
            share * image.image.shape[0] * image.image.shape[1] * image.mpp_um**2 / _area(images)
            for images, share in sets
            for image in images
        ]
        self.chance = np.asarray(chance) / np.sum(chance)
        self.mpp_um, self.crop_px, self.scale, self.elastic_um = mpp_um, crop_px, scale, elastic_um
        self.seed = seed

    def rng(self, number: int) -> np.random.Generator:
        """Return the random generator of crop `number`."""
        return np.random.default_rng((self.seed, number))

    def place(self, rng: np.random.Generator) -> Placement:
        """Choose a picture and where in it a crop lies."""
        picture = int(rng.choice(len(self.images), p=self.chance))
        source = self.images[picture]
        factor = np.exp(rng.uniform(-1, 1) * np.log(self.scale)) if self.scale > 1 else 1.0
        step = self.mpp_um * factor / source.mpp_um
        angle, flip = rng.uniform(0, 2 * np.pi), rng.choice((-1.0, 1.0))
        height, width = source.labels.shape
        centre = [rng.uniform(0, height), rng.uniform(0, width)]
        half = step * self.crop_px / 2
        # Stay inside where the picture is large enough; small pictures are mirrored.
        y, x = (
            float(np.clip(at, half, side - half)) if side > 2 * half else side / 2
            for at, side in zip(centre, (height, width), strict=True)
        )
        return Placement(picture, step, angle, flip, y, x)

    def draw(self, rng: np.random.Generator) -> Crop:
        """Cut the crop that `rng` chooses."""
        at = self.place(rng)
        source, step, flip = self.images[at.picture], at.step, at.flip
        grid = (np.mgrid[: self.crop_px, : self.crop_px].astype(np.float32) - (self.crop_px - 1) / 2) * step
        cos, sin = np.float32(np.cos(at.angle)), np.float32(np.sin(at.angle))
        map_y = cos * grid[0] - sin * grid[1] * flip + np.float32(at.y - 0.5)
        map_x = sin * grid[0] + cos * grid[1] * flip + np.float32(at.x - 0.5)
        if self.elastic_um:
            map_y, map_x = (
                plane + self._displacement(rng) * np.float32(self.elastic_um / source.mpp_um)
                for plane in (map_y, map_x)
            )
        return _warp(source, map_y.astype(np.float32), map_x.astype(np.float32), step)

    def _displacement(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Random displacement of unit variance on a coarse grid (about 30 um), interpolated by cubics."""
        nodes = max(4, round(self.crop_px * self.mpp_um / 30) + 3)
        coarse = rng.standard_normal((nodes, nodes)).astype(np.float32)
        return np.asarray(
            cv2.resize(coarse, (self.crop_px, self.crop_px), interpolation=cv2.INTER_CUBIC), dtype=np.float32
        )


def connected(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give every connected piece its own id: mirroring shows a nucleus twice, cutting leaves it in two pieces."""
    pieces: NDArray[np.int32] = measure.label(np.maximum(labels, 0), background=0, connectivity=1).astype(np.int32)
    pieces[labels < 0] = -1
    return pieces


def _area(images: list[LabelledImage]) -> float:
    return sum(image.labels.size * image.mpp_um**2 for image in images)


def _warp(source: LabelledImage, map_y: NDArray[np.float32], map_x: NDArray[np.float32], step: float) -> Crop:
    y0, x0 = max(0, int(map_y.min()) - 8), max(0, int(map_x.min()) - 8)
    y1, x1 = int(map_y.max()) + 9, int(map_x.max()) + 9
    image = source.image[y0:y1, x0:x1]
    if step > 1:
        # A pixel of the crop averages over `step` pixels of the picture (see Slide.read_box).
        image = cv2.GaussianBlur(image, (0, 0), float(np.sqrt((step**2 - 1) / 12) + 1e-3)).astype(np.uint8)
    map_y, map_x = map_y - y0, map_x - x0
    border = cv2.BORDER_REFLECT_101
    labels = source.labels[y0:y1, x0:x1].astype(np.float32)
    warped = cv2.remap(labels, map_x, map_y, cv2.INTER_NEAREST, borderMode=border).astype(np.int32)
    weights = source.weights[y0:y1, x0:x1]
    painted = None
    if source.attention is not None:
        there = source.attention[y0:y1, x0:x1].astype(np.float32)
        painted = cv2.remap(there, map_x, map_y, cv2.INTER_NEAREST, borderMode=border).astype(np.int8)
    return Crop(
        np.asarray(cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=border), dtype=np.uint8),
        connected(warped),
        np.asarray(cv2.remap(weights, map_x, map_y, cv2.INTER_LINEAR, borderMode=border), dtype=np.float32),
        painted,
    )


def describe(images: Sequence[LabelledImage]) -> str:
    """Return one line about a set, for logs and cards."""
    nuclei = sum(len(np.unique(image.labels[image.labels > 0])) for image in images)
    return json.dumps({"images": len(images), "nuclei": nuclei})
