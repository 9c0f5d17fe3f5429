"""What the engine costs beside the network: whole slide against the bare forward, stage by stage, by density, by size.

Run ``python benchmarks/engine.py [--side 4096] [--model nuclei] [--rounds 3]``. One thread on one processor, CPU time.
"""

import argparse
import itertools
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from scipy import ndimage

from alias_slide import write_alias_slide
from measuring import Clock, in_turn, one_thread, peak_mib, spent, table, verdict
from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.evaluation.scores import scores
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.inference.device import Forward
from napari_nucleiseg.core.inference.instances import find_nuclei
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.predict import needed_heads, predict, read_tile
from napari_nucleiseg.core.inference.segment import default_options, segment
from napari_nucleiseg.core.inference.stitch import join_tiles
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.synthetic import synthetic_slide
from napari_nucleiseg.core.slides.tissue import tissue_mask
from napari_nucleiseg.core.store.project import Project


class Run:
    """A slide, a model, and the parts of segmenting one with the other."""

    def __init__(self, path, model, folder, mpp_um=None):
        self.slide = open_slide(path, mpp_um=mpp_um)
        self.model, self._folder, self._rounds = model, folder, itertools.count()
        self.plan = plan_inference(self.slide, model.spec)
        self.options = default_options(model)
        self.forward = Forward(model, "cpu", heads=needed_heads(model.spec, shown=False))
        self.pixels = [read_tile(self.slide, self.plan.grid, tile) for tile in self.plan.tiles]
        self.megapixels = sum(tile.core_px.area for tile in self.plan.tiles) / 1e6
        self.forwarded = sum(pixels.shape[0] * pixels.shape[1] for pixels in self.pixels) / 1e6
        self.nuclei = 0
        self.replay = Replay(self.forward, self.pixels, model.spec)

    def fresh_folder(self):
        """A folder no project was in. Removing the last round's is nobody's cost but the benchmark's, and it would
        slow down what is measured: file systems are slow to give away what was just freed (ext4: for 35 seconds)."""
        return self._folder / f"{next(self._rounds)}.nucleiseg"

    def bare(self):
        for pixels in self.pixels:
            self.forward(pixels[None])

    def engine(self, model=None):
        path = str(self.slide.path)
        # A slide opened anew has an empty cache: reading is paid for in every round.
        slide = open_slide(path, mpp_um=self.slide.mpp_um)
        with Project.create(self.fresh_folder(), slide) as project:
            self.nuclei = sum(e.n_nuclei for e in segment(slide, model or self.model, project, self.plan, device="cpu"))
        slide.close()

    def engine_alone(self):
        self.engine(replace(self.model, network=self.replay))

    def stages(self):
        """CPU seconds of each stage, one after the other."""
        path, plan = str(self.slide.path), self.plan
        clock = Clock()
        slide = open_slide(path, mpp_um=self.slide.mpp_um)
        with Project.create(self.fresh_folder(), slide) as project:
            for tile in plan.tiles:
                with clock("read"):
                    pixels = read_tile(slide, plan.grid, tile)
                with clock("forward"):
                    maps = self.forward(pixels[None])
                with clock("decode and own"):
                    rows, columns = tile.inside_px.translate(-tile.box_px.y, -tile.box_px.x).slices
                    own = {name: values[0][:, rows, columns] for name, values in maps.items()}
                    nuclei = find_nuclei(tile, own, plan, self.model.spec, self.options)
                with clock("write"):
                    project.write_tile(nuclei, "m@1", "key")
            with clock("write"):
                project.flush()
        slide.close()
        return clock.seconds


class Replay(torch.nn.Module):
    """Says what a network said of the tiles of a plan, in its order, at no cost."""

    def __init__(self, forward, pixels, spec):
        super().__init__()
        self.said = [self._raw(forward, one, spec) for one in pixels]
        self.turn = 0

    @staticmethod
    def _raw(forward, pixels, spec):
        raw = {}
        for name, values in forward(pixels[None]).items():
            floats = torch.from_numpy(values).float()
            raw[name] = torch.logit(floats / 255, 1e-3) if spec.head(name).activation == "sigmoid" else floats
        return raw

    def __deepcopy__(self, memo):
        return self

    def forward(self, _):
        self.turn += 1
        return self.said[(self.turn - 1) % len(self.said)]


