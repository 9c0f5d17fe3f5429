"""From a slide's project to examples: annotated regions, approved and rejected nuclei, and tissue nobody annotated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.edits.rasters import inside_polygon, polygon
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.attention import painted_boxes, read_attention
from napari_nucleiseg.core.store.ledger import APPROVED, REJECTED, claims_in, rows_by_id
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.regions import HOLD_OUT, REFERENCE, TEACH, AnnotatedRegion, read_regions
from napari_nucleiseg.core.teaching.examples import UNKNOWN, Example, painted_inside

# Model pixels: what is read around a region, the largest side of one picture, and the side of pictures of tissue
# that nobody annotated.
CONTEXT_PX = 32
WINDOW_PX = 512
ELSEWHERE_PX = 256
ELSEWHERE_WINDOWS = 8
# Pictures a slide gives at most: time and memory do not grow with what was annotated before.
MOST_WINDOWS = 256
# Background that an approved nucleus vouches for: a rim of this width.
RIM_UM = 1.0
LOOSE = "approved nuclei"
# What paint means to a model: see `UNPAINTED`, `LOOK_HERE` and `DO_NOT_LOOK`.
_MEANT = np.array([UNKNOWN, 1, 0], np.int8)

_BoolMask = NDArray[np.bool_]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What slides hold for a model to learn from.

    Parameters
    ----------
    examples : tuple of Example
        Pieces with labels, of both roles.
    elsewhere : tuple of Example
        Pieces of the same slides without any label.
    left_out : tuple of str
        Sentences: which regions were not used and why.
    """

    examples: tuple[Example, ...]
    elsewhere: tuple[Example, ...] = ()
    left_out: tuple[str, ...] = ()

    def __add__(self, other: Lesson) -> Lesson:
        return Lesson(self.examples + other.examples, self.elsewhere + other.elsewhere, self.left_out + other.left_out)


def lesson_of(project: Project, slide: Slide, spec: ModelSpec, seed: int = 0) -> Lesson:
    """Read what a project holds for a model to learn from.

    Whole are regions that a person vouches for; of partly corrected ones and outside of all regions what was
    approved or drawn counts as nucleus, what was rejected and a rim around the former as background, and all else is
    unknown. What lies in a region that is held out is never learnt from. For a model that says where it looks, painted
    attention counts everywhere else, also where no nucleus was corrected.

    Parameters
    ----------
    project : Project
        With its annotated regions.
    slide : Slide
        The project's slide.
    spec : ModelSpec
        States the pixel size of the pictures.
    seed : int
        Of the choice where there is more than needed.
    """
    reader = _Reader(project, slide, spec)
    rng = np.random.default_rng(seed)
    regions = [region for region in read_regions(project.ledger.reader) if region.role in {TEACH, HOLD_OUT}]
    used = [region for region in regions if reader.was_looked_at(region)]
    held = [region for region in used if region.role == HOLD_OUT]
    windows = [(region, box) for region in used for box in reader.windows(region.box)]
    examples = [reader.region(region, box, held) for region, box in _some(windows, rng)]
    painted = [(region, box) for region in regions if region not in used for box in reader.painted_windows(region)]
    aside = [region for region in regions if region.role == HOLD_OUT]
    examples += [reader.painted_region(region, box, aside) for region, box in _some(painted, rng)]
    examples += [reader.loose(box, regions) for box in _some(reader.loose_windows(regions), rng)]
    elsewhere = [reader.unlabelled(box) for box in reader.elsewhere(regions, rng)]
    examples = [example for example in examples if example.teaches]
    taught = {example.number for example in examples}
    left_out = tuple(_sentence(one) for one in regions if one not in used and one.number not in taught)
    return Lesson(tuple(examples), tuple(elsewhere), left_out)


def labelled_parts(project: Project, slide: Slide, spec: ModelSpec, box: Region) -> list[Example]:
    """Return what a person vouches for of the annotated regions in a box, whatever they are for; see `lesson_of`.

    Parameters
    ----------
    project, slide, spec
        As in `lesson_of`.
    box : Region
        Level-0 pixels.
    """
    reader = _Reader(project, slide, spec)
    regions = [region for region in read_regions(project.ledger.reader) if region.role in {TEACH, HOLD_OUT}]
    used = [region for region in regions if region.box.overlaps(box) and reader.was_looked_at(region)]
    windows = [(region, window) for region in used for window in reader.windows(region.box.intersect(box))]
    examples = [reader.region(region, window, ()) for region, window in windows[:MOST_WINDOWS]]
    return [example for example in examples if example.known.any()]


