"""How far an unattended run is as a whole, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from napari_nucleiseg.core.batch.unattended.database import DONE, FAILED, RUNNING
from napari_nucleiseg.viewer.batch_queue import ENCODING, MEASURING, PREPARING, SEGMENTING, WRITING, Row

# A pace is told once so much of it has been seen.
PACE_S = 3.0
# How long stages take beside each other, roughly; what is not asked for takes no time.
_EFFORT = {
    PREPARING: 3.0,
    SEGMENTING: 100.0,
    MEASURING: 25.0,
    ENCODING: 60.0,
    WRITING: 4.0,
}


@dataclass(frozen=True, slots=True)
class Overall:
    """How far a run is.

    Parameters
    ----------
    done, failed, slides : int
        Counts of slides.
    share : float
        Of all the work, 0..1.
    left_s : float or None
        Seconds that the rest will take at the present pace; None where that is not known yet.
    """

    done: int
    failed: int
    slides: int
    share: float
    left_s: float | None


class Pace:
    """Watches one run; pauses do not count.

    Parameters
    ----------
    measures, encodes : bool
        Whether nuclei are measured, and slides described by an encoder.
    now : callable
        The time in seconds.
    """

    def __init__(self, *, measures: bool, encodes: bool, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        left_out = {*(() if measures else (MEASURING,)), *(() if encodes else (ENCODING,))}
        effort = {stage: cost for stage, cost in _EFFORT.items() if stage not in left_out}
        total, before = sum(effort.values()), 0.0
        self._spans: dict[str, tuple[float, float]] = {}
        for stage, cost in effort.items():
            self._spans[stage] = before / total, cost / total
            before += cost
        self._tiles: dict[str, int] = {}
        # How far a slide was when this run came to it: earlier runs have taken that time.
        self._from: dict[str, float] = {}
        self._began = now()
        self._paused_at: float | None = None

    def pause(self) -> None:
        """From now on nothing is done."""
        self._paused_at = self._paused_at or self._now()

    def go_on(self) -> None:
        """It goes on."""
        if self._paused_at is not None:
            self._began += self._now() - self._paused_at
            self._paused_at = None

    def overall(self, rows: Iterable[Row]) -> Overall:
        """Return how far all slides are together; slides count by their tiles as far as these are known."""
        listed = tuple(rows)
        for row in listed:
            self._note(row)
        known = [tiles for row in listed if (tiles := self._tiles.get(row.path) or row.tiles)]
        usual = sum(known) / len(known) if known else 1.0
        whole = done = worked = 0.0
        for row in listed:
            weight = float(self._tiles.get(row.path) or row.tiles or usual)
            share = self._share(row)
            whole += weight
            done += weight * share
            if row.path in self._from:
                worked += weight * (share - self._from[row.path])
        took = (self._paused_at or self._now()) - self._began
        left_s = took / worked * (whole - done) if worked > 0 and took >= PACE_S else None
        return Overall(
            sum(row.state == DONE for row in listed),
            sum(row.state == FAILED for row in listed),
            len(listed),
            round(done / whole, 12) if whole else 0.0,  # sums of floats differ in their last digit
            left_s,
        )

    def _note(self, row: Row) -> None:
        if row.state != RUNNING:
            return
        if row.stage == SEGMENTING and row.path not in self._tiles and row.parts:
            self._tiles[row.path] = row.parts
            self._from[row.path] = self._share(row)

    def _share(self, row: Row) -> float:
        if row.state in {DONE, FAILED}:
            return 1.0
        if row.state != RUNNING:
            return 0.0
        begins, span = self._spans.get(row.stage, (0.0, 0.0))
        return begins + span * row.part / max(1, row.parts)
