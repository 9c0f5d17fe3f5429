"""Attention that a classifier of magnification learns to look with: on nuclei, without a single label.

Sahasrabudhe et al., Self-supervised nuclei segmentation in histopathological images using attention, MICCAI 2020.
The network F says for each pixel how sure it is to be worth a look; a sharp sigmoid around a level ``tau``, which a
fixed share of pixels exceeds, makes a sparse map A of it; a classifier G sees the picture through A.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.errors import ModelError, WeightsError
from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.resnet34 import ResNet34
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard, encode_model

HEADS = (
    HeadSpec("nuclei", 1, "sigmoid", "Nucleus probability", shown=False),
    HeadSpec("attention", 1, "sigmoid", "Attention"),
)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DILATIONS = (1, 2, 3, 5, 10, 20)
# At half resolution: nearly the same field of view.
HALF_DILATIONS = (1, 1, 2, 3, 5, 8)
TAU_MEMORY = 0.9
# Finer differences of the level are noise of whoever multiplies; before the sigmoid this is a fiftieth of a unit.
LEVEL_DIGITS = 3
_LEVEL = "+level"
# Under this name the published code keeps the trunk of G in the same file as F.
TRUNK = "feats_net.conv_block."


class Stem(nn.Module):
    """Convolution, normalisation, ReLU; ``(batch, 3, y, x)`` to ``(batch, width, y / stride, x / stride)``.

    With a stride the kernel has an even side, so that a picture and its mirror image give mirrored features.
    """

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        kernel = 3 if stride == 1 else 2 * stride
        self.main = nn.Sequential(
            nn.Conv2d(3, width, kernel, stride, padding=(kernel - stride + 1) // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return cast("Tensor", self.main(x))


class DilatedBlock(nn.Module):
    """Two dilated 3x3 convolutions added to their input; all ``(batch, width, y, x)``."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()

        def conv() -> nn.Conv2d:
            return nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)

        self.res = nn.Sequential(conv(), nn.BatchNorm2d(width), nn.ReLU(inplace=True), conv(), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features."""
        return F.relu(self.res(x) + x, inplace=True)


class ScaleAttention(nn.Module):
    """The network F and its level tau; 445,825 parameters and a field of view of 167 x 167 pixels as published.

    Parameters
    ----------
    width : int
        Channels.
    stride : int
        1 as published; 2 works at half resolution for a quarter of the work and enlarges its result.
    sparsity : float
        Share of a picture's pixels that exceed its own tau, 0..1.
    sharpness : float
        Slope of the sigmoid.

    Notes
    -----
    Buffers: ``tau``, float of shape (1,), the running level; ``first``, uint8 of shape (1,), 1 until it was set once.
    """

    tau: Tensor
    first: Tensor

    def __init__(self, width: int = 64, stride: int = 1, sparsity: float = 0.07, sharpness: float = 20.0) -> None:
        super().__init__()
        if stride not in {1, 2} or not 0 < sparsity < 1 or not sharpness > 0:
            raise ValueError("stride is 1 or 2, sparsity lies between 0 and 1, sharpness is above 0")
        self.stride, self.sparsity, self.sharpness = stride, sparsity, sharpness
        self.register_buffer("first", torch.ones(1, dtype=torch.uint8))
        self.register_buffer("tau", torch.zeros(1))
        dilations = DILATIONS if stride == 1 else HALF_DILATIONS
        blocks = [DilatedBlock(width, dilation) for dilation in dilations]
        self.attention_net = nn.Sequential(Stem(width, stride), *blocks, nn.Conv2d(width, 1, 1))

    def confidence(self, x: Tensor) -> Tensor:
        """Return how sure each pixel is, ``(batch, 1, y, x)`` float32, any range; before tau and the sigmoid."""
        *layers, last = self.attention_net.children()
        for layer in layers:
            x = layer(x)
        # A tenth of a unit decides between dark and bright: too little for bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            found = last(x.float())
            if self.stride > 1:
                found = F.interpolate(found, scale_factor=float(self.stride), mode="bilinear", align_corners=False)
        return cast("Tensor", found)

    def raw_map(self, confidence: Tensor, tau: Tensor | None = None) -> Tensor:
        """Return the map whose sigmoid is the attention A, around `tau` or the running level."""
        return self.sharpness * (confidence - (self.tau if tau is None else tau))

    def taus_of(self, confidence: Tensor) -> Tensor:
        """Return each picture's own level, ``(batch, 1, 1, 1)``: `sparsity` of its pixels exceed it; no gradient."""
        flat = confidence.detach().flatten(1).float()
        # Not every device can select the k-th largest; all can sort.
        highest_first = flat.sort(dim=1, descending=True).values
        return highest_first[:, int(self.sparsity * flat.shape[1])].view(-1, 1, 1, 1)

    def tau_of(self, confidence: Tensor) -> Tensor:
        """Return the mean of the pictures' own levels, shape (1,)."""
        return self.taus_of(confidence).mean().view(1)

    @torch.no_grad()
    def remember(self, tau: Tensor) -> None:
        """Move the running level towards that of a batch; the first one is taken as it is."""
        # Decided where the numbers are: a GPU would be waited for.
        before = torch.where(self.first.bool(), tau, self.tau)
        self.tau.copy_(torch.lerp(before, tau, 1 - TAU_MEMORY))
        self.first.zero_()

    @torch.no_grad()
    def level_to_zero(self) -> None:
        """Move the level into the last layer, so that it is 0 and the attention the same."""
        last = cast("nn.Conv2d", self.attention_net[-1])
        cast("nn.Parameter", last.bias).sub_(self.tau)
        self.tau.zero_()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw maps ``nuclei`` and ``attention``, the same ``(batch, 1, y, x)``; tau is the running one.

        The first is what nuclei and corrected labels go by, the second what is shown and painted attention goes by.
        """
        raw = self.raw_map(self.confidence(x))
        return {"nuclei": raw, "attention": raw}


class ScaleClassifier(nn.Module):
    """The network G: which of the magnifications a picture, seen through its attention, has.

    Parameters
    ----------
    levels : int
        Number of magnifications.
    width : int
        Channels of the trunk's first stage; 64 as published.
    """

    def __init__(self, levels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.trunk = ResNet34(width)
        self.linear = nn.Linear(self.trunk.outputs, levels)

    def forward(self, picture: Tensor, attention: Tensor) -> Tensor:
        """Return the logits ``(batch, levels)`` of normalised pictures ``(batch, 3, y, x)`` under A in 0..1."""
        features = self.trunk(picture * attention)
        return cast("Tensor", self.linear(features.float().mean(dim=(2, 3))))


def published_state(network: ScaleAttention, classifier: ScaleClassifier) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of F and G under the names that the method's published code keeps them by."""
    trunk = {f"{TRUNK}{key}": value for key, value in classifier.trunk.state_dict().items()}
    linear = {f"linear.{key}": value for key, value in classifier.linear.state_dict().items()}
    return {"model": {**network.state_dict(), **trunk}, "scale_net": linear}


def load_published_state(
    network: ScaleAttention, classifier: ScaleClassifier, state: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Load what `published_state` returned, or what the method's published code wrote.

    Raises
    ------
    WeightsError
        If a tensor is missing, foreign or of another size.
    """
    try:
        model, linear = state["model"], state["scale_net"]
        own = {key: value for key, value in model.items() if not key.startswith(TRUNK)}
        network.load_state_dict(own)
        classifier.trunk.load_state_dict({key.removeprefix(TRUNK): model[key] for key in model.keys() - own.keys()})
        classifier.linear.load_state_dict({key.removeprefix("linear."): value for key, value in linear.items()})
    except (KeyError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise WeightsError(f"these tensors are none of scale attention as it is set up: {reason}") from error


def estimate_tau(
    network: ScaleAttention,
    spec: ModelSpec,
    pictures: Iterable[NDArray[np.uint8]],
    *,
    share: float | None = None,
    otsu: bool = False,
) -> float:
    """Return the level of some pictures, all their pixels together.

    Parameters
    ----------
    network : ScaleAttention
        With weights, on any device.
    spec : ModelSpec
        Its normalisation.
    pictures : iterable of ndarray of uint8, shape (y, x, 3)
        RGB at the network's pixel size, sides divisible by its stride.
    share : float, optional
        Of the pixels that exceed the level, 0..1; default the network's own (`sparsity`).
    otsu : bool
        Let Otsu's threshold of the confidences say how many do, in place of `share`.

    Raises
    ------
    ModelError
        If there is no picture or the share makes no sense.
    """
    share = network.sparsity if share is None else share
    if not 0 < share < 1:
        raise ModelError(f"the share of pixels to look at lies between 0 and 1, not {share}")
    found = [confidences(network, spec, picture) for picture in pictures]
    if not found:
        raise ModelError("the level of attention cannot be estimated without a picture; name at least one")
    values = np.concatenate(found)
    if otsu:
        return otsu_level(values)
    return float(np.partition(values, place := len(values) - int(share * len(values)) - 1)[place])


def confidences(network: ScaleAttention, spec: ModelSpec, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how sure a network is of each pixel of a picture, shape (n,); see `estimate_tau`."""
    device = network.tau.device
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(picture)).to(device).permute(2, 0, 1)[None].float() / 255
        found = network.confidence((x - mean) / std).flatten().cpu().numpy()
    network.train(was_training)
    return cast("NDArray[np.float32]", found)


def otsu_level(values: NDArray[np.float32]) -> float:
    """Return the level that parts confidences, shape (n,), into two kinds of pixels."""
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(values))


