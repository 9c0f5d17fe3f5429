"""Networks that judge a whole slide by a bag of its features, and say which of them decided: one small registry.

A bag is everything that is known of one slide, in no order: features of regions, or of patches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.errors import ModelError, WeightsError
from napari_nucleiseg.core.models.registry import must_be_free
from napari_nucleiseg.core.models.weights import ModelCard, fit_tensors, load_tensors, must_be_accepted, read_card

CLASSES, SURVIVAL = TASKS = ("classes", "survival")
"""What a slide is judged for: which class it is of, or how soon something happens."""


@dataclass(frozen=True, slots=True)
class AggregatorSpec:
    """What an aggregator is; frozen and comparable.

    Parameters
    ----------
    name : str
        Registry name, e.g. ``hipt``.
    title : str
        One line for people.
    features : int
        Width of the features it reads.
    outputs : int
        Logits: one a class, or one an interval of time.
    paper : str
        Source of the method.
    params : mapping
        Keyword arguments of the build function that this spec was made with.
    """

    name: str
    title: str
    features: int
    outputs: int
    paper: str = ""
    params: Mapping[str, int | float | str | bool] = field(default_factory=dict, hash=False)


class Gate(nn.Module):
    """Scores of attention, ``(n, width)`` to ``(n,)`` before the softmax (Ilse et al., ICML 2018).

    Parameters
    ----------
    width, hidden : int
        Of what it reads, and of the layer in it.
    gated : bool
        ``w . (tanh(V h) * sigmoid(U h))`` in place of ``w . tanh(V h)``.
    """

    def __init__(self, width: int, hidden: int, *, gated: bool) -> None:
        super().__init__()
        self.value = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden) if gated else None
        self.weight = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score for each instance."""
        hidden = torch.tanh(self.value(x))
        if self.gate is not None:
            hidden = hidden * torch.sigmoid(self.gate(x))
        return cast("Tensor", self.weight(hidden)[:, 0])


