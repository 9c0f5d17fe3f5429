"""Models of other programs, and ours that come back: kept as versions beside the user's own."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.exchange.networks.formats import OnProgress
from napari_nucleiseg.core.exchange.networks.mapping import Meaning
from napari_nucleiseg.core.exchange.networks.reading import read_package
from napari_nucleiseg.core.models.files import sweep, write_new
from napari_nucleiseg.core.models.weights import ModelCard, read_card, weight_files, with_card
from napari_nucleiseg.core.teaching.keeping import cannot_write
from napari_nucleiseg.core.teaching.names import ENDING, check_name, models_folder


class Imported(NamedTuple):
    """A model that can be used from now on.

    `told` says what was understood of it; `was_here` whether the same was here before under that name.
    """

    card: ModelCard
    told: str
    was_here: bool


def import_model(
    path: str | os.PathLike[str],
    *,
    name: str = "",
    meaning: Meaning | None = None,
    on_progress: OnProgress = lambda _stage, _done, _total: None,
) -> Imported:
    """Read a bioimage.io model package and keep its model; nothing is overwritten.

    A model of this program comes back as it was exported, with its tensors and its card. Its licence, like that of a
    foreign one, is asked for where the model is used.

    Parameters
    ----------
    path : path
        A zip, a folder, or the ``rdf.yaml`` in it.
    name : str
        How to call the model; empty takes the package's name for it.
    meaning : Meaning, optional
        What a person says of a foreign network whose package does not.
    on_progress : callable
        See `OnProgress`.

    Raises
    ------
    UnclearPackageError
        If the package does not say what its network means, and `meaning` does not, either.
    WeightsError
        If the package is damaged, unsafe or not understood, or the model cannot be written.
    ModelError
        If the name cannot be used.
    MissingDependencyError
        If its weights are ONNX, and what runs that is not installed.
    """
    on_progress("reading", 0, 1)
    arrival = read_package(path, meaning)
    on_progress("keeping", 1, 1)
    card = replace(arrival.model.card, name=name or arrival.model.card.name)
    if (here := _same(card)) is not None:
        return Imported(here, arrival.told, was_here=True)
    check_name(card.name)
    folder = models_folder()
    target = folder / f"{card.name}{ENDING}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        write_new(target, with_card(arrival.content, card))
    except FileExistsError as error:
        check_name(card.name)
        raise WeightsError(f"{folder} is no folder, so that no model can be kept there. Move it away.") from error
    except OSError as error:
        raise WeightsError(cannot_write(folder, error, len(arrival.content))) from error
    return Imported(read_card(target), arrival.told, was_here=False)


def _same(card: ModelCard) -> ModelCard | None:
    """Return the card of a model of that name that is here and does the same; None if there is none."""
    path = weight_files().get(card.name)
    if path is None:
        return None
    with suppress(WeightsError):
        here = read_card(path)
        if all(getattr(here, part) == getattr(card, part) for part in ("sha256", "network", "params", "decoder")):
            return here
    return None