def has_level(model: LoadedModel) -> bool:
    """Whether a level of attention decides what this model takes for a nucleus."""
    return isinstance(model.network, ScaleAttention)


def with_tau(model: LoadedModel, tau: float) -> LoadedModel:
    """Return a copy of a model whose level is set for good; its version is another, for its results are.

    Raises
    ------
    ModelError
        If it is no network of scale attention.
    """
    if not isinstance(model.network, ScaleAttention):
        raise ModelError(f"{model.card.name} has no level of attention; choose a model of the network {SPEC.name}")
    network = _network_at(model, tau)
    notes = "; ".join(filter(None, (model.card.notes, f"tau {tau:.4f}")))
    card = replace(model.card, parent=model.card.version, notes=notes, level_is_set=True)
    _, card = encode_model(network, model.spec, card, half=False)
    return LoadedModel(model.spec, card, network)


def at_level(model: LoadedModel, tau: float) -> LoadedModel:
    """Return a model of scale attention that is used at another level; card and weight file stay those it has.

    Parameters
    ----------
    model : LoadedModel
        Of a network of scale attention.
    tau : float
        The level; it is rounded to three digits, and the version says it.
    """
    tau = round(tau, LEVEL_DIGITS) + 0.0  # no minus zero
    return LoadedModel(model.spec, model.card, _network_at(model, tau), f"{_LEVEL}{tau:.{LEVEL_DIGITS}f}")


