"""The doors to training without labels; heavy imports happen behind them, in the thread that calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.core.errors import MissingPixelSizeError, WeightsError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.training.by_shape.config import ByShapeConfig
from napari_nucleiseg.core.training.scales.config import ScaleConfig, SlideSet
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.unlabelled_run import (
    OneRun,
    Run,
    best_of,
    measured_before,
    note_on,
    run_folder,
    runs_folder,
    seen_on,
    with_magnifications,
)

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import LoadedModel
    from napari_nucleiseg.core.teaching.unlabelled import Origin
    from napari_nucleiseg.core.teaching.verdict import Outcome
    from napari_nucleiseg.core.teaching.versions import Version
    from napari_nucleiseg.core.training.scales.loop import PretrainStep
    from napari_nucleiseg.core.training.scales.samples import ScaleSource
    from napari_nucleiseg.viewer.opened import OpenedSlide

# Of all pixels.
QUARTER = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A run begins, or goes on.

    Parameters
    ----------
    powers : tuple of float
        Magnifications that are told apart; none where it learns from shapes.
    measured : tuple of (int, float)
        Step and score of what was measured before it was stopped; see `score_in`.
    note : str
        What there is to say of the slides; may be empty.
    run : str
        What tells it from others; the same where it goes on.
    """

    powers: tuple[float, ...]
    measured: tuple[tuple[int, float], ...] = ()
    note: str = ""
    run: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A run has ended or was stopped; its best weights lie in a file.

    Parameters
    ----------
    path : Path
        Of the weights.
    origin : Origin
        What they were learned from.
    steps, total : int
        Steps done, steps of the run.
    powers : int
        Number of magnifications; 0 where it learned from shapes.
    scores : dict of str to float
        Of the best measurement on slides that were held out; without any, what is seen on the tile.
    start : str
        Name of the model it began from; empty for none.
    note : str
        See `Begun`.
    """

    path: Path
    origin: Origin
    steps: int
    total: int
    powers: int
    scores: dict[str, float]
    start: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A model was fitted to a slide: what it came to, and the version that was kept of it."""

    outcome: Outcome
    version: Version


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What is fitted to what.

    Parameters
    ----------
    model : str
        Name of the model.
    opened : OpenedSlide
        The slide.
    regions : tuple of Region
        Level-0 pixels; none is all tissue.
    labelled : tuple of OpenedSlide
        Slides whose annotated regions the outcome is judged by.
    device : str
        Where to run.
    """

    model: str
    opened: OpenedSlide
    regions: tuple[Region, ...]
    labelled: tuple[OpenedSlide, ...]
    device: str


class UnlabelledEngine:
    """Runs without labels, fits to a slide, and what is kept of them; replaceable in tests.

    Parameters
    ----------
    engine : Engine
        Loads models, opens results, keeps versions.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    # ------------------------------------------------------------------ a run

    def pretrain(
        self,
        config: Run,
        slides: Sequence[Slide],
        files: Sequence[str],
        *,
        start: str = "",
        licence: str = "",
        folder: str = "",
        enough: Callable[[], bool],
    ) -> Iterator[Begun | Progress | Hint | PretrainStep | Trained]:
        """Learn from slides without labels, or go on with the same; once a step is made there is something to use.

        Parameters
        ----------
        config : ScaleConfig or ByShapeConfig
            See `config_of`.
        slides : sequence of Slide
            That are open.
        files : sequence of str
            Slides, pictures and folders of them besides.
        start : str
            Name of the model to begin from.
        licence, folder : str
            Of the slides; of all runs.
        enough : callable
            Asked after each step whether to end.

        Raises
        ------
        NucleiSegError
            If slides, disk, model or settings do not allow it.
        """
        from napari_nucleiseg.core.inference.device import set_torch_threads
        from napari_nucleiseg.core.models.hardware import give_back_memory
        from napari_nucleiseg.core.teaching.unlabelled import require_room

        set_torch_threads(beside_gui=True)
        initial = self.engine.load(start) if start else None
        with _disk_is_named(), _opened(slides, files, licence) as sources:
            config, powers = with_magnifications(sources, self.adjusted(config))
            out = run_folder(Path(folder) if folder else runs_folder(), config, sources, initial)
            require_room(out)
            config = replace(config, out=str(out))
            measured = measured_before(out)
            yield Begun(powers, measured, note_on(sources, config), str(out))
            done, glance = 0, None
            with closing(_steps(config, sources, initial)) as steps:  # type: ignore[type-var]
                for step in steps:
                    yield step
                    if not isinstance(step, Progress | Hint):
                        done, glance = step.step, step.glance or glance
                    if enough():
                        break
            give_back_memory()
            if not (out / "best.safetensors").exists():
                return
            # A run that was whole before has no step left.
            trained = _trained(config, sources, done or config.steps, licence, start)
            yield trained if trained.scores or glance is None else replace(trained, scores=seen_on(glance))

    def adjusted(self, config: OneRun) -> OneRun:
        """Return a run as it is made on this machine."""
        return config

    def keep(self, trained: Trained) -> Version:
        """Keep the weights of a run as a version.

        Raises
        ------
        WeightsError
            If they cannot be read or kept.
        """
        from napari_nucleiseg.core.models.weights import load_model
        from napari_nucleiseg.core.teaching.unlabelled import keep_trained

        former = self.engine.load(trained.start) if trained.start else None
        model = load_model(str(trained.path), accept_licence=True)
        what, family = ("Attention", "attention") if trained.powers else ("Nuclei by shape", "by-shape")
        version = keep_trained(model, trained.origin, f"{what}, learned from {trained.origin.title}", former, family)
        # Whoever chose the slides need not be asked for their licence.
        self.engine.accept_licence(version.card)
        return version

    # ------------------------------------------------------------------ a fit to one slide

    def fit(self, target: Target, config: ScaleConfig, enough: Callable[[], bool]) -> Iterator[PretrainStep | Fitted]:
        """Fit all weights of a model to a slide or to regions of it, and judge it; stopped, nothing comes of it.

        Parameters
        ----------
        target : Target
            The model and the slide.
        config : ScaleConfig
            Steps, crops and device are taken from it.
        enough : callable
            Asked after each step whether to end.
        """
        from napari_nucleiseg.core.models.hardware import give_back_memory
        from napari_nucleiseg.core.training.scales.adaptation import ADAPTATION, adapt

        model, slide = self.engine.load(target.model), target.opened.slide
        _require_pixel_size([slide])
        settings = replace(
            ADAPTATION,
            steps=config.steps,
            crop_px=config.crop_px,
            batch_size=config.batch_size,
            losses=config.losses,
            validate_every=max(1, min(config.validate_every, config.steps)),
            device=config.device,
        )
        settings = self.adjusted(settings)
        with _disk_is_named(), closing(adapt(model, slide, target.regions, settings)) as steps:  # type: ignore[type-var]
            for step in steps:
                yield step
                if step.model is not None:
                    facts = {"steps": step.step, "learning_rate": settings.learning_rate, "crop_px": settings.crop_px}
                    yield self._judged(target, step.model, f"fitted to {_name(slide)}", facts)
                elif enough():
                    break
        give_back_memory()

    def set_level(self, target: Target, level: str) -> Iterator[Fitted]:
        """Set how many pixels a model looks at by a slide or regions of it, all else as it was; see `fit`."""
        from napari_nucleiseg.core.training.scales.adaptation import at_slide_level

        model, slide = self.engine.load(target.model), target.opened.slide
        _require_pixel_size([slide])
        share = QUARTER if level == "quarter" else None
        with _disk_is_named():
            new = at_slide_level(model, slide, target.regions, share=share, otsu=level == "otsu")
            yield self._judged(target, new, f"level of {_name(slide)}", {"level": level})

    def _judged(self, target: Target, new: LoadedModel, title: str, settings: dict[str, Any]) -> Fitted:
        from napari_nucleiseg.core.teaching.unlabelled import Origin, judge, keep_fitted, labelled_everywhere

        former, slide = self.engine.load(target.model), target.opened.slide
        projects = [(opened.project, opened.slide) for opened in target.labelled if opened.project is not None]
        where = ", ".join(f"{box.y}:{box.x}:{box.height}:{box.width}" for box in target.regions)
        origin = Origin(((_name(slide), slide.fingerprint),), "", where, settings)
        outcome = judge(former, new, labelled_everywhere(projects, former), origin, target.device)
        version = keep_fitted(outcome, f"{former.card.title or former.card.name}, {title}")
        self.engine.accept_licence(version.card)
        return Fitted(outcome, version)


