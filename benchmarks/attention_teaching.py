"""What painting attention gives: a simulated annotator corrects where a model looks; other patients judge it.

    python benchmarks/attention_teaching.py --base nuclei-label-free --json attention.json

Any weights of scale attention will do. In four regions of 256 x 256 px at 0.25 um/px (``tnbc_dev``, patients 01-03)
the annotator paints the cores of all nuclei "look here", and half of what the model looks at although no nucleus is
near "do not". Judged is the mean AJI on all pictures of patients 04-05, or with ``--each`` of every patient in turn,
with regions of the other four. Three ways are compared on the same regions: paint alone, all true nuclei alone, and
both. "Offered" is the new model, whether the guard adopts it or not: paint
alone gives the guard nothing to judge by, and it then keeps the former model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from measuring import one_thread
from napari_nucleiseg.core.decoders.distance import interior_of
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.weights import LoadedModel, load_model
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.examples import UNKNOWN, Example, count_nuclei
from napari_nucleiseg.core.training.validation import picture_maps
from teaching import DATA, corrected, judged, read, taught

REGIONS = 4
PATIENTS = ("01", "02", "03", "04", "05")
TAUGHT, JUDGED = PATIENTS[:3], PATIENTS[3:]
# A brush stays this far inside a nucleus, and this far from any where it says "do not".
CORE_UM, AWAY_UM = 0.75, 1.5
SEEN_SHARE = 0.5
WAYS = ("paint", "nuclei", "both")


def painted(model: LoadedModel, example: Example, rng: np.random.Generator) -> NDArray[np.int8]:
    """Paint the attention of a region as a person would, who sees the picture and the heatmap.

    Returns
    -------
    ndarray of int8, shape (y, x)
        1 look here, 0 do not, negative not painted.
    """
    heat = picture_maps(model.network, model.spec, example.image, choose_device("cpu"))["attention"][0] > 0.5
    nuclei = example.labels > 0
    inside, beside = (
        cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3) * example.mpp_um
        for mask in (interior_of(np.maximum(example.labels, 0)), ~nuclei)
    )
    wrong = (heat & example.known & (beside > AWAY_UM)).astype(np.uint8)
    count, pieces = cv2.connectedComponents(wrong)
    seen = np.flatnonzero(rng.random(count) < SEEN_SHARE)
    paint = np.full(example.labels.shape, UNKNOWN, np.int8)
    paint[nuclei & (inside > CORE_UM)] = 1
    paint[(pieces > 0) & np.isin(pieces, seen)] = 0
    return paint


def lessons(
    model: LoadedModel, whole: Lesson, rng: np.random.Generator, ways: Sequence[str]
) -> Iterator[tuple[str, Lesson]]:
    """Yield what is taught in each of the ways."""
    paint = [painted(model, example, rng) for example in whole.examples]
    for way in ways:
        examples = []
        for example, attention in zip(whole.examples, paint, strict=True):
            labels = np.full_like(example.labels, UNKNOWN) if way == "paint" else example.labels
            known = attention if way != "nuclei" and (attention >= 0).any() else None
            examples.append(replace(example, labels=labels, attention=known))
        yield way, replace(whole, examples=tuple(examples))


def compared(
    model: LoadedModel,
    seeds: Sequence[int],
    config: FinetuneConfig,
    judged_on: Sequence[str] = JUDGED,
    ways: Sequence[str] = WAYS,
) -> Iterator[dict[str, object]]:
    """Yield a row a seed and way: AJI on the other patients before and after."""
    stems = sorted(path.stem for path in (DATA / "tnbc_dev" / "images").glob("*.png"))
    taught_on = TAUGHT if tuple(judged_on) == JUDGED else [one for one in PATIENTS if one not in judged_on]
    teach, judge = (
        read("tnbc_dev", [stem for stem in stems if stem[:2] in patients], model.spec.mpp_um)
        for patients in (taught_on, judged_on)
    )
    before = judged(model, judge).aji
    for seed in seeds:
        rng = np.random.default_rng(seed)
        whole = corrected(teach, REGIONS, model.spec.mpp_um, rng)
        for way, lesson in lessons(model, whole, rng, ways):
            outcome, cpu, steps = taught(model, lesson, replace(config, seed=seed, threads=1, trust_labels=True))
            yield {
                "judged": "+".join(judged_on), "seed": seed, "way": way, "nuclei": count_nuclei(lesson.examples),
                "look": sum(int((one.attention == 1).sum()) for one in lesson.examples if one.attention is not None),
                "do_not": sum(int((one.attention == 0).sum()) for one in lesson.examples if one.attention is not None),
                "before": before, "offered": judged(outcome.model, judge).aji,
                "adopted": outcome.adopted, "cpu": round(cpu, 1), "steps": steps, "reason": outcome.reason,
            }  # fmt: skip


def table(rows: Sequence[dict[str, object]]) -> str:
    """One line a way, means over seeds."""
    lines = [
        "| taught with | AJI before | offered | gain (lowest to highest) | adopted | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        some = [row for row in rows if row["way"] == way]
        if some:
            gains = [row["offered"] - row["before"] for row in some]
            before, after = (np.mean([row[name] for row in some]) for name in ("before", "offered"))
            span = f"{np.mean(gains):+.3f} ({min(gains):+.3f} to {max(gains):+.3f})"
            lines.append(
                f"| {way} | {before:.3f} | {after:.3f} | {span} | "
                f"{sum(row['adopted'] for row in some)} of {len(some)} | {np.mean([row['cpu'] for row in some]):.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="weights of scale attention")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--each", action="store_true", help="judge every patient in turn")
    parser.add_argument("--way", action="append", default=[], choices=WAYS)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="another setting")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    one_thread()
    fields = dict(item.split("=") for item in args.set)
    config = replace(FinetuneConfig(), **{name: json.loads(value) for name, value in fields.items()})
    model = load_model(str(args.base), accept_licence=True)
    if not model.spec.attends:
        parser.error(f"{args.base} does not say where it looks; take weights of scale attention")
    rows: list[dict[str, object]] = []
    for judged_on in [(one,) for one in PATIENTS] if args.each else [JUDGED]:
        for row in compared(model, range(args.seeds), config, judged_on, args.way or WAYS):
            rows.append(row)
            print(row, flush=True)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
