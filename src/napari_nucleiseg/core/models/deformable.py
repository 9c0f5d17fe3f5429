"""Modulated deformable convolution (Zhu et al., CVPR 2019): each tap of the kernel looks where it is told to."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.errors import ModelError

Operator = Callable[..., Tensor]


def deform_conv2d(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Convolve where the offsets point: stride 1, same height and width, zeros outside the input.

    Parameters
    ----------
    x : Tensor, shape (batch, inputs, y, x)
        Floating point.
    offset : Tensor, shape (batch, 2 * k * k, y, x)
        For each tap of the kernel in raster order ``(dy, dx)``, in pixels, added to the tap's own place.
    mask : Tensor, shape (batch, k * k, y, x)
        Factor of each tap.
    weight : Tensor, shape (outputs, inputs, k, k)
        The kernel; k is odd.

    Returns
    -------
    Tensor, shape (batch, outputs, y, x)
        Of the widest type among the inputs' and float32.

    Notes
    -----
    torchvision's operator is used where that package happens to be installed; `by_grid_sample` gives the same.
    """
    # Places are fractions of a pixel, for which bfloat16 has too few digits.
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(x.dtype, torch.float32)
        arguments = (x.to(dtype), offset.to(dtype), mask.to(dtype), weight.to(dtype))
        # An exported network must run where torchvision is not.
        exported = torch.compiler.is_compiling() or _is_traced()
        operator = None if exported else _of_torchvision(x.device.type)
        if operator is None:
            return by_grid_sample(*arguments)
        x, offset, mask, weight = arguments
        return operator(x.contiguous(), offset.contiguous(), weight, padding=weight.shape[-1] // 2, mask=mask)


def _is_traced() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call] # public, by its page


def by_grid_sample(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Do what `deform_conv2d` says with torch alone, one tap after the other, so that few maps are held at once."""
    height, width = x.shape[2:]
    kernel = int(weight.shape[-1])  # a plain number also where the network is traced
    rows = torch.arange(height, device=x.device, dtype=x.dtype).view(1, height, 1)
    columns = torch.arange(width, device=x.device, dtype=x.dtype).view(1, 1, width)
    total: Tensor | None = None
    for tap in range(kernel * kernel):
        row, column = divmod(tap, kernel)
        at_y = rows + (row - kernel // 2) + offset[:, 2 * tap]
        at_x = columns + (column - kernel // 2) + offset[:, 2 * tap + 1]
        # grid_sample counts from edge to edge in -1..1, x first.
        grid = torch.stack([(2 * at_x + 1) / width - 1, (2 * at_y + 1) / height - 1], dim=-1)
        seen = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        part = F.conv2d(seen * mask[:, tap : tap + 1], weight[:, :, row : row + 1, column : column + 1])
        total = part if total is None else total + part
    if total is None:
        raise ModelError("a deformable convolution needs a kernel of at least one pixel")
    return total


@functools.cache
def _of_torchvision(device_type: str) -> Operator | None:
    """Return torchvision's operator if it is installed, fits this torch and runs on the device; None elsewhere."""
    try:
        operator: Operator = importlib.import_module("torchvision.ops").deform_conv2d
        with torch.inference_mode(mode=False), torch.enable_grad():
            x = torch.ones(1, 1, 3, 3, device=device_type, requires_grad=True)
            offset, mask = (torch.zeros(1, count, 3, 3, device=device_type) for count in (18, 9))
            operator(x, offset, torch.ones_like(x), padding=1, mask=mask).sum().backward()
    except (ImportError, AttributeError, RuntimeError, OSError, NotImplementedError):
        # A build for another torch fails in any of these ways, at import or at the first call.
        return None
    return None if x.grad is None else operator


class PredictedDeformation(nn.Module):
    """Deformable 3x3 convolution whose offsets and masks a convolution predicts; any height and width.

    It starts as a plain convolution: offsets 0, masks 1.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    reach_px : float
        No offset is larger than this on either axis, so that the receptive field is known.
    """

    def __init__(self, inputs: int, outputs: int, reach_px: float = 8.0) -> None:
        super().__init__()
        plain = nn.Conv2d(inputs, outputs, 3, bias=False)
        self.weight = nn.Parameter(plain.weight.detach().clone())
        self.where = nn.Conv2d(inputs, 27, 3, padding=1)
        nn.init.zeros_(self.where.weight)
        nn.init.zeros_(self.where.bias)  # type: ignore[arg-type]
        self.reach_px = reach_px

    def offsets_and_masks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return offsets ``(batch, 18, y, x)`` within `reach_px` and masks ``(batch, 9, y, x)`` in 0..2."""
        raw = self.where(x).float()
        return self.reach_px * torch.tanh(raw[:, :18] / max(self.reach_px, 1e-6)), 2 * torch.sigmoid(raw[:, 18:])

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(batch, outputs, y, x)``."""
        offset, mask = self.offsets_and_masks(x)
        return deform_conv2d(x, offset, mask, self.weight)


class FreeDeformation(nn.Module):
    """Deformable 3x3 convolution as in the code of S3-Net: offsets, masks and weights are parameters, U(0, 1).

    The offsets belong to the pixels of one picture and mean nothing on another.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    height, width : int
        Of the one picture, pixels.
    """

    def __init__(self, inputs: int, outputs: int, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(outputs, inputs, 3, 3))
        self.offset = nn.Parameter(torch.rand(1, 18, height, width))
        self.mask = nn.Parameter(torch.rand(1, 9, height, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(batch, outputs, y, x)``.

        Raises
        ------
        ModelError
            If the picture is of another size.
        """
        if x.shape[2:] != self.offset.shape[2:]:
            height, width = self.offset.shape[2:]
            raise ModelError(
                f"free offsets are tied to a picture of {height} x {width} px and cannot be used on one of "
                f"{x.shape[2]} x {x.shape[3]} px; choose predicted offsets"
            )
        batch = len(x)
        return deform_conv2d(x, self.offset.expand(batch, -1, -1, -1), self.mask.expand(batch, -1, -1, -1), self.weight)
