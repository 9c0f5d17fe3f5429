"""Everything that stays the same through a fine-tune: what is taught, how it is divided, who examines."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from statistics import median

import torch
from torch import Tensor

from napari_nucleiseg.core.errors import DoubtfulLabelsError, TeachingError
from napari_nucleiseg.core.models.imported import is_imported
from napari_nucleiseg.core.models.registry import build_network
from napari_nucleiseg.core.models.scale_attention import has_level
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.models.without_brown import picture_without_brown
from napari_nucleiseg.core.teaching.agreement import Agreement, compare, measure, together
from napari_nucleiseg.core.teaching.cards import taught_card
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.division import Division, Run, divide
from napari_nucleiseg.core.teaching.doubts import doubts
from napari_nucleiseg.core.teaching.examiner import Examiner, Preview
from napari_nucleiseg.core.teaching.examples import Example, by_role, count_nuclei, fingerprint_of
from napari_nucleiseg.core.teaching.learner import Learner, Tensors, between
from napari_nucleiseg.core.teaching.memory import fitting, free_bytes
from napari_nucleiseg.core.teaching.notebook import Learnt, Notebook
from napari_nucleiseg.core.teaching.verdict import Outcome, verdict
from napari_nucleiseg.core.training.batches import TARGET_SOURCES, BatchMaker
from napari_nucleiseg.core.training.config import AugmentConfig, TrainConfig
from napari_nucleiseg.core.training.samples import LabelledImage
from napari_nucleiseg.core.training.weightmap import border_weights

# So much of the way from the former to the new weights is gone: the last quarter costs other tissue what it gives here.
# Neither this nor the threshold is chosen anew by what is held out: a dozen nuclei would choose by chance, and what
# suits one slide best harms others.
SHARE = 0.75
LEAST_TO_LEARN = 8
# Colours of other laboratories: on these the former view is to be kept.
_ANY_COLOUR = AugmentConfig(scale=1.5, elastic_um=0.0, stain=0.3, stain_transfer=0.0, colour=0.2, blur_px=1.2)

Batch = tuple[Mapping[str, Tensor], Tensor]


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
        """Return what is kept of new weights: they and the former ones in a fixed proportion."""
        return between(self.examiner.former, weights, SHARE)

    def steps_before(self, run: Run) -> int:
        """Steps at most of the runs before this one."""
        return self.division.runs.index(run) * self.config.steps

    def limit(self, run: Run, notebook: Notebook) -> int:
        """Steps of a run at most: where nothing is held out, those that were best for the others."""
        others = [learnt.step for learnt in notebook.lessons().values()]
        return self.config.steps if run.held or not others else max(1, round(median(others)))

    def learner(self) -> Learner:
        """Return who learns, from the former weights on."""
        return Learner(self.model, self.config, self.losses)

    def fitting(self, learner: Learner) -> tuple[FinetuneConfig, str]:
        """Return settings whose steps fit into memory, and a sentence where they are others."""
        free, margin = free_bytes(learner.device), self.model.spec.output_margin_px
        return fitting(self.config, learner.kept_bytes(), free, margin)

    def look(self, weights: Tensors, run: Run) -> tuple[Agreement | None, Preview | None]:
        """Measure weights on what is held out of a run; None where nothing is."""
        return self.examiner.look(weights, run) if run.held else (None, None)

    def former(self, run: Run) -> float | None:
        """Return the score of the former model there."""
        return self.examiner.former_on_curve(run).choice

    def batches(self, run: Run, config: FinetuneConfig, start: int) -> Generator[Batch, None, None]:
        """Yield batches of labelled crops, each with half as many crops without labels."""
        spec = self.model.spec
        # Not every network gives crops of every size.
        fitting = replace(config, crop_px=spec.fitting_side(config.crop_px))
        training = fitting.as_training(dict(self.losses))
        labelled = BatchMaker(training, spec, [([_picture(example, training) for example in run.teach], 1.0)])
        count = config.quiet_size
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
        """Measure what is kept of the new weights on all that is held out, and say whether it is adopted.

        `seconds` is how long teaching took; the card says it.
        """
        final, options = learnt[self.division.runs[-1].name], self.examiner.options
        after = self._measured(learnt)
        weights = self.kept(final.weights)
        view = self.examiner.kept_view(weights, self.lesson.elsewhere)
        gain = compare(self.examiner.before, after, self.config.seed)
        measured = together(after, _count_regions(self.division.held))
        kept = None if view is None else view.pq
        adopted, reason = verdict(self.before, measured, gain, kept, self.config)
        facts = {"step": final.step, "share": SHARE, "seconds": round(seconds, 1)}
        # Labels have shown what is a nucleus at the level it has now.
        card = replace(taught_card(self, measured, gain, options, facts), level_is_set=has_level(self.model))
        network = build_network(self.model.spec)
        network.load_state_dict(weights)
        new = LoadedModel(self.model.spec, card, network.eval())
        left_out = self.lesson.left_out
        return Outcome(new, self.before, measured, gain, kept, adopted, reason, self.told, final.step, left_out)

    def _measured(self, learnt: Mapping[str, Learnt]) -> list[Agreement]:
        """Measure each held-out example with the network that did not see it."""
        found = []
        for run in self.division.runs:
            if run.held:
                network = self.examiner.with_weights(self.kept(learnt[run.name].weights))
                seen = self.examiner.decoded(network, run.held, self.examiner.options)
                found += [measure(*pair) for pair in zip(run.held, seen, strict=True)]
        return found


def prepare(model: LoadedModel, lesson: Lesson, config: FinetuneConfig) -> Classroom:
    """Divide the examples, measure the former model, and refuse what cannot be learnt from.

    Raises
    ------
    TeachingError
        If settings make no sense, there is too little to learn from, or the model was imported from another program.
    DoubtfulLabelsError
        If labels look wrong and are not to be trusted (`FinetuneConfig.trust_labels`).
    """
    if problem := config.validation_error():
        raise TeachingError(f"The fine-tune cannot start: {problem}.")
    _refuse_imported(model)
    if config.ignore_brown:
        lesson = _without_brown(lesson)
    teach, _ = by_role(lesson.examples)
    painted = model.spec.attends and any(example.attention is not None for example in teach)
    if count_nuclei(teach) < LEAST_TO_LEARN and not painted:
        raise TeachingError(_too_little(lesson, count_nuclei(teach)))
    losses = {name: weight for name, weight in TrainConfig().losses.items() if name in _heads(model)}
    if painted:
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


def _without_brown(lesson: Lesson) -> Lesson:
    def seen(examples: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(replace(example, image=picture_without_brown(example.image)) for example in examples)

    return replace(lesson, examples=seen(lesson.examples), elsewhere=seen(lesson.elsewhere))


def _refuse_imported(model: LoadedModel) -> None:
    if is_imported(model.network):
        raise TeachingError(
            f"{model.card.name} was imported from another program and cannot be taught: it is run as it came. Choose "
            "another model, such as nuclei, to learn from your corrections."
        )


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
