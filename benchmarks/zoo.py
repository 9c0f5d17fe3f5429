"""Every segmentation network with one budget on HoVer-Net's split of the Kumar images: accuracy, speed, memory.

    python benchmarks/zoo.py run --seconds 120 [--jobs 2] [--network NAME ...]     (processor seconds of training each)
    python benchmarks/zoo.py run --steps 100 ...                                    (the same steps for all)
    python benchmarks/zoo.py run --steps 1000 --device cuda --crop 192 --batch 16 --jobs 5      (on a GPU)
    python benchmarks/zoo.py speed --device cuda                            (forward passes, one network at a time)
    python benchmarks/zoo.py report [--write]

The 16 training images teach, the 14 test images judge; nothing is chosen on either: every network has the widths of
its paper, the same crops, augmentation, optimiser and decoder (HoVer-Net and the U-Nets of 2015 have their own), no
weights from elsewhere. Time is processor time, so that other work on the machine counts little. Speed is the forward
pass of one tile in float32 on one core, on a GPU that of eight tiles in bfloat16; memory is the most that training
took. Each finished network is kept in ``runs/zoo``, so an interrupted run goes on; ``report --write`` (needs
matplotlib) makes the picture of the documentation and the numbers that the model browser shows.
"""

from __future__ import annotations

import argparse
import json
import math
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
SCORES = "AJI | organs seen | others | PQ | F1 | Dice"
MPP_UM = 0.25  # of the Kumar images


def kept(name: str, budget: str) -> Path:
    return KEPT / f"{name}-{budget}.json"


def budget_of(args: argparse.Namespace) -> str:
    """What a run is called: 45s, 100steps, 1000steps_cuda."""
    named = f"{args.steps}steps" if args.steps else f"{args.seconds:g}s"
    return named + f"_seed{args.seed}" * (args.seed != 1) + f"_{args.device}" * (args.device != "cpu")


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
    import torch

    if torch.cuda.is_available():
        return
    sys.path.insert(0, str(ROOT / "tests"))
    import torchvision_shim

    torchvision_shim.import_timm()


