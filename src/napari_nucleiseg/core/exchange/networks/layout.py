"""What a bioimage.io document says of the tensors of its model: axes, sizes, pixel size, values, channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.steps import Step, why_not

_MICROMETRES = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}
_COLOURS = 3


@dataclass(frozen=True, slots=True)
class Sides:
    """Sides of its input that a network takes, in pixels: ``least + n * step``.

    Parameters
    ----------
    least, step : int
        A step of 0: no other side than the least.
    """

    least: int
    step: int


@dataclass(frozen=True, slots=True)
class InputLayout:
    """The input of a model.

    Parameters
    ----------
    name : str
        Of the tensor.
    axes : str
        Letters of ``bcyx`` in their order.
    sides : Sides
        Of height and width.
    scale : float
        What the document calls the size of a pixel, in whatever unit.
    mpp_um : float or None
        Micrometres per pixel; None if it is not stated.
    least, most : float or None
        Range of its values, where it is stated.
    is_byte : bool
        Whether its values are 8-bit.
    before : tuple of mapping
        Steps before the network.
    one_at_a_time : bool
        Whether it takes a single picture.
    test : object
        Where its test tensor lies.
    """

    name: str
    axes: str
    sides: Sides
    scale: float
    mpp_um: float | None
    least: float | None
    most: float | None
    is_byte: bool
    before: tuple[Step, ...]
    one_at_a_time: bool
    test: Any


@dataclass(frozen=True, slots=True)
class OutputLayout:
    """An output of a model.

    Parameters
    ----------
    name, title : str
        Of the tensor.
    axes : str
        Letters of ``bcyx`` in their order; empty if it is no map of the input's pixels.
    channels : tuple of str
        Names of its channels.
    margin_px : int
        Pixels that it is smaller than the input, on each side.
    halo_px : int
        Pixels at its border that are not to be used.
    after : tuple of mapping
        Steps after the network.
    test : object
        Where its test tensor lies.
    reason : str
        Why it cannot be used; empty if it can.
    """

    name: str
    title: str
    axes: str
    channels: tuple[str, ...]
    margin_px: int
    halo_px: int
    after: tuple[Step, ...]
    test: Any
    reason: str = ""


def read_input(document: Mapping[str, Any]) -> InputLayout:
    """Return the layout of the one input.

    Raises
    ------
    WeightsError
        If the network reads anything but one colour picture.
    """
    inputs = document["inputs"]
    if len(inputs) != 1:
        raise WeightsError(f"it reads {len(inputs)} inputs, and slides have one; it cannot be used")
    tensor = inputs[0]
    axes = [dict(axis) for axis in tensor["axes"]]
    letters = _letters(axes)
    if sorted(letters) != sorted("bcyx"):
        raise WeightsError(
            f"its input has the axes {_told(axes)}, and what is read here is a batch of pictures with colours: batch, "
            "channel, y, x in any order. It cannot be used"
        )
    channels = axes[letters.index("c")].get("channel_names") or ()
    if len(channels) != _COLOURS:
        raise WeightsError(f"it reads {len(channels)} channels, and slides have red, green and blue; it cannot be used")
    before = tuple(tensor.get("preprocessing") or ())
    if reason := why_not(before):
        raise WeightsError(f"its preprocessing cannot be done: {reason}")
    data = tensor.get("data") or {}
    data = data[0] if isinstance(data, list) else data
    least, most = data.get("range") or (None, None)
    name = str(tensor.get("id", "input"))
    return InputLayout(
        name=name,
        axes=letters,
        sides=_sides(axes, letters, name),
        scale=float(axes[letters.index("y")].get("scale", 1.0)),
        mpp_um=_pixel_size(axes, letters),
        least=None if least is None else float(least),
        most=None if most is None else float(most),
        is_byte=data.get("type") == "uint8",
        before=before,
        one_at_a_time=axes[letters.index("b")].get("size") == 1,
        test=tensor.get("test_tensor"),
    )


def read_outputs(document: Mapping[str, Any], given: InputLayout) -> tuple[OutputLayout, ...]:
    """Return the layouts of all outputs, those that cannot be used included."""
    return tuple(_output(tensor, given) for tensor in document["outputs"])


def _output(tensor: Mapping[str, Any], given: InputLayout) -> OutputLayout:
    name = str(tensor.get("id", "output"))
    axes = [dict(axis) for axis in tensor["axes"]]
    letters = _letters(axes)
    after = tuple(tensor.get("postprocessing") or ())
    reason, halo = why_not(after), 0
    margin: int | None = 0
    if sorted(letters) not in (sorted("bcyx"), sorted("byx")):
        reason = f"its axes are {_told(axes)}"
    else:
        spaces = [axes[letters.index(axis)] for axis in "yx"]
        lost = {_lost(axis, given) for axis in spaces}
        halo = max(int(axis.get("halo") or 0) for axis in spaces)
        (margin,) = lost if len(lost) == 1 else (None,)
        if margin is None or margin < 0:
            reason = "it is not of the input's size"
    channels = tuple(map(str, axes[letters.index("c")]["channel_names"])) if "c" in letters else (name,)
    title = str(tensor.get("description") or "")
    return OutputLayout(name, title, letters, channels, margin or 0, halo, after, tensor.get("test_tensor"), reason)


def _letters(axes: Sequence[Mapping[str, Any]]) -> str:
    """Return a letter for each axis; ``?`` for one that no picture has."""
    found = ""
    for axis in axes:
        kind, name = axis.get("type"), str(axis.get("id", ""))
        found += {"batch": "b", "channel": "c"}.get(str(kind), name if kind == "space" and name in {"y", "x"} else "?")
    return found


def _told(axes: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(axis.get("id") or axis.get("type")) for axis in axes)


def _sides(axes: Sequence[Mapping[str, Any]], letters: str, name: str) -> Sides:
    """Return the sides that both axes can have."""
    sizes = {axis: axes[letters.index(axis)]["size"] for axis in "yx"}
    for axis, size in sizes.items():  # one axis may be said to be as long as the other
        if isinstance(size, Mapping) and "axis_id" in size:
            if size.get("tensor_id", name) != name or size.get("offset") or size["axis_id"] == axis:
                raise WeightsError("the sizes of its input depend on each other in a way that is not known here")
            sizes[axis] = sizes[size["axis_id"]]
    found = {axis: _side(size) for axis, size in sizes.items()}
    if found["y"] != found["x"]:
        raise WeightsError("its input is of other sizes in y than in x, and tiles are squares; it cannot be used")
    return found["y"]


def _side(size: Any) -> Sides:
    if isinstance(size, Mapping):
        return Sides(int(size["min"]), int(size["step"]))
    return Sides(int(size), 0)


def _pixel_size(axes: Sequence[Mapping[str, Any]], letters: str) -> float | None:
    """Return micrometres per pixel; None if no unit is stated, for then a scale says nothing."""
    spaces = [axes[letters.index(axis)] for axis in "yx"]
    found = {_MICROMETRES.get(str(axis.get("unit")), 0.0) * float(axis.get("scale", 1.0)) for axis in spaces}
    if len(found) > 1:
        raise WeightsError("its pixels are not squares, and tiles have square pixels; it cannot be used")
    (mpp,) = found
    return mpp or None


def _lost(axis: Mapping[str, Any], given: InputLayout) -> int | None:
    """Return how many pixels an output is smaller than the input on each side; None if it is of another scale."""
    size = axis["size"]
    if isinstance(size, Mapping):
        same_axis = size.get("tensor_id") == given.name and size.get("axis_id") == axis.get("id")
        if not same_axis or float(axis.get("scale", 1.0)) != given.scale:
            return None
        lost = -int(size.get("offset") or 0)
    else:
        lost = given.sides.least - int(size) if not given.sides.step else -1
    return lost // 2 if lost >= 0 and lost % 2 == 0 else None
