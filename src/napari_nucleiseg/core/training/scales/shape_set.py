"""Slides without labels become a data set to train any network on: nuclei by their shape, the doubtful left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.training.scales.shapes import instances_by_shape, slide_levels
from napari_nucleiseg.core.training.scales.slide_level import LEAST_TISSUE, WINDOWS, Windows, choose_windows

# Shapes are seen best at this pixel size; slides that are nearly as fine are read so.
_FINE_UM, _FINE_ENOUGH_UM = 0.25, 0.3
# More places than this are not looked through.
_MANY = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class LabelledWindow:
    """A part of a slide with its nuclei.

    Parameters
    ----------
    name : str
        Of the slide and of its place, without ending.
    image : ndarray of uint8, shape (y, x, 3)
        RGB at the pixel size of the network that is to learn from it.
    labels : ndarray of int32, shape (y, x)
        Ids of nuclei, 0 none, -1 where nothing is claimed.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.int32]

    @property
    def nuclei(self) -> int:
        """How many there are."""
        # Ids are counted from 1 without gaps.
        return max(int(self.labels.max(initial=0)), 0)

    def is_corrected_in(self, folder: Path) -> bool:
        """Return whether other labels of it lie in a data set, such as those that a person has corrected."""
        path = folder / "labels" / f"{self.name}.tif"
        if not path.exists():
            return False
        try:
            return not np.array_equal(tifffile.imread(path), self.labels)
        except (OSError, ValueError, tifffile.TiffFileError):
            return True

    def write(self, folder: Path) -> None:
        """Write it into a data set, as ``images/NAME.tif`` and ``labels/NAME.tif``; each is whole or not there.

        Raises
        ------
        DataError
            If that is not possible.
        """
        try:
            for kind, values in (("images", self.image), ("labels", self.labels)):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                content = BytesIO()
                tifffile.imwrite(content, values, compression="zlib")
                write_over(folder / kind / f"{self.name}.tif", content.getvalue())
        except OSError as error:
            raise DataError(f"{folder} cannot be written to: {error}; choose another folder") from error


def labelled_windows(
    slide: Slide, name: str, spec: ModelSpec, *, most: int = WINDOWS, seed: int = 0
) -> Iterator[LabelledWindow]:
    """Label windows of tissue all over a slide; see `windows_to_label` and `label_windows`."""
    return label_windows(slide, name, spec, windows_to_label(slide, spec, most=most, seed=seed))


def windows_to_label(
    slide: Slide,
    spec: ModelSpec,
    regions: Sequence[Region] = (),
    *,
    most: int = WINDOWS,
    seed: int = 0,
    tissue: float = LEAST_TISSUE,
) -> Windows:
    """Choose windows of tissue that do not overlap, of 512 pixels each where there is room.

    Parameters
    ----------
    slide : Slide
        With a stated pixel size.
    spec : ModelSpec
        Of the network that is to learn; its pixel size is that of the windows.
    regions : sequence of Region
        Level-0 pixels to look at; empty means all tissue.
    most : int
        Windows at most.
    seed : int
        Of their choice.
    tissue : float
        Least share of a window that is tissue.

    Raises
    ------
    DataError
        If there is no tissue, or the slide is too small.
    """
    return _apart(choose_windows(spec, slide, regions, most=_MANY, seed=seed, least_tissue=tissue), most)


def label_windows(slide: Slide, name: str, spec: ModelSpec, windows: Windows) -> Iterator[LabelledWindow]:
    """Label windows by the shape of nuclei; the stain of all of them together says what is dense.

    Parameters
    ----------
    slide : Slide
        With a stated pixel size.
    name : str
        Of the slide in the data set.
    spec : ModelSpec
        Of the network that is to learn.
    windows : Windows
        Of the slide; see `windows_to_label`.

    Raises
    ------
    SlideError
        If it cannot be read.
    """
    is_fine = max(slide.require_mpp()) <= _FINE_ENOUGH_UM
    factor = max(1, round(spec.mpp_um / _FINE_UM)) if is_fine else 1
    pictures = [windows.read(slide, number, factor) for number in range(len(windows))]
    levels = slide_levels(pictures, spec.mpp_um / factor)
    size = (windows.side, windows.side)
    for (y, x), picture in zip(windows.corners.tolist(), pictures, strict=True):
        labels = instances_by_shape(picture, spec.mpp_um / factor, levels)
        image = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        yield LabelledWindow(
            f"{name}_{y}_{x}", image, np.ascontiguousarray(labels[factor // 2 :: factor, factor // 2 :: factor])
        )


def _apart(windows: Windows, most: int) -> Windows:
    """Keep windows that do not overlap, in their order."""
    sides = np.ceil(windows.side * np.array(windows.step))
    kept: list[NDArray[np.int64]] = []
    for corner in windows.corners:
        if len(kept) < most and all((np.abs(corner - other) >= sides).any() for other in kept):
            kept.append(corner)
    return replace(windows, corners=np.stack(kept))
