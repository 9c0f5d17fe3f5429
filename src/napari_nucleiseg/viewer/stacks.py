"""Nuclei of the z-stacks in a viewer: which there are, which model, and the one that is being looked at."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_nucleiseg.core.errors import LicenceNotAcceptedError
from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.jobs import Cancelled, Jobs
from napari_nucleiseg.viewer.long_work import LongWork
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.sentences import failure
from napari_nucleiseg.viewer.stack_layers import labels_layer, shows_stack, volume_of, voxel_of

if TYPE_CHECKING:
    from napari_nucleiseg.core.inference.stacks import BlockDone, StackOptions
    from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
    from napari_nucleiseg.core.slides.voxels import VolumeLike
    from napari_nucleiseg.core.teaching.config import FinetuneConfig
    from napari_nucleiseg.core.teaching.finetune import Step
    from napari_nucleiseg.core.teaching.stacks.lesson import StackLesson
    from napari_nucleiseg.core.teaching.verdict import Outcome
    from napari_nucleiseg.core.teaching.versions import Version
    from napari_nucleiseg.viewer.stack_keeping import StackKeeping

LANE, MODELS, SAVE = "stack", "stack models", "stack save"
DOING = "Finding nuclei in the stack"
GONE = "The stack or its nuclei were taken away, so it has ended."


class StackEngine:
    """Models for stacks: what they find and learn; what is heavy is imported in the thread that calls. Replaceable."""

    settings: FinetuneConfig | None = None
    """How models are taught; None leaves that to `teach_stack`."""

    def models(self) -> tuple[ModelCard, ...]:
        """Return the cards of all weights for stacks that can be used by name."""
        from napari_nucleiseg.core.models.spec import STACK_NETWORKS
        from napari_nucleiseg.core.models.weights import available_models

        return tuple(card for card in available_models() if card.network in STACK_NETWORKS)

    def card(self, name: str) -> ModelCard:
        """Return the card of a model or weight file.

        Raises
        ------
        ModelError
            If there is none.
        """
        from napari_nucleiseg.core.models.weights import find_file, read_card, weight_files

        return read_card(find_file(name, weight_files()))

    def load(self, name: str) -> LoadedModel:
        """Return a model for stacks.

        Raises
        ------
        LicenceNotAcceptedError
            If its licence must be accepted first.
        ModelError
            If it cannot be loaded, or is for slides.
        """
        from napari_nucleiseg.core.inference.device import set_torch_threads
        from napari_nucleiseg.core.models.weights import load_model

        set_torch_threads(beside_gui=True)
        return load_model(name, dimensions=3)

    def accept_licence(self, card: ModelCard) -> None:
        """Remember that the user accepted the licence of these weights."""
        from napari_nucleiseg.core.models.weights import remember_acceptance

        remember_acceptance(card)

    def segment(
        self, volume: VolumeLike, wish: StackWish, labels: NDArray[np.int32], cancelled: Cancelled
    ) -> Iterator[BlockDone]:
        """Find nuclei block by block, and write them to `labels`."""
        from napari_nucleiseg.core.inference.stacks import segment_blocks

        return segment_blocks(volume, self.load(wish.model), wish.voxel_um, labels, wish.options(), cancelled=cancelled)

    def save(self, path: str, labels: NDArray[np.int32], voxel_um: ZYX | None) -> str:
        """Write labels as a TIFF and return where.

        Raises
        ------
        ExportError
            If it cannot be written.
        """
        from napari_nucleiseg.core.exchange.stack_labels import write_stack_labels

        write_stack_labels(path, labels, voxel_um)
        return path

    def teach(self, model: str, lesson: StackLesson) -> Generator[Step, None, None]:
        """Teach a model, or a first one where `model` is empty, step by step; see `teach_stack`."""
        from napari_nucleiseg.core.inference.device import set_torch_threads
        from napari_nucleiseg.core.teaching.stacks.teach import stack_notes_folder, teach_stack

        set_torch_threads(beside_gui=True)
        former = self.load(model) if model else None
        yield from teach_stack(former, lesson, self.settings, stack_notes_folder(former, lesson))

    def keep(self, outcome: Outcome) -> Version:
        """Keep a taught model as a version; one that was refused is kept apart."""
        from napari_nucleiseg.core.teaching.versions import keep

        return keep(outcome)

    def take(self, version: Version) -> Version:
        """Make a version usable that was refused."""
        from napari_nucleiseg.core.teaching.versions import take_anyway

        return take_anyway(version)


@dataclass(frozen=True, slots=True, eq=False)
class StackWish:
    """What is to be done.

    Parameters
    ----------
    layer : napari.layers.Image
        Shows the stack.
    model : str
        Name or weight file.
    voxel_um : ZYX
        Micrometres per voxel.
    threshold, min_area_um2 : float or None
        See `StackOptions`.
    """

    layer: Any
    model: str
    voxel_um: ZYX
    threshold: float | None = None
    min_area_um2: float | None = None

    def options(self) -> StackOptions:
        """Return what the headless part is told."""
        from napari_nucleiseg.core.inference.stacks import StackOptions

        return StackOptions(self.threshold, self.min_area_um2)


class Stacks:
    """One segmentation of a stack at a time in one viewer; all methods are for the main thread.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers are looked at.
    engine : StackEngine, optional
        The headless part.
    """

    offered = Signal()
    """There are other stacks, or another layer is active."""
    listed = Signal(tuple)
    """Cards of the models that can be used."""
    added = Signal(str, object)
    """A weight file that was chosen, and its card."""
    progress_changed = Signal(object)
    """A `Progress`, or None when nothing runs any more."""
    said = Signal(Hint)
    licence_asked = Signal(object, object)
    """The card whose licence must be accepted first, and what waits for it: a callable."""

    def __init__(self, viewer: Any, engine: StackEngine | None = None) -> None:
        self.viewer, self.engine = viewer, engine or StackEngine()
        self.jobs = Jobs()
        self._work = LongWork(self.jobs, LANE)
        self._work.changed.connect(self.progress_changed.emit)
        self._wish: StackWish | None = None
        self._result: Any = None
        self._nuclei = 0
        self._keeping: StackKeeping | None = None
        self._kept_connections = Connections()
        layers = viewer.layers
        self._connections = Connections(
            (layers.events.inserted, self._on_layers_changed),
            (layers.events.removed, self._on_layers_changed),
            (layers.selection.events.active, self._on_layers_changed),
        )
        self._connections.open()

    @property
    def layers(self) -> tuple[Any, ...]:
        """The image layers that show stacks, the active one first."""
        active = self.viewer.layers.selection.active
        return tuple(sorted((one for one in self.viewer.layers if shows_stack(one)), key=lambda one: one != active))

    @property
    def is_running(self) -> bool:
        """Whether nuclei are being looked for."""
        return self._work.is_running

    @property
    def is_busy(self) -> bool:
        """Whether any thread is still at work."""
        return self.jobs.busy

    @property
    def result(self) -> Any:
        """The labels layer that was made last, or is back, if it is still there."""
        return self._result if self._result in self.viewer.layers else None

    @result.setter
    def result(self, layer: Any) -> None:
        self._result = layer

    def nuclei_of(self, layer: Any) -> tuple[Any, ...]:
        """Return the labels layers of a stack that are kept, the active one first, then the latest."""
        active = self.viewer.layers.selection.active
        kept = () if self._keeping is None else self._keeping.layers_of(layer)
        return tuple(sorted(kept, key=lambda one: one != active))

    @property
    def keeping(self) -> StackKeeping | None:
        """What keeps the labels."""
        return self._keeping

    def keep_with(self, keeping: StackKeeping) -> None:
        """Have what is found and painted kept, and say what comes of it."""
        self._kept_connections.close()
        self._keeping = keeping
        self._kept_connections = Connections((keeping.said, self._on_kept_said), (keeping.restored, self._on_restored))
        self._kept_connections.open()

    def _on_kept_said(self, hint: Hint) -> None:
        self.said.emit(hint)

    def _on_restored(self, layer: Any) -> None:
        if not self.is_running:
            self._result = layer
            self.offered.emit()

    def list_models(self) -> None:
        """List the models anew; `listed` follows."""

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield self.engine.models()

        self.jobs.start(MODELS, work, on_value=self.listed.emit, on_error=self._on_failed)

    def add_model(self, path: str) -> None:
        """Offer a weight file; `added` follows."""

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield self.engine.card(path)

        def on_read(card: ModelCard) -> None:
            self.added.emit(path, card)

        self.jobs.start(MODELS, work, on_value=on_read, on_error=self._on_failed)

    # ------------------------------------------------------------------ finding nuclei

    def begin(self, wish: StackWish) -> None:
        """Look for the nuclei of a stack; a layer shows them from the first block on."""
        if self.is_running:
            return
        volume = volume_of(wish.layer)
        labels = np.zeros(tuple(volume.shape[:3]), np.int32)
        self._wish, self._result, self._nuclei = wish, None, 0

        def work(cancelled: Cancelled) -> Iterator[BlockDone]:
            self._work.note(DOING, 0, 0)
            for step in self.engine.segment(volume, wish, labels, lambda: cancelled() or self._work.is_stopped):
                self._work.note(DOING, step.done, step.total)
                yield step

        self.said.emit(Hint())
        self._work.begin(DOING)
        self.jobs.start(
            LANE,
            work,
            on_value=lambda step: self._on_block_done(labels, step),
            on_end=self._on_end,
            on_error=self._on_ended_badly,
        )

    def stop(self) -> None:
        """End after the block in work; what was found stays."""
        self._work.stop()

    def accept(self, card: ModelCard, again: Callable[[], None]) -> None:
        """Accept a licence and do what waited for it."""
        self.engine.accept_licence(card)
        again()

    def _on_block_done(self, labels: NDArray[np.int32], step: BlockDone) -> None:
        if self._wish is None or self._wish.layer not in self.viewer.layers:
            return
        self._nuclei = step.nuclei
        if self._result is None:
            self._result = labels_layer(self._wish.layer, labels)
            # What is painted while blocks are written could be lost.
            self._result.editable = False
            self.viewer.add_layer(self._result)
            if self._keeping is not None:
                self._keeping.keep(self._wish.layer, self._result, labels)
        elif self._result in self.viewer.layers:
            self._result.refresh(thumbnail=False, extent=False)
        else:
            self.stop()
        if self._keeping is not None:
            self._keeping.note_block(self._result)

    def _on_end(self) -> None:
        stopped = self._work.is_stopped
        self._work.end()
        self._let_correct(is_complete=not stopped)
        layer = self.result
        if layer is None or self._wish is None or self._wish.layer not in self.viewer.layers:
            self.said.emit(Hint(GONE))
            return
        layer.refresh()
        self.viewer.layers.selection.active = layer
        found = f"{self._nuclei:,} nuclei" if self._nuclei != 1 else "1 nucleus"
        if stopped:
            self.said.emit(Hint(f"Stopped. {found} in the part that was looked at; the rest is empty."))
        else:
            self.said.emit(Hint(f"{found}. Correct them with napari's brush and eraser; that is kept by itself."))

    def _let_correct(self, *, is_complete: bool) -> None:
        if self.result is not None:
            self.result.editable = True
            if self._keeping is not None:
                self._keeping.note_end(self.result, is_complete=is_complete)

    def _on_ended_badly(self, error: BaseException) -> None:
        self._work.end()
        wish = self._wish
        if isinstance(error, LicenceNotAcceptedError) and wish is not None:
            self.licence_asked.emit(self.engine.card(wish.model), partial(self.begin, wish))
            return
        self._let_correct(is_complete=False)
        self._on_failed(error)

    # ------------------------------------------------------------------ saving, and what happens elsewhere

    def save(self, layer: Any, path: str) -> None:
        """Write the nuclei of a labels layer as a TIFF, as they are now."""
        labels = np.array(layer.data, np.int32)
        voxel_um = voxel_of(layer)
        self.jobs.enqueue(
            SAVE,
            lambda: self.engine.save(path, labels, voxel_um),
            on_value=lambda where: self.said.emit(Hint(f"Saved as {where}.")),
            on_error=self._on_failed,
        )

    def _on_failed(self, error: BaseException) -> None:
        self.said.emit(failure(error))

    def _on_layers_changed(self, _event: Any = None) -> None:
        if self.is_running and self._wish is not None and self._wish.layer not in self.viewer.layers:
            self.stop()
        self.offered.emit()

    def close(self) -> None:
        """Stop everything without waiting."""
        self._connections.close()
        self._kept_connections.close()
        self.jobs.close()
        if self._work.is_running:
            self._work.end()
            self._let_correct(is_complete=False)

    def join(self) -> None:
        """Wait until all threads have ended; only after `close`."""
        self.jobs.join()
