"""Heads joined to nuclei: which heads look there, what each nucleus is looked at, and the way to it; seeds for more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_nucleiseg.core.errors import DataError, NucleiSegError
from napari_nucleiseg.state import LAST_LAYER, PATCHES, REGION_LEVEL
from napari_nucleiseg.viewer.heads import Heads
from napari_nucleiseg.viewer.heads_lanes import MEASURING, RANKING, SEEDING
from napari_nucleiseg.viewer.heads_layer import made_layer
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.layers import OWNER, ROLE, placement, slide_name
from napari_nucleiseg.viewer.marker import Marker, fly_to
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.sentences import sentence_of

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.per_nucleus import NucleiAttention
    from napari_nucleiseg.core.attention.ranking import HeadScore
    from napari_nucleiseg.core.attention.shown import ShownMap
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.viewer.heads_engine import Looks

SETTLED_S = 0.15
LOOK_FIRST = "Look at the view first."
NO_PROJECT = "There are no nuclei here to rank heads against. Segment the view first (“View” in the Nuclei panel)."
SEED_COLOUR = "#00e5ff"
# So much of the map lies below the seeds.
PERCENTILE = 75.0


class HeadsNuclei:
    """What the heads of one viewer have to do with its nuclei; all methods are for the main thread.

    Parameters
    ----------
    heads : Heads
        What was looked at.
    """

    ranked = Signal(object)
    """Scores of all heads (tuple of `HeadScore`), best first; empty where nothing is known."""
    measured_changed = Signal()
    """The attention of nuclei is known anew, or not any more."""

    def __init__(self, heads: Heads) -> None:
        self._heads, self._viewer, self._jobs = heads, heads.viewer, heads.jobs
        self.marker = Marker(heads.viewer, "nucleus by attention")
        self.scores: tuple[HeadScore, ...] = ()
        self.measured: NucleiAttention | None = None
        self.of_region = False
        """Whether the heads that were ranked are those of the region."""
        self._order: list[int] = []
        self._at: dict[bool, int] = {}
        self._layer: Any = None
        self._seeds: Any = None
        self._is_coloured = False
        self._goes: bool | None = None
        """Whether to go to the most (or least) attended nucleus as soon as it is known; None goes nowhere."""
        heads.looked.connect(self._on_looked)
        heads.shown_changed.connect(self._on_shown_changed)

    def close(self) -> None:
        """Take the layers away."""
        self._heads.looked.disconnect(self._on_looked)
        self._heads.shown_changed.disconnect(self._on_shown_changed)
        self.marker.hide()
        self._remove("_layer")
        self._remove("_seeds")

    # ------------------------------------------------------------------ ranking

    def rank(self) -> None:
        """Rank all heads of the level against the nuclei of what was looked at."""
        known = self._known()
        if known is None:
            return
        looks, project = known
        of_region = self._heads.wishes.level == REGION_LEVEL

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield self._heads.engine.rank(project, looks, region=of_region)

        def on_value(scores: tuple[HeadScore, ...]) -> None:
            self.scores, self.of_region = scores, of_region
            self._heads.said.emit(Hint(self._sentence()))
            self.ranked.emit(scores)

        self._start(RANKING, work, on_value)

    def _known(self) -> tuple[Looks, Project] | None:
        """Return what was looked at, and the project with its nuclei; None, and a sentence, if there is neither."""
        looks, opened = self._heads.looks, self._heads.opened
        if looks is None or opened is None or not looks.looks:
            self._warn(LOOK_FIRST)
        elif opened.project is None:
            self._warn(NO_PROJECT)
        else:
            return looks, opened.project
        return None

    def _sentence(self) -> str:
        best = self.scores[0]
        what = "where nuclei are densest" if self.of_region else "nuclei"
        return (
            f"Head {best.head + 1} of layer {best.layer + 1} tells {what} from the rest best (AUROC {best.auroc:.2f}; "
            f"0.5 is chance). {best.attention.nuclei:.0%} of its attention lies there, {best.uniform.nuclei:.0%} "
            "would by chance."
        )

    def show(self, score: HeadScore) -> None:
        """Show the head of a row."""
        wishes, looks = self._heads.wishes, self._heads.looks
        if looks is None:
            return
        region = looks.looks[0].region
        depth = len(region.attention) if self.of_region and region is not None else looks.looking.encoder.spec.depth
        layer = LAST_LAYER if score.layer == depth - 1 else score.layer
        if self.of_region:
            wishes.region_layer, wishes.region_head = layer, str(score.head)
            if wishes.level == PATCHES:
                wishes.level = REGION_LEVEL
        else:
            wishes.layer, wishes.head = layer, str(score.head)
            if wishes.level == REGION_LEVEL:
                wishes.level = PATCHES

    # ------------------------------------------------------------------ nuclei

    def measure(self, *, quiet: bool = False) -> None:
        """Measure how much the map that is shown lies on each nucleus of what was looked at.

        Parameters
        ----------
        quiet : bool
            Whether nobody asked for it, so that nothing is said where there is nothing to measure.
        """
        shown = self._heads.shown
        if shown is None:
            self._warn(LOOK_FIRST)
            return
        known = self._known()
        if known is None:
            return
        looks, project = known
        paints = self._is_coloured

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            measured = self._heads.engine.measure(project, looks, shown)
            yield measured, self._heads.engine.paint(project, looks, measured) if paints else None

        def on_error(error: BaseException) -> None:
            # What is known belongs to another map, or to another view.
            self.measured, self._order, self._goes = None, [], None
            self.measured_changed.emit()
            if not (quiet and isinstance(error, DataError)):
                self._on_failed(error)

        self._jobs.start(MEASURING, work, on_value=lambda found: self._on_measured(*found), on_error=on_error)

    def _on_measured(self, measured: NucleiAttention, picture: ShownMap | None) -> None:
        self.measured = measured
        known = np.flatnonzero(~np.isnan(measured.means))
        self._order = measured.ids[known[np.argsort(-measured.means[known], kind="stable")]].tolist()
        self._at = {}
        if picture is not None:
            self._show_picture(picture)
        self.measured_changed.emit()
        goes, self._goes = self._goes, None
        if goes is not None and self._order:
            self.go(most=goes)

    def colour(self, *, on: bool) -> None:
        """Colour the nuclei by their attention, or no longer."""
        self._is_coloured = on
        if on:
            self.measure()
        else:
            self._remove("_layer")

    def _show_picture(self, picture: ShownMap) -> None:
        opened = self._heads.opened
        self._remove("_layer")
        if opened is not None:
            name = f"{slide_name(opened.slide)} nuclei by attention"
            self._layer = made_layer(opened, picture, name, 0.85, "turbo")
            opened.insert_above(self._viewer, self._layer, self._heads.layer.layer or opened.layer)

    def go(self, *, most: bool) -> None:
        """Go to the nucleus that is attended to most (or least), then to the next one."""
        opened = self._heads.opened
        if self.measured is None or opened is None or opened.project is None or not self._order:
            self.measure()
            self._goes = most if self._jobs.is_running(MEASURING) else None
            return
        project = opened.project
        place = self._at[most] = (self._at.get(most, -1) + 1) % len(self._order)
        nucleus = self._order[place if most else -1 - place]
        value = float(self.measured.means[np.searchsorted(self.measured.ids, nucleus)])

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            from napari_nucleiseg.core.store.listing import entries_of

            yield entries_of(project.ledger.reader, [nucleus]).get(nucleus)

        def on_value(entry: Any) -> None:
            if entry is not None and self._heads.opened is opened:
                fly_to(self._viewer, opened, entry.box)
                self.marker.show(opened, entry.box)
                which = "most" if most else "least"
                where = f"number {place + 1} of {len(self._order)} from the {which} attended"
                self._heads.said.emit(Hint(f"Nucleus {nucleus}: {where}, {value:.3g}."))

        self._start(MEASURING, work, on_value)

    # ------------------------------------------------------------------ seeds

    def seed(self) -> None:
        """Put points where the map that is shown is highest: a prior for nuclei."""
        opened, shown = self._heads.opened, self._heads.shown
        if opened is None or shown is None:
            self._warn(LOOK_FIRST)
            return

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield self._heads.engine.seeds(shown, opened.slide, PERCENTILE)

        self._start(SEEDING, work, self._on_seeds)

    def _on_seeds(self, points: Any) -> None:
        from napari.layers import Points

        opened = self._heads.opened
        if opened is None:
            return
        self._remove("_seeds")
        mpp = opened.slide.mpp_um
        self._seeds = Points(
            points,
            name=f"{slide_name(opened.slide)} seeds",
            size=4.0 / (mpp.x if mpp else 1.0),
            face_color=SEED_COLOUR,
            border_color="black",
            metadata={OWNER: opened.slide.fingerprint, ROLE: "head seeds"},
            **placement(mpp),
        )
        opened.insert_above(self._viewer, self._seeds, self._viewer.layers[-1])
        self._heads.said.emit(
            Hint(f"{len(points):,} seeds where the map is in its highest quarter. Move, add or delete them as points.")
        )

    @property
    def seeds(self) -> Any:
        """The points, ``(n, 2)`` level-0 pixels, as the user has left them; empty without any."""
        layer = self._seeds
        return np.zeros((0, 2)) if layer is None or layer not in self._viewer.layers else np.asarray(layer.data)

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_looked(self) -> None:
        if self._heads.looks is None:
            for lane in (RANKING, MEASURING, SEEDING):  # their answers would be of what is gone
                self._jobs.cancel(lane)
                self._jobs.forget(lane)
            self.measured, self.scores, self._order, self._goes = None, (), [], None
            self.marker.hide()
            self._remove("_layer")
            self._remove("_seeds")
            self.ranked.emit(())
            self.measured_changed.emit()

    def _on_shown_changed(self) -> None:
        """Another map gives other values to nuclei that are coloured, or listed with theirs."""
        if (self.measured is not None or self._is_coloured) and self._heads.shown is not None:
            self._jobs.later(MEASURING, SETTLED_S, self.measure)

    def _start(self, lane: str, work: Callable[[Cancelled], Iterator[Any]], on_value: Callable[[Any], None]) -> None:
        self._jobs.start(lane, work, on_value=on_value, on_error=self._on_failed)

    def _on_failed(self, error: BaseException) -> None:
        if not isinstance(error, NucleiSegError):
            raise error
        self._warn(sentence_of(error))

    def _remove(self, name: str) -> None:
        layer = getattr(self, name)
        setattr(self, name, None)
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _warn(self, sentence: str) -> None:
        self._heads.said.emit(Hint(sentence, is_warning=True))
