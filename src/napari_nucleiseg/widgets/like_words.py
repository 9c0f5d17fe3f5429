"""What "Find the like" says, in words."""

from __future__ import annotations

from napari_nucleiseg.viewer.like_wishes import CHOOSE, LIKE, OFF, UNLIKE

ABOUT = "Mark one to five nuclei that you look for: everything similar in view is proposed at once."
HOW = {
    OFF: ABOUT,
    LIKE: "Click on nuclei that are like what you look for; drag to move the slide, Esc ends.",
    UNLIKE: "Click on nuclei that are not meant, also among those proposed; drag to move the slide, Esc ends.",
    CHOOSE: "Click on proposals to choose them, again to let go of them; then “Accept chosen”.",
}
DRAW = {
    LIKE: "Draw around a region of what you look for, and let go.",
    UNLIKE: "Draw around a region of what is not meant, and let go.",
}
NO_MARKS = "No marks yet.\nPress “Like” and click on a nucleus."
METHOD_TITLES = {
    "sg-one": "Likeness (SG-One)",
    "panet": "Two sides (PANet)",
    "alp": "Local parts (ALPNet)",
    "nearest": "Nearest mean",
}
NO_CLASS_TITLE = "No class"


def count_text(total: int, chosen: int) -> str:
    """Return how many nuclei are proposed, and chosen among them."""
    text = f"{total:,} {'proposal' if total == 1 else 'proposals'}"
    return f"{text}, {chosen:,} chosen" if chosen else text


def known_text(total: int, known: int, *, is_marked: bool) -> str:
    """Return what the proposals are: nuclei already, or new ones."""
    if not is_marked:
        return "Nothing is marked as like"
    if not total:
        return "Nothing here is like the marks: lower the similarity"
    if not known:
        return "all of them new"
    if known == total:
        return "all of them are nuclei already"
    return f"{total - known:,} new, {known:,} are nuclei already"


def mark_text(number: int, *, is_point: bool, is_like: bool) -> str:
    """Return what a mark is called; `number` is its place in the list, from 1 on."""
    kind = "Nucleus" if is_point else "Region"
    return f"{number}  {kind}  ·  {'like' if is_like else 'unlike'}"
