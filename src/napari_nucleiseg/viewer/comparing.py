"""Two models on what the canvas shows: outlines of either and their differences, until the user has seen enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.viewer.comparison_layers import comparison_layers, fit_outlines
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.sentences import OUT_OF_SIGHT, failure
from napari_nucleiseg.viewer.teaching import COMPARE as LANE
from napari_nucleiseg.viewer.teaching import Teaching
from napari_nucleiseg.viewer.visible import visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.comparison import Comparison, Stage
    from napari_nucleiseg.core.teaching.versions import Version
    from napari_nucleiseg.viewer.opened import OpenedSlide

NO_SLIDE = "Open a slide first: two models are compared on what you see of it."
NOT_FLAT = "Switch to the two-dimensional view (Ctrl+Y) to compare."


class Comparing:
    """One comparison at a time in one viewer; all methods are for the main thread.

    Parameters
    ----------
    teaching : Teaching
        Knows the versions.
    display : Display
        Knows the viewer, the session, the slides and the jobs.
    """

    running_changed = Signal(bool)
    progress_changed = Signal(Progress)
    shown = Signal(object)
    """The `Comparison` whose layers are there now, or None when they are gone."""
    said = Signal(Hint)

    def __init__(self, teaching: Teaching, display: Display) -> None:
        self._engine, self._display = teaching.engine, display
        self._viewer, self._jobs, self._shelf = display.viewer, display.jobs, display.shelf
        self.titles = ("", "")
        """Titles of the former and the new model."""
        self.is_cut = False
        """Whether only the middle of the view is compared."""
        self._layers: tuple[Any, ...] = ()
        self._seen: dict[Any, bool] = {}
        self._tool = ""
        self._connections = Connections(
            (self._shelf.switched, self._on_slide_switched),
            (self._viewer.scene.camera.events.zoom, self._on_zoomed),
            (self._viewer.layers.events.inserted, self._on_layer_inserted),
            (self._viewer.layers.events.removed, self._on_layer_removed),
        )
        self._connections.open()

    def close(self) -> None:
        """Stop for good; the layers go."""
        self._connections.close()
        self.stop()

    # ------------------------------------------------------------------ begin and end

    @property
    def is_running(self) -> bool:
        """Whether models are at work."""
        return self._jobs.is_running(LANE)

    @property
    def is_shown(self) -> bool:
        """Whether the layers of a comparison are there."""
        return bool(self._layers)

    def begin(self, now: Version, former: Version | None = None) -> None:
        """Compare two versions on what the canvas shows.

        Parameters
        ----------
        now : Version
            The new one.
        former : Version, optional
            The former one; default what the new one was taught from.
        """
        opened = self._shelf.now
        view = None if opened is None else visible_region(self._viewer, opened.layer)
        if opened is None or view is None or view.is_empty:
            sentence = NO_SLIDE if opened is None else NOT_FLAT if view is None else OUT_OF_SIGHT
            self.said.emit(Hint(sentence, is_warning=True))
            return
        self.stop()
        session = self._display.session
        device, level, ignore_brown = session.device, session.attention_level, session.ignore_brown

        def work(_cancelled: Cancelled) -> Iterator[Stage | Version | Progress]:
            versions = self._engine.versions()
            pair = former or _with_version(versions, now.card.parent), _with_version(versions, now.card.version)
            yield pair[0]
            models = []
            for version in pair:
                model = self._engine.load_version(version)
                model, _ = yield from self._engine.levels.model_for(model, opened, level)
                models.append(self._engine.looking(model, ignore_brown=ignore_brown))
            yield from self._engine.compare(models[0], models[1], opened, view, device=device)

        def on_stage(stage: Any) -> None:
            if isinstance(stage, Progress):
                self.progress_changed.emit(stage)
                return
            if not hasattr(stage, "comparison"):
                self.titles = stage.title, now.title
                return
            self.progress_changed.emit(Progress("Comparing", stage.done, stage.total))
            if stage.comparison is not None:
                self.is_cut = stage.comparison.region.area < view.area
                self._show(opened, stage.comparison)

        self._jobs.start(
            LANE,
            work,
            title="Comparing",
            on_value=on_stage,
            on_end=lambda: self.running_changed.emit(False),
            on_error=self._on_failed,
            on_late_error=lambda error: self.said.emit(failure(error)),
        )
        self.said.emit(Hint())
        self.running_changed.emit(True)
        self.progress_changed.emit(Progress("Comparing"))

    def stop(self) -> None:
        """Stop comparing, and show again what was seen before."""
        if self._jobs.cancel(LANE):
            self.running_changed.emit(False)
        if not self._layers:
            return
        layers, self._layers = self._layers, ()
        for layer in layers:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        seen, self._seen = self._seen, {}
        with self._display.eye_closed():
            for layer, visible in seen.items():
                if layer in self._viewer.layers:
                    layer.visible = visible
            self._turn_eyes(seen)
        # napari takes the brush from who holds it on a layer that is hidden.
        self._display.session.tool = self._tool
        self.shown.emit(None)

    def _turn_eyes(self, seen: Mapping[Any, bool]) -> None:
        """Show nuclei as it is wanted now: while versions were compared, correcting may have begun or ended."""
        opened, wanted = self._shelf.now, self._display.session.outlines
        if opened is None or opened.nuclei not in seen:
            return
        opened.nuclei.visible = wanted and opened.edit is None
        if opened.edit is not None:
            opened.edit.visible = wanted

    # ------------------------------------------------------------------ what is seen

    def _show(self, opened: OpenedSlide, comparison: Comparison) -> None:
        if opened is not self._shelf.now:
            return
        self._tool = self._display.session.tool
        self._hide_others(opened)
        layers = comparison_layers(opened.slide, comparison)
        fit_outlines(layers, self._viewer.scene.camera.zoom)
        self._layers = layers
        for layer in layers:
            opened.insert_above(self._viewer, layer, self._viewer.layers[-1])
        self.shown.emit(comparison)

    def _hide_others(self, opened: OpenedSlide) -> None:
        """Hide what would lie between the slide and the comparison, also what comes later."""
        others = (opened.nuclei, opened.edit, opened.heatmap)
        new = [layer for layer in others if layer is not None and layer not in self._seen]
        self._seen |= {layer: bool(layer.visible) for layer in new}
        with self._display.eye_closed():
            for layer in new:
                layer.visible = False

    def _on_zoomed(self, _event: Any = None) -> None:
        fit_outlines(self._layers, self._viewer.scene.camera.zoom)

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_layer_inserted(self, _event: Any) -> None:
        opened = self._shelf.now
        if self._layers and opened is not None:
            self._hide_others(opened)

    def _on_layer_removed(self, event: Any) -> None:
        """Who takes one of the layers away has seen enough."""
        if any(event.value == layer for layer in self._layers):
            self.stop()

    def _on_slide_switched(self) -> None:
        self.stop()

    def _on_failed(self, error: BaseException) -> None:
        self.running_changed.emit(False)
        self.said.emit(failure(error))


def _with_version(versions: Iterable[Version], wanted: str) -> Version:
    """Return the version with these weights, wherever its file is by now."""
    found = next((version for version in versions if version.card.version == wanted), None)
    if found is None:
        raise ModelError(f"{wanted} is not there any more. Compare with another model in the list of versions.")
    return found