def _some(items: Sequence[Item], rng: np.random.Generator) -> list[Item]:
    """Return at most `MOST_WINDOWS` of the items, in their order."""
    if len(items) <= MOST_WINDOWS:
        return list(items)
    return [items[place] for place in np.sort(rng.choice(len(items), MOST_WINDOWS, replace=False))]


def _sentence(region: AnnotatedRegion) -> str:
    return (
        f"{region.name} is left out: nothing in it was corrected or approved. Mark it as done if every nucleus in it "
        "is right."
    )


class _Reader:
    """Reads pieces of one slide and its labels at the model's pixel size."""

    def __init__(self, project: Project, slide: Slide, spec: ModelSpec) -> None:
        self.project, self.slide, self.mpp_um = project, slide, spec.mpp_um
        self.step = YX(spec.mpp_um / project.mpp_um.y, spec.mpp_um / project.mpp_um.x)
        self.painted = painted_boxes(project) if spec.attends else []

    def was_looked_at(self, region: AnnotatedRegion) -> bool:
        """Whether a person says or shows that work was done in a region."""
        box, database = region.box, self.project.ledger.reader
        edited = database.execute(
            "SELECT 1 FROM edits WHERE undone = 0 AND nuclei > 0 AND y0 < ? AND y1 > ? AND x0 < ? AND x1 > ? LIMIT 1",
            (box.y1, box.y, box.x1, box.x),
        ).fetchone()
        if region.done or edited is None:
            return region.done
        # Edits lie in boxes, and may be beside a region that is none.
        touched = "(review != 0 OR person IS NOT NULL OR class != 0)"
        places = np.array(self.project.census.rows_in(database, box, "y, x", touched), np.float64).reshape(-1, 2)
        return bool(inside_polygon(places, region.polygon).any())

    def windows(self, box: Region) -> list[Region]:
        """Divide a box into equal parts that are at most `WINDOW_PX` model pixels wide; level-0 pixels."""
        rows = max(1, int(np.ceil(box.height / self.step.y / WINDOW_PX)))
        columns = max(1, int(np.ceil(box.width / self.step.x / WINDOW_PX)))
        ys = np.linspace(box.y, box.y1, rows + 1).round().astype(int).tolist()
        xs = np.linspace(box.x, box.x1, columns + 1).round().astype(int).tolist()
        return [Region.from_bounds(y0, x0, y1, x1) for y0, y1 in pairwise(ys) for x0, x1 in pairwise(xs)]

    def region(self, region: AnnotatedRegion, window: Region, held: Sequence[AnnotatedRegion]) -> Example:
        """Read the part of an annotated region that lies in a window."""
        frame = _Frame(self, window)
        inside = frame.mask(region) & frame.within(window)
        vouched = None if region.complete else self._vouched(frame.ids)
        apart = frame.masks(held if region.role == TEACH else ())
        return self._example(
            frame, inside & ~apart, vouched, _Place(region.name, region.number, region.role), frame.mostly_in(apart)
        )

    def painted_windows(self, region: AnnotatedRegion) -> list[Region]:
        """Return the windows of a region to learn from in which attention was painted."""
        windows = self.windows(region.box) if region.role == TEACH else []
        return [window for window in windows if self.is_painted(window)]

    def is_painted(self, window: Region) -> bool:
        """Whether attention may have been painted in a window."""
        return any(box.overlaps(window) for box in self.painted)

    def painted_region(self, region: AnnotatedRegion, window: Region, held: Sequence[AnnotatedRegion]) -> Example:
        """Read what attention was painted on a region in which no nucleus was corrected."""
        whole = self.region(region, window, held)
        return replace(whole, labels=np.full(whole.labels.shape, UNKNOWN, np.int32), classes=())

    def loose_windows(self, regions: Sequence[AnnotatedRegion]) -> list[Region]:
        """Return squares with nuclei that a person judged, or painted attention, outside of regions; level-0 pixels."""
        rows = self.project.ledger.reader.execute(
            "SELECT y, x FROM nuclei WHERE review IN (?, ?) "
            "UNION SELECT y, x FROM nuclei WHERE person IS NOT NULL AND review = 0",
            (APPROVED, REJECTED),
        ).fetchall()
        places = np.array(rows, np.float64).reshape(-1, 2)
        for region in regions:
            places = places[~inside_polygon(places, region.polygon)]
        side = WINDOW_PX / 2 * np.array(self.step)
        corners = [np.floor(np.array((box.y, box.x)) / side) for box in self.painted]
        ends = [np.ceil(np.array((box.y1, box.x1)) / side) for box in self.painted]
        squares = [np.mgrid[y0:y1, x0:x1].reshape(2, -1).T for (y0, x0), (y1, x1) in zip(corners, ends, strict=True)]
        cells = np.unique(np.concatenate([np.floor(places / side), *squares]).astype(np.int64), axis=0)
        return [
            Region.from_bounds(*np.floor(cell * side).astype(int).tolist(), *np.ceil((cell + 1) * side).astype(int))
            for cell in cells
        ]

    def loose(self, window: Region, regions: Sequence[AnnotatedRegion]) -> Example:
        """Read the nuclei of a window that a person judged, outside of all regions."""
        frame = _Frame(self, window)
        inside = frame.within(window)
        inside &= ~frame.masks(regions)
        apart = frame.mostly_in(frame.masks([region for region in regions if region.role == HOLD_OUT]))
        return self._example(frame, inside, self._vouched(frame.ids), _Place(LOOSE, 0, TEACH), apart)

    def unlabelled(self, window: Region) -> Example:
        """Read a window of which nothing is known."""
        frame = _Frame(self, window)
        return self._shown(frame, np.full(frame.shape, UNKNOWN, np.int32), _Place("", -1, REFERENCE))

    def elsewhere(self, regions: Sequence[AnnotatedRegion], rng: np.random.Generator) -> Iterator[Region]:
        """Choose windows of tissue outside of all regions; level-0 pixels."""
        height, width = (round(ELSEWHERE_PX * step) for step in self.step)
        rows = self.project.ledger.reader.execute("SELECT y0, x0, y1, x1 FROM tiles WHERE n > 0").fetchall()
        tiles = [Region.from_bounds(*row) for row in rows] or [self._around(region) for region in regions]
        taken = 0
        for place in rng.permutation(len(tiles)):
            tile = tiles[place].intersect(self.slide.region)
            y = tile.y + int(rng.integers(max(tile.height - height, 0) + 1))
            x = tile.x + int(rng.integers(max(tile.width - width, 0) + 1))
            window = Region(y, x, height, width).intersect(tile)
            taught = self.is_painted(window) or any(window.overlaps(region.box) for region in regions)
            if not window.is_empty and not taught:
                taken += 1
                yield window
            if taken == ELSEWHERE_WINDOWS:
                return

    def _around(self, region: AnnotatedRegion) -> Region:
        return region.box.expand(round(2 * ELSEWHERE_PX * max(self.step)))

    def _vouched(self, ids: NDArray[np.uint32]) -> set[int]:
        """Ids that a person approved, drew or changed."""
        known = rows_by_id(self.project.ledger.reader, "person, review", np.unique(ids[ids > 0]).tolist())
        return {row[0] for row in known if row[1] is not None or row[2] == APPROVED}

    def _example(
        self, frame: _Frame, inside: _BoolMask, vouched: set[int] | None, place: _Place, apart: _BoolMask
    ) -> Example:
        """Make an example of what is known `inside`; `vouched` None takes everything there as looked at.

        Of nuclei that are `apart` nothing is known.
        """
        ids = frame.ids
        here = np.unique(ids[inside & ~apart & (ids > 0)]).tolist()
        kept = sorted(here if vouched is None else vouched.intersection(here))
        order = np.zeros(ids.shape, np.int32)
        found = np.searchsorted(kept, ids) if kept else np.zeros(ids.shape, np.intp)
        if kept:
            nucleus = np.asarray(kept)[np.minimum(found, len(kept) - 1)] == ids
            order = np.where(nucleus, found + 1, 0).astype(np.int32)
        known = inside & ~apart
        if vouched is not None:
            radius = max(1, round(RIM_UM / self.mpp_um))
            disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
            rim = cv2.dilate((order > 0).astype(np.uint8), disc).astype(bool) & (ids == 0)
            known &= rim | frame.rejected()
        # A nucleus that reaches beyond the region was looked at as a whole.
        labels = np.where(order > 0, order, np.where(known, 0, UNKNOWN)).astype(np.int32)
        classes = {row[1] for row in rows_by_id(self.project.ledger.reader, "class", kept)}
        attention = frame.attention(inside) if place.role == TEACH else None
        return replace(self._shown(frame, labels, place, tuple(sorted(classes))), attention=attention)

    def _shown(self, frame: _Frame, labels: NDArray[np.int32], place: _Place, classes: tuple[int, ...] = ()) -> Example:
        """Read the picture of a frame and put labels to it."""
        return Example(
            self.project.slide_name,
            self.project.fingerprint,
            *place,
            self.slide.read_box(*frame.origin, *self.step, frame.shape),
            labels,
            self.mpp_um,
            frame.box,
            classes,
        )


