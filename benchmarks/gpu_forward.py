"""The forward of the default network alone on a GPU: by batch, by precision, recorded, tuned and compiled."""

import copy
import json
import time

import numpy as np
import torch

from measuring import table
from napari_nucleiseg.core.inference.device import Forward
from napari_nucleiseg.core.inference.graphs import Graphs
from napari_nucleiseg.core.models.weights import load_model

HEADS = ("nuclei", "offsets")


def told(rows):
    """Print dictionaries of the same keys as a table."""
    table(list(rows[0]), [list(row.values()) for row in rows])


def forward_only(bench):
    """Megapixels a second of the default network by batch, precision and way of calling."""
    model = load_model("nuclei")
    side = 256 if bench.quick else 1024
    plain = copy.deepcopy(model.network).eval().requires_grad_(requires_grad=False).to(bench.device)
    quick, rows = Forward(model, bench.device, heads=HEADS, graphs=False), []
    for batch in (1, 2) if bench.quick else (1, 4, 8, 16):
        picture = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
        pixels = torch.from_numpy(picture).to(bench.device)
        x = (pixels.permute(0, 3, 1, 2).float() / 255).contiguous()
        row = {"batch": batch}
        with torch.inference_mode():
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                row["fp32, contiguous"] = bench.timed(lambda x=x: plain(x))
            row["fp32 (tf32), contiguous"] = bench.timed(lambda x=x: plain(x), 0.15) if bench.is_cuda else np.nan
            row[f"{quick.precision}, channels last"] = bench.timed(lambda p=pixels: quick.compute(p))
            if bench.is_cuda:
                row |= recorded(bench, quick, pixels)
        rows.append(row)
        keep = ("batch", "graph, start s", "tuned, start s")
        fast = {key: value if key in keep else batch * side**2 / 1e6 / value for key, value in row.items()}
        print(json.dumps({key: round(float(value), 2) for key, value in fast.items()}), flush=True)
        row |= {f"MP/s {key}": value for key, value in fast.items() if key not in keep}
    print()
    shown = [key for key in rows[0] if key.startswith("MP/s")]
    starts = [key for key in rows[0] if key.endswith("start s")]
    table(("batch", *shown, *starts), [(r["batch"], *(f"{r[k]:.0f}" for k in shown), *(f"{r[k]:.2f}" for k in starts))
                                       for r in rows])  # fmt: skip
    return rows


def recorded(bench, forward, pixels):
    """Seconds of the same work replayed from a graph, and with kernels chosen by trying; what each costs at first."""
    complaints = []
    graphs = Graphs(forward.compute_apart, complaints.append)
    graphs(pixels)
    row = {"graph": bench.timed(lambda: graphs(pixels)), "graph, start s": graphs.seconds}
    if complaints:
        print(*complaints, flush=True)
        row["graph"] = np.nan
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        start = time.perf_counter()
        forward.compute(pixels)
        bench.sync()
        row["tuned, start s"] = time.perf_counter() - start
        row["tuned"] = bench.timed(lambda: forward.compute(pixels))
        both = Graphs(forward.compute_apart, complaints.append)
        both(pixels)
        row["tuned graph"] = np.nan if complaints else bench.timed(lambda: both(pixels))
    return row


def compiled(bench):
    """The network through torch.compile: what is gained, and what it costs at first."""
    model = load_model("nuclei")
    side, batch = (128, 1) if bench.quick else (1024, 8)
    forward = Forward(model, bench.device, heads=HEADS, graphs=False)
    pixels = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, device=bench.device)
    with torch.inference_mode():
        eager = bench.timed(lambda: forward.compute(pixels))
        forward.network.compile()
        start = time.perf_counter()
        forward.compute(pixels)
        bench.sync()
        row = {"batch": batch, "start, s": round(time.perf_counter() - start, 1)}
        fast = bench.timed(lambda: forward.compute(pixels))
    row |= {"eager, MP/s": round(batch * side**2 / 1e6 / eager), "compiled, MP/s": round(batch * side**2 / 1e6 / fast)}
    told([row])
    return row
