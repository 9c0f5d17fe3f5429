"""Which transformers there are to look with, and which belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.state import NO_ENCODER, HeadWishes
from napari_nucleiseg.viewer.heads_engine import PATCH, REGION, HeadsEngine
from napari_nucleiseg.viewer.jobs import Cancelled, Jobs

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.encoders import EncoderSpec
    from napari_nucleiseg.core.models.weights import ModelCard

LANE = "encoders"


class EncoderList:
    """The encoders that one viewer can look with; all methods are for the main thread.

    Parameters
    ----------
    engine : HeadsEngine
        The headless part.
    jobs : Jobs
        Where they are listed.
    wishes : HeadWishes
        Say which are in hand; one is taken there if none is.
    on_error : callable
        Told when they cannot be listed.
    """

    listed = Signal()
    """There are others to choose from."""

    def __init__(
        self, engine: HeadsEngine, jobs: Jobs, wishes: HeadWishes, on_error: Callable[[BaseException], None]
    ) -> None:
        self._engine, self._jobs, self._wishes, self._on_error = engine, jobs, wishes, on_error
        self.cards: dict[str, ModelCard] = {}
        self.specs: dict[str, EncoderSpec] = {}

    def list(self, wanted: str = "") -> None:
        """List them anew; then take the one called `wanted` in hand, if there is."""

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield self._engine.encoders()

        self._jobs.start(LANE, work, on_value=lambda found: self._on_listed(found, wanted), on_error=self._on_error)

    def _on_listed(self, found: dict[str, tuple[ModelCard, EncoderSpec]], wanted: str) -> None:
        self.cards = {name: card for name, (card, _) in found.items()}
        self.specs = {name: spec for name, (_, spec) in found.items()}
        patches = self.names(PATCH)
        if wanted in patches:
            self._wishes.encoder = wanted
        elif self._wishes.encoder not in patches:
            # Ours first: nothing is asked, nothing is downloaded.
            free = [name for name in patches if self.cards[name].commercial_use]
            self._wishes.encoder = next(iter(free or patches), NO_ENCODER)
        self.listed.emit()

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of the encoders of patches (`PATCH`) or of regions (`REGION`)."""
        return tuple(name for name, spec in self.specs.items() if spec.kind == kind)

    def regions(self) -> tuple[str, ...]:
        """Return the names of the region encoders that read the features of the encoder in hand."""
        from napari_nucleiseg.core.attention.look import fits

        name = self._wishes.encoder
        if name not in self.cards:
            return ()
        card, spec = self.cards[name], self.specs[name]
        return tuple(other for other in self.names(REGION) if fits(card, spec, self.cards[other], self.specs[other]))

    def card_in(self, sentence: str) -> ModelCard | None:
        """Return the card of the encoder in hand that a sentence speaks of; None if it speaks of none."""
        names = (self._wishes.encoder, self._wishes.region_encoder)
        return next((self.cards[name] for name in names if name in self.cards and name in sentence), None)
