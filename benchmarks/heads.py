"""Which heads look at nuclei, though nobody told them: an encoder beside the same one with random weights.

    python benchmarks/heads.py --encoder hipt-256 --encoder runs/dino/best.safetensors

Data: as in `accuracy.py` (``$NUCLEISEG_DATA``, default ``../shared/data``), TNBC and Kumar at the encoder's pixel size.
Each picture is cut into as few patches as cover it; a token is one of nuclei if a quarter of its area is. The best head
is chosen on other patients (TNBC 01-03; the 16 Kumar images of the training part) than it is judged on (TNBC 04-05; the
14 test images). Scores are means over pictures; share and uniform are those of attention on nuclei, uniform being what
attention that is the same everywhere gives. "haematoxylin" is the stain of each token: what needs no network at all.
An encoder that has no weights yet is shown with random ones only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from accuracy import DATA, DEVELOPMENT, TRAINING_PART, image_sets
from measuring import one_thread
from napari_nucleiseg.core.attention.forward import EncoderForward
from napari_nucleiseg.core.attention.ranking import HeadScore, area_fractions, rank_heads
from napari_nucleiseg.core.attention.scaling import SCALES, scaled
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.encoders import (
    EncoderSpec,
    LoadedEncoder,
    build_encoder,
    encoder_files,
    encoder_names,
    load_encoder,
)
from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.core.slides.stains import stain_densities
from napari_nucleiseg.core.training.samples import read_labels, read_picture

# Set: what the head is chosen on, what it is judged on.
HALVES = {"TNBC": (DEVELOPMENT, "TNBC 04-05"), "Kumar": (TRAINING_PART, "Kumar 14")}
WHITE = 255
# Patches (n, y, x, 3) to attention (n, layers, heads, rows, columns).
Attend = Callable[[NDArray[np.uint8]], NDArray[np.floating]]


@dataclass(frozen=True)
class View:
    """The patches of a picture, ``(n, y, x, 3)``, and how much of each token is nuclei, ``(n, rows, columns)``."""

    patches: NDArray[np.uint8]
    nuclei: NDArray[np.float32]


def views(name: str, spec: EncoderSpec) -> Iterator[View]:
    """Iterate over the pictures of a set at an encoder's pixel size."""
    folder, mpp_um, stems = image_sets()[name]
    factor = spec.mpp_um / mpp_um
    for stem in stems:
        image = read_picture(DATA / folder / "images" / f"{stem}.png")
        mask = read_labels(DATA / folder / "labels" / f"{stem}.tif") > 0
        yield view_of(image, mask, factor, spec)


