"""ResNet-34 (He et al., CVPR 2016) as a trunk of features, with the tensor names of torchvision's weight files."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.checkpoints import DAMAGE
from napari_nucleiseg.core.models.download import Source, download
from napari_nucleiseg.core.models.weights import load_tensors

BLOCKS = (3, 4, 6, 3)
CLASSES = 1000
IMAGENET_URL = "https://download.pytorch.org/models/resnet34-b627a593.pth"
# The file's name states how its digest begins; that is what its publishers check, too.
IMAGENET_SHA256 = "b627a593"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a skip; ``(batch, inputs, y, x)`` to ``(batch, outputs, y / stride, x / stride)``."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features."""
        skip = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + skip, inplace=True)


class ResNet34(nn.Module):
    """The trunk: ``(batch, 3, y, x)`` to features ``(batch, 8 * width, y / 32, x / 32)``.

    Parameters
    ----------
    width : int
        Channels of the first stage, doubled at each of the following three; 64 as published (21,797,672 parameters
        with the last layer).

    Notes
    -----
    The last layer ``fc`` is there because the weight files hold it; it is not used.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        widths = [width * 2**stage for stage in range(len(BLOCKS))]
        for stage, count in enumerate(BLOCKS):
            inputs, outputs = widths[max(stage - 1, 0)], widths[stage]
            first = BasicBlock(inputs, outputs, stride=2 if stage else 1)
            rest = [BasicBlock(outputs, outputs, stride=1) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
        self.fc = nn.Linear(widths[-1], CLASSES)
        self.outputs = widths[-1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of the last stage."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, padding=1)
        for stage in range(len(BLOCKS)):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return x


def load_imagenet(trunk: ResNet34, path: str | Path) -> None:
    """Give the trunk the weights of a file with torchvision's tensor names (safetensors or ``.pth``, never unpickled).

    Raises
    ------
    WeightsError
        If the file is missing, holds more than tensors, or was made for another network.
    """
    tensors = read_tensors(path)
    try:
        trunk.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise WeightsError(f"{path} holds no weights of ResNet-34 with torchvision's names: {reason}") from error


def read_tensors(path: str | Path) -> Mapping[str, Tensor]:
    """Read a weight file of either kind; of ``.pth`` files tensors alone, so that no foreign code can run.

    Raises
    ------
    WeightsError
        If it is missing, damaged, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weight file {path}")
    if path.suffix == ".safetensors":
        return load_tensors(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGE, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path} is no weight file that can be read safely (tensors alone): {reason}") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds no named tensors")
    return found


def download_imagenet(
    folder: str | Path | None = None, *, url: str = IMAGENET_URL, sha256: str = IMAGENET_SHA256
) -> Path:
    """Download ResNet-34's ImageNet weights (87 MB) if they are not there yet, check them, return where they are.

    Parameters
    ----------
    folder : path-like, optional
        Where to keep them; default the package's cache folder.
    url : str
        Where to get them.
    sha256 : str
        How the file's digest begins, or all of it.

    Raises
    ------
    WeightsError
        If they cannot be downloaded or are not the published file.
    """
    return download(Source("the ImageNet weights", url, sha256), folder)
