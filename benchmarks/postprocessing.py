"""From maps to nuclei: what decoding costs by density, beside the forward and beside what other tools do.

Run ``python benchmarks/postprocessing.py [--side 1024] [--rounds 3] [--environments .benchmarks/peers]``. A fixed
synthetic field at 0.5 um per pixel and ideal maps of it, with 0.7 px of noise on the offsets; one thread, CPU time.
Other tools run in the environments that `peers.py` makes, on the same field; a yardstick is scipy.ndimage.label on the
field's own mask, taken in every process, since environments differ.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from scipy import ndimage

from measuring import in_turn, note, one_thread, record, table, unmeasured, verdict
from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.evaluation.scores import scores
from napari_nucleiseg.core.exchange.outlines import trace
from napari_nucleiseg.core.inference.device import Forward
from napari_nucleiseg.core.inference.instances import as_float, find_nuclei
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.predict import needed_heads
from napari_nucleiseg.core.inference.segment import default_options
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.slides.synthetic import synthetic_slide
from synthetic_fields import MPP_UM, field, ideal_maps

HERE = Path(__file__).parent
DENSITIES = (500, 1000, 2000, 4000, 8000)
TYPICAL = 4000
DECODERS = ("offsets", "distance", "border", "hover")
# TIAToolbox on a field of 1,039 nuclei at the same density: HoVerNet._proc_np_hv, HoVerNet.postproc, nuclei it found.
TIATOOLBOX_LABELS, TIATOOLBOX_OUTLINES, TIATOOLBOX_FOUND = 28, 92, 957 / 1039
TIMES = 8
PEERS = {"tiatoolbox": "TIAToolbox", "instanseg": "InstanSeg", "cellpose": "Cellpose"}


class OfDecoder:
    """As much of a model's spec as maps of a field need."""

    def __init__(self, name):
        self.decoder = name


def maps_of(labels, name):
    """Ideal maps of a field as the network's forward hands them to a decoder, and the decoder as a function."""
    needed = decoder(name)
    maps = ideal_maps(labels, OfDecoder(name))
    options = default_options(load_model("nuclei"))
    return lambda: needed.decode(as_float(maps, needed.sparse), MPP_UM, options)


def by_decoder(side, rounds):
    """Every decoder, and outlines, on the typical field; return the field, yardsticks by name and matched share."""
    labels = field(side, TYPICAL)
    megapixels, nuclei = labels.size / 1e6, int(labels.max())
    run = {name: maps_of(labels, name) for name in DECODERS}

    def with_outlines():
        found = run["offsets"]()
        trace(found.labels, np.arange(1, len(found) + 1), found.boxes, (0, 0))

    mask = labels > 0
    candidates = {**run, "offsets and outlines": with_outlines, "scipy.ndimage.label": lambda: ndimage.label(mask)}
    spent = in_turn(candidates, rounds + 2)
    yard = spent["scipy.ndimage.label"].cpu
    quality = {name: scores(labels, decode().labels, distances=False) for name, decode in run.items()}
    table(
        ("decoder", "MP/cpu-s", "nuclei/cpu-s", "yardsticks", "found", "matched", "spread", "cpu/wall"),
        [
            (name, f"{megapixels / one.cpu:.1f}", f"{nuclei / one.cpu:,.0f}", f"{one.cpu / yard:.1f}",
             f"{quality[name].pred_count:,}" if name in quality else "-",
             f"{quality[name].recall:.3f}" if name in quality else "-", f"{one.spread:.0%}", f"{one.share:.2f}")
            for name, one in spent.items()
        ],
        title=f"{side} px, {nuclei:,} nuclei, {TYPICAL:,} per mm2",
    )  # fmt: skip
    return labels, {name: one.cpu / yard for name, one in spent.items()}, quality["offsets"].recall


