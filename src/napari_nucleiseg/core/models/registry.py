"""The one registry of networks: a model is its spec, a build function and a decorator."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

Build = Callable[..., "nn.Module"]
Params = Mapping[str, int | float | str | bool]
SpecOf = Callable[[Params], ModelSpec]
ENTRY_POINT_GROUP = "napari_nucleiseg.models"

# Modules of this package that register networks; imported only when a network is asked for.
_BUILT_IN = (
    "napari_nucleiseg.core.models.imported",
    "napari_nucleiseg.core.models.nuclei_unet",
    "napari_nucleiseg.core.models.s3net",
    "napari_nucleiseg.core.models.scale_attention",
    "napari_nucleiseg.core.models.unet_2015",
)
# Every module in here registers one family of networks.
_ZOO = "napari_nucleiseg.core.models.zoo"
_registry: dict[str, tuple[ModelSpec, Build]] = {}
# Of networks that are another one with each weight file.
_spec_of: dict[str, SpecOf] = {}


def register_model(spec: ModelSpec, *, spec_of: SpecOf | None = None) -> Callable[[Build], Build]:
    """Register the decorated build function under ``spec.name``.

    The function takes keyword parameters and returns a ``torch.nn.Module`` whose forward maps
    float32 ``(batch, 3, y, x)``, normalised RGB, to ``dict[str, Tensor]``: for each head of the spec
    a raw map ``(batch, channels, y, x)``, before its activation.

    Parameters
    ----------
    spec : ModelSpec
        What it states about itself.
    spec_of : callable, optional
        Of a network whose build parameters decide what it states: from these to its spec. Without weights there is no
        such network, so `network_names` leaves it out.

    Raises
    ------
    ModelError
        If the name is taken.
    """

    def add(build: Build) -> Build:
        former = _registry.get(spec.name)
        must_be_free(spec.name, former and former[1], build, "a model")
        _registry[spec.name] = (spec, build)
        if spec_of is not None:
            _spec_of[spec.name] = spec_of
        return build

    return add


def must_be_free(name: str, former: Callable[..., object] | None, build: Callable[..., object], what: str) -> None:
    """Refuse a name that another package has taken; a module that is imported anew may take its own again.

    Raises
    ------
    ModelError
        If it is taken.
    """
    if former is not None and former.__module__ != build.__module__:
        raise ModelError(f"two packages register {what} called {name}; rename or uninstall one")


@cache
def _fill() -> None:
    for module in (*_BUILT_IN, *(f"{_ZOO}.{found.name}" for found in pkgutil.iter_modules(_zoo_folders()))):
        importlib.import_module(module)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        entry.load()


def _zoo_folders() -> list[str]:
    return list(importlib.import_module(_ZOO).__path__)


def network_names() -> tuple[str, ...]:
    """Names of all networks that can be built without weights, sorted."""
    _fill()
    return tuple(sorted(_registry.keys() - _spec_of.keys()))


def network_spec(name: str, params: Mapping[str, int | float | str | bool] | None = None) -> ModelSpec:
    """Return the spec of network `name`, carrying `params`.

    Raises
    ------
    ModelError
        If there is no such network, or the parameters do not describe it.
    """
    _fill()
    if name not in _registry:
        raise ModelError(f"there is no network called {name}; there are {', '.join(network_names())}")
    spec = _spec_of[name](params or {}) if name in _spec_of else _registry[name][0]
    return replace(spec, params={**spec.params, **(params or {})})


def build_network(spec: ModelSpec) -> nn.Module:
    """Build the network that `spec` describes, with fresh random weights.

    Raises
    ------
    ModelError
        If there is no such network or it does not take the parameters.
    """
    _fill()
    if spec.name not in _registry:
        raise ModelError(f"there is no network called {spec.name}; there are {', '.join(network_names())}")
    try:
        return _registry[spec.name][1](**spec.params)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"network {spec.name} cannot be built with {dict(spec.params)}: {error}") from error
