"""How fast the program is on a GPU: forward, whole slides, the view after a pan, fine-tunes, heads.

    python benchmarks/gpu_speed.py [--device cuda] [--quick] [--seconds 105] [--out FILE.json]

On an idle machine, all cores, wall time. A part that fails says so and the next one begins; a part for which no time is
left is passed over. What is known so far stands in FILE.json after every part. ``--device cpu --quick`` runs everything
in small, to see that it works. MP are pixels the network sees (forward) or pixels of the slide (whole slides).
"""

import argparse
import json
import os
import statistics
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from unittest.mock import patch

import numpy as np
import psutil
import torch

from gpu_forward import compiled, forward_only, told
from gpu_stages import Stages
from measuring import record, table
from napari_nucleiseg.core.inference.device_decode import VARIABLE as DECODE
from napari_nucleiseg.core.inference.graphs import VARIABLE
from napari_nucleiseg.core.models.weights import load_model

# When the process began: to load the libraries is part of the first answer.
STARTED = time.perf_counter() - (time.time() - psutil.Process().create_time())
FAST = "napari_nucleiseg.core.inference.device.has_fast_bfloat16"
PLACED = "napari_nucleiseg.core.inference.device._placed"
HALF = {torch.bfloat16: torch.float16}


class Told:
    """Keeps what went wrong inside, whatever it is, and goes on: the other parts are not to be lost."""

    text = ""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            self.text = "".join(traceback.format_exception(error))
        return kind is not None and issubclass(kind, Exception)


class Bench:
    """What all parts share: the device, the sizes, the clock and the report."""

    def __init__(self, wanted, folder):
        self.device, self.quick, self.out, self.folder = wanted.device, wanted.quick, wanted.out, Path(folder)
        self.seconds, self.report = wanted.seconds, {"device": wanted.device, "parts": {}}
        # Sides of the slides by their pixel size.
        self.sides = {0.5: 2048, 0.25: 2048} if wanted.quick else {0.5: 16_384, 0.25: 24_576}
        self.is_cuda = wanted.device.startswith("cuda")

    @property
    def left(self):
        return self.seconds - (time.perf_counter() - STARTED)

    def sync(self):
        if self.is_cuda:
            torch.cuda.synchronize()

    def run(self, name, work, needs=0.0):
        """Do one part and note what it returns, whatever happens."""
        print(f"## {name}\n", flush=True)
        begun = time.perf_counter()
        if self.left < needs:
            found = {"passed over": f"{self.left:.0f} s left, {needs:.0f} needed"}
            print(found["passed over"], flush=True)
        else:
            found, trouble = None, Told()
            with trouble:
                found = work(self)
            if trouble.text:
                print(trouble.text, flush=True)
                found = {"error": trouble.text}
        took = time.perf_counter() - begun
        print(f"({took:.1f} s, {time.perf_counter() - STARTED:.1f} s since the start)\n", flush=True)
        self.report["parts"][name] = {"seconds": round(took, 2), "found": found}
        if self.out:
            Path(self.out).write_text(json.dumps(self.report, indent=1, default=float), encoding="utf-8")

    def timed(self, call, budget=0.35):
        """Return the seconds of one call: the median of groups of calls that each wait for the device once."""
        call()
        self.sync()
        group, groups, begun = 1 if not self.is_cuda else 3, [], time.perf_counter()
        while len(groups) < 3 or (time.perf_counter() - begun < budget and len(groups) < 20):
            start = time.perf_counter()
            for _ in range(group):
                call()
            self.sync()
            groups.append((time.perf_counter() - start) / group)
        return statistics.median(groups)

    def alias(self, side, mpp_um):
        """A slide of any size in a few megabytes."""
        from alias_slide import write_alias_slide

        path = self.folder / f"{side}-{mpp_um}.svs"
        if not path.exists():
            write_alias_slide(path, side, mpp_um)
        return path


