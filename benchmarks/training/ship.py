"""Make the weights of a run those that the package ships: choose their threshold on validation pictures, name them.

    python benchmarks/training/ship.py runs/nuclei-detail nuclei --title "Nuclei in H&E, 0.5 um/px"

The threshold and the smallest area that give the best (AJI + PQ) / 2 on the run's own validation set go into the card.
A run without a validation set (all its labelled pictures were needed for training) keeps the defaults.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.evaluation import mean_scores, scores
from napari_nucleiseg.core.models.weights import SHIPPED, LoadedModel, load_model, save_model
from napari_nucleiseg.core.training.config import load_config
from napari_nucleiseg.core.training.validation import Validator, picture_maps

THRESHOLDS = (0.40, 0.45, 0.50, 0.55)
AREAS_UM2 = (4.0, 8.0, 12.0)
WEIGHTS = Path(__file__).parents[2] / "src" / Path(*SHIPPED.split("."))


def best_options(model: LoadedModel, validator: Validator) -> DecodeOptions:
    """Decode the validation pictures with every pair of options; print the table and return the best."""
    maps = [picture_maps(model.network, model.spec, image, torch.device("cpu")) for image, _ in validator.pictures]
    found = {}
    print("| threshold | smallest um2 | AJI | PQ |\n|---|---|---|---|")
    for threshold, area in product(THRESHOLDS, AREAS_UM2):
        options = DecodeOptions(threshold, area)
        decode = decoder(model.spec.decoder).decode
        mean = mean_scores(
            scores(labels, decode(one, model.spec.mpp_um, options).labels, distances=False)
            for one, (_, labels) in zip(maps, validator.pictures, strict=True)
        )
        found[options] = (mean.aji + mean.pq) / 2
        print(f"| {threshold:.2f} | {area:g} | {mean.aji:.4f} | {mean.pq:.4f} |")
    return max(found, key=lambda options: found[options])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--title", required=True)
    args = parser.parse_args()
    model = load_model(str(args.run / "best.safetensors"), accept_licence=True)
    validator = Validator(load_config(str(args.run / "config.json")), model.spec)
    options = best_options(model, validator) if validator else DecodeOptions()
    card = replace(
        model.card,
        name=args.name,
        title=args.title.replace("um/px", "µm/px"),
        threshold=options.threshold,
        min_area_um2=options.min_area_um2,
    )
    card = save_model(WEIGHTS / f"{args.name}.safetensors", model.network, model.spec, card)
    print(f"{card.version}: threshold {card.threshold}, smallest {card.min_area_um2} um2")


if __name__ == "__main__":
    main()
