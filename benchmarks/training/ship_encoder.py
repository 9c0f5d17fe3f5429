"""Make an encoder that was trained without labels one that the package ships, under a name and a title.

    python benchmarks/training/ship_encoder.py runs/dino-tissue tissue-patches --title "Patches of tissue"
    python benchmarks/training/ship_encoder.py runs/dino-regions tissue-regions --title "Regions of tissue"

Ship the encoder of patches first, and train that of regions on what was shipped: a version is that of its tensors.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from napari_nucleiseg.core.models.encoders import FOLDER, load_encoder
from napari_nucleiseg.core.models.weights import SHIPPED, save_model

WEIGHTS = Path(__file__).parents[2] / "src" / Path(*SHIPPED.split(".")) / FOLDER
MOST_MB = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--title", required=True)
    parser.add_argument("--note", default="", help="what else the card should say of it")
    args = parser.parse_args()
    encoder = load_encoder(str(args.run / "encoder.safetensors"))
    if not encoder.card.commercial_use:
        parser.error(f"{args.run} was trained on {encoder.card.licence}: only what everyone may use is shipped here")
    card = replace(encoder.card, name=args.name, title=args.title, sha256="")
    card = replace(card, notes="; ".join(filter(None, (card.notes, args.note))))
    path = WEIGHTS / f"{args.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, encoder.network, encoder.spec, card)
    size_mb = path.stat().st_size / 1e6
    if size_mb > MOST_MB:
        path.unlink()
        parser.error(f"{size_mb:.1f} MB are too many to ship; {MOST_MB} are the most")
    print(f"{path.name}: {size_mb:.2f} MB, {load_encoder(args.name).version}")


if __name__ == "__main__":
    main()
