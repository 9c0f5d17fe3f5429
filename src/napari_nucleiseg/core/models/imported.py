"""Networks of other programs: a TorchScript or ONNX file and a description, kept in a weight file like any other.

What such a network says becomes heads. It can find nuclei; it has no weights of its own here, so it cannot be taught.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.programs import Program, open_program
from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec
from napari_nucleiseg.core.models.steps import Step, apply_steps

NAME = "imported"
AXES = "bcyx"
# Probabilities nearer to 0 or 1 than this have no finite logit that float32 could tell apart.
_LEAST = 1e-6
_opening = threading.Lock()


@dataclass(frozen=True, slots=True)
class ImportedHead:
    """Which channels of which output become a head.

    Parameters
    ----------
    name, title : str
        Of the head.
    output : int
        Place of the output among all.
    channels : tuple of int
        Of that output.
    probability : bool
        Whether its values are probabilities, 0..1; others are taken as they are.
    less : tuple of int
        Output and channel of the probability of a boundary that is taken away, ``p * (1 - boundary)``; empty: none.
    shown : bool
        Whether it is offered as a heatmap.
    """

    name: str
    output: int
    channels: tuple[int, ...]
    probability: bool = True
    title: str = ""
    less: tuple[int, ...] = ()
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Description:
    """What must be known to use a network of another program.

    Parameters
    ----------
    kind : {"torchscript", "onnx"}
        What its file is.
    size_bytes : int
        Of that file.
    title, paper : str
        One line for people; source of the method.
    mpp_um : float
        Micrometres per pixel of its input.
    axes : str
        Order of its input's axes, letters of ``bcyx``.
    black, white : float
        Values that stand for 0 and 255 of RGB.
    before : tuple of mapping
        Steps before it, see `steps`.
    output_axes : tuple of str
        Order of the axes of each output; empty for one that is not used.
    after : tuple of tuple of mapping
        Steps after each output.
    heads : tuple of ImportedHead
        What becomes of the outputs.
    decoder : str
        What makes nuclei of the heads.
    tile_px, halo_px, size_multiple, output_margin_px : int
        As of `ModelSpec`.
    least_px : int
        Smallest side of its input; smaller ones are enlarged by repeating their edge.
    one_at_a_time : bool
        Whether it takes no more than one picture at once.
    """

    kind: str
    size_bytes: int
    title: str
    mpp_um: float
    heads: tuple[ImportedHead, ...]
    decoder: str
    paper: str = ""
    axes: str = AXES
    black: float = 0.0
    white: float = 255.0
    before: tuple[Step, ...] = ()
    output_axes: tuple[str, ...] = (AXES,)
    after: tuple[tuple[Step, ...], ...] = ((),)
    tile_px: int = 512
    halo_px: int = 48
    size_multiple: int = 16
    output_margin_px: int = 0
    least_px: int = field(default=1)
    one_at_a_time: bool = False

    def as_json(self) -> str:
        """Return it as text; `from_json` reads it."""
        return json.dumps(asdict(self))

    def spec(self) -> ModelSpec:
        """Return what the engine must know; RGB comes to the network as 0..255."""
        return ModelSpec(
            name=NAME,
            title=self.title,
            mpp_um=self.mpp_um,
            heads=tuple(_head_spec(head) for head in self.heads),
            decoder=self.decoder,
            mean=(0.0, 0.0, 0.0),
            std=(1 / 255, 1 / 255, 1 / 255),
            tile_px=self.tile_px,
            halo_px=self.halo_px,
            size_multiple=self.size_multiple,
            output_margin_px=self.output_margin_px,
            paper=self.paper,
            params={"description": self.as_json()},
        )


def _head_spec(head: ImportedHead) -> HeadSpec:
    activation = "sigmoid" if head.probability else "none"
    return HeadSpec(head.name, len(head.channels), activation, head.title, shown=head.shown)


def from_json(text: str) -> Description:
    """Read a description.

    Raises
    ------
    ModelError
        If it is none.
    """
    known = {item.name for item in fields(Description)}
    try:
        raw = {key: value for key, value in json.loads(text).items() if key in known}
        raw["heads"] = tuple(
            ImportedHead(**{**head, "channels": tuple(head["channels"]), "less": tuple(head["less"])})
            for head in raw["heads"]
        )
        raw |= {key: tuple(raw[key]) for key in ("before", "output_axes") if key in raw}
        raw["after"] = tuple(tuple(steps) for steps in raw.get("after", ((),)))
        return Description(**raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"the description of the imported network is damaged: {error}") from error


class ImportedNetwork(nn.Module):
    """Runs the network of another program as one of ours; see `Description`.

    Parameters
    ----------
    description : Description
        What it is.

    Notes
    -----
    Buffer ``program``, uint8 of shape (size_bytes,): the file itself, so that one weight file holds all. It stays on
    the CPU wherever the network is moved.
    """

    program: Tensor

    def __init__(self, description: Description) -> None:
        super().__init__()
        self.description = description
        self.register_buffer("program", torch.zeros(description.size_bytes, dtype=torch.uint8))
        self._opened: dict[str, Program] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}  # a copy opens its own

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> ImportedNetwork:  # noqa: ARG002 - as of torch
        return self

    def _program_on(self, device: torch.device) -> Program:
        with _opening:
            if str(device) not in self._opened:
                content = self.program.cpu().numpy().tobytes()
                self._opened[str(device)] = open_program(self.description.kind, content, device)
            return self._opened[str(device)]

    def outputs(self, values: Tensor) -> tuple[Tensor | None, ...]:
        """Return what the network says, after the steps that follow it.

        Parameters
        ----------
        values : Tensor, shape (batch, channels, y, x)
            As the package describes its input, before any step.

        Returns
        -------
        tuple of Tensor or None
            Each ``(batch, channels, y, x)`` float32; None for an output that is not used.

        Raises
        ------
        ModelError
            If there are fewer outputs than described, or one has other axes.
        """
        given, run = self.description, self._program_on(values.device)
        x = apply_steps(values, given.before)
        parts = x.split(1) if given.one_at_a_time else (x,)
        arranged = [part.permute([AXES.index(axis) for axis in given.axes]).contiguous() for part in parts]
        ran = [run(part) for part in arranged]
        if len(ran[0]) < len(given.output_axes):
            raise ModelError(f"{given.title} has {len(ran[0])} outputs and not {len(given.output_axes)} as described")
        found: list[Tensor | None] = []
        for place, axes in enumerate(given.output_axes):
            if not axes:
                found.append(None)
                continue
            maps = torch.cat([one[place] for one in ran], dim=axes.index("b"))
            if maps.ndim != len(axes):
                raise ModelError(f"{given.title}: output {place} has {maps.ndim} axes and not {len(axes)} as described")
            found.append(apply_steps(maps.permute([axes.index(axis) for axis in AXES]).float(), given.after[place]))
        return tuple(found)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw maps of all heads.

        Parameters
        ----------
        x : Tensor, shape (batch, 3, y, x)
            RGB in 0..255, float32.
        """
        given = self.description
        height, width = x.shape[2:]
        with torch.autocast(x.device.type, enabled=False):
            values = given.black + x.float() * ((given.white - given.black) / 255)
            more = [max(0, given.least_px - side) for side in (width, height)]
            if any(more):
                values = F.pad(values, (0, more[0], 0, more[1]), mode="replicate")
            found = self.outputs(values)
            lost = 2 * given.output_margin_px
            return {head.name: _raw(head, found)[:, :, : height - lost, : width - lost] for head in given.heads}


