"""What painting gives one head of a patch transformer: nuclei are painted, other patients judge it.

    python benchmarks/head_teaching.py --encoder runs/dino-tissue/encoder.safetensors --json heads.json

In four pictures of 512 x 512 px at 0.25 um/px (``tnbc_dev``, patients 01-03) all nuclei are painted "look here" and
all else "do not look"; with ``--strokes`` only the cores of a third of the nuclei and a fifth of what lies between, as
a person would. Half of the patches of the other pictures of these patients hold the features, the other half limits how
far they go. Judged is on all pictures of patients 04-05, none of which was painted or held anything: the share of the
head's attention on nuclei (and how often that of a uniform map), AUROC token by token, and how far features have moved.
"Offered" is the new head, whether the guard adopts it or not.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from measuring import one_thread, record, table
from napari_nucleiseg.core.models.encoders import EncoderSpec, LoadedEncoder, load_encoder
from napari_nucleiseg.core.teaching.heads.config import HeadTeachConfig
from napari_nucleiseg.core.teaching.heads.learner import Stem, look
from napari_nucleiseg.core.teaching.heads.measure import drift_of, measured, scores_of
from napari_nucleiseg.core.teaching.heads.painted import PaintedPatch
from napari_nucleiseg.core.teaching.heads.teach import teach_head
from teaching import DATA, Picture, read

REGIONS = 4
TAUGHT, JUDGED = ("01", "02", "03"), ("04", "05")
# A brush stays this far inside a nucleus, and this far from any where it says "do not".
CORE_UM, AWAY_UM = 0.75, 1.5
STROKE_SHARES = 1 / 3, 1 / 5
PIECE_UM = 6.0


def patches_of(picture: Picture, spec: EncoderSpec, rng: np.random.Generator | None = None) -> list[PaintedPatch]:
    """All whole patches of a picture; with a generator they are painted in strokes, else everywhere."""
    look_here, avoid = (picture.labels > 0, picture.labels == 0) if rng is None else strokes(picture, spec, rng)
    side, found = spec.input_px, []
    for row in range(picture.image.shape[0] // side):
        for column in range(picture.image.shape[1] // side):
            box = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
            found.append(
                PaintedPatch(
                    picture.image[box],
                    shares(look_here[box], spec),
                    shares(avoid[box], spec),
                    picture.name,
                    picture.name,
                    picture.name,
                    row,
                    column,
                )
            )
    return found


def strokes(picture: Picture, spec: EncoderSpec, rng: np.random.Generator) -> tuple[NDArray[np.bool_], ...]:
    """Cores of some nuclei, and some squares of what lies between."""
    inside, beside = (
        cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3) * spec.mpp_um
        for mask in (picture.labels > 0, picture.labels == 0)
    )
    chosen = rng.random(int(picture.labels.max()) + 1) < STROKE_SHARES[0]
    piece = max(1, round(PIECE_UM / spec.mpp_um))
    rows, columns = (-(-side // piece) for side in picture.labels.shape)
    squares = np.kron(rng.random((rows, columns)) < STROKE_SHARES[1], np.ones((piece, piece), np.bool_))
    height, width = picture.labels.shape
    return chosen[picture.labels] & (inside > CORE_UM), squares[:height, :width] & (beside > AWAY_UM)


def shares(mask: NDArray[np.bool_], spec: EncoderSpec) -> NDArray[np.float32]:
    """How much of each token a mask covers."""
    side, token = spec.side, spec.patch_px
    return mask.reshape(side, token, side, token).mean(axis=(1, 3)).astype(np.float32)


def taught(
    encoder: LoadedEncoder,
    head: int,
    seed: int,
    pictures: tuple[list[Picture], list[Picture]],
    args: argparse.Namespace,
) -> dict[str, object]:
    """Teach a head, and judge it on patients that nobody painted."""
    config = replace(args.config, layer=args.layer, head=head, seed=seed, threads=1, device=args.device)
    rng = np.random.default_rng(seed)
    teach, judge = pictures
    order = [teach[place] for place in rng.permutation(len(teach))]
    spec = encoder.spec
    painted = [one for picture in order[:REGIONS] for one in patches_of(picture, spec, rng if args.strokes else None)]
    others = np.stack([one.pixels for picture in order[REGIONS:] for one in patches_of(picture, spec)])
    began = time.process_time()
    *_, last = teach_head(encoder, painted, others, config)
    seconds, outcome = time.process_time() - began, last.outcome
    unseen = [one for picture in judge for one in patches_of(picture, spec)]
    stem = Stem(encoder, config)
    place = stem.layer - stem.first, head
    x = stem.of(np.stack([one.pixels for one in unseen]))
    before, after = (
        look(network.to(stem.device), x, stem.first) for network in (stem.network, outcome.encoder.network)
    )
    then, now = (
        scores_of(measured(tail.attention[:, *place].double().numpy(), unseen, config.unpainted))
        for tail in (before, after)
    )
    drift = drift_of(after, before, place)
    return {
        "head": head, "seed": seed, "patches": len(painted), "judged": len(unseen),
        "before": then.as_dict(), "offered": now.as_dict(), "drift": drift.as_dict(),
        "promised": outcome.after.as_dict(), "limit": outcome.drift.as_dict(), "adopted": outcome.adopted,
        "steps": outcome.steps, "share": outcome.share, "cpu": round(seconds, 1), "reason": outcome.reason,
    }  # fmt: skip


def rows_of(found: Sequence[dict]) -> Iterator[list[str]]:
    """One row a head, means over seeds."""
    for head in sorted({one["head"] for one in found}):
        some = [one for one in found if one["head"] == head]

        def mean(part: str, name: str, some: Sequence[dict] = some) -> float:
            return float(np.mean([one[part][name] for one in some]))

        yield [
            str(head),
            f"{mean('before', 'look'):.1%} ({mean('before', 'ratio'):.2f})",
            f"{mean('offered', 'look'):.1%} ({mean('offered', 'ratio'):.2f})",
            f"{mean('before', 'auroc'):.3f}",
            f"{mean('offered', 'auroc'):.3f}",
            f"{mean('drift', 'cosine'):.4f}",
            f"{mean('drift', 'change'):.1%}",
            f"{mean('drift', 'tokens'):.1%}",
            f"{mean('drift', 'heads'):.1%}",
            f"{sum(one['adopted'] for one in some)} of {len(some)}",
            f"{np.mean([one['cpu'] for one in some]):.0f}",
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="encoder of patches, by name or weight file")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--head", type=int, action="append", default=[], help="default: every head of the layer")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--strokes", action="store_true", help="paint some, as people do, in place of everything")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="another setting")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    one_thread()
    changes = dict(item.split("=") for item in args.set)
    args.config = replace(HeadTeachConfig(), **{name: json.loads(value) for name, value in changes.items()})
    encoder = load_encoder(args.encoder, accept_licence=True)
    stems = sorted(path.stem for path in (DATA / "tnbc_dev" / "images").glob("*.png"))
    teach, judge = (
        read("tnbc_dev", [stem for stem in stems if stem[:2] in patients], encoder.spec.mpp_um)
        for patients in (TAUGHT, JUDGED)
    )
    found = []
    for head in args.head or range(encoder.spec.heads):
        for seed in range(args.seeds):
            found.append(taught(encoder, head, seed, (teach, judge), args))
            print(found[-1], flush=True)
            if args.json:
                args.json.write_text(json.dumps(found, indent=1))
    header = (
        "head", "on nuclei before (ratio)", "offered", "AUROC before", "offered", "1 - cosine", "features changed",
        "tokens", "other heads", "adopted", "CPU s",
    )  # fmt: skip
    table(header, list(rows_of(found)))


if __name__ == "__main__":
    record(main)
