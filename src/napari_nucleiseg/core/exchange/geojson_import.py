"""QuPath GeoJSON into a project: features are read, checked and sorted by place, then painted part by part."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import ImportFileError
from napari_nucleiseg.core.exchange.digits import Digits
from napari_nucleiseg.core.exchange.geojson_reader import FeatureReader
from napari_nucleiseg.core.exchange.objects import Annotations, Found, attributes_of, class_of, look_at, readable
from napari_nucleiseg.core.exchange.origin import Origin
from napari_nucleiseg.core.exchange.painting import KIND, Overlap, Painter, patch_of_spans
from napari_nucleiseg.core.exchange.rasterise import Rings, Spans, crossings_of, fill
from napari_nucleiseg.core.exchange.report import ImportProgress, ImportReport, no_import_progress
from napari_nucleiseg.core.exchange.rings import areas_of, chosen, near, rings_of
from napari_nucleiseg.core.exchange.source import PIXEL_CENTRE, NamedClass, classes_of
from napari_nucleiseg.core.exchange.stash import ATTRIBUTES, Stash
from napari_nucleiseg.core.garbage import without_searches
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.editor import Changed
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.records import CLASSES
from napari_nucleiseg.core.store.regions import ROLES, TEACH, AnnotatedRegion, put_region

FEATURES_AT_A_TIME = 2000
POINTS_AT_A_TIME = 500_000
MOST_NUCLEUS_PX = 1 << 24
MOST_CROSSINGS = 1 << 22
MOST_REGIONS = 5000
NOWHERE = Region(0, 0, 0, 0)
PLAIN_COLOUR = "#a9a9a9"
# A nucleus smaller than this is none: more likely its outline is in micrometres, or of another level.
LEAST_USUAL_UM2 = 4.0
_SHARE_OFF = 0.25


def import_geojson(
    project: Project,
    path: str | os.PathLike[str],
    *,
    overlap: Overlap = "keep",
    annotations: Annotations = "regions",
    on_progress: ImportProgress = no_import_progress,
) -> ImportReport:
    """Take nuclei and annotated regions from a GeoJSON file.

    Coordinates are level-0 pixels ``(x, y)`` as QuPath counts them; see `Origin`. Detections, and of cells the nuclei,
    become nuclei; annotations become regions. Nothing is written before the whole file has been read; memory does not
    grow with it. All of it is one step of the history.

    Parameters
    ----------
    project : Project
        Open for writing.
    path : path
        The file.
    overlap : {"keep", "replace"}
        What becomes of nuclei where others are already; see `Painter`.
    annotations : {"regions", "nuclei"}
        What annotations are; those that this package exported as nuclei are nuclei anyway.
    on_progress : callable
        Called with what is under way, parts done and in all. May raise: what is written stays and can be undone.

    Returns
    -------
    ImportReport
        What was taken, and what was not and why.

    Raises
    ------
    ImportFileError
        If the file cannot be read, or holds no features or more annotations than anyone draws.
    StoreError
        If the project cannot be written.
    """
    report = ImportReport(Path(path).name)
    with Stash(project.shape[1]) as stash:
        intake = _Intake(project, stash, report, annotations)
        reader = FeatureReader(path, keep_digits=True)
        with without_searches():
            for features in _batches(reader):
                intake.origin.hear(reader.members)
                intake.take(features)
                on_progress("reading", reader.done_bytes, reader.total_bytes)
        if reader.damage:
            report.note(f"Only a part was read: {reader.damage}.")
        intake.finish()
        painter = Painter(project, overlap, report)
        squares = len(stash)
        for done, (spans, attributes) in enumerate(stash.take(), start=1):
            with without_searches():
                painter.paint(patch_of_spans(spans, attributes, project.labels))
            on_progress("writing", done, squares)
    return report


def _batches(features: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield features in lists that are neither long nor, as far as one can tell cheaply, of very many points."""
    batch: list[Any] = []
    points = 0
    for feature in features:
        batch.append(feature)
        points += _size(feature)
        if len(batch) >= FEATURES_AT_A_TIME or points > POINTS_AT_A_TIME:
            yield batch
            batch, points = [], 0
    if batch:
        yield batch


