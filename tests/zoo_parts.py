"""What tests of the networks of the zoo share: slim parameters, a tiny batch, what one output pixel can see."""

import torch
from torch import nn

from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.models import registry
from napari_nucleiseg.core.models.registry import build_network, network_names, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.training.batches import TARGET_SOURCES

# Parameters that make each network of the zoo small enough for tests: add yours.
SLIM = {
    "deeplab-v3": {"encoder": "mobilenet_v2", "channels": 16},
    "deeplab-v3plus": {"encoder": "mobilenet_v2", "channels": 16},
    "fcn-16s": {"width": 4},
    "fcn-32s": {"width": 4},
    "fcn-8s": {"width": 4},
    "high-resolution-swin": {"width": 12},
    "hover-net": {},  # monai has it in one width
    "hrnet": {"variant": "hrnet_w18_small"},
    "kiu-net": {"width": 4},
    "scaleformer": {"width": 4},
    "segnet": {"width": 8},
    "swin-unetr": {"features": 12},
    "unet-3plus": {"width": 4},
    "unet-deformable": {"width": 8},
    "unet-dynamic": {"width": 8},
    "unet-plusplus": {"width": 4},
    "unet-se": {"width": 8},
    "unet-sk": {"width": 8},
}


def zoo_names(dimensions=2):
    """Names of the networks whose file lies in the zoo."""
    return tuple(
        name
        for name in network_names()
        if ".models.zoo." in registry._registry[name][1].__module__ and network_spec(name).dimensions == dimensions
    )


def disc_labels(side, centres, radius):
    """Labels ``(y, x)`` int32 of discs."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    labels = torch.zeros(side, side, dtype=torch.int32)
    for number, (cy, cx) in enumerate(centres, start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return labels.numpy()


def tiny_batch(side=64, margin=0):
    """Two normalised pictures of dark discs with the targets of all heads, as training has them."""
    labels = [
        disc_labels(side, [(20, 20), (24, 44), (48, 30)], 9),
        disc_labels(side, [(32, 32), (12, 52), (52, 10)], 8),
    ]
    noise = torch.Generator().manual_seed(3)
    dark = torch.stack([torch.from_numpy(one > 0).float() for one in labels])[:, None]
    image = (0.5 - 1.5 * dark).expand(-1, 3, -1, -1) + 0.3 * torch.randn(2, 3, side, side, generator=noise)
    targets = [
        {
            key: value
            for name in sorted(set(TARGET_SOURCES.values()))
            for key, value in decoder(name).targets(one).items()
        }
        for one in labels
    ]
    batch = {key: torch.stack([torch.as_tensor(one[key]) for one in targets]) for key in targets[0]}
    ones = torch.ones(2, 1, side, side)
    image = nn.functional.pad(image, (margin,) * 4, mode="reflect") if margin else image
    return batch | {"image": image, "known": ones, "weights": torch.zeros_like(ones)}


def slim_model(name, **params):
    """A slim network with random weights as a model that can be exported."""
    spec = network_spec(name, SLIM.get(name, {}) | params)
    torch.manual_seed(0)
    network = build_network(spec).eval()
    return LoadedModel(spec, ModelCard(name, name, licence="MIT", commercial_use=True), network)


def full_size(name, **params):
    """A network of its default width whose weights have shapes but no values."""
    with torch.device("meta"):
        return build_network(network_spec(name, params))


def weights_in(*modules):
    """How many numbers are learned in modules."""
    return sum(weights.numel() for module in modules for weights in module.parameters())


class MeanPool(nn.Module):
    """Stands in for a max-pooling that tells of places: what a maximum can be of is seen by the gradient of a mean."""

    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward(self, x):
        return nn.functional.avg_pool2d(x, self.side), None


class Spread(nn.Module):
    """Stands in for an unpooling: a value may be put back anywhere in its window."""

    def __init__(self, side):
        super().__init__()
        self.side = float(side)

    def forward(self, x, _places):
        return nn.functional.interpolate(x, scale_factor=self.side, mode="nearest")


def _linear_twin(module):
    """What a layer is replaced by so that nothing it can see is lost by chance; None to leave it."""
    if isinstance(module, nn.MaxPool2d):
        return MeanPool(module.kernel_size) if module.return_indices else nn.AvgPool2d(module.kernel_size)
    if isinstance(module, nn.MaxUnpool2d):
        return Spread(2)
    if isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.Dropout):
        return nn.Identity()
    return None


def made_linear(network):
    """Make a network a linear one of the same geometry with positive weights, in place; float64."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if (twin := _linear_twin(child)) is not None:
                setattr(module, name, twin)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network.double()


def seen_px(network, stride, height, width):
    """Most columns that one pixel of the first map can see, by the gradient of a picture that is wide enough.

    Parameters
    ----------
    network : nn.Module
        See `made_linear`.
    stride : int
        Pixels of the network's coarsest step: each place within it is tried.
    height, width : int
        Of the picture.
    """
    x = torch.ones(1, 3, height, width, dtype=torch.float64, requires_grad=True)
    outputs = network(x)["nuclei"][0, 0, height // 2]
    widest = 0
    for place in range(width // 2, width // 2 + stride):
        (gradient,) = torch.autograd.grad(outputs[place], x, retain_graph=True)
        columns = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        first, last = int(columns[0]), int(columns[-1])
        assert first > 0, "the picture is too narrow"
        assert last < width - 1, "the picture is too narrow"
        widest = max(widest, last - first + 1)
    return widest
