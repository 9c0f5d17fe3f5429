"""Finding the like of a few marked nuclei: how many of the right ones are proposed, against colour alone, and how fast.

    python benchmarks/few_shot.py --split tune --json tune.json
    python benchmarks/few_shot.py --split test --json test.json
    python benchmarks/few_shot.py --time

The references know nuclei and no classes, so that the like of a nucleus is every nucleus. Candidates therefore are too
many on purpose (``candidates_of``: regions at any contrast and superpixels between them); which of them are nuclei is
the question. The task is easier than segmentation where features are those of a network that was trained to find nuclei
(``nuclei``), so these stand beside features that have seen no label (``nuclei-label-free``, ``tissue-patches``) and
colour. A person marks true nuclei at random by a click at their middle, whatever candidate lies there. Proposals are
scored by F1 (IoU above 0.5 with a true nucleus); what was marked counts on neither side. A score is the mean over
seeds; intervals are from 2,000 bootstrap draws of pictures.

Tuning: TNBC patients 04-05, HoVer-Net's 16 training pictures of Kumar. Test: its 14 test pictures, once. Projections
are taught on TNBC patients 01-03.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from measuring import one_thread, spent
from napari_nucleiseg.core.decoders.classical import segment_classically
from napari_nucleiseg.core.decoders.component_tree import segment_by_shape
from napari_nucleiseg.core.evaluation.agreement import detection
from napari_nucleiseg.core.evaluation.overlaps import overlaps
from napari_nucleiseg.core.fewshot.episodes import episode_view
from napari_nucleiseg.core.fewshot.projection import Projection, ProjectionConfig, train_projection
from napari_nucleiseg.core.fewshot.search import (
    FeatureField,
    LikeOptions,
    Mark,
    Proposals,
    candidates_of,
    colour_field,
    field_of,
    find_the_like,
    prepare,
)
from napari_nucleiseg.core.models.encoders import load_encoder
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.training.samples import read_labels, read_picture

DATA = Path(os.environ.get("NUCLEISEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
SEEDS, DRAWS = 5, 2000
SHOTS = (1, 3, 5)
TAUGHT = ("label-free, ALPNet on superpixels", "label-free, PANet on labels")
FEATURES = ("colour", "nuclei", "nuclei-label-free", "tissue-patches", *TAUGHT)
METHODS = {
    "sg-one": LikeOptions("sg-one", heatmap=False),
    "panet": LikeOptions("panet", heatmap=False),
    "alp": LikeOptions("alp", heatmap=False),
    "nearest, 10 rounds": LikeOptions(rounds=10, heatmap=False),
    "nearest, 2 distractors": LikeOptions(distractors=2, heatmap=False),
    "sg-one, kernels": LikeOptions("sg-one", kernels=True, heatmap=False),
}
DEFAULT = LikeOptions(heatmap=False)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with its true nuclei, candidates, and which candidate is which nucleus."""

    name: str
    group: str
    image: NDArray[np.uint8]
    truth: NDArray[np.int32]
    mpp_um: float
    candidates: NDArray[np.int32]
    nuclei: NDArray[np.int64]
    nucleus_of: dict[int, int]


