"""The doors of the model browser to the headless part; heavy imports happen behind them, in the thread that calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.model_rows import Row, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_nucleiseg.core.models.catalogue import NetworkEntry
    from napari_nucleiseg.core.models.weights import ModelCard
    from napari_nucleiseg.core.teaching.arrivals import Imported
    from napari_nucleiseg.core.teaching.versions import Version

WEIGHTS = "safetensors"
_WEIGHTS_TITLE = "Weights with their card"


class ModelDoors:
    """What models and networks there are, and how models go out and come in; replaceable in tests.

    Parameters
    ----------
    engine : Engine
        Knows the models of slides, and loads them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def rows(self) -> tuple[Row, ...]:
        """Return the models that can be used on slides, those for stacks, and all networks."""
        from napari_nucleiseg.core.models.catalogue import network_entries
        from napari_nucleiseg.core.models.spec import STACK_NETWORKS
        from napari_nucleiseg.core.models.weights import available_models

        stacks = [card for card in available_models() if card.network in STACK_NETWORKS]
        cards = [*self._engine.models(), *stacks]
        return rows_of(cards, network_entries(cards))

    def parameters(self, entry: NetworkEntry) -> int | str:
        """Return how many parameters a network has, or the sentence that says why it cannot be built here."""
        from napari_nucleiseg.core.models.catalogue import parameters_of

        return parameters_of(entry)

    def versions(self) -> tuple[Version, ...]:
        """Return all versions of all models."""
        return self._engine.versions()

    def export(self, card: ModelCard, path: str, form: str, on_progress: Callable[[str, int, int], None]) -> Path:
        """Write a model for other programs, or copy its weights (`WEIGHTS`); nothing is overwritten.

        Raises
        ------
        LicenceNotAcceptedError
            If its licence must be accepted first.
        ExportError
            If it cannot be written.
        """
        from napari_nucleiseg.core.exchange.networks.formats import export_model
        from napari_nucleiseg.core.models.spec import dimensions_of
        from napari_nucleiseg.core.models.weights import load_model
        from napari_nucleiseg.core.teaching.versions import find_version

        if form == WEIGHTS:
            return self._engine.export(find_version(card.name), path)
        is_for_stacks = dimensions_of(card.network) == 3
        model = load_model(card.name, dimensions=3) if is_for_stacks else self._engine.load(card.name)
        return export_model(model, path, form, on_progress=on_progress)

    def import_model(
        self,
        path: str,
        name: str,
        meaning: tuple[str, str, float | None],
        on_progress: Callable[[str, int, int], None],
    ) -> Imported:
        """Take a model from a bioimage.io package; `meaning` are the fields of `Meaning`.

        Raises
        ------
        UnclearPackageError
            If neither the package nor `meaning` says what its network means.
        WeightsError
            If it is damaged, unsafe or not understood, or cannot be written.
        """
        from napari_nucleiseg.core.exchange.networks.mapping import Meaning
        from napari_nucleiseg.core.teaching.arrivals import import_model

        return import_model(path, name=name, meaning=Meaning(*meaning), on_progress=on_progress)


def export_formats() -> dict[str, tuple[str, str]]:
    """Return title and ending of each format that models are written in, by its key."""
    from napari_nucleiseg.core.exchange.networks.formats import NETWORK_FORMATS

    others = {key: (form.title, form.ending) for key, form in NETWORK_FORMATS.items()}
    return {**others, WEIGHTS: (_WEIGHTS_TITLE, ".safetensors")}
