"""What networks of the zoo share: the heads, the last convolution, side outputs of training, missing packages."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import cast

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.errors import MissingDependencyError
from napari_nucleiseg.core.models.nuclei_unet import HEADS, OFFSET_UNIT_PX, SPEC
from napari_nucleiseg.core.models.spec import ModelSpec

# Channels of all heads together: what the last convolution of a network of the zoo gives.
OUTPUTS = sum(head.channels for head in HEADS)
# Key of the raw answer to "is there any nucleus in this picture?", ``(batch, 1, 1, 1)``, that some networks learn with.
PRESENT = "present"
# The default network's: what is compared should have the same tiles, pixel size, normalisation and decoder.
ZOO_SPEC = replace(SPEC, title="", paper="", receptive_field_px=0, stride=1, good_for="")


def zoo_spec(name: str, title: str, **stated: int | str) -> ModelSpec:
    """Return the spec of a network of the zoo: that of the default network but for what is stated.

    Parameters
    ----------
    name, title : str
        Registry name; one line for people.
    **stated
        Other fields of `ModelSpec`; `paper`, `licence`, `receptive_field_px`, `stride` and `good_for` belong to it.
    """
    return replace(ZOO_SPEC, name=name, title=title, **stated)  # type: ignore[arg-type] # checked by the dataclass


def split_heads(raw: Tensor, suffix: str = "") -> dict[str, Tensor]:
    """Return the raw maps by name of the last convolution's output.

    Parameters
    ----------
    raw : Tensor
        Of float32 or half precision, ``(batch, OUTPUTS, y, x)``, or ``(batch, OUTPUTS, z, y, x)``.
    suffix : str
        Put after each name: ``/1`` and so on for side outputs.

    Returns
    -------
    dict of Tensor
        Float32, ``(batch, channels, y, x)`` for each head; offsets in model pixels.
    """
    parts = torch.split(raw.float(), [head.channels for head in HEADS], dim=1)
    return {
        head.name + suffix: part * OFFSET_UNIT_PX if head.activation == "none" else part
        for head, part in zip(HEADS, parts, strict=True)
    }


def with_side_outputs(raws: Sequence[Tensor], *, training: bool) -> dict[str, Tensor]:
    """Return the heads of the finest output and, while training, those of the coarser ones as ``nuclei/1`` and so on.

    Deep supervision (Lee et al., AISTATS 2015): the loss of side output k counts as `TrainConfig.deep_supervision`
    says, and only the first is kept once the network is trained.

    Parameters
    ----------
    raws : sequence of Tensor
        ``(batch, OUTPUTS, y, x)`` each, of full size, the finest first.
    training : bool
        Whether the side outputs are wanted: ``network.training``.
    """
    maps = split_heads(raws[0])
    if training:
        for level, raw in enumerate(raws[1:], start=1):
            maps |= split_heads(raw, f"/{level}")
    return maps


class OnHeads(nn.Module):
    """A network that gives ``(batch, OUTPUTS, y, x)``, on the contract of the registry.

    Parameters
    ----------
    body : nn.Module
        From ``(batch, 3, y, x)`` to ``(batch, OUTPUTS, y, x)``.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw map of each head."""
        return split_heads(self.body(x))


def calm_last(last: nn.Conv2d | nn.Conv3d) -> None:
    """Let a last convolution start near zero, so that training starts with small losses."""
    nn.init.normal_(last.weight, std=0.01)
    if last.bias is not None:
        nn.init.zeros_(last.bias)


def library(name: str, package: str = "", *, whose: str = "this network") -> ModuleType:
    """Import a module of an optional package.

    Parameters
    ----------
    name : str
        Module, such as ``monai.networks.nets``.
    package : str
        How the registry of packages calls it; default the module's first word.
    whose : str
        What needs it, for the sentence of an error.

    Raises
    ------
    MissingDependencyError
        If it is not installed, or does not fit this torch.
    """
    wanted = package or name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f'{whose} needs {wanted}: install the extra zoo with pip install "napari-nucleiseg[zoo]".'
        ) from error
    except RuntimeError as error:  # that of torchvision, if it was built for another torch
        raise MissingDependencyError(
            f"{wanted} is installed but cannot be imported ({str(error).splitlines()[0]}). Install a torchvision of "
            "the same build as torch."
        ) from error


def as_module(network: object) -> nn.Module:
    """Return what an untyped library built as the module it is."""
    return cast("nn.Module", network)
