"""Where a model of whole slides looked, as a layer over the slide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.core.errors import NucleiSegError
from napari_nucleiseg.viewer.heads import NO_SLIDE, Heads
from napari_nucleiseg.viewer.heads_layer import made_layer
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.layers import slide_name
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.sentences import sentence_of

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.shown import ShownMap
    from napari_nucleiseg.core.attention.slide_map import SlideAttention
    from napari_nucleiseg.viewer.opened import OpenedSlide

LANE = "slide attention"


class HeadsSlide:
    """One map of one slide; all methods are for the main thread.

    Parameters
    ----------
    heads : Heads
        Knows the slide in hand, and how maps are coloured.
    """

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self._layer: Any = None
        self._opened: OpenedSlide | None = None
        heads.shelf.removed.connect(self._on_slide_removed)

    def show(self, path: str) -> None:
        """Show a file that ``napari-nucleiseg cohort predict`` wrote of the slide in hand."""
        heads, opened = self._heads, self._heads.shelf.now
        if opened is None:
            heads.said.emit(Hint(NO_SLIDE, is_warning=True))
            return

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield heads.engine.slide_map(path, opened.slide)

        heads.jobs.start(LANE, work, on_value=lambda found: self._on_read(opened, *found), on_error=self._on_failed)

    def close(self) -> None:
        """Take the map away, and follow the slides no longer."""
        self._heads.shelf.removed.disconnect(self._on_slide_removed)
        self.hide()

    def _on_slide_removed(self, opened: OpenedSlide) -> None:
        if opened is self._opened:
            self.hide()

    def hide(self) -> None:
        """Take the map away."""
        layer, self._layer = self._layer, None
        if layer is not None and layer in self._heads.viewer.layers:
            self._heads.viewer.layers.remove(layer)

    def _on_read(self, opened: OpenedSlide, said: SlideAttention, shown: ShownMap) -> None:
        heads = self._heads
        if heads.shelf.now is not opened:
            return
        self.hide()
        wishes = heads.wishes
        name = f"{slide_name(opened.slide)} slide attention"
        self._opened = opened
        self._layer = made_layer(opened, shown, name, wishes.opacity, wishes.colours)
        opened.insert_above(heads.viewer, self._layer, opened.layer)
        scores = ", ".join(f"{name} {value:.3g}" for name, value in said.scores.items())
        verdict = f"“{said.prediction}” ({scores})" if said.prediction else scores
        heads.said.emit(
            Hint(
                f"{said.aggregator} says {verdict or 'nothing'}. The layer shows which of {len(said.attention):,} "
                "parts decided, by rank; it says where was looked, not for which class."
            )
        )

    def _on_failed(self, error: BaseException) -> None:
        if not isinstance(error, NucleiSegError):
            raise error
        self._heads.said.emit(Hint(sentence_of(error), is_warning=True))