def with_context(window: Region, whole: Region, step: YX) -> tuple[YX, tuple[int, int]]:
    """Return where a picture of a window and what surrounds it begins, level-0 pixels, and its shape in model pixels.

    Parameters
    ----------
    window, whole : Region
        Level-0 pixels; the picture does not leave `whole`.
    step : YX
        Level-0 pixels per model pixel.
    """
    top, left = max(window.y - CONTEXT_PX * step.y, 0.0), max(window.x - CONTEXT_PX * step.x, 0.0)
    bottom, right = (
        min(window.y1 + CONTEXT_PX * step.y, whole.height),
        min(window.x1 + CONTEXT_PX * step.x, whole.width),
    )
    return YX(top, left), (max(1, round((bottom - top) / step.y)), max(1, round((right - left) / step.x)))


class _Place(NamedTuple):
    """Name and number of a region, and its role."""

    name: str
    number: int
    role: str


class _Frame:
    """A picture around a window: where it lies, and masks at its pixels."""

    def __init__(self, reader: _Reader, window: Region) -> None:
        self.reader = reader
        self.origin, self.shape = with_context(window, reader.slide.region, reader.step)
        (top, left), (step_y, step_x) = self.origin, reader.step
        bottom, right = top + self.shape[0] * step_y, left + self.shape[1] * step_x
        self.box = Region.from_bounds(int(top), int(left), int(np.ceil(bottom)), int(np.ceil(right)))

    def _centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Level-0 coordinates of the centres of rows and of columns."""
        rows, columns = (np.arange(side, dtype=np.float64) + 0.5 for side in self.shape)
        return self.origin.y + rows * self.reader.step.y, self.origin.x + columns * self.reader.step.x

    @cached_property
    def ids(self) -> NDArray[np.uint32]:
        """Ids of the label image at the centres of the pixels, shape `shape`."""
        labels = self.reader.project.labels
        region = self.box.intersect(labels.whole)
        stored = labels.read(region)
        return stored[self._pixels_in(region)]

    def masks(self, regions: Iterable[AnnotatedRegion]) -> _BoolMask:
        """Mark what lies in any of some regions."""
        found = np.zeros(self.shape, np.bool_)
        for region in regions:
            found |= self.mask(region)
        return found

    def mostly_in(self, mask: _BoolMask) -> _BoolMask:
        """Mark all of the nuclei that lie mostly in a mask."""
        there, pixels = np.unique(self.ids[mask & (self.ids > 0)], return_counts=True)
        if not len(there):
            return np.zeros(self.shape, np.bool_)
        everywhere = np.bincount(np.searchsorted(there, self.ids[np.isin(self.ids, there)]))
        return np.isin(self.ids, there[2 * pixels > everywhere])

    def _pixels_in(self, region: Region) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pixels of a level-0 region in which the centres lie, as indices that make an image of `shape`."""
        ys, xs = self._centres()
        rows = np.clip(ys.astype(np.int64) - region.y, 0, region.height - 1)
        columns = np.clip(xs.astype(np.int64) - region.x, 0, region.width - 1)
        return rows[:, None], columns[None]

    def mask(self, region: AnnotatedRegion) -> _BoolMask:
        """Return the pixels whose centres lie in a polygon."""
        # A region's points count from the centre of the slide's first pixel, the frame's origin from its corner.
        points = (region.polygon + 0.5 - np.array(self.origin)) / np.array(self.reader.step) - 0.5
        return polygon(points, Region(0, 0, *self.shape))

    def within(self, window: Region) -> _BoolMask:
        """Return the pixels whose centres lie in a box."""
        ys, xs = self._centres()
        rows, columns = (ys >= window.y) & (ys < window.y1), (xs >= window.x) & (xs < window.x1)
        return np.asarray(rows[:, None] & columns[None])

    def attention(self, inside: _BoolMask) -> NDArray[np.int8] | None:
        """Return what was painted on the pixels `inside`: 1 look here, 0 do not, negative unknown; None for nothing."""
        if not self.reader.is_painted(self.box):
            return None
        region = self.box.intersect(self.reader.project.labels.whole)
        stored = read_attention(self.reader.project, region)[self._pixels_in(region)]
        return painted_inside(_MEANT[stored], inside)

    def rejected(self) -> _BoolMask:
        """Return the pixels of nuclei that a person rejected."""
        database = self.reader.project.ledger.reader
        claims = claims_in(database, self.box)
        gone = {row[0] for row in rows_by_id(database, "review", claims) if row[1] == REJECTED}
        full = np.zeros((self.box.height, self.box.width), np.bool_)
        for nucleus, claim in claims.items():
            part = claim.box.intersect(self.box)
            if nucleus in gone and not part.is_empty:
                here = part.translate(-self.box.y, -self.box.x).slices
                full[here] |= claim.mask[part.translate(-claim.box.y, -claim.box.x).slices]
        return full[self._pixels_in(self.box)]


def with_role(example: Example, role: str) -> Example:
    """Return the same example in another role."""
    return replace(example, role=role)
