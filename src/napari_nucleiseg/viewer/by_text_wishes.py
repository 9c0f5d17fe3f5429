"""What the user wants of "By text": which words, whose weights, and how sure is sure enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from psygnal import SignalGroupDescriptor

NO_CLIP = ""


def _told(default: Any, title: str, tip: str, **limits: Any) -> Any:
    """Return a dataclass field that also carries what a form needs to show it."""
    return field(default=default, metadata={"title": title, "tip": tip, **limits})


@dataclass(eq=False)
class ByTextWishes:
    """The wishes of one viewer; every change emits ``wishes.events.<field>(new, old)``.

    Parameters
    ----------
    prompts : str
        See `core.fewshot.text_options.prompts_of`.
    background : str
        What is none of the classes, prompts with ``;`` between them; empty for none.
    clip : str
        Folder or file of the weights; `NO_CLIP` for none.
    threshold : float
        Score from which a nucleus counts as what it is most like, 0..1.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    prompts: str = _told(
        "",
        "Words",
        "What to look for, with “;” between the classes.\nA name may stand before the words, and one class may have "
        "several: tumour = a large pale nucleus; tumour = nucleus of a carcinoma; lymphocyte",
    )
    background: str = _told(
        "background tissue",
        "Background",
        "What is none of the classes, in words; nuclei most like it get no class. Leave it empty for none.",
    )
    clip: str = _told(NO_CLIP, "Weights", "The network (a CLIP) that compares pictures of nuclei with words")
    threshold: float = _told(
        0.5,
        "Score",
        "From which score a nucleus counts as what it is most like. Acts at once: nothing is computed anew.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
        decimals=2,
    )
