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
import json
import multiprocessing
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

PROBE_STEPS, PROBE_SECONDS = 20, 8.0
# Of the time that is left: what starting anew, the last validation and writing take.
SPARE_SECONDS, PART = 12.0, 0.95
CLOSING_SECONDS = 4.0
LATEST_SECONDS = 90.0  # by which all must have begun
VALIDATIONS = 10
LOSSES_TOGETHER = 100


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
    told = Told(name, bounds.out)
    done, rate, first = probe(every(config, bounds.steps), told, together)
    allowed = done + int(rate * PART * (bounds.deadline - time.monotonic() - (first - began) - SPARE_SECONDS))
    steps = min(max(allowed, done + 10), bounds.steps)
    print(f"{name}: {rate:.2f} steps/s, {done} of {steps} steps done, first after {first - began:.0f} s", flush=True)
    go_on(every(replace(config, steps=steps), -(-steps // VALIDATIONS)), told, bounds.deadline)


def every(config, steps: int):
    """The same, measured and written down every so many steps."""
    return replace(config, validate_every=steps, checkpoint_every=steps)


def probe(config, told: Told, together) -> tuple[int, float, float]:
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
        told.keep(config)
        raise SystemExit(f"{told.name}: no steps were left to take, or too few to measure its speed by")
    rate = (step.step - before) / (time.monotonic() - since)
    steps.close()
    return step.step, rate, first


def go_on(config, told: Told, deadline: float) -> None:
    """Take the other steps."""
    from napari_nucleiseg.core.training.scales.loop import pretrain

    steps = pretrain(config)
    told.since = None
    for step in steps:
        told.add(step)
        if step.validation:
            told.keep(config)
        if time.monotonic() > deadline - CLOSING_SECONDS:
            print(f"{told.name}: out of time at step {step.step}", flush=True)
            steps.close()
            told.keep(config)
            break


class Told:
    """What a run tells of itself, and where that is kept."""

    def __init__(self, name: str, out: Path) -> None:
        self.name, self.out = name, out
        self.losses: list[dict[str, float]] = []
        self.first = 0
        self.since: float | None = None
        self.before = 0
        """When the clock was started, and after how many of the losses."""

    def add(self, step) -> None:
        self.first = self.first or step.step
        if self.since is None:
            self.since, self.before = time.monotonic(), len(self.losses) + 1
        self.losses.append({"loss": step.loss, **step.parts})
        if step.validation:
            learned, held_out = (
                " ".join(f"{key} {value:.3f}" for key, value in values.items())
                for values in (self.mean(-2 * LOSSES_TOGETHER), step.validation)
            )
            print(f"{self.name} {step.step}: {learned}; held out: {held_out}", flush=True)

    def mean(self, start: int, stop: int | None = None) -> dict[str, float]:
        some = self.losses[start:stop]
        return {key: sum(one[key] for one in some) / len(some) for key in some[0]}

    def document(self, config) -> dict:
        import torch

        from napari_nucleiseg.core.training.config import config_as_json

        on_gpu, parts = torch.cuda.is_available(), range(0, len(self.losses), LOSSES_TOGETHER)
        return {
            "config": json.loads(config_as_json(config)),
            "validations": [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()],
            "losses_from_step": self.first,
            "losses": [self.mean(i, i + LOSSES_TOGETHER) for i in parts],
            "steps_per_second": (len(self.losses) - self.before) / (time.monotonic() - self.since),
            "gpu": torch.cuda.get_device_name() if on_gpu else "none",
            "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None,
            "torch": torch.__version__,
        }

    def keep(self, config) -> None:
        """Bring what is worth keeping together; a file in OUT is always a whole one."""
        folder = Path(config.out)
        if not (folder / "best.safetensors").exists() or not (folder / "last.pt").exists():
            return
        last = write_last(config, folder / f"{self.name}.safetensors")
        said = folder / f"{self.name}.json"
        said.write_text(json.dumps(self.document(config)))
        partial = self.out / f"{self.name}.tar.part"
        with tarfile.open(partial, "w") as packed:
            packed.add(said, said.name)
            packed.add(last, last.name)
            packed.add(folder / "best.safetensors", f"{self.name}-best.safetensors")
            for picture in sorted((folder / "attention").glob("*.png"))[-1:]:
                packed.add(picture, f"{self.name}-{picture.name}")
        partial.replace(self.out / f"{self.name}.tar")
        (self.out / said.name).write_bytes(said.read_bytes())


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
