"""By text: nuclei in view are scored by words, coloured by what they are most like, and get classes if one agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, MissingPixelSizeError, NucleiSegError
from napari_nucleiseg.core.fewshot.text_options import BACKGROUND, TextOptions, prompts_of
from napari_nucleiseg.viewer import like_lanes as lanes
from napari_nucleiseg.viewer.by_text_accept import NEW_CLASS, NO_CLASS, Taken, Told, accept
from napari_nucleiseg.viewer.by_text_engine import ByTextEngine, Scored
from napari_nucleiseg.viewer.by_text_layer import ByTextLayer, words_colour
from napari_nucleiseg.viewer.by_text_wishes import NO_CLIP, ByTextWishes
from napari_nucleiseg.viewer.clip_download import ClipDownload
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.editing import LANE as EDIT
from napari_nucleiseg.viewer.given_anew import if_given_anew
from napari_nucleiseg.viewer.messages import Hint, LicenceQuestion, PixelSizeQuestion, Progress
from napari_nucleiseg.viewer.project_view import class_list
from napari_nucleiseg.viewer.sentences import OUT_OF_SIGHT, sentence_of
from napari_nucleiseg.viewer.shapes import selected_polygon
from napari_nucleiseg.viewer.visible import visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.geometry import Region
    from napari_nucleiseg.core.store.editor import Changed, Editor
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.viewer.jobs import Cancelled
    from napari_nucleiseg.viewer.opened import OpenedSlide

TITLE = "Scoring nuclei"
LOADING = "Loading the weights"
NO_SLIDE = "Open a slide first: its nuclei are scored."
TWO_DIMENSIONS = "Switch to the two-dimensional view (Ctrl+Y) to score nuclei."
NO_WEIGHTS = "Get weights first: press “Get weights” and choose some."
STOPPED = "Stopped. Nothing was scored."
FOUND_ANEW = "The nuclei were found anew, so their scores are gone. Score them again."
NOTHING = "No nucleus is to get a class: lower the score, or choose classes in the list."


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of one class of words.

    Parameters
    ----------
    name : str
        Of the class of words.
    colour : str
        ``#rrggbb`` on the slide.
    nuclei : int
        That are most like it, with a score that is high enough.
    """

    name: str
    colour: str
    nuclei: int


