"""What is found and painted in z-stacks is kept by itself, and is back when the stack is opened again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.core.store import kept_stack
from napari_nucleiseg.core.store.kept_stack import KeptStack, Place
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.jobs import Jobs
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.sentences import sentence_of
from napari_nucleiseg.viewer.stack_found import Found, find_kept, opened, told
from napari_nucleiseg.viewer.stack_layers import labels_layer, shows_stack, volume_of

LANE = "stack keeping"
# After a stroke, and between two writes while more is painted.
PAUSE_S = 0.5
# While blocks are being found, all labels are looked through.
BLOCKS_PAUSE_S = 5.0
RETRY_S = 20.0
AWAY_S = 1.0
IN_USE = (
    "The nuclei of this stack are open in another window and are not shown here. What you find or paint here is kept "
    "apart."
)


@dataclass(eq=False)
class Kept:
    """A labels layer that is kept.

    Parameters
    ----------
    layer, stack : napari.layers.Layer
        The labels, and the image they belong to.
    labels : ndarray of int32, shape (z, y, x)
        What the layer shows.
    file : KeptStack, optional
        Where they are kept; made with the first write.
    """

    layer: Any
    stack: Any
    labels: NDArray[np.int32]
    file: KeptStack | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    strokes: set[Place] = field(default_factory=set)
    changed: set[Place] | None = field(default_factory=set)
    """Chunks that may differ from the file; None for all."""
    is_noted: bool = True
    """Whether the file knows the facts."""
    is_writing: bool = False
    problem: str = ""
    connections: Connections = field(default_factory=Connections)

    @property
    def is_pending(self) -> bool:
        """Whether something is still to be written, or was not yet."""
        return self.is_writing or self.changed is None or bool(self.changed) or not self.is_noted

    def write(self, changed: set[Place] | None) -> None:
        """Write to the file; not on the main thread."""
        if self.file is None:
            path = kept_stack.new_version(kept_stack.stack_key(volume_of(self.stack)))
            self.file = KeptStack.create(path, self.labels.shape)
        self.file.write(self.labels, changed, **self.facts)

    def let_go(self) -> None:
        """Close the file; not on the main thread."""
        if self.file is not None:
            self.file.close()


class StackKeeping:
    """Keeps the labels of stacks in one viewer; all methods are for the main thread.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers are looked at.
    """

    said = Signal(Hint)
    restored = Signal(object)
    """A labels layer that is back."""
    away_changed = Signal()

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._jobs = Jobs()
        self._kept: list[Kept] = []
        self._away: list[tuple[Path, Any]] = []
        self._looked: list[Any] = []
        layers = viewer.layers
        self._connections = Connections(
            (layers.events.inserted, self._on_inserted), (layers.events.removed, self._on_removed)
        )
        self._connections.open()
        self._on_inserted()

    # ------------------------------------------------------------------ what is kept

    def keep(self, stack: Any, layer: Any, labels: NDArray[np.int32]) -> None:
        """Begin to keep a labels layer that lies over an image layer of a stack."""
        self._watch(Kept(layer, stack, labels))

    def note_block(self, layer: Any) -> None:
        """A block of a layer was written; more will come."""
        for kept in self._of(layer):
            kept.changed = None
            kept.facts["complete"] = False
            self._jobs.soon(f"{LANE} blocks {id(kept)}", BLOCKS_PAUSE_S, partial(self._write, kept))

    def note_end(self, layer: Any, *, is_complete: bool) -> None:
        """No more blocks of a layer will come, either because that were all or because somebody stopped it."""
        for kept in self._of(layer):
            kept.changed = None
            kept.facts["complete"] = is_complete
            self._write(kept)

    def note_planes(self, layer: Any, text: str) -> None:
        """Keep which planes of a labels layer somebody vouches for, as it was written."""
        for kept in self._of(layer):
            if kept.facts.get("planes", "") != text:
                kept.facts["planes"], kept.is_noted = text, False
                self._write_soon(kept)

    def planes_of(self, layer: Any) -> str:
        """Return which planes of a labels layer somebody vouches for, as it was written last."""
        return next((str(kept.facts.get("planes", "")) for kept in self._of(layer)), "")

    def _of(self, layer: Any) -> list[Kept]:
        return [kept for kept in self._kept if kept.layer == layer]

    def layers_of(self, stack: Any) -> tuple[Any, ...]:
        """Return the labels layers of a stack that are kept and shown, the latest first."""
        shown = (one for one in reversed(self._kept) if one.stack == stack)
        return tuple(one.layer for one in shown if one.layer in self._viewer.layers)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is being written or waits for it; what failed does not wait."""
        return not any(kept.is_writing or (kept.is_pending and not kept.problem) for kept in self._kept)

    @property
    def problems(self) -> tuple[Kept, ...]:
        """What could not be kept as it is now."""
        return tuple(kept for kept in self._kept if kept.problem and kept.is_pending)

    def flush(self) -> None:
        """Write whatever has changed, noticed or not, now."""
        for kept in self._kept:
            kept.changed = None
            self._write(kept)

    def discard(self, kept: Kept) -> None:
        """Give up what could not be kept."""
        kept.problem, kept.changed = "", set()

    def save(self, kept: Kept, path: str, voxel_um: ZYX | None) -> None:
        """Save as a TIFF what could not be kept; it then counts as kept."""
        kept.is_writing = True

        def write() -> None:
            from napari_nucleiseg.core.exchange.stack_labels import write_stack_labels

            write_stack_labels(path, kept.labels, voxel_um)

        def on_saved(_value: object) -> None:
            kept.is_writing = False
            self.discard(kept)

        self._jobs.enqueue(LANE, write, on_value=on_saved, on_error=lambda error: self._on_failed(kept, error))

    def close(self) -> None:
        """Let go of everything; what is being written is still written."""
        self._connections.close()
        for kept in self._kept:
            kept.connections.close()
            self._jobs.enqueue(LANE, kept.let_go)
        self._kept.clear()
        self._jobs.close()

    def join(self) -> None:
        """Wait until all is written; only after `close`."""
        self._jobs.join()

    # ------------------------------------------------------------------ writing

    def _watch(self, kept: Kept) -> None:
        events = kept.layer.events
        kept.connections = Connections(
            (events.paint, lambda event: self._on_painted(kept, event)),
            (events.set_data, lambda _event: self._on_shown(kept)),
        )
        kept.connections.open()
        self._kept.append(kept)

    def _on_painted(self, kept: Kept, event: Any) -> None:
        kept.facts["painted"] = True
        touched = _touched(event.value)
        if touched is None or kept.changed is None:
            kept.changed = None
        else:
            kept.strokes |= touched
            kept.changed |= touched
        self._write_soon(kept)

    def _on_shown(self, kept: Kept) -> None:
        # Undo and redo are not told of, but show the layer anew; and they change only what was painted before.
        if kept.strokes and kept.changed is not None:
            kept.changed |= kept.strokes
            self._write_soon(kept)

    def _write_soon(self, kept: Kept) -> None:
        self._jobs.later(f"{LANE} {id(kept)}", PAUSE_S, partial(self._write, kept))

    def _write(self, kept: Kept) -> None:
        if kept.is_writing or not kept.is_pending:
            return
        changed, kept.changed, kept.is_writing, kept.is_noted = kept.changed, set(), True, True
        self._jobs.enqueue(
            LANE,
            lambda: kept.write(changed),
            on_value=lambda _value: self._on_written(kept),
            on_error=lambda error: self._on_failed(kept, error),
        )

    def _on_written(self, kept: Kept) -> None:
        kept.is_writing, kept.problem = False, ""
        if kept.facts.get("complete") and not kept.facts.get("painted") and kept.file is not None:
            path = kept.file.path
            self._jobs.enqueue(LANE, lambda: kept_stack.drop_unpainted(path.parent.name, path))
        if kept.is_pending:
            self._write_soon(kept)

    def _on_failed(self, kept: Kept, error: BaseException) -> None:
        kept.is_writing, kept.changed = False, None
        is_new, kept.problem = not kept.problem, str(error) or type(error).__name__
        kept.problem = sentence_of(error)
        if is_new:
            self.said.emit(Hint(kept.problem, is_warning=True))
        self._jobs.later(f"{LANE} {id(kept)}", RETRY_S, partial(self._write, kept))

    # ------------------------------------------------------------------ coming back

    def _on_inserted(self, _event: Any = None) -> None:
        for layer in self._viewer.layers:
            if shows_stack(layer) and layer not in self._looked:
                self._looked.append(layer)
                self._look(layer, partial(find_kept, volume_of(layer)))

    def _look(self, stack: Any, find: Callable[[], Found]) -> None:
        self._jobs.enqueue(
            LANE, find, on_value=lambda found: self._on_found(stack, found), on_error=self._on_unreadable
        )

    def _on_unreadable(self, error: BaseException) -> None:
        self.said.emit(Hint(sentence_of(error), is_warning=True))

    def _on_found(self, stack: Any, found: Found) -> None:
        if stack not in self._viewer.layers:
            for file, _labels in found.versions:
                self._jobs.enqueue(LANE, file.close)
            return
        for file, labels in found.versions:
            layer = labels_layer(stack, labels)
            self._viewer.add_layer(layer)
            before = {"painted": False, "complete": True, "planes": ""}
            facts = {name: file.facts.get(name, value) for name, value in before.items()}
            self._watch(Kept(layer, stack, labels, file, facts))
            self.said.emit(Hint(told(layer.name, file)))
            self.restored.emit(layer)
        if found.is_in_use:
            self.said.emit(Hint(IN_USE, is_warning=True))

    # ------------------------------------------------------------------ going away

    def _on_removed(self, _event: Any = None) -> None:
        self._looked = [layer for layer in self._looked if layer in self._viewer.layers]
        for kept in self._kept:
            if kept.layer not in self._viewer.layers:
                kept.changed = None
                self._write(kept)
                # A window that closes takes its layers away first; that is nobody's wish.
                self._jobs.later(f"{LANE} away {id(kept)}", AWAY_S, partial(self._part, kept))

    def _part(self, kept: Kept) -> None:
        if kept not in self._kept or kept.layer in self._viewer.layers:
            return
        if kept.is_pending and not kept.problem:
            self._jobs.later(f"{LANE} away {id(kept)}", AWAY_S, partial(self._part, kept))
            return
        if kept.problem:
            return  # asked about when the window closes
        self._kept.remove(kept)
        kept.connections.close()
        self._jobs.enqueue(LANE, kept.let_go)
        if kept.stack in self._viewer.layers and kept.file is not None:
            path = kept.file.path
            self._jobs.enqueue(
                LANE,
                lambda: kept_stack.put_away(path),
                on_value=lambda away: self._on_put_away(away, kept),
                on_error=self._on_unreadable,
            )

    def _on_put_away(self, away: Path, kept: Kept) -> None:
        self._away.append((away, kept.stack))
        self.said.emit(Hint(f"“{kept.layer.name}” was taken away. “Bring back” shows it again."))
        self.away_changed.emit()

    @property
    def can_bring_back(self) -> bool:
        """Whether a labels layer was taken away whose stack is still there."""
        return any(stack in self._viewer.layers for _away, stack in self._away)

    def bring_back(self) -> None:
        """Show again what was taken away last."""
        place = next(
            (place for place in reversed(range(len(self._away))) if self._away[place][1] in self._viewer.layers), None
        )
        if place is None:
            return
        away, stack = self._away.pop(place)
        self._look(stack, lambda: Found(tuple(opened(kept_stack.bring_back(away)))))
        self.away_changed.emit()


def _touched(item: Any) -> set[Place] | None:
    """Return the chunks that a stroke changed; None where napari says it in a way that is not known."""
    touched: set[Place] = set()
    for atom in item:
        if (key := getattr(atom, "slice_key", None)) is not None:
            box = tuple(part if isinstance(part, slice) else slice(int(part), int(part) + 1) for part in key)
        elif isinstance(atom, tuple) and len(atom[0]) == 3 and all(np.size(part) for part in atom[0]):
            box = tuple(slice(int(np.min(part)), int(np.max(part)) + 1) for part in atom[0])
        else:
            return None
        if len(box) != 3 or any(part.start is None or part.stop is None for part in box):
            return None
        touched |= kept_stack.places_of((box[0], box[1], box[2]))
    return touched
