"""What the heads of encoders look at in one region of a slide, written to a file, and ranked against its nuclei."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tifffile

from napari_nucleiseg.core.attention.look import Looked, LookStep, look, must_fit, token_store
from napari_nucleiseg.core.attention.nuclei import rank_looked, rank_region
from napari_nucleiseg.core.attention.patches import MOST_CELLS, PatchPlan, plan_patches
from napari_nucleiseg.core.attention.ranking import HeadScore
from napari_nucleiseg.core.attention.shown import MapWish, ShownMap, all_heads, shown_map
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.exchange.whole_file import check_target, whole_path
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.encoders import EncoderSpec, LoadedEncoder, load_encoder
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.tissue import TissueMask, tissue_mask
from napari_nucleiseg.core.store.finding import find_project
from napari_nucleiseg.core.store.project import DATABASE, MAPS, Project, pixel_size_of

TIFF, ARRAYS = (".tif", ".tiff"), ".npz"


@dataclass(frozen=True, slots=True)
class HeadsJob:
    """What to look at, with what, and where to write it.

    Parameters
    ----------
    path : str
        Slide or picture.
    out : str
        File ending in ``.tif`` (OME-TIFF) or ``.npz``.
    encoder, region_encoder : str
        Names or files; the latter may be empty.
    wish : MapWish
        Which map.
    every_head : bool
        Whether all heads of the wished level and layer are written, instead of one map.
    region : Region or None
        Level-0 pixels; default where there is most tissue, as large as is looked at in one piece.
    averaged : int
        How many shifted grids are averaged; 1 is none.
    rank : str
        Folder of the slide's project, against whose nuclei heads are ranked; empty is not at all.
    project : str
        Folder of the slide's project, where answers are kept, if it is not the one of `rank`; empty looks for it.
    mpp_um : float or None
        Micrometres per pixel; needed where neither file nor project say, overrides what they say.
    tissue_only : bool
        Whether glass is left out.
    accept_licence : bool
        Whether a restrictive licence is accepted for this run.
    device : str
        ``auto``, ``cuda``, ``mps``, ``cpu``.
    """

    path: str
    out: str
    encoder: str
    region_encoder: str = ""
    wish: MapWish = field(default_factory=MapWish)
    every_head: bool = True
    region: Region | None = None
    averaged: int = 1
    rank: str = ""
    project: str = ""
    mpp_um: float | None = None
    tissue_only: bool = True
    accept_licence: bool = False
    device: str = "auto"

    def validation_error(self) -> str:
        """Return what is wrong, in a sentence; empty if nothing is."""
        if not self.out.lower().endswith((*TIFF, ARRAYS)):
            return f"maps are written to .tif or .npz; {self.out} ends in neither. Give another name."
        if self.wish.level != "patch" and not self.region_encoder:
            return "the level region or both needs an encoder of regions: give one, or choose the level patch"
        if not 1 <= self.averaged <= 16:
            return f"1 to 16 shifted grids are averaged, not {self.averaged}"
        return ""


@dataclass(frozen=True, slots=True)
class HeadsNoted:
    """Something a person should know."""

    sentence: str


@dataclass(frozen=True, slots=True)
class HeadsAdvanced:
    """So many patches of all grids are known."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class HeadsWritten:
    """What was written.

    Parameters
    ----------
    output : str
        The file.
    region : Region
        What was looked at, level-0 pixels.
    is_cut : bool
        Whether more was wanted than is looked at in one piece, so that this is its middle.
    maps : tuple of str
        Names of the maps in the file.
    rows, columns : int
        Of each map.
    token_um : YX
        Sides of a cell of the maps, micrometres.
    forwarded : int
        Patches that were computed now; the others were kept from before.
    ranking, region_ranking : tuple of HeadScore
        Heads of patches and of regions, best first; empty if not asked for.
    """

    output: str
    region: Region
    is_cut: bool
    maps: tuple[str, ...]
    rows: int
    columns: int
    token_um: YX
    forwarded: int
    ranking: tuple[HeadScore, ...] = ()
    region_ranking: tuple[HeadScore, ...] = ()


