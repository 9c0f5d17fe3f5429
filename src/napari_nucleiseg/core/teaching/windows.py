"""Windows of a slide or of pictures that could be annotated next, and how their pixels are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.regions import HOLD_OUT, TEACH, read_regions
from napari_nucleiseg.core.teaching.collect import CONTEXT_PX, with_context

# Annotated windows that new ones are compared with at most: time does not grow with what was annotated before.
MOST_ANNOTATED = 16
# Windows that are tried for each one wanted, because some hold no tissue or are annotated.
TRIES = 4

Pixels = tuple[NDArray[np.uint8], tuple[slice, slice]]


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of one picture.

    Parameters
    ----------
    picture : int
        Number of the picture; 0 for a slide.
    region : Region
        Level-0 pixels of the slide, or pixels of the picture.
    """

    picture: int
    region: Region


class Windows(Protocol):
    """Where to look, in the order in which it is to be looked at."""

    def candidates(self) -> Iterator[Window]:
        """Yield what could be annotated; windows do not overlap each other or anything annotated."""

    def annotated(self) -> Sequence[Window]:
        """Return some of what is annotated already."""

    def read(self, window: Window) -> Pixels:
        """Return a picture at the model's pixel size, uint8 RGB (y, x, 3), with context, and where the window lies."""


class SlideWindows:
    """Windows of the part of a slide that was segmented.

    Parameters
    ----------
    slide : Slide
        Where pixels come from.
    project : Project
        Says which tiles are done and which regions are annotated; what is held out is neither proposed nor looked at.
    spec : ModelSpec
        States the pixel size.
    side_um : float
        Side of a window, micrometres.
    most : int
        Windows wanted.
    seed : int
        Of the sample.

    Raises
    ------
    TeachingError
        If nothing of the slide was segmented.
    """

    def __init__(
        self, slide: Slide, project: Project, spec: ModelSpec, *, side_um: float, most: int, seed: int
    ) -> None:
        self.slide, self.most = slide, most
        self.step = YX(spec.mpp_um / project.mpp_um.y, spec.mpp_um / project.mpp_um.x)
        whole = slide.region
        self.height = min(max(1, round(side_um / project.mpp_um.y)), whole.height)
        self.width = min(max(1, round(side_um / project.mpp_um.x)), whole.width)
        database = project.ledger.reader
        self._tiles = database.execute("SELECT y0, x0, y1, x1 FROM tiles WHERE whole = 1 ORDER BY tile").fetchall()
        if not self._tiles:
            raise TeachingError(
                "Nothing of this slide has been segmented yet. Segment a part of it first: the most useful region is "
                "looked for there."
            )
        regions = read_regions(database)
        self._held_out = [region.box for region in regions if region.role == HOLD_OUT]
        self._taught = [region.box for region in regions if region.role == TEACH]
        self._rng = np.random.default_rng(seed)

    def candidates(self) -> Iterator[Window]:
        """Yield windows of tiles that are done, by chance; see `Windows`."""
        tiles = np.array(self._tiles, np.int64)
        rows = np.maximum(1, (tiles[:, 2] - tiles[:, 0]) // self.height)
        columns = np.maximum(1, (tiles[:, 3] - tiles[:, 1]) // self.width)
        ends = np.cumsum(rows * columns)
        total = int(ends[-1])
        given: list[Region] = []
        for cell in self._rng.choice(total, min(total, TRIES * self.most), replace=False).tolist():
            tile = int(np.searchsorted(ends, cell, side="right"))
            row, column = divmod(cell - int(ends[tile] - rows[tile] * columns[tile]), int(columns[tile]))
            window = self._inside(int(tiles[tile, 0]) + row * self.height, int(tiles[tile, 1]) + column * self.width)
            if not any(window.overlaps(other) for other in (*self._held_out, *self._taught, *given)):
                given.append(window)
                yield Window(0, window)

    def annotated(self) -> Sequence[Window]:
        """Return the middle of some regions that are taught; see `Windows`."""
        count = min(len(self._taught), MOST_ANNOTATED)
        chosen = np.sort(self._rng.choice(len(self._taught), count, replace=False)) if count else ()
        centres = [self._taught[place].centre for place in chosen]
        windows = [self._inside(round(y - self.height / 2), round(x - self.width / 2)) for y, x in centres]
        # Beside a small region lies what is not taught, which may be held out.
        return [Window(0, window) for window in windows if not any(window.overlaps(held) for held in self._held_out)]

    def _inside(self, y: int, x: int) -> Region:
        """Return the window at a corner, moved into the slide."""
        whole = self.slide.region
        return Region(
            max(0, min(y, whole.height - self.height)),
            max(0, min(x, whole.width - self.width)),
            self.height,
            self.width,
        )

    def read(self, window: Window) -> Pixels:
        """Read a window of the slide; see `Windows`."""
        region = window.region
        corner, shape = with_context(region, self.slide.region, self.step)
        y, x = round((region.y - corner.y) / self.step.y), round((region.x - corner.x) / self.step.x)
        height, width = max(1, round(region.height / self.step.y)), max(1, round(region.width / self.step.x))
        return self.slide.read_box(*corner, *self.step, shape), (slice(y, y + height), slice(x, x + width))


class PictureWindows:
    """Windows of plain pictures.

    Parameters
    ----------
    pictures : sequence of ndarray of uint8, shape (y, x, 3)
        RGB at the model's pixel size.
    wanted : sequence of Window
        What could be annotated.
    taught : sequence of Window
        What is annotated already.
    most : int
        Windows wanted.
    seed : int
        Of the sample.

    Raises
    ------
    TeachingError
        If there is no window to choose from.
    """

    def __init__(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        wanted: Sequence[Window],
        taught: Sequence[Window],
        *,
        most: int,
        seed: int,
    ) -> None:
        if not wanted:
            raise TeachingError("There are no windows to choose from. Give pictures that are at least as large as one.")
        self._pictures, self._wanted, self._taught = pictures, wanted, taught
        self.most, self._rng = most, np.random.default_rng(seed)

    def candidates(self) -> Iterator[Window]:
        """Yield the windows by chance; see `Windows`."""
        for place in self._rng.permutation(len(self._wanted))[: TRIES * self.most].tolist():
            window = self._wanted[place]
            if not any(
                other.picture == window.picture and other.region.overlaps(window.region) for other in self._taught
            ):
                yield window

    def annotated(self) -> Sequence[Window]:
        """Return some of the annotated windows; see `Windows`."""
        count = min(len(self._taught), MOST_ANNOTATED)
        chosen = np.sort(self._rng.choice(len(self._taught), count, replace=False)) if count else ()
        return [self._taught[place] for place in chosen]

    def read(self, window: Window) -> Pixels:
        """Cut a window out of its picture; see `Windows`."""
        picture = self._pictures[window.picture]
        frame = window.region.expand(CONTEXT_PX).intersect(Region(0, 0, *picture.shape[:2]))
        return np.ascontiguousarray(picture[frame.slices]), window.region.translate(-frame.y, -frame.x).slices


def grid_windows(pictures: Sequence[NDArray[np.uint8]], side_px: int) -> list[Window]:
    """Return all squares of a grid that lie wholly inside the pictures.

    Parameters
    ----------
    pictures : sequence of ndarray of uint8, shape (y, x, 3)
        RGB.
    side_px : int
        Side of a square in their pixels.
    """
    return [
        Window(number, Region(y, x, side_px, side_px))
        for number, picture in enumerate(pictures)
        for y in range(0, picture.shape[0] - side_px + 1, side_px)
        for x in range(0, picture.shape[1] - side_px + 1, side_px)
    ]
