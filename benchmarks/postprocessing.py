"""From maps to nuclei: what decoding costs by density, beside the forward and beside what other tools do.

Run ``python benchmarks/postprocessing.py [--side 1024] [--rounds 3] [--environments .benchmarks/peers]``. A fixed
synthetic field at 0.5 um per pixel and ideal maps of it, with 0.7 px of noise on the offsets; one thread, CPU time.
Other tools run in their own environments, where ``python benchmarks/environments.py`` made them, on the same field; a
yardstick is scipy.ndimage.label on the field's own mask, taken in every process, since environments differ.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from environments import FOLDER, NotInstalledError, PeerFailedError, answer_of
from measuring import MIN_SHARE, in_turn, note, one_thread, record, table, unmeasured, verdict
from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.decoders.measure import instances_of, smooth_probability
from napari_nucleiseg.core.decoders.offsets_on_device import label_offsets
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

DENSITIES = (500, 1000, 2000, 4000, 8000)
TYPICAL = 4000
DECODERS = ("offsets", "distance", "border", "hover")
# TIAToolbox on a field of 1,039 nuclei at the same density: HoVerNet._proc_np_hv, HoVerNet.postproc, nuclei it found.
TIATOOLBOX_LABELS, TIATOOLBOX_OUTLINES, TIATOOLBOX_FOUND = 28, 92, 957 / 1039
TIMES = 8
PEERS = {"tiatoolbox": "TIAToolbox", "instanseg": "InstanSeg", "cellpose": "Cellpose", "stardist": "StarDist"}
LABELS, OUTLINES = "offsets", "offsets and outlines"
# What the tools do unless told otherwise: what we do in its stead, and how many times ours it must cost.
JUDGED = {
    "HoVerNet._proc_np_hv": (LABELS, TIMES),
    "HoVerNet.postproc": (OUTLINES, TIMES),
    "postprocessing, window 128": (LABELS, 1),
    "compute_masks": (LABELS, 1),
    "non_maximum_suppression and polygons_to_label": (LABELS, 1),
}


@dataclass(frozen=True)
class Row:
    """What one step of another tool cost.

    Parameters
    ----------
    tool, what : str
        For people.
    yards : float
        Times what the yardstick took in the same process.
    share : float
        CPU per wall second of the round that counts.
    found : int or None
        How many nuclei came out, where labels did.
    matched : float or None
        Share of the true nuclei that one of them matches, IoU above 0.5.
    """

    tool: str
    what: str
    yards: float
    share: float
    found: int | None
    matched: float | None


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


def maps_on_device(labels):
    """The same for the offsets decoder's steps for a GPU, on the CPU."""
    maps, options = ideal_maps(labels, OfDecoder(LABELS)), default_options(load_model("nuclei"))

    def decode():
        nuclei, offsets = (torch.from_numpy(maps[name][None]) for name in ("nuclei", "offsets"))
        (found,) = label_offsets(nuclei, offsets, MPP_UM, options.threshold).numpy()
        probability = smooth_probability(as_float({"nuclei": maps["nuclei"]})["nuclei"][0], MPP_UM)
        return instances_of(found, probability, options.min_area_um2 / MPP_UM**2)

    return decode


def by_decoder(side, rounds):
    """Every decoder, and outlines, on the typical field; return the field, yardsticks by name and matched share."""
    labels = field(side, TYPICAL)
    megapixels, nuclei = labels.size / 1e6, int(labels.max())
    run = {name: maps_of(labels, name) for name in DECODERS} | {"offsets, on device: cpu": maps_on_device(labels)}

    def with_outlines():
        found = run["offsets"]()
        trace(found.labels, np.arange(1, len(found) + 1), found.boxes, (0, 0))

    mask = labels > 0
    candidates = {**run, OUTLINES: with_outlines, "scipy.ndimage.label": lambda: ndimage.label(mask)}
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
    return labels, {name: one.cpu / yard for name, one in spent.items()}, quality[LABELS].recall


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


