"""Painting where a model should look: the paint layer follows the view, and every stroke goes into the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.attention import attention_levels, paint_attention, read_attention
from napari_nucleiseg.state import ATTENTION, DO_NOT, ERASE, LOOK, NETWORKS
from napari_nucleiseg.viewer.attention_layer import LABELS, attention_overview, attention_paint_layer
from napari_nucleiseg.viewer.catalogue import Catalogue
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.edit_window import EditWindow, window_around
from napari_nucleiseg.viewer.editing import LANE, Editing
from napari_nucleiseg.viewer.gestures import RELEASED_S
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.opened import OpenedSlide
from napari_nucleiseg.viewer.segmenter import Segmenter
from napari_nucleiseg.viewer.visible import visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.editor import Changed
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.viewer.outlines import Ids

# After the nuclei have followed, whose paint layer comes and goes with the view as well.
SETTLED_S = 0.12
FOLLOW = "attention view"
TOO_FAR = "Zoom in to paint attention."


class AttentionPainting:
    """What happens while attention is painted in one viewer; all methods are for the main thread.

    It is a part of correcting: the project is the one that is open for it, and both share one history.

    Parameters
    ----------
    editing : Editing
        Opens the project, undoes and redoes.
    segmenter : Segmenter
        Tells which outputs the model in hand has.
    display : Display
        Knows viewer, session, slide in hand and jobs; reading and writing run in the lane of correcting.
    catalogue : Catalogue
        Knows which network the model in hand is, before it has looked at anything.
    """

    offered = Signal(bool)
    """Whether the model in hand can be shown where to look."""
    awaited = Signal(bool)
    """Whether it has not looked at the slide in hand yet, so that there is no heatmap to paint on."""

    def __init__(self, editing: Editing, segmenter: Segmenter, display: Display, catalogue: Catalogue) -> None:
        self._editing, self._shelf, self._jobs = editing, display.shelf, display.jobs
        self._viewer, self._session = display.viewer, display.session
        self.window = EditWindow(attention_paint_layer)
        self.is_drawing = False
        """Whether the mouse is down: the window then stays where it is."""
        self._opened: OpenedSlide | None = None
        self._project: Project | None = None
        self._overview: Any = None
        self._catalogue = catalogue
        self._attends: dict[str, bool] = {}
        self._for_heads = False
        self._reads = self._unwritten = 0
        self._began_correcting = False
        camera = self._viewer.scene.camera.events
        wishes = self._session.events
        self._connections = Connections(
            (wishes.painting, self._on_painting_changed),
            (wishes.editing, self._on_editing_changed),
            (wishes.brush, self._on_brush_changed),
            (wishes.model, self._offer),
            (segmenter.heads_changed, self._on_heads_changed),
            (self._shelf.switched, self._offer),
            (catalogue.listed, self._offer),
            (editing.edited, self._on_edited),
            (editing.layer_made, self._on_nuclei_layer_made),
            (camera.zoom, self._on_view_moved),
            (camera.center, self._on_view_moved),
            (self._viewer.canvas.events.size, self._on_view_moved),
            (self._viewer.layers.events.removed, self._on_layer_removed),
        )
        self._connections.open()

    def close(self) -> None:
        """Cease to paint; what was painted is kept."""
        self._session.painting = False
        self._connections.close()
        self._jobs.forget(FOLLOW)

    # ------------------------------------------------------------------ whether it makes sense

    def offer_for_heads(self, *, on: bool) -> None:
        """Offer to paint on what a head of a transformer attends to, or no longer."""
        if on != self._for_heads:
            self._for_heads = on
            self._offer()

    @property
    def is_offered(self) -> bool:
        """Whether the model in hand, or a head that is shown, says where it looks, and can be shown where it should."""
        model = self._session.model
        known = self._attends.get(model)
        attends = self._catalogue.network_of(model) in NETWORKS if known is None else known
        return self._shelf.now is not None and (attends or self._for_heads)

    @property
    def has_looked(self) -> bool:
        """Whether there is something to paint on: a head, or the heatmap of the model that looked at the slide last."""
        opened = self._shelf.now
        if self._for_heads:
            return opened is not None
        return opened is not None and opened.plan is not None and opened.model == self._session.model

    def _on_heads_changed(self, titles: Any) -> None:
        opened = self._shelf.now
        if opened is not None:
            self._attends[opened.model] = any(name.partition(":")[0] == ATTENTION for name in titles)
        self._offer()
        if self._session.painting and self.has_looked:
            self._show_heatmap()

    def _show_heatmap(self) -> None:
        if not self._for_heads:
            self._session.heatmap = ATTENTION

    def _offer(self, _what: Any = None) -> None:
        offered = self.is_offered
        if not offered:
            self._session.painting = False
        self.offered.emit(offered)
        self.awaited.emit(offered and not self.has_looked)

    # ------------------------------------------------------------------ begin and end

    def _on_painting_changed(self, on: bool) -> None:
        if not on:
            self._end()
        elif not self.is_offered:
            self._session.painting = False
        else:
            self.awaited.emit(not self.has_looked)
            if self.has_looked:
                self._show_heatmap()
            self._began_correcting = not self._session.editing
            self._session.editing = True
            self._begin()

    def _on_editing_changed(self, on: bool) -> None:
        if not on:
            self._session.painting = False

    def _begin(self) -> None:
        """Show what was painted, once the project is open."""
        project, opened = self._editing.project, self._editing.opened
        if not self._session.painting or project is None or opened is None or self._project is project:
            return
        self._opened, self._project = opened, project
        self._overview = attention_overview(attention_levels(project), opened.slide)
        opened.insert_above(self._viewer, self._overview, self._viewer.layers[-1])
        self.follow()

    def _end(self) -> None:
        self._commit()
        self._close_window()
        overview, self._overview = self._overview, None
        if overview is not None and overview in self._viewer.layers:
            self._viewer.layers.remove(overview)
        self._opened = self._project = None
        nuclei = self._editing.window.layer
        if nuclei is not None and nuclei in self._viewer.layers:
            self._viewer.layers.selection.active = nuclei
        if self._began_correcting:
            self._began_correcting = False
            self._session.editing = False

    def _on_layer_removed(self, event: Any) -> None:
        if event.value in [layer for layer in (self.window.layer, self._overview) if layer is not None]:
            self._session.painting = False

    # ------------------------------------------------------------------ where the view is

    def _on_view_moved(self, _event: Any = None) -> None:
        if self._project is not None:
            self._jobs.later(FOLLOW, SETTLED_S, self.follow)

    def follow(self) -> None:
        """Bring the paint layer to the view, or take it away where the view is too far for it."""
        opened, project = self._opened, self._project
        if opened is None or project is None or self.is_drawing:
            return
        view = visible_region(self._viewer, opened.layer)
        if view is None or view.is_empty:
            return
        wanted = window_around(view, Region(0, 0, *project.shape))
        if wanted is None:
            self._close_window()
            self._say(TOO_FAR)
            return
        if not self.window.covers(view):
            self._read(wanted, self._open)

    def _read(self, region: Region, on_value: Callable[[Region, Ids], None]) -> None:
        """Read what is painted in a region; the answer counts only if it is the last one that was asked for."""
        project = self._project
        if project is None or region.is_empty:
            return
        self._reads += 1
        number = self._reads

        def answer(paint: Ids) -> None:
            if number == self._reads and self._project is project:
                on_value(region, paint)

        self._jobs.enqueue(LANE, lambda: read_attention(project, region), on_value=answer, on_error=self._on_failed)

    def _open(self, region: Region, paint: Ids) -> None:
        opened = self._opened
        if opened is None or self.is_drawing:
            return
        self._commit()
        layer = self.window.open(region, paint, opened.slide)
        if layer is not None:
            layer.on_undo, layer.on_redo = self._editing.undo, self._editing.redo
            layer.events.paint.connect(self._on_painted)
            layer.events.selected_label.connect(self._on_label_changed)
            layer.events.mode.connect(self._on_mode_changed)
            layer.mouse_drag_callbacks.insert(0, self._on_press)
            for key, action in self._keys().items():
                layer.bind_key(key, action, overwrite=True)
            opened.insert_above(self._viewer, layer, self._viewer.layers[-1])
            self._viewer.layers.selection.active = layer
            self._on_brush_changed(self._session.brush)
        if self._overview is not None:
            self._overview.visible = False
        self._say("")

    def _close_window(self) -> None:
        self._reads += 1
        self.is_drawing = False
        layer = self.window.close()
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        if self._overview is not None and not self._overview.visible:
            self._overview.visible = True
            self._overview.refresh()

    def _on_nuclei_layer_made(self, _layer: Any) -> None:
        """Who paints attention goes on painting it."""
        if self.window.layer is not None:
            self._viewer.layers.selection.active = self.window.layer

    # ------------------------------------------------------------------ what is painted

    def _keys(self) -> dict[str, Callable[[Any], None]]:
        return {
            "1": lambda _layer: self.choose(LOOK),
            "2": lambda _layer: self.choose(DO_NOT),
            "E": lambda _layer: self.choose(ERASE),
            "Control-Z": lambda _layer: self._editing.undo(),
            "Control-Shift-Z": lambda _layer: self._editing.redo(),
        }

    def choose(self, brush: str) -> None:
        """Take one of `BRUSHES` into the hand, also if the slide was being moved with it chosen."""
        self._session.brush = brush
        self._on_brush_changed(brush)

    def _on_brush_changed(self, brush: str) -> None:
        layer = self.window.layer
        if layer is None:
            return
        if brush == ERASE:
            layer.mode = "erase"
        else:
            layer.selected_label = LABELS[brush]
            layer.mode = "paint"

    def _on_label_changed(self, _event: Any) -> None:
        """The label box of napari chooses too; there are two labels only."""
        layer = self.window.layer
        if layer is None:
            return
        label = min(max(int(layer.selected_label), 1), len(LABELS))
        if label != layer.selected_label:
            layer.selected_label = label
        elif str(layer.mode) != "erase":
            self._session.brush = next(brush for brush, number in LABELS.items() if number == label)

    def _on_mode_changed(self, _event: Any) -> None:
        """The buttons of napari choose too."""
        layer = self.window.layer
        if layer is not None and str(layer.mode) == "erase":
            self._session.brush = ERASE
        elif layer is not None and str(layer.mode) == "paint":
            self._on_label_changed(None)

    def _on_press(self, _layer: Any, event: Any) -> Iterator[None]:
        self.is_drawing = True
        yield
        while event.type == "mouse_move":
            yield
        self.is_drawing = False
        # The view may have gone elsewhere meanwhile; what was painted is written first.
        self._jobs.later(FOLLOW, RELEASED_S, self.follow)

    def _on_painted(self, _event: Any) -> None:
        self._commit()

    def _commit(self) -> None:
        """Write what was painted since the last time, off the main thread."""
        project = self._project
        stroke = None if self.window.layer is None else self.window.take_stroke()
        if stroke is None or project is None:
            return
        self._unwritten += 1

        def write() -> Changed | None:
            return paint_attention(project, stroke.region, stroke.after, before=stroke.before)

        self._jobs.enqueue(LANE, write, on_value=lambda _changed: self._on_written(), on_error=self._on_refused)

    def _on_written(self) -> None:
        self._unwritten -= 1
        self._editing.edited.emit()

    def _on_refused(self, error: BaseException) -> None:
        """What could not be written is taken back, so that nobody believes it safe."""
        self._unwritten -= 1
        self._read(self.window.region, self._renew)
        self._on_failed(error)

    def _on_failed(self, error: BaseException) -> None:
        self._editing.failed.emit(error)

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_edited(self) -> None:
        """The project has been opened, or something in it was painted, undone or done again."""
        self._begin()
        if self._overview is not None and self._overview.visible:
            self._overview.refresh(extent=False, highlight=False)
        if self.window.layer is not None and not self._unwritten:
            self._read(self.window.region, self._renew)

    def _renew(self, region: Region, paint: Ids) -> None:
        layer = self.window.layer
        # While strokes wait to be written, what was read is older than what is seen.
        if layer is not None and not self._unwritten and self.window.renew(region, paint):
            layer.refresh(thumbnail=False, extent=False, highlight=False)

    def _say(self, sentence: str) -> None:
        self._editing.hinted.emit(Hint(sentence))
