"""Pretrain by scale classification with several configurations at once on one GPU, within a given time.

    python benchmarks/training/scales_on_gpu.py OUT --seconds 570 benchmarks/training/gpu/scale-attention-full*.json

Each run is a process of its own. Its speed beside the others is measured on its first steps; then it goes on from
there to as many steps as it can take in time, 20,000 at most (``--steps``). At every validation, and at the end, OUT is
given for each run ``NAME.json`` (configuration, validations, losses, steps a second, GPU) and ``NAME.tar`` with the
same, ``NAME-best.safetensors`` (best by validation), ``NAME.safetensors`` (the last weights) and the last picture of
attention, so that nothing is lost if the machine is taken away. Checkpoints with the classifier are large: they lie in
a folder that is removed at the end, or in that of ``--work``, from which the same call goes on another time.

The configurations in ``gpu`` are the published recipe and that without one of its terms; their classifiers start from
random weights (``imagenet`` is empty), because such a machine cannot fetch those of ImageNet that the recipe takes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from telling import Told

PROBE_STEPS, PROBE_SECONDS = 20, 8.0
# Of the time that is left: what starting anew, the last validation and writing take.
SPARE_SECONDS, PART = 12.0, 0.95
CLOSING_SECONDS = 4.0
LATEST_SECONDS = 90.0  # by which all must have begun
VALIDATIONS = 10


@dataclass(frozen=True)
class Bounds:
    """Where runs are kept, when they must have ended, and after how many steps at most."""

    out: Path
    work: Path
    deadline: float
    steps: int


def run(path: str, bounds: Bounds, together) -> None:
    import torch

    from napari_nucleiseg.core.training.scales.config import load_scale_config

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.set_num_threads(2)
    name, began = Path(path).stem, time.monotonic()
    config = replace(load_scale_config(path), out=str(bounds.work / name), steps=bounds.steps, resume=True)
    told = Told(name)
    done, rate, first = probe(every(config, bounds.steps), told, bounds.out, together)
    allowed = done + int(rate * PART * (bounds.deadline - time.monotonic() - (first - began) - SPARE_SECONDS))
    steps = min(max(allowed, done + 10), bounds.steps)
    print(f"{name}: {rate:.2f} steps/s, {done} of {steps} steps done, first after {first - began:.0f} s", flush=True)
    go_on(every(replace(config, steps=steps), -(-steps // VALIDATIONS)), told, bounds)


def every(config, steps: int):
    """The same, measured and written down every so many steps."""
    return replace(config, validate_every=steps, checkpoint_every=steps)


def probe(config, told: Told, out: Path, together) -> tuple[int, float, float]:
    """Take the first steps while all runs are at work: the number of steps, steps a second, when the first was done."""
    from napari_nucleiseg.core.training.scales.loop import pretrain

    steps = pretrain(config)
    first = since = None
    begun = before = 0
    for step in steps:
        told.add(step)
        if first is None:
            first, begun = time.monotonic(), step.step
        if since is None and step.step - begun >= PROBE_STEPS:
            with suppress(threading.BrokenBarrierError):  # another run failed
                together.wait(LATEST_SECONDS)
            since, before = time.monotonic(), step.step
        elif since is not None and time.monotonic() - since > PROBE_SECONDS:
            break
    else:
        keep(config, told, out)
        raise SystemExit(f"{told.name}: no steps were left to take, or too few to measure its speed by")
    rate = (step.step - before) / (time.monotonic() - since)
    steps.close()
    return step.step, rate, first


def go_on(config, told: Told, bounds: Bounds) -> None:
    """Take the other steps."""
    from napari_nucleiseg.core.training.scales.loop import pretrain

    steps = pretrain(config)
    told.since = None
    for step in steps:
        told.add(step)
        if step.validation:
            keep(config, told, bounds.out)
        if time.monotonic() > bounds.deadline - CLOSING_SECONDS:
            print(f"{told.name}: out of time at step {step.step}", flush=True)
            steps.close()
            keep(config, told, bounds.out)
            break


def keep(config, told: Told, out: Path) -> None:
    """Bring what is worth keeping together; a file in OUT is always a whole one."""
    folder, name = Path(config.out), told.name
    if not (folder / "best.safetensors").exists() or not (folder / "last.pt").exists():
        return
    last = write_last(config, folder / f"{name}.safetensors")
    said = told.write(config, losses_from_step=told.first, losses=told.means())
    partial = out / f"{name}.tar.part"
    with tarfile.open(partial, "w") as packed:
        packed.add(said, said.name)
        packed.add(last, last.name)
        packed.add(folder / "best.safetensors", f"{name}-best.safetensors")
        for picture in sorted((folder / "attention").glob("*.png"))[-1:]:
            packed.add(picture, f"{name}-{picture.name}")
    partial.replace(out / f"{name}.tar")
    (out / said.name).write_bytes(said.read_bytes())


def write_last(config, path: Path) -> Path:
    """Write the network of the last checkpoint as weights of its own; its level is the running one."""
    import torch

    from napari_nucleiseg.core.models.registry import build_network, network_spec
    from napari_nucleiseg.core.models.scale_attention import TRUNK
    from napari_nucleiseg.core.models.weights import read_card, save_model

    # Of a quarter of a gigabyte only the small network is read.
    state = torch.load(path.parent / "last.pt", map_location="cpu", weights_only=True, mmap=True)
    tensors = {key: value for key, value in state["model"].items() if not key.startswith(TRUNK)}
    if "average" in state:
        averaged = state["average"].items()
        tensors = {key.removeprefix("module."): value for key, value in averaged if key.startswith("module.")}
    spec = network_spec(config.network, config.params)
    network = build_network(spec)
    network.load_state_dict(tensors)
    card = replace(read_card(path.parent / "best.safetensors"), notes=f"last step, {state['step']}", metrics={})
    save_model(path, network, spec, card, half=False)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--steps", type=int, default=20_000, help="of each run, at most")
    parser.add_argument("--work", type=Path, help="folder for checkpoints, to go on from another time")
    args = parser.parse_args()
    deadline = time.monotonic() + args.seconds
    args.out.mkdir(parents=True, exist_ok=True)
    start = multiprocessing.get_context("spawn")
    together = start.Barrier(len(args.configs))
    with tempfile.TemporaryDirectory(prefix="scales-on-gpu-") as scratch:
        bounds = Bounds(args.out, args.work or Path(scratch), deadline, args.steps)
        runs = [start.Process(target=run, args=(path, bounds, together)) for path in args.configs]
        for one in runs:
            one.start()
        for one in runs:
            one.join()
    sys.exit(int(any(one.exitcode for one in runs)))


if __name__ == "__main__":
    main()