def machine(bench):
    found = {
        "torch": torch.__version__,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "libraries loaded, s": round(time.perf_counter() - STARTED, 2),
    }
    if bench.is_cuda:
        start = time.perf_counter()
        torch.zeros(1, device=bench.device).item()
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "memory, GiB": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
            "context, s": round(time.perf_counter() - start, 2),
        }
    table(list(found), [list(found.values())])
    return found


def first_mask(bench):
    """Seconds from a pan to the nuclei of the tile in the middle of the view: read, forward, decode."""
    from napari_nucleiseg.core.geometry import Region
    from napari_nucleiseg.core.inference.plan import plan_inference
    from napari_nucleiseg.core.inference.segment import find_in_tiles
    from napari_nucleiseg.core.slides.registry import open_slide

    def pan(slide, model, y, x):
        start = time.perf_counter()
        plan = plan_inference(slide, model.spec, Region(y, x, 600, 600))
        found = find_in_tiles(slide, model, plan, tiles=plan.tiles[:1], device=bench.device)
        one = next(found)
        seconds = time.perf_counter() - start
        found.close()
        return seconds, one.seconds, len(one.nuclei)

    rng, rows = np.random.default_rng(0), []
    for mpp, side in bench.sides.items():
        slide = open_slide(str(bench.alias(side, mpp)))
        start = time.perf_counter()
        model = load_model("nuclei")
        loaded = time.perf_counter() - start
        cold, _, count = pan(slide, model, 1000, 1000)
        warm = [pan(slide, model, *map(int, rng.integers(0, side - 700, 2))) for _ in range(2 if bench.quick else 9)]
        rows.append(
            {
                "slide, um/px": mpp, "weights loaded, s": round(loaded, 3), "first tile, cold, s": round(cold, 3),
                "warm, median, s": round(statistics.median(one[0] for one in warm), 4),
                "forward and decode of it, s": round(statistics.median(one[1] for one in warm), 4), "nuclei": count,
            }
        )  # fmt: skip
        slide.close()
    told(rows)
    return rows


def whole_slides(bench):
    """The batch command from the file to labels in a project."""
    rows = []
    cases = [(mpp, side, {}) for mpp, side in bench.sides.items()] + [(0.5, bench.sides[0.5], {DECODE: "1"})]
    if bench.is_cuda:
        cases += [(0.5, bench.sides[0.5], more) for more in ({VARIABLE: "1"}, {"batch": 16})]
    for mpp, side, more in cases:
        if bench.left < 12 and not bench.quick:
            print("no time for more", flush=True)
            break
        row = one_slide(bench, bench.alias(side, mpp), more)
        rows.append({"um/px": mpp, "side": side, "way": " ".join(more) or "default"} | row)
        print(json.dumps(rows[-1], default=float), flush=True)
    print()
    stages = [key for key in rows[0] if ", s" in key]
    table(
        ("um/px", "way", "MP/s of slide", "MP/s of network", "device busy", "wall, s", "nuclei", "GPU, GiB", *stages),
        [
            (row["um/px"], row["way"], f"{row['slide MP/s']:.0f}", f"{row['network MP/s']:.0f}", f"{row['busy']:.0%}",
             f"{row['wall']:.1f}", row["nuclei"], f"{row['GPU GiB']:.2f}", *(f"{row[key]:.2f}" for key in stages))
            for row in rows
        ],
    )  # fmt: skip
    print("Stages are summed over their threads, so they may add up to more than the wall.\n")
    return rows


