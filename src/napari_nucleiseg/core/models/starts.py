"""Starting a network from the weights of another run: all of them, or the part that fits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.weights import ModelCard, load_tensors, read_card

# Key of `ModelCard.taught` under which a warm start names the tensors that were taught: all others are fresh.
WARM_START = "warm_start"


@dataclass(frozen=True, slots=True)
class Start:
    """What a network took from a weight file.

    Parameters
    ----------
    source : str
        Version of the weights, or the file.
    taken, offered, fresh : int
        Tensors that fitted, tensors that the file holds for others to take, tensors of the network that stay fresh.
    card : ModelCard
        The file's card; it states no licence where the file has none.
    is_warm : bool
        Whether the file is a warm start, of which only what it was taught was taken.
    """

    source: str
    taken: int
    offered: int
    fresh: int
    card: ModelCard
    is_warm: bool = False

    @property
    def told(self) -> str:
        """A sentence for people."""
        return f"{self.taken} of {self.offered} tensors of {self.source} fitted; {self.fresh} of the network stay fresh"


def start_from(network: nn.Module, path: str | Path, name: str) -> Start:
    """Give a network the weights of a file to begin with.

    Of a warm start those tensors are taken that it was taught and that fit by name and shape, so that its encoder
    serves any network that is built around the same one. All of any other file must belong to the network, which may
    have more.

    Parameters
    ----------
    network : nn.Module
        Gets the weights.
    path : path
        Weight file.
    name : str
        The network's registry name, for the sentences of errors.

    Raises
    ------
    WeightsError
        If the file cannot be read or does not fit.
    """
    tensors = load_tensors(path)
    own = network.state_dict()
    card = card_to_start_from(path, name)
    taught = taught_tensors(card)
    if taught is None:
        _take_all(network, tensors, path, name)
        return Start(str(path), len(tensors), len(tensors), len(own.keys() - tensors.keys()), card)
    fitting = {key: tensors[key] for key in taught if _fits(own, tensors, key)}
    if not any(own[key].ndim > 1 for key in fitting):
        raise WeightsError(
            f"{path} is a warm start of {card.network}, and none of its {len(taught)} tensors fits network {name}. "
            "Make one for this network, with the same parameters (pretrain contrastive or masked, --network, --params)."
        )
    network.load_state_dict(fitting, strict=False)
    return Start(card.version, len(fitting), len(taught), len(own) - len(fitting), card, is_warm=True)


def card_to_start_from(path: str | Path, network: str) -> ModelCard:
    """Return the card of a weight file that a run begins with; one that states no licence where it has none.

    Parameters
    ----------
    path : path
        The file.
    network : str
        What it holds.
    """
    try:
        return read_card(path)
    except WeightsError:
        return ModelCard(Path(path).stem, network)


def taught_tensors(card: ModelCard) -> tuple[str, ...] | None:
    """Return the names of the tensors that a warm start was taught; None if the card is of no warm start."""
    warm = card.taught.get(WARM_START)
    return tuple(map(str, warm.get("tensors", ()))) if isinstance(warm, Mapping) else None


def warm_start_note(method: str, tensors: Collection[str]) -> dict[str, Any]:
    """Return what a card says (``taught``) of a warm start."""
    return {WARM_START: {"method": method, "tensors": sorted(tensors)}}


def _fits(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], key: str) -> bool:
    return key in own and key in tensors and own[key].shape == tensors[key].shape


def _take_all(network: nn.Module, tensors: Mapping[str, Tensor], path: str | Path, name: str) -> None:
    try:
        foreign = network.load_state_dict(tensors, strict=False).unexpected_keys
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise WeightsError(f"{path} does not fit network {name} as it is set up: {first}") from error
    if foreign:
        raise WeightsError(f"{path} was made for another network than {name}: it holds {foreign[0]}")
