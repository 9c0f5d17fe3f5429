"""The doors to clustering; heavy imports happen behind them, in the thread that calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.viewer.layers import slide_name

if TYPE_CHECKING:
    from napari_nucleiseg.core.batch.clustered import Picture, Written
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.core.teaching.versions import Version
    from napari_nucleiseg.core.training.clustering.choice import RankedCluster
    from napari_nucleiseg.core.training.clustering.config import ClusterConfig
    from napari_nucleiseg.core.training.clustering.fit import Clustering, ClusterStep

AT_ONCE = "As published all is learned from at once; “Fitted at once”, under “More”, allows more."


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """What a fit has come to.

    Parameters
    ----------
    picture : Picture
        What was clustered.
    result : Clustering
        Labels and the fitted network.
    ranked : tuple of RankedCluster
        Richest in haematoxylin first; those that are proposed as nuclei are marked.
    """

    picture: Picture
    result: Clustering
    ranked: tuple[RankedCluster, ...]


class ClusterEngine:
    """Reads, fits, and makes nuclei and models of clusters; replaceable in tests."""

    def read(self, slide: Slide, region: Region, config: ClusterConfig) -> Picture:
        """Read what is to be clustered.

        Raises
        ------
        SlideError, DataError
            See `core.batch.clustered.read_picture`.
        """
        from napari_nucleiseg.core.batch.clustered import read_picture
        from napari_nucleiseg.core.errors import DataError

        if config.offsets != "free":
            return read_picture(slide, region)
        try:
            # Free offsets belong to the pixels that they are fitted to: all of them at once, or none.
            return read_picture(slide, region, config.fit_px)
        except DataError as error:
            raise DataError(f"{error} {AT_ONCE}") from error

    def fit(self, picture: Picture, config: ClusterConfig, enough: Callable[[], bool]) -> Iterator[ClusterStep]:
        """Fit a fresh network, see `core.training.clustering.fit.cluster`."""
        from napari_nucleiseg.core.inference.device import set_torch_threads
        from napari_nucleiseg.core.models.hardware import give_back_memory
        from napari_nucleiseg.core.training.clustering.fit import cluster

        set_torch_threads(beside_gui=True)
        try:
            yield from cluster(picture.image, config, enough=enough)
        finally:
            give_back_memory()

    def rank(self, picture: Picture, result: Clustering) -> Clusters:
        """Order what was found, where it was asked for."""
        from napari_nucleiseg.core.training.clustering.choice import ranked

        return Clusters(picture, result, ranked(result.labels[picture.core], picture.image[picture.core]))

    def write(
        self, project: Project, found: Clusters, chosen: Collection[int], min_area_um2: float
    ) -> Iterator[Written]:
        """Make nuclei of clusters, see `core.batch.clustered.write_nuclei`."""
        from napari_nucleiseg.core.batch.clustered import write_nuclei
        from napari_nucleiseg.core.decoders.base import DecodeOptions

        options = DecodeOptions(min_area_um2=min_area_um2)
        return write_nuclei(project, found.picture, found.result.labels, chosen, options)

    def keep(self, slide: Slide, found: Clusters, chosen: Collection[int]) -> Version:
        """Keep the fitted network with its choice as a model.

        Raises
        ------
        ModelError
            If it belongs to the one picture, or nothing is chosen.
        WeightsError
            If it cannot be kept.
        """
        from napari_nucleiseg.core.teaching.clusters import clusters_name, keep_clusters
        from napari_nucleiseg.core.training.clustering.fitted import fitted_model

        stem = slide_name(slide)
        title = f"S3-Net, clusters of {stem}"
        return keep_clusters(
            fitted_model(found.result, chosen, clusters_name(stem), title=title, picture=PurePath(slide.path).name)
        )
