"""The npe2 reader: slides, stacks and pictures, dropped on the window or opened from the menu."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from napari_nucleiseg.viewer.layers import LayerData

Read = Callable[[str | Sequence[str]], list[LayerData]]


def get_reader(path: str | Sequence[str]) -> Read | None:
    """Return a function that opens `path` (or each of several), or None if it is no slide. Cheap, never raises."""
    from napari_nucleiseg.core.slides.registry import can_open

    paths = [path] if isinstance(path, str) else list(path)
    return read_slides if paths and all(can_open(one) for one in paths) else None


def read_slides(path: str | Sequence[str]) -> list[LayerData]:
    """Open slides and stacks as image layers; pixels are read as they are looked at.

    Raises
    ------
    NucleiSegError
        If one of them cannot be opened; says why.
    """
    from napari_nucleiseg.core.slides.stacks import open_image
    from napari_nucleiseg.viewer.stack_layers import layers_of

    paths = [path] if isinstance(path, str) else list(path)
    return [layer for one in paths for layer in layers_of(open_image(one))]
