"""How many parameters a network has, at no cost of memory: it is built without its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from napari_nucleiseg.core.models.registry import build_network, network_spec


class _RealRates(TorchFunctionMode):
    """Makes evenly spaced numbers in earnest: libraries read the rates of their layers from such, one by one."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, and on the processor where it makes such numbers."""
        given = dict(kwargs or {})
        if func is torch.linspace:
            given.setdefault("device", "cpu")
        return func(*args, **given)


@cache
def count_parameters(name: str) -> int:
    """Return how many parameters network `name` has, as it is built by default.

    It is built on torch's meta device, which has shapes and no numbers; an answer is kept.

    Raises
    ------
    MissingDependencyError
        If it needs a package that is not installed, or that does not fit this torch.
    ModelError
        If there is no such network, or it cannot be built.
    """
    with torch.device("meta"), _RealRates():
        network = build_network(network_spec(name))
    return sum(parameter.numel() for parameter in network.parameters())
