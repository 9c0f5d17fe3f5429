"""What a frozen network says of every place of a view: dense features, read from its layers, of one step and scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed, rgb2lab

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.encoders import LoadedEncoder
    from napari_nucleiseg.core.models.weights import LoadedModel

AUTO = "auto"
# A step of the field: a nucleus is some six to ten of them across.
STEP_UM = 1.0
_SMALLEST_STD = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class FeatureField:
    """Dense frozen features of a view.

    Parameters
    ----------
    features : ndarray of float32, shape (channels, rows, columns)
        Of each channel the mean over the view is 0 and the variance 1, divided by the number of the channels of its
        layer, so that layers weigh the same.
    stride : int
        Model pixels of one step of the field.
    mpp_um : float
        Micrometres per pixel of the model.
    origin : YX
        Upper left corner of the view in level-0 pixels.
    shape : tuple of int
        Height and width of the view in its own pixels.
    view_mpp_um : float
        Micrometres per pixel of the view.
    layers : tuple of str
        Where the features were read; ``colour`` of those of no network.
    """

    features: NDArray[np.float32]
    stride: int
    mpp_um: float
    origin: YX
    shape: tuple[int, int]
    view_mpp_um: float
    layers: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.features)

    @property
    def step(self) -> YX:
        """View pixels of one step of the field, ``(y, x)``."""
        height, width = self.model_shape
        return YX(self.stride * self.shape[0] / height, self.stride * self.shape[1] / width)

    @property
    def model_shape(self) -> tuple[int, int]:
        """Height and width of the view in the model's pixels."""
        return scaled(self.shape, self.view_mpp_um / self.mpp_um)

    def on_view(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enlarge a map ``(rows, columns)`` of the field to the view's pixels, bilinear."""
        step, (height, width) = self.step, self.shape
        ys = ((np.arange(height, dtype=np.float32) + 0.5) / step.y - 0.5).astype(np.float32)
        xs = ((np.arange(width, dtype=np.float32) + 0.5) / step.x - 0.5).astype(np.float32)
        columns = np.repeat(xs[None], height, axis=0)
        rows = np.repeat(ys[:, None], width, axis=1)
        source = np.ascontiguousarray(values, np.float32)
        return np.asarray(
            cv2.remap(source, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32
        )


@dataclass(frozen=True, slots=True, eq=False)
class FieldStep:
    """A part of a field has been computed.

    Parameters
    ----------
    done, total : int
        Parts of the view.
    field : FeatureField or None
        With the last part.
    """

    done: int
    total: int
    field: FeatureField | None = None


def field_of(
    model: LoadedModel | LoadedEncoder,
    image: NDArray[np.uint8],
    mpp_um: float,
    layer: str = AUTO,
    *,
    origin: tuple[float, float] = (0.0, 0.0),
    device: str = "auto",
) -> FeatureField:
    """Compute the features of a view; see `field_steps`, which does the same and can be left half-way.

    Parameters
    ----------
    model : LoadedModel or LoadedEncoder
        A network that finds nuclei, or an encoder of patches.
    image : ndarray of uint8, shape (y, x, 3)
        RGB of the view.
    mpp_um : float
        Micrometres per pixel of `image`.
    layer : str
        Names of layers (`layers_of`), joined by ``+``; ``auto`` chooses.
    origin : tuple of float
        Upper left corner of the view in level-0 pixels, only to be remembered.
    device : str
        ``auto``, ``cuda``, ``mps``, ``cpu``.

    Raises
    ------
    DataError
        If it is no picture or its pixel size makes no sense.
    ModelError
        If the network has no such layer, or cannot run.
    """
    *_, last = field_steps(model, image, mpp_um, layer, origin=origin, device=device)
    if last.field is None:
        raise DataError("the features of this view could not be computed; choose another view")
    return last.field


def field_steps(
    model: LoadedModel | LoadedEncoder,
    image: NDArray[np.uint8],
    mpp_um: float,
    layer: str = AUTO,
    *,
    origin: tuple[float, float] = (0.0, 0.0),
    device: str = "auto",
) -> Iterator[FieldStep]:
    """Compute the features of a view part by part; parameters and errors as for `field_of`.

    Yields
    ------
    FieldStep
        After each part; the last one holds the field. Whoever stops iterating has cancelled.
    """
    from napari_nucleiseg.core.fewshot.layers import LayerReader

    check_picture(image, mpp_um)
    reader = LayerReader(model, layer, device)
    field = FeatureField(
        np.zeros((0, 0, 0), np.float32),
        reader.stride,
        model.spec.mpp_um,
        YX(*origin),
        (image.shape[0], image.shape[1]),
        mpp_um,
        reader.names,
    )
    height, width = field.model_shape
    small = height < image.shape[0]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if small else cv2.INTER_CUBIC)
    groups: list[NDArray[np.float32]] = []
    for done, total, found in reader.read(np.asarray(resized, np.uint8)):
        groups = found
        if done < total:
            yield FieldStep(done, total)
    yield FieldStep(total, total, replace(field, features=normalised(groups)))


def layers_of(model: LoadedModel | LoadedEncoder) -> dict[str, tuple[int, int]]:
    """Return the layers that can be looked into, in the order in which they are computed: channels, stride.

    Raises
    ------
    ModelError
        If the network shows none, such as one that another program has packed.
    """
    from napari_nucleiseg.core.fewshot.layers import LayerReader

    return LayerReader(model, AUTO, "cpu").outermost


def colour_field(image: NDArray[np.uint8], mpp_um: float, *, origin: tuple[float, float] = (0.0, 0.0)) -> FeatureField:
    """Return what colour alone says: Lab and haematoxylin, eosin, residual, at steps of `STEP_UM`; no network.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB of the view.
    mpp_um : float
        Micrometres per pixel of `image`.
    origin : tuple of float
        Upper left corner of the view in level-0 pixels.
    """
    check_picture(image, mpp_um)
    field = FeatureField(
        np.zeros((0, 0, 0), np.float32), 1, STEP_UM, YX(*origin), (image.shape[0], image.shape[1]), mpp_um, ("colour",)
    )
    height, width = field.model_shape
    # OpenCV takes the mean over areas of at most four channels at once.
    colours = [
        cv2.resize(colour.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        for colour in (rgb2lab(image), rgb2hed(image))
    ]
    found = np.concatenate(colours, axis=2, dtype=np.float32)
    return replace(field, features=normalised([np.ascontiguousarray(found.transpose(2, 0, 1))]))


def normalised(groups: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Bring the channels of layers, each ``(channels, rows, columns)``, to one scale and stack them."""
    scaled_groups = []
    for group in groups:
        mean = group.mean(axis=(1, 2), keepdims=True)
        std = group.std(axis=(1, 2), keepdims=True)
        # A channel that says the same everywhere says nothing.
        factor = np.where(std > _SMALLEST_STD, 1 / np.maximum(std, _SMALLEST_STD), 0) / np.sqrt(len(group))
        scaled_groups.append(((group - mean) * factor).astype(np.float32))
    return np.concatenate(scaled_groups)


def scaled(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Return height and width times a factor, at least 1."""
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def check_picture(image: NDArray[np.uint8], mpp_um: float) -> None:
    """Refuse what is no picture.

    Raises
    ------
    DataError
        With what is wrong.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise DataError(f"a view is an RGB picture of 8 bits (y, x, 3), not {image.shape}, {image.dtype}")
    if not 0.01 < mpp_um < 100:
        raise DataError(f"{mpp_um} um per pixel cannot be right; give the pixel size of the view")
