"""Peak memory on a slide of 100,000 x 100,000 pixels against one of 8,000 x 8,000, each in a fresh process.

Run ``python benchmarks/memory.py [--tiles 60]``. The slides are JPEG pyramids of a few megabytes; the same number of
tiles, spread over all of the slide, is segmented into a project on disk. The small slide fits into the cache of
decoded tiles as a whole and need not fill it: a column says how much each slide keeps there.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import one_thread, peak_mib, record, table, verdict

SIDES = (8_000, 100_000)


def child(path, folder, tiles):
    """Segment `tiles` tiles spread over the slide; print what it took as JSON."""
    one_thread()
    import time
    from dataclasses import replace

    from napari_nucleiseg.core.inference.plan import plan_inference
    from napari_nucleiseg.core.inference.segment import segment
    from napari_nucleiseg.core.models.weights import load_model
    from napari_nucleiseg.core.slides.registry import open_slide
    from napari_nucleiseg.core.slides.tilecache import shared_cache
    from napari_nucleiseg.core.slides.tissue import tissue_mask
    from napari_nucleiseg.core.store.project import Project

    model = load_model("nuclei")
    imported = peak_mib()
    slide = open_slide(path)
    plan = plan_inference(slide, model.spec, tissue=tissue_mask(slide))
    planned = peak_mib()
    step = max(1, len(plan) // tiles)
    nuclei = done = 0
    start = time.process_time()
    spread = replace(plan, tiles=plan.tiles[::step][:tiles])
    with Project.create(folder, slide) as project:
        for event in segment(slide, model, project, spread, device="cpu"):
            nuclei, done = nuclei + event.n_nuclei, done + 1
    spent, cached = (time.process_time() - start) / done, shared_cache().bytes / (1 << 20)
    print(
        json.dumps({
            "tiles": len(plan), "done": done, "nuclei": nuclei, "cpu_s": spent,
            "imported": imported, "planned": planned, "peak": peak_mib(), "cached": cached,
        })
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=60)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.child:
        child(*wanted.child, wanted.tiles)
        return
    from alias_slide import write_alias_slide

    folder = Path(tempfile.mkdtemp())
    try:
        found = {}
        for side in SIDES:
            path = write_alias_slide(folder / f"{side}.svs", side)
            command = [
                sys.executable,
                __file__,
                "--tiles",
                str(wanted.tiles),
                "--child",
                str(path),
                str(folder / f"{side}"),
            ]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[side] = json.loads(out)
    finally:
        shutil.rmtree(folder)
    table(
        ("slide", "tiles in all", "done", "nuclei", "libraries, MiB", "planned, MiB", "peak, MiB", "of it tile cache",
         "cpu s a tile"),
        [
            (f"{side:,}²", one["tiles"], one["done"], f"{one['nuclei']:,}", f"{one['imported']:.0f}",
             f"{one['planned']:.0f}", f"{one['peak']:.0f}", f"{one['cached']:.0f}", f"{one['cpu_s']:.3f}")
            for side, one in found.items()
        ],
        title=f"Peak memory, {wanted.tiles} tiles spread over the slide",
    )  # fmt: skip
    small, large = (found[side] for side in SIDES)
    good = verdict("more memory for the large slide, MiB", large["peak"] - small["peak"], 128, form="{:.0f}", goal="G6")
    good &= verdict("peak memory of the large slide, MiB", large["peak"], 2048, form="{:.0f}", goal="G6")
    good &= verdict("cpu a tile, large to small", large["cpu_s"] / small["cpu_s"], 1.05, form="{:.3f}", goal="S1")
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)
