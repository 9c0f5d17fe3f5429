"""What is clustered of a slide, at the network's pixels, and chosen clusters as nuclei of the slide's project."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.errors import DataError, SlideError, StoreError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.inference.instances import find_nuclei
from napari_nucleiseg.core.inference.plan import InferencePlan, Tile, plan_inference
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.nuclei import ID_BITS, MAX_TILES, PERSON_ID_START
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.tiles import bounding

NETWORK = "s3net"
ORIGIN = "S3-Net clusters"
KEY = "clusters"
# Beyond what was asked for, so that nuclei on its border are whole: half a large one, 16 um.
MARGIN_PX = 32
# About a millimetre by a millimetre: the last step labels all of it, and cannot be stopped.
LARGEST_PX = 2048 * 2048


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Part of a slide, at the pixels that the clustering network sees.

    Parameters
    ----------
    plan : InferencePlan
        The slide's grid for the network.
    core_px : Region
        What was asked for, model pixels.
    box_px : Region
        What `image` covers, model pixels: a margin more.
    image : ndarray of uint8, shape (y, x, 3)
        RGB.
    """

    plan: InferencePlan
    core_px: Region
    box_px: Region
    image: NDArray[np.uint8]

    @property
    def region(self) -> Region:
        """What was asked for, level-0 pixels."""
        return self.plan.grid.level0_of(self.core_px)

    @property
    def core(self) -> tuple[slice, slice]:
        """Slices of what was asked for in `image`, and in labels of the same size."""
        return self.core_px.translate(-self.box_px.y, -self.box_px.x).slices


@dataclass(frozen=True, slots=True)
class Written:
    """Nuclei of one part are in the project.

    Parameters
    ----------
    region : Region
        Level-0 pixels that may have changed.
    nuclei : int
        How many.
    done, total : int
        Parts.
    """

    region: Region
    nuclei: int
    done: int
    total: int


def read_picture(slide: Slide, region: Region, most_px: int | None = None) -> Picture:
    """Read a region of a slide at the network's pixel size, with a margin.

    Parameters
    ----------
    slide : Slide
        To read from.
    region : Region
        Level-0 pixels.
    most_px : int, optional
        Model pixels, margin included, of which no more are read. Default, and at most: `LARGEST_PX`.

    Raises
    ------
    MissingPixelSizeError
        If the slide does not say how large its pixels are.
    SlideError
        If it cannot be read, or the region lies beside it.
    DataError
        If the region is too large; says how much.
    """
    most = LARGEST_PX if most_px is None else min(most_px, LARGEST_PX)
    plan = plan_inference(slide, network_spec(NETWORK), region)
    if plan.region.is_empty:
        raise SlideError("What is seen lies beside the slide. Move the view, or draw the shape, onto the tissue.")
    step, extent = plan.grid.downsample, plan.grid.extent
    core = plan.region.scaled_outward(1 / step.y, 1 / step.x).intersect(extent)
    box = core.expand(MARGIN_PX).intersect(extent)
    if box.area > most:
        raise DataError(_too_large(core, plan.mpp_um, box.area / most, most))
    image = slide.read_box(box.y * step.y, box.x * step.x, step.y, step.x, (box.height, box.width))
    return Picture(plan, core, box, image)


def _too_large(core: Region, mpp_um: YX, times: float, most_px: int) -> str:
    height, width = (_length(side * um) for side, um in zip((core.height, core.width), mpp_um, strict=True))
    side = _length((most_px**0.5 - 2 * MARGIN_PX) * mpp_um.y)
    return (
        f"{width} x {height} are too much to be clustered at once; {side} x {side} can be. "
        f"Zoom in {max(1.1, times**0.5):.1f} times, or select a smaller shape."
    )


def _length(um: float) -> str:
    return f"{um / 1000:.1f} mm" if um >= 950 else f"{um:.0f} µm"


