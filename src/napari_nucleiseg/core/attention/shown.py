"""From what transformers said of a view to the one map that is shown of it: head, layer, level, scale, average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.attention.compose import PUBLISHED, all_pairs, composed, laid_out, over_heads
from napari_nucleiseg.core.attention.grid import TokenGrid
from napari_nucleiseg.core.attention.look import Looked
from napari_nucleiseg.core.attention.overlap import Averaged, averaged
from napari_nucleiseg.core.attention.scaling import Scale, scaled
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.tissue import TissueMask
from napari_nucleiseg.core.store.tokens import PatchTokens

Level = Literal["patch", "region", "both"]
MEAN, MAX, ROLLOUT = "mean", "max", "rollout"


@dataclass(frozen=True, slots=True)
class MapWish:
    """Which map; frozen and comparable.

    Parameters
    ----------
    level : {"patch", "region", "both"}
        What is looked at within each patch, which patches are looked at, or both put together.
    head, region_head : str
        A number from ``"0"``, ``mean``, ``max`` or ``rollout``.
    layer, region_layer : int
        From 0; -1 is the last.
    weight : float
        Of the region where both are put together, 0..1.
    scale : {"percentile", "share", "raw"}
        See `scaling.scaled`; both together are put together of percentiles unless it is ``share``.
    """

    level: Level = "patch"
    head: str = "0"
    layer: int = -1
    region_head: str = MEAN
    region_layer: int = -1
    weight: float = PUBLISHED
    scale: Scale = "percentile"


@dataclass(frozen=True, slots=True, eq=False)
class ShownMap:
    """One map over a part of a slide.

    Parameters
    ----------
    values : ndarray of float32, shape (rows, columns)
        NaN on glass and where nothing is known yet.
    grid : TokenGrid
        Where they lie, level-0 pixels.
    limits : tuple of float
        Least and most, for colours: 0..1 of percentiles, else 0 and nearly the largest value.
    """

    values: NDArray[np.float32]
    grid: TokenGrid
    limits: tuple[float, float]


def shown_map(looks: Sequence[Looked], wish: MapWish, tissue: TissueMask | None = None) -> ShownMap:
    """Return the map that is wished for.

    Parameters
    ----------
    looks : sequence of Looked
        One rectangle of patches on one grid, or several grids that are shifted against each other.
    wish : MapWish
        Which map.
    tissue : TissueMask, optional
        Glass is left out where it is given.

    Raises
    ------
    DataError
        If the region has not been looked at, or there is no such head.
    """
    if wish.level == "patch":
        return _placed(_of_patches(looks, wish, tissue), looks, wish)
    if wish.level == "region":
        return _placed(_of_region(looks, wish, tissue), looks, wish)
    fine, coarse = _of_patches(looks, wish, tissue), _of_region(looks, wish, tissue)
    values = composed(
        coarse.scores, fine.scores, weight=wish.weight, region_coverage=coarse.coverage, patch_coverage=fine.coverage
    )
    return _placed(replace(fine, scores=_on_tissue(values, fine)), looks, wish)


def all_heads(looks: Sequence[Looked], wish: MapWish, tissue: TissueMask | None = None) -> dict[str, ShownMap]:
    """Return the maps of every head of the wished level and layer, by their names in `MapWish`.

    Of both levels together all pairs, named ``head,region head``.
    """
    patch = [*(str(head) for head in range(looks[0].plan.spec.heads)), MEAN, MAX, ROLLOUT]
    region = [] if looks[0].region is None else [*map(str, range(looks[0].region.attention.shape[1]))]
    if wish.level == "patch":
        return {head: shown_map(looks, replace(wish, head=head), tissue) for head in patch}
    if wish.level == "region":
        every = [*region, MEAN, MAX, ROLLOUT]
        return {head: shown_map(looks, replace(wish, region_head=head), tissue) for head in every}
    fine = [_of_patches(looks, replace(wish, head=head), tissue) for head in patch[: looks[0].plan.spec.heads]]
    coarse = [_of_region(looks, replace(wish, region_head=head), tissue) for head in region]
    pairs = all_pairs(
        np.stack([one.scores for one in coarse]),
        np.stack([one.scores for one in fine]),
        weight=wish.weight,
        region_coverage=coarse[0].coverage,  # of all heads alike
        patch_coverage=fine[0].coverage,
    )
    return {
        f"{head},{other}": _placed(replace(one, scores=_on_tissue(pairs[row, column], one)), looks, wish)
        for row, other in enumerate(region)
        for column, (head, one) in enumerate(zip(patch, fine, strict=False))
    }


def query_map(looked: Looked, tile: int, attention: NDArray[np.float32], wish: MapWish) -> ShownMap:
    """Return what one token of a patch attends to, over that patch.

    Parameters
    ----------
    looked : Looked
        Of the rectangle that the patch is in.
    tile : int
        Number of the patch on the slide's grid.
    attention : ndarray of float32, shape (layers, heads, side, side)
        Of the token.
    wish : MapWish
        Which head and layer.
    """
    plan = looked.plan
    maps = _one_head(attention[_layer(wish.layer, len(attention))][None], wish.head, None)
    values = scaled(maps[0], wish.scale)
    row, column = plan.place_of(tile)
    step, side = plan.token_step, plan.spec.side
    origin = YX(plan.origin.y + row * side * step.y, plan.origin.x + column * side * step.x)
    return ShownMap(values, TokenGrid(side, side, step, origin), _limits(values, wish.scale))


def region_query_map(looked: Looked, said: PatchTokens, wish: MapWish) -> ShownMap:
    """Return what one patch of a region attends to, over all of its patches.

    Parameters
    ----------
    looked : Looked
        Of the rectangle of patches.
    said : PatchTokens
        Of the region encoder when that patch was asked.
    wish : MapWish
        Which head and layer of the region.
    """
    plan = looked.plan
    layer = said.attention[_layer(wish.region_layer, len(said.attention))].astype(np.float32)
    values = scaled(_one_head(layer[None], wish.region_head, said.rollout)[0], wish.scale)
    step = YX(*(plan.spec.input_px * side for side in plan.grid.downsample))
    return ShownMap(values, TokenGrid(plan.rows, plan.columns, step, plan.origin), _limits(values, wish.scale))


def tissue_cells(looked: Looked, tissue: TissueMask | None) -> NDArray[np.float32]:
    """Return how much of each patch is tissue, ``(rows, columns)`` float32 in 0..1."""
    plan = looked.plan
    side = plan.spec.side
    tokens = plan.tissue_fractions(tissue).reshape(plan.rows, side, plan.columns, side)
    return np.asarray(tokens.mean(axis=(1, 3)), np.float32)


def _placed(found: Averaged, looks: Sequence[Looked], wish: MapWish) -> ShownMap:
    """Return an averaged map where it lies on the slide."""
    plan = looks[0].plan
    step = YX(*(found.step_px * side for side in plan.grid.downsample))
    rows, columns = found.scores.shape
    return ShownMap(found.scores, TokenGrid(rows, columns, step, plan.origin), _limits(found.scores, wish.scale))


def _on_tissue(values: NDArray[np.float32], fine: Averaged) -> NDArray[np.float32]:
    """Return both levels together, uncoloured where patches are: region cells are coarser than the tissue."""
    return np.where(np.isnan(fine.scores), np.float32(np.nan), values)


def _of_patches(looks: Sequence[Looked], wish: MapWish, tissue: TissueMask | None) -> Averaged:
    maps = []
    for looked in looks:
        plan = looked.plan
        if wish.head == ROLLOUT:
            raw = looked.rollout()
        elif wish.head in {MEAN, MAX}:
            raw = over_heads(np.moveaxis(looked.attention(_layer(wish.layer, plan.spec.depth)), 0, -3), wish.head)  # type: ignore[arg-type]
        else:
            head = _head(wish.head, plan.spec.heads)
            raw = looked.attention(_layer(wish.layer, plan.spec.depth), head)
        inside = None
        if tissue is not None:
            side = plan.spec.side
            tokens = plan.tissue_fractions(tissue).reshape(plan.rows, side, plan.columns, side)
            inside = np.moveaxis(tokens, 2, 1) > 0
        unknown = np.isnan(raw)
        values = scaled(np.nan_to_num(raw), wish.scale, tissue=inside)
        values[unknown] = np.nan
        maps.append(np.asarray(laid_out(values), np.float32))
    return averaged(maps, [looked.plan.shift_px for looked in looks], looks[0].plan.spec.patch_px)


def _of_region(looks: Sequence[Looked], wish: MapWish, tissue: TissueMask | None) -> Averaged:
    maps = []
    for looked in looks:
        if looked.region is None:
            raise DataError(
                "The region is looked at once all of its patches are; choose an encoder of regions and wait."
            )
        attention = looked.region.attention
        layer = attention[_layer(wish.region_layer, len(attention))].astype(np.float32)
        raw = _one_head(layer[None], wish.region_head, looked.region.rollout)[0]
        inside = None if tissue is None else tissue_cells(looked, tissue) > 0
        maps.append(scaled(raw, wish.scale, tissue=inside))
    return averaged(maps, [looked.plan.shift_px for looked in looks], looks[0].plan.spec.input_px)


def _one_head(heads: NDArray[np.float32], wanted: str, rollout: NDArray[np.float16] | None) -> NDArray[np.float32]:
    """Return ``(1, rows, columns)`` of ``(1, heads, rows, columns)``."""
    if wanted == ROLLOUT and rollout is not None:
        return rollout.astype(np.float32)[None]
    if wanted in {MEAN, ROLLOUT}:
        return over_heads(heads, "mean")
    if wanted == MAX:
        return over_heads(heads, "max")
    return heads[:, _head(wanted, heads.shape[1])]


def _head(name: str, count: int) -> int:
    if not name.isdecimal() or int(name) >= count:
        raise DataError(f"there is no head {name}; there are {count}, counted from 0, and {MEAN}, {MAX}, {ROLLOUT}")
    return int(name)


def _layer(layer: int, count: int) -> int:
    if not -count <= layer < count:
        raise DataError(f"there is no layer {layer + 1}; there are {count}")
    return layer % count


def _limits(values: NDArray[np.float32], scale: Scale) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if scale == "percentile" or not known.size:
        return 0.0, 1.0
    return 0.0, max(float(np.quantile(known, 0.995)), 1e-6)
