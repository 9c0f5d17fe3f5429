"""Whether the queue saves work: nuclei corrected until a model is as good, by the queue's order against chance.

    napari-nucleiseg train --config benchmarks/training/teaching-base.json
    python benchmarks/teaching_queue.py errors
    python benchmarks/teaching_queue.py --json queue.json

``errors`` asks, in seconds, whether the scores tell where the base is wrong: rank correlations with 1 - AJI over all
windows of the training pictures. What follows is about the curves.

Base and laboratories are those of ``teaching.py``. A simulated pathologist holds one region out, then corrects two
regions of 256 x 256 px at 0.25 um/px a round, with their true nuclei: either by chance, or the ones that
`core.teaching.queue` puts first with the newest model. After each round the base is taught with all regions so far and
judged on pictures that were never used for anything else; what is offered is judged, whether or not the guard adopts
it. Both orders share seeds, the region that is held out (not counted: it is the same for both), and the pool: all
windows on a grid of the training pictures.

"Nuclei to 50 %" are those at which the mean curve over seeds first reaches the base plus half of what chance gains by
its last round; the ratio is the queue's number over that of chance, below one if the queue saves work. Intervals hold
90 %, from a bootstrap over seeds (the same for both orders) and, for "all", over laboratories; "inf" where the queue
does not get there. "At equal nuclei" is the mean difference of AJI over the numbers of nuclei that both orders reached.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from measuring import one_thread
from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.evaluation.agreement import aji
from napari_nucleiseg.core.evaluation.overlaps import overlaps
from napari_nucleiseg.core.inference.segment import default_options
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.weights import LoadedModel, load_model
from napari_nucleiseg.core.store.regions import HOLD_OUT
from napari_nucleiseg.core.teaching.collect import Lesson, with_role
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.queue import QueueConfig, next_regions, rank_pictures
from napari_nucleiseg.core.teaching.verdict import LEAST_NUCLEI
from napari_nucleiseg.core.teaching.windows import Window, grid_windows
from napari_nucleiseg.core.training.validation import picture_maps
from teaching import BASE, MPP_UM, REGION_PX, Laboratory, Picture, judged, laboratories, region_of, taught, unlabelled

ORDERS = CHANCE, QUEUE = "chance", "queue"
SHARES = (0.5, 0.8)
DRAWS = 2000
# A laboratory where chance gains less than this has no curve on which to compare anything.
LEAST_GAIN = 0.003
LEAST_SEEDS = 3

Row = dict[str, Any]


def held_and_pool(lab: Laboratory, mpp_um: float, rng: np.random.Generator) -> tuple[Window, list[Window]]:
    """One window to hold out, by chance among those with enough nuclei, and all others."""
    windows = grid_windows([picture.image for picture in lab.teach], round(REGION_PX * MPP_UM / mpp_um))
    full = [
        window
        for window in windows
        if len(np.unique(lab.teach[window.picture].labels[window.region.slices])) > LEAST_NUCLEI
    ]
    held = full[int(rng.integers(len(full)))]
    return held, [window for window in windows if window != held]


def lesson_of(lab: Laboratory, chosen: Sequence[Window], held: Window, mpp_um: float) -> Lesson:
    """The regions corrected so far, the one held out, and the rest of their pictures without labels."""
    examples = [
        region_of(lab.teach[at.picture], (at.region.y, at.region.x), at.region.height, mpp_um, number)
        for number, at in enumerate([*chosen, held], start=1)
    ]
    quiet = [unlabelled(lab.teach[number], mpp_um) for number in sorted({at.picture for at in chosen})]
    return Lesson((*examples[:-1], with_role(examples[-1], HOLD_OUT)), tuple(quiet))


def next_windows(
    order: str,
    model: LoadedModel,
    pictures: Sequence[Picture],
    left: Sequence[Window],
    chosen: Sequence[Window],
    *,
    config: QueueConfig,
) -> list[Window]:
    """The windows to correct in the next round."""
    if order == CHANCE:
        rng = np.random.default_rng((config.seed, len(chosen)))
        return [left[place] for place in rng.choice(len(left), min(config.regions, len(left)), replace=False)]
    seen = rank_pictures(model, [picture.image for picture in pictures], left, chosen, config)
    return [Window(found.picture, found.region) for found in next_regions(seen, config)]


def curve(lab: Laboratory, base: LoadedModel, order: str, seed: int, args: argparse.Namespace) -> Iterator[Row]:
    """Correct, teach and judge round after round; one row a round."""
    mpp_um = base.spec.mpp_um
    held, pool = held_and_pool(lab, mpp_um, np.random.default_rng((seed, 7)))
    model, chosen = base, []
    for number in range(1, args.rounds + 1):
        began = time.process_time()
        left = [window for window in pool if window not in chosen]
        chosen += next_windows(order, model, lab.teach, left, chosen, config=replace(args.queue, seed=seed))
        chose = time.process_time() - began
        lesson = lesson_of(lab, chosen, held, mpp_um)
        outcome, cpu, _ = taught(base, lesson, replace(args.finetune, seed=seed))
        model = outcome.model
        found = judged(model, lab.judge)
        yield {
            "lab": lab.name, "order": order, "seed": seed, "round": number, "regions": len(chosen),
            "nuclei": sum(len(example.ids) for example in lesson.examples[:-1]), "aji": found.aji, "pq": found.pq,
            "adopted": outcome.adopted, "cpu_choice": chose, "cpu_teaching": cpu,
        }  # fmt: skip


def run(args: argparse.Namespace) -> list[Row]:
    """All curves that are not in the file yet; the file is written after each curve."""
    rows: list[Row] = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    base = load_model(str(args.base), accept_licence=True)
    for lab in laboratories(base.spec.mpp_um, dev=args.dev):
        if args.lab and lab.name not in args.lab:
            continue
        before = judged(base, lab.judge)
        print(f"{lab.name}: base AJI {before.aji:.3f}", flush=True)
        for seed in range(args.seeds):
            for order in ORDERS:
                if any((row["lab"], row["order"], row["seed"]) == (lab.name, order, seed) for row in rows):
                    continue
                found = [row | {"base": before.aji} for row in curve(lab, base, order, seed, args)]
                rows += found
                print(f"  {order}, seed {seed}: {told(found)}", flush=True)
                if args.json:
                    args.json.write_text(json.dumps(rows, indent=1))
    return rows


def told(found: Sequence[Row]) -> str:
    """One curve in a line."""
    points = ", ".join(f"{row['aji'] - row['base']:+.3f} at {row['nuclei']}" for row in found)
    cpu = [sum(row[name] for row in found) for name in ("cpu_choice", "cpu_teaching")]
    return f"AJI {points} nuclei; CPU {cpu[0]:.0f} s to choose, {cpu[1]:.0f} s to teach"


class Curves:
    """The curves of one laboratory on a common grid of numbers of nuclei."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.base = float(rows[0]["base"])
        seeds = {order: {row["seed"] for row in rows if row["order"] == order} for order in ORDERS}
        self.seeds = sorted(seeds[CHANCE] & seeds[QUEUE])
        ends = []
        self.grid = np.arange(1 + max(row["nuclei"] for row in rows))
        self.values: dict[str, np.ndarray] = {}
        for order in ORDERS:
            curves = []
            for seed in self.seeds:
                mine = sorted(
                    (row for row in rows if (row["order"], row["seed"]) == (order, seed)), key=lambda row: row["round"]
                )
                nuclei = [0, *(row["nuclei"] for row in mine)]
                curves.append(np.interp(self.grid, nuclei, [self.base, *(row["aji"] for row in mine)]))
                ends.append(nuclei[-1])
            self.values[order] = np.stack(curves)
        self.common = min(ends)

    def draw(self, rng: np.random.Generator | None) -> Row:
        """Numbers of nuclei and their ratio (not a number where chance gains nothing) for some seeds, or all."""
        picked = np.arange(len(self.seeds)) if rng is None else rng.integers(len(self.seeds), size=len(self.seeds))
        mean = {order: values[picked].mean(axis=0) for order, values in self.values.items()}
        apart = float((mean[QUEUE] - mean[CHANCE])[: self.common + 1].mean())
        gain = mean[CHANCE][-1] - self.base
        found: Row = {"gain": gain, "queue gain": mean[QUEUE][-1] - self.base, "apart": apart}
        for share in SHARES:
            needed = {order: self._reached(values, self.base + share * gain) for order, values in mean.items()}
            usable = gain >= LEAST_GAIN
            found[f"needed {share}"] = needed if usable else None
            found[f"log {share}"] = np.log(needed[QUEUE] / needed[CHANCE]) if usable else np.nan
        return found

    def _reached(self, values: np.ndarray, target: float) -> float:
        there = np.flatnonzero(values >= target)
        return float(max(self.grid[there[0]], 1)) if len(there) else np.inf


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Bounds that hold 90 %; infinite values may be among them."""
    kept = np.array([value for value in values if not np.isnan(value)])
    if not len(kept):
        return np.nan, np.nan
    low, high = np.quantile(kept, (0.05, 0.95), method="nearest")
    return float(low), float(high)


def mean_of(found: Sequence[Row], name: str) -> float:
    """Mean over laboratories, those without a gain left out."""
    kept = [row[name] for row in found if not np.isnan(row[name])]
    return float(np.mean(kept)) if kept else np.nan


def table(rows: Sequence[Row]) -> str:
    """One line a laboratory and one for all, and what it comes to."""
    labs = {name: Curves([row for row in rows if row["lab"] == name]) for name in dict.fromkeys(r["lab"] for r in rows)}
    rng = np.random.default_rng(0)
    heads = ["laboratory", "seeds", "base AJI", "gain by chance", "by the queue", "AJI at equal nuclei"]
    heads += [f"nuclei to {share:.0%}: {what}" for share in SHARES for what in ("chance", "queue", "ratio")]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    drawn = {name: [curves.draw(rng) for _ in range(DRAWS)] for name, curves in labs.items()}
    for name, curves in labs.items():
        lines.append(
            line(name, str(len(curves.seeds)), f"{curves.base:.3f}", [curves.draw(None)], [[d] for d in drawn[name]])
        )
    names = list(labs)
    picks = rng.integers(len(names), size=(DRAWS, len(names)))
    both = [[drawn[names[place]][number] for place in pick] for number, pick in enumerate(picks)]
    whole = [curves.draw(None) for curves in labs.values()]
    lines += [
        line("all", "", "", whole, both),
        "",
        *verdicts(whole, both, min(len(curves.seeds) for curves in labs.values())),
    ]
    return "\n".join(lines)


def line(name: str, seeds: str, base: str, found: Sequence[Row], drawn: Sequence[Sequence[Row]]) -> str:
    """One line of the table."""
    low, high = interval([mean_of(rows, "apart") for rows in drawn])
    cells = [name, seeds, base, f"{mean_of(found, 'gain'):+.3f}", f"{mean_of(found, 'queue gain'):+.3f}"]
    cells.append(f"{mean_of(found, 'apart'):+.3f} ({low:+.3f} to {high:+.3f})")
    for share in SHARES:
        needed = found[0][f"needed {share}"] if len(found) == 1 else None
        cells += [f"{needed[order]:.0f}" if needed else "" for order in ORDERS]
        ratio = np.exp(mean_of(found, f"log {share}"))
        low, high = np.exp(interval([mean_of(rows, f"log {share}") for rows in drawn]))
        cells.append("no gain by chance" if np.isnan(ratio) else f"{ratio:.2f} ({low:.2f} to {high:.2f})")
    return f"| {' | '.join(cells)} |"


def verdicts(found: Sequence[Row], drawn: Sequence[Sequence[Row]], seeds: int) -> list[str]:
    """What the line of all laboratories comes to, in sentences."""
    if seeds < LEAST_SEEDS:
        return [f"With fewer than {LEAST_SEEDS} seeds a laboratory the intervals say nothing."]
    said = []
    for share in SHARES:
        ratio = float(np.exp(mean_of(found, f"log {share}")))
        low, high = np.exp(interval([mean_of(rows, f"log {share}") for rows in drawn]))
        if np.isnan(ratio):
            said.append(f"To {share:.0%}: chance gains nothing in any laboratory, so nothing can be compared.")
        elif high < 1:
            said.append(f"To {share:.0%}: the queue saves work (ratio {low:.2f} to {high:.2f}).")
        elif low > 1:
            said.append(
                f"To {share:.0%}: the queue costs work (ratio {low:.2f} to {high:.2f}; inf: it did not get there)."
            )
        else:
            said.append(f"To {share:.0%}: the queue does not win beyond chance (ratio {low:.2f} to {high:.2f}).")
    return said


def errors(args: argparse.Namespace) -> str:
    """How well each score tells where the base is wrong: rank correlation with 1 - AJI over windows."""
    base, device = load_model(str(args.base), accept_licence=True), choose_device("cpu")
    options = default_options(base)
    heads = [
        "laboratory",
        "windows",
        "doubt",
        "disagreement",
        "instability",
        "mean rank",
        "1 - AJI of the first 8",
        "of all",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for lab in laboratories(base.spec.mpp_um, dev=args.dev):
        if args.lab and lab.name not in args.lab:
            continue
        pictures = [picture.image for picture in lab.teach]
        found = [
            decoder(base.spec.decoder).decode(
                picture_maps(base.network, base.spec, image, device), base.spec.mpp_um, options
            )
            for image in pictures
        ]
        grid = grid_windows(pictures, round(REGION_PX * MPP_UM / base.spec.mpp_um))
        everything = replace(args.queue, candidates=len(grid), regions=len(grid), upper=0.0)
        seen = list(rank_pictures(base, pictures, grid, config=everything))
        wrong = {}
        for one in seen:
            number, here = one.window.picture, one.window.region.slices
            wrong[one.window] = 1 - aji(overlaps(lab.teach[number].labels[here], found[number].labels[here]))
        order = [Window(one.picture, one.region) for one in next_regions(seen, everything)]
        scores = np.array([one.look.scores for one in seen]).T
        told = [spearmanr(score, [wrong[one.window] for one in seen]).statistic for score in scores]
        told.append(spearmanr(np.arange(len(order), 0, -1), [wrong[window] for window in order]).statistic)
        means = np.mean([wrong[window] for window in order[:8]]), np.mean(list(wrong.values()))
        cells = [lab.name, str(len(seen)), *(f"{value:+.2f}" for value in told), *(f"{value:.3f}" for value in means)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def settings(kind: Any, given: Sequence[str]) -> Any:
    """Change fields of a configuration by ``FIELD=VALUE``."""
    return replace(kind, **{name: json.loads(value) for name, value in (item.split("=") for item in given)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("curves", "errors"), default="curves")
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--dev", action="store_true", help="the pictures on which the recipe was chosen")
    parser.add_argument("--lab", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--each", type=int, default=2, help="regions a round")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the fine-tune")
    parser.add_argument("--queue-set", action="append", default=[], metavar="FIELD=VALUE", help="of the queue")
    parser.add_argument("--json", type=Path, help="rows; what is in it already is not done again")
    args = parser.parse_args()
    one_thread()
    plain = FinetuneConfig(steps=30, validate_every=15, trust_labels=True, threads=1, device="cpu")
    args.finetune = settings(plain, args.set)
    args.queue = settings(QueueConfig(regions=args.each, device="cpu"), args.queue_set)
    print(errors(args) if args.what == "errors" else table(run(args)))


if __name__ == "__main__":
    main()
