"""Score the nuclei of a slide's project against a reference, block by block: no slide ever lies in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.batch.class_agreement import class_scores, confusion_of
from napari_nucleiseg.core.batch.judged_side import Side
from napari_nucleiseg.core.edits.rasters import inside_polygon
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.evaluation.agreement import best_partners
from napari_nucleiseg.core.evaluation.contours import outline_distances
from napari_nucleiseg.core.evaluation.kinds import Kinds, judged
from napari_nucleiseg.core.evaluation.overlaps import OverlapCounter, Overlaps
from napari_nucleiseg.core.evaluation.scores import ImageScores, table_scores
from napari_nucleiseg.core.evaluation.slide_report import JudgedNuclei, PartScores, SlideReport, Verdicts
from napari_nucleiseg.core.exchange.reference import Reference
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.regions import HOLD_OUT, REFERENCE, AnnotatedRegion, read_regions

BLOCK_PX = 2048
TOTAL = "total"
RegionChoice = Literal["all", "reference", "holdout", "none"]
_ROLES = {"reference": REFERENCE, "holdout": HOLD_OUT}
# Called with what is under way, parts done and parts in all.
StageProgress = Callable[[str, int, int], None]

Mask = NDArray[np.bool_]


def no_stage_progress(_stage: str, _done: int, _total: int) -> None:
    """Ignore the progress of an evaluation."""


def regions_to_evaluate(
    project: Project, reference: Reference, choice: RegionChoice | None = None
) -> tuple[AnnotatedRegion, ...]:
    """Return the regions that are to be evaluated; empty for all of the slide.

    Parameters
    ----------
    project : Project
        Whose annotated regions are chosen from; where it has none of those, the reference's.
    reference : Reference
        May have regions, too.
    choice : {"all", "reference", "holdout", "none"}, optional
        Which regions, by their role; ``none`` is all of the slide. Default those of the reference: nothing is said of
        what lies outside of them; all of the slide if it has none.

    Raises
    ------
    DataError
        If there are none.
    """
    if choice == "none":
        return ()
    stated = read_regions(reference.project.ledger.reader)
    if choice is None:
        return stated
    role = _ROLES.get(choice)
    for regions in (read_regions(project.ledger.reader), stated):
        chosen = tuple(region for region in regions if role in {None, region.role})
        if chosen:
            return chosen
    kind = "annotated region" if role is None else f"region for “{role}”"
    raise DataError(
        f"Neither {project.slide_name} nor {reference.name} has any {kind}. Outline one, or evaluate all of the slide."
    )


def evaluate_slide(
    project: Project,
    reference: Reference,
    *,
    regions: Sequence[AnnotatedRegion] = (),
    distances: bool = True,
    block_px: int = BLOCK_PX,
    on_progress: StageProgress = no_stage_progress,
) -> SlideReport:
    """Score a project's nuclei against a reference.

    Nuclei are never cut: one belongs to a region if its centroid lies inside, and is then counted with all its pixels.
    Only where a nucleus that was found agrees with one of the reference by more than half (IoU), it belongs where that
    one does, so that no pair is parted by the border of a region. How the slide is cut into blocks changes nothing.

    Parameters
    ----------
    project : Project
        What was found.
    reference : Reference
        What is right.
    regions : sequence of AnnotatedRegion
        What is evaluated, see `regions_to_evaluate`; empty is all of the slide.
    distances : bool
        Whether to compute the average Hausdorff distance, which takes most of the time.
    block_px : int
        Side of the blocks, level-0 pixels.
    on_progress : callable
        Called with what is under way, parts done and in all. May raise to stop.

    Returns
    -------
    SlideReport
        All scores, and what each nucleus is.
    """
    sides = Side(reference.project), Side(project)
    for side in sides:
        side.take(regions)
    table = _counted(sides, block_px, on_progress)
    members = [_members(table, sides, region) for region in regions]
    whole, *parts = (_part(table, member) for member in (_union(members, table), *members))
    measured = _distances(table, sides, (whole, *parts), block_px, on_progress) if distances else None
    kinds = judged(whole.table)
    everywhere = _spread(whole, kinds)
    total, *found = (_scored(part, everywhere, measured) for part in (whole, *parts))
    classes, compared = class_scores(whole.table, sides)
    return SlideReport(
        slide=project.slide_name,
        reference=reference.name,
        total=PartScores(TOTAL, "", *total),
        regions=tuple(PartScores(one.name, one.role, *scored) for one, scored in zip(regions, found, strict=True)),
        classes=classes,
        confusion=confusion_of(whole.table, sides),
        are_classes_compared=compared,
        notes=reference.notes,
        truth=JudgedNuclei(whole.table.truth_ids, kinds[0]),
        pred=JudgedNuclei(whole.table.pred_ids, kinds[1]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What belongs to a part of the slide.

    Parameters
    ----------
    members : tuple of ndarray of bool, shape (n,) and (m,)
        Which true and which predicted nuclei of the whole table.
    table : Overlaps
        Of these only.
    rows : ndarray of int64
        Rows of the whole table, for each true nucleus that has one that of its best partner.
    """

    members: tuple[Mask, Mask]
    table: Overlaps
    rows: NDArray[np.int64]