def _steps(
    config: Run, sources: Sequence[ScaleSource], initial: LoadedModel | None
) -> Iterator[PretrainStep | Progress | Hint]:
    """Run through the steps; what comes before the first one is told as progress."""
    from napari_nucleiseg.core.training.by_shape.labels import Labelling
    from napari_nucleiseg.core.training.by_shape.loop import learn_by_shape
    from napari_nucleiseg.core.training.scales.loop import pretrain

    # The order in which they were opened makes no other run of it.
    sources = sorted(sources, key=lambda source: (source.name, source.slide.fingerprint))
    if not isinstance(config, ByShapeConfig):
        yield from pretrain(config, sources, initial)
        return
    with closing(learn_by_shape(config, sources)) as steps:  # type: ignore[type-var]
        for step in steps:
            if not isinstance(step, Labelling):
                yield step
            elif step.note:
                yield Hint(step.note)
            else:
                yield Progress("Finding shapes", step.done, step.total)


def _name(slide: Slide) -> str:
    return PurePath(slide.path).name or "the slide"


def _require_pixel_size(slides: Sequence[Slide]) -> None:
    for slide in slides:
        if slide.mpp_um is None:
            raise MissingPixelSizeError(
                f"{_name(slide)} does not say how large its pixels are. Give its pixel size in the Nuclei panel (the "
                "menu beside its name), or untick it."
            )