def measure(name: str, args: argparse.Namespace) -> dict[str, float | str]:
    """Train one network and judge it."""
    import torch

    from accuracy import DATA, kumar, score, with_model
    from napari_nucleiseg.core.models.registry import build_network, network_spec
    from napari_nucleiseg.core.models.weights import load_model
    from napari_nucleiseg.core.training.config import DataSet, TrainConfig
    from napari_nucleiseg.core.training.loop import train

    let_libraries_be_imported()
    torch.set_num_threads(1)
    spec, on_gpu, steps = network_spec(name), args.device != "cpu", args.steps
    data = DataSet(str(DATA / "kumar_train30"), MPP_UM, include=tuple(kumar("train")), licence="CC-BY-NC-SA-4.0")
    side = spec.fitting_side(args.crop)
    config = TrainConfig(
        out=str(KEPT / "work" / f"{name}-{budget_of(args)}"),
        network=name,
        train=(data,),
        crop_px=side,
        batch_size=args.batch,
        learning_rate=1e-3,
        warmup=args.warmup,
        ema=0.99,
        threads=1,
        seed=args.seed,
        device=args.device,
        resume=False,
        steps=10**6,
        validate_every=10**6,
    )
    each = seconds_a_step(config) if not steps else 0.0
    config = replace(config, steps=steps or max(int(args.seconds / each), 4))
    clock = time.perf_counter if on_gpu else time.process_time
    began = clock()
    losses = [step.loss for step in train(config)]
    took = clock() - began
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{name}: {len(losses)} steps in {took:.0f} s, loss {sum(losses[-20:]) / len(losses[-20:]):.3f}", flush=True)
    model = load_model(str(Path(config.out) / "best.safetensors"), accept_licence=True)
    segment = with_model(model, spec.decoder, default(model), args.device)
    means = score(segment, ["Kumar 14", "same organ 8", "other organ 6"], distances=False)
    seen, unseen, means = means["same organ 8"], means["other organ 6"], means["Kumar 14"]
    parameters = sum(p.numel() for p in build_network(spec).parameters())
    return {
        "network": name,
        "parameters": parameters,
        "steps": len(losses),
        "seconds": round(took, 1),
        "loss_first": sum(losses[:4]) / len(losses[:4]),
        "loss_last": sum(losses[-4:]) / len(losses[-4:]),
        "aji": means.aji,
        "aji_same_organ": seen.aji,
        "aji_other_organ": unseen.aji,
        "pq": means.pq,
        "f1": means.f1,
        "dice": means.dice,
        "found": means.pred_count,
        "truth": means.truth_count,
        "mp_per_s": None if on_gpu else speed(model),
        "memory_gb": round(peak / 1024**3, 2),
        "crop_px": side,
        "batch": args.batch,
        "device": torch.cuda.get_device_name() if on_gpu else "one core",
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


def speeds(args: argparse.Namespace) -> None:
    """Print and keep megapixels a second of each network's forward pass on a GPU: eight tiles, bfloat16."""
    KEPT.mkdir(parents=True, exist_ok=True)
    import torch

    from napari_nucleiseg.core.models.registry import build_network, network_spec

    let_libraries_be_imported()
    device = torch.device(args.device)
    for name in args.network or networks():
        try:
            spec = network_spec(name)
            network = build_network(spec).eval().to(device).to(memory_format=torch.channels_last)
            side = spec.fitting_side(min(512, spec.tile_px))
            x = torch.randn(8, 3, *[side + 2 * spec.output_margin_px] * 2, device=device)
            x = x.to(memory_format=torch.channels_last)
            found = rate(network, x, 8 * side**2 / 1e6, args.seconds)
        except RuntimeError as error:
            print(f"{name}: {str(error).splitlines()[0]}", flush=True)
            continue
        kept(name, f"speed_{args.device}").write_text(json.dumps({"network": name, "mp_per_s": found}))
        print(f"{name}: {found:.0f} MP/s", flush=True)


def rate(network, x, megapixels: float, seconds: float) -> float:
    """Megapixels a second of a network that is run for some seconds."""
    import torch

    wait = torch.cuda.synchronize if x.device.type == "cuda" else int
    with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16):
        for _ in range(3):
            network(x)
        wait()
        began, rounds = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            network(x)
            wait()
            rounds += 1
        return rounds * megapixels / (time.perf_counter() - began)


def run(args: argparse.Namespace) -> None:
    """Measure each network in a process of its own."""
    budget = budget_of(args)
    waiting = [name for name in args.network or networks() if args.again or not kept(name, budget).exists()]
    KEPT.mkdir(parents=True, exist_ok=True)
    at_work: list[tuple[str, subprocess.Popen[bytes]]] = []
    began = time.monotonic()
    while waiting or at_work:
        while waiting and len(at_work) < args.jobs:
            name = waiting.pop(0)
            command = [sys.executable, __file__, "one", "--network", name]
            for setting in ("seconds", "steps", "device", "crop", "batch", "warmup", "seed"):
                command += [f"--{setting}", str(getattr(args, setting))]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            at_work.append((name, subprocess.Popen(command, env=environment, cwd=ROOT)))
        for item in [item for item in at_work if item[1].poll() is not None]:
            at_work.remove(item)
            since = time.monotonic() - began
            print(f"{since:.0f} s, {item[0]}: {'done' if item[1].returncode == 0 else 'FAILED'}", flush=True)
        time.sleep(0.5)


def one(args: argparse.Namespace) -> None:
    (name,) = args.network
    found = measure(name, args)
    kept(name, budget_of(args)).write_text(json.dumps(found, indent=1))


