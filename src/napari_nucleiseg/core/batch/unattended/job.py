"""What an unattended run over many slides is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from napari_nucleiseg.core.batch.job import SlideAdvanced, SlideFailed, SlideNoted, SlideStarted
from napari_nucleiseg.core.exchange.formats import FORMATS
from napari_nucleiseg.core.models.spec import LEVELS, SLIDE_LEVEL

LOCAL, DASK = "local", "dask"
ENGINES = (LOCAL, DASK)


class Stage(Enum):
    """What is being done with a slide."""

    PREPARING = "looking at the slide"
    SEGMENTING = "segmenting"
    MEASURING = "measuring"
    ENCODING = "describing"
    WRITING = "writing"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class BatchJob:
    """Work through slides unattended; every parameter is declared here once.

    Parameters
    ----------
    paths : tuple of str
        Slides, folders of them, or manifests (CSV with a column ``path``).
    out : str
        Folder for projects, tables, the run's database and its summary page.
    formats : tuple of str
        What to write of each slide beside its project; keys of `FORMATS`.
    measure : bool
        Measure each nucleus; the tables then hold the measurements.
    model : str
        Name of the weights, or a weight file that every worker can read.
    accept_licence : bool
        Accept a restrictive licence for this run.
    mpp_um : float or None
        Micrometres per pixel; needed where neither files nor manifest say it, overrides what files say.
    threshold, min_area_um2 : float or None
        As of `SegmentJob`.
    tissue_mask : bool
        Leave out tiles that show nothing but glass.
    thorough : bool
        Look at every tile in eight positions.
    ignore_brown : bool
        As of `SegmentJob`.
    attention_level : {"slide", "model"}
        As of `SegmentJob`.
    encoder, region_encoder : str
        Encoders that describe each slide by features; empty: none.
    attention_maps : bool
        With an encoder: write what its heads look at where there is most tissue.
    device : str
        ``auto``, ``cuda``, ``mps`` or ``cpu``.
    devices : tuple of str
        GPUs that local workers take in turn; default: all there are if `device` is ``auto``.
    batch_size : int or None
        Tiles forwarded together.
    engine : {"local", "dask"}
        Processes of this machine, or dask.distributed.
    workers : int
        Processes; 0 takes what suits this machine.
    threads : int
        Threads of each.
    scheduler : str
        Address of a running dask scheduler, ``tcp://host:8786``; empty with engine ``dask`` starts a cluster here.
    jobqueue : str
        Kind of a batch system that dask-jobqueue asks for workers, e.g. ``slurm``; empty: none.
    unit_s : float
        How long a task should take, seconds; a kill loses at most one task a worker.
    """

    paths: tuple[str, ...]
    out: str
    formats: tuple[str, ...] = ("parquet",)
    measure: bool = True
    model: str = "nuclei"
    accept_licence: bool = False
    mpp_um: float | None = None
    threshold: float | None = None
    min_area_um2: float | None = None
    tissue_mask: bool = True
    thorough: bool = False
    ignore_brown: bool = False
    attention_level: str = SLIDE_LEVEL
    encoder: str = ""
    region_encoder: str = ""
    attention_maps: bool = False
    device: str = "auto"
    devices: tuple[str, ...] = ()
    batch_size: int | None = None
    engine: str = LOCAL
    workers: int = 0
    threads: int = 1
    scheduler: str = ""
    jobqueue: str = ""
    unit_s: float = 2.0

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        unknown = [name for name in self.formats if name not in FORMATS]
        checks = (
            (not self.paths, "name at least one slide, folder or manifest"),
            (not self.out, "name a folder for the results"),
            (bool(unknown), f"there is no format {unknown[:1]}; choose from {', '.join(FORMATS)}"),
            (self.attention_level not in LEVELS, f"there is no level of attention {self.attention_level}"),
            (self.engine not in ENGINES, f"there is no engine {self.engine}; choose from {', '.join(ENGINES)}"),
            (self.batch_size is not None and self.batch_size < 1, "the batch size must be at least 1"),
            (self.workers < 0 or self.threads < 1, "give at least one worker (or 0: what suits) and one thread"),
            (self.unit_s <= 0, "a task must be allowed some time; give more than 0 seconds"),
            (
                bool(self.scheduler or self.jobqueue) and self.engine != DASK,
                "a scheduler or a batch system is for the engine dask; choose that",
            ),
            (bool(self.scheduler and self.jobqueue), "give a running scheduler or a batch system, not both"),
            (
                bool(self.region_encoder or self.attention_maps) and not self.encoder,
                "name an encoder of patches for features or attention maps",
            ),
        )
        return next((sentence for wrong, sentence in checks if wrong), None)


@dataclass(frozen=True, slots=True)
class SlideDone:
    """A slide is done.

    Parameters
    ----------
    path : str
        Of the slide.
    outputs : tuple of str
        Files and folders that hold the results.
    nuclei : int
        On the slide.
    skipped_tiles : int
        Tiles that could not be read or computed.
    seconds : float
        Wall clock from its first task to its last, other slides' in between included.
    from_before : bool
        Whether an earlier run had done it with the same settings.
    """

    path: str
    outputs: tuple[str, ...]
    nuclei: int
    skipped_tiles: int = 0
    seconds: float = 0.0
    from_before: bool = False


@dataclass(frozen=True, slots=True)
class BatchAdvanced:
    """How far the run is.

    Parameters
    ----------
    slides_done, slides_failed, slides : int
        Counts of slides.
    workers : int
        At work now.
    engine : str
        Where, in words.
    """

    slides_done: int
    slides_failed: int
    slides: int
    workers: int
    engine: str


@dataclass(frozen=True, slots=True)
class BatchFinished:
    """The run is over.

    Parameters
    ----------
    page : str
        The summary, an HTML file.
    done, failed, left : int
        Slides done (those of earlier runs included), failed, and not begun or not finished because it was cancelled.
    nuclei : int
        On all slides done.
    seconds : float
        Wall clock.
    failures : tuple of (str, str)
        Path and sentence.
    """

    page: str
    done: int
    failed: int
    left: int
    nuclei: int
    seconds: float
    failures: tuple[tuple[str, str], ...] = field(default=())


BatchEvent = SlideStarted | SlideAdvanced | SlideNoted | SlideFailed | SlideDone | BatchAdvanced | BatchFinished
