"""What a slide's nuclei are compared with: another project, or a file that becomes a project for the moment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from napari_nucleiseg.core.errors import DataError, ImportFileError
from napari_nucleiseg.core.exchange.imports import import_nuclei
from napari_nucleiseg.core.exchange.objects import Annotations
from napari_nucleiseg.core.exchange.report import ImportProgress, ImportReport, no_import_progress
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.fingerprint import is_same
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.about import NO_CORNER
from napari_nucleiseg.core.store.project import DATABASE, Project

AS_NUCLEI = "The annotations of the file were taken as nuclei, for it holds no others."


def _nothing() -> None:
    """Clear nothing away."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Nuclei of a slide that are taken to be right; use `open_reference`, and `close` it or use it in a ``with``.

    Parameters
    ----------
    path : Path
        The file or folder, which nothing may be written over.
    project : Project
        Its nuclei, classes and regions; only to be read.
    notes : tuple of str
        What of the file was not taken as it stands, and why, each a sentence.
    """

    path: Path
    project: Project
    notes: tuple[str, ...] = ()
    _clear_away: Callable[[], None] = field(default=_nothing, repr=False)

    @property
    def name(self) -> str:
        """Name of the file or folder."""
        return self.path.name

    def close(self) -> None:
        """Let go of the nuclei; what was read of a file is gone."""
        self.project.close()
        self._clear_away()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_reference(
    path: str | os.PathLike[str],
    project: Project,
    *,
    annotations: Annotations | None = None,
    on_progress: ImportProgress = no_import_progress,
) -> Reference:
    """Open what a project's nuclei are to be compared with.

    A file is read into a project in the system's folder for temporary files: memory does not grow with it. Where its
    outlines lie over each other a pixel belongs to the first, and a nucleus that has more than half of its pixels under
    others is left out.

    Parameters
    ----------
    path : path
        QuPath GeoJSON, a label image of the slide's size (TIFF, folder of an OME-Zarr), or the folder of a project.
    project : Project
        Of the slide.
    annotations : {"regions", "nuclei"}, optional
        What annotations of a GeoJSON file are; default regions if the file holds other nuclei, else nuclei.
    on_progress : callable
        Called with what is under way, parts done and in all. May raise to stop.

    Returns
    -------
    Reference
        Open until `Reference.close`.

    Raises
    ------
    DataError
        If it holds no nuclei, or is of another slide.
    ImportFileError
        If the file cannot be read or does not fit the slide.
    StoreError
        If a project cannot be opened, or there is no room for a temporary one.
    """
    where = Path(path)
    if (where / DATABASE).is_file():
        found = _of_project(where, project)
    elif annotations is not None:
        found = _of_file(where, project, annotations, on_progress)[0]
    else:
        found = _of_any_file(where, project, on_progress)
    if not found.project.census.total():
        found.close()
        raise DataError(f"{where.name} holds no nuclei of this slide to compare with. {' '.join(found.notes)}".strip())
    return found


def _of_project(folder: Path, project: Project) -> Reference:
    if folder.absolute() == project.folder:
        raise DataError(f"{folder} is the project itself. Choose another reference, or it agrees with itself.")
    other = Project.open(folder, writable=False)
    same_slide = not (other.fingerprint and project.fingerprint) or is_same(other.fingerprint, project.fingerprint)
    if not same_slide or other.shape != project.shape:
        sentence = (
            f"{folder} belongs to another slide ({other.slide_name}, {other.shape[1]:,} x {other.shape[0]:,} px), "
            f"not to {project.slide_name}. Choose a reference of this slide."
        )
        other.close()
        raise DataError(sentence)
    return Reference(folder, other)


def _of_any_file(path: Path, project: Project, on_progress: ImportProgress) -> Reference:
    """Read a file whose annotations may be regions or nuclei."""
    try:
        found, report = _of_file(path, project, "regions", on_progress)
    except ImportFileError as error:
        # So many annotations are no regions; what fails again fails for another reason.
        try:
            found, _ = _of_file(path, project, "nuclei", on_progress)
        except ImportFileError:
            raise error from None
        return replace(found, notes=(AS_NUCLEI, *found.notes))
    if report.nuclei or not report.regions:
        return found
    found.close()
    found, _ = _of_file(path, project, "nuclei", on_progress)
    return replace(found, notes=(AS_NUCLEI, *found.notes))


def _of_file(
    path: Path, project: Project, annotations: Annotations, on_progress: ImportProgress
) -> tuple[Reference, ImportReport]:
    folder = tempfile.TemporaryDirectory(prefix="nucleiseg-reference-", ignore_cleanup_errors=True)
    try:
        made = Project.create(Path(folder.name) / "reference.nucleiseg", _blank(project))
    except BaseException:
        folder.cleanup()
        raise
    try:
        report = import_nuclei(made, path, annotations=annotations, foreign_ids=True, on_progress=on_progress)
        made.flush()
    except BaseException:
        made.close()
        folder.cleanup()
        raise
    return Reference(path, made, _notes(report), folder.cleanup), report


def _notes(report: ImportReport) -> tuple[str, ...]:
    """Return what was not taken as it stands; ids and new classes of a reference are nobody's."""
    others = {reason: number for reason, number in report.left_out.items() if reason != "there_already"}
    _, *notes = replace(report, nuclei=0, overlapped=0, new_classes=(), left_out=others).sentences
    if report.overlapped:
        gone = report.left_out.get("there_already", 0)
        rest = f"; left out as hidden by more than half: {gone:,}" if gone else ""
        told = f"Nuclei of the reference that lie over others, whose pixels stay with the first: {report.overlapped:,}"
        notes.insert(0, f"{told}{rest}.")
    return tuple(notes)


def _blank(project: Project) -> Slide:
    """Return a slide of the same size, and with pixels from the same place on, without a picture."""
    white = np.broadcast_to(np.uint8(255), (*project.shape, 3))
    bounds = None
    if project.corner != NO_CORNER:
        bounds = Region.from_bounds(int(project.corner.y), int(project.corner.x), *project.shape)
    return Slide(
        project.slide_name,
        (white,),
        (YX(1.0, 1.0),),
        project.mpp_um,
        bounds=bounds,
        fingerprint=project.fingerprint,
    )