def whole_slide(title, run, rounds):
    best = in_turn(
        {"bare forward": run.bare, "engine": run.engine, "engine, replayed forward": run.engine_alone}, rounds
    )
    bare, engine = best["bare forward"], best["engine"]
    overhead = best["engine, replayed forward"].cpu / run.megapixels * 1e3
    print(f"### {title}: {run.megapixels:.1f} MP in {len(run.plan)} tiles, {run.nuclei:,} nuclei\n")
    table(
        ("", "cpu s", "wall s", "cpu/wall", "cpu-ms/MP", "speed, of bare"),
        [
            (name, f"{one.cpu:.2f}", f"{one.wall:.2f}", f"{one.share:.2f}", f"{one.cpu / run.megapixels * 1e3:.1f}",
             f"{bare.cpu / one.cpu:.3f}")
            for name, one in best.items()
        ],
    )  # fmt: skip
    stages = run.stages()
    table(
        ("stage, alone", *stages),
        [
            ("cpu-ms/MP", *(f"{seconds / run.megapixels * 1e3:.1f}" for seconds in stages.values())),
            ("of the forward", *(f"{seconds / stages['forward']:.3f}" for seconds in stages.values())),
        ],
    )
    return bare.cpu / engine.cpu, overhead, run.forwarded / run.megapixels


def ideal_maps(labels, spec):
    """What a perfect network would say of a label image, with some noise on the offsets."""
    rng = np.random.default_rng(0)
    targets = decoder(spec.decoder).targets(labels)
    maps = {"nuclei": np.rint(targets["nuclei"] * 255).astype(np.uint8)}
    for name, values in targets.items():
        if name != "nuclei":
            maps[name] = (values + rng.normal(0, 0.7, values.shape) * (labels > 0)).astype(np.float16)
    return maps


def yardstick(rounds):
    """CPU milliseconds a megapixel of scipy.ndimage.label on a fixed mask, to scale figures of other machines."""
    slide = synthetic_slide(2048, 2048, 0.5, glass=False)
    mask = slide.truth_labels(slide.region) > 0
    best = in_turn({"label": lambda: ndimage.label(mask)}, rounds + 2)["label"]
    return best.cpu * 1e3 / (mask.size / 1e6)


