"""A model of attention that takes what is dark for nuclei at the right level, and for none at the one it comes with."""

import torch

from napari_nucleiseg.core.models import weights
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard, encode_model, save_model

NAME = "look"
# Nothing is as dark as that.
BLIND = 50.0


def dark_attention(tau=BLIND, network="scale-attention-fast", **card):
    """Return the model at a level; the confidence of a pixel is how dark its surroundings of a few pixels are."""
    spec = network_spec(network, {"width": 2})
    built = build_network(spec).eval()
    with torch.no_grad():
        for value in built.state_dict().values():
            if value.is_floating_point():
                value.zero_()
        stem = built.attention_net[0].main
        stem[0].weight[0].fill_(-1.0 / stem[0].weight[0].numel())
        for module in built.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(1.0)
                module.weight.fill_(1.0)
        stem[1].bias[0] = 3.0
        built.attention_net[-1].weight[0, 0] = 1.0
        built.tau.fill_(tau)
        built.first.zero_()
    said = {"title": "Look", "licence": "CC0-1.0", "commercial_use": True} | card
    _, finished = encode_model(built, spec, ModelCard(NAME, spec.name, dict(spec.params), **said), half=False)
    return LoadedModel(spec, finished, built)


def keep(model, name=NAME):
    """Write a model among the user's own; return its file."""
    path = weights.user_folder() / "models" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, model.network, model.spec, model.card, half=False)
    return path
