"""How nuclei are scored by words: settings, and what comes out. Declared once, for the shell and Python."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError

# What is none of the classes; its column is the last one.
BACKGROUND = "background"
_SLOT = "{}"


def prompts_of(text: str) -> dict[str, tuple[str, ...]]:
    """Return the prompts of each class that a line of text says.

    Parameters
    ----------
    text : str
        Prompts with ``;`` between them. Each is a class of its own, called as it says, unless its name stands before
        it: ``tumour = a large pale nucleus; tumour = nucleus of a carcinoma; lymphocyte``.

    Raises
    ------
    DataError
        If there is none, or a name or words are missing.
    """
    found: dict[str, tuple[str, ...]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, words = (piece.strip() for piece in part.partition("="))
        if not name or (equals and not words):
            raise DataError(f"{part} is no prompt; write words, or a name and words: lymphocyte = a small dark nucleus")
        found[name] = (*found.get(name, ()), words or name)
    if not found:
        raise DataError("say what to look for, with “;” between the classes, such as: tumour nucleus; lymphocyte")
    return found


@dataclass(frozen=True, slots=True)
class TextOptions:
    """What a person may turn.

    Parameters
    ----------
    context_um : float
        What of its surroundings is seen with a nucleus, on each side, in micrometres.
    masked : float
        Share of the crop that shows the nucleus alone, 0..1; the rest is that of the crop with its surroundings.
    lam : float
        What another model says counts with this exponent for classes it was not trained on, CLIP with one minus it.
    seen_lam : float
        The same for classes that the other model was trained on.
    calibration : float
        Taken off the scores of classes that the other model was trained on, which it favours; 0 for nothing.
    background : tuple of str
        Prompts of what is none of the classes; a single empty one for no such column.
    templates : tuple of str
        Sentences that every prompt is put into, where {} is, and whose vectors are averaged.
    batch : int
        Crops at once.
    """

    context_um: float = 8.0
    masked: float = 0.5
    lam: float = 1 / 3
    seen_lam: float = 2 / 3
    calibration: float = 0.0
    background: tuple[str, ...] = ("background tissue",)
    templates: tuple[str, ...] = (_SLOT,)
    batch: int = 16

    def validation_error(self) -> str | None:
        """Return what is wrong with the values as a sentence, or None."""
        if not 0 <= self.context_um <= 500:
            return f"the surroundings of a nucleus must be 0 to 500 um wide, not {self.context_um}"
        for name in ("masked", "lam", "seen_lam", "calibration"):
            if not 0 <= getattr(self, name) <= 1:
                return f"{name} must lie between 0 and 1, not {getattr(self, name)}"
        if not self.templates or any(_SLOT not in template for template in self.templates):
            return "a template is a sentence with {} where the words of a prompt go, such as: an H&E image of {}"
        if self.batch < 1:
            return f"at least one crop must be looked at at once, not {self.batch}"
        return None

    @property
    def background_prompts(self) -> tuple[str, ...]:
        """The prompts of the background that say something."""
        return tuple(prompt for prompt in self.background if prompt.strip())


@dataclass(frozen=True, slots=True, eq=False)
class TextScores:
    """How well each nucleus fits each class.

    Parameters
    ----------
    ids : ndarray of int, shape (n,)
        The nuclei, ascending.
    classes : tuple of str
        Names of the columns: classes in the order they were given, then `BACKGROUND` if it has prompts.
    scores : ndarray of float32, shape (n, classes)
        Each row sums to 1.
    p_clip : ndarray of float32, shape (n, classes)
        What CLIP alone says; equal to `scores` where no other model was asked.
    """

    ids: NDArray[np.integer]
    classes: tuple[str, ...]
    scores: NDArray[np.float32]
    p_clip: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def best(self) -> NDArray[np.intp]:
        """Column of the best class of each nucleus, shape (n,)."""
        return np.asarray(self.scores.argmax(axis=1), np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class TextStep:
    """Some nuclei have been looked at.

    Parameters
    ----------
    done, total : int
        Nuclei.
    scores : TextScores or None
        With the last step.
    """

    done: int
    total: int
    scores: TextScores | None = None
