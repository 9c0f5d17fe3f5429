"""What the user wants of an unattended run, and the job that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from psygnal import SignalGroupDescriptor

from napari_nucleiseg.core.batch.unattended.job import DASK, ENGINES, LOCAL, BatchJob
from napari_nucleiseg.core.slides.pixelsize import LARGEST_MPP_UM
from napari_nucleiseg.state import Session, option

NO_ENCODER = ""
NOT_GIVEN = 0.0


@dataclass(eq=False)
class BatchWishes:
    """What the user wants of an unattended run; every change emits ``wishes.events.<field>(new, old)``.

    Parameters
    ----------
    folder : str
        For the results; empty as long as none was chosen.
    model : str
        Name of the weights.
    threshold : float
        As of `Session`.
    min_area_um2 : float
        As of `Session`.
    formats : tuple of str
        Keys of `FORMATS`: what is written of each slide beside its project.
    measure : bool
        Whether each nucleus is measured.
    workers, threads : int
        Processes, 0 for what suits the machine; threads of each.
    engine : {"local", "dask"}
        Where it is done.
    scheduler : str
        Address of a running dask scheduler; empty starts a cluster here.
    encoder, region_encoder : str
        Describe each slide by features; `NO_ENCODER` does not.
    attention_maps : bool
        With an encoder: whether what its heads look at is written.
    mpp_um : float
        Micrometres per pixel of files that do not say it; `NOT_GIVEN` if nobody knows.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    folder: str = option("", "Results in", "Folder for projects, tables and the summary; the same again goes on")
    model: str = option("nuclei", "Model", "Which trained network finds the nuclei; at first that of the panel")
    threshold: float = option(
        0.5,
        "Threshold",
        "How sure the model must be that a pixel belongs to a nucleus; taken over from the panel whenever it is "
        "changed there",
        minimum=0.05,
        maximum=0.95,
        step=0.01,
        decimals=2,
    )
    min_area_um2: float = option(
        8.0,
        "Smallest",
        "Nuclei smaller than this area are left out; taken over from the panel whenever it is changed there",
        minimum=0.0,
        maximum=60.0,
        step=1.0,
        decimals=0,
        suffix=" µm²",
    )
    formats: tuple[str, ...] = option(("parquet",), "Write", "What other programs read, beside the project")
    measure: bool = option(
        True, "Measure each nucleus", "Size, shape, stain and texture of each nucleus, in projects and tables"
    )
    workers: int = option(
        0, "Workers", "Processes at work at the same time; automatic takes what suits this machine", minimum=0,
        maximum=1024,
    )  # fmt: skip
    threads: int = option(
        1, "Threads", "Of each worker; more workers are faster than more threads", minimum=1, maximum=64
    )
    engine: str = option(
        LOCAL, "Done by", "Processes of this machine, or the workers of a dask scheduler", choices=ENGINES
    )
    scheduler: str = option(
        "",
        "Scheduler",
        "Address of a running dask scheduler, such as tcp://host:8786; its workers must see slides and results under "
        "the same paths. Empty: a cluster is started on this machine.",
    )
    encoder: str = option(NO_ENCODER, "Encoder", "Describe each slide by the features of a transformer, for cohorts")
    region_encoder: str = option(
        NO_ENCODER, "Regions", "And by those of regions, made by a second transformer that reads the features"
    )
    attention_maps: bool = option(
        False, "Attention maps", "Write what each head of the encoder looks at where a slide has most tissue"
    )
    mpp_um: float = option(
        NOT_GIVEN,
        "Pixel size",
        "Micrometres per pixel of those files that do not say it; what files or a manifest say counts more",
        minimum=NOT_GIVEN,
        maximum=LARGEST_MPP_UM,
        step=0.01,
        decimals=4,
        suffix=" µm",
    )


def job_of(wishes: BatchWishes, session: Session, manifest: str) -> BatchJob:
    """Return the job that the user wants.

    Parameters
    ----------
    wishes : BatchWishes
        Of the dock.
    session : Session
        Of the panel: device, glass, eight positions and level of attention are taken from there.
    manifest : str
        File that lists the slides.
    """
    far = wishes.engine == DASK
    return BatchJob(
        paths=(manifest,),
        out=wishes.folder,
        formats=wishes.formats,
        measure=wishes.measure,
        model=wishes.model,
        threshold=wishes.threshold,
        min_area_um2=wishes.min_area_um2,
        tissue_mask=session.tissue_only,
        thorough=session.thorough,
        ignore_brown=session.ignore_brown,
        attention_level=session.attention_level,
        encoder=wishes.encoder,
        region_encoder=wishes.region_encoder if wishes.encoder else NO_ENCODER,
        attention_maps=wishes.attention_maps and wishes.encoder != NO_ENCODER,
        device=session.device,
        engine=wishes.engine,
        workers=wishes.workers,
        threads=wishes.threads,
        scheduler=wishes.scheduler if far else "",
    )
