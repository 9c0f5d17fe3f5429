"""Pictures of dark blobs beside red ones, and a small encoder with random weights whose tokens tell them apart."""

from dataclasses import replace

import cv2
import numpy as np
import torch

from napari_nucleiseg.core.models.encoders import LoadedEncoder, build_encoder
from napari_nucleiseg.core.models.weights import ModelCard, encode_model
from napari_nucleiseg.core.teaching.heads.config import HeadTeachConfig
from napari_nucleiseg.core.teaching.heads.painted import PaintedPatch

SIDE, TOKEN = 128, 16
PARAMS = {"embed": 32, "depth": 2, "heads": 2, "input_px": SIDE, "patch_px": TOKEN, "grid": SIDE // TOKEN}
STROMA, BLOB, RED = (224, 170, 200), (88, 58, 128), (200, 60, 60)
# Random weights are larger than fresh ones, so that patches differ as those of a trained encoder do.
GAIN = 8.0
CONFIG = HeadTeachConfig(
    steps=40, validate_every=10, batch_size=8, device="cpu", threads=1, feature_anchor=2.0, most_change=0.2
)


def blobs(seed, side=SIDE, count=4):
    """Picture uint8 (y, x, 3), and where the dark blobs are, bool (y, x)."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), STROMA, np.float64) + rng.normal(0, 6, (side, side, 1))
    dark, red = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
    for mask, number, radius in ((dark, count, 10), (red, count, 8)):
        for _ in range(number):
            y, x = rng.integers(12, side - 12, 2).tolist()
            cv2.circle(mask, (x, y), radius, 1, -1)
    image[red > 0] = RED
    image[dark > 0] = BLOB
    return np.clip(image, 0, 255).astype(np.uint8), dark > 0


def shares(mask):
    """How much of each token a mask covers, float32 (rows, columns)."""
    count = mask.shape[0] // TOKEN
    return mask.reshape(count, TOKEN, count, TOKEN).mean(axis=(1, 3)).astype(np.float32)


def patch(seed, group="a:1", *, shuffled=False, row=0, column=0, **more):
    """A patch whose dark blobs are painted "look here", and all else "do not look"; or the same anywhere."""
    image, dark = blobs(seed)
    look = shares(dark)
    if shuffled:
        look = np.random.default_rng(1000 + seed).permutation(look.ravel()).reshape(look.shape)
    return PaintedPatch(image, look, (1 - look).astype(np.float32), group, "a.svs", "print", row, column, **more)


def lesson(places=8, each=2, **more):
    """Painted patches in places that do not touch."""
    return [
        patch(place * each + number, f"a:{place}", row=3 * place, column=number, **more)
        for place in range(places)
        for number in range(each)
    ]


def unpainted(count=16, first=500):
    return np.stack([blobs(first + number)[0] for number in range(count)])


def encoder(seed=0, name="blobs", **card):
    torch.manual_seed(seed)
    spec, network = build_encoder("hipt-256", PARAMS)
    with torch.no_grad():
        for value in network.parameters():
            if value.dim() == 2:
                value.mul_(GAIN)
    facts = {"title": "Blobs", "licence": "CC0-1.0", "commercial_use": True} | card
    _, finished = encode_model(network, spec, replace(ModelCard(name, spec.name), **facts), half=False)
    return LoadedEncoder(spec, finished, network.eval())


@torch.no_grad()
def looked_at(loaded, pixels, layer=-1):
    """Features (n, embed), and what each head of a layer attends to, (n, heads, tokens)."""
    said = loaded.network.attend((torch.from_numpy(pixels).float() / 127.5 - 1).permute(0, 3, 1, 2))
    return said.features.numpy(), said.attention[:, layer].flatten(2).numpy()


def mass_on(loaded, seeds, head):
    """Share of a head's attention on the dark blobs of pictures, mean."""
    pictures = [blobs(seed) for seed in seeds]
    _, attention = looked_at(loaded, np.stack([image for image, _ in pictures]))
    found = attention[:, head] / attention[:, head].sum(axis=1, keepdims=True)
    return float(np.mean([row @ shares(dark).ravel() for row, (_, dark) in zip(found, pictures, strict=True)]))
