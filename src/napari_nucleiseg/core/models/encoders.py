"""Networks that describe tissue and show what they attend to: what one states of itself, the registry, their weights.

They stand beside the networks that find nuclei: an encoder has features, tokens and heads of attention, and no decoder.
Other packages plug theirs in by the entry point group `ENTRY_POINT_GROUP`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.registry import must_be_free
from napari_nucleiseg.core.models.weights import (
    SHIPPED_FOLDER,
    ModelCard,
    cards_of,
    files_in,
    find_file,
    fit_tensors,
    load_tensors,
    must_be_accepted,
    read_card,
    user_folder,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_nucleiseg.core.models.vit import Attended

ENTRY_POINT_GROUP = "napari_nucleiseg.encoders"
FOLDER = "encoders"
# What an encoder reads: pixels of a patch, or the features of the patches of a region.
PATCH, REGION = "patch", "region"

# Modules of this package that register encoders; imported only when one is asked for.
_BUILT_IN = ("napari_nucleiseg.core.models.hipt", "napari_nucleiseg.core.models.timm_encoder")


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Everything that must be known to run an encoder; frozen and comparable.

    Parameters
    ----------
    name : str
        Registry name, e.g. ``hipt-256``.
    title : str
        One line for people.
    kind : {"patch", "region"}
        Whether it reads pixels or features of patches.
    embed, depth, heads : int
        Width of its features, layers, heads of attention in each.
    mpp_um : float
        Micrometres per pixel of the patches; every slide is resampled to it.
    input_px : int
        Side of the square it looks at, in those pixels; of a region encoder, side of one cell of its grid.
    patch_px : int
        Side of a token in those pixels; of a region encoder the same as `input_px`.
    features : int
        Channels of the grid that a region encoder reads; 0 for one on pixels.
    most_cells : int
        Rows and columns of the largest grid that a region encoder looks at in one piece; 0 for one on pixels.
    mean, std : tuple of float
        Normalisation of RGB in 0..1.
    paper : str
        Source of the method.
    params : mapping
        Keyword arguments of the build function that this spec was made with.
    """

    name: str
    title: str
    kind: str
    embed: int
    depth: int
    heads: int
    mpp_um: float
    input_px: int = 256
    patch_px: int = 16
    features: int = 0
    most_cells: int = 0
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    paper: str = ""
    params: Mapping[str, int | float | str | bool] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.input_px % self.patch_px:
            raise ModelError(
                f"encoder {self.name}: a side of {self.input_px} px is no multiple of its patches of {self.patch_px} px"
            )

    @property
    def side(self) -> int:
        """Rows and columns of tokens in one patch; 1 for a region encoder, whose tokens are whole patches."""
        return self.input_px // self.patch_px


class Encoder(Protocol):
    """What the network of an encoder can do; a ``torch.nn.Module``."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return features ``(batch, embed)`` of normalised inputs."""

    def attend(self, x: Tensor, *, query: int = 0, rollout: bool = False) -> Attended:
        """Return features, tokens, and what one token attends to in every head of every layer; see `vit`."""


# From build parameters to the spec that goes with them and the network.
Build = Callable[..., "tuple[EncoderSpec, nn.Module]"]
_registry: dict[str, Build] = {}


@dataclass(eq=False, slots=True)
class LoadedEncoder:
    """An encoder with weights, on the CPU, in eval mode, float32.

    Parameters
    ----------
    spec : EncoderSpec
        What it needs.
    card : ModelCard
        Of the weight file.
    network : nn.Module
        An `Encoder`.
    """

    spec: EncoderSpec
    card: ModelCard
    network: nn.Module

    @property
    def version(self) -> str:
        """Version of the weights: what results go by."""
        return self.card.version

    @property
    def encoder(self) -> Encoder:
        """The network as what it can do."""
        return cast("Encoder", self.network)


def register_encoder(name: str) -> Callable[[Build], Build]:
    """Register the decorated build function: keyword parameters to a spec and a fresh network (an `Encoder`).

    Raises
    ------
    ModelError
        If the name is taken.
    """

    def add(build: Build) -> Build:
        must_be_free(name, _registry.get(name), build, "an encoder")
        _registry[name] = build
        return build

    return add


@cache
def _fill() -> None:
    for module in _BUILT_IN:
        importlib.import_module(module)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        entry.load()


def encoder_names() -> tuple[str, ...]:
    """Names of all encoders that can be built, sorted."""
    _fill()
    return tuple(sorted(_registry))


def build_encoder(
    name: str, params: Mapping[str, int | float | str | bool] | None = None
) -> tuple[EncoderSpec, nn.Module]:
    """Build an encoder with fresh random weights; its spec carries `params`.

    Raises
    ------
    ModelError
        If there is none of that name, or it does not take the parameters.
    """
    _fill()
    if name not in _registry:
        raise ModelError(f"there is no encoder called {name}; there are {', '.join(encoder_names())}")
    try:
        spec, network = _registry[name](**(params or {}))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"encoder {name} cannot be built with {dict(params or {})}: {error}") from error
    return replace(spec, params={**spec.params, **(params or {})}), network


def encoder_spec(name: str, params: Mapping[str, int | float | str | bool] | None = None) -> EncoderSpec:
    """Return the spec of an encoder; the network is only thought of, no memory is taken for its weights.

    Raises
    ------
    ModelError
        If there is none of that name, or it does not take the parameters.
    """
    import torch

    with torch.device("meta"):
        return build_encoder(name, params)[0]


def own_encoders_folder() -> Path:
    """Folder of the user's own encoders."""
    return user_folder() / FOLDER


def encoder_files() -> dict[str, Path]:
    """Return the weight files of encoders that can be used by name: shipped ones and the user's."""
    return files_in(own_encoders_folder(), SHIPPED_FOLDER / FOLDER)


def available_encoders() -> tuple[ModelCard, ...]:
    """Return the cards of all encoders that can be used by name; unreadable files are left out."""
    return tuple(sorted(cards_of(encoder_files()), key=lambda card: card.name))


def load_encoder(name_or_path: str | os.PathLike[str], *, accept_licence: bool = False) -> LoadedEncoder:
    """Load an encoder by name (shipped or the user's) or from a file.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, a pickle, or its tensors do not fit its network.
    LicenceNotAcceptedError
        If the weights are restricted and the licence was not accepted.
    ModelError
        If the network is unknown, or finds nuclei and is no encoder.
    """
    path = find_file(os.fspath(name_or_path), encoder_files())
    card = read_card(path)
    must_be_accepted(card, accept_licence=accept_licence)
    if card.network not in encoder_names():
        raise ModelError(
            f"{path} holds weights of {card.network}, which is no encoder; there are {', '.join(encoder_names())}"
        )
    spec, network = build_encoder(card.network, card.params)
    fit_tensors(network, load_tensors(path), path=path, network_name=card.network)
    return LoadedEncoder(spec, card, network.eval())
