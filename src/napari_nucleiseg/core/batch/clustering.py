"""One region of a slide, clustered without labels: its label map, its nuclei, and a model for the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.errors import DataError, ExportError, SlideError
from napari_nucleiseg.core.exchange.formats import export
from napari_nucleiseg.core.exchange.source import source_of_labels
from napari_nucleiseg.core.exchange.whole_file import whole_file, whole_path
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.inference.plan import model_downsample
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.models.weights import save_model
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.clustering.choice import (
    RankedCluster,
    nuclei_of_clusters,
    proposed_clusters,
    ranked,
)
from napari_nucleiseg.core.training.clustering.config import ClusterConfig
from napari_nucleiseg.core.training.clustering.fit import Clustering, ClusterStep, cluster, never
from napari_nucleiseg.core.training.clustering.fitted import fitted_model

# At the network's pixel size; what is held of it are the picture and its labels, 5 bytes a pixel.
LARGEST_REGION_PX = 8192 * 8192


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """What to cluster, and where to write what comes of it.

    Parameters
    ----------
    path : str
        Slide or picture.
    out : str
        Folder for the results; made if need be.
    region : Region or None
        Level-0 pixels; default all of it.
    mpp_um : float or None
        Micrometres per pixel; needed where the file does not say, overrides what it says.
    chosen : tuple of int
        Clusters that are nuclei. Default: those proposed by their haematoxylin.
    name : str
        Of the model and its file. Default: the picture's stem with ``-clusters``.
    licence : str
        SPDX expression of the picture, for the model's card; may be empty.
    min_area_um2 : float
        Smallest nucleus, square micrometres.
    """

    path: str
    out: str
    region: Region | None = None
    mpp_um: float | None = None
    chosen: tuple[int, ...] = ()
    name: str = ""
    licence: str = ""
    min_area_um2: float = 8.0


@dataclass(frozen=True, slots=True)
class ClusteringWritten:
    """What was written.

    Parameters
    ----------
    clusters : tuple of RankedCluster
        All of them, richest in haematoxylin first.
    chosen : tuple of int
        Those taken for nuclei.
    nuclei : int
        How many.
    region : Region
        What was clustered, level-0 pixels.
    iteration : int
        The step whose state was kept.
    outputs : dict of str to str
        Files: ``labels`` (number of the cluster of each level-0 pixel), ``nuclei`` (their ids), ``weights`` (left out
        with free offsets) and ``record`` (all of this as JSON).
    """

    clusters: tuple[RankedCluster, ...]
    chosen: tuple[int, ...]
    nuclei: int
    region: Region
    iteration: int
    outputs: dict[str, str]


def cluster_region(
    job: ClusterJob, config: ClusterConfig | None = None, *, enough: Callable[[], bool] = never
) -> Generator[ClusterStep | ClusteringWritten, None, None]:
    """Cluster a region, choose the nuclei and write everything.

    Parameters
    ----------
    job : ClusterJob
        What and where to.
    config : ClusterConfig, optional
        Settings of the fit.
    enough : callable
        Polled after each step; once it says True the fit ends with what it has.

    Yields
    ------
    ClusterStep or ClusteringWritten
        The steps, and at the end what was written.

    Raises
    ------
    SlideError
        If the slide cannot be read, its pixel size is not known, or the region lies beside it.
    DataError
        If the settings make no sense, or the region is too small, too large or holds nothing to tell apart.
    ModelError
        If a chosen cluster is not there, or the device is not.
    ExportError
        If the results cannot be written.
    """
    config = config or ClusterConfig()
    options = DecodeOptions(min_area_um2=job.min_area_um2)
    if problem := config.validation_error() or options.validation_error():
        raise DataError(problem)
    slide = open_slide(job.path, mpp_um=job.mpp_um)
    with closing(slide):
        region = _on_slide(slide, job.region)
        downsample = model_downsample(slide, network_spec("s3net"))
        image = _at_model_pixels(slide, region, downsample)
        mpp = slide.require_mpp()
    _make_folder(job.out)
    result: Clustering | None = None
    with closing(cluster(image, config, enough=enough)) as steps:
        for step in steps:
            result = step.result
            yield step
    if result is not None:
        yield _written(job, result, image, region=region, mpp=mpp, downsample=downsample, options=options)


def _on_slide(slide: Slide, region: Region | None) -> Region:
    """Return the part of the region that lies on the slide."""
    content = slide.content
    found = content if region is None else region.intersect(content)
    if found.is_empty:
        raise SlideError(
            f"{slide.path} holds pixels in the region {_told(content)} (y, x, height, width); the region "
            f"{_told(region or content)} lies beside that. Give one on the slide."
        )
    return found


def _told(region: Region) -> str:
    return f"{region.y},{region.x},{region.height},{region.width}"


def _at_model_pixels(slide: Slide, region: Region, downsample: YX) -> NDArray[np.uint8]:
    height, width = (
        max(1, round(side / factor)) for side, factor in zip((region.height, region.width), downsample, strict=True)
    )
    if height * width > LARGEST_REGION_PX:
        raise DataError(
            f"the region {_told(region)} (y, x, height, width) of {slide.path} is too large to be clustered: choose "
            "one of a few thousand pixels a side, and apply the weights to the rest (segment --model)"
        )
    return slide.read_box(region.y, region.x, downsample.y, downsample.x, (height, width))


def _make_folder(out: str) -> None:
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"the output folder {out} cannot be made: {error.strerror or error}") from error


def _written(
    job: ClusterJob,
    result: Clustering,
    image: NDArray[np.uint8],
    *,
    region: Region,
    mpp: YX,
    downsample: YX,
    options: DecodeOptions,
) -> ClusteringWritten:
    """Choose, decode and write."""
    clusters = ranked(result.labels, image)
    chosen = job.chosen or proposed_clusters(clusters)
    missing = sorted(set(chosen) - {item.cluster for item in clusters})
    if missing:
        there = ", ".join(str(item.cluster) for item in clusters)
        raise DataError(f"there is no cluster {missing[0]} in this region; choose among {there}")
    pixel_um = float(np.sqrt(mpp.y * downsample.y * mpp.x * downsample.x))
    nuclei = nuclei_of_clusters(result.labels, chosen, pixel_um, options)
    stem, folder = Path(job.path).stem, Path(job.out)
    name = job.name or f"{stem}-clusters"
    outputs = {"labels": str(folder / f"{stem}-clusters.tif"), "nuclei": str(folder / f"{stem}-nuclei.tif")}
    _write_map(Path(outputs["labels"]), _on_level0(result.labels, region).astype(np.uint8), mpp)
    source = source_of_labels(_on_level0(nuclei.labels, region), mpp, name=stem, origin=name)
    export(source, outputs["nuclei"], "tif")
    if not result.network.is_free:
        outputs["weights"] = str(folder / f"{name}.safetensors")
        model = fitted_model(result, chosen, name, picture=Path(job.path).name, licence=job.licence)
        save_model(outputs["weights"], model.network, model.spec, model.card, half=False)
    outputs["record"] = str(folder / f"{stem}-clusters.json")
    written = ClusteringWritten(clusters, tuple(chosen), len(nuclei), region, result.iteration, outputs)
    with whole_file(outputs["record"]) as file:
        file.write(json.dumps({**asdict(written), "settings": asdict(result.config)}, indent=2))
    return written


def _on_level0(labels: NDArray[np.integer], region: Region) -> NDArray[np.int32]:
    """Enlarge labels of the region to its level-0 pixels; ids are below 2**24, which float32 holds exactly."""
    size = (region.width, region.height)
    return cv2.resize(labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.int32)


def _write_map(path: Path, labels: NDArray[np.uint8], mpp: YX) -> None:
    with whole_path(path) as partial:
        tifffile.imwrite(
            partial,
            labels,
            photometric="minisblack",
            compression="zlib",
            resolution=(1e4 / mpp.x, 1e4 / mpp.y),
            resolutionunit="CENTIMETER",
            metadata={"axes": "YX"},
        )