HeadsEvent = HeadsNoted | HeadsAdvanced | HeadsWritten


def write_heads(job: HeadsJob) -> Generator[HeadsEvent, None, None]:
    """Look at a region and write what heads look at there.

    Yields
    ------
    HeadsEvent
        What a person should know, how far it is, and at the end what was written.

    Raises
    ------
    DataError
        If the wish makes no sense, or the region lies beside the slide.
    SlideError, ModelError, StoreError, ExportError
        If slide, encoders, project or output cannot be used; says why.
    """
    if problem := job.validation_error():
        raise DataError(problem)
    check_target(job.out, inputs=filter(None, (job.path, job.rank, job.project)))
    encoder = load_encoder(job.encoder, accept_licence=job.accept_licence)
    other = load_encoder(job.region_encoder, accept_licence=job.accept_licence) if job.region_encoder else None
    must_fit(encoder, other)
    with closing(open_slide(job.path, mpp_um=job.mpp_um)) as slide:
        known = job.rank or job.project
        folder = Path(known) if known else find_project(slide)
        if slide.mpp_um is None and folder is not None:
            slide.mpp_um = pixel_size_of(folder, slide)
        tissue = tissue_mask(slide) if job.tissue_only or job.region is None else None
        region = richest_region(slide, encoder.spec, tissue) if job.region is None and tissue else job.region
        plan = plan_patches(slide, encoder.spec, region or slide.content)
        if job.region is None:
            yield HeadsNoted(f"Looking where there is most tissue: --region {_told(plan.region)}")
        elif plan.is_cut:
            yield HeadsNoted(
                f"The region is larger than what is looked at in one piece: its middle, {_told(plan.region)}"
            )
        steps: list[LookStep] = []
        yield from _look(slide, plan, job, (encoder, other), folder=folder, found=steps)
        looks, forwarded = [step.looked for step in steps], sum(step.forwarded for step in steps)
        glass = tissue if job.tissue_only else None
        maps = _maps_of(looks, job, glass)
        _write(Path(job.out), maps, slide.require_mpp())
        written = _summary(job, plan, maps, slide, forwarded)
        if job.rank:
            written = _ranked(written, job.rank, slide, looks[0], glass)
        yield written


def _look(
    slide: Slide,
    plan: PatchPlan,
    job: HeadsJob,
    encoders: tuple[LoadedEncoder, LoadedEncoder | None],
    *,
    folder: Path | None,
    found: list[LookStep],
) -> Iterator[HeadsNoted | HeadsAdvanced]:
    """Look at all grids; put the last step of each into `found`. Only where a project is already, answers are kept."""
    messages: list[str] = []
    for moved in plan.grids(job.averaged, coarse=job.wish.level != "patch"):
        store = None
        if folder is not None and (folder / DATABASE).is_file():
            store = token_store(folder / MAPS, moved, encoders[0].version)
        steps = look(slide, moved, *encoders, store=store, device=job.device, on_message=messages.append)
        last: LookStep | None = None
        for last in steps:
            yield from (HeadsNoted(sentence) for sentence in messages)
            messages.clear()
            yield HeadsAdvanced(len(found) * last.total + last.done, job.averaged * last.total)
        if last is not None:
            found.append(last)
    yield from (HeadsNoted(sentence) for sentence in messages)


