"""What the user wants: one evented `Session` per viewer, passed in, never global."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from psygnal import SignalGroupDescriptor

from napari_nucleiseg.core.decoders.base import DecodeOptions

DEVICES = ("auto", "cuda", "mps", "cpu")
NO_HEATMAP = ""
TOOLS = ("move", "brush", "erase", "add", "propose", "fill", "join", "split", "lasso", "pick")


def _option(default: Any, title: str, tip: str, **limits: Any) -> Any:
    """Return a dataclass field that also carries what a form needs to show it."""
    return field(default=default, metadata={"title": title, "tip": tip, **limits})


@dataclass(eq=False)
class Session:
    """The user's wishes; every change of a field emits ``session.events.<field>(new, old)``.

    Parameters
    ----------
    model : str
        Name of the weights.
    follow : bool
        Whether whatever the camera shows is segmented.
    threshold : float
        Foreground probability above which a pixel belongs to a nucleus, 0..1.
    min_area_um2 : float
        Nuclei smaller than this are dropped, square micrometres.
    tissue_only : bool
        Whether glass is left out.
    thorough : bool
        Whether every tile is looked at in eight positions.
    device : str
        One of `DEVICES`.
    heatmap : str
        Name of the model's output that is shown as a heatmap; empty for none.
    outlines : bool
        Whether the nuclei are shown.
    show_approved : bool
        Whether approved nuclei look different while nuclei are corrected.
    editing : bool
        Whether nuclei can be corrected.
    tool : str
        One of `TOOLS`.
    follow_limit : int
        Tiles that a view may need before following asks to zoom in.
    results_folder : str
        Where projects are kept; empty keeps each beside its slide.
    person : str
        Who corrects; empty is who is logged in.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    model: str = _option("nuclei", "Model", "Which trained network finds the nuclei")
    follow: bool = _option(False, "Follow the view", "Segment whatever you look at, as you move")
    threshold: float = _option(
        0.5,
        "Threshold",
        "How sure the model must be that a pixel belongs to a nucleus.\n"
        "Lower finds more and larger nuclei, higher fewer and smaller ones. No need to run the model again.",
        minimum=0.05,
        maximum=0.95,
        step=0.01,
        decimals=2,
    )
    min_area_um2: float = _option(
        8.0,
        "Smallest",
        "Nuclei smaller than this area are left out. No need to run the model again.",
        minimum=0.0,
        maximum=60.0,
        step=1.0,
        decimals=0,
        suffix=" µm²",
    )
    tissue_only: bool = _option(
        True, "Skip empty glass", "Do not compute where there is no tissue. Turn off for very pale specimens."
    )
    thorough: bool = _option(
        False, "Thorough", "Look at every tile in eight positions: a little more often right, eight times as slow"
    )
    device: str = _option(
        "auto", "Device", "Where the model runs; automatic takes a graphics card if there is one", choices=DEVICES
    )
    heatmap: str = _option(NO_HEATMAP, "Heatmap", "Show what the model itself says, before nuclei are made of it")
    outlines: bool = _option(True, "Outlines", "Show or hide the nuclei")
    show_approved: bool = _option(
        True,
        "Show what is approved",
        "While you correct: what is approved has a dotted outline, what is left to do a solid one",
    )
    editing: bool = _option(False, "Correct nuclei", "Draw, erase, split and join nuclei on the slide itself")
    tool: str = _option("brush", "Tool", "What the mouse does to nuclei", choices=TOOLS)
    follow_limit: int = _option(
        64,
        "Tiles to follow",
        "A view that needs more tiles than this is not segmented by itself",
        minimum=1,
        maximum=10_000,
    )
    results_folder: str = _option("", "Folder for results", "Where results are kept; empty keeps them beside the slide")

    person: str = _option("", "Your name", "Whose corrections these are; empty takes the name of the login")

    @property
    def options(self) -> DecodeOptions:
        """Threshold and smallest area as the engine takes them."""
        return DecodeOptions(threshold=self.threshold, min_area_um2=self.min_area_um2)
