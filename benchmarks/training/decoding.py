"""Choose threshold and smallest nucleus of shipped weights on pictures that they were not trained on.

    python benchmarks/training/decoding.py nuclei --set "TNBC 04-05" --set "Kumar 16, training part" --write

Every pair is scored at the pictures' own pixel size, as the benchmark `accuracy.py` does; the one with the best mean
over the sets of (AJI + PQ) / 2 goes into the card. The tensors stay as they are, and so does the version.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import accuracy
from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.models.weights import SHIPPED, load_model, read_card, with_card

THRESHOLDS = (0.50, 0.525, 0.55, 0.575, 0.60)
AREAS_UM2 = (3.0, 4.0, 5.0, 6.0, 8.0)
WEIGHTS = Path(__file__).parents[2] / "src" / Path(*SHIPPED.split("."))


def main() -> None:
    """Print the table and, if asked to, write the best pair into the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of shipped weights")
    parser.add_argument("--set", action="append", required=True, choices=list(accuracy.image_sets()))
    parser.add_argument("--threshold", action="append", type=float, default=[])
    parser.add_argument("--accept-licence", action="store_true")
    parser.add_argument("--write", action="store_true", help="write the best pair into the card")
    args = parser.parse_args()
    model = load_model(args.model, accept_licence=args.accept_licence)
    scored: dict[DecodeOptions, float] = {}
    print(f"| threshold | smallest um2 | {' | '.join(f'{name} AJI / PQ' for name in args.set)} | mean |")
    print("|---" * (3 + len(args.set)) + "|")
    for threshold, area in product(args.threshold or THRESHOLDS, AREAS_UM2):
        options = DecodeOptions(threshold, area)
        segment = accuracy.with_model(model, model.spec.decoder, options, "auto")
        found = accuracy.score(segment, args.set, distances=False)
        scored[options] = sum(one.aji + one.pq for one in found.values()) / (2 * len(found))
        cells = " | ".join(f"{one.aji:.4f} / {one.pq:.4f}" for one in found.values())
        print(f"| {threshold:g} | {area:g} | {cells} | {scored[options]:.4f} |", flush=True)
    best = max(scored, key=lambda options: scored[options])
    print(f"best: threshold {best.threshold:g}, smallest {best.min_area_um2:g} um2")
    if args.write:
        path = WEIGHTS / f"{args.model}.safetensors"
        card = replace(read_card(path), threshold=best.threshold, min_area_um2=best.min_area_um2)
        path.write_bytes(with_card(path.read_bytes(), card))


if __name__ == "__main__":
    main()
