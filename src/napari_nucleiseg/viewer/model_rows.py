"""What can be chosen from: models with weights, then networks to train; how they are searched and filtered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.catalogue import NetworkEntry
    from napari_nucleiseg.core.models.weights import ModelCard

TEACH, UNLABELLED, CLUSTER = "teach", "unlabelled", "cluster"
# It is fitted to one region of a slide.
_FITTED = "s3net"


@dataclass(frozen=True, slots=True)
class Row:
    """A model with weights, or a network to train; one of the two is always there.

    Parameters
    ----------
    card : ModelCard or None
        Of the weights.
    entry : NetworkEntry or None
        Of the network, or of the one that the weights belong to; None where that is of another program.
    """

    card: ModelCard | None
    entry: NetworkEntry | None

    @property
    def key(self) -> str:
        """What tells it from all others: a network and its weights may have the same name."""
        return f"{'network' if self.card is None else 'model'} {self.name}"

    @property
    def name(self) -> str:
        """What it is called in commands."""
        if self.card is not None:
            return self.card.name
        return "" if self.entry is None else self.entry.spec.name

    @property
    def title(self) -> str:
        """One line for people."""
        if self.card is not None:
            return self.card.title or self.card.name
        return "" if self.entry is None else self.entry.spec.title

    @property
    def is_installed(self) -> bool:
        """Whether all that it needs is installed."""
        return self.entry is None or self.entry.is_installed

    @property
    def is_free(self) -> bool:
        """Whether its licence, of the weights or else of the code, allows commercial use."""
        if self.card is not None:
            return self.card.commercial_use
        return self.entry is not None and self.entry.allows_commercial_use

    @property
    def is_for_stacks(self) -> bool:
        """Whether it is for z-stacks rather than slides."""
        return self.entry is not None and self.entry.spec.dimensions == 3

    @property
    def attends(self) -> bool:
        """Whether it says where it looks."""
        return self.entry is not None and self.entry.spec.attends

    @property
    def command(self) -> str:
        """How it is trained, or taught with corrections, as a line for a shell; empty where it cannot be."""
        if self.entry is None:
            return ""
        if self.card is None or self.is_for_stacks:
            return self.entry.command
        return f"napari-nucleiseg finetune SLIDE --model {self.name}"

    @property
    def trained_in(self) -> str:
        """Where in the window that is done: `TEACH`, `UNLABELLED`, `CLUSTER`, or nowhere, which is empty."""
        if self.entry is None or self.is_for_stacks:
            return ""
        if self.card is not None:
            return TEACH
        return UNLABELLED if self.attends else CLUSTER if self.name == _FITTED else ""

    @property
    def text(self) -> str:
        """All that is searched, in small letters."""
        told = [self.name, self.title]
        if self.card is not None:
            told += [self.card.network, self.card.licence, *self.card.training_data]
        if self.entry is not None:
            spec = self.entry.spec
            told += [spec.title, spec.paper, spec.good_for, spec.needs]
        return " ".join(told).casefold()


class Filter(NamedTuple):
    """A choice among rows: what it is called, what it means, which rows it keeps."""

    title: str
    tip: str
    keeps: Callable[[Row], bool]


FILTERS: Mapping[str, Filter] = {
    "usable": Filter("Can be used now", "Models with weights", lambda row: row.card is not None),
    "trainable": Filter("Can be trained", "Networks that learn from your own data", lambda row: row.card is None),
    "installed": Filter("Installed", "All that it needs is on this machine", lambda row: row.is_installed),
    "free": Filter("Commercial use", "Its licence allows commercial use", lambda row: row.is_free),
    "attention": Filter(
        "Attention", "Says where it looks, so that painted attention teaches it", lambda row: row.attends
    ),
    "stacks": Filter("Stacks", "For z-stacks, in three dimensions", lambda row: row.is_for_stacks),
}


def rows_of(cards: Sequence[ModelCard], entries: Sequence[NetworkEntry]) -> tuple[Row, ...]:
    """Return models with weights, each with its network, then networks."""
    by_name = {entry.spec.name: entry for entry in entries}
    models = [Row(card, by_name.get(card.network)) for card in cards]
    return (*models, *(Row(None, entry) for entry in entries))


def chosen_rows(rows: Sequence[Row], words: str, filters: Collection[str]) -> tuple[Row, ...]:
    """Return the rows that hold all words and that all filters keep.

    Parameters
    ----------
    rows : sequence of Row
        All.
    words : str
        Parted by spaces; each is looked for anywhere in name, title, paper, use, licence and data.
    filters : collection of str
        Keys of `FILTERS`.
    """
    wanted = words.casefold().split()
    return tuple(
        row
        for row in rows
        if all(FILTERS[key].keeps(row) for key in filters) and all(word in row.text for word in wanted)
    )
