"""Make the weights of a run those that the package ships: choose their threshold on validation pictures, name them.

    python benchmarks/training/ship.py runs/nuclei-detail nuclei --title "Nuclei in H&E, 0.5 um/px"

Of a run with a validation set there are three candidates: the best by validation, the last of the schedule, and the
mean of both (Wortsman et al., ICML 2022); all are scored on that set, and ``--take`` says which one to ship.
The threshold and the smallest area that give the best (AJI + PQ) / 2 on the run's own validation set go into the card.
A run without a validation set keeps the defaults, takes with ``--validate-with FILE`` what is best on the validation
sets of another configuration (pictures that it was not trained on), or with ``--choose-on kumar_train30`` what is best
on that training set. The latter flatters: a network is surer of pictures that it was trained on, so that a threshold
chosen there is too high for others.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.evaluation import mean_scores, scores
from napari_nucleiseg.core.models.registry import build_network
from napari_nucleiseg.core.models.weights import SHIPPED, LoadedModel, load_model, save_model
from napari_nucleiseg.core.training.checkpoint import averaged_tensors
from napari_nucleiseg.core.training.config import load_config
from napari_nucleiseg.core.training.validation import Validator, picture_maps

THRESHOLDS = (0.30, 0.35, 0.40, 0.45, 0.50, 0.55)
AREAS_UM2 = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
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


def candidates(run: Path, best: LoadedModel) -> dict[str, LoadedModel]:
    """Weights of a run that may be shipped, by name; without a checkpoint only those it kept."""
    if not (run / "last.pt").exists():
        return {"best": best}
    last, _ = averaged_tensors(run)
    mean = {
        key: (value + last[key]) / 2 if value.is_floating_point() else value
        for key, value in best.network.state_dict().items()
    }
    found = {"best": best}
    for name, tensors in (("last", last), ("mean", mean)):
        network = build_network(best.spec)
        network.load_state_dict(tensors)
        found[name] = LoadedModel(best.spec, best.card, network.eval())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--title", required=True)
    parser.add_argument("--take", choices=("best", "last", "mean"), default="best")
    parser.add_argument("--choose-on", default="", help="part of a training set's path, where nothing validates")
    parser.add_argument("--validate-with", default="", help="configuration whose validation sets this run never saw")
    args = parser.parse_args()
    model = load_model(str(args.run / "best.safetensors"), accept_licence=True)
    config = load_config(str(args.run / "config.json"))
    validator = Validator(config, model.spec)
    if args.validate_with:
        validator = Validator(replace(config, validate=load_config(args.validate_with).validate), model.spec)
    options, notes, metrics = DecodeOptions(), model.card.notes, model.card.metrics
    if validator:
        found = candidates(args.run, model)
        for name, candidate in found.items():
            print(f"{name}: {validator.scores(candidate.network, torch.device('cpu'))}")
        model = found[args.take]
        notes = notes if args.take == "best" else f"{args.take} of {notes}" if args.take == "mean" else "last step"
        options = best_options(model, validator)
        metrics = {"validation": validator.scores(model.network, torch.device("cpu"))}
    elif args.choose_on:
        chosen = tuple(item for item in config.train if args.choose_on in item.path)
        options = best_options(model, Validator(replace(config, validate=chosen), model.spec))
    card = replace(
        model.card,
        notes=notes,
        metrics=metrics,
        name=args.name,
        title=args.title.replace("um/px", "µm/px"),
        threshold=options.threshold,
        min_area_um2=options.min_area_um2,
    )
    card = save_model(WEIGHTS / f"{args.name}.safetensors", model.network, model.spec, card)
    print(f"{card.version}: threshold {card.threshold}, smallest {card.min_area_um2} um2")


if __name__ == "__main__":
    main()
