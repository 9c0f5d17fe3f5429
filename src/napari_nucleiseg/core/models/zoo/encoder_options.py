"""The default network whose encoder has an option: channel weights, chosen kernels, mixed kernels or bent kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.deformable import PredictedDeformation
from napari_nucleiseg.core.models.nuclei_unet import STEM, NucleiUNet, ResidualBlock
from napari_nucleiseg.core.models.pooled_norm import PooledBatchNorm
from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.zoo.contract import as_module, library, zoo_spec

# Puts an option into one block of the encoder.
Option = Callable[[ResidualBlock], None]
HOTTEST, COOLEST, DROP = 34, 1, 3
STRIDE = STEM * 2**4
# What one output pixel of the default network sees, and with kernels bent by 8 steps of the three coarsest levels.
SEEN_PX = 412
BENT_SEEN_PX = SEEN_PX + 2 * 8 * (8 + 16 + 32)


class DynamicConv2d(nn.Module):
    """Dynamic convolution (Chen et al., CVPR 2020): each picture mixes its own kernel out of a few.

    The shares are ``softmax(FC(ReLU(FC(mean of the picture))) / T)``. T falls from 34 to 1 in steps of 3 while the
    network is trained, so that all kernels learn before some are preferred; it is counted in forward passes, and the
    count is saved with the weights.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernels : int
        How many are mixed; 4 as published.
    cooling_steps : int
        Forward passes while training after which the temperature falls by 3; the paper's are those of an epoch.
    """

    def __init__(self, inputs: int, outputs: int, kernels: int = 4, cooling_steps: int = 100) -> None:
        super().__init__()
        if kernels < 1 or cooling_steps < 1:
            raise ModelError("dynamic convolution needs at least one kernel and one step at each temperature")
        self.cooling_steps = cooling_steps
        plain = [nn.Conv2d(inputs, outputs, 3) for _ in range(kernels)]
        # One behind the other: memory formats want four axes.
        self.weight = nn.Parameter(torch.cat([one.weight.detach() for one in plain]))
        self.bias = nn.Parameter(torch.zeros(kernels, outputs))
        squeezed = max(inputs // 4, 1)
        self.attention = nn.Sequential(nn.Linear(inputs, squeezed), nn.ReLU(), nn.Linear(squeezed, kernels))
        self.passes: Tensor
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    @property
    def temperature(self) -> Tensor:
        """What the softmax is divided by at present: a number in 1..34."""
        return (HOTTEST - DROP * (self.passes // self.cooling_steps)).clamp(min=COOLEST)

    def shares(self, x: Tensor) -> Tensor:
        """Return each kernel's share in each picture, float32 ``(batch, kernels)``, summing to 1."""
        logits = cast("Tensor", self.attention(x.mean(dim=(2, 3))))
        return torch.softmax(logits.float() / self.temperature, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(batch, outputs, y, x)``."""
        shares = self.shares(x)
        if self.training:
            self.passes += 1
        if _is_exported():
            return self._of_any_batch(x, shares)
        batch, inputs, height, width = x.shape
        mixed = shares @ self.weight.reshape(shares.shape[1], -1)
        # One group a picture: its own kernel on its own channels.
        found = F.conv2d(
            x.reshape(1, batch * inputs, height, width),
            mixed.view(-1, inputs, 3, 3),
            (shares @ self.bias).flatten(),
            padding=1,
            groups=batch,
        )
        return found.view(batch, -1, height, width)

    def _of_any_batch(self, x: Tensor, shares: Tensor) -> Tensor:
        """Mix what all kernels find: the same, with more work; an exported network must take any number of pictures."""
        found = F.conv2d(x, self.weight, self.bias.flatten(), padding=1).unflatten(1, self.bias.shape)
        return cast("Tensor", (found * shares[:, :, None, None, None]).sum(dim=1))


def _is_exported() -> bool:
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call] # public, by its page
    return bool(traced) or torch.compiler.is_compiling()


class EncoderOptionUNet(NucleiUNet):
    """The default network with an option in the blocks of its encoder; all else is the same, so that it compares.

    Parameters
    ----------
    option : callable, optional
        Changes a block in place; None leaves the default network.
    first_level : int
        The finest level with the option; finer ones stay plain.
    width, depth, widest, detail
        As for `NucleiUNet`.

    Raises
    ------
    ModelError
        If no level is left for the option.
    """

    def __init__(
        self,
        option: Option | None,
        first_level: int = 0,
        *,
        width: int = 32,
        depth: int = 4,
        widest: int = 192,
        detail: int = 0,
    ) -> None:
        super().__init__(width, depth, widest, detail)
        if not 0 <= first_level <= depth:
            raise ModelError(f"first_level must be 0 to {depth}, the levels of the network, not {first_level}")
        if option is not None:
            for block in self.encoder[first_level:]:
                option(cast("ResidualBlock", block))


def _channels(block: ResidualBlock) -> tuple[int, int]:
    plain = cast("nn.Conv2d", block.first[0])
    return plain.in_channels, plain.out_channels


def squeeze_and_excite(reduction: int = 16) -> Option:
    """Weigh channels by what the whole picture shows (Hu et al., CVPR 2018), before the skip is added.

    Parameters
    ----------
    reduction : int
        By how much channels are squeezed; 16 as published. The library keeps at least 8.
    """
    module = library("timm.layers").SEModule

    def change(block: ResidualBlock) -> None:
        block.second.append(as_module(module(_channels(block)[1], rd_ratio=1 / reduction)))

    return change


def select_kernels(groups: int = 1, reduction: int = 16) -> Option:
    """Let each channel choose between a small and a wide kernel (Li et al., CVPR 2019), in the first convolution.

    Parameters
    ----------
    groups : int
        Of each kernel's channels, as far as they divide; the paper's bottlenecks have 32, between convolutions that
        mix channels, which these blocks do not have.
    reduction : int
        By how much channels are squeezed, to 32 at least; 16 as published.
    """
    module = library("timm.layers").SelectiveKernel

    def change(block: ResidualBlock) -> None:
        inputs, outputs = _channels(block)
        kernel = module(
            inputs,
            outputs,
            groups=math.gcd(groups, inputs, outputs),
            rd_channels=max(outputs // reduction, 32),
            split_input=False,  # each kernel sees all channels, as published
        )
        kernel.attn.bn = PooledBatchNorm(kernel.attn.bn.num_features)
        block.first = kernel

    return change


def mix_kernels(kernels: int = 4, cooling_steps: int = 100) -> Option:
    """Make both convolutions dynamic; parameters as for `DynamicConv2d`."""

    def change(block: ResidualBlock) -> None:
        inputs, outputs = _channels(block)
        block.first[0] = DynamicConv2d(inputs, outputs, kernels, cooling_steps)
        block.second[0] = DynamicConv2d(outputs, outputs, kernels, cooling_steps)

    return change


def bend_kernels(reach_px: float = 8.0) -> Option:
    """Let the second convolution look where it is told to (Zhu et al., CVPR 2019); see `PredictedDeformation`."""

    def change(block: ResidualBlock) -> None:
        outputs = _channels(block)[1]
        block.second[0] = PredictedDeformation(outputs, outputs, reach_px)

    return change


@register_model(
    zoo_spec(
        "unet-se",
        "Default U-Net, channels weighed by the whole picture (SE)",
        paper="Hu et al., CVPR 2018, arXiv 1709.01507",
        licence="Apache-2.0",
        stride=STRIDE,
        good_for="Slides whose stain differs: channels are weighed by what the tile looks like, at hardly any cost.",
        needs="timm",
    )
)
def build_se(
    width: int = 32, depth: int = 4, widest: int = 192, detail: int = 0, *, first_level: int = 0, reduction: int = 16
) -> EncoderOptionUNet:
    """Build it; see `EncoderOptionUNet` and `squeeze_and_excite`."""
    option = squeeze_and_excite(reduction)
    return EncoderOptionUNet(option, first_level, width=width, depth=depth, widest=widest, detail=detail)


@register_model(
    zoo_spec(
        "unet-sk",
        "Default U-Net, channels that choose their kernel (SK)",
        paper="Li et al., CVPR 2019, arXiv 1903.06586",
        licence="Apache-2.0",
        stride=STRIDE,
        good_for="Nuclei of very different sizes side by side: each channel chooses between a small and a wide kernel.",
        needs="timm",
    )
)
def build_sk(
    width: int = 32,
    depth: int = 4,
    widest: int = 192,
    detail: int = 0,
    *,
    first_level: int = 0,
    groups: int = 1,
    reduction: int = 16,
) -> EncoderOptionUNet:
    """Build it; see `EncoderOptionUNet` and `select_kernels`."""
    option = select_kernels(groups, reduction)
    return EncoderOptionUNet(option, first_level, width=width, depth=depth, widest=widest, detail=detail)


@register_model(
    zoo_spec(
        "unet-dynamic",
        "Default U-Net, kernels mixed for each picture (dynamic convolution)",
        paper="Chen et al., CVPR 2020, arXiv 1912.03458",
        stride=STRIDE,
        good_for="One model for several stains or organs: each tile mixes its own kernels, which are more parameters "
        "but hardly more work.",
    )
)
def build_dynamic(
    width: int = 32,
    depth: int = 4,
    widest: int = 192,
    detail: int = 0,
    *,
    first_level: int = 0,
    kernels: int = 4,
    cooling_steps: int = 100,
) -> EncoderOptionUNet:
    """Build it; see `EncoderOptionUNet` and `DynamicConv2d`."""
    option = mix_kernels(kernels, cooling_steps)
    return EncoderOptionUNet(option, first_level, width=width, depth=depth, widest=widest, detail=detail)


@register_model(
    zoo_spec(
        "unet-deformable",
        "Default U-Net, kernels bent at the coarse levels (deformable convolution)",
        paper="Zhu et al., CVPR 2019, arXiv 1811.11168",
        receptive_field_px=BENT_SEEN_PX,
        stride=STRIDE,
        good_for="Long and curved nuclei, such as those of muscle and fibroblasts: kernels follow them. Slow without "
        "a graphics card.",
    )
)
def build_deformable(
    width: int = 32, depth: int = 4, widest: int = 192, detail: int = 0, *, first_level: int = 2, reach_px: float = 8.0
) -> EncoderOptionUNet:
    """Build it; see `EncoderOptionUNet` and `bend_kernels`. The paper, too, leaves the finest levels plain."""
    option = bend_kernels(reach_px)
    return EncoderOptionUNet(option, first_level, width=width, depth=depth, widest=widest, detail=detail)