def _raw(head: ImportedHead, found: tuple[Tensor | None, ...]) -> Tensor:
    maps = cast("Tensor", found[head.output])[:, list(head.channels)]
    if head.less:
        output, channel = head.less
        maps = maps * (1 - cast("Tensor", found[output])[:, channel : channel + 1])
    return torch.logit(maps, _LEAST) if head.probability else maps


def network_of(description: Description, content: bytes) -> ImportedNetwork:
    """Return a network that runs the file with this content."""
    network = ImportedNetwork(description)
    network.program.copy_(torch.from_numpy(np.frombuffer(content, np.uint8).copy()))
    return network.eval()


def is_imported(network: nn.Module) -> bool:
    """Whether a network is of another program, so that it has no weights that could be taught."""
    return isinstance(network, ImportedNetwork)


def _spec_of(params: Mapping[str, int | float | str | bool]) -> ModelSpec:
    return from_json(str(params.get("description", ""))).spec()


@register_model(
    ModelSpec(NAME, "A network of another program", 0.5, (HeadSpec("nuclei"),), "watershed", halo_px=64),
    spec_of=_spec_of,
)
def build(description: str) -> ImportedNetwork:
    """Build the network that a description tells of; its file comes with the weights."""
    return ImportedNetwork(from_json(description))