def rows_of(name, given, environments):
    """What a tool takes of the field in a file: list of `Row`."""
    truth, rows = np.load(given)["labels"], []
    for what, yards, share, kept in answer_of(name, "postprocessing.py", name, given, folder=environments):
        count = matched = None
        if kept:
            _, labels = np.unique(np.load(kept), return_inverse=True)
            labels = labels.reshape(truth.shape).astype(np.int32)
            count, matched = int(labels.max()), scores(truth, labels, distances=False).recall
        rows.append(Row(PEERS[name], what, yards, share, count, matched))
    return rows


def beside_peers(labels, ours, matched, environments):
    """What other tools take of the same field, in yardsticks, where their environments are; say why where not.

    Parameters
    ----------
    labels : ndarray of int32 (y, x)
        The field.
    ours : dict of str to float
        Our yardsticks by name of the decoder.
    matched : float
        Share of its nuclei that ours match.
    environments : Path
        Where environments are.

    Returns
    -------
    bool
        Whether no goal beside a tool is missed.
    """
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch) / "field.npz"
        np.savez(given, labels=labels, hover=decoder("hover").targets(labels)["hover"])
        for name, title in PEERS.items():
            try:
                rows += rows_of(name, given, environments)
            except (NotInstalledError, PeerFailedError) as error:
                unmeasured("G4", f"{title}, times ours", str(error))
    if not rows:
        return True
    header = ("tool", "what", "yardsticks", "times ours", "found", "matched", "cpu/wall")
    cells = [
        (one.tool, one.what, f"{one.yards:.1f}", f"{one.yards / ours[JUDGED.get(one.what, (LABELS,))[0]]:.1f}",
         "-" if one.found is None else f"{one.found:,}", "-" if one.matched is None else f"{one.matched:.3f}",
         f"{one.share:.2f}")
        for one in rows
    ]  # fmt: skip
    table(header, cells, title="Other tools on the same field")
    busy = [one.what for one in rows if one.share < MIN_SHARE]
    if busy:
        note(f"CPU over wall time below {MIN_SHARE}: {'; '.join(busy)}.")
    return _judged(rows, ours, matched)


def _judged(rows, ours, matched):
    """Hold the goals against the steps that tools do unless told otherwise; return whether all are met."""
    good = True
    for one in (one for one in rows if one.what in JUDGED):
        beside, times = JUDGED[one.what]
        name = f"{one.tool}, {one.what}, times ours{' with outlines' * (beside == OUTLINES)}"
        good &= verdict(name, one.yards / ours[beside], times, at_most=False, form="{:.1f}", goal="G4")
        if one.tool == "TIAToolbox" and one.matched is not None:
            name = "nuclei matched, ours less TIAToolbox's"
            good &= verdict(name, matched - one.matched, 0, at_most=False, form="{:.3f}", goal="G4")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--environments", type=Path, default=FOLDER)
    wanted = parser.parse_args()
    one_thread(pinned=True)
    labels, yards, matched = by_decoder(wanted.side, wanted.rounds)
    share, growth = by_density(wanted.rounds)
    good = verdict("decoding at 4,000/mm2, of the forward", share, 0.15, form="{:.3f}", goal="G4")
    good &= verdict("growth of decoding with nuclei (1 is linear)", growth, 1.1, goal="G4")
    name = "offsets decoder, in yardsticks"
    good &= verdict(name, yards[LABELS], TIATOOLBOX_LABELS / TIMES, form="{:.1f}", goal="G4", anchor="TIAToolbox 28")
    name = "with outlines, in yardsticks"
    limit = TIATOOLBOX_OUTLINES / TIMES
    good &= verdict(name, yards[OUTLINES], limit, form="{:.1f}", goal="G4", anchor="TIAToolbox 92")
    name = "nuclei matched (IoU of 0.5)"
    good &= verdict(name, matched, TIATOOLBOX_FOUND, at_most=False, form="{:.3f}", goal="G4",
                    anchor="TIAToolbox found 0.921")  # fmt: skip
    good &= beside_peers(labels, yards, matched, wanted.environments)
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)