class ByText:
    """What is scored by words in one viewer; all methods are for the main thread.

    Parameters
    ----------
    controller : Controller
        Knows the viewer, the slide in hand and the jobs, and writes.
    engine : ByTextEngine
        The headless part.
    """

    clips_listed = Signal(dict)
    """Weights that can be chosen, by path, with titles."""
    scored = Signal()
    """Other nuclei are scored, or none any more; or others count as what they are like."""
    progress_changed = Signal(object)
    """`Progress` while nuclei are scored, then None."""
    busy_changed = Signal(bool)
    """Classes are being written, or no longer."""
    said = Signal(Hint)

    def __init__(self, controller: Controller, engine: ByTextEngine) -> None:
        display = controller.display
        self.wishes, self.engine, self.controller = ByTextWishes(), engine, controller
        self._viewer, self._jobs = display.viewer, display.jobs
        self._shelf, self._session = display.shelf, display.session
        self._layer = ByTextLayer(display.viewer)
        self.download = ClipDownload(controller, engine)
        self.missing = ""
        """What to install first, as a sentence; empty where all is there."""
        self.clips: dict[str, str] = {}
        """Weights that can be chosen, by path, with titles."""
        self.found: Scored | None = None
        self.classes_wanted: dict[str, int] = {}
        """Of each class of words the class that nuclei get; `NO_CLASS` for none, `NEW_CLASS` for one of that name."""
        self.is_busy = False
        self._named: dict[str, str] = {}
        self._opened: OpenedSlide | None = None
        self._is_shown = False
        # Also while it is put aside: what is kept must be of the nuclei that there are.
        heeded = (controller.slide_changed, self._on_slide_changed), (display.tile_done, self._on_tile_done)
        self._heeding = Connections(*heeded)
        self.wishes.events.threshold.connect(self._show)
        self.download.done.connect(self._on_downloaded)
        self.download.said.connect(self.said)

    # ------------------------------------------------------------------ life

    def open(self) -> None:
        """Begin to heed what happens, and list the weights."""
        self._heeding.open()
        if not self._is_shown:
            self._is_shown = True
            self.list_clips()
            self._show()

    def put_aside(self) -> None:
        """Show nothing on the slide; what was scored is kept."""
        if self._is_shown:
            self._is_shown = False
            self._layer.hide()

    def close(self) -> None:
        """Close for good."""
        self.put_aside()
        self._heeding.close()
        self.download.stop()
        self._jobs.cancel(lanes.TEXT)
        self.engine.forget()

    @property
    def is_running(self) -> bool:
        """Whether nuclei are being scored."""
        return self._jobs.is_running(lanes.TEXT)

    # ------------------------------------------------------------------ weights

    def list_clips(self) -> None:
        """Look up which weights are here."""

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield self.engine.missing(), self.engine.clips()

        self._jobs.start(lanes.CLIPS, work, on_value=self._on_clips_listed, on_error=self._on_failed)

    def _on_clips_listed(self, value: tuple[str, dict[str, str]]) -> None:
        self.missing, found = value
        self.clips = {**found, **self._named}
        if self.wishes.clip not in self.clips:
            self.wishes.clip = next(iter(self.clips), NO_CLIP)
        self.clips_listed.emit(self.clips)

    def use_clip(self, path: str) -> None:
        """Use weights in a folder or file of the user's."""
        self._named[path] = Path(path).name
        self.wishes.clip = path
        self.list_clips()

    def _on_downloaded(self, folder: str, digest: str) -> None:
        self.wishes.clip = folder
        self.list_clips()
        self.said.emit(Hint(f"The weights are here. Their SHA-256, which is checked from now on: {digest}"))

    # ------------------------------------------------------------------ scoring

    def view(self) -> None:
        """Score the nuclei that the canvas shows."""
        opened = self._shelf.now
        region = None if opened is None else visible_region(self._viewer, opened.layer)
        if opened is None:
            self._warn(NO_SLIDE)
        elif region is None:
            self._warn(TWO_DIMENSIONS)
        elif region.is_empty:
            self._warn(OUT_OF_SIGHT)
        else:
            self._begin(opened, _corners(region), self.view)

    def shape(self) -> None:
        """Score the nuclei in the selected shape or annotated region; offer to draw one if there is none."""
        opened = self._shelf.now
        if opened is None:
            self._warn(NO_SLIDE)
            return
        polygon, sentence = selected_polygon(self._viewer, opened)
        if polygon is None:
            self.said.emit(Hint(sentence))
        else:
            self._begin(opened, polygon, self.shape)

    def stop(self) -> None:
        """Stop what is being scored or downloaded."""
        self.download.stop()
        if self._jobs.cancel(lanes.TEXT):
            self.progress_changed.emit(None)
            self.said.emit(Hint(STOPPED))

    def clear(self) -> None:
        """Forget the scores; classes that were given stay."""
        if self._jobs.cancel(lanes.TEXT):
            self.progress_changed.emit(None)
        self._layer.hide()
        self.found, self._opened = None, None
        self.scored.emit()

    def _begin(self, opened: OpenedSlide, polygon: NDArray[np.float64], again: Callable[[], None]) -> None:
        wishes, device = self.wishes, self._session.device
        if self.is_busy or self.download.is_running:
            return
        try:
            prompts = prompts_of(wishes.prompts)
        except NucleiSegError as error:
            self._warn(sentence_of(error))
            return
        if self.missing or wishes.clip == NO_CLIP:
            self._warn(self.missing or NO_WEIGHTS)
            return
        self.clear()
        background = tuple(part.strip() for part in wishes.background.split(";"))
        options, clip, engine = TextOptions(background=background), wishes.clip, self.engine

        def work(cancelled: Cancelled) -> Iterator[Any]:
            look = engine.look(opened, polygon)
            yield Progress(LOADING)
            loaded = engine.load(clip)
            if cancelled():
                return
            yield Progress(TITLE, 0, len(look))
            with closing(engine.score(look, prompts, loaded, options, device)) as steps:  # type: ignore[type-var]
                for step in steps:
                    if cancelled():
                        return
                    yield Progress(TITLE, step.done, step.total)
                    if step.scores is not None:
                        yield Scored(look, step.scores)

        self._opened = opened
        self.said.emit(Hint())
        self.progress_changed.emit(Progress(LOADING))
        self._jobs.start(
            lanes.TEXT,
            work,
            title=TITLE,
            on_value=self._on_value,
            on_end=lambda: self.progress_changed.emit(None),
            on_error=lambda error: self._on_failed(error, again),
            on_late_error=lambda error: self._warn(sentence_of(error)),
        )

    def _on_value(self, value: Progress | Scored) -> None:
        if isinstance(value, Progress):
            self.progress_changed.emit(value)
            return
        self.found = value
        there = {name.casefold(): number for number, name, _colour in self.classes()}
        self.classes_wanted = {
            name: there.get(name.casefold(), NEW_CLASS) for name in value.scores.classes if name != BACKGROUND
        }
        self._show()

    def _on_failed(self, error: BaseException, again: Callable[[], None] | None = None) -> None:
        self.progress_changed.emit(None)
        if not isinstance(error, NucleiSegError):
            raise error
        self._warn(sentence_of(error))
        if isinstance(error, MissingPixelSizeError) and again is not None and self._opened is not None:
            self.controller.ask(PixelSizeQuestion(self._opened.slide), again)
        elif isinstance(error, LicenceNotAcceptedError) and again is not None:
            self.controller.ask(LicenceQuestion(self.engine.card(self.wishes.clip)), again)

    # ------------------------------------------------------------------ what was found

    def numbers(self) -> NDArray[np.uint8]:
        """Return of each number of the nuclei that were scored its row from 1 on; 0 for none, shape (n + 1,)."""
        if self.found is None:
            return np.zeros(1, np.uint8)
        scores = self.found.scores
        best = scores.best
        is_sure = scores.scores[np.arange(len(scores)), best] >= self.wishes.threshold
        is_class = np.array([name != BACKGROUND for name in scores.classes])[best]
        return np.concatenate(([0], np.where(is_sure & is_class, best + 1, 0))).astype(np.uint8)

    def rows(self) -> list[Row]:
        """Return what was found of each class of words, in the order of the words."""
        numbers = self.numbers()
        return [
            Row(name, words_colour(place), int(np.count_nonzero(numbers == place + 1)))
            for place, name in enumerate(self.classes_wanted if self.found is not None else ())
        ]

    def classes(self) -> list[tuple[int, str, str]]:
        """Return number, name and colour of each class of the slide; none before there are results."""
        now = self._shelf.now
        return class_list(None if now is None else now.project)

    def want_class(self, name: str, number: int) -> None:
        """Say which class the nuclei get that are most like some words."""
        self.classes_wanted[name] = number
        self.scored.emit()

    def taken(self) -> list[Taken]:
        """Return which nuclei get which class, as it is wanted now; none for nuclei that are like nothing."""
        if self.found is None:
            return []
        numbers, ids = self.numbers(), self.found.look.ids
        wanted = [
            Taken(row.name, row.colour, self.classes_wanted[row.name], tuple(ids[numbers == place].tolist()))
            for place, row in enumerate(self.rows(), start=1)
        ]
        return [one for one in wanted if one.ids and one.number != NO_CLASS]

    def _show(self, _threshold: float = 0.0) -> None:
        if self.found is not None and self._opened is not None and self._is_shown:
            colours = tuple(row.colour for row in self.rows())
            self._layer.show(self._opened, self.found.look, self.numbers(), colours)
        self.scored.emit()

    # ------------------------------------------------------------------ accepting

    def accept(self) -> None:
        """Give the nuclei the classes of the list, as a step that can be undone; correcting begins with it."""
        taken, opened, editing = self.taken(), self._opened, self.controller.editing
        if self.is_busy:
            return
        if not taken or opened is None:
            self._warn(NOTHING)
            return
        self._set_busy(on=True)
        # What is taken belongs to a person from now on, and can be undone while nuclei are corrected.
        self._session.editing = True
        # The project is open after what is under way in this lane.
        editing.jobs.enqueue(EDIT, lambda: None, on_value=lambda _: self._write(opened, taken))

    def _write(self, opened: OpenedSlide, taken: list[Taken]) -> None:
        editing, told = self.controller.editing, Told()
        project = editing.project
        if project is None or editing.opened is not opened:
            # Why it could not be opened was said.
            self._set_busy(on=False)
            return

        def edit(_editor: Editor) -> Iterator[Changed | None]:
            return accept(project, taken, told)

        def on_error(error: BaseException) -> None:
            self._set_busy(on=False)
            editing.failed.emit(error)

        editing.do(edit, on_error=on_error)
        editing.jobs.enqueue(EDIT, lambda: None, on_value=lambda _: self._on_written(told))

    def _on_written(self, told: Told) -> None:
        if not self.is_busy:
            return
        self._set_busy(on=False)
        self.clear()
        made = f", {told.classes} {'class is' if told.classes == 1 else 'classes are'} new" if told.classes else ""
        said = f"{told.nuclei:,} {'nucleus has' if told.nuclei == 1 else 'nuclei have'} another class now{made}."
        self.said.emit(Hint(f"{said} Ctrl+Z undoes it." if told.nuclei else "All of them have these classes already."))

    def _set_busy(self, *, on: bool) -> None:
        self.is_busy = on
        self.busy_changed.emit(on)

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_slide_changed(self, _slide: Any) -> None:
        """Another slide is in hand, or its pixels have another size: the scores are not those of its nuclei."""
        if self._opened is not None:
            self.clear()
            self.said.emit(Hint())

    def _on_tile_done(self, region: Region) -> None:
        """A model has written where nuclei were scored: if it found them anew, the scores are others'."""
        found, opened = self.found, self._opened
        project = None if opened is None else opened.project
        if found is not None and project is not None and found.look.region.overlaps(region):
            if_given_anew(self._jobs, project, region, found.look.ids, lambda: self._on_given_anew(found))

    def _on_given_anew(self, found: Scored) -> None:
        if self.found is found and not self.is_busy:
            self.clear()
            self._warn(FOUND_ANEW)

    def _warn(self, sentence: str) -> None:
        self.said.emit(Hint(sentence, is_warning=True))


def _corners(region: Region) -> NDArray[np.float64]:
    """Return the corners ``(y, x)`` of a region as a polygon."""
    y0, x0, y1, x1 = region.y, region.x, region.y1, region.x1
    return np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)], np.float64)