class Aggregator(nn.Module):
    """Embed each instance, mix them, weigh them, judge their weighted mean.

    Parameters
    ----------
    embed : nn.Module
        ``(n, features)`` to ``(n, width)``.
    scores : nn.Module or None
        ``(n, width)`` to ``(n,)``, see `Gate`; without it all instances weigh the same.
    head : nn.Module
        ``(width,)`` to ``(outputs,)``.
    mixing : nn.Module or None
        Lets instances look at each other, ``(1, n, width)`` to the same.
    """

    def __init__(
        self, embed: nn.Module, scores: nn.Module | None, head: nn.Module, mixing: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.embed, self.mixing, self.scores, self.head = embed, mixing, scores, head

    def forward(self, bag: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(outputs,)`` and attention ``(n,)``, which is at least 0 and adds up to 1.

        Parameters
        ----------
        bag : Tensor, shape (n, features)
            Of one slide, float32; n is at least 1, and the order does not matter.
        """
        hidden: Tensor = self.embed(bag)
        if self.mixing is not None:
            hidden = self.mixing(hidden[None])[0]
        scores = hidden.new_zeros(len(hidden)) if self.scores is None else self.scores(hidden)
        attention = torch.softmax(scores, dim=0)
        return self.head(attention @ hidden), attention


Build = Callable[..., "tuple[AggregatorSpec, Aggregator]"]
_registry: dict[str, Build] = {}


def register_aggregator(name: str) -> Callable[[Build], Build]:
    """Register the decorated build function: keyword parameters to a spec and a fresh network.

    Raises
    ------
    ModelError
        If the name is taken.
    """

    def add(build: Build) -> Build:
        must_be_free(name, _registry.get(name), build, "an aggregator")
        _registry[name] = build
        return build

    return add


def _layer(features: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Dropout(dropout))


@register_aggregator("mean")
def build_mean(
    *, features: int, outputs: int, width: int = 192, dropout: float = 0.25
) -> tuple[AggregatorSpec, Aggregator]:
    """Build the plain mean: no instance counts more than another. What attention must be better than.

    Parameters
    ----------
    features, outputs : int
        See `AggregatorSpec`.
    width : int
        Of an embedded instance.
    dropout : float
        Share of activations left out while training.
    """
    network = Aggregator(_layer(features, width, dropout), None, nn.Linear(width, outputs))
    return AggregatorSpec("mean", "Mean of all features", features, outputs), network


@register_aggregator("abmil")
def build_abmil(
    *, features: int, outputs: int, width: int = 500, hidden: int = 128, dropout: float = 0.25
) -> tuple[AggregatorSpec, Aggregator]:
    """Build attention pooling without a gate (Ilse et al., ICML 2018), with the sizes of that paper.

    Parameters
    ----------
    features, outputs, width, dropout
        See `build_mean`; the paper has no dropout.
    hidden : int
        Width of the layer of attention.
    """
    network = Aggregator(_layer(features, width, dropout), Gate(width, hidden, gated=False), nn.Linear(width, outputs))
    paper = "https://arxiv.org/abs/1802.04712"
    return AggregatorSpec("abmil", "Attention over features", features, outputs, paper), network


@register_aggregator("clam")
def build_clam(
    *, features: int, outputs: int, width: int = 512, hidden: int = 256, dropout: float = 0.25
) -> tuple[AggregatorSpec, Aggregator]:
    """Build gated attention pooling as in CLAM-SB (Lu et al., Nature Biomedical Engineering 2021), its small size.

    Only the gate is taken: there is no clustering of instances and none of its losses.

    Parameters
    ----------
    features, outputs, width, hidden, dropout
        See `build_abmil`.
    """
    network = Aggregator(_layer(features, width, dropout), Gate(width, hidden, gated=True), nn.Linear(width, outputs))
    paper = "https://arxiv.org/abs/2004.09666"
    return AggregatorSpec("clam", "Gated attention over features", features, outputs, paper), network


@register_aggregator("hipt")
def build_hipt(
    *, features: int, outputs: int, width: int = 192, depth: int = 2, heads: int = 3, dropout: float = 0.25
) -> tuple[AggregatorSpec, Aggregator]:
    """Build HIPT's third stage (Chen et al., CVPR 2022): a transformer of all regions, then gated attention.

    Regions have no positions. Every region looks at every other: time grows with the square of their number, and
    attention points less surely than without the transformer, because what it weighs has looked at all the others.

    Parameters
    ----------
    features, outputs, width, dropout
        See `build_mean`.
    depth, heads : int
        Layers of the transformer, heads of attention in each.
    """
    layer = nn.TransformerEncoderLayer(width, heads, width, dropout, activation="relu", batch_first=True)
    network = Aggregator(
        _layer(features, width, dropout),
        Gate(width, width, gated=True),
        nn.Sequential(_layer(width, width, dropout), nn.Linear(width, outputs)),
        nn.TransformerEncoder(layer, depth, enable_nested_tensor=False),
    )
    paper = "https://arxiv.org/abs/2206.02647"
    return AggregatorSpec("hipt", "A transformer of regions", features, outputs, paper), network


def aggregator_names() -> tuple[str, ...]:
    """Names of all aggregators, the simplest first."""
    return tuple(_registry)


def build_aggregator(name: str, params: Mapping[str, int | float | str | bool]) -> tuple[AggregatorSpec, Aggregator]:
    """Build an aggregator with fresh random weights; its spec carries `params`.

    Parameters
    ----------
    name : str
        Registry name.
    params : mapping
        At least ``features`` and ``outputs``.

    Raises
    ------
    ModelError
        If there is none of that name, or it does not take the parameters.
    """
    if name not in _registry:
        raise ModelError(f"there is no aggregator called {name}; there are {', '.join(aggregator_names())}")
    try:
        spec, network = _registry[name](**params)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:  # torch asserts that heads divide the width
        raise ModelError(f"aggregator {name} cannot be built with {dict(params)}: {error}") from error
    return replace(spec, params=dict(params)), network


@dataclass(eq=False, slots=True)
class LoadedAggregator:
    """An aggregator with weights, on the CPU, in eval mode, float32.

    Parameters
    ----------
    spec : AggregatorSpec
        What it is.
    card : ModelCard
        Of the weight file; ``taught`` holds `task`, `classes` or `edges`, and what it learnt from.
    network : Aggregator
        From a bag to logits and attention.
    """

    spec: AggregatorSpec
    card: ModelCard
    network: Aggregator

    @property
    def version(self) -> str:
        """Version of the weights."""
        return self.card.version

    @property
    def task(self) -> str:
        """What it judges slides for, one of `TASKS`."""
        return str(self.card.taught["task"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits; empty for survival."""
        return tuple(map(str, self.card.taught.get("classes", ())))

    @property
    def edges(self) -> tuple[float, ...]:
        """Times between the intervals of the logits; empty for classes."""
        return tuple(map(float, self.card.taught.get("edges", ())))


def load_aggregator(path: str | os.PathLike[str], *, accept_licence: bool = False) -> LoadedAggregator:
    """Load an aggregator from a file.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, a pickle, its tensors do not fit, or its card does not say what it judges.
    LicenceNotAcceptedError
        If the weights are restricted and the licence was not accepted.
    ModelError
        If it holds another kind of network.
    """
    card = read_card(path)
    must_be_accepted(card, accept_licence=accept_licence)
    if card.network not in aggregator_names():
        raise ModelError(
            f"{path} holds weights of {card.network}, which judges no slides; give a file that "
            "`napari-nucleiseg cohort train` has written"
        )
    spec, network = build_aggregator(card.network, card.params)
    fit_tensors(network, load_tensors(path), path=Path(path), network_name=card.network)
    loaded = LoadedAggregator(spec, card, network.eval())
    stated = {CLASSES: len(loaded.classes), SURVIVAL: len(loaded.edges) + 1}.get(str(card.taught.get("task")))
    if stated != spec.outputs:
        raise WeightsError(
            f"the card of {path} does not say what its {spec.outputs} outputs mean; train it again with "
            "`napari-nucleiseg cohort train`"
        )
    return loaded