def _counted(sides: tuple[Side, Side], block_px: int, on_progress: StageProgress) -> Overlaps:
    """Count the overlaps of all nuclei that were taken, and whole, of all that touch them."""
    counter, seen = OverlapCounter(), np.zeros_like(sides[0].blocks(block_px))
    for _ in range(2):
        # What is seen in the first round may reach into blocks that were not wanted before.
        wanted = (sides[0].blocks(block_px) | sides[1].blocks(block_px)) & ~seen
        seen |= wanted
        places = np.argwhere(wanted).tolist()
        for done, (row, column) in enumerate(places):
            on_progress("counting", done, len(places))
            block = Region(row * block_px, column * block_px, block_px, block_px).intersect(sides[0].whole)
            counter.add(*(side.read(block) for side in sides))
        table = counter.table()
        for side, ids in zip(sides, (table.truth_ids, table.pred_ids), strict=True):
            side.learn(ids)
    on_progress("counting", 1, 1)
    return table


def _members(table: Overlaps, sides: tuple[Side, Side], region: AnnotatedRegion) -> tuple[Mask, Mask]:
    """Return which nuclei belong to a region."""
    truth = inside_polygon(sides[0].centroids_of(table.truth_ids), region.polygon)
    pred = inside_polygon(sides[1].centroids_of(table.pred_ids), region.polygon)
    found = table.ious > 0.5
    pred[table.pred_index[found]] = truth[table.truth_index[found]]
    return truth, pred


def _union(members: Sequence[tuple[Mask, Mask]], table: Overlaps) -> tuple[Mask, Mask]:
    """Return which nuclei belong to any region; all, if there is none."""
    if not members:
        return np.ones(table.truth_count, np.bool_), np.ones(table.pred_count, np.bool_)
    truth, pred = (np.logical_or.reduce(side) for side in zip(*members, strict=True))
    return truth, pred


def _part(table: Overlaps, members: tuple[Mask, Mask]) -> _Part:
    smaller, rows = table.only(*members)
    return _Part(members, smaller, rows[best_partners(smaller)])


def _distances(
    table: Overlaps, sides: tuple[Side, Side], parts: Sequence[_Part], block_px: int, on_progress: StageProgress
) -> NDArray[np.float64]:
    """Return the distance of the outlines of each pair of the table that some part needs, px; NaN of others."""
    found = np.full(len(table.truth_index), np.nan)
    rows = np.unique(np.concatenate([part.rows for part in parts]))
    if not len(rows):
        return found
    pairs = table.truth_ids[table.truth_index[rows]], table.pred_ids[table.pred_index[rows]]
    boxes = [side.boxes_of(ids) for side, ids in zip(sides, pairs, strict=True)]
    places = boxes[0][:, :2] // block_px
    _, group = np.unique(places, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group.ravel()[order])) + 1)
    for done, chosen in enumerate(groups):
        on_progress("measuring", done, len(groups))
        around = Region.enclosing(np.concatenate([side[chosen] for side in boxes])).intersect(sides[0].whole)
        truth, pred = (side.read(around) for side in sides)
        found[rows[chosen]] = outline_distances(truth, pred, pairs[0][chosen], pairs[1][chosen])
    on_progress("measuring", len(groups), len(groups))
    return found


def _spread(part: _Part, kinds: tuple[Kinds, Kinds]) -> tuple[Kinds, Kinds]:
    """Return the kinds of a part's nuclei among all nuclei, 0 for others."""
    truth, pred = (np.zeros(len(members), np.uint8) for members in part.members)
    truth[part.members[0]], pred[part.members[1]] = kinds
    return truth, pred


def _scored(
    part: _Part, kinds: tuple[Kinds, Kinds], measured: NDArray[np.float64] | None
) -> tuple[ImageScores, Verdicts]:
    scores = table_scores(part.table)
    if measured is not None:
        empty = 0.0 if part.table.both_empty else float("nan")
        scores = replace(scores, ahd=float(measured[part.rows].mean()) if len(part.rows) else empty)
    truth, pred = (side[members] for side, members in zip(kinds, part.members, strict=True))
    return scores, Verdicts.count(truth, pred)
