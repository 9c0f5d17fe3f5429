"""Runs one segmentation at a time and tells how it goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_nucleiseg.viewer.activity import Activity
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.jobs import Jobs
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.segmentation import Planned, Told, Wish, run
from napari_nucleiseg.viewer.sentences import hint_after, hint_before, tiles_in

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.spec import ModelSpec

LANE = "segment"
PROGRESS_S = 0.2
PREPARING_S = 0.3
LONG_S = 1.0
# A pace is told once so much of it has been seen.
PACE_TILES = 4
PACE_S = 3.0


def titles_of(spec: ModelSpec) -> dict[str, str]:
    """Return the outputs of a model that can be shown, each channel by itself, with their titles.

    A channel goes by its output's name, if there are several with ``:`` and its number from 0 after it.
    """
    found: dict[str, str] = {}
    for head in spec.heads:
        title = head.title or head.name
        if head.shown and head.channels == 1:
            found[head.name] = title
        elif head.shown:
            found |= {f"{head.name}:{channel}": f"{title} {channel + 1}" for channel in range(head.channels)}
    return found


class Segmenter:
    """From a wish to tiles on the screen; a new wish supersedes the one before.

    Parameters
    ----------
    engine : Engine
        The headless part.
    jobs : Jobs
        Where it runs.
    display : Display
        Told of finished tiles.
    """

    progress_changed = Signal(object)
    """`Progress`, or None when nothing runs."""
    outcome_changed = Signal(str)
    """What came of the last segmentation, in a few words."""
    heads_changed = Signal(dict)
    """Outputs of the model that can be shown as heatmaps, with their titles."""
    hinted = Signal(Hint)
    failed = Signal(object, object)
    """The `Wish` and the exception."""

    def __init__(self, engine: Engine, jobs: Jobs, display: Display) -> None:
        self._engine = engine
        self._jobs = jobs
        self._display = display
        self._wish: Wish | None = None
        self._planned: Planned | None = None
        self._activity: Activity | None = None
        self._damage: list[str] = []
        self._began = 0.0
        self._first_tile: tuple[float, int] | None = None
        self._is_prepared = False

    @property
    def is_running(self) -> bool:
        """Whether a segmentation is under way."""
        return self._jobs.is_running(LANE)

    @property
    def wish(self) -> Wish | None:
        """What is being done, if anything is."""
        return self._wish if self.is_running else None

    def begin(self, wish: Wish) -> None:
        """Do what `wish` says, in place of what is being done."""
        self._end_progress()
        self._wish, self._planned, self._first_tile = wish, None, None
        self._is_prepared = False
        self._damage.clear()
        self._display.polygon = None
        self.outcome_changed.emit("")
        self._jobs.later("preparing", PREPARING_S, lambda: self._show_preparing(wish))
        self._jobs.start(
            LANE,
            lambda cancelled: run(wish, self._engine, cancelled),
            title=wish.title,
            on_value=lambda step: self._on_step(wish, step),
            on_end=lambda: self._on_ended(wish),
            on_error=lambda error: self._on_failed(wish, error),
            on_late_value=lambda step: self._on_late_step(wish, step),
        )

    def _show_preparing(self, wish: Wish) -> None:
        # It may have been due before a step arrived, and come after it.
        if wish is self.wish and self._planned is None and not self._is_prepared:
            self.progress_changed.emit(Progress("Preparing"))

    def cancel(self) -> None:
        """Stop; finished tiles are kept."""
        if self._jobs.cancel(LANE) and self._planned is not None:
            self.outcome_changed.emit("Stopped; finished tiles are kept")
        self._end_progress()

    def does_already(self, wish: Wish) -> bool:
        """Whether what is being done is the very tiles of `wish`, the same way: then it should go on."""
        now, planned = self.wish, self._planned
        if now is None or planned is None or now.region is None or wish.region is None:
            return False
        if now.polygon is not None or now.again or not now.is_like(wish):
            return False
        grid = planned.plan.grid
        return np.array_equal(grid.indices_in(now.region), grid.indices_in(wish.region))

    def _on_step(self, wish: Wish, step: Any) -> None:
        if isinstance(step, Planned):
            self._on_planned(wish, step)
        elif isinstance(step, Progress):
            self._is_prepared = True
            self._jobs.forget("preparing")
            self.progress_changed.emit(step)
        elif isinstance(step, Told):
            self.hinted.emit(Hint(step.sentence, is_warning=True))
        else:
            if step.reason:
                self._damage.append(step.reason)
            self._first_tile = self._first_tile or (time.monotonic(), step.done)
            self._jobs.soon("progress", PROGRESS_S, lambda: self._show_progress(wish, step.done, step.total))
            self._display.tile_finished(step.region)

    def _on_late_step(self, wish: Wish, step: Any) -> None:
        """Tell of a tile that was written as the run was stopped: nobody writes it again."""
        if not isinstance(step, Planned | Progress | Told) and wish.opened is self._display.shelf.now:
            self._display.tile_finished(step.region)

    def _on_planned(self, wish: Wish, planned: Planned) -> None:
        opened, total = wish.opened, len(planned.plan)
        self._planned = planned
        opened.plan, opened.done_key = planned.plan, (planned.model.version, planned.key)
        opened.model = wish.model
        opened.head_titles = titles_of(planned.model.spec)
        self.heads_changed.emit(opened.head_titles)
        self.hinted.emit(hint_before(wish, planned))
        if planned.todo and not planned.too_many:
            self._began = time.monotonic()
            self._show_progress(wish, total - planned.todo, total)
            # A bar that would be gone at once is not worth a redraw of the window.
            self._jobs.later("activity", LONG_S, lambda: self._show_activity(wish, total))
        self._display.show()
        self._display.count()

    def _show_progress(self, wish: Wish, done: int, total: int) -> None:
        if wish is not self.wish:
            return
        self.progress_changed.emit(Progress(wish.title, done, total, self._left_s(done, total)))
        if self._activity is not None:
            self._activity.show(done)

    def _left_s(self, done: int, total: int) -> float | None:
        """Return how many seconds are left at the pace since the first tile; None if it is too early to tell."""
        if self._first_tile is None:
            return None
        seconds, tiles = time.monotonic() - self._first_tile[0], done - self._first_tile[1]
        return seconds / tiles * (total - done) if tiles >= PACE_TILES and seconds >= PACE_S else None

    def _show_activity(self, wish: Wish, total: int) -> None:
        if wish is self.wish and self._activity is None:
            self._activity = Activity("Nuclei", total, self.cancel)

    def _end_progress(self) -> None:
        for key in ("preparing", "progress", "activity"):
            self._jobs.forget(key)
        if self._activity is not None:
            self._activity.close()
            self._activity = None
        self.progress_changed.emit(None)

    def _on_ended(self, wish: Wish) -> None:
        todo = 0 if self._planned is None or self._planned.too_many else self._planned.todo
        if self._planned is not None and len(self._planned.plan) and not self._planned.todo:
            self.outcome_changed.emit("All tiles were done before")
        if todo:
            seconds = time.monotonic() - self._began
            self.outcome_changed.emit(tiles_in(todo, seconds))
        self._end_progress()
        self._display.polygon = wish.polygon
        self._display.redraw()
        self._display.count()
        self._display.show_heatmap()
        if self._damage:
            self.hinted.emit(hint_after(self._damage))

    def _on_failed(self, wish: Wish, error: BaseException) -> None:
        if wish is self._wish and not self.is_running:
            self._end_progress()
            self._display.redraw()
            self._display.count()
        self.failed.emit(wish, error)
