"""Edits that may take long, each with how long it is and what to say if it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from napari_nucleiseg.core.store.editor import PART
from napari_nucleiseg.viewer.edit_run import Edit, Length

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.editor import Changed, Editor

    Change = Callable[[list[int], int | None], Changed | None]


def turning(*, back: bool) -> tuple[Edit, Length]:
    """Undo the last step (`back`), or do the next one again."""
    title, done = ("Undoing", "undone; undo goes on with it") if back else ("Redoing", "done again; redo goes on")
    length = Length(
        title, lambda editor: editor.count_turn(back=back), lambda _part: 1, f"{{done}} of {{total}} parts are {done}"
    )
    return lambda editor: editor.turn_in_parts(back=back), length


def jumping(step: int) -> tuple[Edit, Length]:
    """Go to a step of the history."""
    stopped = "{done} of {total} changes on the way are turned; the history leads on, or back"
    return lambda editor: editor.jump(step), Length(
        "Going there", lambda editor: editor.count_jump(step), lambda _part: 1, stopped
    )


def deleting(ids: Collection[int], kind: str) -> tuple[Edit, Length]:
    """Take nuclei away; `kind` is ``delete`` or ``reject``."""
    title, done = ("Rejecting", "rejected") if kind == "reject" else ("Deleting", "deleted")
    length = Length(
        title,
        lambda _editor: len(ids),
        lambda part: 0 if part is None else len(part.ids),
        f"{{done}} of {{total}} nuclei are {done}; undo brings them back",
    )
    return lambda editor: editor.delete_in_parts(ids, kind=kind), length


def classifying(ids: Collection[int], number: int) -> tuple[Edit, Length]:
    """Give nuclei a class; 0 takes it from them."""

    def change(editor: Editor) -> Change:
        return lambda part, step: editor.classify(part, number, step=step)

    return _changing(ids, change, "Classifying", "have their class")


def reviewing(ids: Collection[int], *, approved: bool) -> tuple[Edit, Length]:
    """Mark nuclei as right, or take that back."""

    def change(editor: Editor) -> Change:
        return lambda part, step: editor.review(part, approved=approved, step=step)

    title, done = ("Approving", "are approved") if approved else ("Taking back", "are not approved any more")
    return _changing(ids, change, title, done)


def _changing(ids: Collection[int], change: Callable[[Editor], Change], title: str, done: str) -> tuple[Edit, Length]:
    length = Length(
        title,
        lambda _editor: len(ids),
        lambda _part: PART,
        f"{{done}} of {{total}} nuclei {done}; undo takes that back",
    )
    return lambda editor: editor.in_parts(ids, change(editor)), length
