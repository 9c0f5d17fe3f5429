"""What a run over many slides is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass

from napari_nucleiseg.core.exchange.formats import FORMATS
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.spec import LEVELS, SLIDE_LEVEL

LOOKS_BROWN = (
    "much of it is brown, as in an immunostain: if membranes or cytoplasm are brown, “Ignore brown” (--ignore-brown) "
    "finds more nuclei"
)


@dataclass(frozen=True, slots=True)
class SegmentJob:
    """Segment slides and pictures into a folder; every parameter is declared here once.

    Parameters
    ----------
    paths : tuple of str
        Slides, pictures, or folders of them.
    out : str
        Folder for the results; made if need be. A whole slide gets the project folder ``<stem>.nucleiseg``.
    formats : tuple of {"zarr", "tif", "geojson", "csv"}
        What to write beside. Default (empty): a label TIFF for a picture, nothing but the project for a slide.
    model : str
        Name of the weights, or a weight file.
    accept_licence : bool
        Accept a restrictive licence for this run.
    region : Region or None
        Level-0 pixels of each slide; default all.
    mpp_um : float or None
        Micrometres per pixel; needed where the files do not say, overrides what they say.
    threshold : float or None
        Foreground probability, 0..1; default what the model's card says.
    min_area_um2 : float or None
        Smallest nucleus; default what the model's card says.
    tissue_mask : bool
        Leave out tiles of whole slides that show nothing but glass.
    thorough : bool
        Look at every tile in eight positions and take the mean: eight times as long.
    ignore_brown : bool
        Take DAB out of the colours before nuclei are looked for: for immunostains of membranes or cytoplasm.
    device : str
        ``auto``, ``cuda``, ``mps`` or ``cpu``.
    batch_size : int or None
        Tiles forwarded together; default what suits the device.
    keep_maps : bool
        Keep probability maps in the projects, for heatmaps and other thresholds later.
    attention_level : {"slide", "model"}
        Of models of attention: whether each slide's own level decides what is a nucleus, or that of training. A model
        whose level was set is used as it is.
    """

    paths: tuple[str, ...]
    out: str
    formats: tuple[str, ...] = ()
    model: str = "nuclei"
    accept_licence: bool = False
    region: Region | None = None
    mpp_um: float | None = None
    threshold: float | None = None
    min_area_um2: float | None = None
    tissue_mask: bool = True
    thorough: bool = False
    ignore_brown: bool = False
    device: str = "auto"
    batch_size: int | None = None
    keep_maps: bool = False
    attention_level: str = SLIDE_LEVEL

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        if not self.paths:
            return "name at least one slide, picture or folder to segment"
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown:
            return f"there is no format {unknown[0]}; choose from {', '.join(FORMATS)}"
        if self.region is not None and self.region.is_empty:
            return "the region is empty; give y, x, height and width in level-0 pixels"
        if self.attention_level not in LEVELS:
            return f"there is no level of attention {self.attention_level}; choose from {', '.join(LEVELS)}"
        if self.batch_size is not None and self.batch_size < 1:
            return "the batch size must be at least 1"
        return None


@dataclass(frozen=True, slots=True)
class SlideStarted:
    """Work on a slide begins.

    Parameters
    ----------
    path : str
        Of the slide.
    number, total : int
        Its place (from 1) among all slides of the run.
    """

    path: str
    number: int
    total: int


@dataclass(frozen=True, slots=True)
class SlideAdvanced:
    """Part of a slide is done.

    Parameters
    ----------
    path : str
        Of the slide.
    stage : str
        What is being done: ``finding the level``, ``segmenting`` or ``writing <format>``.
    done, total : int
        Windows, tiles or blocks.
    nuclei : int
        Found so far in this run.
    """

    path: str
    stage: str
    done: int
    total: int
    nuclei: int = 0


@dataclass(frozen=True, slots=True)
class SlideNoted:
    """Something about a slide that the user should know, as a sentence."""

    path: str
    sentence: str


@dataclass(frozen=True, slots=True)
class SlideFinished:
    """A slide is done.

    Parameters
    ----------
    path : str
        Of the slide.
    outputs : tuple of str
        Files and folders that hold the results.
    nuclei : int
        In the segmented part.
    skipped_tiles : int
        Tiles that could not be read; they are tried again by the next run.
    seconds : float
        Wall clock.
    from_before : bool
        Whether an earlier run with the same settings had done it already.
    """

    path: str
    outputs: tuple[str, ...]
    nuclei: int
    skipped_tiles: int = 0
    seconds: float = 0.0
    from_before: bool = False


@dataclass(frozen=True, slots=True)
class SlideFailed:
    """A slide could not be done; the others go on.

    Parameters
    ----------
    path : str
        Of the slide.
    reason : str
        A sentence that says what to do.
    kind : str
        Name of the error's class.
    """

    path: str
    reason: str
    kind: str


Event = SlideStarted | SlideAdvanced | SlideNoted | SlideFinished | SlideFailed
