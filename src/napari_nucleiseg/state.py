"""What the user wants: one evented `Session` per viewer, passed in, never global."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from psygnal import SignalGroupDescriptor

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.models.spec import LEVELS as LEVELS_OF_ATTENTION
from napari_nucleiseg.core.models.spec import SLIDE_LEVEL

DEVICES = ("auto", "cuda", "mps", "cpu")
NO_HEATMAP = ""
# Name of the output that says where a model looks, and what is painted on it.
ATTENTION = "attention"
LOOK, DO_NOT, ERASE = BRUSHES = "look", "do not look", "erase"
TOOLS = ("move", "brush", "erase", "add", "propose", "fill", "join", "split", "lasso", "pick")


def option(default: Any, title: str, tip: str, **limits: Any) -> Any:
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
    ignore_brown : bool
        Whether DAB is taken out of the colours before nuclei are looked for.
    attention_level : str
        One of `LEVELS` of `core.models.spec`: whose level of attention decides what is a nucleus.
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
    painting : bool
        Whether attention is painted instead; only while `editing`.
    brush : str
        One of `BRUSHES`: what is painted.
    follow_limit : int
        Tiles that a view may need before following asks to zoom in.
    results_folder : str
        Where projects are kept; empty keeps each beside its slide.
    person : str
        Who corrects; empty is who is logged in.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    model: str = option("nuclei", "Model", "Which trained network finds the nuclei")
    follow: bool = option(False, "Follow the view", "Segment whatever you look at, as you move")
    threshold: float = option(
        0.5,
        "Threshold",
        "How sure the model must be that a pixel belongs to a nucleus.\n"
        "Lower finds more and larger nuclei, higher fewer and smaller ones. No need to run the model again.",
        minimum=0.05,
        maximum=0.95,
        step=0.01,
        decimals=2,
    )
    min_area_um2: float = option(
        8.0,
        "Smallest",
        "Nuclei smaller than this area are left out. No need to run the model again.",
        minimum=0.0,
        maximum=60.0,
        step=1.0,
        decimals=0,
        suffix=" µm²",
    )
    tissue_only: bool = option(
        True, "Skip empty glass", "Do not compute where there is no tissue. Turn off for very pale specimens."
    )
    thorough: bool = option(
        False, "Thorough", "Look at every tile in eight positions: a little more often right, eight times as slow"
    )
    ignore_brown: bool = option(
        False,
        "Ignore brown",
        "For immunostains of membranes or cytoplasm: look for nuclei in the counterstain only. Leave it off where "
        "nuclei themselves are brown, as with Ki-67.",
    )
    attention_level: str = option(
        SLIDE_LEVEL,
        "Level of attention",
        "How much is taken for nuclei: decided by a look at the tissue of this slide, or by how the model was trained",
        choices=LEVELS_OF_ATTENTION,
    )
    device: str = option(
        "auto", "Device", "Where the model runs; automatic takes a graphics card if there is one", choices=DEVICES
    )
    heatmap: str = option(NO_HEATMAP, "Heatmap", "Show what the model itself says, before nuclei are made of it")
    outlines: bool = option(True, "Outlines", "Show or hide the nuclei")
    show_approved: bool = option(
        True,
        "Show what is approved",
        "While you correct: what is approved has a dotted outline, what is left to do a solid one",
    )
    editing: bool = option(False, "Correct nuclei", "Draw, erase, split and join nuclei on the slide itself")
    tool: str = option("brush", "Tool", "What the mouse does to nuclei", choices=TOOLS)
    painting: bool = option(False, "Paint attention", "Paint where the model should look, and where it should not")
    brush: str = option(LOOK, "Brush", "What the mouse paints on the attention", choices=BRUSHES)
    follow_limit: int = option(
        64,
        "Tiles to follow",
        "A view that needs more tiles than this is not segmented by itself",
        minimum=1,
        maximum=10_000,
    )
    results_folder: str = option("", "Folder for results", "Where results are kept; empty keeps them beside the slide")

    person: str = option("", "Your name", "Whose corrections these are; empty takes the name of the login")

    @property
    def options(self) -> DecodeOptions:
        """Threshold and smallest area as the engine takes them."""
        return DecodeOptions(threshold=self.threshold, min_area_um2=self.min_area_um2)


NETWORKS = ("scale-attention-fast", "scale-attention")
# Networks of nuclei that learn from what has their shape; else attention, which learns from magnification.
BY_SHAPE, BY_SHAPE_FINE = SHAPE_NETWORKS = ("nuclei", "nuclei-fine")
METHODS = (*SHAPE_NETWORKS, *NETWORKS)
FRESH = ""
LEVELS = ("otsu", "own", "quarter")
# What suits a network where nobody has turned anything: the smaller one is sized for a processor.
SIZES = {
    **{key: {"steps": 700, "crop_px": 256, "batch_size": 8, "measure_every": 50} for key in SHAPE_NETWORKS},
    "scale-attention-fast": {"steps": 2_000, "crop_px": 128, "batch_size": 12, "measure_every": 20},
    "scale-attention": {"steps": 20_000, "crop_px": 160, "batch_size": 32, "measure_every": 20},
}


@dataclass(eq=False)
class UnlabelledWishes:
    """What the user wants of training without labels; every change emits ``wishes.events.<field>(new, old)``.

    Parameters
    ----------
    network : str
        One of `METHODS`; what a model at hand has counts more.
    start : str
        Name of the model to begin from; `FRESH` begins with nothing.
    steps, crop_px, batch_size : int
        Optimisation steps, side of a crop in pixels, crops a step.
    hold_out : float
        Share of the slides that is kept for measuring, 0..1.
    measure_every : int
        Steps between measurements.
    sparsity : float
        Share of the pixels that is worth a look while it learns, 0..1.
    by_shape : bool
        Whether attention is told what has the shape of a nucleus in haematoxylin.
    imagenet : bool
        Whether the classifier starts from ImageNet weights, which are downloaded.
    licence : str
        SPDX identifier of the slides; empty is not stated.
    folder : str
        Where runs are kept; empty is the program's own folder.
    fit_steps : int
        Steps of a fit to one slide.
    level : str
        One of `LEVELS`: how many pixels are worth a look when the level is set from a slide.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    network: str = option(
        BY_SHAPE,
        "Method",
        "Nuclei by their shape: found in haematoxylin, and a network learns what they have in common.\n"
        "Ten minutes or so.\n"
        "The same, fine: at 0.25 µm a pixel, for scans at 40×. The best without labels; to find nuclei with it takes\n"
        "four times as long.\n"
        "Attention, fast: learns from magnification where to look; at half resolution, for a processor.\n"
        "Attention, full: the published network, for a graphics card.",
        choices=METHODS,
    )
    start: str = option(
        FRESH, "Start from", "Nothing, or a model of attention that is at hand: it learns on, and stays as it is"
    )
    steps: int = option(
        700, "Steps", "How long it learns; more can follow later, from where it stopped", minimum=1, maximum=1_000_000
    )
    crop_px: int = option(
        256,
        "Crop",
        "Side of the squares it learns from; attention looks at them at 10×, 20× and 40×.\n"
        "There smaller ones find a place in smaller pieces of tissue: 128 px need 128 µm.",
        minimum=32,
        maximum=1024,
        step=16,
        suffix=" px",
    )
    batch_size: int = option(
        8, "Crops a step", "More learn more steadily, and need more memory", minimum=2, maximum=512
    )
    hold_out: float = option(
        0.2,
        "Held out",
        "Share of the slides, always whole ones, that it does not learn from: the curve is measured on them",
        minimum=0.0,
        maximum=0.9,
        step=0.05,
        decimals=2,
    )
    measure_every: int = option(
        50, "Measure every", "Steps from one point of the curve to the next", minimum=1, maximum=10_000, suffix=" steps"
    )
    sparsity: float = option(
        0.07,
        "Worth a look",
        "Share of the pixels that the classifier may look at while it learns; published is 0.07",
        minimum=0.01,
        maximum=0.6,
        step=0.01,
        decimals=2,
    )
    by_shape: bool = option(
        True,
        "Told by shape",
        "Attention also learns from what has the shape of a nucleus in haematoxylin (not published):\n"
        "it finds far more of them. "
        "Turn off for other stains; then magnification alone says where to look.",
    )
    imagenet: bool = option(
        False,
        "Classifier from ImageNet",
        "Start the classifier from weights trained on photographs, as published; 87 MB are downloaded once",
    )
    licence: str = option(
        "",
        "Licence of the slides",
        "Such as CC0-1.0; the model gets it. Without one it is marked as not for commercial use.",
    )
    folder: str = option("", "Keep runs in", "Folder for what has been learned so far; empty is the program's own")
    fit_steps: int = option(
        100, "Steps of a fit", "How long a model is fitted to one slide or view", minimum=1, maximum=100_000
    )
    level: str = option(
        "otsu", "Level", "How many pixels are worth a look when the level is set from a slide", choices=LEVELS
    )