def view_of(image: NDArray[np.uint8], mask: NDArray[np.bool_], factor: float, spec: EncoderSpec) -> View:
    """Cut a picture, shrunk by `factor`, into patches; what is smaller than one lies on glass."""
    small = cv2.resize(image, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    side = spec.input_px
    missing = [max(side - length, 0) for length in small.shape[:2]]
    small = np.pad(small, ((0, missing[0]), (0, missing[1]), (0, 0)), constant_values=WHITE)
    mask = np.pad(mask, [(0, int(np.ceil(lack * factor))) for lack in missing])
    starts = [[round(at) for at in np.linspace(0, length - side, -(-length // side))] for length in small.shape[:2]]
    patches, nuclei = [], []
    for y in starts[0]:
        for x in starts[1]:
            patches.append(small[y : y + side, x : x + side])
            y0, x0, y1, x1 = (round(edge * factor) for edge in (y, x, y + side, x + side))
            nuclei.append(area_fractions(mask[y0:y1, x0:x1], spec.side, spec.side))
    return View(np.stack(patches), np.stack(nuclei))


def haematoxylin(patches: NDArray[np.uint8], side: int) -> NDArray[np.floating]:
    """Attend to the stain of each token."""
    stains = [cv2.resize(stain_densities(each)[..., 0], (side, side), interpolation=cv2.INTER_AREA) for each in patches]
    return np.stack(stains)[:, None, None]


def attend(forward: EncoderForward, patches: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Attend as an encoder does."""
    return np.stack([each.attention for each in forward.patches(patches)])


def scores_of(look: Attend, name: str, spec: EncoderSpec, scale: str) -> list[dict[tuple[int, int], HeadScore]]:
    """Score of every head on each picture of a set; pictures in which there is nothing to compare are left out."""
    found = []
    for view in views(name, spec):
        maps = scaled(np.moveaxis(look(view.patches), 0, 2), scale)  # type: ignore[arg-type]
        tall = maps.reshape(*maps.shape[:2], -1, maps.shape[-1])
        try:
            ranked = rank_heads(tall, view.nuclei.reshape(tall.shape[2:]))
        except DataError as error:
            print(f"a picture of {name} is left out: {error}", flush=True)
            continue
        found.append({(each.layer, each.head): each for each in ranked})
    return found


def mean(found: list[dict[tuple[int, int], HeadScore]], key: tuple[int, int], what: Callable[[HeadScore], float]):
    """Mean over pictures of one number of one head."""
    return float(np.mean([what(each[key]) for each in found]))


def row(title: str, look: Attend, name: str, spec: EncoderSpec, scale: str) -> str:
    """One line of the table."""
    chosen_on, judged_on = (scores_of(look, half, spec, scale) for half in HALVES[name])
    keys = sorted(chosen_on[0])
    aurocs = {key: mean(chosen_on, key, lambda each: each.auroc) for key in keys}
    best = max(keys, key=aurocs.__getitem__)
    last = [key for key in keys if key[0] == keys[-1][0]]
    average = np.mean([mean(judged_on, key, lambda each: each.auroc) for key in last])
    auroc, precision = (mean(judged_on, best, what) for what in (lambda e: e.auroc, lambda e: e.average_precision))
    share, uniform = (
        mean(judged_on, best, what) for what in (lambda e: e.attention.nuclei, lambda e: e.uniform.nuclei)
    )
    return (
        f"| {title} | {name} | {average:.3f} | {best[0] + 1}/{best[1] + 1} | {aurocs[best]:.3f} | {auroc:.3f} "
        f"| {precision:.3f} | {share:.3f} | {uniform:.3f} | {len(judged_on)} |"
    )


def random_one(name: str, params: dict[str, int | float | str | bool], seed: int) -> LoadedEncoder:
    """An encoder that has seen nothing."""
    torch.manual_seed(seed)
    spec, network = build_encoder(name, params)
    return LoadedEncoder(spec, ModelCard("random", name, params), network.eval())


def encoders(name: str, seeds: int, *, accept_licence: bool) -> Iterator[tuple[str, LoadedEncoder]]:
    """An encoder, if there are weights of it, and random ones of the same sizes."""
    network, params = name, {}
    if name not in encoder_names() or name in encoder_files():
        loaded = load_encoder(name, accept_licence=accept_licence)
        network, params = loaded.card.network, dict(loaded.card.params)
        yield loaded.version, loaded
    for seed in range(seeds):
        yield f"{network} random {seed}", random_one(network, params, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", action="append", default=[], help="name or file; may be given several times")
    parser.add_argument("--set", action="append", default=[], choices=list(HALVES), help="default: both")
    parser.add_argument("--scale", default="raw", choices=SCALES, help="of each patch, before heads are compared")
    parser.add_argument("--seeds", type=int, default=1, help="random encoders beside each")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--accept-licence", action="store_true")
    args = parser.parse_args()
    one_thread()
    print("| encoder | set | last layer AUROC | best layer/head | chosen AUROC | AUROC | AP | share | uniform | n |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in args.encoder or ["hipt-256"]:
        rows = list(encoders(name, args.seeds, accept_licence=args.accept_licence))
        spec = rows[0][1].spec
        looks: list[tuple[str, Attend]] = [("haematoxylin", partial(haematoxylin, side=spec.side))]
        looks += [(title, partial(attend, EncoderForward(each, args.device, exact=True))) for title, each in rows]
        for title, look in looks:
            for each in args.set or HALVES:
                print(row(title, look, each, spec, args.scale), flush=True)


if __name__ == "__main__":
    main()
