"""Train several configurations at once on one GPU, within a given time; what came of it lies in OUT.

    python benchmarks/training/on_gpu.py OUT --seconds 300 benchmarks/training/gpu/*.json

Each run is a process of its own: a small network leaves most of a GPU idle. Its speed beside the others is measured
first, and the steps of its schedule are set so that it ends in time. For each run OUT has ``NAME.tar`` with
``NAME.safetensors`` (last average of the weights), ``NAME-best.safetensors`` (best by validation, with ``--best``) and
``NAME.json`` (the configuration with its steps, validations, steps a second, GPU and its memory).
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from telling import Told

LARGEST_PAIR = 15 * 1024**2  # bytes of both weight files together
PROBE_STEPS, PROBE_SECONDS = 20, 8.0
# Of the time that is left: what starting anew, the last validation and writing take.
SPARE_SECONDS, PART = 14.0, 0.93
LATEST_SECONDS = 120.0  # by which all must have begun


def speed(config, together) -> tuple[float, float]:
    """Steps a second while all runs are at work, and the seconds until the first step."""
    from napari_nucleiseg.core.training.loop import train

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        steps = train(replace(config, out=folder, steps=10**6, validate=(), validate_every=10**6))
        first = since = None
        before = 0
        for step in steps:
            if first is None:
                first = time.monotonic() - began
            if since is None and step.step >= PROBE_STEPS:
                together.wait(LATEST_SECONDS)
                since, before = time.monotonic(), step.step
            elif since is not None and time.monotonic() - since > PROBE_SECONDS:
                break
        steps.close()
        return (step.step - before) / (time.monotonic() - since), first


def run(path: str, out: str, deadline: float, together, *, with_best: bool) -> None:
    import torch

    from napari_nucleiseg.core.training.config import load_config
    from napari_nucleiseg.core.training.loop import train

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.set_num_threads(2)
    config, name = load_config(path), Path(path).stem
    rate, start = speed(config, together)
    steps = max(int(rate * PART * (deadline - time.monotonic() - start - SPARE_SECONDS)), 10)
    every = max(steps // 6, 1)
    config = replace(
        config, out=str(Path(out) / "work" / name), steps=steps, validate_every=every, warmup=min(300, steps // 5)
    )
    print(f"{name}: {rate:.1f} steps/s, {steps} steps, first after {start:.0f} s", flush=True)
    told = Told(name)
    told.since = time.monotonic()
    for step in train(config):
        told.add(step)
        late = time.monotonic() > deadline
        if step.validation or late:
            told.write(config, loss=[one["loss"] for one in told.means()])
            keep(config, Path(out), name, with_best=with_best)
        if late:
            print(f"{name}: out of time at step {step.step}", flush=True)
            break


def keep(config, out: Path, name: str, *, with_best: bool) -> None:
    """Write the last average as weights of their own, and bring what is worth keeping together."""
    from napari_nucleiseg.core.models.registry import build_network
    from napari_nucleiseg.core.models.weights import read_card, save_model
    from napari_nucleiseg.core.training.checkpoint import averaged_tensors
    from napari_nucleiseg.core.training.loop import trained_spec

    folder, spec = Path(config.out), trained_spec(config)
    best = folder / "best.safetensors"
    if not best.exists() or not (folder / "last.pt").exists():
        return
    tensors, step = averaged_tensors(folder)
    network = build_network(spec)
    network.load_state_dict(tensors)
    last = folder / f"{name}.safetensors"
    save_model(last, network, spec, replace(read_card(best), notes=f"last step, {step}"))
    with tarfile.open(out / f"{name}.tar", "w") as packed:
        packed.add(last, last.name)
        packed.add(folder / f"{name}.json", f"{name}.json")
        if with_best and best.stat().st_size < LARGEST_PAIR / 2:
            packed.add(best, f"{name}-best.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--best", action="store_true", help="keep the best by validation as well")
    args = parser.parse_args()
    deadline = time.monotonic() + args.seconds
    (args.out / "work").mkdir(parents=True, exist_ok=True)
    start = multiprocessing.get_context("spawn")
    together = start.Barrier(len(args.configs))
    runs = [
        start.Process(target=run, args=(path, str(args.out), deadline, together), kwargs={"with_best": args.best})
        for path in args.configs
    ]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    shutil.rmtree(args.out / "work", ignore_errors=True)


if __name__ == "__main__":
    main()