def richest_region(slide: Slide, spec: EncoderSpec, tissue: TissueMask, *, cells: int = MOST_CELLS) -> Region:
    """Return the rectangle of at most `cells` x `cells` patches on the slide's grid with most tissue.

    Parameters
    ----------
    slide, spec
        Give the grid.
    tissue : TissueMask
        Where tissue is.
    cells : int
        Rows and columns of patches.

    Returns
    -------
    Region
        Level-0 pixels, on the slide; of several the uppermost, then the leftmost.
    """
    whole = plan_patches(slide, spec, slide.content, most=1 << 30)
    counts = np.zeros((whole.rows + 1, whole.columns + 1))
    here = [tissue.fraction(whole.box_of(tile)) * whole.box_of(tile).area for tile in whole.tiles]
    counts[1:, 1:] = np.reshape(here, (whole.rows, whole.columns)).cumsum(axis=0).cumsum(axis=1)
    height, width = min(cells, whole.rows), min(cells, whole.columns)
    sums = counts[height:, width:] - counts[:-height, width:] - counts[height:, :-width] + counts[:-height, :-width]
    # Sums of the same patches differ in their last bits.
    row, column = np.unravel_index(int(np.argmax(sums >= sums.max() - 0.5)), sums.shape)
    there = replace(whole, top=whole.top + int(row), left=whole.left + int(column), rows=height, columns=width)
    return there.region.intersect(slide.content)


def _maps_of(looks: list[Looked], job: HeadsJob, tissue: TissueMask | None) -> dict[str, ShownMap]:
    if job.every_head:
        return all_heads(looks, job.wish, tissue)
    wish = job.wish
    names = {"patch": wish.head, "region": wish.region_head, "both": f"{wish.head},{wish.region_head}"}
    return {names[wish.level]: shown_map(looks, wish, tissue)}


def _write(path: Path, maps: Mapping[str, ShownMap], mpp: YX) -> None:
    """Write maps of one grid as an OME-TIFF of channels, or as arrays."""
    grid = next(iter(maps.values())).grid
    values = np.stack([shown.values for shown in maps.values()])
    token_um = YX(grid.token_px.y * mpp.y, grid.token_px.x * mpp.x)
    # The place is that of the middle of the first cell, as the standard has it.
    corner = YX((grid.origin.y + grid.token_px.y / 2) * mpp.y, (grid.origin.x + grid.token_px.x / 2) * mpp.x)
    with whole_path(path) as partial:
        if path.suffix.lower() == ARRAYS:
            with partial.open("wb") as file:
                np.savez_compressed(
                    file, maps=values, names=np.array(list(maps)), origin_px=np.array(grid.origin),
                    token_px=np.array(grid.token_px), mpp_um=np.array(mpp),
                )  # fmt: skip
            return
        metadata = {
            "axes": "CYX",
            "Channel": {"Name": list(maps)},
            "PhysicalSizeY": token_um.y,
            "PhysicalSizeX": token_um.x,
            "PhysicalSizeYUnit": "µm",
            "PhysicalSizeXUnit": "µm",
            "Plane": {
                "PositionY": [corner.y] * len(maps),
                "PositionX": [corner.x] * len(maps),
                "PositionYUnit": ["µm"] * len(maps),
                "PositionXUnit": ["µm"] * len(maps),
            },
        }
        with tifffile.TiffWriter(partial, ome=True) as tiff:
            tiff.write(
                values, photometric="minisblack", compression="zlib", metadata=metadata,
                resolution=(1e4 / token_um.x, 1e4 / token_um.y), resolutionunit="CENTIMETER",
            )  # fmt: skip


def _summary(
    job: HeadsJob, plan: PatchPlan, maps: Mapping[str, ShownMap], slide: Slide, forwarded: int
) -> HeadsWritten:
    grid, mpp = next(iter(maps.values())).grid, slide.require_mpp()
    token_um = YX(grid.token_px.y * mpp.y, grid.token_px.x * mpp.x)
    return HeadsWritten(
        job.out, plan.region, plan.is_cut, tuple(maps), grid.rows, grid.columns, token_um, forwarded
    )  # fmt: skip


def _ranked(
    written: HeadsWritten, folder: str, slide: Slide, looked: Looked, tissue: TissueMask | None
) -> HeadsWritten:
    with Project.open(folder, slide, writable=False) as project:
        region = () if looked.region is None else rank_region(project, looked, tissue)
        return replace(written, ranking=rank_looked(project, looked, tissue), region_ranking=region)


def _told(region: Region) -> str:
    return f"{region.y},{region.x},{region.height},{region.width}"
