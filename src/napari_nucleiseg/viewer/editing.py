"""Correcting nuclei: the paint layer follows the view, and every stroke goes into the project's journal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.lock import user_name
from napari_nucleiseg.viewer import long_edits
from napari_nucleiseg.viewer.display import RECOLOUR_S, Display
from napari_nucleiseg.viewer.edit_run import Edit, Length, Outcome, run_edit
from napari_nucleiseg.viewer.edit_window import COARSEST, EditWindow, Stroke, window_around
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.long_work import LongWork
from napari_nucleiseg.viewer.marks import Marks
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.opened import OpenedSlide
from napari_nucleiseg.viewer.outlines import Ids
from napari_nucleiseg.viewer.paint_layer import see_through_brush
from napari_nucleiseg.viewer.project_view import Pixels, all_said, approved_in, class_list, pixels_of
from napari_nucleiseg.viewer.segmentation import writable_project
from napari_nucleiseg.viewer.visible import visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.edits import Edited
    from napari_nucleiseg.core.store.editor import Changed, Editor
    from napari_nucleiseg.core.store.project import Project

LANE = "edit"
# A bar that would be gone at once is not worth a redraw of the window.
LONG_S = 0.4
TOO_FAR = "Zoom in to correct nuclei."
KINDS = {"paint": "paint", "erase": "erase", "fill": "fill", "polygon": "draw"}


class Editing:
    """What happens while nuclei are corrected in one viewer; all methods are for the main thread.

    Parameters
    ----------
    engine : Engine
        Opens projects.
    display : Display
        Shows the nuclei where they are not painted on; its viewer is painted in, its session says whether and with
        which tool, its shelf on which slide. Writing and reading run in its jobs, in the lane `LANE`, in the order
        they were asked for.
    """

    hinted = Signal(Hint)
    failed = Signal(object)
    """An exception."""
    layer_made = Signal(object)
    """A new `PaintLayer` is in the viewer."""
    edited = Signal()
    """The history, the nuclei or their classes are no longer what they were."""
    picked = Signal(int)
    """The user pointed at this nucleus; 0 is none."""

    def __init__(self, engine: Engine, display: Display) -> None:
        self._engine, self._display, self.jobs = engine, display, display.jobs
        self._viewer, self.session, self._shelf = display.viewer, display.session, display.shelf
        self.window = EditWindow()
        self.long_work = LongWork(self.jobs, LANE)
        """What takes long: very many nuclei, or a long way through the history."""
        self.is_drawing = False
        """Whether the mouse is down: the window then stays where it is."""
        self.opened: OpenedSlide | None = None
        """The slide that is edited."""
        self._reads = 0
        self._hidden = False
        self._marks = Marks(self.session, lambda: self.window.layer, lambda: self._overview)
        self.session.events.editing.connect(self._on_editing_changed)
        self._viewer.layers.events.removed.connect(self._on_layer_removed)

    # ------------------------------------------------------------------ begin and end

    @property
    def project(self) -> Project | None:
        """The project that is edited, once it is open."""
        return None if self.opened is None else self.opened.project

    @property
    def _overview(self) -> Any:
        """The layer of all nuclei; None if there is none."""
        return None if self.opened is None else self.opened.nuclei

    def _on_editing_changed(self, on: bool) -> None:
        if not on:
            self.end()
            return
        opened = self._shelf.now
        if opened is None:
            self.session.editing = False
            return
        self.opened = opened

        def open_it() -> Project:
            opened.slide.require_mpp()
            project = writable_project(opened, self._engine, self.session.results_folder, create=True)
            if project is None:
                raise StoreError("The results of this slide cannot be opened. Close the slide and open it again.")
            project.editor.person = self.session.person or user_name()
            return project

        self.jobs.enqueue(LANE, open_it, on_value=self._on_project_opened, on_error=self._on_failed)

    def _on_project_opened(self, project: Project) -> None:
        if self.project is project and self.session.editing:
            see_through_brush(self._viewer)
            self._display.show()
            self.recolour()
            self.follow()
            self.edited.emit()

    def end(self) -> None:
        """Take the paint layer away and show what the project has; what was drawn last is written."""
        self.commit("paint")
        self._close_window()
        self.opened = None
        if self.session.editing:
            self.session.editing = False

    def _on_failed(self, error: BaseException) -> None:
        self.end()
        self.failed.emit(error)

    def _on_layer_removed(self, event: Any) -> None:
        if self.window.layer is not None and event.value == self.window.layer:
            self.window.close()
            self.is_drawing = False
            self.end()

    # ------------------------------------------------------------------ where the view is

    def follow(self) -> None:
        """Bring the paint layer to the view, or take it away where the view is too far for it."""
        opened, project = self.opened, self.project
        if opened is None or project is None or self.is_drawing:
            return
        view = visible_region(self._viewer, opened.layer)
        if view is None or view.is_empty:
            return
        whole = Region(0, 0, *project.shape)
        too_far = view.height > COARSEST * self._viewer.canvas.size[0]
        wanted = None if too_far else window_around(view, whole)
        if wanted is None:
            self._close_window()
            if not self.session.painting:  # for that one may be farther away
                self.hinted.emit(Hint(TOO_FAR))
        elif not self.window.covers(view):
            self._read(wanted)

    def _read(self, region: Region) -> None:
        project = self.project
        if project is None:
            return
        self._reads = number = self._reads + 1

        def on_value(found: tuple[Pixels, Ids]) -> None:
            if number == self._reads and self.project is project:
                self._open(*found)

        def read() -> tuple[Pixels, Ids]:
            return pixels_of(project, region), approved_in(project, region)

        self.jobs.enqueue(LANE, read, on_value=on_value, on_error=self._on_failed)

    def _open(self, pixels: Pixels, approved: Ids) -> None:
        opened = self.opened
        if opened is None or self.is_drawing:
            return
        self.commit("paint")
        layer = self.window.open(pixels.region, pixels.ids, opened.slide)
        if layer is not None:
            layer.visible = self.session.outlines
            layer.on_undo, layer.on_redo = self.undo, self.redo
            layer.events.paint.connect(self._on_painted)
            opened.edit = layer
            opened.insert_above(self._viewer, layer, opened.nuclei or opened.layer)
            if not str(getattr(self._viewer.layers.selection.active, "mode", "")).startswith("add_"):
                # Who is drawing a region goes on drawing it.
                self._viewer.layers.selection.active = layer
            self.layer_made.emit(layer)
        self._marks.put_approved(approved)
        self._hide_overview()
        self.hinted.emit(Hint())

    def _close_window(self) -> None:
        layer = self.window.close()
        self.is_drawing = False  # a button that is released after its layer has gone tells nobody
        layers = self._viewer.layers
        if layer is not None and layer in layers:
            layers.remove(layer)
        if self.opened is None:
            return
        if layers.selection.active is None and self.opened.layer in layers:
            layers.selection.active = self.opened.layer  # or there are no controls of any layer
        self.opened.edit = None
        if self._hidden and self._overview is not None:
            self._overview.visible = self.session.outlines
        self._hidden = False
        self._display.redraw()

    def _hide_overview(self) -> None:
        """Show the nuclei once: painted on, not below as well."""
        if self._overview is not None and not self._hidden:
            self._hidden = True
            with self._display.eye_closed():
                self._overview.visible = False

    # ------------------------------------------------------------------ what is painted

    def _on_painted(self, _event: Any) -> None:
        layer = self.window.layer
        if layer is not None:
            self.commit(KINDS.get(str(layer.mode), "paint"))

    def change(self, edited: Edited | None, kind: str) -> bool:
        """Do an edit to the window, as one step; return whether there was anything to do."""
        return self.change_all([edited], kind)

    def change_all(self, edits: Iterable[Edited | None], kind: str) -> bool:
        """Do edits to the window, each made after the one before was done, all as one step."""
        layer = self.window.layer
        done = False
        for edited in edits:
            if edited is not None and layer is not None:
                self.window.ids[edited.box.slices] = edited.after
                done = True
        if done and layer is not None:
            layer.refresh(thumbnail=False, extent=False, highlight=False)
            self.commit(kind)
        return done

    def commit(self, kind: str) -> None:
        """Write what was painted since the last time, off the main thread."""
        stroke = None if self.window.layer is None else self.window.take_stroke()
        if stroke is None:
            return

        def paint(editor: Editor) -> Iterable[Changed | None]:
            yield editor.paint(stroke.region, stroke.after, before=stroke.before, kind=kind)

        self.do(paint, on_error=lambda error: self._on_refused(stroke, error))

    def do(
        self,
        edit: Edit,
        length: Length | None = None,
        *,
        on_error: Callable[[BaseException], None] | None = None,
        show: bool = False,
    ) -> None:
        """Change the project off the main thread, then show what became of it.

        Parameters
        ----------
        edit : callable
            Called with the project's `Editor`; returns what changed.
        length : Length, optional
            Of an edit that may take long: how far it is is shown, and it can be stopped.
        on_error : callable, optional
            Told if it failed.
        show : bool
            Whether the view goes where something changed, if that is out of sight.
        """
        project = self.project
        if project is None:
            return
        if length is not None:
            self.long_work.begin(length.title, after_s=LONG_S)

        def on_value(outcome: Outcome) -> None:
            if length is not None:
                self.long_work.end()
            self._on_edited(project, outcome, show=show)

        def on_failure(error: BaseException) -> None:
            if length is not None:
                self.long_work.end()
                self._show_anew(project)
            (on_error or self.failed.emit)(error)

        self.jobs.enqueue(
            LANE,
            lambda: run_edit(project, edit, self.window.region, self.long_work, length),
            on_value=on_value,
            on_error=on_failure,
        )

    def _on_edited(self, project: Project, outcome: Outcome, *, show: bool) -> None:
        if self.project is not project:
            return
        self._marks.change(outcome.said)
        for part in outcome.pixels:
            self._show_pixels(part)
        # What is painted on may have been read before this was done, and be another part of the slide by now.
        for region in outcome.regions if outcome.window != self.window.region else ():
            self.tile_finished(region)
        if outcome.stopped:
            self.hinted.emit(Hint(f"Stopped: {outcome.stopped}."))
        if not outcome.regions:
            return
        if show and not outcome.stopped:
            self._go_to(outcome.regions)
        if self.window.layer is None:
            self._display.redraw()
        self._display.count()
        self.edited.emit()

    def _show_anew(self, project: Project) -> None:
        """Show what there is after a failure: parts of it may have been done."""
        if self.project is project:
            self.tile_finished(self.window.region)
            self.recolour()
            self.edited.emit()

    def _show_pixels(self, part: Pixels) -> None:
        layer = self.window.layer
        if layer is not None and self.window.renew(part.region, part.ids):
            layer.refresh(thumbnail=False, extent=False, highlight=False)

    def _on_refused(self, stroke: Stroke, error: BaseException) -> None:
        """What could not be written is taken back, so that nobody believes it safe."""
        project = self.project
        if project is not None:
            self.jobs.enqueue(
                LANE, lambda: pixels_of(project, stroke.region), on_value=self._show_pixels, on_error=self.failed.emit
            )
        self.failed.emit(error)

    def tile_finished(self, region: Region) -> None:
        """Take over what a model has written below the window."""
        project, seen = self.project, region.intersect(self.window.region)
        if project is not None:
            self.jobs.soon("recolour edited", RECOLOUR_S, self.recolour)
        if project is not None and not seen.is_empty:
            self.jobs.enqueue(LANE, lambda: pixels_of(project, seen), on_value=self._show_pixels)

    # ------------------------------------------------------------------ history

    def undo(self) -> None:
        """Undo the last edit, wherever on the slide it lies."""
        self.commit("paint")
        self.do(*long_edits.turning(back=True), show=True)

    def redo(self) -> None:
        """Do the next edit again."""
        self.do(*long_edits.turning(back=False), show=True)

    def jump(self, step: int) -> None:
        """Go to a step of the history."""
        self.do(*long_edits.jumping(step), show=True)

    def _go_to(self, regions: list[Region]) -> None:
        """Move the view to what changed, unless some of it is seen."""
        opened = self.opened
        view = None if opened is None else visible_region(self._viewer, opened.layer)
        if view is None or any(view.overlaps(region) for region in regions):
            return
        self.go_to(regions[-1].centre)

    def go_to(self, point: tuple[float, float]) -> None:
        """Move the camera to ``(y, x)`` in level-0 pixels."""
        opened = self.opened or self._shelf.now
        if opened is not None:
            world = opened.layer.data_to_world(point)
            self._viewer.scene.camera.center = (*self._viewer.scene.camera.center[:-2], *world[-2:])

    # ------------------------------------------------------------------ rows

    def delete(self, ids: Collection[int], *, kind: str = "delete") -> None:
        """Take nuclei away."""
        self.do(*long_edits.deleting(ids, kind))

    def classify(self, ids: Collection[int], number: int) -> None:
        """Give nuclei a class; 0 takes it from them."""
        self.do(*long_edits.classifying(ids, number))

    def approve(self, ids: Collection[int], *, approved: bool = True) -> None:
        """Mark nuclei as right, or take that back."""
        self.do(*long_edits.reviewing(ids, approved=approved))

    def turns(self) -> tuple[str, str]:
        """Return what undo and redo would turn, in a word each; empty for nothing."""
        return ("", "") if self.project is None else self.project.editor.turns()

    def classes(self) -> list[tuple[int, str, str]]:
        """Return number, name and colour of each class."""
        return class_list(self.project)

    def recolour(self) -> None:
        """Read what was said of all nuclei anew; edits that go through `do` need not."""
        project = self.project
        if project is not None:
            self.jobs.enqueue(LANE, lambda: all_said(project, self.window.region), on_value=self._marks.put)