def one_slide(bench, path, more):
    """Segment one slide as the batch command does, and say where the time went."""
    from napari_nucleiseg.core.batch.job import SegmentJob, SlideFailed, SlideFinished, SlideNoted
    from napari_nucleiseg.core.batch.segmentation import segment_slides

    out = tempfile.mkdtemp(dir=bench.folder)
    job = SegmentJob((str(path),), out, tissue_mask=False, device=bench.device, batch_size=more.get("batch"))
    variables = {name: more.get(name, "0") for name in (VARIABLE, DECODE)}
    if bench.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    with patch.dict(os.environ, variables), Stages(cuda=bench.is_cuda) as stages:
        start = time.perf_counter()
        events = list(segment_slides(job))
        wall = time.perf_counter() - start
    for event in events:
        if isinstance(event, SlideFailed | SlideNoted):
            print(event, flush=True)
    finished = next(event for event in events if isinstance(event, SlideFinished))
    area = int(path.stem.split("-")[0]) ** 2 / 1e6
    found = {
        "wall": wall, "slide MP/s": area / wall, "network MP/s": stages.megapixels / wall,
        "busy": stages.busy / wall, "nuclei": finished.nuclei,
        "GPU GiB": torch.cuda.max_memory_allocated() / 2**30 if bench.is_cuda else 0.0,
    }  # fmt: skip
    return found | stages.table()


def same_nuclei(bench):
    """Nuclei of the default precision and of graphs against those of float32; of decoding there against the default."""
    from napari_nucleiseg.core.evaluation.scores import scores
    from napari_nucleiseg.core.inference.segment import segment_picture
    from napari_nucleiseg.core.slides.registry import open_slide
    from napari_nucleiseg.core.slides.sample import tissue_slide
    from napari_nucleiseg.core.slides.synthetic import synthetic_slide

    side = 512 if bench.quick else 2048
    slides = {"synthetic": synthetic_slide(side, side, 0.5, glass=False), "colon (scikit-image)": tissue_slide()}
    data = os.environ.get("NUCLEISEG_DATA")
    sample = Path(data or ".") / "wsi" / "cmu-1-small-region.svs"
    if data and sample.exists():
        slides["CMU-1 small region"] = open_slide(str(sample))
    model, rows = load_model("nuclei"), []
    placed = resolve_name(PLACED.replace(".device.", ".device:"))
    for name, slide in slides.items():
        with patch(FAST, lambda _: False), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            exact = segment_picture(slide, model, device=bench.device)
        default = segment_picture(slide, model, device=bench.device)
        with patch.dict(os.environ, {VARIABLE: "1"}):
            replayed = segment_picture(slide, model, device=bench.device, batch_size=1)
        with patch.dict(os.environ, {DECODE: "1"}):
            decoded = segment_picture(slide, model, device=bench.device)
        with patch(PLACED, lambda network, device, dtype: placed(network, device, HALF.get(dtype, dtype))):
            half = segment_picture(slide, model, device=bench.device)
        rows.append(
            {"tissue": name, "nuclei, fp32": int(exact.max(initial=0)), "default": int(default.max(initial=0)),
             "matched (F1)": f"{scores(exact, default, distances=False).f1:.4f}",
             "with graphs": f"{scores(exact, replayed, distances=False).f1:.4f}",
             "decoded on device": f"{scores(default, decoded, distances=False).f1:.4f}",
             "float16": f"{scores(exact, half, distances=False).f1:.4f}"}
        )  # fmt: skip
    told(rows)
    return rows


