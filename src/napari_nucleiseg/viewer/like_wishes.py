"""What the user wants of "Find the like": what a click means, what is compared, and how like is like enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from psygnal import SignalGroupDescriptor

from napari_nucleiseg.state import option

# What the mouse does: nothing, mark what is like or what is not, choose among the proposals.
OFF, LIKE, UNLIKE, CHOOSE = HANDS = ("off", "like", "unlike", "choose")
# Whose features are compared: the model of the panel, or no network at all. Others go by kind and name.
IN_HAND, COLOUR = "", "colour"
MODEL, ENCODER = KINDS = ("model:", "encoder:")
# The first one spreads the scores of nuclei over the slider; a softmax brings nearly all of them to one of its ends.
METHODS = ("sg-one", "panet", "alp", "nearest")
NO_CLASS = 0


@dataclass(eq=False)
class LikeWishes:
    """The wishes of one viewer; every change emits ``wishes.events.<field>(new, old)``.

    Parameters
    ----------
    hand : str
        One of `HANDS`.
    drawing : bool
        Whether the mouse draws around a region instead of clicking on a nucleus.
    source : str
        Whose features are compared: `IN_HAND`, `COLOUR`, or one of `KINDS` and a name.
    method : str
        One of `METHODS`.
    threshold : float
        Similarity above which a candidate is proposed, 0..1.
    automatic : bool
        Whether the threshold is found from the scores and the marks.
    heatmap : bool
        Whether the similarity of every place is shown.
    number : int
        Class that is given to what is accepted; `NO_CLASS` gives none.
    background, distractors, kernels, whole
        See `core.fewshot.options.LikeOptions`.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    hand: str = option(OFF, "Hand", "What a click on the slide does", choices=HANDS)
    drawing: bool = option(
        False,
        "Region",
        "Draw around a region on the slide: the nuclei in it are marked, or the region itself where there are none",
    )
    source: str = option(
        IN_HAND,
        "Compare by",
        "Whose features are compared: those of a network that finds nuclei, of a transformer of tissue, or colour",
    )
    method: str = option(
        METHODS[0],
        "Method",
        "Likeness: the angle to the mean of the marks, less that to what is unlike (SG-One).\n"
        "Two sides: a decision between what is like and what is not (PANet).\n"
        "Local parts: several prototypes of each mark (ALPNet).\n"
        "Nearest: the plain distance to the mean of the marks.",
        choices=METHODS,
    )
    threshold: float = option(
        0.5,
        "Similarity",
        "How like the marks a nucleus must be to be proposed. Acts at once: nothing is computed anew.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
        decimals=2,
    )
    automatic: bool = option(
        True, "Automatic", "Find the similarity from the scores and the marks, until you move the slider"
    )
    heatmap: bool = option(False, "Show similarity", "Colour the view by how similar each place is to the marks")
    number: int = option(NO_CLASS, "Class", "What is accepted gets this class")
    background: bool = option(
        True, "Tissue is unlike", "What lies between nuclei is taken for unlike (methods with two sides)"
    )
    distractors: int = option(
        0,
        "Unlike by itself",
        "So many groups of nuclei that are least like the marks are taken for unlike",
        minimum=0,
        maximum=8,
    )
    kernels: bool = option(False, "Surroundings", "Look also for what lies around the marks, in three shapes of window")
    whole: bool = option(
        True, "Nucleus as a whole", "Judge a nucleus by its mean features; otherwise by the mean of the similarity map"
    )