def by_density(rounds):
    """Decoding one full tile at several densities, against its forward; return share at the typical one, and growth."""
    model = load_model("nuclei")
    spec, side = model.spec, model.spec.tile_px + 2 * model.spec.halo_px
    forward = Forward(model, "cpu", heads=needed_heads(spec, shown=False))
    blank, options = np.full((1, side, side, 3), 200, np.uint8), default_options(model)
    rows, costs, shares = [], {}, {}
    for density in DENSITIES:
        labels = field(side, density, spec.mpp_um)
        plan = plan_inference(synthetic_slide(side, side, spec.mpp_um, glass=False), spec)
        tile = plan.tiles[0]
        inside = tile.inside_px.slices
        own = {name: values[:, inside[0], inside[1]] for name, values in ideal_maps(labels, spec).items()}
        spent = in_turn(
            {
                f"decode {density}": lambda own=own, plan=plan, tile=tile: find_nuclei(tile, own, plan, spec, options),
                f"forward {density}": lambda: forward(blank),
            },
            rounds,
        )
        decode, bare = spent.values()
        n, megapixels = len(find_nuclei(tile, own, plan, spec, options)), tile.core_px.area / 1e6
        costs[n], shares[density] = decode.cpu, decode.cpu / bare.cpu
        rows.append((f"{density:,}", f"{n:,}", f"{decode.cpu / megapixels * 1e3:.1f}", f"{megapixels / decode.cpu:.0f}",
                     f"{n / decode.cpu:,.0f}", f"{shares[density]:.3f}", f"{decode.spread:.0%}"))  # fmt: skip
    header = ("nuclei/mm2", "nuclei owned", "cpu-ms/MP", "MP/cpu-s", "nuclei/cpu-s", "of the forward", "spread")
    table(header, rows, title=f"One tile of {spec.tile_px} px by density, forward in {forward.precision}")
    (few, low), *_, (many, high) = costs.items()
    note(f"{many / few:.1f} times the nuclei cost {high / low:.2f} times the time")
    return shares[TYPICAL], (high / low) / (many / few)


# --------------------------------------------------------------------------- other tools


def beside_peers(labels, ours, environments):
    """What other tools take of the same field, in yardsticks, where their environments are."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch) / "field.npz"
        hover = decoder("hover").targets(labels)["hover"]
        np.savez(given, labels=labels, hover=hover)
        for name, title in PEERS.items():
            python = environments / name / "bin" / "python"
            if not (environments / name / "installed").exists():
                unmeasured("G4", f"{title}, times ours", f"its environment is not in {environments.name}/")
                continue
            command = [str(python), str(HERE / "peers" / "postprocessing.py"), name, str(given)]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode:
                last = (answer.stderr.strip().splitlines() or ["no word"])[-1]
                unmeasured("G4", f"{title}, times ours", f"it failed: {last}")
                continue
            rows += [(title, *one) for one in json.loads(answer.stdout.strip().splitlines()[-1])]
    if rows:
        cells = [(tool, what, f"{yards:.1f}", f"{yards / ours:.1f}", found) for tool, what, yards, found in rows]
        table(("tool", "what", "yardsticks", "times ours", "found"), cells, title="Other tools on the same field")
    for tool, what, yards, _ in rows:
        if what == "HoVerNet._proc_np_hv":
            verdict(f"{tool}, {what}, times ours", yards / ours, TIMES, at_most=False, form="{:.1f}", goal="G4")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--environments", type=Path, default=HERE.parent / ".benchmarks" / "peers")
    wanted = parser.parse_args()
    one_thread(pinned=True)
    labels, yards, matched = by_decoder(wanted.side, wanted.rounds)
    share, growth = by_density(wanted.rounds)
    good = verdict("decoding at 4,000/mm2, of the forward", share, 0.15, form="{:.3f}", goal="G4")
    good &= verdict("growth of decoding with nuclei (1 is linear)", growth, 1.1, goal="G4")
    name = "offsets decoder, in yardsticks"
    good &= verdict(name, yards["offsets"], TIATOOLBOX_LABELS / TIMES, form="{:.1f}", goal="G4", anchor="TIAToolbox 28")
    name = "with outlines, in yardsticks"
    limit = TIATOOLBOX_OUTLINES / TIMES
    good &= verdict(name, yards["offsets and outlines"], limit, form="{:.1f}", goal="G4", anchor="TIAToolbox 92")
    name = "nuclei matched (IoU of 0.5)"
    good &= verdict(name, matched, TIATOOLBOX_FOUND, at_most=False, form="{:.3f}", goal="G4",
                    anchor="TIAToolbox found 0.921")  # fmt: skip
    beside_peers(labels, yards["offsets"], wanted.environments.absolute())
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)