def fine_tune(bench):
    """A fine-tune of four regions beside one that is held out: wall time, and what of it is outside the network."""
    from napari_nucleiseg.core.teaching.collect import Lesson
    from napari_nucleiseg.core.teaching.config import FinetuneConfig
    from napari_nucleiseg.core.teaching.finetune import finetune
    from napari_nucleiseg.core.teaching.learner import Learner

    steps = 4 if bench.quick else 100
    examples, rest = corrected_regions(256)
    config = FinetuneConfig(steps=steps, patience=10_000, device=bench.device)
    if bench.quick:
        config = replace(config, crop_px=64, batch_size=2)
    inside, original, first, rows = [0.0], Learner.step, None, []

    def step(self, *args):
        bench.sync()
        start = time.perf_counter()
        found = original(self, *args)
        bench.sync()
        inside[0] += time.perf_counter() - start
        return found

    model = load_model("nuclei")
    for turn in ("first", "second"):
        inside[0], first = 0.0, None
        with patch.object(Learner, "step", step):
            start = time.perf_counter()
            for told_step in finetune(model, Lesson(examples, rest), config):
                if first is None and told_step.seconds:
                    first = time.perf_counter() - start
            wall = time.perf_counter() - start
        rows.append(
            {"turn": turn, "steps": told_step.step, "wall, s": round(wall, 2), "first step after, s": round(first, 2),
             "ms a step of the network": round(inside[0] / told_step.step * 1e3, 1),
             "outside the network": f"{1 - inside[0] / wall:.0%}"}
        )  # fmt: skip
        if bench.quick or bench.left < 2 * wall:
            break
    told(rows)
    return rows


def corrected_regions(side):
    """Four regions to learn from, one held out, and tissue without labels, all of a drawn slide."""
    from napari_nucleiseg.core.geometry import Region
    from napari_nucleiseg.core.slides.synthetic import synthetic_slide
    from napari_nucleiseg.core.teaching.examples import UNKNOWN, Example

    slide = synthetic_slide(side, 7 * side, 0.5, seed=5, glass=False)
    found = []
    for number in range(7):
        box = Region(0, number * side, side, side)
        image = np.ascontiguousarray(slide.levels[0][0:side, box.x : box.x1])
        labels = slide.truth_labels(box).astype(np.int32)
        role = "teach" if number < 4 else "hold out"
        found.append(Example("drawn", "drawn", f"Region {number}", number + 1, role, image, labels, 0.5, box, (0,)))
    nothing = np.full((side, side), UNKNOWN, np.int32)
    rest = [replace(one, region="", number=-1, role="reference", labels=nothing, classes=()) for one in found[5:]]
    return tuple(found[:5]), tuple(rest)


def heads_of_a_view(bench):
    """All heads of an encoder of the size of ViT-S/16 on a view of 1,024 px."""
    from heads_speed import encoder_of, last_of, middle
    from napari_nucleiseg.core.attention.look import look
    from napari_nucleiseg.core.attention.shown import MapWish, shown_map
    from napari_nucleiseg.core.slides.synthetic import synthetic_slide

    encoder = encoder_of(params={"depth": 2} if bench.quick else {})
    view = synthetic_slide(1024, 1024, 0.5, glass=False)
    plan = middle(view, 256 if bench.quick else 1024, encoder.spec)
    for tile in plan.tiles:
        plan.read(view, tile)  # drawn before the clock starts

    def looked():
        return last_of(look(view, plan, encoder, device=bench.device)).looked

    start = time.perf_counter()
    known = looked()
    row = {
        "patches": len(plan.tiles),
        "embedding": encoder.spec.embed,
        "first, ms": (time.perf_counter() - start) * 1e3,
    }
    row["next, ms"] = bench.timed(looked, 1.0) * 1e3
    row["another head, ms"] = bench.timed(lambda: shown_map([known], MapWish(head="1", layer=1)), 0.2) * 1e3
    row = {key: round(value, 2) for key, value in row.items()}
    told([row])
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument("--seconds", type=float, default=105, help="no part is begun that is not done by then")
    parser.add_argument("--out", help="JSON file, written after every part")
    wanted = parser.parse_args()
    parts = (
        ("machine", machine, 0), ("first mask after a pan", first_mask, 4), ("forward only", forward_only, 15),
        ("whole slides", whole_slides, 15), ("same nuclei", same_nuclei, 8), ("heads of a view", heads_of_a_view, 3),
        ("fine-tune", fine_tune, 12), ("torch.compile", compiled, 45),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(wanted, folder)
        for name, work, needs in parts:
            bench.run(name, work, 0 if wanted.quick and work is not compiled else needs)


if __name__ == "__main__":
    record(main)
