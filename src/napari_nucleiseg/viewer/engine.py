"""The doors to the headless part; heavy imports happen behind them, in the thread that calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.viewer.collector import left_out_of_searches, search_again
from napari_nucleiseg.viewer.imports import import_shared
from napari_nucleiseg.viewer.levels import SlideLevels

if TYPE_CHECKING:
    from napari_nucleiseg.core.decoders.base import DecodeOptions
    from napari_nucleiseg.core.inference.plan import InferencePlan, TissueCover
    from napari_nucleiseg.core.inference.segment import TileDone
    from napari_nucleiseg.core.models.spec import ModelSpec
    from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
    from napari_nucleiseg.core.slides.stacks import Stack
    from napari_nucleiseg.core.slides.tissue import TissueMask
    from napari_nucleiseg.core.store.lock import Occupant
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.core.teaching.advice import Advice
    from napari_nucleiseg.core.teaching.collect import Lesson
    from napari_nucleiseg.core.teaching.comparison import Stage
    from napari_nucleiseg.core.teaching.finetune import Step
    from napari_nucleiseg.core.teaching.queue import Proposal, Ranked
    from napari_nucleiseg.core.teaching.verdict import Outcome
    from napari_nucleiseg.core.teaching.versions import Branch, Version
    from napari_nucleiseg.viewer.opened import OpenedSlide

# Otherwise imported on the main thread: with napari's first labels layer, or with the first correction.
LATE_IMPORTS = (
    "pandas",
    "scipy.ndimage",
    "scipy.sparse.csgraph",
    "scipy.spatial",
    "skimage.morphology",
    "skimage.segmentation",
)

# So many models that look in another way are kept beside the last one.
LOOKING = 3


class Engine:
    """Models, plans, segmentation and projects, as the controller needs them; replaceable in tests."""

    def __init__(self) -> None:
        self._models: dict[str, LoadedModel] = {}
        self._looking: tuple[tuple[LoadedModel, tuple[bool, bool], LoadedModel], ...] = ()
        self._can_train = False
        self.levels = SlideLevels()

    def open_slide(self, path: str) -> Slide | Stack:
        """Open a slide, or a stack of grey planes.

        Raises
        ------
        SlideError
            If it cannot be opened; says why.
        """
        from napari_nucleiseg.core.slides.stacks import open_image

        return open_image(path)

    def models(self) -> tuple[ModelCard, ...]:
        """Return the cards of all weights that can be used on slides."""
        from napari_nucleiseg.core.models.spec import STACK_NETWORKS
        from napari_nucleiseg.core.models.weights import available_models

        return tuple(card for card in available_models() if card.network not in STACK_NETWORKS)

    def preferred(self, family: str) -> str:
        """Return the name of the version of a model that was last taken in hand; its own if none was."""
        import_shared()
        from napari_nucleiseg.core.teaching.versions import preferred

        version = preferred(family)
        return family if version is None else version.card.name

    def warm_up(self) -> None:
        """Import what the first segmentation, its layer and the first corrections need, so that none waits for it."""
        with left_out_of_searches(self):
            import_shared()
            for name in ("napari_nucleiseg.core.inference.segment", *LATE_IMPORTS):
                # Another napari may need other ones.
                with suppress(ImportError):
                    import_module(name)

    def cool_down(self) -> None:
        """Undo what `warm_up` did beside importing; when the window closes."""
        search_again(self)

    def load(self, name: str) -> LoadedModel:
        """Return a model, from memory if it was loaded before.

        Raises
        ------
        LicenceNotAcceptedError
            If its licence must be accepted first.
        ModelError
            If it cannot be loaded.
        """
        if name not in self._models:
            import_shared()
            from napari_nucleiseg.core.inference.device import set_torch_threads
            from napari_nucleiseg.core.models.weights import load_model

            set_torch_threads(beside_gui=True)
            self._models[name] = load_model(name)
        return self._models[name]

    def looking(self, model: LoadedModel, *, ignore_brown: bool, thorough: bool = False) -> LoadedModel:
        """Return a model that looks as it is wished to, see `core.models.looking`; the same one for the same wish."""
        from napari_nucleiseg.core.models.looking import looking

        wish = ignore_brown, thorough
        if not any(wish):
            return model
        for base, wished, seeing in self._looking:
            if base is model and wished == wish:
                return seeing
        seeing = looking(model, ignore_brown=ignore_brown, thorough=thorough)
        # A network that is made anew would be brought to its device anew with each pan.
        self._looking = (*self._looking[-LOOKING:], (model, wish, seeing))
        return seeing

    def accept_licence(self, card: ModelCard) -> None:
        """Remember that the user accepted the licence of these weights."""
        from napari_nucleiseg.core.models.weights import remember_acceptance

        remember_acceptance(card)

    def tissue(self, slide: Slide) -> TissueMask:
        """Find the tissue of a slide.

        Raises
        ------
        SlideError
            If it cannot be read.
        """
        import_shared()
        from napari_nucleiseg.core.errors import SlideError
        from napari_nucleiseg.core.slides.tissue import tissue_mask

        try:
            return tissue_mask(slide)
        except OSError as error:
            raise SlideError(
                f"{slide.path} cannot be read ({error}). Check that its drive is connected and open it again."
            ) from error

    def plan(self, slide: Slide, spec: ModelSpec, region: Region | None, cover: TissueCover | None) -> InferencePlan:
        """Plan the tiles of a region."""
        from napari_nucleiseg.core.inference.plan import plan_inference

        return plan_inference(slide, spec, region, tissue=cover)

    def options_key(self, plan: InferencePlan, model: LoadedModel, options: DecodeOptions) -> str:
        """Return the name under which tiles done with these options are found again."""
        from napari_nucleiseg.core.inference.segment import options_key

        return options_key(plan, model, options)

    def segment(
        self,
        slide: Slide,
        model: LoadedModel,
        project: Project,
        plan: InferencePlan,
        options: DecodeOptions,
        *,
        device: str,
        keep_maps: bool,
        cancelled: Callable[[], bool],
        on_message: Callable[[str], None],
    ) -> Iterator[TileDone]:
        """Find and store the nuclei of a plan, tile by tile."""
        from napari_nucleiseg.core.inference.segment import segment

        return segment(
            slide,
            model,
            project,
            plan,
            options,
            device=device,
            keep_maps=keep_maps,
            cancelled=cancelled,
            on_message=on_message,
        )

    def project_folder(self, slide: Slide, results_folder: str = "") -> Path:
        """Return where the results of a slide are, wherever that is, or where they belong if there are none yet."""
        from napari_nucleiseg.core.store.finding import find_project, usual_folder

        return find_project(slide, results_folder) or usual_folder(slide, results_folder)

    def remembered_pixel_size(self, slide: Slide, folder: Path) -> YX | None:
        """Return the pixel size that the results of a slide were made with; None if `folder` holds none of it."""
        from napari_nucleiseg.core.store.project import pixel_size_of

        return pixel_size_of(folder, slide)

    def writer(self, project: Project) -> str:
        """Return who writes to a project that is open for reading only here; empty if nobody does any more."""
        found = self.occupant(project)
        return "" if found is None or found.is_gone else str(found.holder)

    def occupant(self, project: Project) -> Occupant | None:
        """Return who writes to a project, whether still there or not; None if nobody does."""
        from napari_nucleiseg.core.store.lock import read_occupant
        from napari_nucleiseg.core.store.project import LOCK

        return read_occupant(project.folder / LOCK)

    def take_over(self, slide: Slide, folder: Path) -> Project:
        """Open a project for writing, whoever writes; that one can write no more.

        Raises
        ------
        StoreError
            If it cannot be opened.
        """
        from napari_nucleiseg.core.store.project import Project

        return Project.open(folder, slide, take_over=True)

    def open_project(self, slide: Slide, folder: Path, *, create: bool) -> Project | None:
        """Open the project of a slide; without `create`, None where there is none.

        It is open for reading only while another program writes to it.

        Raises
        ------
        StoreError
            If it cannot be opened or made there.
        """
        from napari_nucleiseg.core.errors import StoreError
        from napari_nucleiseg.core.store.finding import remember
        from napari_nucleiseg.core.store.project import DATABASE, Project, holder

        exists = (folder / DATABASE).is_file()
        if not create and not exists:
            return None
        try:
            project = Project.open_or_create(folder, slide)
        except StoreError:
            if not exists or holder(folder) is None:
                raise
            return Project.open(folder, slide, writable=False)
        remember(folder, slide)
        return project

    # ------------------------------------------------------------------ teaching

    def lesson(self, slides: Sequence[OpenedSlide], model: LoadedModel) -> Lesson:
        """Return what people corrected on slides that have results."""
        from napari_nucleiseg.core.teaching.collect import Lesson, lesson_of

        found = Lesson(())
        for opened in slides:
            if opened.project is not None:
                found += lesson_of(opened.project, opened.slide, model.spec)
        return found

    def advise(self, lesson: Lesson, slides: Sequence[OpenedSlide]) -> Advice:
        """Say what there is to learn from, and what is missing."""
        from napari_nucleiseg.core.store.classes import read_classes
        from napari_nucleiseg.core.teaching.advice import advise

        projects = [opened.project for opened in slides if opened.project is not None]
        classes = {kind.number: kind.name for project in projects for kind in read_classes(project.ledger.reader)}
        return advise(lesson, classes)

    def import_training(self) -> None:
        """Import what a first fine-tune needs; see `warm_up`."""
        if self._can_train:
            # What has become unreachable since then must not be left out, too.
            return
        self._can_train = True
        with left_out_of_searches(self):
            import torch

            import_module("napari_nucleiseg.core.teaching.finetune")
            # With its first optimiser torch imports a hundred thousand objects more.
            torch.optim.SGD([torch.zeros(1)])

    def finetune(
        self, model: LoadedModel, lesson: Lesson, *, device: str, trust: bool, ignore_brown: bool = False
    ) -> Iterator[Step]:
        """Teach a model; what was done is noted, so that after a crash the same call goes on from there."""
        self.import_training()
        from napari_nucleiseg.core.models.hardware import give_back_memory
        from napari_nucleiseg.core.teaching.config import FinetuneConfig
        from napari_nucleiseg.core.teaching.finetune import finetune
        from napari_nucleiseg.core.teaching.notebook import notes_folder

        config = FinetuneConfig(device=device, trust_labels=trust, ignore_brown=ignore_brown)
        try:
            yield from finetune(model, lesson, config, notes_folder(model, lesson))
        finally:
            give_back_memory()

    def keep(self, outcome: Outcome) -> Version:
        """Keep what a fine-tune has come to as a version of its own."""
        from napari_nucleiseg.core.teaching.versions import keep

        return keep(outcome)

    def versions(self) -> tuple[Version, ...]:
        """Return all versions of all models."""
        from napari_nucleiseg.core.teaching.versions import all_versions

        return all_versions()

    def take(self, version: Version) -> Version:
        """Make a version the one that is used, also if it was refused."""
        from napari_nucleiseg.core.teaching.versions import REFUSED, prefer, take_anyway

        taken = take_anyway(version) if version.kind == REFUSED else version
        prefer(taken)
        return taken

    def load_version(self, version: Version) -> LoadedModel:
        """Return the model of a version, also of a refused one; see `load`."""
        from napari_nucleiseg.core.teaching.versions import REFUSED

        return self.load(str(version.path) if version.kind == REFUSED else version.name)

    def tree(self) -> tuple[Branch, ...]:
        """Return all versions, each below the one it was taught from."""
        from napari_nucleiseg.core.teaching.versions import tree

        return tree()

    def rename(self, version: Version, title: str) -> Version:
        """Give a version another title."""
        from napari_nucleiseg.core.teaching.versions import rename

        return rename(version, title)

    def export(self, version: Version, path: str) -> Path:
        """Copy a version to a file outside; nothing is overwritten."""
        from napari_nucleiseg.core.teaching.versions import export

        return export(version, path)

    def delete(self, version: Version) -> tuple[Version, ...]:
        """Delete a version for good; return those that were taught from it."""
        from napari_nucleiseg.core.teaching.versions import delete

        left = delete(version)
        for name in (version.name, str(version.path)):  # a later version may get its name
            self._models.pop(name, None)
        return left

    def compare(
        self, former: LoadedModel, now: LoadedModel, opened: OpenedSlide, view: Region, *, device: str
    ) -> Iterator[Stage]:
        """Let two models look at the middle of a view; measure them with what was corrected there."""
        from napari_nucleiseg.core.teaching.comparison import compare_models, part_to_compare

        region = part_to_compare(view, opened.slide, (former, now))
        return compare_models(former, now, opened.slide, region, project=opened.project, device=device)

    def rank(self, model: LoadedModel, opened: OpenedSlide, *, device: str) -> Iterator[Ranked]:
        """Look for regions that are worth annotating.

        Raises
        ------
        TeachingError
            If nothing was segmented, or all of it is glass or annotated.
        """
        from napari_nucleiseg.core.errors import TeachingError
        from napari_nucleiseg.core.teaching.queue import QueueConfig, rank

        if opened.project is None:
            raise TeachingError("Nothing of this slide has been segmented yet. Segment a part of it first.")
        return rank(model, opened.slide, opened.project, QueueConfig(device=device))

    def next_regions(self, ranked: Sequence[Ranked]) -> list[Proposal]:
        """Choose the regions to annotate next, best first."""
        from napari_nucleiseg.core.teaching.queue import next_regions

        return next_regions(ranked)