def _size(feature: Any) -> int:
    """Return how many points the first ring of a polygon has, 0 for other things."""
    try:
        coordinates = feature["geometry"]["coordinates"]
        return coordinates.points if isinstance(coordinates, Digits) else len(coordinates[0])
    except (TypeError, KeyError, IndexError):
        return 0


class _Intake:
    """Checks features and puts the nuclei among them into the stash."""

    def __init__(self, project: Project, stash: Stash, report: ImportReport, annotations: Annotations) -> None:
        self._project, self._stash, self._report, self._annotations = project, stash, report, annotations
        self.origin = Origin(project)
        self._limits = project.labels.whole
        self._known = classes_of(project)
        self._numbers = {found.name.casefold(): number for number, found in self._known.items()}
        self._regions: list[AnnotatedRegion] = []
        self._new_classes: dict[int, NamedClass] = {}
        self._areas_um2: list[float] = []
        self._crossed = 0
        self._holes = 0

    def take(self, features: list[Any]) -> None:
        nuclei: list[Found] = []
        for feature in features:
            found = look_at(feature, self._annotations)
            if isinstance(found, str):
                self._report.leave_out(found)
            elif found.is_region:
                self._take_region(found)
            else:
                nuclei.append(found)
        rings = rings_of([found.outline for found in nuclei])
        if rings is None:
            # Something in it is no number: look at each alone.
            for found in nuclei:
                alone = rings_of([found.outline])
                if alone is None:
                    self._report.leave_out("coordinates")
                else:
                    self._take_nuclei([found], *alone)
        elif nuclei:
            self._take_nuclei(nuclei, *rings)

    def finish(self) -> None:
        """Write the new classes and the regions, and say what is strange about the file as a whole."""
        for number, found in self._new_classes.items():
            row = number, found.name, found.colour or PLAIN_COLOUR
            self._note(
                self._project.editor.put(CLASSES, number, row, kind=KIND, region=NOWHERE, step=self._report.step)
            )
            self._report.new_classes += (found.name,)
        for region in self._regions:
            self._note(put_region(self._project, region, kind=KIND, step=self._report.step))
        self._report.regions = len(self._regions)
        self._remark()

    def _note(self, changed: Changed | None) -> None:
        """Let what follows belong to the one step that the import is."""
        if changed is not None and self._report.step is None:
            self._report.step = changed.step

    def _remark(self) -> None:
        note = self._report.note
        if self._crossed:
            note(f"{self._crossed:,} outlines cross themselves; areas they wind around twice were left out.")
        if self._holes:
            note(f"{self._holes:,} annotations have holes, which regions cannot have: they were filled.")
        height, width = self._project.shape
        if self._areas_um2 and float(np.median(self._areas_um2)) < LEAST_USUAL_UM2:
            note(
                f"Half of the nuclei are smaller than {LEAST_USUAL_UM2:g} um2: the outlines seem to be in micrometres "
                "or of a coarser level. They must be in full-resolution pixels; undo this import if they are not."
            )
        if self._report.left_out.get("outside"):
            note(
                f"Coordinates must be full-resolution pixels from the top left corner, x up to {width:,} and y up to "
                f"{height:,}; check that the file belongs to this slide."
            )

    # ------------------------------------------------------------------ nuclei

    def _take_nuclei(self, nuclei: list[Found], rings: Rings, signs: NDArray[np.float64]) -> None:
        """Check outlines, turn them into pixels and stash them."""
        rings = self.origin.placed(rings, [found.feature for found in nuclei])
        good, inside = self._checked(rings, len(nuclei))
        if not good.all():
            rings, signs = chosen(rings, signs, good)
            nuclei = list(itertools.compress(nuclei, good))
            inside = inside[good]
        if not nuclei:
            return
        spans = fill(rings, self._limits)
        pixels = np.bincount(spans.owners, spans.stops - spans.starts, len(nuclei))
        some = pixels > 0
        self._report.leave_out("empty", int(np.count_nonzero(~some)))
        self._report.clipped += int(np.count_nonzero(some & ~inside))
        areas = np.bincount(rings.owners, signs * np.abs(areas_of(rings)), len(nuclei))
        self._crossed += int(np.count_nonzero(some & inside & (np.abs(pixels - areas) > _SHARE_OFF * pixels + 8)))
        um2 = self._project.mpp_um.y * self._project.mpp_um.x
        self._areas_um2.append(float(np.median(pixels)) * um2)
        attributes = np.zeros(len(nuclei), ATTRIBUTES)
        attributes[:] = [self._attributes(found) for found in nuclei]
        if not some.all():
            ranks = np.cumsum(some) - 1
            spans = Spans(ranks[spans.owners].astype(np.int32), spans.rows, spans.starts, spans.stops)
        self._stash.put(spans, attributes[some])

    def _checked(self, rings: Rings, n: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which outlines can be taken, and which lie wholly inside the slide."""
        first = np.searchsorted(rings.owners, np.arange(n))
        low = np.minimum.reduceat(np.minimum.reduceat(rings.points, rings.starts[:-1]), first)
        high = np.maximum.reduceat(np.maximum.reduceat(rings.points, rings.starts[:-1]), first)
        size = np.array([self._limits.width, self._limits.height], np.float64)
        outside = ((high <= 0) | (low >= size)).any(axis=1)
        inside = ((low >= 0) & (high <= size)).all(axis=1)
        large = ~outside & (np.prod(np.clip(high, 0, size) - np.clip(low, 0, size), axis=1) > MOST_NUCLEUS_PX)
        winding = ~outside & ~large & self._is_winding(rings, high - low)
        for reason, which in (("outside", outside), ("too_large", large), ("too_complicated", winding)):
            self._report.leave_out(reason, int(np.count_nonzero(which)))
        good: NDArray[np.bool_] = ~(outside | large | winding)
        return good, np.asarray(inside, np.bool_)

    def _is_winding(self, rings: Rings, sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which shapes have too many crossings; `sizes` are width and height, px."""
        points = np.bincount(rings.owners, np.diff(rings.starts))
        if (points * (np.minimum(sizes[:, 1], self._limits.height) + 1) <= MOST_CROSSINGS).all():
            return np.zeros(len(sizes), np.bool_)
        return crossings_of(rings, self._limits) > MOST_CROSSINGS

    def _attributes(self, found: Found) -> tuple[int, int, float, bool]:
        nucleus, score, approved = attributes_of(found)
        return nucleus, self._class_number(class_of(found.properties)), score, approved

    def _class_number(self, found: NamedClass | None) -> int:
        """Return the number of a class; one that the project does not know gets the next."""
        if found is None:
            return 0
        key = found.name.casefold()
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = max(self._numbers.values(), default=0) + 1
            self._new_classes[number] = found
        return number

    # ------------------------------------------------------------------ regions

    def _take_region(self, found: Found) -> None:
        stated = found.properties.get("metadata")
        facts = stated if isinstance(stated, dict) else {}
        name = found.properties.get("name")
        title = readable(name) if isinstance(name, str) else ""
        role = str(facts.get("role"))
        role = role if role in ROLES else TEACH
        complete, done = (str(facts.get(word)).lower() == "true" for word in ("complete", "done"))
        corner = self.origin.of(found.feature)
        for outer, *holes in found.polygons:
            read = rings_of([[[outer]]])
            if read is None:
                self._report.leave_out("coordinates")
                continue
            # In a project the centre of a pixel is a whole number.
            vertices = near(read[0].points)[:, ::-1] + corner - PIXEL_CENTRE
            if len(vertices) > 1 and (vertices[0] == vertices[-1]).all():
                vertices = vertices[:-1]
            region = AnnotatedRegion(0, title, role, tuple((y, x) for y, x in vertices.tolist()), complete, done)
            if not region.has_area:
                self._report.leave_out("empty")
                continue
            if not self._limits.overlaps(region.box):
                self._report.leave_out("outside")
                continue
            self._holes += bool(holes)
            self._regions.append(region)
            if len(self._regions) > MOST_REGIONS:
                raise ImportFileError(
                    f"The file holds more than {MOST_REGIONS:,} annotations, which would all become regions; so many "
                    "are likely nuclei. Import it with annotations as 'nuclei'."
                )