def origin_of(labels: NDArray[np.integer], chosen: Collection[int]) -> str:
    """Return what nuclei of these clusters are said to come from, written like the version of a model."""
    digest = hashlib.sha256(np.ascontiguousarray(labels, np.int16).tobytes())
    digest.update(str(sorted(chosen)).encode())
    return f"{ORIGIN}@{digest.hexdigest()[:12]}"


def write_nuclei(
    project: Project,
    picture: Picture,
    labels: NDArray[np.integer],
    chosen: Collection[int],
    options: DecodeOptions | None = None,
) -> Iterator[Written]:
    """Make nuclei of the chosen clusters, part by part, decoded and written as those of any network.

    Other models' nuclei in the region go; what a person made, changed or approved stays, and nothing is changed
    outside but what reaches across the border. The same clusters again change nothing, others replace them.

    Parameters
    ----------
    project : Project
        Of the slide, open for writing.
    picture : Picture
        What was clustered.
    labels : ndarray of integers, shape (y, x)
        Cluster of each pixel of ``picture.image``.
    chosen : collection of int
        Clusters that are nuclei.
    options : DecodeOptions, optional
        Smallest area.

    Raises
    ------
    DataError
        If `labels` has another size than the picture.
    StoreError
        If the project cannot be written; what is done stays.
    """
    if labels.shape != picture.image.shape[:2]:
        raise DataError(f"labels of {labels.shape} do not fit a picture of {picture.image.shape[:2]}")
    options = DecodeOptions(min_area_um2=(options or DecodeOptions()).min_area_um2)
    origin, key = origin_of(labels, chosen), f"{KEY}:a{options.min_area_um2:.6g}:{picture.plan.grid.key}"
    foreground = np.isin(labels, list(chosen)).astype(np.float32)
    spec = network_spec(NETWORK)
    tiles = _parts(project, picture)
    for done, tile in enumerate(tiles, start=1):
        seen = foreground[tile.inside_px.translate(-picture.box_px.y, -picture.box_px.x).slices]
        nuclei = find_nuclei(tile, {"nuclei": seen[None]}, picture.plan, spec, options)
        project.write_tile(nuclei, origin, key)
        yield Written(bounding([tile.core, nuclei.box]), len(nuclei), done, len(tiles))
    project.flush()


def _parts(project: Project, picture: Picture) -> list[Tile]:
    """Cut the region along the slide's grid; the parts are numbered as no tile is, which may reach beyond."""
    grid, region = picture.plan.grid, picture.region
    found = []
    for index in grid.indices_in(region).tolist():
        tile = grid.tile(index)
        core, core_px = tile.core.intersect(region), tile.core_px.intersect(picture.core_px)
        if not core.is_empty and not core_px.is_empty:
            inside = core_px.expand(MARGIN_PX).intersect(picture.box_px)
            found.append(replace(tile, core=core, core_px=core_px, box_px=inside, inside_px=inside))
    numbers = _numbers(project, [tile.core for tile in found])
    return [replace(tile, index=number) for tile, number in zip(found, numbers, strict=True)]


def _numbers(project: Project, cores: list[Region]) -> list[int]:
    """Return a number for each part: that which it had before, or one of the highest that are free."""
    database = project.ledger.reader
    clustered = database.execute(
        "SELECT tile, y0, x0, y1, x1 FROM tiles JOIN runs USING (run) WHERE options_key LIKE ?", (f"{KEY}:%",)
    ).fetchall()
    known = {Region.from_bounds(*bounds): tile for tile, *bounds in clustered}
    used = {row[0] for row in database.execute("SELECT tile FROM tiles")}
    ids = database.execute("SELECT DISTINCT id >> ? FROM nuclei WHERE id < ?", (ID_BITS, PERSON_ID_START))
    used |= {row[0] for row in ids}
    free = (number for number in range(MAX_TILES - 1, -1, -1) if number not in used)
    numbers = []
    for core in cores:
        number = known[core] if core in known else next(free, None)
        if number is None:
            raise StoreError("The results of this slide have no room for more clusters. Export them and begin anew.")
        numbers.append(number)
    return numbers
