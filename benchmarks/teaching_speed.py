"""What a fine-tune costs beside its network: a bare loop of the same steps, the time to the first step, many regions.

    python benchmarks/teaching_speed.py

On corrected regions of TNBC as in `teaching.py` (the shipped model, one thread). The bare loop takes the same batches
and does forward, loss, backward and optimiser with the same anchors, and nothing else: no average, no measurement, no
verdict. Figures are CPU seconds, taken in turn in one run, medians of some rounds; the first step is wall time.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import replace
from itertools import islice
from unittest import mock

import numpy as np
import torch

from measuring import in_turn, note, one_thread, record, table, verdict
from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.teaching.classroom import prepare
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.division import divide
from napari_nucleiseg.core.teaching.finetune import finetune
from napari_nucleiseg.core.teaching.learner import Learner
from napari_nucleiseg.core.training import batches as making_module
from teaching import corrected, laboratories

BARE_GOAL, FIRST_GOAL_S, MANY_GOAL = 1.15, 2.0, 1.1
STEP_GOAL, TARGETS_GOAL = 3.0, 0.05


def with_hold_out(lesson: Lesson, held: int) -> Lesson:
    """The same with the last regions held out, so that there is one run."""
    last = len(lesson.examples) - held
    roles = ("teach", "hold out")
    return replace(
        lesson, examples=tuple(replace(one, role=roles[place >= last]) for place, one in enumerate(lesson.examples))
    )


def bare(model, lesson, config):
    """Forward, loss, backward, optimiser: what nobody can do without."""
    room = prepare(model, lesson, config)
    run = divide(lesson.examples, config.folds, config.seed).runs[0]
    learner = Learner(model, config, room.losses)
    learner.average.update_parameters = lambda _network: None
    batches = list(room.batches(run, config, 0))

    def loop():
        for number, batch in enumerate(batches, 1):
            learner.step(*batch, number)

    return loop, batches, room, run


class Counted:
    """A decoder that counts the CPU seconds of making its targets, in whatever thread."""

    spent = 0.0

    def __init__(self, inner):
        self.inner = inner

    def targets(self, labels):
        start = time.thread_time()
        made = self.inner.targets(labels)
        Counted.spent += time.thread_time() - start
        return made


def seconds_of_targets(room, run, config):
    """CPU seconds that the targets of all batches take."""
    Counted.spent = 0.0
    with mock.patch.object(making_module, "decoder", lambda name: Counted(decoder(name))):
        for _ in room.batches(run, config, 0):
            pass
    return Counted.spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=FinetuneConfig().steps)
    args = parser.parse_args()
    one_thread()
    model = load_model("nuclei")
    lab = laboratories(model.spec.mpp_um, dev=False)[0]
    config = FinetuneConfig(steps=args.steps, patience=10_000, threads=1, device="cpu")
    few = with_hold_out(corrected(lab.teach, 10, model.spec.mpp_um, np.random.default_rng(0)), 3)
    many = with_hold_out(crowd(lab, model.spec.mpp_um, 100), 30)
    loop, batches, room, run = bare(model, few, config)
    candidates = {
        "bare loop, batches made beforehand": loop,
        "making the batches": lambda: list(room.batches(run, config, 0)),
        "fine-tune, 10 regions": lambda: list(finetune(model, few, config)),
        "fine-tune, 100 regions": lambda: list(finetune(model, many, config)),
        "forward of the same crops, float32": lambda: forwards(model, batches),
    }
    found = in_turn(candidates, args.rounds)
    alone, making, ten, hundred, forward = (one.cpu for one in found.values())
    crops = f"{len(batches[0][0]['image'])} + {len(batches[0][1])} crops, {config.crop_px} px"
    table(
        ("what", "CPU s", "x bare loop", "spread", "cpu/wall"),
        [
            (name, f"{one.cpu:.1f}", f"{one.cpu / (alone + making):.2f}", f"{one.spread:.0%}", f"{one.share:.2f}")
            for name, one in found.items()
        ],
        title=f"{len(batches)} steps of {crops}; bare loop: steps and making of batches, {alone + making:.1f} s",
    )
    first = min(first_step(model, few, config) for _ in range(args.rounds))
    verdict("fine-tune / bare loop", ten / (alone + making), BARE_GOAL, goal="G10")
    verdict("first step after the call, wall s", first, FIRST_GOAL_S, goal="G10")
    verdict("100 regions / 10 regions", hundred / ten, MANY_GOAL, goal="G10")
    verdict("a step / forward of its crops, float32", alone / forward, STEP_GOAL, goal="G10")
    targets = np.median([seconds_of_targets(room, run, config) for _ in range(args.rounds)])
    verdict(
        "targets of the batches, of the bare loop", targets / (alone + making), TARGETS_GOAL, form="{:.3f}", goal="G10"
    )
    note(
        f"Making the batches, that is cutting, bending and colouring crops besides their targets, takes "
        f"{making / (alone + making):.3f} of the bare loop."
    )


@torch.inference_mode()
def forwards(model, batches):
    """The network alone over all crops that the steps see."""
    for taught, others in batches:
        for crops in (taught["image"], others):
            if len(crops):
                model.network(torch.as_tensor(crops))


def crowd(lab, mpp_um, count):
    """Many regions: the same pictures give some tissue twice, which takes as long as any other."""
    parts = [corrected(lab.teach, 20, mpp_um, np.random.default_rng(seed)) for seed in range(-(-count // 20))]
    examples = [
        replace(one, number=100 * place + one.number, region=f"Region {100 * place + one.number}")
        for place, part in enumerate(parts)
        for one in part.examples
    ]
    return Lesson(tuple(examples[:count]), parts[0].elsewhere)


def first_step(model, lesson, config):
    """Seconds from the call to the end of the first step."""
    torch.manual_seed(0)
    began = time.perf_counter()
    steps = finetune(copy.copy(model), lesson, config)
    list(islice(steps, 2))
    seconds = time.perf_counter() - began
    steps.close()
    return seconds


if __name__ == "__main__":
    record(main)
