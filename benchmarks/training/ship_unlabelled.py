"""Make weights that were trained without labels those that the package ships, under a name and a title.

    python benchmarks/training/ship_unlabelled.py runs/scale-attention-shape-2 nuclei-label-free --title "No labels"

Nothing is chosen here, for there is nothing to choose by: `ship.py` takes a threshold from annotated pictures.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from napari_nucleiseg.core.models.weights import SHIPPED, load_model, save_model

WEIGHTS = Path(__file__).parents[2] / "src" / Path(*SHIPPED.split("."))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--title", required=True)
    parser.add_argument("--note", default="", help="what else the card should say of it")
    args = parser.parse_args()
    model = load_model(str(args.run / "best.safetensors"))
    if not model.card.commercial_use:
        parser.error(f"{args.run} was trained on {model.card.licence}: only what everyone may use is shipped here")
    card = replace(model.card, name=args.name, title=args.title, sha256="")
    card = replace(card, notes="; ".join(filter(None, (card.notes, args.note))))
    path = WEIGHTS / f"{args.name}.safetensors"
    # Half precision would move the level by as much as a tenth of the sigmoid's width.
    save_model(path, model.network, model.spec, card, half=False)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {load_model(args.name).version}")


if __name__ == "__main__":
    main()
