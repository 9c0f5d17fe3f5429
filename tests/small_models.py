"""Small models with random weights, one of each network."""

import torch

from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard

SMALL = {
    "nuclei": {"width": 8, "depth": 1, "widest": 8, "detail": 4},
    "unet-2015": {"width": 2},
    "unet-2015-padded": {"width": 2},
    "scale-attention-fast": {"width": 8},
    "s3net": {"width": 8},
}


def small_model(name="nuclei", **card):
    """A model with random weights whose card states `card`."""
    torch.manual_seed(0)
    spec = network_spec(name, SMALL[name])
    facts = {"licence": "MIT", "commercial_use": True, "title": "Small & new", "training_data": ("discs (CC0-1.0)",)}
    network = build_network(spec).eval()
    return LoadedModel(spec, ModelCard(f"small-{name}", name, **{**facts, **card}), network)
