"""What is done to pixels before a foreign network and to maps after it: the steps that bioimage.io packages name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from napari_nucleiseg.core.errors import ModelError

# Such as {"id": "clip", "kwargs": {"min": 0, "max": 1}}.
Step = Mapping[str, Any]
# Where each axis of a tensor is, by the names that packages give them.
_PLACES = {"batch": 0, "channel": 1, "y": 2, "x": 3}
_TYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "uint8": torch.uint8,
    "int32": torch.int32,
    "int64": torch.int64,
}
_EPS = 1e-6
_MOST_ROWS = 1 << 24  # of what torch sorts at once for a percentile


def apply_steps(x: Tensor, steps: Sequence[Step]) -> Tensor:
    """Do the steps, one after the other.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, y, x)
        Floating point.
    steps : sequence of mapping
        Each with an ``id`` and ``kwargs``.

    Raises
    ------
    ModelError
        If a step is not known here, or its numbers make no sense; see `why_not`.
    """
    for step in steps:
        if reason := why_not((step,)):
            raise ModelError(reason)
        x = _STEPS[step["id"]](x, step.get("kwargs") or {})
    return x


def why_not(steps: Sequence[Step]) -> str:
    """Return why these steps cannot be done, in a few words; empty if they can."""
    for step in steps:
        name, given = step.get("id"), step.get("kwargs") or {}
        if name not in _STEPS:
            return f"the step {name} is not known here; known are {', '.join(_STEPS)}"
        if name == "ensure_dtype" and given.get("dtype") not in _TYPES:
            return f"numbers of the type {given.get('dtype')} cannot be made"
        axes = [*(given.get("axes") or ()), *([given["axis"]] if given.get("axis") else [])]
        if unknown := [axis for axis in axes if axis not in _PLACES]:
            return f"the step {name} works along an axis {unknown[0]}, which no picture has"
        if given.get("reference_tensor"):
            return f"the step {name} needs a second tensor"
    return ""


def _along(values: Any, given: Mapping[str, Any], x: Tensor) -> Tensor:
    """Return one number or one for each place on an axis, in a shape that can be combined with `x`."""
    found = torch.as_tensor(values, dtype=x.dtype, device=x.device)
    if found.ndim == 0:
        return found
    shape = [1, 1, 1, 1]
    shape[_PLACES[given.get("axis") or "channel"]] = len(found)
    return found.view(shape)


def _axes(given: Mapping[str, Any]) -> tuple[int, ...]:
    named = given.get("axes")
    return tuple(range(4)) if named is None else tuple(_PLACES[axis] for axis in named)


def _ensure_dtype(x: Tensor, given: Mapping[str, Any]) -> Tensor:
    return x.to(_TYPES[given["dtype"]])


def _scale_linear(x: Tensor, given: Mapping[str, Any]) -> Tensor:
    return x * _along(given.get("gain", 1.0), given, x) + _along(given.get("offset", 0.0), given, x)


def _fixed(x: Tensor, given: Mapping[str, Any]) -> Tensor:
    return (x - _along(given["mean"], given, x)) / _along(given["std"], given, x)


def _zero_mean(x: Tensor, given: Mapping[str, Any]) -> Tensor:
    axes = _axes(given)
    std, mean = torch.std_mean(x, dim=axes, correction=0, keepdim=True)
    return (x - mean) / (std + float(given.get("eps", _EPS)))


def _scale_range(x: Tensor, given: Mapping[str, Any]) -> Tensor:
    low = _percentile(x, given.get("min_percentile", 0.0), _axes(given))
    high = _percentile(x, given.get("max_percentile", 100.0), _axes(given))
    return (x - low) / (high - low + float(given.get("eps", _EPS)))


def _percentile(x: Tensor, percent: float, axes: tuple[int, ...]) -> Tensor:
    """Return a percentile over axes, which stay with a length of 1; between two values it is interpolated."""
    kept = [axis for axis in range(4) if axis not in axes]
    flat = x.permute(*kept, *axes).reshape([x.shape[axis] for axis in kept] + [-1])
    if flat.shape[-1] > _MOST_ROWS:
        raise ModelError("a picture is too large for percentiles of its values; use smaller tiles")
    ordered = flat.sort(dim=-1).values
    at = percent / 100 * (ordered.shape[-1] - 1)
    below = int(at)
    above = min(below + 1, ordered.shape[-1] - 1)
    found = torch.lerp(ordered[..., below], ordered[..., above], at - below)
    return found.reshape([1 if axis in axes else x.shape[axis] for axis in range(4)])


def _clip(x: Tensor, given: Mapping[str, Any]) -> Tensor:
    return x.clamp(given.get("min"), given.get("max"))


def _sigmoid(x: Tensor, _given: Mapping[str, Any]) -> Tensor:
    return torch.sigmoid(x)


def _softmax(x: Tensor, given: Mapping[str, Any]) -> Tensor:
    return torch.softmax(x, dim=_PLACES[given.get("axis") or "channel"])


_STEPS: Mapping[str, Callable[[Tensor, Mapping[str, Any]], Tensor]] = {
    "ensure_dtype": _ensure_dtype,
    "scale_linear": _scale_linear,
    "fixed_zero_mean_unit_variance": _fixed,
    "zero_mean_unit_variance": _zero_mean,
    "scale_range": _scale_range,
    "clip": _clip,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
}