def by_precision(model, rounds):
    """The network as it is run by default against the network as it was trained."""
    side = model.spec.tile_px + 2 * model.spec.halo_px
    slide = synthetic_slide(side, side, model.spec.mpp_um, glass=False)
    pixels = slide.levels[0][:side, :side][None]
    heads = needed_heads(model.spec, shown=False)
    with patch("napari_nucleiseg.core.inference.device.has_fast_bfloat16", lambda _: False):
        single = Forward(model, "cpu", heads=heads)
    default = Forward(model, "cpu", heads=heads)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.spec.mean, model.spec.std))
    x = ((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).contiguous()

    def eager():
        with torch.inference_mode():
            return model.network(x)

    best = in_turn({"eager": eager, "single": lambda: single(pixels), "default": lambda: default(pixels)}, rounds)
    with torch.inference_mode():
        reference, folded = model.network(x), single.network(x.contiguous(memory_format=torch.channels_last))
    error = max(float((reference[name] - folded[name]).abs().max()) for name in heads)
    plan, options = plan_inference(slide, model.spec), default_options(model)
    tile = plan.tiles[0]
    labels = []
    for forward in (single, default):
        maps = {name: values[0] for name, values in forward(read_tile(slide, plan.grid, tile)[None]).items()}
        rows, columns = tile.inside_px.translate(-tile.box_px.y, -tile.box_px.x).slices
        own = {name: values[:, rows, columns] for name, values in maps.items()}
        labels.append(join_tiles([find_nuclei(tile, own, plan, model.spec, options)], slide.shape))
    matched = scores(*labels, distances=False).f1
    print("### The network as it is run\n")
    table(
        ("", "cpu s a tile", "times eager", "largest error of a raw output", "nuclei matched"),
        [
            ("eager float32", f"{best['eager'].cpu:.2f}", "1", "-", "-"),
            ("folded, channels last, float32", f"{best['single'].cpu:.2f}",
             f"{best['eager'].cpu / best['single'].cpu:.2f}", f"{error:.1e}", "1"),
            (f"the same, {default.precision} (default here)", f"{best['default'].cpu:.2f}",
             f"{best['eager'].cpu / best['default'].cpu:.2f}", "-", f"{matched:.4f}"),
        ],
    )  # fmt: skip
    return best["eager"].cpu / best["single"].cpu, best["eager"].cpu / best["default"].cpu, error, matched


def by_density(run, rounds):
    """Post-processing of one full tile at several densities, against its forward."""
    spec, side = run.model.spec, run.model.spec.tile_px + 2 * run.model.spec.halo_px
    blank = np.full((1, side, side, 3), 200, np.uint8)
    rows, costs = [], []
    for density in (500, 1000, 2000, 4000, 8000):
        slide = synthetic_slide(side, side, spec.mpp_um, density_per_mm2=density, glass=False)
        maps = ideal_maps(slide.truth_labels(slide.region), spec)
        plan = plan_inference(slide, spec)
        middle = plan.tiles[0]
        inside = middle.inside_px.slices
        own = {name: values[:, inside[0], inside[1]] for name, values in maps.items()}
        best = in_turn(
            {
                "post": lambda own=own, plan=plan, tile=middle: find_nuclei(tile, own, plan, spec, run.options),
                "forward": lambda: run.forward(blank),
            },
            rounds + 2,
        )
        n = len(find_nuclei(middle, own, plan, spec, run.options))
        megapixels = middle.core_px.area / 1e6
        costs.append((n, best["post"].cpu, best["post"].cpu / best["forward"].cpu))
        rows.append(
            (density, n, f"{best['post'].cpu / megapixels * 1e3:.1f}", f"{n / best['post'].cpu:,.0f}",
             f"{best['post'].cpu / best['forward'].cpu:.3f}")
        )  # fmt: skip
    print(f"### Post-processing of one tile by density (forward in {run.forward.precision})\n")
    table(("nuclei/mm2", "nuclei owned", "cpu-ms/MP", "nuclei/cpu-s", "of the forward"), rows)
    (n_low, low, _), (n_high, high, _) = costs[0], costs[-1]
    print(f"{n_high / n_low:.1f} times the nuclei cost {high / low:.2f} times the time\n")
    return costs[3][2], (high / low) / (n_high / n_low)


def by_tissue(model):
    """Pixels that the network sees for each pixel of a tile with tissue, and for each pixel of the tissue itself."""
    rows = []
    for side in (40_000, 100_000):
        slide = synthetic_slide(side, side, 0.25)
        mask = tissue_mask(slide)
        plan = plan_inference(slide, model.spec, tissue=mask)
        forwarded = sum(tile.box_px.area for tile in plan.tiles)
        output = sum(tile.core_px.area for tile in plan.tiles)
        shrink = mask.downsample / np.array(plan.grid.downsample)
        tissue = mask.mask.sum() * shrink.prod()
        rows.append((side, len(plan.grid), len(plan), tissue / plan.grid.extent.area, forwarded / output,
                     forwarded / tissue))  # fmt: skip
    print("### Pixels forwarded on slides with glass\n")
    table(
        ("slide", "tiles", "with tissue", "tissue", "forwarded per pixel of these tiles", "per pixel of tissue"),
        [
            (f"{side:,}²", f"{tiles:,}", f"{planned:,}", f"{share:.0%}", f"{output:.3f}", f"{tissue:.3f}")
            for side, tiles, planned, share, output, tissue in rows
        ],
    )
    return rows[-1][-1]


class NoPixels:
    """A level with a size and white pixels."""

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(self, side):
        self.shape = (side, side, 3)

    def __getitem__(self, key):
        (y0, y1, _), (x0, x1, _) = (part.indices(size) for part, size in zip(key, self.shape, strict=False))
        return np.full((y1 - y0, x1 - x0, 3), 255, np.uint8)


def by_size(model):
    """Planning a million tiles, and the engine's own cost a tile on small and huge slides."""
    import tracemalloc

    spec = replace(model.spec, tile_px=32, halo_px=0)
    rows, runs = [], {}
    for tiles in (1_000, 1_000_000):
        side = int(tiles**0.5) * 32
        slide = Slide("blank", (NoPixels(side),), (YX(1, 1),), YX(spec.mpp_um, spec.mpp_um), fingerprint="blank")
        planning = min((spent(lambda s=slide: plan_inference(s, spec)) for _ in range(3)), key=lambda one: one.cpu)
        tracemalloc.start()
        plan = plan_inference(slide, spec)
        held = tracemalloc.get_traced_memory()[1] / (1 << 20)
        tracemalloc.stop()
        some = plan.tiles[:: len(plan) // 480][:480]
        stub = SimpleNamespace(spec=spec, network=_Nothing(), card=None)
        runs[len(plan)] = _dispatch(plan, slide, stub, some)
        rows.append((len(plan), planning.cpu, held, len(some)))
    # In turn: a fifth of a millisecond a tile is soon hidden by what else the machine does.
    best = in_turn(runs, 7)
    rows = [(n, plan, held, best[n].cpu / some * 1e3) for n, plan, held, some in rows]
    table(
        ("tiles", "planning, cpu s", "planning, MiB", "dispatch, cpu-ms a tile"),
        [(f"{n:,}", f"{plan:.3f}", f"{held:.0f}", f"{tile:.3f}") for n, plan, held, tile in rows],
    )
    return rows


def _dispatch(plan, slide, model, tiles):
    def run():
        for _ in predict(plan, slide, model, tiles=tiles, device="cpu"):
            pass

    return run


class _Nothing(torch.nn.Module):
    """A network that says that nothing is there, at no cost."""

    def forward(self, x):
        return {"nuclei": x[:, :1] - 9, "offsets": x[:, :2]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    one_thread(pinned=True)
    model = load_model(wanted.model)
    folder = Path(tempfile.mkdtemp())
    good = True
    try:
        path = write_alias_slide(folder / "slide.svs", wanted.side, mpp_um=model.spec.mpp_um)
        run = Run(path, model, folder / "same")
        title = f"{wanted.side} px at the model's pixel size, {run.forward.precision}"
        ratio, overhead, pixels = whole_slide(title, run, wanted.rounds)
        post, growth = by_density(run, wanted.rounds)
        fine = write_alias_slide(folder / "fine.svs", 2 * wanted.side, mpp_um=model.spec.mpp_um / 2)
        whole_slide(f"{2 * wanted.side} px of a scan twice as fine", Run(fine, model, folder / "fine"), wanted.rounds)
        faster, fastest, error, matched = by_precision(model, wanted.rounds)
        yard = yardstick(wanted.rounds)
        glass = by_tissue(model)
        print("### Planning and dispatch\n")
        (_, _, _, few), (_, planning, held, many) = by_size(model)
        good &= verdict("whole slide, of the bare forward", ratio, 0.90, at_most=False)
        good &= verdict("beyond the forward, cpu-ms/MP", overhead, 30, form="{:.1f}")
        # Peers' cost beside the network on the machine where the yardstick was 3.3 ms: TIAToolbox 230 and cellpose
        # 217 cpu-ms/MP (goal a sixth), InstanSeg 441 (goal a twelfth).
        good &= verdict("beyond the forward, in yardsticks (scipy.ndimage.label)", overhead / yard, 217 / 6 / 3.3)
        print(f"yardstick {yard:.2f} cpu-ms/MP")
        good &= verdict("folded float32, times eager", faster, 1.25, at_most=False)
        good &= verdict("largest error of a raw output", error, 1e-3, form="{:.1e}")
        good &= verdict("default precision, times eager", fastest, 2.0, at_most=False)
        good &= verdict("nuclei matched with float32's", matched, 0.995, at_most=False, form="{:.4f}")
        good &= verdict("post-processing at 4,000/mm2, of the forward", post, 0.15, form="{:.3f}")
        good &= verdict("growth of post-processing with nuclei (1 is linear)", growth, 1.1)
        good &= verdict("pixels forwarded per pixel of tiles with tissue", pixels, 1.25, form="{:.3f}")
        good &= verdict("pixels forwarded per pixel of tissue itself", glass, 1.25, form="{:.3f}")
        good &= verdict("planning a million tiles, cpu s", planning, 2)
        good &= verdict("planning a million tiles, MiB", held, 200, form="{:.0f}")
        good &= verdict("dispatch a tile, a million tiles to a thousand", many / few, 1.05)
        print(f"peak memory {peak_mib():.0f} MiB")
    finally:
        shutil.rmtree(folder)
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
