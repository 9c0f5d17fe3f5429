"""What to say before and after a segmentation, and what to ask when it cannot go on by itself."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, MissingPixelSizeError, NucleiSegError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.viewer.messages import (
    FolderQuestion,
    Hint,
    InUseQuestion,
    LicenceQuestion,
    PixelSizeQuestion,
    Question,
)
from napari_nucleiseg.viewer.segmentation import FolderNeededError, InUseError, Planned, Wish

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard


LOOKS_BROWN = (
    "Much of this slide is brown, as in an immunostain. If membranes or cytoplasm are brown, switch on “Ignore brown” "
    "to find more nuclei; if nuclei themselves are, leave it off."
)
# So long it is said of a slide: who has read it may leave brown alone.
BROWN_S = 60.0
SHORTEST_S = 0.1
NOT_FLAT = "Switch to the two-dimensional view (Ctrl+Y) to segment."
OUT_OF_SIGHT = "The slide is out of sight. Press the home button to see it."


def hint_before(wish: Wish, planned: Planned) -> Hint:
    """Return what there is to say before the first tile."""
    if planned.too_many:
        return Hint(
            f"Zoom in to follow. What is done already is shown; “View” or “Whole slide” computes the rest "
            f"({planned.todo:,} tiles in this view)."
        )
    if len(planned.plan) == 0 and not wish.again:
        return Hint("No tissue here. Turn off “Skip empty glass” to segment it nevertheless.")
    if planned.plan.notes:
        return Hint(" ".join(planned.plan.notes), is_warning=True)
    return Hint(LOOKS_BROWN if _is_to_say_brown(wish) else "")


def _is_to_say_brown(wish: Wish) -> bool:
    opened = wish.opened
    if wish.ignore_brown or opened.tissue is None or not opened.tissue.looks_immunostained:
        return False
    opened.told_brown_at = opened.told_brown_at or time.monotonic()
    return time.monotonic() - opened.told_brown_at < BROWN_S


def hint_after(damage: Sequence[str]) -> Hint:
    """Return what there is to say of tiles that could not be read."""
    rest = f" ({len(damage)} tiles)" if len(damage) > 1 else ""
    return Hint(f"Part of the slide could not be read{rest}: {damage[0]}", is_warning=True)


def remembered_hint(mpp_um: YX, stated: YX | None) -> Hint:
    """Return what there is to say of a pixel size that was given in an earlier session."""
    text = f"One pixel measures {mpp_um.x:.4g} µm, as was said when the nuclei shown here were found."
    if stated is not None:
        text += f" The file says {stated.x:.4g} µm."
    return Hint(text)


def failure(error: BaseException) -> Hint:
    """Return what an error of ours says, as a warning; raise any other."""
    return Hint(sentence_of(error), is_warning=True)


def sentence_of(error: BaseException) -> str:
    """Return what an error of ours says, as a sentence; raise any other."""
    if not isinstance(error, NucleiSegError):
        raise error
    text = str(error)
    # A name of a file stays as it is.
    begins = text[:1].upper() if re.match(r"[a-z]+(\s|$)", text) else text[:1]
    return f"{begins}{text[1:]}{'' if text.endswith(('.', '!')) else '.'}"


def question_after(wish: Wish, error: BaseException, models: Callable[[], Sequence[ModelCard]]) -> Question | None:
    """Return what to ask the user so that the work can go on, or None if nothing helps.

    Parameters
    ----------
    wish : Wish
        What was wanted.
    error : BaseException
        What came of it.
    models : callable
        Returns the cards of all models.
    """
    if isinstance(error, MissingPixelSizeError):
        return PixelSizeQuestion(wish.opened.slide)
    if isinstance(error, FolderNeededError):
        return FolderQuestion(wish.opened.slide, str(error))
    if isinstance(error, InUseError):
        return InUseQuestion(str(error))
    if isinstance(error, LicenceNotAcceptedError):
        card = next((card for card in models() if card.name == wish.model), None)
        return None if card is None else LicenceQuestion(card)
    return None


def tiles_in(count: int, seconds: float) -> str:
    """Say how long some tiles took."""
    took = f"{seconds:.1f} s" if seconds >= SHORTEST_S else f"less than {SHORTEST_S} s"
    return f"{count:,} {'tile' if count == 1 else 'tiles'} in {took}"
