"""The part of a network that a warm start teaches, found by watching the network look at a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.training.warm.config import ENCODER, NETWORK

# What networks call their encoder. Of one that has none by such a name, all up to the coarsest map counts as encoder.
_NAMES = frozenset({"encoder", "backbone", "down", "swinViT", "trunk", "contracting"})
# A map of fewer pixels a side is a pooled one rather than one of features.
_FEWEST_PX = 2


class _ReachedError(Exception):
    """Leaves a network where its features were found."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


@dataclass(frozen=True, slots=True)
class _Seen:
    """One call of a module that gave maps: its name, side and channels of the coarsest, whether it is a convolution."""

    name: str
    side: int
    channels: int
    is_convolution: bool


class Trunk(nn.Module):
    """A network as far as it shall learn; what comes after is never computed.

    Parameters
    ----------
    network : nn.Module
        Takes ``(batch, 3, y, x)``.
    name : str
        Its name for people.
    part : str
        ``encoder``: up to the end of the stage with the coarsest maps. ``network``: up to its last convolution.
    input_px : int
        Side of what it will look at.

    Raises
    ------
    ModelError
        If there is no such part.
    """

    def __init__(self, network: nn.Module, name: str, part: str, input_px: int) -> None:
        super().__init__()
        self.network, self.name, self.part = network, name, part
        was_training = network.training
        network.eval()
        probe = torch.zeros(1, 3, input_px, input_px, device=next(network.parameters()).device)
        self.end = self._end_of(_watched(network, probe), input_px)
        features = self(probe)
        self.channels, self.side = features.shape[1], features.shape[-1]
        self.taught = _reached_by_gradient(network, features)
        network.train(was_training)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features ``(batch, channels, side, side)`` of pictures ``(batch, 3, input_px, input_px)``."""
        module = self.network.get_submodule(self.end)
        if self.part == NETWORK:
            watch = module.register_forward_pre_hook(_leave_before)
        else:
            watch = module.register_forward_hook(_leave_after)
        try:
            self.network(x)
        except _ReachedError as reached:
            return reached.features
        finally:
            watch.remove()
        raise ModelError(f"network {self.name} did not come to its {self.end}, so that it cannot have a warm start")

    def learned(self) -> list[nn.Parameter]:
        """Return the parameters of the part."""
        return [item for name, item in self.network.named_parameters() if name in self.taught]

    def _end_of(self, seen: list[_Seen], input_px: int) -> str:
        """Return the name of the module after (encoder) or before (network) which the part ends."""
        calls = Counter(item.name for item in seen)
        once = [item for item in seen if calls[item.name] == 1]
        if self.part == ENCODER:
            maps = [item for item in once if _FEWEST_PX <= item.side <= input_px // 2]
            maps = [item for item in maps if not _NAMES.isdisjoint(item.name.split("."))] or maps
            ends = [item for item in maps if item.side == min(other.side for other in maps)]
            # Rather a whole stage than a layer of it, and rather its features than scores made of them.
            ends.sort(key=lambda item: (-item.name.count("."), item.channels))
        else:
            ends = [item for item in once if item.is_convolution]
        if not ends:
            what = "map of features that is coarser than the picture" if self.part == ENCODER else "last convolution"
            raise ModelError(f"network {self.name} has no {what}, so that it cannot have a warm start; choose another")
        return ends[-1].name


def _watched(network: nn.Module, probe: Tensor) -> list[_Seen]:
    """Return the calls of all modules that give maps, in the order in which they end."""
    seen: list[_Seen] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def after(_module: nn.Module, _given: object, output: object) -> None:
            if maps := list(_maps(output)):
                coarsest = _coarsest(maps)
                seen.append(_Seen(name, coarsest.shape[-1], coarsest.shape[1], isinstance(module, nn.Conv2d)))

        return module.register_forward_hook(after)

    hooks = [watch(name, module) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _leave_after(_module: nn.Module, _given: object, output: object) -> None:
    raise _ReachedError(_coarsest(list(_maps(output))))


def _leave_before(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
    raise _ReachedError(given[0])


def _coarsest(maps: list[Tensor]) -> Tensor:
    """Return the last of the coarsest maps."""
    return min(reversed(maps), key=lambda item: item.shape[-1])


def _maps(output: object) -> Iterator[Tensor]:
    """Iterate over the square maps in what a module gives, as ``(batch, channels, y, x)``."""
    if isinstance(output, Tensor):
        if output.ndim == 4 and output.shape[-1] == output.shape[-2]:
            yield output
        elif output.ndim == 4 and output.shape[1] == output.shape[2]:  # windows of a transformer: channels last
            yield output.permute(0, 3, 1, 2)
    elif isinstance(output, Mapping):
        for item in output.values():
            yield from _maps(item)
    elif isinstance(output, list | tuple):
        for item in output:
            yield from _maps(item)


def _reached_by_gradient(network: nn.Module, features: Tensor) -> frozenset[str]:
    """Return the names of the tensors that features depend on, the statistics of their normalisations included."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
    taught = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    owners = {name.rpartition(".")[0] for name in taught}
    taught |= {name for name in network.state_dict() if name.rpartition(".")[0] in owners and name not in names}
    return frozenset(taught)
