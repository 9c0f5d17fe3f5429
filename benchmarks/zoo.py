"""Every segmentation network with one budget on HoVer-Net's split of the Kumar images: accuracy, speed, memory.

    python benchmarks/zoo.py run --seconds 120 [--jobs 2] [--network NAME ...]     (processor seconds of training each)
    python benchmarks/zoo.py run --steps 100 ...                                    (the same steps for all)
    python benchmarks/zoo.py report [--write]

The 16 training images teach, the 14 test images judge; nothing is chosen on either: every network has the widths of
its paper, the same crops, augmentation, optimiser and decoder (HoVer-Net and the U-Nets of 2015 have their own), no
weights from elsewhere. Time is processor time, so that other work on the machine counts little. Speed is the forward
pass of one tile in float32 on one core; memory is the most that training took. Each finished network is kept in
``runs/zoo``, so an interrupted run goes on; ``report --write`` (needs matplotlib) makes the picture of the
documentation and the numbers that the model browser shows.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "runs" / "zoo"
SHOWN = ROOT / "src" / "napari_nucleiseg" / "core" / "models" / "zoo_table.json"
PLOT = ROOT / "docs" / "images" / "zoo.png"
CROP_PX, BATCH = 128, 4
PROBE_STEPS = 2
MPP_UM = 0.25  # of the Kumar images


def kept(name: str, budget: str) -> Path:
    return KEPT / f"{name}-{budget}.json"


def networks() -> list[str]:
    """Networks of pictures that learn from labels and see 0.5 um."""
    from napari_nucleiseg.core.models.registry import network_names, network_spec
    from napari_nucleiseg.core.training.losses import LOSSES

    specs = [network_spec(name) for name in network_names()]
    return [
        spec.name
        for spec in specs
        if spec.dimensions == 2
        and spec.mpp_um == 0.5
        and {"nuclei", "separated"} & {h.name for h in spec.heads} & LOSSES.keys()
        and not spec.attends
        and spec.name != "s3net"
    ]


def let_libraries_be_imported() -> None:
    """Beside a CPU build of torch, torchvision is only imported once its operators are declared, as the tests do."""
    import importlib.util

    if importlib.util.find_spec("torchvision") is None:
        return
    sys.path.insert(0, str(ROOT / "tests"))
    import torchvision_shim

    torchvision_shim.import_timm()


def measure(name: str, seconds: float, steps: int) -> dict[str, float | str]:
    """Train one network and judge it."""
    import torch

    from accuracy import DATA, kumar, score, with_model
    from napari_nucleiseg.core.models.registry import build_network, network_spec
    from napari_nucleiseg.core.models.weights import load_model
    from napari_nucleiseg.core.training.config import DataSet, TrainConfig
    from napari_nucleiseg.core.training.loop import train

    let_libraries_be_imported()
    torch.set_num_threads(1)
    spec = network_spec(name)
    data = DataSet(str(DATA / "kumar_train30"), MPP_UM, include=tuple(kumar("train")), licence="CC-BY-NC-SA-4.0")
    side = spec.fitting_side(CROP_PX)
    config = TrainConfig(
        out=str(KEPT / "work" / name),
        network=name,
        train=(data,),
        crop_px=side,
        batch_size=BATCH,
        learning_rate=1e-3,
        warmup=10,
        ema=0.99,
        threads=1,
        seed=1,
        device="cpu",
        resume=False,
        steps=10**6,
        validate_every=10**6,
    )
    each = seconds_a_step(config) if not steps else 0.0
    config = replace(config, steps=steps or max(int(seconds / each), 4))
    began = time.process_time()
    losses = [step.loss for step in train(config)]
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    model = load_model(str(Path(config.out) / "best.safetensors"), accept_licence=True)
    means = score(with_model(model, spec.decoder, default(model), "cpu"), ["Kumar 14"], distances=False)["Kumar 14"]
    parameters = sum(p.numel() for p in build_network(spec).parameters())
    return {
        "network": name,
        "parameters": parameters,
        "steps": len(losses),
        "seconds": round(took, 1),
        "loss_first": sum(losses[:4]) / len(losses[:4]),
        "loss_last": sum(losses[-4:]) / len(losses[-4:]),
        "aji": means.aji,
        "pq": means.pq,
        "f1": means.f1,
        "dice": means.dice,
        "found": means.pred_count,
        "truth": means.truth_count,
        "mp_per_s": speed(model),
        "memory_gb": round(peak, 2),
        "crop_px": side,
    }


def default(model):
    from napari_nucleiseg.core.inference.segment import default_options

    return default_options(model)


def seconds_a_step(config) -> float:
    """Processor seconds of a step, the first left out."""
    from napari_nucleiseg.core.training.loop import train

    steps, since = train(replace(config, out=config.out + "-probe")), 0.0
    for step in steps:
        if step.step == 1:
            since = time.process_time()
        if step.step > PROBE_STEPS:
            break
    steps.close()
    return (time.process_time() - since) / PROBE_STEPS


def speed(model) -> float:
    """Megapixels a processor second of the bare forward pass of one tile, at most 512 px, on one thread."""
    import torch

    side = model.spec.fitting_side(min(512, model.spec.tile_px))
    x = torch.randn(1, 3, *[side + 2 * model.spec.output_margin_px] * 2)
    times = []
    with torch.inference_mode():
        model.network(x)
        for _ in range(3):
            began = time.process_time()
            model.network(x)
            times.append(time.process_time() - began)
    return side**2 / 1e6 / sorted(times)[1]


def run(args: argparse.Namespace) -> None:
    """Measure each network in a process of its own."""
    budget = f"{args.steps}steps" if args.steps else f"{args.seconds:g}s"
    waiting = [name for name in args.network or networks() if args.again or not kept(name, budget).exists()]
    KEPT.mkdir(parents=True, exist_ok=True)
    at_work: list[tuple[str, subprocess.Popen[bytes]]] = []
    while waiting or at_work:
        while waiting and len(at_work) < args.jobs:
            name = waiting.pop(0)
            command = [
                sys.executable,
                __file__,
                "one",
                "--network",
                name,
                "--seconds",
                str(args.seconds),
                "--steps",
                str(args.steps),
            ]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            at_work.append((name, subprocess.Popen(command, env=environment, cwd=ROOT)))
        for item in [item for item in at_work if item[1].poll() is not None]:
            at_work.remove(item)
            print(f"{item[0]}: {'done' if item[1].returncode == 0 else 'FAILED'}", flush=True)
        time.sleep(0.5)


def one(args: argparse.Namespace) -> None:
    (name,) = args.network
    budget = f"{args.steps}steps" if args.steps else f"{args.seconds:g}s"
    found = measure(name, args.seconds, args.steps)
    kept(name, budget).write_text(json.dumps(found, indent=1))


def rows(budget: str) -> list[dict[str, float | str]]:
    found = [json.loads(path.read_text()) for path in sorted(KEPT.glob(f"*-{budget}.json"))]
    return sorted(found, key=lambda row: -row["aji"])


def report(args: argparse.Namespace) -> None:
    for budget in sorted({path.stem.rsplit("-", 1)[1] for path in KEPT.glob("*.json")}):
        print(
            f"\n{budget}\n\n| network | parameters (M) | steps | s | loss | AJI | PQ | F1 | Dice | MP/s | memory GB |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        for row in rows(budget):
            print(
                f"| {row['network']} | {row['parameters'] / 1e6:.1f} | {row['steps']} | {row['seconds']:.0f} "
                f"| {row['loss_first']:.2f} to {row['loss_last']:.2f} | {row['aji']:.3f} | {row['pq']:.3f} "
                f"| {row['f1']:.3f} | {row['dice']:.3f} | {row['mp_per_s']:.3f} | {row['memory_gb']:.1f} |"
            )
    if args.write:
        write(args.budget)


def write(budget: str) -> None:
    """Write the browser's numbers and the picture."""
    found = rows(budget)
    columns = ("network", "parameters", "mp_per_s", "aji", "pq", "steps", "seconds")
    SHOWN.write_text(json.dumps([{key: row[key] for key in columns} for row in found], indent=1) + "\n")
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for row in found:
        size = 20 + 12 * (row["parameters"] / 1e6) ** 0.5
        axes.scatter(row["mp_per_s"], row["aji"], s=size, color="#4C72B0", alpha=0.7)
        axes.annotate(
            row["network"], (row["mp_per_s"], row["aji"]), xytext=(6, 4), textcoords="offset points", fontsize=8
        )
    axes.set_xscale("log")
    axes.set_xlabel("forward pass, megapixels a second on one core")
    axes.set_ylabel("AJI on 14 test images")
    axes.set_title(f"Networks after {budget.removesuffix('s')} processor seconds of training on 16 images")
    axes.grid(alpha=0.3)
    axes.margins(x=0.15)
    figure.savefig(PLOT, dpi=110)
    print(f"wrote {SHOWN} and {PLOT}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "one", "report"))
    parser.add_argument("--network", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="also those that were measured before")
    parser.add_argument("--write", action="store_true", help="write the table of the browser and the picture")
    parser.add_argument("--budget", default="120s", help="of --write")
    args = parser.parse_args()
    {"run": run, "one": one, "report": report}[args.action](args)


if __name__ == "__main__":
    main()
