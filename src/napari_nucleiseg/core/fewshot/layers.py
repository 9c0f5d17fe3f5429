"""Reads the layers of any registered network while it runs: which there are, which to take, tile by tile."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.fewshot.field import AUTO, STEP_UM
from napari_nucleiseg.core.models.encoders import PATCH, EncoderSpec, LoadedEncoder
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.weights import LoadedModel

# Model pixels on each side of the part of a view that is run in one piece.
CORE_PX = 768
# Fewer channels are outputs, not features.
LEAST_CHANNELS = 24
# Layers that auto takes lie at steps between these: finer ones see texture, coarser ones no single nucleus.
FINEST_UM, COARSEST_UM = 0.6, 4.0
# Patches of an encoder at once.
BATCH = 8


@dataclass(frozen=True, slots=True)
class _Part:
    """A rectangle of the view in model pixels."""

    y: int
    x: int
    height: int
    width: int


class LayerReader:
    """Runs a network on parts of a view and returns what some of its layers say.

    Parameters
    ----------
    model : LoadedModel or LoadedEncoder
        Left untouched; a copy is run.
    layer : str
        Names joined by ``+``, or ``auto``.
    device : str
        ``auto``, ``cuda``, ``mps``, ``cpu``.

    Raises
    ------
    ModelError
        If there is no such layer, or none at all.
    """

    def __init__(self, model: LoadedModel | LoadedEncoder, layer: str, device: str) -> None:
        self._patches = model.spec if isinstance(model.spec, EncoderSpec) else None
        if self._patches is not None and self._patches.kind != PATCH:
            raise ModelError(f"{model.card.name} reads features, not pixels; choose an encoder of patches")
        self._spec, self._model = model.spec, model
        self._device = choose_device(device)
        self._network = copy.deepcopy(model.network).eval().requires_grad_(False).to(self._device)
        self.available = self._probe()
        if not self.available:
            raise ModelError(f"{model.card.name} shows no layer to look into; choose another model")
        self.names = self._chosen(layer)
        if self._patches is not None:
            self.stride = max(self._patches.patch_px // 2, 1)
        else:
            wanted = 2 ** max(round(math.log2(STEP_UM / model.spec.mpp_um)), 0)
            self.stride = max(wanted, min(self.available[name][1] for name in self.names))

    @property
    def outermost(self) -> dict[str, tuple[int, int]]:
        """The layers that are no part of another one, outputs left out: what there is to choose among."""
        wide = {name: it for name, it in self.available.items() if it[0] >= LEAST_CHANNELS} or self.available
        return {
            name: it
            for name, it in wide.items()
            if not any(name[:place] in wide for place, letter in enumerate(name) if letter == ".")
        }

    def _chosen(self, layer: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(part.strip() for part in layer.split("+"))) if layer != AUTO else ()
        if unknown := [name for name in names if name not in self.available]:
            raise ModelError(f"{self._model.card.name} has no layer {unknown[0]}; it has {', '.join(self.available)}")
        return names or self._automatic()

    def _automatic(self) -> tuple[str, ...]:
        """Choose the last block at the finest step that fits nuclei; of an encoder an early block, which is local."""
        if self._patches is not None:
            return (tuple(self.available)[len(self.available) // 4],)
        steps = {name: stride * self._spec.mpp_um for name, (_, stride) in self.outermost.items()}
        fitting = {name: step for name, step in steps.items() if FINEST_UM <= step <= COARSEST_UM} or steps
        finest = [name for name, step in fitting.items() if step == min(fitting.values())]
        blocks = [name for name in finest if self._convolutions(name) > 1]
        return ((blocks or finest)[-1],)

    def _convolutions(self, name: str) -> int:
        return sum(isinstance(module, nn.Conv2d) for module in self._network.get_submodule(name).modules())

    @torch.inference_mode()
    def _probe(self) -> dict[str, tuple[int, int]]:
        """Return channels and stride of every layer that gives a map, in the order of computation."""
        spec = self._spec
        side = spec.input_px if isinstance(spec, EncoderSpec) else spec.fitting_side(128) + 2 * spec.output_margin_px
        names = [name for name, _ in self._network.named_modules() if name]
        with self._watched(names) as said:
            self._run(torch.zeros(1, 3, side, side, device=self._device))
        found: dict[str, tuple[int, int]] = {}
        for name, values in said.items():
            if self._patches is not None and name.rpartition(".")[2].isdigit() and ".blocks." in f".{name}":
                found[name] = (values.shape[-1], self._patches.patch_px)
            elif self._patches is None and values.ndim == 4 and min(values.shape[2:]) > 1:
                found[name] = (values.shape[1], 2 ** round(math.log2(max(side / values.shape[-1], 1))))
        return found

    @contextmanager
    def _watched(self, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Keep what layers say while the block runs, a name's last answer in the order of computation."""
        said: dict[str, Tensor] = {}
        modules = dict(self._network.named_modules())

        def keep(name: str, values: object) -> None:
            if isinstance(values, Tensor):
                said.pop(name, None)
                said[name] = values.clone()  # what follows may work in place

        hooks = [
            modules[name].register_forward_hook(lambda _module, _given, values, name=name: keep(name, values))
            for name in names
        ]
        try:
            yield said
        finally:
            for hook in hooks:
                hook.remove()

    def _run(self, x: Tensor) -> None:
        try:
            self._network(x)
        except RuntimeError as error:
            raise ModelError(f"{self._model.card.name} cannot run on this view: {error}") from error

    def read(self, image: NDArray[np.uint8]) -> Iterator[tuple[int, int, list[NDArray[np.float32]]]]:
        """Run over a view at the model's pixel size, ``(y, x, 3)``.

        Yields
        ------
        int, int, list of ndarray of float32
            Parts done, parts in all, and of each layer the features ``(channels, rows, columns)`` of the view, which
            fill part by part.
        """
        rows, columns = (math.ceil(side / self.stride) for side in image.shape[:2])
        found = [np.zeros((self.available[name][0], rows, columns), np.float32) for name in self.names]
        if self._patches is not None:
            yield from self._read_patches(image, self._patches, found)
            return
        parts = self._parts(image.shape[0], image.shape[1])
        for done, part in enumerate(parts, start=1):
            top, left = part.y // self.stride, part.x // self.stride
            for whole, piece in zip(found, self._features(image, part, single=len(parts) == 1), strict=True):
                target = whole[:, top : top + piece.shape[1], left : left + piece.shape[2]]
                target[...] = piece[:, : target.shape[1], : target.shape[2]]
            yield done, len(parts), found

    @property
    def _unit(self) -> int:
        """Model pixels by which parts may move without moving what the network pools together."""
        strides = self.stride, *(self.available[name][1] for name in self.names)
        return math.lcm(*strides, 1 if isinstance(self._spec, EncoderSpec) else self._spec.size_multiple)

    def _parts(self, height: int, width: int) -> list[_Part]:
        core = max(CORE_PX // self._unit, 1) * self._unit
        return [
            _Part(y, x, min(core, height - y), min(core, width - x))
            for y in range(0, height, core)
            for x in range(0, width, core)
        ]

    @torch.inference_mode()
    def _features(self, image: NDArray[np.uint8], part: _Part, *, single: bool) -> list[NDArray[np.float32]]:
        """Return what the layers say of a part, at the field's stride."""
        spec = self._spec
        assert not isinstance(spec, EncoderSpec)  # noqa: S101 - for the type checker
        unit = self._unit
        halo = 0 if single else math.ceil(spec.halo_px / unit) * unit
        before = halo + spec.output_margin_px
        sides = [spec.fitting_side(math.ceil(side / unit) * unit + 2 * halo) for side in (part.height, part.width)]
        shape = sides[0] + 2 * spec.output_margin_px, sides[1] + 2 * spec.output_margin_px
        window = mirrored(image, part.y - before, part.x - before, shape)
        with self._watched(self.names) as said:
            self._run(self._normalised(window[None], spec.mean, spec.std))
        size = math.ceil(part.height / self.stride), math.ceil(part.width / self.stride)
        return [self._cut(said[name], self.available[name][1], shape, before, size) for name in self.names]

    def _cut(
        self, values: Tensor, stride: int, shape: tuple[int, int], before: int, size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Cut the part out of what a layer said of the window, and bring it to the field's stride."""
        if stride < self.stride:
            values, stride = F.avg_pool2d(values.float(), self.stride // stride), self.stride
        factor = stride // self.stride
        starts = []
        for axis in (0, 1):
            # What valid convolutions lose is lost on both sides.
            lost = (shape[axis] / stride - values.shape[2 + axis]) / 2
            starts.append(round((before / stride - lost) * factor))
        values = values.float()
        if factor > 1:
            values = F.interpolate(values, scale_factor=float(factor), mode="bilinear", align_corners=False)
        rows, columns = (
            torch.arange(start, start + count, device=values.device).clamp(0, values.shape[2 + axis] - 1)
            for axis, (start, count) in enumerate(zip(starts, size, strict=True))
        )
        return np.asarray(values[0][:, rows][:, :, columns].cpu().numpy(), np.float32)

    @torch.inference_mode()
    def _read_patches(
        self, image: NDArray[np.uint8], spec: EncoderSpec, found: list[NDArray[np.float32]]
    ) -> Iterator[tuple[int, int, list[NDArray[np.float32]]]]:
        """Run an encoder on four grids of patches, half a token apart, so that the field is twice as fine as tokens.

        The middle of a token must be the middle of a step: a grid begins a quarter or three quarters of a token before
        the view.
        """
        side, token = spec.input_px, spec.patch_px
        shifts = (token // 4, token // 4 + token // 2)
        counts = [math.ceil((length + shifts[1]) / side) for length in image.shape[:2]]
        jobs = [(dy, dx, row, column) for dy in (0, 1) for dx in (0, 1)
                for row in range(counts[0]) for column in range(counts[1])]  # fmt: skip
        for start in range(0, len(jobs), BATCH):
            batch = jobs[start : start + BATCH]
            pixels = [
                mirrored(image, r * side - shifts[dy], c * side - shifts[dx], (side, side)) for dy, dx, r, c in batch
            ]
            with self._watched(self.names) as said:
                self._run(self._normalised(np.stack(pixels), spec.mean, spec.std))
            self._place(said, batch, spec.side, found)
            yield min(start + BATCH, len(jobs)), len(jobs), found

    def _place(
        self,
        said: Mapping[str, Tensor],
        batch: Sequence[tuple[int, int, int, int]],
        side: int,
        found: list[NDArray[np.float32]],
    ) -> None:
        """Put the tokens of patches where they belong: every second step of the field."""
        for whole, name in zip(found, self.names, strict=True):
            tokens = said[name][:, -side * side :].float().transpose(1, 2)  # what comes before are no patches
            maps = tokens.reshape(len(batch), -1, side, side).cpu().numpy()
            for (dy, dx, row, column), values in zip(batch, maps, strict=True):
                ys, xs = 2 * (row * side + np.arange(side)) - dy, 2 * (column * side + np.arange(side)) - dx
                inside = (ys >= 0) & (ys < whole.shape[1]), (xs >= 0) & (xs < whole.shape[2])
                whole[:, ys[inside[0]][:, None], xs[inside[1]]] = values[:, inside[0]][:, :, inside[1]]

    def _normalised(
        self, pixels: NDArray[np.uint8], mean: tuple[float, float, float], std: tuple[float, float, float]
    ) -> Tensor:
        values = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device).permute(0, 3, 1, 2).float() / 255
        centre, width = (torch.tensor(part, device=self._device).view(1, 3, 1, 1) for part in (mean, std))
        return ((values - centre) / width).contiguous(memory_format=torch.channels_last)


def mirrored(image: NDArray[np.uint8], y: int, x: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut a window ``shape`` from ``(y, x)`` on; beyond the picture it is mirrored, as often as needed."""
    places = []
    for start, count, length in zip((y, x), shape, image.shape[:2], strict=True):
        period = max(2 * (length - 1), 1)
        at = np.arange(start, start + count) % period
        places.append(np.minimum(at, period - at) if length > 1 else np.zeros_like(at))
    return np.asarray(image[np.ix_(places[0], places[1])], np.uint8)
