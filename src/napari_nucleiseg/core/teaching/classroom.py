"""Everything that stays the same through a fine-tune: what is taught, how it is divided, who examines."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from statistics import median

import numpy as np
import torch
from torch import Tensor

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.errors import DoubtfulLabelsError, TeachingError
from napari_nucleiseg.core.models.registry import build_network
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.teaching.agreement import Agreement, compare, measure, together
from napari_nucleiseg.core.teaching.cards import taught_card
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.division import Division, Run, divide
from napari_nucleiseg.core.teaching.doubts import doubts
from napari_nucleiseg.core.teaching.examiner import Examiner
from napari_nucleiseg.core.teaching.examples import Example, by_role, count_nuclei, fingerprint_of
from napari_nucleiseg.core.teaching.learner import Tensors, between
from napari_nucleiseg.core.teaching.notebook import Learnt, Notebook
from napari_nucleiseg.core.teaching.verdict import Outcome, verdict
from napari_nucleiseg.core.training.batches import TARGET_SOURCES, BatchMaker
from napari_nucleiseg.core.training.config import AugmentConfig, TrainConfig
from napari_nucleiseg.core.training.samples import LabelledImage
from napari_nucleiseg.core.training.weightmap import border_weights

# Ways from the former to the new weights and changes of the threshold, of which the best on what is held out is kept.
SHARES = (0.5, 0.75, 1.0)
# The usual one: the last quarter of the way costs other tissue more than it gives to that which was annotated.
USUAL_SHARE = 0.75
THRESHOLD_CHANGES = (-0.1, 0.0, 0.1)
# What must be gained, and in which share of resamplings, to prefer another share or threshold to the usual ones.
WORTH_IT = 0.005
SURELY = 0.95
LEAST_TO_LEARN = 8
# Colours of other laboratories: on these the former view is to be kept.
_ANY_COLOUR = AugmentConfig(scale=1.5, elastic_um=0.0, stain=0.3, stain_transfer=0.0, colour=0.2, blur_px=1.2)

Batch = tuple[Mapping[str, Tensor], Tensor]
# Share of the way to the new weights, and threshold and smallest area.
Choice = tuple[float, DecodeOptions]


@dataclass(frozen=True, slots=True, eq=False)
class Classroom:
    """One fine-tune; made by `prepare`.

    Parameters
    ----------
    model : LoadedModel
        The former model.
    lesson : Lesson
        What there is to learn from.
    config : FinetuneConfig
        Settings.
    division : Division
        Who learns what.
    examiner : Examiner
        Measures.
    losses : mapping of str to float
        Weight of each head's loss.
    fingerprint : str
        Of model, examples and settings.
    """

    model: LoadedModel
    lesson: Lesson
    config: FinetuneConfig
    division: Division
    examiner: Examiner
    losses: Mapping[str, float]
    fingerprint: str

    @property
    def total(self) -> int:
        """Steps of all runs at most."""
        return self.config.steps * len(self.division.runs)

    @property
    def before(self) -> Agreement:
        """How good the former model is on all that is held out."""
        return together(self.examiner.before, _count_regions(self.division.held))

    @property
    def told(self) -> str:
        """How the new model is judged."""
        return self.division.told

    def kept(self, weights: Tensors) -> Tensors:
        """Return what is kept of new weights: they and the former ones in the usual proportion."""
        return between(self.examiner.former, weights, USUAL_SHARE)

    def steps_before(self, run: Run) -> int:
        """Steps at most of the runs before this one."""
        return self.division.runs.index(run) * self.config.steps

    def limit(self, run: Run, notebook: Notebook) -> int:
        """Steps of a run at most: where nothing is held out, those that were best for the others."""
        others = [learnt.step for learnt in notebook.lessons().values()]
        return self.config.steps if run.held or not others else max(1, round(median(others)))

    def batches(self, run: Run, config: FinetuneConfig, start: int) -> Generator[Batch, None, None]:
        """Yield batches of labelled crops, each with half as many crops without labels."""
        training, spec = config.as_training(dict(self.losses)), self.model.spec
        labelled = BatchMaker(training, spec, [([_picture(example, training) for example in run.teach], 1.0)])
        count = max(1, config.batch_size // 2) if config.memory else 0
        quiet = self.lesson.elsewhere or run.teach
        images = BatchMaker(
            replace(training, batch_size=max(count, 1), augment=_ANY_COLOUR, seed=config.seed + 1, losses={}),
            spec,
            [([_picture(example, replace(training, border_weight=0.0)) for example in quiet], 1.0)],
        )
        with (
            closing(labelled.batches(start, config.steps)) as known,
            closing(images.batches(start, config.steps)) as unknown,
        ):
            for batch, other in zip(known, unknown, strict=True):
                yield batch, other["image"][:count]

    def judge(self, learnt: Mapping[str, Learnt], seconds: float = 0.0) -> Outcome:
        """Choose what is kept of the way from the former to the new weights, and say whether it is adopted.

        `seconds` is how long teaching took; the card says it.
        """
        final = learnt[self.division.runs[-1].name]
        (share, options), after = self._choose(learnt)
        weights = between(self.examiner.former, final.weights, share)
        view = self.examiner.kept_view(weights, self.lesson.elsewhere, options)
        gain = compare(self.examiner.before, after, self.config.seed)
        measured = together(after, _count_regions(self.division.held))
        kept = None if view is None else view.pq
        adopted, reason = verdict(self.before, measured, gain, kept, self.config)
        card = taught_card(
            self, measured, gain, options, {"step": final.step, "share": share, "seconds": round(seconds, 1)}
        )
        network = build_network(self.model.spec)
        network.load_state_dict(weights)
        new = LoadedModel(self.model.spec, card, network.eval())
        left_out = self.lesson.left_out
        return Outcome(new, self.before, measured, gain, kept, adopted, reason, self.told, final.step, left_out)

    def _choose(self, learnt: Mapping[str, Learnt]) -> tuple[Choice, list[Agreement]]:
        """Return what is best on all that is held out, and an honest measurement of choosing so.

        What was chosen by some nuclei flatters itself on them. So places are parted in two: on each half is measured
        what would have been chosen by the other.
        """
        plain = self.examiner.options
        found: dict[Choice, list[Agreement]] = {}
        for share in SHARES:
            seen = list(self._seen(learnt, share))
            for change in THRESHOLD_CHANGES:
                threshold = round(min(max(plain.threshold + change, 0.05), 0.95), 3)
                options = replace(plain, threshold=threshold)
                found[share, options] = [
                    measure(example, self.examiner.nuclei(maps, options).labels) for example, maps in seen
                ]
        usual = USUAL_SHARE, plain
        halves = [{choice: [part.half(half) for part in parts] for choice, parts in found.items()} for half in (0, 1)]
        by_other = [halves[half][best_choice(halves[1 - half], usual)] for half in (0, 1)]
        measured = [one.beside(other) for one, other in zip(*by_other, strict=True)]
        return best_choice(found, usual), measured

    def _seen(
        self, learnt: Mapping[str, Learnt], share: float
    ) -> Iterator[tuple[Example, Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]]:
        """Yield each held-out example with the maps of the network that did not see it."""
        for run in self.division.runs:
            if run.held:
                network = self.examiner.with_weights(between(self.examiner.former, learnt[run.name].weights, share))
                for example in run.held:
                    yield example, self.examiner.maps(network, example)


def best_choice(found: Mapping[Choice, list[Agreement]], usual: Choice) -> Choice:
    """Return the choice of the best agreement; the usual one unless another is surely better."""
    best = max(found, key=lambda choice: together(found[choice]).choice)
    gain = compare(found[usual], found[best])
    return best if gain.choice >= WORTH_IT and gain.not_worse >= SURELY else usual


def prepare(model: LoadedModel, lesson: Lesson, config: FinetuneConfig) -> Classroom:
    """Divide the examples, measure the former model, and refuse what cannot be learnt from.

    Raises
    ------
    TeachingError
        If settings make no sense or there is too little to learn from.
    DoubtfulLabelsError
        If labels look wrong and are not to be trusted (`FinetuneConfig.trust_labels`).
    """
    if problem := config.validation_error():
        raise TeachingError(f"The fine-tune cannot start: {problem}.")
    teach, _ = by_role(lesson.examples)
    if count_nuclei(teach) < LEAST_TO_LEARN:
        raise TeachingError(_too_little(lesson, count_nuclei(teach)))
    losses = {name: weight for name, weight in TrainConfig().losses.items() if name in _heads(model)}
    if any(head.name == "attention" for head in model.spec.heads) and any(
        example.attention is not None for example in lesson.examples
    ):
        losses["attention"] = config.attention
    if not losses:
        raise TeachingError(f"The model {model.card.name} has no output that nuclei could teach. Choose another model.")
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    division = divide(lesson.examples, config.folds, config.seed)
    examiner = Examiner(model, division, config.device)
    if not config.trust_labels:
        _refuse_doubtful(lesson, examiner)
    digest = hashlib.sha256(repr((model.version, sorted(asdict(config).items(), key=str))).encode())
    digest.update(fingerprint_of((*lesson.examples, *lesson.elsewhere)).encode())
    return Classroom(model, lesson, config, division, examiner, losses, digest.hexdigest()[:16])


def _refuse_doubtful(lesson: Lesson, examiner: Examiner) -> None:
    looks = ((example, partial(cache(examiner.first_look), example)) for example in lesson.examples)
    found = [said for example, look in looks for said in doubts(example, look)]
    if found:
        told = "\n".join(dict.fromkeys(found))
        raise DoubtfulLabelsError(f"Some regions do not look right, so nothing was taught:\n{told}")


def _heads(model: LoadedModel) -> set[str]:
    return {head.name for head in model.spec.heads} & TARGET_SOURCES.keys()


def _too_little(lesson: Lesson, nuclei: int) -> str:
    found = "no corrected nuclei" if not nuclei else f"only {nuclei} corrected nuclei"
    rest = "".join(f"\n{sentence}" for sentence in lesson.left_out)
    return (
        f"There are {found} to learn from; at least {LEAST_TO_LEARN} are needed. Draw a region with the role "
        f"“teach”, correct the nuclei in it, and teach again.{rest}"
    )


def _picture(example: Example, training: TrainConfig) -> LabelledImage:
    sigma = training.border_sigma_um / example.mpp_um
    weights = border_weights(example.labels, training.border_weight, sigma)
    return LabelledImage(example.title, example.image, example.labels, example.mpp_um, weights, example.attention)


def _count_regions(examples: tuple[Example, ...]) -> int:
    return len({example.key for example in examples})
