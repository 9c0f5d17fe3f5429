"""What "By text" says, in words."""

from __future__ import annotations

from collections.abc import Sequence

from napari_nucleiseg.viewer.by_text import Row

EXAMPLE = "tumour nucleus; lymphocyte"
ABOUT = (
    "Say in words what the classes are: each nucleus gets the one that it is most like. Nothing is trained; check the "
    "result on nuclei that you know."
)
NO_CLIPS = (
    "No weights yet.\n\nA network (a CLIP) compares pictures of nuclei with your words. Press “Get weights”: download "
    "one, or choose a folder."
)
READY = "Write what to look for, such as\n“tumour nucleus; lymphocyte”,\nthen press “View”."
READY_WITH_WORDS = "Press “View” to score the nuclei that you see,\nor “Shape” for those in a shape or region."
WORKING = "The nuclei are looked at one by one…"
NEW_TITLE = "New class"
NO_CLASS_TITLE = "No class"


def count_text(rows: Sequence[Row], total: int) -> str:
    """Return how many nuclei are like any of the words."""
    fits = "nucleus fits" if total == 1 else "nuclei fit"
    return f"{sum(row.nuclei for row in rows):,} of {total:,} {fits} the words"
