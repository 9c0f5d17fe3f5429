"""Score a folder of predicted label images against a folder of true ones, paired by file name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.evaluation.overlaps import LabelImage
from napari_nucleiseg.core.evaluation.scores import ImageScores, mean_scores, scores

LABEL_SUFFIXES = (".tif", ".tiff", ".png", ".npy")


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """Scores of every image of a data set and their mean.

    Parameters
    ----------
    images : tuple of (str, ImageScores)
        File stem and scores, sorted by stem.
    mean : ImageScores
        Mean over images; counts are totals.
    unused : tuple of str
        Stems of predictions that no true label image asked for.
    """

    images: tuple[tuple[str, ImageScores], ...]
    mean: ImageScores
    unused: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain dicts and lists, fit for JSON."""
        return {
            "images": {stem: image.as_dict() for stem, image in self.images},
            "mean": self.mean.as_dict(),
            "unused_predictions": list(self.unused),
        }

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """Write `as_dict` to a file.

        Raises
        ------
        DataError
            If the file cannot be written.
        """
        write_document(self.as_dict(), path)


def write_document(document: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write scores as JSON.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    try:
        Path(path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"the scores cannot be written to {path}: {error.strerror or error}") from error


def evaluate_folders(
    pred_dir: str | os.PathLike[str],
    truth_dir: str | os.PathLike[str],
    *,
    on_image: Callable[[int, int, str], None] = lambda _done, _total, _stem: None,
) -> EvaluationReport:
    """Score every true label image against the prediction of the same file stem.

    Parameters
    ----------
    pred_dir, truth_dir : path
        Folders of label images: TIFF, PNG (8 or 16 bit grey) or NPY, whole numbers, 0 is background.
    on_image : callable
        Called with ``(images done, images in all, stem)`` after each.

    Returns
    -------
    EvaluationReport
        Scores by image and their mean.

    Raises
    ------
    DataError
        If a folder, an image or a prediction is missing, or a pair does not fit together.
    """
    truths, preds = find_label_images(truth_dir), find_label_images(pred_dir)
    missing = sorted(truths.keys() - preds.keys())
    if missing:
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise DataError(
            f"{pred_dir} holds no prediction for {named}; each true label image needs one of the same name "
            f"({', '.join(LABEL_SUFFIXES)})"
        )
    images: list[tuple[str, ImageScores]] = []
    for stem, path in sorted(truths.items()):
        try:
            images.append((stem, scores(read_label_image(path), read_label_image(preds[stem]))))
        except DataError as error:
            raise DataError(f"{stem}: {error}") from error
        on_image(len(images), len(truths), stem)
    unused = tuple(sorted(preds.keys() - truths.keys()))
    return EvaluationReport(tuple(images), mean_scores(image for _, image in images), unused)


def find_label_images(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the label images of a folder by stem (``a.ome.tif`` counts as ``a``).

    Raises
    ------
    DataError
        If there is no such folder, no label image in it, or a stem occurs twice.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that holds the label images")
    found: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        if path.suffix.lower() not in LABEL_SUFFIXES or path.name.startswith("."):
            continue
        stem = path.stem.removesuffix(".ome")
        if stem in found:
            raise DataError(f"{found[stem].name} and {path.name} in {root} are both called {stem}; keep one of them")
        found[stem] = path
    if not found:
        raise DataError(f"{root} holds no label image ({', '.join(LABEL_SUFFIXES)})")
    return found


def read_label_image(path: str | os.PathLike[str]) -> LabelImage:
    """Read an instance map from a TIFF, PNG or NPY file.

    Returns
    -------
    ndarray of integers, shape (y, x)
        As stored; whole numbers stored as floats become int64.

    Raises
    ------
    DataError
        If the file cannot be read or does not hold one image of whole numbers.
    """
    source = Path(path)
    try:
        image = _read(source)
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise DataError(f"{source.name} cannot be read as a label image: {error}") from error
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else np.squeeze(image)
    if image.ndim != 2:
        raise DataError(
            f"{source.name} has the shape {image.shape} and looks like a picture; "
            "a label image has one whole number per pixel"
        )
    if image.dtype == bool:
        raise DataError(f"{source.name} is a yes/no mask; a label image gives each nucleus a number of its own")
    if np.issubdtype(image.dtype, np.floating):
        whole = np.rint(np.nan_to_num(image, nan=-0.5))
        if not np.array_equal(whole, image):
            raise DataError(f"{source.name} holds fractions ({image.dtype}); labels are whole numbers")
        image = whole.astype(np.int64)
    labels: LabelImage = image
    return labels


def _read(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if suffix == ".png":
        # Through memory, because cv2 cannot open every path on Windows.
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise ValueError("it is no PNG file")
        return np.asarray(image)
    return np.asarray(tifffile.imread(path))
