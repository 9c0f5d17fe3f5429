"""How many corrected planes a network for z-stacks needs: a first one from nothing, and one that meets other stacks.

    python benchmarks/stack_teaching.py --seeds 2

Stacks are synthetic and offline: 48 planes of 1 µm with 160 x 160 pixels of 0.5 µm, about 130 ellipsoids of 2 to
5 µm that touch, each of another brightness, dimmer with depth, blurred most along z, with haze and noise. The first
network learns from 1, 3 and 8 planes of one stack and is scored in three dimensions on another one of the same kind
(F1, AJI, PQ of voxels). Then the one of most planes meets stacks of another microscope (dimmer, noisier, more
blurred, voxels of 0.7 x 0.35 µm) and is taught with 3 planes of one of them; both are scored on a second one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from measuring import one_thread, table
from napari_nucleiseg.core.evaluation.scores import ImageScores, scores
from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.core.inference.stacks import segment_stack
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.teaching.stacks.lesson import StackLesson
from napari_nucleiseg.core.teaching.stacks.teach import LEARNING, TEACHING, teach_stack
from napari_nucleiseg.core.teaching.verdict import Outcome

SIZE_UM = (48.0, 80.0, 80.0)


@dataclass(frozen=True)
class Microscope:
    """How a stack looks."""

    name: str
    voxel_um: ZYX
    bright: float
    noise: float
    blur_um: float


FIRST = Microscope("first", ZYX(1.0, 0.5, 0.5), 160.0, 7.0, 0.4)
OTHER = Microscope("other", ZYX(1.0, 0.7, 0.35), 60.0, 9.0, 0.8)


def make_stack(scope: Microscope, seed: int, wanted: int = 130) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return image and labels ``(z, y, x)``."""
    rng = np.random.default_rng(seed)
    shape = tuple(round(side / step) for side, step in zip(SIZE_UM, scope.voxel_um, strict=True))
    axes = [(np.arange(side) + 0.5) * step for side, step in zip(shape, scope.voxel_um, strict=True)]
    labels, light = np.zeros(shape, np.int32), np.zeros(shape)
    centres: list[NDArray[np.float64]] = []
    for number in range(1, 20 * wanted):
        centre, radii = rng.uniform((0, 0, 0), SIZE_UM), rng.uniform(2.0, 5.0, 3)
        if len(centres) == wanted:
            break
        if any(np.linalg.norm(centre - other) < 6.0 for other in centres):
            continue
        centres.append(centre)
        z, y, x = ((axis - middle) / radius for axis, middle, radius in zip(axes, centre, radii, strict=True))
        inside = (z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < 1) & (labels == 0)
        labels[inside] = number
        light[inside] = rng.uniform(0.5, 1.0)
    sigma = [scope.blur_um * more / step for more, step in zip((2, 1, 1), scope.voxel_um, strict=True)]
    depth = np.linspace(1.0, 0.6, shape[0])[:, None, None]
    haze = ndimage.gaussian_filter(light, [6.0 / step for step in scope.voxel_um])
    image = scope.bright * depth * (ndimage.gaussian_filter(light, sigma) + 0.5 * haze) + 20
    return np.clip(image + rng.normal(0, scope.noise, shape), 0, 255).astype(np.uint8), labels


def judge(model: LoadedModel, scope: Microscope, seed: int) -> ImageScores:
    """Score a model on a stack in three dimensions."""
    image, truth = make_stack(scope, seed)
    width = truth.shape[-1]
    found = segment_stack(image, model, scope.voxel_um)
    return scores(truth.reshape(-1, width), found.reshape(-1, width), distances=False)


def taught(model: LoadedModel | None, scope: Microscope, planes: int, seed: int, steps: int) -> tuple[Outcome, float]:
    """Teach with so many planes of one stack; return what came of it and the CPU seconds."""
    image, truth = make_stack(scope, seed)
    numbers = np.linspace(0, len(image) - 1, planes + 2).round().astype(int)[1:-1]
    lesson = StackLesson(f"stack {seed}", image, truth, tuple(numbers.tolist()), scope.voxel_um)
    base = LEARNING if model is None else TEACHING
    config = replace(base, steps=steps or base.steps, seed=seed, threads=1, device="cpu")
    began = time.process_time()
    *_, last = teach_stack(model, lesson, config)
    assert last.outcome is not None
    return last.outcome, time.process_time() - began


def shown(values: Sequence[float]) -> str:
    """Return a mean with its range."""
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def cells(found: Sequence[ImageScores]) -> list[str]:
    """Return F1, AJI and PQ of several runs."""
    return [shown([getattr(one, name) for one in found]) for name in ("f1", "aji", "pq")]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--planes", type=int, nargs="+", default=[1, 3, 8])
    parser.add_argument("--steps", type=int, default=0, help="of every run; default those of the program")
    args = parser.parse_args()
    one_thread()
    rows, models = [], {}
    for planes in args.planes:
        runs = [taught(None, FIRST, planes, seed, args.steps) for seed in range(args.seeds)]
        found = [judge(outcome.model, FIRST, 100 + seed) for seed, (outcome, _) in enumerate(runs)]
        own = shown([outcome.after.f1 for outcome, _ in runs])
        seconds = f"{np.mean([took for _, took in runs]):.0f}"
        rows.append((planes, *cells(found), own, seconds))
        models = {seed: outcome.model for seed, (outcome, _) in enumerate(runs)}
    head = ("planes", "F1", "AJI", "PQ", "F1 on its own held-out part", "CPU s")
    table(head, rows, title="A first network, on another stack")
    before = [judge(model, OTHER, 200 + seed) for seed, model in models.items()]
    lessons = [taught(model, OTHER, 3, 50 + seed, args.steps) for seed, model in models.items()]
    after = [judge(outcome.model, OTHER, 200 + seed) for seed, (outcome, _) in zip(models, lessons, strict=True)]
    adopted = sum(outcome.adopted for outcome, _ in lessons)
    rows = [("before", *cells(before), "", ""), ("after three planes", *cells(after), f"{adopted} of {len(lessons)}",
             f"{np.mean([took for _, took in lessons]):.0f}")]  # fmt: skip
    table(("other microscope", "F1", "AJI", "PQ", "adopted", "CPU s"), rows, title="Taught, on a second stack")


if __name__ == "__main__":
    main()
