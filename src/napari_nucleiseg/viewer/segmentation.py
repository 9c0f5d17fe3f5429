"""One segmentation from wish to nuclei, as a generator that a job runs; knows neither napari nor threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.spec import SLIDE_LEVEL
from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.opened import OpenedSlide

if TYPE_CHECKING:
    from napari_nucleiseg.core.decoders.base import DecodeOptions
    from napari_nucleiseg.core.inference.plan import InferencePlan
    from napari_nucleiseg.core.models.weights import LoadedModel
    from napari_nucleiseg.core.slides.tissue import TissueMask
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.viewer.messages import Progress

# Maps of more tiles than this are not kept: about 5 bytes a model pixel before compression.
KEEP_MAPS_TILES = 1000
SHAPE_MASK_PX = 4096


class FolderNeededError(StoreError):
    """The project cannot be made in its usual place; the user must say where."""


class InUseError(StoreError):
    """Another program writes to the results; the user must say whether to take its place."""


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """What is to be segmented, and how.

    Parameters
    ----------
    opened : OpenedSlide
        The slide.
    model : str
        Name of the weights.
    options : DecodeOptions
        Threshold and smallest area.
    device : str
        Where to run.
    tissue_only : bool
        Whether to leave glass out.
    region : Region or None
        Level-0 pixels; None is the whole slide.
    polygon : ndarray of float, shape (n, 2), optional
        ``(y, x)`` level-0 pixels: only tiles that touch it.
    limit : int or None
        More tiles to compute than this are too many.
    again : bool
        Only decode anew what was predicted before.
    results_folder : str
        Where projects are kept; empty is beside the slide.
    thorough : bool
        Whether to look at every tile in eight positions.
    ignore_brown : bool
        Whether to take DAB out of the colours first.
    attention_level : str
        Of models of attention: whose level decides what is a nucleus, one of `LEVELS` of `core.models.spec`.
    """

    opened: OpenedSlide
    model: str
    options: DecodeOptions
    device: str
    tissue_only: bool
    region: Region | None
    polygon: NDArray[np.float64] | None = None
    limit: int | None = None
    again: bool = False
    results_folder: str = ""
    thorough: bool = False
    ignore_brown: bool = False
    attention_level: str = SLIDE_LEVEL

    def is_like(self, other: Wish) -> bool:
        """Whether both say the same but for the region."""
        names = ["opened", "model", "thorough", "ignore_brown", "options", "device", "tissue_only", "attention_level"]
        return all(getattr(self, name) == getattr(other, name) for name in names)

    @property
    def title(self) -> str:
        """What is being done, for people."""
        return "Updating" if self.again else "Segmenting"


def wish_of(session: Session, opened: OpenedSlide, region: Region | None, **more: Any) -> Wish:
    """Return the wish for a region with the session's settings; `more` are further fields of `Wish`."""
    return Wish(
        opened,
        model=session.model,
        thorough=session.thorough,
        ignore_brown=session.ignore_brown,
        options=session.options,
        device=session.device,
        tissue_only=session.tissue_only,
        region=region,
        results_folder=session.results_folder,
        attention_level=session.attention_level,
        **more,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """The work is known; `todo` tiles of the plan are not done yet; `too_many` says that none will be."""

    plan: InferencePlan
    model: LoadedModel
    key: str
    todo: int
    too_many: bool


@dataclass(frozen=True, slots=True)
class Told:
    """The engine has something to say."""

    sentence: str


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """A coarse mask of what to segment, on the slide.

    Parameters
    ----------
    mask : ndarray of bool, shape (y, x)
        From level-0 ``(0, 0)``.
    downsample : YX
        Level-0 pixels per pixel of the mask.
    """

    mask: NDArray[np.bool_]
    downsample: YX


def run(wish: Wish, engine: Engine, cancelled: Callable[[], bool]) -> Iterator[Any]:
    """Do what `wish` says.

    Yields
    ------
    Progress, Planned, Told, TileDone
        Each as soon as it is so; tissue and project are left with ``wish.opened``.

    Raises
    ------
    MissingPixelSizeError
        If the slide does not say how large its pixels are.
    LicenceNotAcceptedError
        If the weights' licence must be accepted first.
    FolderNeededError
        If the results cannot be kept in their usual place.
    NucleiSegError
        If slide, model or project fail.
    """
    opened = wish.opened
    opened.slide.require_mpp()
    loaded = engine.load(wish.model)
    tissue = opened.tissue
    if wish.tissue_only and tissue is None:
        opened.tissue = tissue = engine.tissue(opened.slide)
    plan = engine.plan(opened.slide, loaded.spec, wish.region, _cover(wish, tissue))
    project = writable_project(opened, engine, wish.results_folder, create=False)
    model, note = yield from _model(wish, loaded, engine)
    key = engine.options_key(plan, model, wish.options)
    if wish.again:
        kept = project.maps.tiles(model.version) if project is not None else ()
        plan = replace(plan, tiles=plan.tiles.only(kept))
    done = project.tiles_done(model.version, key) if project is not None else ()
    todo = len(plan.tiles.without(done))
    too_many = wish.limit is not None and todo > wish.limit
    yield Planned(plan, model, key, todo, too_many)
    if note and todo:
        yield Told(note)
    if too_many or todo == 0 or cancelled():
        return
    if project is None:
        project = open_project(opened, engine, wish.results_folder, create=True)
    told: list[str] = []
    for tile in engine.segment(
        opened.slide,
        model,
        project,
        plan,
        wish.options,
        device=wish.device,
        keep_maps=todo <= KEEP_MAPS_TILES,
        cancelled=cancelled,
        on_message=told.append,
    ):
        yield tile
        while told:
            yield Told(told.pop(0))


def _model(wish: Wish, loaded: LoadedModel, engine: Engine) -> Generator[Progress, None, tuple[LoadedModel, str]]:
    """Return the model as it is used on this slide, and what there is to say of that."""
    model, note = yield from engine.levels.model_for(loaded, wish.opened, wish.attention_level)
    return engine.looking(model, ignore_brown=wish.ignore_brown, thorough=wish.thorough), note


def writable_project(opened: OpenedSlide, engine: Engine, results_folder: str, *, create: bool) -> Project | None:
    """Open the results there are to change them; None if there are none and they are not to be made.

    Whoever is gone that wrote to them is replaced.

    Raises
    ------
    InUseError
        If another program writes to them.
    FolderNeededError
        See `open_project`.
    """
    project = _open_project(opened, engine, results_folder, create=create)
    if project is None or project.writable:
        return project
    if writer := engine.writer(project):
        raise InUseError(
            f"The results of this slide are in use by {writer}: you can look at them here, but not change them. "
            "Close the slide there and try again, or take over."
        )
    opened.close()
    return _open_project(opened, engine, results_folder, create=create)


def recall(opened: OpenedSlide, engine: Engine, results_folder: str) -> YX | None:
    """Open the results of earlier sessions; return the pixel size that they were made with, None if there are none.

    What the user said of the pixels then counts more than what the file says, unless the user has spoken again.
    """
    if not opened.mpp_was_given and opened.project is None:
        mpp_um = engine.remembered_pixel_size(opened.slide, _folder(opened, engine, results_folder))
        if mpp_um is not None:
            opened.mpp_was_remembered = mpp_um != opened.slide.mpp_um
            opened.slide = replace(opened.slide, mpp_um=mpp_um)
    project = open_project(opened, engine, results_folder, create=False)
    return None if project is None else project.mpp_um


def _folder(opened: OpenedSlide, engine: Engine, results_folder: str) -> Path:
    return opened.folder or engine.project_folder(opened.slide, results_folder)


@overload
def open_project(opened: OpenedSlide, engine: Engine, results_folder: str, *, create: Literal[True]) -> Project: ...
@overload
def open_project(
    opened: OpenedSlide, engine: Engine, results_folder: str, *, create: Literal[False]
) -> Project | None: ...
def open_project(opened: OpenedSlide, engine: Engine, results_folder: str, *, create: bool) -> Project | None:
    """Open the slide's project once, or return None if there is none and it is not to be made.

    Raises
    ------
    FolderNeededError
        If it cannot be made where it belongs.
    """
    return _open_project(opened, engine, results_folder, create=create)


def _open_project(opened: OpenedSlide, engine: Engine, results_folder: str, *, create: bool) -> Project | None:
    if opened.project is None:
        folder = _folder(opened, engine, results_folder)
        try:
            opened.project = engine.open_project(opened.slide, folder, create=create)
        except StoreError as error:
            if create:
                raise FolderNeededError(str(error)) from error
    return opened.project


def _cover(wish: Wish, tissue: TissueMask | None) -> Any:
    """Return the mask of what to compute: tissue, the polygon, both, or None for everything."""
    used = tissue if wish.tissue_only else None
    if wish.polygon is None:
        return used
    inside = polygon_cover(wish.polygon, wish.opened.slide.shape)
    if used is None:
        return inside
    factor = np.broadcast_to(np.asarray(used.downsample, float), (2,))
    height, width = inside.mask.shape
    rows = np.clip(((np.arange(height) + 0.5) * inside.downsample.y / factor[0]).astype(int), 0, used.mask.shape[0] - 1)
    cols = np.clip(((np.arange(width) + 0.5) * inside.downsample.x / factor[1]).astype(int), 0, used.mask.shape[1] - 1)
    return Cover(inside.mask & used.mask[rows[:, None], cols[None, :]], inside.downsample)


def polygon_cover(polygon: NDArray[np.float64], shape: tuple[int, int]) -> Cover:
    """Return the mask of all coarse pixels that a polygon touches.

    Parameters
    ----------
    polygon : ndarray of float, shape (n, 2)
        ``(y, x)`` level-0 pixels.
    shape : tuple of int
        Level-0 ``(height, width)`` of the slide.
    """
    step = max(1.0, max(shape) / SHAPE_MASK_PX)
    mask = np.zeros((int(np.ceil(shape[0] / step)), int(np.ceil(shape[1] / step))), np.uint8)
    points = np.rint(polygon[:, ::-1] / step - 0.5).astype(np.int32)[:, None, :]
    cv2.fillPoly(mask, [points], (1,))
    cv2.polylines(mask, [points], isClosed=True, color=(1,))
    return Cover(mask.astype(bool), YX(step, step))
