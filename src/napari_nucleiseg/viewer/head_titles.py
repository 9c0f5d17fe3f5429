"""What heads and maps of them are called, and from what the user wishes to the map that is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_nucleiseg.state import BOTH, LAST_LAYER, MAX, MEAN, PATCHES, ROLLOUT, HeadWishes

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.shown import MapWish

_OVER_HEADS = {MEAN: "mean", MAX: "maximum", ROLLOUT: "rollout"}


def wish_of(wishes: HeadWishes) -> MapWish:
    """Return the map that the wishes mean."""
    from napari_nucleiseg.core.attention.shown import MapWish

    # The choices are those of the literals.
    level: Any = wishes.level
    values: Any = wishes.values
    return MapWish(level, wishes.head, wishes.layer, wishes.region_head, wishes.region_layer, wishes.weight, values)


def head_title(name: str) -> str:
    """Return what a head is called, counted from 1; of a pair ``head,region head`` both."""
    if "," in name:
        head, region_head = name.split(",")
        return f"{int(head) + 1} × {int(region_head) + 1}"
    return f"head {int(name) + 1}" if name.isdecimal() else _OVER_HEADS.get(name, name)


def title_of(wish: MapWish) -> str:
    """Return what a map is called."""
    layer = "" if wish.layer == LAST_LAYER else f", layer {wish.layer + 1}"
    region_layer = "" if wish.region_layer == LAST_LAYER else f", layer {wish.region_layer + 1}"
    patch, region = f"{head_title(wish.head)}{layer}", f"region {head_title(wish.region_head)}{region_layer}"
    return {PATCHES: patch, BOTH: f"{patch} and {region}"}.get(wish.level, region)