@contextmanager
def _disk_is_named() -> Iterator[None]:
    """Within the block, what the system says of files comes as a sentence of ours."""
    try:
        yield
    except OSError as error:
        named = f" {error.filename}" if error.filename else ""
        raise WeightsError(
            f"A file{named} could not be read or written ({error.strerror or error}). What was learned up to the last "
            "checkpoint is kept; see that the drive is connected and has room, and start again."
        ) from error


@contextmanager
def _opened(slides: Sequence[Slide], files: Sequence[str], licence: str) -> Iterator[list[ScaleSource]]:
    """Give each slide once, those of files opened for the length of the block."""
    from napari_nucleiseg.core.training.scales.samples import ScaleSource
    from napari_nucleiseg.core.training.scales.sources import open_sources

    _require_pixel_size(slides)
    shown = [ScaleSource(_name(slide), slide, (), licence) for slide in slides]
    known = {source.slide.fingerprint for source in shown}
    read: list[ScaleSource] = []
    try:
        for path in files:
            read += open_sources([SlideSet(path, licence=licence)])
        others = []
        for source in read:
            if source.slide.fingerprint not in known:
                known.add(source.slide.fingerprint)
                others.append(source)
        yield [*shown, *others]
    finally:
        for source in read:
            source.slide.close()


def _trained(config: Run, sources: Sequence[ScaleSource], done: int, licence: str, start: str) -> Trained:
    from napari_nucleiseg.core.teaching.unlabelled import Origin

    out = Path(config.out)
    settings = {key: value for key, value in asdict(config).items() if key not in {"slides", "validate"}}
    slides = tuple((source.name, source.slide.fingerprint) for source in sources)
    origin = Origin(slides, licence, "", {**settings, "steps": done})
    powers = 0 if isinstance(config, ByShapeConfig) else len(config.magnifications)
    scores = best_of(out)
    note = note_on(sources, config)
    return Trained(out / "best.safetensors", origin, done, config.steps, powers, scores, start, note)