def stems(split: str) -> list[tuple[str, str, str]]:
    """Group, folder and name of each picture of a split."""
    with (DATA / "kumar_train30" / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    if split == "test":
        return [
            ("Kumar test 14", "kumar_train30", row["stem"]) for row in rows if row["hovernet_kumar_split"] != "train"
        ]
    tnbc = sorted(path.stem for path in (DATA / "tnbc_dev" / "images").glob("0[45]_*.png"))
    return [("TNBC 04-05", "tnbc_dev", stem) for stem in tnbc] + [
        ("Kumar train 16", "kumar_train30", row["stem"]) for row in rows if row["hovernet_kumar_split"] == "train"
    ]


def read(group: str, folder: str, stem: str) -> Picture:
    image = read_picture(DATA / folder / "images" / f"{stem}.png")
    truth = read_labels(DATA / folder / "labels" / f"{stem}.tif")
    mpp_um = 0.5 if stem.startswith("TCGA-HE-") else 0.25  # three pictures show nuclei at half their size
    candidates = candidates_of(image, mpp_um)
    table = overlaps(truth, candidates)
    good = table.ious > 0.5
    pairs = zip(table.pred_ids[table.pred_index[good]], table.truth_ids[table.truth_index[good]], strict=True)
    return Picture(
        stem, group, image, truth, mpp_um, candidates, table.truth_ids, {int(found): int(true) for found, true in pairs}
    )


def clicked(picture: Picture, count: int, seed: int) -> tuple[set[int], list[Mark]]:
    """True nuclei at random, and a click on the pixel of each that is nearest to its middle."""
    rng = np.random.default_rng([seed, count])
    chosen = rng.choice(picture.nuclei, min(count, len(picture.nuclei)), replace=False)
    marks = []
    for number in chosen:
        places = np.argwhere(picture.truth == number)
        place = places[np.square(places - places.mean(axis=0)).sum(axis=1).argmin()]
        marks.append(Mark((float(place[0]), float(place[1]))))
    return {int(number) for number in chosen}, marks


def f1(picture: Picture, ids: Sequence[int] | NDArray[np.int32], marked: set[int], known: set[int]) -> float:
    """F1 of proposals, what was marked (true nuclei, candidates) left out on both sides."""
    rest = {int(number) for number in ids} - known
    right = sum(picture.nucleus_of.get(number, 0) not in {0, *marked} for number in rest)
    return 2 * right / max(len(rest) + len(picture.nuclei) - len(marked), 1)


def refused(picture: Picture, found: Proposals, count: int) -> list[Mark]:
    """What a person would refuse first: the highest of the proposals that hold next to nothing of any nucleus."""
    areas = np.bincount(picture.candidates.ravel())
    stained = np.bincount(picture.candidates[picture.truth > 0], minlength=len(areas))
    wrong = [number for number in found.ids if stained[number] < 0.1 * areas[number] and number not in found.like]
    marks = []
    for number in wrong[:count]:
        places = np.argwhere(picture.candidates == number)
        place = places[np.square(places - places.mean(axis=0)).sum(axis=1).argmin()]
        marks.append(Mark((float(place[0]), float(place[1])), is_like=False))
    return marks


@cache
def network(name: str):
    return load_encoder(name) if name == "tissue-patches" else load_model(name)


@cache
def taught(name: str) -> Projection:
    """Teach a projection of label-free features on TNBC patients 01-03."""
    with_labels = name == TAUGHT[1]
    views = []
    for number, path in enumerate(sorted((DATA / "tnbc_dev" / "images").glob("0[123]_*.png"))):
        labels = read_labels(DATA / "tnbc_dev" / "labels" / f"{path.stem}.tif") if with_labels else None
        views.append(episode_view(network("nuclei-label-free"), read_picture(path), 0.25, labels, seed=number))
    config = ProjectionConfig(600, 0.1, window=0) if with_labels else ProjectionConfig(200, window=4)
    *_, last = train_projection(views, config)
    return last.projection


def field(picture: Picture, name: str) -> FeatureField:
    if name == "colour":
        return colour_field(picture.image, picture.mpp_um)
    if name in TAUGHT:
        return taught(name).apply(field_of(network("nuclei-label-free"), picture.image, picture.mpp_um))
    return field_of(network(name), picture.image, picture.mpp_um)


def rows_of(picture: Picture) -> dict[str, list[float]]:
    """All scores of one picture by what was done."""
    found: dict[str, list[float]] = {}
    nothing: set[int] = set()
    everything = np.unique(picture.candidates)[1:]
    right = [number for number in everything if int(number) in picture.nucleus_of]
    found["no marks: all candidates"] = [f1(picture, everything, nothing, nothing)]
    found["no marks: the right candidates (ceiling)"] = [f1(picture, right, nothing, nothing)]
    floors: dict[str, Callable] = {"classical": segment_classically, "by shape": segment_by_shape}
    for name, segment in floors.items():
        labels = segment(picture.image, picture.mpp_um).labels
        found[f"no marks: {name}"] = [float(detection(overlaps(picture.truth, labels))[0])]
    for name in FEATURES:
        features = field(picture, name)
        shared = prepare(features, picture.candidates)

        def ask(marks, options, features=features, shared=shared):
            return find_the_like(features, picture.candidates, marks, options, prepared=shared)

        for seed in range(SEEDS):
            for shots in SHOTS:
                marked, marks = clicked(picture, shots, seed)
                said = ask(marks, DEFAULT)
                known = set(map(int, said.like))
                found.setdefault(f"{name}: nearest, {shots}", []).append(f1(picture, said.ids, marked, known))
                if shots == 3:
                    against = refused(picture, said, 3)
                    said = ask([*marks, *against], DEFAULT)
                    known |= set(map(int, said.unlike))
                    found.setdefault(f"{name}: nearest, 3 and 3 not", []).append(f1(picture, said.ids, marked, known))
                    for method, options in METHODS.items():
                        said = ask(marks, options)
                        score = f1(picture, said.ids, marked, set(map(int, said.like)))
                        found.setdefault(f"{name}: {method}, 3", []).append(score)
    return found


def interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean over pictures and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    draws = values[rng.integers(len(values), size=(DRAWS, len(values)))].mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def report(scores: dict[str, dict[str, float]], groups: dict[str, str]) -> None:
    for group in dict.fromkeys(groups.values()):
        names = [name for name in scores if groups[name] == group]
        print(f"\n{group}: {len(names)} pictures, {SEEDS} seeds")
        print("| | F1 | 95 % | less colour | 95 % |\n|---|---|---|---|---|")
        for row in scores[names[0]]:
            values = np.array([scores[name][row] for name in names])
            line = "| {} | {:.3f} | {:.3f}-{:.3f} |".format(row, *interval(values))
            said, _, how = row.partition(": ")
            if said in FEATURES[1:]:
                colour = np.array([scores[name][f"colour: {how}"] for name in names])
                line += " {:+.3f} | {:+.3f} to {:+.3f} |".format(*interval(values - colour))
            print(line)


def times() -> None:
    """CPU and wall time on a view of 1,024 x 1,024 px at 0.25 um/px, one thread, the best of five."""
    paths = sorted((DATA / "tnbc_dev" / "images").glob("04_*.png"))[:2]
    image = np.concatenate([read_picture(path) for path in paths])
    image = np.concatenate([image, image[:, ::-1]], axis=1)
    assert image.shape == (1024, 1024, 3)

    def told(function: Callable) -> str:
        rounds = [spent(function) for _ in range(5)]
        cpu, wall = min(item.cpu for item in rounds), min(item.wall for item in rounds)
        return f"{cpu:.3f} s CPU, {wall:.3f} s wall"

    candidates = candidates_of(image, 0.25)
    print(f"candidates: {candidates.max():,} in {told(lambda: candidates_of(image, 0.25))}")
    marks = [Mark((200.0 + 150 * k, 300.0 + 90 * k), is_like=k < 3) for k in range(5)]
    for name in FEATURES[:4]:

        def look(name: str = name) -> FeatureField:
            return colour_field(image, 0.25) if name == "colour" else field_of(network(name), image, 0.25)

        features = look()
        shared = prepare(features, candidates)
        print(f"{name}: field {features.features.shape} of {'+'.join(features.layers)}, {told(look)}")
        for method in ("nearest", "sg-one", "panet", "alp"):
            options = LikeOptions(method)
            first = told(lambda f=features, o=options: find_the_like(f, candidates, marks, o))
            further = told(lambda f=features, o=options, p=shared: find_the_like(f, candidates, marks, o, prepared=p))
            print(f"  {method}: first query {first}; further ones {further}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("tune", "test"), default="tune")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--time", action="store_true", help="only measure time")
    options = parser.parse_args()
    one_thread()
    if options.time:
        times()
        return
    scores, groups = {}, {}
    for entry in stems(options.split):
        start = time.perf_counter()
        picture = read(*entry)
        scores[picture.name] = {row: float(np.mean(values)) for row, values in rows_of(picture).items()}
        groups[picture.name] = picture.group
        print(f"{picture.name}: {len(picture.nuclei)} nuclei, {time.perf_counter() - start:.0f} s", flush=True)
    report(scores, groups)
    if options.json:
        options.json.write_text(json.dumps({"scores": scores, "groups": groups}, indent=1))


if __name__ == "__main__":
    main()
