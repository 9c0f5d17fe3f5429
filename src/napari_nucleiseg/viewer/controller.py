"""Turns wishes and camera moves into segmentations, and what becomes of them into sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from psygnal import Signal

from napari_nucleiseg.core.errors import NucleiSegError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer import editing, exchange, history, judge_lanes, nuclei_list, plot_lanes, regions, teaching
from napari_nucleiseg.viewer.catalogue import Catalogue
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.display import LOOK, Display
from napari_nucleiseg.viewer.editing import Editing
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.framing import Framing
from napari_nucleiseg.viewer.gestures import Tools
from napari_nucleiseg.viewer.jobs import Cancelled, Jobs
from napari_nucleiseg.viewer.like_lanes import LANES as LIKE
from napari_nucleiseg.viewer.messages import Hint, LicenceQuestion, Question
from napari_nucleiseg.viewer.opened import OpenedSlide
from napari_nucleiseg.viewer.pictures import SlidePictures
from napari_nucleiseg.viewer.segmentation import Wish, recall, wish_of
from napari_nucleiseg.viewer.segmenter import LANE, Segmenter
from napari_nucleiseg.viewer.sentences import NOT_FLAT, OUT_OF_SIGHT, question_after, remembered_hint
from napari_nucleiseg.viewer.shapes import bounds_of, selected_polygon
from napari_nucleiseg.viewer.shelf import Shelf
from napari_nucleiseg.viewer.stack_layers import add_layers, layers_of
from napari_nucleiseg.viewer.taking_over import TakingOver
from napari_nucleiseg.viewer.teaching import Teaching
from napari_nucleiseg.viewer.visible import visible_region

SETTLED_S = 0.08
TURNED_S = 0.2
SOON_S = 0.4
# The window is up by then, and the user is still looking.
IDLE_S = 2.0
# Lanes in which a project is worked on: it is closed after them.
LISTS = (*nuclei_list.LANES, *plot_lanes.LANES, *judge_lanes.LANES, *LIKE, regions.LANE, history.LANE)
WORKING = ("count", "recolour", LOOK, LANE, editing.LANE, *LISTS, exchange.LANE, *teaching.LANES)


class Controller:
    """What happens in one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers and camera are followed.
    session : Session
        What the user wants.
    engine : Engine, optional
        The headless part.
    jobs : Jobs, optional
        Where work runs.

    Notes
    -----
    All methods are for the main thread; all signals are emitted there.
    """

    slide_changed = Signal(object)
    """The `Slide` that is worked on, or None."""
    models_listed = Signal(tuple)
    """Cards of the models that can be used."""
    hint_changed = Signal(Hint)
    question_asked = Signal(object)

    def __init__(self, viewer: Any, session: Session, engine: Engine | None = None, jobs: Jobs | None = None) -> None:
        self._viewer = viewer
        self.session = session
        self._engine = engine or Engine()
        self._jobs = jobs or Jobs()
        self._shelf = Shelf(viewer)
        self.display = Display(viewer, session, self._shelf, self._jobs, self._on_error)
        self.segmenter = Segmenter(self._engine, self._jobs, self.display)
        self.editing = Editing(self._engine, self.display)
        self.tools = Tools(viewer, self.editing)
        self.exchange = exchange.Exchange(self.editing, self.display)
        self.pictures = SlidePictures(self._shelf, self._jobs, self._on_error)
        self.catalogue = Catalogue(self._engine, self._jobs, session, self._on_error)
        self.teaching = Teaching(self._engine, self.editing, self.display)
        self._segments_when_turned = False
        self._unanswered: Callable[[], None] | None = None
        self.taking_over = TakingOver(self._engine, self.display, WORKING, self._resume, self._on_error)
        self._has_scale_bar = False
        self._framing = Framing(viewer)
        camera, size = viewer.scene.camera.events, viewer.canvas.events.size
        moved = [(signal, self._on_view_moved) for signal in (camera.zoom, camera.center, size)]
        self._watching = Connections((size, self._framing.on_canvas_resized), *moved)

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to watch the viewer and the session."""
        self._watching.open()
        wishes = self.session.events
        for wish in (wishes.follow, wishes.tissue_only, wishes.thorough, wishes.attention_level):
            wish.connect(self._on_follow_changed)
        wishes.ignore_brown.connect(self._on_colours_changed)
        wishes.model.connect(self._on_model_changed)
        wishes.threshold.connect(self._on_options_changed)
        wishes.min_area_um2.connect(self._on_options_changed)
        for said in (self.segmenter.hinted, self.editing.hinted, self.exchange.said):
            said.connect(self._on_hinted)
        self.segmenter.failed.connect(self._on_failed)
        self.editing.failed.connect(self._on_edit_failed)
        self.editing.layer_made.connect(self.display.watch_eye)
        self.exchange.failed.connect(self._on_error)
        self.display.tile_done.connect(self.editing.tile_finished)
        self._shelf.switched.connect(self._on_slide_switched)
        self._shelf.removed.connect(self._on_slide_removed)
        self.catalogue.listed.connect(self._on_models_listed)
        self.teaching.adopted.connect(self._on_taught)
        self.catalogue.list()
        self._jobs.later("warm up", IDLE_S, self._on_idle)
        self._shelf.start()

    def close(self) -> None:
        """Stop watching and working; what is done is kept. Does not wait."""
        self._watching.close()
        self.cancel()
        self.exchange.stop()
        self.editing.long_work.stop()
        self.editing.end()
        for opened in self._shelf.close():
            self._jobs.after(opened.close, *WORKING)
        self._jobs.after(self._engine.cool_down, "warm up")
        self._jobs.close()

    def join(self) -> None:
        """Wait for all threads; only after `close`."""
        self._jobs.join()

    def _on_models_listed(self, cards: tuple[Any, ...]) -> None:
        self.models_listed.emit(cards)

    def _on_taught(self, version: Any) -> None:
        """Use a taught model from now on, at once on what is seen."""
        self._segments_when_turned = True
        self.catalogue.take(version)

    def _on_idle(self) -> None:
        self._jobs.start("warm up", self._warm_up)

    def _warm_up(self, _cancelled: Cancelled) -> Iterator[None]:
        self._engine.warm_up()
        yield None

    @property
    def slide(self) -> Slide | None:
        """The slide that the user works on."""
        return self._shelf.now.slide if self._shelf.now else None

    @property
    def is_running(self) -> bool:
        """Whether a segmentation is under way."""
        return self.segmenter.is_running

    @property
    def is_busy(self) -> bool:
        """Whether anything is being worked on, counting included, or is about to be."""
        return not self._jobs.is_settled(SOON_S)

    # ------------------------------------------------------------------ which slide

    def _on_slide_switched(self, opened: OpenedSlide | None) -> None:
        self.cancel()
        self.session.editing, self._unanswered = False, None
        self.slide_changed.emit(self.slide)
        self.display.turn_to_slide()
        self.hint_changed.emit(Hint())
        if opened is not None:
            self._show_scale_bar()
            if len(self._viewer.layers) == 1:
                self._framing.begin()
            self._reopen(opened)

    def _show_scale_bar(self) -> None:
        """Show napari's scale bar with the first slide; afterwards it is the user's."""
        if not self._has_scale_bar:
            self._has_scale_bar = True
            self._viewer.canvas.overlays.scale_bar.visible = True

    def _reopen(self, opened: OpenedSlide) -> None:
        """Look for results of earlier sessions, and for what was said of the pixels then."""
        stated = opened.slide.mpp_um

        def work(_cancelled: Cancelled) -> Iterator[YX | None]:
            yield recall(opened, self._engine, self.session.results_folder)

        def on_recalled(mpp_um: YX | None) -> None:
            if mpp_um is not None and mpp_um != stated:
                self._apply_pixel_size(opened, mpp_um)
                self.hint_changed.emit(remembered_hint(mpp_um, stated))

        self._jobs.start(LANE, work, on_value=on_recalled, on_end=self._on_reopened, on_error=self._on_error)

    def _on_reopened(self) -> None:
        self.display.redraw()
        self._on_view_settled()

    def _on_slide_removed(self, opened: OpenedSlide) -> None:
        if self.segmenter.wish is not None and self.segmenter.wish.opened is opened:
            self.cancel()
        self._jobs.after(opened.close, *WORKING)

    def open_slides(self, paths: Sequence[str]) -> None:
        """Open slides and show each as soon as it is there."""

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            for path in paths:
                yield layers_of(self._engine.open_slide(path))

        self.hint_changed.emit(Hint("Opening…"))
        self._jobs.start("open", work, on_value=self._on_slide_opened, on_error=self._on_error)

    def _on_slide_opened(self, layers: Any) -> None:
        if sentence := add_layers(self._viewer, layers):
            self.hint_changed.emit(Hint(sentence))

    # ------------------------------------------------------------------ answers to questions

    def set_pixel_size(self, mpp_um: YX) -> None:
        """Tell how large the pixels of the slide in hand are, and go on with what waited for it."""
        opened = self._shelf.now
        if opened is None:
            return
        self.cancel()
        self.session.editing = False
        opened.mpp_was_given = True
        project = opened.project
        if project is not None and project.mpp_um != mpp_um:
            # What was found at another size is not true any more; it stays in its folder.
            opened.drop_results(self._viewer)
            self._jobs.after(project.close, *WORKING)
            self.display.forget_count()
        self._apply_pixel_size(opened, mpp_um)
        self._resume()

    def _apply_pixel_size(self, opened: OpenedSlide, mpp_um: YX) -> None:
        opened.hide_heatmap(self._viewer)
        opened.set_pixel_size(mpp_um)
        self._viewer.reset_view()
        if opened is self._shelf.now:
            self.slide_changed.emit(self.slide)

    def use_folder(self, folder: Path) -> None:
        """Keep the results of the slide in hand in `folder`, and go on with what waited for it."""
        if self._shelf.now is not None:
            self._shelf.now.folder = folder
            self._resume()

    def accept_licence(self, question: LicenceQuestion) -> None:
        """Remember that the licence is accepted, and go on with what waited for it."""
        self._engine.accept_licence(question.card)
        self._resume()

    def _resume(self) -> None:
        go_on, self._unanswered = self._unanswered, None
        if go_on is not None:
            go_on()

    # ------------------------------------------------------------------ what the user asks for

    def segment_view(self) -> None:
        """Segment what the canvas shows."""
        region = self._view()
        if region is not None and self._shelf.now is not None:
            self.segmenter.begin(self._wish(self._shelf.now, region))

    def segment_slide(self) -> None:
        """Segment all of the slide."""
        if self._shelf.now is not None:
            self.segmenter.begin(self._wish(self._shelf.now, None))

    def segment_shape(self) -> None:
        """Segment the rectangle or polygon that is selected in a Shapes layer; offer one if there is none."""
        opened = self._shelf.now
        if opened is None:
            return
        polygon, sentence = selected_polygon(self._viewer, opened)
        if polygon is None:
            self.hint_changed.emit(Hint(sentence))
        elif bounds_of(polygon).intersect(opened.slide.content).is_empty:
            self.hint_changed.emit(Hint("The shape lies beside the slide. Draw it on the tissue."))
        else:
            self.segmenter.begin(self._wish(opened, bounds_of(polygon), polygon=polygon))

    def cancel(self) -> None:
        """Stop the running segmentation; finished tiles are kept."""
        self.segmenter.cancel()

    def _view(self) -> Region | None:
        """Return what the canvas shows of the slide, or say why there is nothing."""
        if self._shelf.now is None:
            return None
        region = visible_region(self._viewer, self._shelf.now.layer)
        if region is None or region.is_empty:
            self.hint_changed.emit(Hint(NOT_FLAT if region is None else OUT_OF_SIGHT))
            return None
        return region

    def _wish(self, opened: OpenedSlide, region: Region | None, **more: Any) -> Wish:
        return wish_of(self.session, opened, region, **more)

    # ------------------------------------------------------------------ what went wrong

    def _on_hinted(self, hint: Hint) -> None:
        self.hint_changed.emit(hint)

    def _on_failed(self, wish: Wish, error: BaseException) -> None:
        question = question_after(wish, error, self._engine.models)
        if question is None:
            self._on_error(error)
            return
        self.session.follow = False
        self.ask(question, lambda: self.segmenter.begin(wish))

    def _on_edit_failed(self, error: BaseException) -> None:
        opened = self._shelf.now
        question = None if opened is None else question_after(self._wish(opened, None), error, self._engine.models)
        if question is None:
            self._on_error(error)
        else:
            self.ask(question, lambda: setattr(self.session, "editing", True))

    def ask(self, question: Question, go_on: Callable[[], None]) -> None:
        """Ask the user, and go on with `go_on` once that is answered."""
        self._unanswered = go_on
        self.question_asked.emit(question)

    def _on_error(self, error: BaseException) -> None:
        """Show an error once: ours as a sentence, others with napari's traceback button."""
        from napari.utils.notifications import notification_manager, show_error

        self.session.follow = False
        if isinstance(error, NucleiSegError):
            self.hint_changed.emit(Hint(str(error), is_warning=True))
            show_error(str(error))
        else:
            notification_manager.receive_error(type(error), error, error.__traceback__)

    # ------------------------------------------------------------------ following

    def _on_view_moved(self, _event: Any = None) -> None:
        if self._shelf.now is not None:
            self.display.polygon = None
            self._jobs.later("view", SETTLED_S, self._on_view_settled)

    def _on_view_settled(self) -> None:
        self.display.fit_outlines()
        self.editing.follow()
        if self.session.follow:
            self._follow()
        else:
            self.display.count()
            self.display.look_on()

    def _follow(self) -> None:
        region, opened = self._view(), self._shelf.now
        if region is None or opened is None:
            return
        wish = self._wish(opened, region, limit=self.session.follow_limit)
        if not self.segmenter.does_already(wish):
            self.segmenter.begin(wish)

    def _on_follow_changed(self) -> None:
        if self.session.follow:
            self._follow()
        elif self.segmenter.wish is not None and self.segmenter.wish.limit is not None:
            self.cancel()

    def _on_colours_changed(self) -> None:
        if self.session.follow or (self._shelf.now and self._shelf.now.project is not None):
            self._jobs.later("options", TURNED_S, self._follow)

    def _on_model_changed(self) -> None:
        self.cancel()
        self.catalogue.recommend()
        at_once, self._segments_when_turned = self._segments_when_turned and not self.session.follow, False
        self._jobs.later("options", TURNED_S, self._follow if at_once else self._on_view_settled)

    def _on_options_changed(self) -> None:
        self._jobs.later("options", TURNED_S, self._decode_again)

    def _decode_again(self) -> None:
        """Apply new options to what is in view: from kept maps, or by following."""
        opened = self._shelf.now
        if self.session.follow:
            self._follow()
        elif opened is not None and opened.project is not None:
            region = self._view()
            if region is not None:
                self.segmenter.begin(self._wish(opened, region, again=True))
