"""From painted attention to patches: pixels as the encoder sees them, and how much of each token is painted how."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.attention.patches import PatchPlan, plan_patches
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.encoders import EncoderSpec
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.tissue import tissue_mask
from napari_nucleiseg.core.store.attention import DO_NOT_LOOK, LOOK_HERE, painted_boxes, read_attention
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.regions import HOLD_OUT, read_regions

# Paint on less than this, in tokens, is the end of a stroke that belongs to the next patch.
LEAST_TOKENS = 0.25
# Patches without paint that a slide gives, and how much of one must be tissue.
OTHERS, LEAST_TISSUE = 48, 0.5
_MOST_TRIES = 5000


@dataclass(frozen=True, slots=True, eq=False)
class PaintedPatch:
    """One patch of a slide on which people painted how a head should look.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (side, side, 3)
        RGB at the encoder's pixel size.
    look, avoid : ndarray of float32, shape (rows, columns)
        Share of each token that is painted "look here" and "do not look", 0..1; the rest is not painted.
    group : str
        Of the place: patches that touch are of one group, and are never divided between teaching and judging.
    slide, fingerprint : str
        Name of the slide, and what it is recognised by.
    row, column : int
        Of the patch on the slide's grid.
    held : bool
        Whether it lies in a region that is held out: it is judged by, never learnt from.
    """

    pixels: NDArray[np.uint8]
    look: NDArray[np.float32]
    avoid: NDArray[np.float32]
    group: str
    slide: str = ""
    fingerprint: str = ""
    row: int = 0
    column: int = 0
    held: bool = False


def collect_painted(project: Project, slide: Slide, spec: EncoderSpec) -> tuple[PaintedPatch, ...]:
    """Read all patches of a slide on which attention is painted; add up the answers of several slides.

    Parameters
    ----------
    project : Project
        With its paint; open for reading is enough.
    slide : Slide
        The project's slide.
    spec : EncoderSpec
        Of the encoder of patches whose grid they lie on.

    Returns
    -------
    tuple of PaintedPatch
        Row by row; empty if nothing is painted.

    Raises
    ------
    SlideError
        If the slide cannot be read.
    ModelError
        If it is no encoder of patches.
    """
    boxes = [box.intersect(slide.content) for box in painted_boxes(project)]
    plans = [plan_patches(slide, spec, box) for box in boxes if not box.is_empty]
    if not plans:
        return ()
    plan = plans[0]
    tiles = sorted({tile for one in plans for tile in one.tiles})
    aside = [region.box for region in read_regions(project.ledger.reader) if region.role == HOLD_OUT]
    found = [_patch(project, slide, plan, tile, aside) for tile in tiles]
    return _grouped([patch for patch in found if float((patch.look + patch.avoid).sum()) >= LEAST_TOKENS], plan)


def collect_unpainted(
    project: Project, slide: Slide, spec: EncoderSpec, count: int = OTHERS, seed: int = 0
) -> NDArray[np.uint8]:
    """Read patches of tissue without paint, none beside a painted one: there everything is to stay as it is.

    Parameters
    ----------
    project, slide, spec
        As in `collect_painted`.
    count : int
        Patches at most.
    seed : int
        Of the choice.

    Returns
    -------
    ndarray of uint8, shape (n, side, side, 3)
        n may be 0.
    """
    plan = plan_patches(slide, spec, slide.content, most=1)
    boxes = [box.intersect(slide.content) for box in painted_boxes(project)]
    painted = {tile for box in boxes if not box.is_empty for tile in _with_neighbours(plan, box)}
    tissue = tissue_mask(slide)
    tiles: list[int] = []
    order = np.random.default_rng(seed).permutation(len(plan.grid))[:_MOST_TRIES]
    for tile in order.tolist():
        if len(tiles) == count:
            break
        core = plan.grid.tile(tile).core.intersect(slide.content)
        if tile not in painted and not core.is_empty and tissue.fraction(core) >= LEAST_TISSUE:
            tiles.append(tile)
    if not tiles:
        return np.zeros((0, spec.input_px, spec.input_px, 3), np.uint8)
    return np.stack([plan.read(slide, tile) for tile in tiles])


def paint_fingerprint(patches: Sequence[PaintedPatch]) -> str:
    """Return what a set of painted patches is recognised by: changes with every stroke, not with their order."""
    each = sorted(
        hashlib.sha256(
            repr((patch.fingerprint, patch.row, patch.column, patch.held)).encode()
            + b"".join(np.ascontiguousarray(part).tobytes() for part in (patch.pixels, patch.look, patch.avoid))
        ).hexdigest()
        for patch in patches
    )
    return hashlib.sha256("".join(each).encode()).hexdigest()[:16]


def _patch(project: Project, slide: Slide, plan: PatchPlan, tile: int, aside: Sequence[Region]) -> PaintedPatch:
    row, column = divmod(tile, plan.grid.columns)
    side = plan.spec.input_px
    box = plan.grid.level0_of(Region(row * side, column * side, side, side))
    paint = read_attention(project, box)
    steps, places = plan.token_step, (row, column)
    down, across = (
        _shares(start, size, plan.spec.side, place * plan.spec.side * step, step)
        for start, size, place, step in zip((box.y, box.x), paint.shape, places, steps, strict=True)
    )
    look, avoid = (
        np.asarray(down @ (paint == kind).astype(np.float64) @ across.T, np.float32)
        for kind in (LOOK_HERE, DO_NOT_LOOK)
    )
    held = any(box.overlaps(other) for other in aside)
    return PaintedPatch(
        plan.read(slide, tile), look, avoid, "", project.slide_name, project.fingerprint, row, column, held
    )


def _shares(start: int, size: int, count: int, origin: float, step: float) -> NDArray[np.float64]:
    """Return how much of each of `count` tokens of `step` pixels each of `size` pixels covers, ``(tokens, pixels)``."""
    edges = origin + step * np.arange(count + 1)
    pixels = start + np.arange(size)
    from_, to = np.maximum(edges[:-1, None], pixels), np.minimum(edges[1:, None], pixels + 1)
    return np.asarray(np.clip(to - from_, 0, None) / step, np.float64)


def _grouped(patches: Sequence[PaintedPatch], plan: PatchPlan) -> tuple[PaintedPatch, ...]:
    """Give patches that touch, also at a corner, the same group."""
    mask = np.zeros((plan.grid.rows, plan.grid.columns), np.uint8)
    for patch in patches:
        mask[patch.row, patch.column] = 1
    _, numbers = cv2.connectedComponents(mask, connectivity=8)
    return tuple(
        replace(patch, group=f"{patch.fingerprint or patch.slide}:{numbers[patch.row, patch.column]}")
        for patch in patches
    )


def _with_neighbours(plan: PatchPlan, box: Region) -> list[int]:
    margin = int(np.ceil(plan.spec.input_px * max(plan.grid.downsample)))
    return [int(tile) for tile in plan.grid.indices_in(box.expand(margin))]
