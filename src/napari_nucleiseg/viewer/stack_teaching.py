"""Teaches a model for stacks with planes that a person drew or corrected, or a first one; beside all that goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_nucleiseg.core.errors import LicenceNotAcceptedError
from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.long_work import LongWork
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.sentences import failure
from napari_nucleiseg.viewer.stack_layers import labels_layer, volume_of
from napari_nucleiseg.viewer.stacks import Stacks

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.finetune import Step
    from napari_nucleiseg.core.teaching.stacks.lesson import StackLesson
    from napari_nucleiseg.core.teaching.verdict import Outcome
    from napari_nucleiseg.core.teaching.versions import Version

LANE, COUNT, VERSIONS = "stack teach", "stack planes", "stack versions"
# After a stroke, a letter or another plane.
COUNT_S = 0.4
DOING, LOOKING = "Teaching", "Looking at your planes"
# Diameter of the brush: some strokes fill a nucleus. Voxels where nobody has said how large they are.
BRUSH_UM, BRUSH_PX = 2.5, 8
DRAW = (
    "Paint each nucleus of one plane with a number of its own: press M for the next number. Once all nuclei of the "
    "plane are painted, press “Add this plane”. What you paint is kept by itself."
)
STOPPING = "It stops after this step."
STOPPED = (
    "Stopped. Your models are as they were; teach again with the same planes to go on from about where it stopped."
)
NO_PLANE = "Show one plane of the stack first: in 2-D, with the slider along z."


@dataclass(frozen=True, slots=True, eq=False)
class StackTask:
    """What is to be taught.

    Parameters
    ----------
    layer, nuclei : napari.layers.Layer
        The image of a stack, and the labels that a person corrected.
    planes : tuple of int
        On which every nucleus is right, from 0, ascending.
    voxel_um : ZYX
        Micrometres per voxel.
    model : str
        Name or weight file of the former model; empty teaches a first one.
    """

    layer: Any
    nuclei: Any
    planes: tuple[int, ...]
    voxel_um: ZYX
    model: str = ""

    def lesson(self) -> StackLesson:
        """Return the planes as they are now, apart from what is painted from now on; not on the main thread."""
        from napari_nucleiseg.core.store.kept_stack import stack_key
        from napari_nucleiseg.core.teaching.stacks.lesson import StackLesson

        labels, volume = snapshot(self.nuclei.data, self.planes), volume_of(self.layer)
        return StackLesson(self.layer.name, volume, labels, self.planes, self.voxel_um, stack_key(volume))


@dataclass(frozen=True, slots=True, eq=False)
class StackTaught:
    """A lesson has ended: what it came to, and the version that was kept of it."""

    outcome: Outcome
    version: Version


class StackTeaching:
    """One lesson at a time; all methods are for the main thread.

    Parameters
    ----------
    stacks : Stacks
        Knows the viewer, the engine and the jobs, and says what there is to say.
    """

    counted = Signal(int)
    """How many different nuclei the planes show that `follow` was told of."""
    stepped = Signal(object)
    """A `Step`."""
    progress_changed = Signal(object)
    """A `Progress`, or None when nothing is taught any more."""
    ended = Signal(object)
    """`StackTaught`, or None if it was stopped or failed."""
    used = Signal(object)
    """The `Version` that is to be chosen from now on."""

    def __init__(self, stacks: Stacks) -> None:
        self._stacks, self._jobs = stacks, stacks.jobs
        self._work = LongWork(self._jobs, LANE)
        self._work.changed.connect(self.progress_changed.emit)
        self._followed: tuple[Any, tuple[int, ...]] = (None, ())
        self._connections = Connections()
        self.last: StackTaught | None = None
        self.is_taken = False
        """Whether what was taught last is used although it was refused."""

    # ------------------------------------------------------------------ drawing, and which planes

    def draw(self, layer: Any, voxel_um: ZYX | None) -> None:
        """Lay empty labels over a stack that are kept, with the brush in hand."""
        stacks, labels = self._stacks, np.zeros(tuple(volume_of(layer).shape[:3]), np.int32)
        drawn = labels_layer(layer, labels)
        stacks.viewer.dims.ndisplay = 2
        stacks.viewer.add_layer(drawn)
        stacks.result = drawn
        if stacks.keeping is not None:
            stacks.keeping.keep(layer, drawn, labels)
        stacks.viewer.layers.selection.active = drawn
        drawn.n_edit_dimensions = 2
        drawn.brush_size = BRUSH_PX if voxel_um is None else max(1, round(BRUSH_UM / voxel_um.x))
        drawn.selected_label = 1
        drawn.mode = "paint"
        stacks.offered.emit()
        stacks.said.emit(Hint(DRAW))

    def plane_shown(self, layer: Any) -> int | None:
        """Return which plane of a stack the viewer shows; None if it shows none, or all at once."""
        dims = self._stacks.viewer.dims
        if dims.ndim - layer.ndim in dims.displayed:
            return None
        plane = round(float(layer.world_to_data(dims.point)[0]))
        return plane if 0 <= plane < volume_of(layer).shape[0] else None

    def follow(self, nuclei: Any, planes: tuple[int, ...]) -> None:
        """Count the nuclei of these planes of a labels layer, and again whenever it changes; None follows nothing."""
        former, self._followed = self._followed[0], (nuclei, planes)
        if nuclei is None or former is None or nuclei != former:
            self._connections.close()
            events = () if nuclei is None else (nuclei.events.paint, nuclei.events.set_data)
            self._connections = Connections(*((event, self._count_soon) for event in events))
            self._connections.open()
        self._count_soon()

    def _count_soon(self, _event: Any = None) -> None:
        self._jobs.later(COUNT, COUNT_S, self._count)

    def _count(self) -> None:
        nuclei, planes = self._followed
        if nuclei is None or not planes:
            self._jobs.cancel(COUNT)
            return
        labels = nuclei.data

        def work(cancelled: Cancelled) -> Iterator[int]:
            found = count_nuclei(labels, planes, cancelled)
            if found is not None:
                yield found

        self._jobs.start(COUNT, work, on_value=self.counted.emit)

    # ------------------------------------------------------------------ teaching

    @property
    def is_running(self) -> bool:
        """Whether a model is being taught."""
        return self._work.is_running

    def teach(self, task: StackTask) -> None:
        """Teach a model with planes as they are now."""
        if self.is_running or self._stacks.is_running:
            return
        engine = self._stacks.engine

        def work(cancelled: Cancelled) -> Iterator[Step | StackTaught]:
            self._work.note(LOOKING, 0, 0)
            with closing(engine.teach(task.model, task.lesson())) as steps:
                for step in steps:
                    if cancelled() or self._work.is_stopped:
                        return
                    if step.outcome is not None:
                        yield StackTaught(step.outcome, engine.keep(step.outcome))
                        continue
                    if step.step:
                        self._work.note(DOING, step.step, step.total)
                    yield step

        self.last, self.is_taken = None, False
        self._stacks.said.emit(Hint())
        self._work.begin(LOOKING)
        self._jobs.start(
            LANE,
            work,
            title=DOING,
            on_value=self._on_step,
            on_end=self._on_end,
            on_error=partial(self._on_ended_badly, task),
        )

    def stop(self) -> None:
        """Stop after the current step; the former model stays as it is."""
        if self.is_running:
            self._work.stop()
            self._stacks.said.emit(Hint(STOPPING))

    def _on_step(self, step: Step | StackTaught) -> None:
        if isinstance(step, StackTaught):
            self.last = step
        else:
            self.stepped.emit(step)

    def _on_end(self) -> None:
        taught = self.last
        self._work.end()
        if taught is None:
            self._stacks.said.emit(Hint(STOPPED))
        self.ended.emit(taught)
        if taught is not None and taught.outcome.adopted:
            self._use(taught.version)

    def _on_ended_badly(self, task: StackTask, error: BaseException) -> None:
        self.last = None
        self._work.end()
        self.ended.emit(None)
        if isinstance(error, LicenceNotAcceptedError):
            stacks = self._stacks
            stacks.licence_asked.emit(stacks.engine.card(task.model), partial(self.teach, task))
            return
        self._on_failed(error)

    def _on_failed(self, error: BaseException) -> None:
        self._stacks.said.emit(failure(error))

    # ------------------------------------------------------------------ what it came to

    @property
    def can_take(self) -> bool:
        """Whether what was taught last was refused, and is not used."""
        return self.last is not None and not (self.last.outcome.adopted or self.is_taken)

    def take(self) -> None:
        """Use what was taught last although it was refused."""
        taught = self.last
        if taught is None or not self.can_take:
            return
        version = taught.version

        def work(_cancelled: Cancelled) -> Iterator[Version]:
            yield self._stacks.engine.take(version)

        def on_taken(taken: Version) -> None:
            self.is_taken = True
            self._use(taken)

        self._jobs.start(VERSIONS, work, on_value=on_taken, on_error=self._on_failed)

    def _use(self, version: Version) -> None:
        self.used.emit(version)
        self._stacks.said.emit(Hint(f"“{version.name}” is chosen. Press “Find nuclei” to see what it finds."))

    def close(self) -> None:
        """Stop without waiting; only after the stacks were closed."""
        self._connections.close()
        if self._work.is_running:
            self._work.end()


def snapshot(labels: NDArray[np.integer], planes: Iterable[int]) -> NDArray[np.int32]:
    """Return labels ``(z, y, x)`` with a copy of these planes; all others are 0 and take no memory."""
    taken = np.zeros(labels.shape, np.int32)
    for plane in planes:
        taken[plane] = labels[plane]
    return taken


def count_nuclei(labels: NDArray[np.integer], planes: Iterable[int], cancelled: Cancelled) -> int | None:
    """Return how many different nuclei planes of labels ``(z, y, x)`` show; None if nobody wants to know any more."""
    ids: set[int] = set()
    for plane in planes:
        if cancelled():
            return None
        ids.update(np.unique(np.asarray(labels[plane]), sorted=False).tolist())
    return sum(one > 0 for one in ids)
