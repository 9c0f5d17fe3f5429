"""Find the like: marks on the slide, and everything similar in view is proposed, chosen from and accepted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.viewer import like_lanes as lanes
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.like_accepting import LikeAccepting
from napari_nucleiseg.viewer.like_engine import Found, LikeEngine, Look, lies_in, options_of
from napari_nucleiseg.viewer.like_layers import CHOSEN_NUMBER, HEATMAP, OUTLINES, LikeLayers, shades_of
from napari_nucleiseg.viewer.like_marks import SlideMark
from napari_nucleiseg.viewer.like_pointing import LikePointing
from napari_nucleiseg.viewer.like_view import TITLE, LikeView
from napari_nucleiseg.viewer.like_wishes import CHOOSE, LIKE, OFF, LikeWishes
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.project_view import class_list

if TYPE_CHECKING:
    from napari_nucleiseg.core.fewshot.kept import KeptMark
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.viewer.jobs import Cancelled
    from napari_nucleiseg.viewer.opened import OpenedSlide

TURNED_S = 0.15
Numbers = NDArray[np.int32]


class Like:
    """What is marked and proposed in one viewer; all methods are for the main thread.

    Parameters
    ----------
    controller : Controller
        Knows the viewer, the slide in hand, the jobs and the models.
    engine : LikeEngine
        The headless part.

    Notes
    -----
    It looks at views only between `open` and `close`; marks stay as long as their slide is in hand.
    """

    marks_changed = Signal()
    proposed = Signal()
    """Other nuclei are proposed, or chosen among them."""
    sources_listed = Signal(dict)
    """What can be compared by, with titles."""
    said = Signal(Hint)

    def __init__(self, controller: Controller, engine: LikeEngine) -> None:
        display = controller.display
        self.wishes, self.controller = LikeWishes(), controller
        self._jobs, self._shelf = display.jobs, display.shelf
        self.layers = LikeLayers(display.viewer)
        self.view = LikeView(controller, engine, self.wishes)
        self.accepting = LikeAccepting(self, controller)
        self.pointing = LikePointing(display.viewer, display.shelf, display.session, self.wishes)
        self.marks: tuple[SlideMark, ...] = ()
        self.chosen: set[int] = set()
        """Proposals that were clicked, by number in the candidates of `found`."""
        self.found: Found | None = None
        """What is like the marks, whatever the threshold."""
        self.made: set[int] = set()
        """Ids of nuclei that were accepted without a class: they are not proposed again."""
        self._kept: dict[tuple[str, int], KeptMark] = {}
        self._marked_on: OpenedSlide | None = None
        self._slide_um: YX | None = None
        self._count = 0
        self._is_told = False
        self._connections = Connections(
            (controller.slide_changed, self._on_slide_changed),
            (controller.models_listed, self._list_sources),
            (self.view.changed, self.find),
            (self.view.moved, self._show),
            (self.pointing.clicked, self._on_clicked),
            (self.pointing.drawn, self._on_drawn),
            (self.pointing.drawing, self._on_drawing),
        )
        self.view.said.connect(self.said)
        events = self.wishes.events
        for name in ("method", "background", "distractors", "kernels", "whole"):
            getattr(events, name).connect(self._on_method_changed)
        events.threshold.connect(self._on_threshold_changed)
        events.automatic.connect(self._on_automatic_changed)
        events.number.connect(self._on_number_changed)
        events.heatmap.connect(self._on_heatmap_changed)

    # ------------------------------------------------------------------ life

    def open(self) -> None:
        """Begin to look at views."""
        if not self._connections.is_open:
            self._connections.open()
            self.view.open()
            self._take_slide()
            self._list_sources()
            if self.view.opened is not None:
                self.layers.show_marks(self.view.opened, self.marks)
            self.view.refresh()

    def close(self) -> None:
        """Cease to look; what was marked stays, and nothing of it is seen."""
        if self._connections.is_open:
            self.wishes.hand = OFF
            self._connections.close()
            self._jobs.cancel(lanes.FIND)
            self._jobs.forget(lanes.FIND)
            self.view.close()
            self._set_found(None)
            self.layers.hide()

    def end(self) -> None:
        """Close for good."""
        self.close()
        self.pointing.close()

    def classes(self) -> list[tuple[int, str, str]]:
        """Return number, name and colour of each class of the slide; none before there are results."""
        return class_list(None if self.view.opened is None else self.view.opened.project)

    # ------------------------------------------------------------------ marks

    def mark(self, outline_px: NDArray[np.float64], *, is_like: bool) -> None:
        """Mark a nucleus by a point, or a region by its corners.

        Parameters
        ----------
        outline_px : ndarray of float, shape (n, 2)
            ``(y, x)`` level-0 pixels measured from the corner of the first one; one row is a point.
        is_like : bool
            Whether such are looked for.
        """
        opened = self.view.opened
        if opened is None or opened.slide.mpp_um is None:
            return
        self._count += 1
        shape = opened.slide.shape
        outline = np.clip(outline_px, 0, np.array(shape) - 0.01) * np.array(opened.slide.mpp_um)
        seen_in = self.view.seen or Region(0, 0, *shape)
        self._set_marks((*self.marks, SlideMark(self._count, is_like, outline, seen_in)))

    def remove(self, number: int) -> None:
        """Take a mark away."""
        self._set_marks(tuple(mark for mark in self.marks if mark.number != number))

    def turn(self, number: int) -> None:
        """Let a mark count for the other side."""
        self._set_marks(tuple(mark.turned() if mark.number == number else mark for mark in self.marks))

    def clear(self) -> None:
        """Take all marks and proposals away."""
        self._set_marks(())
        self.said.emit(Hint())

    def _set_marks(self, marks: tuple[SlideMark, ...]) -> None:
        self.marks = marks
        sides = {mark.number: mark.is_like for mark in marks}
        self._kept = {key: replace(one, is_like=sides[key[1]]) for key, one in self._kept.items() if key[1] in sides}
        if self.view.opened is not None:
            self.layers.show_marks(self.view.opened, marks)
        self.marks_changed.emit()
        self.find()

    def _on_clicked(self, y: float, x: float) -> None:
        if self.wishes.hand == CHOOSE:
            self.toggle(self.number_at(y, x))
        else:
            self.mark(np.array([[y, x]]), is_like=self.wishes.hand == LIKE)

    def _on_drawn(self, corners: NDArray[np.float64]) -> None:
        self.mark(corners, is_like=self.wishes.hand == LIKE)

    def _on_drawing(self, corners: NDArray[np.float64]) -> None:
        if self.view.opened is not None:
            self.layers.show_path(self.view.opened, corners)

    # ------------------------------------------------------------------ finding

    def find(self) -> None:
        """Find what is like the marks in the view that was looked at."""
        look, candidates = self.view.look, self.view.candidates
        if look is None or candidates is None or not any(mark.is_like for mark in self.marks):
            self._jobs.cancel(lanes.FIND)
            self._set_found(None)
            return
        here = [mark for mark in self.marks if lies_in(mark, look.frame)]
        away = [mark for mark in self.marks if not lies_in(mark, look.frame)]
        kept = {mark.number: self._kept.get((look.source, mark.number)) for mark in away}
        options, wish, source, engine = options_of(self.wishes), self.view.wish, self.wishes.source, self.view.engine

        def work(cancelled: Cancelled) -> Iterator[Any]:
            for mark in away:
                if kept[mark.number] is None:
                    # It was made by other features: the view that it was made in is looked at again.
                    there = yield from engine.look(wish, source, mark.seen_in, cancelled)
                    if cancelled():
                        return
                    found = engine.keep(there, engine.candidates(wish, there), [mark], options)
                    kept[mark.number] = found.get(mark.number)
                    yield there, found
            known = [one for one in kept.values() if one is not None]
            if not cancelled():
                yield engine.find(look, candidates, here, known, options)

        self._jobs.start(
            lanes.FIND,
            work,
            title=TITLE,
            on_value=self._on_value,
            on_error=self.view.on_failed,
            on_late_error=self.view.on_late_error,
        )

    def _on_value(self, value: Any) -> None:
        if isinstance(value, Found):
            self._remember(value.look, value.kept)
            self._set_found(value)
        elif isinstance(value, tuple):
            self._remember(*value)

    def _remember(self, look: Look, kept: dict[int, KeptMark]) -> None:
        sides = {mark.number: mark.is_like for mark in self.marks}
        for number, one in kept.items():
            if number in sides:
                self._kept[look.source, number] = replace(one, is_like=sides[number])

    def _set_found(self, found: Found | None) -> None:
        before, self.found = self.found, found
        if before is None or found is None:
            self.chosen.clear()
        elif found.candidates is not before.candidates:
            # Nuclei have come or gone, and all have other numbers.
            places = before.candidates.centroids[sorted(self.chosen)].tolist()
            self.chosen = {self.number_at(y + 0.5, x + 0.5) for y, x in places} - {0}
        if found is None:
            self.layers.hide(OUTLINES, HEATMAP)
        elif self.wishes.automatic:
            self._tell_threshold()
        self._show()
        self._on_heatmap_changed()

    # ------------------------------------------------------------------ proposals

    def number_at(self, y: float, x: float) -> int:
        """Return the candidate at a level-0 place, measured from corners; 0 where there is none."""
        candidates = None if self.found is None else self.found.candidates
        if candidates is None or not candidates.region.contains_point(y, x):
            return 0
        return int(candidates.labels[int(y) - candidates.region.y, int(x) - candidates.region.x])

    def toggle(self, number: int) -> None:
        """Choose a proposal, or no longer."""
        if number in self.proposals().tolist():
            self.chosen ^= {number}
            self._show()

    @property
    def threshold(self) -> float:
        """The similarity that must be exceeded: what was found, or what the user wants."""
        if self.wishes.automatic and self.found is not None:
            return self.found.proposals.threshold
        return self.wishes.threshold

    def proposals(self) -> Numbers:
        """Return what is proposed in the view now, the most similar first; numbers of the candidates of `found`."""
        found = self.found
        if found is None:
            return np.zeros(0, np.int32)
        numbers, candidates, view = found.proposals.above(self.threshold), found.candidates, self.view.seen
        keep = np.ones(len(candidates.ids), np.bool_) if view is None else candidates.within(view)
        if self.wishes.number:
            # They have the class already.
            keep &= (candidates.ids == 0) | (candidates.classes != self.wishes.number)
        else:
            keep &= ~np.isin(candidates.ids, np.array(sorted(self.made), np.uint32))
        wanted: Numbers = numbers[keep[numbers]]
        return wanted

    def known(self) -> list[int]:
        """Return the ids of the proposals that are nuclei already, ascending."""
        if self.found is None:
            return []
        ids = self.found.candidates.ids[self.proposals()]
        return [int(number) for number in np.unique(ids[ids > 0])]

    def _show(self) -> None:
        opened, found = self.view.opened, self.found
        if opened is not None and found is not None:
            numbers = self.proposals()
            self.chosen &= set(numbers.tolist())
            scores = np.zeros(len(found.candidates) + 1, np.float32)
            scores[found.proposals.all_ids] = found.proposals.all_scores
            shades = np.zeros(len(scores), np.uint8)
            shades[numbers] = shades_of(scores[numbers], self.threshold)
            shades[sorted(self.chosen)] = CHOSEN_NUMBER
            self.layers.show(opened, found.candidates, shades)
        self.proposed.emit()

    def _on_heatmap_changed(self, _on: bool = False) -> None:
        found, opened = self.found, self.view.opened
        if self.wishes.heatmap and found is not None and opened is not None:
            self.layers.show_heatmap(opened, found.look.frame, found.proposals.likeness)
        else:
            self.layers.hide(HEATMAP)

    def _on_threshold_changed(self, _threshold: float) -> None:
        if not self._is_told:
            self.wishes.automatic = False
            self._show()

    def _on_automatic_changed(self, on: bool) -> None:
        if on:
            self._tell_threshold()
            self._show()

    def _tell_threshold(self) -> None:
        """Let the slider show what was found; that is no wish of the user's."""
        self._is_told = True
        try:
            self.wishes.threshold = round(self.threshold, 2)
        finally:
            self._is_told = False

    def _on_number_changed(self, _number: int) -> None:
        self._show()

    def _on_method_changed(self, _value: Any) -> None:
        self._jobs.later(lanes.FIND, TURNED_S, self.find)

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_slide_changed(self, _slide: Any) -> None:
        self._take_slide()
        self.view.refresh()

    def _take_slide(self) -> None:
        """Take the slide in hand; marks of another one, or made at another pixel size, are dropped."""
        opened = self._shelf.now
        size = None if opened is None else opened.slide.mpp_um
        is_same = opened is self._marked_on and size == self._slide_um
        if is_same and opened is self.view.opened:
            return
        self.layers.hide()
        self.view.take(opened)
        if not is_same:
            self._marked_on, self._slide_um = opened, size
            self.made.clear()
            self._set_marks(())

    def _list_sources(self, _cards: Any = None) -> None:
        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield self.view.engine.sources()

        self._jobs.start(lanes.SOURCES, work, on_value=self.sources_listed.emit, on_error=self.view.on_failed)
