"""What a run on a GPU tells of itself: while it learns, and in a file beside its weights."""

from __future__ import annotations

import json
import time
from pathlib import Path

LOSSES_TOGETHER = 100


class Told:
    """The losses of a run, how fast it was, and on what."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.losses: list[dict[str, float]] = []
        self.first = 0
        self.since: float | None = None
        self.before = 0
        """When the clock was started, and after how many of the losses; by the first step, if not before."""

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

    def means(self) -> list[dict[str, float]]:
        """The losses, so many together."""
        return [self.mean(i, i + LOSSES_TOGETHER) for i in range(0, len(self.losses), LOSSES_TOGETHER)]

    def write(self, config, **losses) -> Path:
        """Write ``NAME.json`` into the folder of the run, with what is said of its losses."""
        import torch

        from napari_nucleiseg.core.training.config import config_as_json

        on_gpu, log = torch.cuda.is_available(), Path(config.out) / "log.jsonl"
        document = {
            "config": json.loads(config_as_json(config)),
            "validations": [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else [],
            **losses,
            "steps_per_second": (len(self.losses) - self.before) / (time.monotonic() - self.since),
            "gpu": torch.cuda.get_device_name() if on_gpu else "none",
            "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None,
            "torch": torch.__version__,
        }
        path = Path(config.out) / f"{self.name}.json"
        path.write_text(json.dumps(document))
        return path