def rows(budget: str, by: str = "aji") -> list[dict[str, float | str]]:
    found = [json.loads(path.read_text()) for path in sorted(KEPT.glob(f"*-{budget}.json"))]
    return sorted(found, key=lambda row: -row[by])


def report(args: argparse.Namespace) -> None:
    for budget in sorted({path.stem.rsplit("-", 1)[1] for path in KEPT.glob("*.json")}):
        if budget.startswith("speed"):
            continue
        print(f"\n{budget}\n\n| network | parameters (M) | steps | s | loss | {SCORES} | MP/s | memory GB |")
        print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
        for row in rows(budget):
            seen, unseen = row.get("aji_same_organ"), row.get("aji_other_organ")
            organs = f"{seen:.3f} | {unseen:.3f}" if seen is not None else "- | -"
            speed = row["mp_per_s"]
            print(
                f"| {row['network']} | {row['parameters'] / 1e6:.1f} | {row['steps']} | {row['seconds']:.0f} "
                f"| {row['loss_first']:.2f} to {row['loss_last']:.2f} | {row['aji']:.3f} | {organs} | {row['pq']:.3f} "
                f"| {row['f1']:.3f} | {row['dice']:.3f} | {f'{speed:.3f}' if speed else '-'} | {row['memory_gb']:.1f} |"
            )
    for row in rows("speed_cuda", "mp_per_s"):
        print(f"{row['network']}: {row['mp_per_s']:.0f} MP/s on a GPU")
    if args.write:
        write(args.budget, args.speed_of)


def write(budget: str, speed_of: str) -> None:
    """Write the browser's numbers and the picture; the speed is that of another budget's table, on one core."""
    speed = {row["network"]: row["mp_per_s"] for row in rows(speed_of or budget)}
    found = [row | {"mp_per_s": speed[row["network"]]} for row in rows(budget)]
    columns = ("network", "parameters", "mp_per_s", "aji", "pq", "steps", "seconds", "batch", "device")
    SHOWN.write_text(json.dumps([{key: row[key] for key in columns if key in row} for row in found], indent=1) + "\n")
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    named: list[tuple[float, float]] = []
    for row in found:
        size = 20 + 12 * (row["parameters"] / 1e6) ** 0.5
        axes.scatter(row["mp_per_s"], row["aji"], s=size, color="#4C72B0", alpha=0.7)
        at = math.log10(row["mp_per_s"]), row["aji"]
        # The best of a crowd are named first, the others below them.
        crowd = sum(abs(x - at[0]) < 0.25 and abs(y - at[1]) < 0.02 for x, y in named)
        named.append(at)
        offset = (6, 4 - 11 * crowd)
        axes.annotate(
            row["network"], (row["mp_per_s"], row["aji"]), xytext=offset, textcoords="offset points", fontsize=8
        )
    axes.set_xscale("log")
    axes.set_xlabel("forward pass, megapixels a second on one core")
    axes.set_ylabel("AJI on 14 test images")
    axes.set_title(f"Networks after {title_of(budget)} of training on 16 images")
    axes.grid(alpha=0.3)
    axes.margins(x=0.15)
    figure.savefig(PLOT, dpi=110)
    print(f"wrote {SHOWN} and {PLOT}")


def title_of(budget: str) -> str:
    amount = budget.partition("_")[0]
    return f"{amount[:-5]} steps" if amount.endswith("steps") else f"{amount[:-1]} processor seconds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "one", "speed", "report"))
    parser.add_argument("--network", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--crop", type=int, default=CROP_PX)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="also those that were measured before")
    parser.add_argument("--write", action="store_true", help="write the table of the browser and the picture")
    parser.add_argument("--budget", default="120s", help="of --write: whose accuracy")
    parser.add_argument("--speed-of", default="", help="of --write: whose speed, where it is not that of --budget")
    args = parser.parse_args()
    {"run": run, "one": one, "speed": speeds, "report": report}[args.action](args)


if __name__ == "__main__":
    main()