# What is shown of a transformer: its patches, the region that they make, or both put together.
PATCHES, REGION_LEVEL, BOTH = HEAD_LEVELS = ("patch", "region", "both")
# Beside the heads, which go by their number from "0".
MEAN, MAX, ROLLOUT = OVER_HEADS = ("mean", "max", "rollout")
VALUES = ("percentile", "share", "raw")
LAST_LAYER = -1
NO_ENCODER = ""


@dataclass(eq=False)
class HeadWishes:
    """What the user wants to see of attention; every change emits ``wishes.events.<field>(new, old)``.

    Parameters
    ----------
    encoder, region_encoder : str
        Names of the transformers of patches and of regions; the latter may be `NO_ENCODER`.
    level : str
        One of `HEAD_LEVELS`.
    head, region_head : str
        A number from ``"0"``, or one of `OVER_HEADS`.
    layer, region_layer : int
        From 0; `LAST_LAYER` is the last one.
    weight : float
        Of the region beside the patches where both are put together, 0..1.
    values : str
        One of `VALUES`: how attention is scaled.
    tissue_only : bool
        Whether glass is left out.
    averaged : int
        Over how many shifted grids the maps are averaged.
    opacity : float
        Of the map, 0..1.
    colours : str
        Name of the colours of the map.
    follow : bool
        Whether whatever the camera shows is looked at.
    asking : bool
        Whether a click on the slide asks what the token there attends to.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    encoder: str = option(NO_ENCODER, "Patches", "The transformer that looks at patches of the slide")
    region_encoder: str = option(
        NO_ENCODER,
        "Regions",
        "The transformer that looks at the region which the patches make; it needs their features",
    )
    level: str = option(
        PATCHES,
        "Level",
        "Patches: what is looked at within each patch.\nRegion: which patches are looked at.\n"
        "Both: one put together with the other.",
        choices=HEAD_LEVELS,
    )
    head: str = option("0", "Head", "What one head of attention looks at, or all of them together")
    layer: int = option(LAST_LAYER, "Layer", "Which layer of the transformer; heads are usually read in the last")
    region_head: str = option(MEAN, "Region head", "What one head of the region transformer looks at")
    region_layer: int = option(LAST_LAYER, "Region layer", "Which layer of the region transformer")
    weight: float = option(
        0.5,
        "Balance",
        "How much the region counts beside the patches; published is 0.5",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        decimals=2,
    )
    values: str = option(
        "percentile",
        "Values",
        "Percentile: how each place ranks within its patch (or region), as published.\n"
        "Share: its part of all attention there.\nRaw: as the network gives it.",
        choices=VALUES,
    )
    tissue_only: bool = option(True, "Tissue only", "Leave glass out: of an empty patch, percentiles would show noise")
    averaged: int = option(
        1, "Averaged", "Look several times, each time with the grid of patches shifted: finer and calmer, and slower"
    )
    opacity: float = option(
        0.7, "Opacity", "How much the map covers the tissue", minimum=0.0, maximum=1.0, step=0.05, decimals=2
    )
    colours: str = option("glow", "Colours", "Of the map; napari's own layer controls have more")
    follow: bool = option(False, "Follow the view", "Look at whatever the camera shows, as you move")
    asking: bool = option(
        False, "Ask a token", "Click on the slide to see what the place you click attends to (Esc ends)"
    )


HISTOGRAM, SCATTER = PLOTS = ("histogram", "scatter")
LASSO, RECTANGLE = FENCES = ("lasso", "rectangle")
# Beside the annotated regions, which go by their number from "1".
IN_VIEW, WHOLE_SLIDE = "view", "slide"
AREA, SCORE = "area_um2", "score"


@dataclass(eq=False)
class PlotWishes:
    """What the user wants plotted of the nuclei; every change emits ``wishes.events.<field>(new, old)``.

    Parameters
    ----------
    source : str
        `IN_VIEW`, `WHOLE_SLIDE`, or the number of an annotated region: whose nuclei are plotted.
    plot : str
        One of `PLOTS`.
    across, up : str
        Names of the quantities along the axes; a histogram has but the first.
    fence : str
        One of `FENCES`: what is drawn around points to select them.
    coloured : bool
        Whether nuclei on the slide are coloured by the quantity across.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    source: str = option(IN_VIEW, "Nuclei", "Whose measurements are plotted")
    plot: str = option(HISTOGRAM, "Plot", "How many nuclei have which value, or one quantity over another")
    across: str = option(AREA, "Across", "What is measured from left to right")
    up: str = option("solidity", "Up", "What is measured from bottom to top")
    fence: str = option(LASSO, "Select with", "What the mouse draws around points to select them", choices=FENCES)
    coloured: bool = option(
        False, "Colour nuclei", "Colour each nucleus on the slide by its value, blue for low and red for high"
    )
