"""What looking with every head costs beside the network: look against the bare forward, all heads, seen views, memory.

Run ``python benchmarks/heads_speed.py [--rounds 3] [--side 1024] [--region 4096] [--own-precision]``. One thread on
one processor, CPU time, best of the rounds, random weights, float32; with ``--own-precision`` as in the window,
bfloat16 where that is faster (a seen view and other heads: what was kept). Slide: the small one of `$NUCLEISEG_DATA`
(default ``../shared/data``), else a synthetic one. The large region is synthetic, as that slide is smaller; it is drawn
before the clock starts. "Attend" makes features, all heads of all layers and rollout; "features only" is the network
with fused attention, which has no maps.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from measuring import in_turn, note, one_thread, peak_mib, record, spent, table, verdict
from napari_nucleiseg.core.attention.forward import EncoderForward
from napari_nucleiseg.core.attention.look import look, token_store
from napari_nucleiseg.core.attention.patches import plan_patches
from napari_nucleiseg.core.attention.shown import MapWish, shown_map
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.encoders import LoadedEncoder, build_encoder
from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.synthetic import synthetic_slide

DATA = Path(os.environ.get("NUCLEISEG_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()
SAMPLE = DATA / "wsi" / "cmu-1-small-region.svs"
SIZES = {"hipt-256": {}, "small (192 x 6)": {"embed": 192, "depth": 6, "heads": 3}}


def slide_opened():
    """A slide opened anew: nothing of it is decoded."""
    return open_slide(str(SAMPLE)) if SAMPLE.exists() else synthetic_slide(4096, 4096, 0.5, glass=False)


def encoder_of(network="hipt-256", params=None):
    torch.manual_seed(0)
    spec, net = build_encoder(network, params or {})
    return LoadedEncoder(spec, ModelCard(network, network, sha256="0" * 64), net.eval())


def middle(slide, side_px, spec):
    """A square of the slide's middle, whole patches of the grid."""
    plan = plan_patches(slide, spec, slide.content, most=max(side_px // spec.input_px, 1))
    return replace(plan, is_cut=False)


def last_of(steps):
    *_, last = steps
    return last


def against_bare(name, encoder, side_px, rounds, folder, *, exact):
    """Look with an empty store against the forward of the same patches from memory."""
    slide = slide_opened()
    plan = middle(slide, side_px, encoder.spec)
    pixels = np.stack([plan.read(slide, tile) for tile in plan.tiles])
    bare = EncoderForward(encoder, "cpu", exact=exact)
    turns = itertools.count()

    def looked():
        store = token_store(folder / f"{name[:4]}-{next(turns)}", plan, encoder.version)
        last_of(look(slide_opened(), plan, encoder, store=store, device="cpu", exact=exact))

    def features_alone():
        bare.features(pixels)

    best = in_turn(
        {"forward, features only": features_alone, "attend, in memory": lambda: bare.patches(pixels), "look": looked},
        rounds,
    )
    count = len(plan.tiles)
    table(
        (
            f"{name}, {count} patches",
            "cpu s",
            "cpu/wall",
            "cpu-ms a patch",
            "rate, of attend",
            "rate, of features only",
        ),
        [
            (
                which,
                f"{one.cpu:.2f}",
                f"{one.share:.2f}",
                f"{one.cpu / count * 1e3:.1f}",
                f"{best['attend, in memory'].cpu / one.cpu:.3f}",
                f"{best['forward, features only'].cpu / one.cpu:.3f}",
            )
            for which, one in best.items()
        ],
    )
    attend, features = best["attend, in memory"].cpu, best["forward, features only"].cpu
    good = verdict(f"{name}: look, rate of attend in memory", attend / best["look"].cpu, 0.90, at_most=False)
    good &= verdict(f"{name}: look, rate of features only", features / best["look"].cpu, 0.90, at_most=False)
    return good & verdict(f"{name}: attend and rollout, times forward only", attend / features, 1.5)


def seen_again(encoder, rounds, folder):
    """A view of 1,024 px from the store, and another head of it."""
    slide = slide_opened()
    plan = middle(slide, 1024, encoder.spec)
    known = last_of(look(slide, plan, encoder, store=token_store(folder, plan, encoder.version), device="cpu")).looked
    heads = itertools.cycle(map(str, range(encoder.spec.heads)))

    def again():
        step = last_of(look(slide, plan, encoder, store=token_store(folder, plan, encoder.version), device="cpu"))
        if step.forwarded or not step.looked.is_whole:
            raise SystemExit("a seen view was computed again")

    best = in_turn({"again": again, "head": lambda: shown_map([known], MapWish(head=next(heads), layer=3))}, rounds * 5)
    good = verdict("a seen view from the store, cpu ms", best["again"].cpu * 1e3, 100, form="{:.1f}")
    return good & verdict("the map of another head, cpu ms", best["head"].cpu * 1e3, 20, form="{:.1f}")


def child(side_px, *, exact):
    """Look at a region with both encoders, put both levels together; print what it took as JSON."""
    encoder, other = encoder_of(), encoder_of("hipt-4k")
    imported = peak_mib()
    slide = synthetic_slide(side_px, side_px, 0.5, glass=False)
    plan = plan_patches(slide, encoder.spec, Region(0, 0, side_px, side_px))
    found = {}
    drawn = spent(lambda: [plan.read(slide, tile) for tile in plan.tiles])

    def work():
        looked = last_of(look(slide, plan, encoder, other, device="cpu", exact=exact)).looked
        found["map"] = shown_map([looked], MapWish("both", region_head="0"))

    took = spent(work)
    print(json.dumps({"patches": len(plan.tiles), "cells": found["map"].grid.shape, "cpu": took.cpu, "drawn": drawn.cpu,
                      "wall": took.wall, "imported": imported, "peak": peak_mib()}))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=1024, help="side of what is looked at, px at 20x")
    parser.add_argument("--region", type=int, default=4096, help="side of the region of both levels; 0 leaves it out")
    parser.add_argument("--own-precision", action="store_true", help="as in the window: bfloat16 where that is faster")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    exact = not wanted.own_precision
    one_thread(pinned=not wanted.child)
    if wanted.child:
        child(wanted.region, exact=exact)
        return
    note(f"slide: {SAMPLE.name if SAMPLE.exists() else 'synthetic'}")
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, params in SIZES.items():
            good &= against_bare(title, encoder_of(params=params), wanted.side, wanted.rounds, folder, exact=exact)
        good &= seen_again(encoder_of(), wanted.rounds, folder / "seen")
    if wanted.region:
        command = [
            sys.executable,
            __file__,
            "--child",
            "--region",
            str(wanted.region),
            *(["--own-precision"] * (not exact)),
        ]
        one = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        table(
            ("both levels", "patches", "cpu s", "wall s", "drawing, cpu s", "libraries, weights, MiB", "peak, MiB"),
            [(f"{wanted.region:,} px", one["patches"], f"{one['cpu']:.1f}", f"{one['wall']:.1f}", f"{one['drawn']:.1f}",
              f"{one['imported']:.0f}", f"{one['peak']:.0f}")],
        )  # fmt: skip
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)
