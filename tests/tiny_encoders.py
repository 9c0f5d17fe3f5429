"""Encoders of patches and of regions with random weights that take a millisecond, and pictures for them to look at."""

from dataclasses import replace

import numpy as np
import torch

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.models.encoders import LoadedEncoder, build_encoder
from napari_nucleiseg.core.models.weights import ModelCard, encode_model, save_model
from napari_nucleiseg.core.slides.pyramid import Slide

SIDE, TOKEN = 32, 8
PATCH = {"embed": 12, "depth": 3, "heads": 3, "input_px": SIDE, "patch_px": TOKEN, "grid": 3}
REGION = {"features": 12, "embed": 8, "depth": 2, "heads": 2, "input_px": SIDE, "grid": 3}
# Fresh weights are so small that all tokens look alike.
GAIN = 4.0


def _built(network_name, params, seed):
    torch.manual_seed(seed)
    spec, network = build_encoder(network_name, params)
    with torch.no_grad():
        for value in network.parameters():
            value.mul_(GAIN)
    return spec, network.eval()


def _loaded(network_name, params, name, seed, card):
    spec, network = _built(network_name, params, seed)
    facts = {"licence": "CC0-1.0", "commercial_use": True} | card
    _, finished = encode_model(network, spec, replace(ModelCard(name, spec.name), **facts), half=False)
    return LoadedEncoder(spec, finished, network)


def patch_encoder(seed=0, name="tiny", **card):
    return _loaded("hipt-256", PATCH, name, seed, card)


def region_encoder(seed=1, name="tiny-region", **card):
    return _loaded("hipt-4k", REGION, name, seed, card)


def write_encoders(folder):
    """Write both to a folder; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for network_name, params, name in (("hipt-256", PATCH, "tiny"), ("hipt-4k", REGION, "tiny-region")):
        spec, network = _built(network_name, params, 0)
        path = folder / f"{name}.safetensors"
        save_model(path, network, spec, ModelCard(name, "", licence="CC0-1.0", commercial_use=True), half=False)
        paths.append(path)
    return paths


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def slide_of(picture, *, mpp=0.5, fingerprint="f1", **facts):
    """A slide of one level in memory; `mpp` is a number, a pair or None."""
    size = mpp if mpp is None or isinstance(mpp, YX) else YX(mpp, mpp)
    return Slide("/slides/a.svs", (picture,), (YX(1.0, 1.0),), size, fingerprint=fingerprint, **facts)
