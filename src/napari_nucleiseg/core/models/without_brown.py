"""A network that looks at an immunostain without its brown: what is left is the counterstain, which H&E models know.

DAB is taken out by colour deconvolution (Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 2001) with scikit-image's
vectors of haematoxylin and DAB; what neither of them explains stays. For markers of membranes and cytoplasm: where
nuclei themselves are brown, they would vanish.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import hdx_from_rgb, rgb_from_hdx
from torch import Tensor, nn

from napari_nucleiseg.core.models.weights import LoadedModel

SUFFIX = "+nobrown"
# A byte knows nothing darker.
LEAST = 1 / 255
_DAB = 1


class WithoutBrown(nn.Module):
    """A network behind the removal of brown.

    Parameters
    ----------
    network : nn.Module
        Takes ``(batch, 3, y, x)``, normalised RGB, and returns a dict of heads.
    mean, std : sequence of float, length 3
        How its input is normalised, from RGB in 0..1.
    """

    mean: Tensor
    std: Tensor
    dab: Tensor
    share: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        for name, values in (
            ("mean", mean),
            ("std", std),
            ("dab", rgb_from_hdx[_DAB]),
            ("share", hdx_from_rgb[:, _DAB]),
        ):
            column = torch.tensor(values, dtype=torch.float32)[:, None, None]
            self.register_buffer(name, column, persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return what the network says of the picture without brown, same shapes as its own."""
        rgb = self.take_out(x * self.std + self.mean)
        said: dict[str, Tensor] = self.network((rgb - self.mean) / self.std)
        return said

    def take_out(self, rgb: Tensor) -> Tensor:
        """Return RGB in 0..1, ``(batch, 3, y, x)`` float32, without DAB."""
        density = -torch.log(rgb.clamp(min=LEAST))
        found = (density * self.share).sum(1, keepdim=True).clamp_(min=0)
        return torch.exp(-(density - found * self.dab).clamp_(min=0))


def without_brown(model: LoadedModel) -> LoadedModel:
    """Return a model that does not see brown; its version says so, for results are others."""
    network = WithoutBrown(model.network, model.spec.mean, model.spec.std).eval()
    return LoadedModel(model.spec, model.card, network, model.suffix + SUFFIX)


def picture_without_brown(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGB ``(y, x, 3)`` without DAB, as `WithoutBrown` sees it but for rounding."""
    rgb = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    seen = WithoutBrown(nn.Identity(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).take_out(rgb)
    picture: NDArray[np.uint8] = np.rint(seen[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return picture
