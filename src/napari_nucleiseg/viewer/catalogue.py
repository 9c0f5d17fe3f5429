"""Which models there are, and the settings that suit the one in hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.jobs import Cancelled, Jobs

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.versions import Version

LANE = "models"


class Catalogue:
    """The models of one viewer; all methods are for the main thread.

    Parameters
    ----------
    engine : Engine
        The headless part.
    jobs : Jobs
        Where they are listed.
    session : Session
        Says which model is in hand; threshold and smallest area are set there.
    on_error : callable
        Told when they cannot be listed.
    """

    listed = Signal(tuple)
    """Cards of the models that can be used."""

    def __init__(self, engine: Engine, jobs: Jobs, session: Session, on_error: Callable[[BaseException], None]) -> None:
        self._engine, self._jobs, self._session, self._on_error = engine, jobs, session, on_error
        self._cards: dict[str, Any] = {}

    def list(self, wanted: str = "") -> None:
        """List the models anew; then take the one called `wanted` in hand, if there is."""
        first, family = not self._cards, self._session.model

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            # What was last taken in hand of this family is what people go on with.
            yield self._engine.models(), wanted or (self._engine.preferred(family) if first else "")

        self._jobs.start(LANE, work, on_value=lambda found: self._on_listed(*found), on_error=self._on_error)

    def _on_listed(self, cards: tuple[Any, ...], wanted: str) -> None:
        self._cards = {card.name: card for card in cards}
        if self._session.options == Session().options:  # nobody has turned them yet
            self._recommend_options()
        self.listed.emit(cards)
        if wanted in self._cards:
            self._session.model = wanted

    def network_of(self, model: str) -> str:
        """Return the name of a model's network; empty where the model is not known."""
        card = self._cards.get(model)
        return "" if card is None else str(card.network)

    def recommend(self) -> None:
        """Set threshold and smallest area to what suits the model, and “Ignore brown” to how it was taught."""
        self._recommend_options()
        card = self._cards.get(self._session.model)
        settings = None if card is None else card.taught.get("settings")
        if isinstance(settings, dict) and isinstance(settings.get("ignore_brown"), bool):
            self._session.ignore_brown = settings["ignore_brown"]

    def _recommend_options(self) -> None:
        card = self._cards.get(self._session.model)
        if card is not None:
            self._session.threshold, self._session.min_area_um2 = card.threshold, card.min_area_um2

    def take(self, version: Version) -> None:
        """List a new version with the others and take it in hand."""
        self.list(version.card.name)
