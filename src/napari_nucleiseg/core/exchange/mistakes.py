"""The nuclei that are wrong by a reference as QuPath GeoJSON: the mistake is their class."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.evaluation.kinds import Kind
from napari_nucleiseg.core.evaluation.slide_report import JudgedNuclei, SlideReport
from napari_nucleiseg.core.exchange.geojson import write_sources
from napari_nucleiseg.core.exchange.reference import Reference
from napari_nucleiseg.core.exchange.source import (
    LabelSource,
    NamedClass,
    Progress,
    no_progress,
    rows_of,
    source_of_project,
)
from napari_nucleiseg.core.exchange.whole_file import check_target
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.nuclei import NucleiTable
from napari_nucleiseg.core.store.project import Project

# Of which side nuclei of a kind are shown: what is missed only the reference has, else what is to be mended.
OF_REFERENCE, OF_FOUND = (Kind.MISSED,), (Kind.ADDED, Kind.SPLIT, Kind.MERGED)
MISTAKES: Mapping[int, NamedClass] = {
    int(Kind.MISSED): NamedClass("Missed", "#ff3b30"),
    int(Kind.ADDED): NamedClass("Added", "#2fd35f"),
    int(Kind.SPLIT): NamedClass("Split", "#2f8bff"),
    int(Kind.MERGED): NamedClass("Merged", "#ffd60a"),
}


def write_mistakes(
    project: Project,
    reference: Reference,
    report: SlideReport,
    path: str | os.PathLike[str],
    *,
    on_progress: Progress = no_progress,
) -> int:
    """Write the nuclei that are wrong as a FeatureCollection that QuPath opens by drag and drop.

    Nuclei that were added, that are pieces of one of the reference (split), or that are several of the reference
    (merged) have their own outline; those that were missed that of the reference.

    Parameters
    ----------
    project : Project
        That was evaluated.
    reference : Reference
        With what; still open.
    report : SlideReport
        Of these two.
    path : path
        File to write; replaced only when it is complete.
    on_progress : callable
        Called with blocks done and in all, first of the reference.

    Returns
    -------
    int
        Number of nuclei written.

    Raises
    ------
    ExportError
        If the file cannot be written, or is the slide, the reference or a part of a project.
    """
    check_target(path, project.fingerprint, [reference.path])
    sources = (
        _only_wrong(reference.project, report.truth, OF_REFERENCE, "reference"),
        _only_wrong(project, report.pred, OF_FOUND, "found"),
    )
    # Where the slide's pixels begin is the project's to say: a reference may have been made without the slide.
    in_place = [replace(source, corner=project.corner) for source in sources]
    return write_sources(in_place, path, on_progress=on_progress)


def _only_wrong(project: Project, judged: JudgedNuclei, kinds: tuple[Kind, ...], side: str) -> LabelSource:
    """Return the nuclei of some kinds, the kind in place of the class."""
    source = source_of_project(project)
    chosen = np.isin(judged.kinds, np.array(kinds, np.uint8))
    ids, codes = judged.ids[chosen], judged.kinds[chosen]

    def nuclei_in(region: Region) -> NucleiTable:
        table = source.nuclei_in(region)
        table = rows_of(table, np.isin(table.ids, ids))
        places: NDArray[np.int64] = np.searchsorted(ids, table.ids)
        return replace(table, classes=codes[places].astype(np.int32))

    # Both sides may have the same ids, but no two objects of a file may be the same to QuPath.
    identity = f"{source.fingerprint or source.name}/{side}"
    return replace(source, nuclei_in=nuclei_in, fingerprint=identity, classes=MISTAKES, regions=())
