"""What of a model is exported, and whether the exported file says what the model says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

import napari_nucleiseg
from napari_nucleiseg.core.errors import ExportError, NucleiSegError
from napari_nucleiseg.core.models.imported import is_imported
from napari_nucleiseg.core.models.programs import Program
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.slides.synthetic import synthetic_slide

# Of the largest value of an input: of RGB, and of the grey values of a stack, which are stretched to 0..1.
_WHITE, _BRIGHT = 255.0, 1.0
# An exported map may differ from the model's by this, plus this share of its value. Float32 gives a hundredth of it.
TOLERANCE = 1e-4
_SEED = 5
_EXAMPLE_PX = 128


@dataclass(frozen=True, slots=True)
class Input:
    """What an exported model is given.

    Parameters
    ----------
    name : str
        Of the tensor.
    channels : tuple of str
        Their names.
    axes : str
        Letters of the axes of space.
    most : float
        What the brightest value is.
    """

    name: str
    channels: tuple[str, ...]
    axes: str
    most: float


RGB = Input("rgb", ("red", "green", "blue"), "yx", _WHITE)
GREY = Input("grey", ("grey",), "zyx", _BRIGHT)


def input_of(spec: ModelSpec) -> Input:
    """Return what a network is given: RGB of a picture, or one channel of a stack."""
    return RGB if spec.dimensions == 2 else GREY


class Exported(nn.Module):
    """A model as other programs are given it: one tensor in, activated maps out, in the order of its heads.

    Parameters
    ----------
    model : LoadedModel
        On the CPU; it is not changed.
    scaled : bool
        True: the input is RGB in 0..255, or of a stack grey values in 0..1, and normalising is part of it. False: the
        input is normalised already.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: LoadedModel, *, scaled: bool) -> None:
        super().__init__()
        self.network, self.heads, self.scaled = model.network, model.spec.heads, scaled
        given = input_of(model.spec)
        shape = (1, len(given.channels), *(1 for _ in given.axes))
        for name, values in (("mean", model.spec.mean), ("std", model.spec.std)):
            value = given.most * torch.tensor(values[: len(given.channels)]).view(shape)
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the maps of all heads, each ``(batch, channels, [z,] y, x)``: probabilities, or in model pixels.

        Parameters
        ----------
        x : Tensor, shape (batch, 3, y, x), or of a stack (batch, 1, z, y, x)
            Float32; see `scaled`.
        """
        found = self.network((x - self.mean) / self.std if self.scaled else x)
        raw = [found[head.name].float() for head in self.heads]
        maps = [
            torch.sigmoid(one) if head.activation == "sigmoid" else one
            for one, head in zip(raw, self.heads, strict=True)
        ]
        return maps[0] if len(maps) == 1 else tuple(maps)


def exported_of(model: LoadedModel, *, scaled: bool) -> Exported:
    """Return a model ready to be exported.

    Raises
    ------
    ExportError
        If it is the network of another program, which that program has already.
    """
    if is_imported(model.network):
        raise ExportError(
            f"{model.card.name} was imported from another program and stays as it came: take that file, or copy it "
            "as a weight file (without --as)."
        )
    return Exported(model, scaled=scaled).eval().requires_grad_(requires_grad=False)


def facts_of(model: LoadedModel) -> dict[str, Any]:
    """Return what others must know of a model, its card with licence and training data included, as JSON has it."""
    spec = model.spec
    given = input_of(spec)
    colours = f"channel ({', '.join(given.channels)})"
    return {
        "made_with": f"napari-nucleiseg {napari_nucleiseg.__version__}",
        "version": model.version,
        "input": {
            "name": given.name,
            "axes": ", ".join(("batch", colours, *given.axes)),
            "mpp_um": spec.mpp_um,
            "mean": list(spec.mean),
            "std": list(spec.std),
            "side_px": {"min": least_side(spec), "step": spec.size_multiple},
        },
        "outputs": [asdict(head) for head in spec.heads],
        "decoder": spec.decoder,
        "tile_px": spec.tile_px,
        "halo_px": spec.halo_px,
        "output_margin_px": spec.output_margin_px,
        "paper": spec.paper,
        "card": asdict(model.card),
    }


def facts_as_text(model: LoadedModel) -> str:
    """Return `facts_of` as text."""
    return json.dumps(facts_of(model), ensure_ascii=False, indent=1)


def least_side(spec: ModelSpec) -> int:
    """Return the smallest side of an input, in pixels, that leaves something between the halos."""
    return spec.fitting_side(2 * spec.halo_px + 1) + 2 * spec.output_margin_px


def side_near(spec: ModelSpec, wanted_px: int) -> int:
    """Return the smallest side of an input that the network can take and whose output is at least `wanted_px`."""
    return max(spec.fitting_side(wanted_px) + 2 * spec.output_margin_px, least_side(spec))


def tissue(height: int, width: int, mpp_um: float) -> NDArray[np.uint8]:
    """Return drawn H&E tissue, uint8 ``(height, width, 3)`` RGB, always the same."""
    slide = synthetic_slide(height, width, mpp_um, seed=_SEED, glass=False)
    return slide.read_region(slide.region)


def drawn_stack(depth: int, height: int, width: int) -> NDArray[np.float32]:
    """Return a stack ``(z, y, x)`` of bright bodies as large as nuclei at 0.5 um, 0..1, always the same."""
    noise = np.random.default_rng(_SEED).standard_normal((depth, height, width), np.float32)
    bodies = ndimage.gaussian_filter(noise, 4.0)
    bright = 1 / (1 + np.exp(-6 * (bodies / bodies.std() - 1)))
    return np.asarray(np.clip(0.1 + 0.7 * bright + 0.03 * noise, 0, 1), np.float32)


def example_of(spec: ModelSpec) -> Tensor:
    """Return zeros to trace a network with: two at once, of unequal sides, so that what depends on the size shows."""
    given = input_of(spec)
    side = side_near(spec, _EXAMPLE_PX) if given is RGB else least_side(spec)
    return torch.zeros(2, len(given.channels), *(side for _ in given.axes[1:]), side + spec.size_multiple)


def trial_inputs(spec: ModelSpec) -> Iterator[NDArray[np.float32]]:
    """Iterate over inputs of several sizes, one or two at once.

    Float32 ``(batch, 3, y, x)``, RGB 0..255; of a stack ``(batch, 1, z, y, x)``, 0..1.
    """
    small = least_side(spec)
    if spec.dimensions == 3:
        for batch, depth, width in ((1, small, small), (2, small, small + spec.size_multiple)):
            yield drawn_stack(batch * depth, small, width).reshape(batch, 1, depth, small, width)
        return
    for batch, height, width in (
        (1, small, small),
        (2, small + spec.size_multiple, small),
        (1, small, small + 3 * spec.size_multiple),
    ):
        picture = tissue(height * batch, width, spec.mpp_um).reshape(batch, height, width, 3)
        yield np.ascontiguousarray(picture.transpose(0, 3, 1, 2), np.float32)


@torch.inference_mode()
def must_agree(model: LoadedModel, program: Program, *, scaled: bool, what: str) -> None:
    """Run what was exported beside the model it was made of.

    Parameters
    ----------
    model : LoadedModel
        The model.
    program : callable
        What was exported, opened again.
    scaled : bool
        See `Exported`.
    what : str
        Name of the format, for people.

    Raises
    ------
    ExportError
        If it cannot be run on one of `trial_inputs`, or does not say the same within `TOLERANCE`.
    """
    reference = Exported(model, scaled=scaled).eval()
    for picture in trial_inputs(model.spec):
        x = torch.from_numpy(picture)
        x = x if scaled else (x - reference.mean) / reference.std
        shape = " x ".join(map(str, picture.shape))
        expected = reference(x)
        expected = (expected,) if isinstance(expected, Tensor) else expected
        try:
            found = program(x)
        except (RuntimeError, ValueError, NucleiSegError) as error:
            reason = (str(error).strip().splitlines() or [""])[-1]
            raise ExportError(
                f"{model.card.name} cannot be exported as {what}: what came out does not run on {shape} ({reason}). "
                "No file was written; choose another format."
            ) from error
        names = [head.name for head in model.spec.heads]
        wrong = [name for name, one, other in zip(names, expected, found, strict=False) if not agree(one, other)]
        if len(found) != len(expected) or wrong:
            raise ExportError(
                f"{model.card.name} cannot be exported as {what}: on {shape} what came out says something else than "
                f"the model ({', '.join(wrong) or 'another number of outputs'}). No file was written; choose another "
                "format."
            )


def agree(expected: Tensor, found: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether two maps are of the same shape and the same within a tolerance."""
    if expected.shape != found.shape:
        return False
    apart = (expected.double() - found.double()).abs()
    return bool((apart <= tolerance * (1 + expected.double().abs())).all())
