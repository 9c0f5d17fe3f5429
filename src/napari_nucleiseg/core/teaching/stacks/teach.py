"""From corrected planes of a stack to a better network for stacks, step by step; or to a first one.

A few planes are enough to teach a network of three dimensions (Çiçek et al., MICCAI 2016): of all others nothing is
known. The guard is that of slides: what is held out says which weights are kept, and whether they take the former
ones' place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from napari_nucleiseg.core.errors import DataError, TeachingError
from napari_nucleiseg.core.inference.stacks import model_step
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard, user_folder
from napari_nucleiseg.core.teaching.agreement import Agreement
from napari_nucleiseg.core.teaching.classroom import Batch
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.division import Run
from napari_nucleiseg.core.teaching.examples import UNKNOWN
from napari_nucleiseg.core.teaching.finetune import Step, teach_run
from napari_nucleiseg.core.teaching.learner import Learner, Tensors, between
from napari_nucleiseg.core.teaching.memory import free_bytes
from napari_nucleiseg.core.teaching.notebook import Notebook
from napari_nucleiseg.core.teaching.stacks.examiner import StackExaminer
from napari_nucleiseg.core.teaching.stacks.judge import judged
from napari_nucleiseg.core.teaching.stacks.lesson import StackDivision, StackLesson, divide_stack
from napari_nucleiseg.core.training.batches import prepared
from napari_nucleiseg.core.training.config import AugmentConfig, TrainConfig
from napari_nucleiseg.core.training.volume_batches import VolumeBatchMaker
from napari_nucleiseg.core.training.volumes import LabelledStack, StackSampler, middles_of

RUN = Run("with your planes", (), ())
SHARE = 0.75
NETWORK, WIDTH = "unet-3d", 16
_AUGMENT = AugmentConfig(scale=1.2, colour=0.1, blur_px=0.8, noise=0.03)
TEACHING = FinetuneConfig(steps=60, crop_px=64, batch_size=2, augment=_AUGMENT)
"""A fine-tune of a network for stacks; `crop_px` is the side of a cube."""
LEARNING = FinetuneConfig(
    steps=300, learning_rate=2e-3, anchor=0.0, memory=0.0, crop_px=64, batch_size=2, warmup=20, validate_every=30,
    patience=6, augment=_AUGMENT,
)  # fmt: skip
"""A first network for stacks."""

_NO_BOXES = np.zeros((0, 3))


def new_model(network: str = NETWORK, width: int = WIDTH) -> LoadedModel:
    """Return a network for stacks that knows nothing yet.

    Parameters
    ----------
    network : str
        Name of a network for stacks.
    width : int
        Channels of the finest level of `unet-3d`; 16 suits a laptop.

    Raises
    ------
    ModelError
        If there is no such network.
    MissingDependencyError
        If the extra ``zoo`` is not installed.
    """
    params = {"width": width} if network == NETWORK else {}
    spec = network_spec(network, params)
    if spec.dimensions != 3:
        raise TeachingError(f"network {network} is for pictures, not for stacks; take {NETWORK}.")
    return LoadedModel(spec, ModelCard(network, network, params), build_network(spec))


def stack_notes_folder(model: LoadedModel | None, lesson: StackLesson) -> Path:
    """Return where a fine-tune on a stack is noted, whatever the settings; None is a first network."""
    start = "" if model is None else model.version
    digest = hashlib.sha256(repr((start, lesson.fingerprint or lesson.name)).encode())
    return user_folder() / "teaching" / digest.hexdigest()[:16]


def teach_stack(
    model: LoadedModel | None, lesson: StackLesson, config: FinetuneConfig | None = None, folder: str | Path = ""
) -> Iterator[Step]:
    """Teach a network for stacks with corrected planes, and judge it by a part of them that it has not seen.

    Closing the generator stops after the current step. The former model is never changed.

    Parameters
    ----------
    model : LoadedModel or None
        The former model. One that knows nothing yet (see `new_model`; None is a narrow 3D U-Net) becomes a first one,
        which takes many more steps.
    lesson : StackLesson
        The planes.
    config : FinetuneConfig, optional
        Settings; default `TEACHING`, or `LEARNING` for a first model. `ignore_brown` and `attention` are for slides.
    folder : path, optional
        Where what was done is noted, so that the same call goes on from there after a crash; empty notes nothing.

    Yields
    ------
    Step
        One a step; the first says how good the former model is, the last has the `Outcome`.

    Raises
    ------
    TeachingError
        If settings make no sense or there is too little to learn from.
    ModelError
        If the model is none for stacks, the device is not there or memory does not suffice.
    """
    chosen = config or (LEARNING if model is None or not model.card.sha256 else TEACHING)
    torch.manual_seed(chosen.seed)
    room = _prepare(model or new_model(), lesson, chosen)
    notebook = Notebook(folder, room.fingerprint)
    yield Step("", 0, room.total, measured=room.before, note=room.division.told)
    if not notebook.holds(RUN.name):
        yield from teach_run(room, RUN, notebook)
    learnt = notebook.lessons()[RUN.name]
    facts = {"step": learnt.step, "seconds": round(notebook.seconds, 1)}
    outcome = judged(room.examiner, room.kept(learnt.weights), room.before, room.config, facts)
    yield Step("", room.total, room.total, outcome=outcome)
    notebook.close()


@dataclass(frozen=True, eq=False)
class _Room:
    """Everything that stays the same through a fine-tune; see `core.teaching.finetune.Room`."""

    model: LoadedModel
    lesson: StackLesson
    config: FinetuneConfig
    division: StackDivision
    examiner: StackExaminer

    @property
    def is_new(self) -> bool:
        """Whether the network knows nothing yet."""
        return not self.model.card.sha256

    @cached_property
    def before(self) -> Agreement | None:
        """How good the former model is; None where there is none."""
        return None if self.is_new else self.examiner.measure()

    @property
    def total(self) -> int:
        """Steps at most."""
        return self.config.steps

    @property
    def fingerprint(self) -> str:
        """Of model, planes and settings."""
        settings = sorted(asdict(self.config).items(), key=str)
        known = repr((self.model.version, self.is_new, self.lesson.digest, settings))
        return hashlib.sha256(known.encode()).hexdigest()[:16]

    @property
    def losses(self) -> dict[str, float]:
        """Weight of each head's loss."""
        heads = {head.name for head in self.model.spec.heads}
        return {name: weight for name, weight in TrainConfig().losses.items() if name in heads}

    def kept(self, weights: Tensors) -> Tensors:
        """Return what is kept of new weights: a first network all, others in a proportion with the former ones."""
        return weights if self.is_new else between(self.model.network.state_dict(), weights, SHARE)

    def steps_before(self, _run: Run) -> int:
        """Return 0: there is one run."""
        return 0

    def limit(self, _run: Run, _notebook: Notebook) -> int:
        """Steps at most."""
        return self.total

    def learner(self) -> Learner:
        """Return who learns, from the former weights on."""
        return Learner(self.model, self.config, self.losses, is_new=self.is_new)

    def fitting(self, _learner: Learner) -> tuple[FinetuneConfig, str]:
        """Return the settings; whether cubes fit into memory shows with the first."""
        return self.config, ""

    def look(self, weights: Tensors, _run: Run) -> tuple[Agreement, None]:
        """Measure weights on what is held out."""
        return self.examiner.measure(weights), None

    def former(self, _run: Run) -> float | None:
        """Return the score of the former model there."""
        return None if self.before is None else self.before.choice

    def batches(self, _run: Run, config: FinetuneConfig, start: int) -> Generator[Batch, None, None]:
        """Yield batches of crops, each with half as many on which the network is to say what it said before."""
        spec = self.model.spec
        training = replace(config.as_training(self.losses), crop_px=_fitting_side(config.crop_px, self.model))
        stack = self._learned(training.crop_px)
        try:
            labelled = VolumeBatchMaker(training, spec, [([stack], 1.0)])
        except DataError as error:
            raise TeachingError(f"The planes cannot be taught: {error}.") from error
        anywhere = replace(stack, labels=np.zeros_like(stack.labels), boxes=_NO_BOXES)
        elsewhere = StackSampler([([anywhere], 1.0)], spec.mpp_um, labelled.sides, config.augment, config.seed + 1)

        def unlabelled(number: int) -> Tensor:
            numbers = range(number * config.quiet_size, (number + 1) * config.quiet_size)
            images = [elsewhere.draw(one).image for one in numbers]
            found = np.stack(images)[:, None] if images else np.zeros((0, 1, *labelled.sides), np.float32)
            return torch.from_numpy((found - np.float32(spec.mean[0])) / np.float32(spec.std[0]))

        with (
            closing(labelled.batches(start, config.steps)) as known,
            closing(prepared(unlabelled, start, config.steps)) as unknown,
        ):
            yield from zip(known, unknown, strict=True)

    def _learned(self, crop_px: int) -> LabelledStack:
        """Return the corrected planes with as many others around as a crop reaches, in memory."""
        lesson, shape = self.lesson, self.lesson.labels.shape
        reach = int(np.ceil(crop_px * model_step(self.model, lesson.voxel_um).z / 2))
        first, stop = max(0, lesson.planes[0] - reach), min(shape[0], lesson.planes[-1] + reach + 1)
        one = np.asarray(lesson.volume[first : first + 1])
        need, free = (stop - first) * (one.nbytes + 4 * shape[1] * shape[2]), free_bytes(torch.device("cpu"))
        if free is not None and need > free:
            raise TeachingError(
                f"{lesson.told} and what lies around them need {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB "
                "are free. Close other programs, or name planes that lie nearer to each other."
            )
        labels = np.full((stop - first, *shape[1:]), UNKNOWN, np.int32)
        for plane, known in self.division.labels.items():
            labels[plane - first] = known
        volume = np.asarray(lesson.volume[first:stop])
        return LabelledStack(
            lesson.name, volume, labels, None, lesson.voxel_um, self.examiner.levels, middles_of(labels)
        )


def _fitting_side(side: int, model: LoadedModel) -> int:
    multiple = model.spec.size_multiple
    return max(multiple, side // multiple * multiple)


def _prepare(model: LoadedModel, lesson: StackLesson, config: FinetuneConfig) -> _Room:
    if problem := config.validation_error():
        raise TeachingError(f"The fine-tune cannot start: {problem}.")
    lesson.checked()
    if config.threads:
        torch.set_num_threads(config.threads)
    model_step(model, lesson.voxel_um)
    division = divide_stack(lesson)
    return _Room(model, lesson, config, division, StackExaminer(model, lesson, division, config.device))
