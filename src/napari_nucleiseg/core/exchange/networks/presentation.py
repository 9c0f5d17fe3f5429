"""What people see of a model package: a cover made by a real run, and a page about the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.exchange.networks.exported import RGB, input_of
from napari_nucleiseg.core.models.spec import HeadSpec
from napari_nucleiseg.core.models.weights import LoadedModel

_COVER_PX = 480
_OUTLINE = (20, 220, 120)


def cover_of(model: LoadedModel, test: NDArray[Any], outputs: Sequence[NDArray[np.float32]]) -> bytes:
    """Return a PNG twice as wide as high: a picture, and the same with the outlines of the nuclei that were found.

    Of a stack it is the middle plane.

    Parameters
    ----------
    model : LoadedModel
        What found them.
    test : ndarray of uint8, shape (1, 3, y, x), or float32, shape (1, 1, z, y, x)
        RGB, or grey values 0..1.
    outputs : sequence of ndarray of float32, shape (1, channels, [z,] y, x)
        Of all its heads, in their order.
    """
    import cv2
    import imagecodecs

    maps = {head.name: found[0] for head, found in zip(model.spec.heads, outputs, strict=True)}
    options = DecodeOptions(model.card.threshold, model.card.min_area_um2)
    labels = decoder(model.spec.decoder).decode(maps, model.spec.mpp_um, options).labels
    if labels.ndim == 3:
        middle = labels.shape[0] // 2
        labels = labels[middle]
        picture = np.repeat((255 * test[0, 0, middle, :, :, None]).astype(np.uint8), 3, axis=2)
    else:
        picture = test[0].transpose(1, 2, 0)
    margin = model.spec.output_margin_px
    seen = picture[margin : picture.shape[0] - margin, margin : picture.shape[1] - margin]
    large = cv2.resize(seen, (_COVER_PX, _COVER_PX), interpolation=cv2.INTER_CUBIC)
    ids = cv2.resize(labels, (_COVER_PX, _COVER_PX), interpolation=cv2.INTER_NEAREST).astype(np.float32)
    around = np.ones((3, 3), np.uint8)
    outlined = large.copy()
    outlined[cv2.dilate(ids, around) != cv2.erode(ids, around)] = _OUTLINE
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(np.hstack([large, outlined]))))


def readme_of(model: LoadedModel) -> str:
    """Return the page of a model: what it is, what it takes and gives, licence, training data, how to validate it."""
    card, spec = model.card, model.spec
    given = input_of(spec)
    grey = "One channel of a stack, its grey values from the first percentile to the 99.9th stretched to 0 to 1,"
    where, what = ("in H&E", "RGB, 0 to 255,") if given is RGB else ("in z-stacks", grey)
    commercial = "" if card.commercial_use else " They are **not for commercial use**."
    parts = [
        f"# {card.title or card.name}",
        f"{spec.title}. Finds nuclei {where}; exported by napari-nucleiseg as `{model.version}`.",
        "## Licence",
        f"The weights are under {card.licence}.{commercial}",
        "## Training data",
        _lines(card.training_data) or "Not stated.",
        "## Input and output",
        (
            f"{what} at {spec.mpp_um:g} micrometres per pixel: resample what has another pixel size. "
            f"Of a large one, tiles that overlap by {spec.halo_px} px on each side. What the cover shows is drawn, no "
            "scan."
        ),
        _lines(f"`{head.name}`: {head.title or head.name}, {_kind(head)}" for head in spec.heads),
        (
            f"Nuclei are made of these by the decoder `{spec.decoder}`, with a threshold of {card.threshold:g} and a "
            f"smallest area of {card.min_area_um2:g} square micrometres."
        ),
        "## Paper",
        spec.paper or "None is stated.",
        "## Validation",
        "Compare the nuclei with labels of your own: `napari-nucleiseg evaluate` gives AJI, PQ and others.",
        _lines(f"{name}: {_shown(value)}" for name, value in card.metrics.items()) or "No scores are stated.",
        "Research use only: this is no medical device.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _kind(head: HeadSpec) -> str:
    if head.activation == "sigmoid":
        return "probability, 0 to 1"
    return "-1 to 1" if head.name == "hover" else "in pixels"


def _lines(values: Any) -> str:
    return "\n".join(f"- {value}" for value in values)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