def level_in(version: str, card: ModelCard) -> float | None:
    """Return the level that `at_level` wrote into the version of a model with this card; None if it has none."""
    start = f"{card.version}{_LEVEL}"
    return float(version.removeprefix(start).partition("+")[0]) if version.startswith(start) else None


def _network_at(model: LoadedModel, tau: float) -> ScaleAttention:
    network = cast("ScaleAttention", copy.deepcopy(model.network))
    with torch.no_grad():
        network.tau.fill_(tau)
        network.first.zero_()
    return network.eval()


SPEC = ModelSpec(
    name="scale-attention",
    title="Attention learned from magnification, without labels (0.25 µm/px)",
    mpp_um=0.25,
    heads=HEADS,
    decoder="watershed",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    tile_px=768,  # nothing is pooled: 64 channels at full resolution fill the memory
    halo_px=112,  # 83 of the field of view, and more
    size_multiple=16,
    paper="Sahasrabudhe et al., MICCAI 2020, arXiv 2007.08373",
    receptive_field_px=167,
    good_for="Slides that nobody has annotated: it learns from magnification where to look.",
)


@register_model(SPEC)
def build(width: int = 64, stride: int = 1, sparsity: float = 0.07, sharpness: float = 20.0) -> ScaleAttention:
    """Build the network as published."""
    return ScaleAttention(width, stride, sparsity, sharpness)


@register_model(
    replace(
        SPEC,
        name="scale-attention-fast",
        title="Attention learned from magnification, at half resolution, without labels (0.25 µm/px)",
        tile_px=2048,
        receptive_field_px=166,
        stride=2,
        good_for="Slides that nobody has annotated, for a quarter of the work: it looks at half the resolution.",
    )
)
def build_fast(width: int = 64, stride: int = 2, sparsity: float = 0.07, sharpness: float = 20.0) -> ScaleAttention:
    """Build the same network at half resolution."""
    return ScaleAttention(width, stride, sparsity, sharpness)
