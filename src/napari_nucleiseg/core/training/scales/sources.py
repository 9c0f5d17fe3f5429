"""Slides of a run: opened, parted into those to learn from and those to measure on, and closed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.slides.registry import can_open, open_slide
from napari_nucleiseg.core.training.scales.config import SlideSet, UnlabelledConfig
from napari_nucleiseg.core.training.scales.samples import ScaleSource


def open_sources(sets: Sequence[SlideSet]) -> list[ScaleSource]:
    """Open all slides and pictures of some sets.

    Raises
    ------
    DataError
        If a folder holds none that matches.
    SlideError
        If one cannot be opened or does not state its pixel size.
    """
    found = []
    for item in sets:
        path = Path(item.path)
        files = [path]
        if path.is_dir() and not can_open(path):
            files = [file for file in sorted(path.iterdir()) if can_open(file)]
            files = [file for file in files if any(fnmatch(file.stem, pattern) for pattern in item.include)]
            if not files:
                raise DataError(f"{path} holds no slide or picture that matches {', '.join(item.include)}")
        for file in files:
            slide = open_slide(file, mpp_um=item.mpp_um)
            slide.require_mpp()
            found.append(ScaleSource(file.stem, slide, item.boxes, item.licence))
    return found


def part_by_slide(
    sources: Sequence[ScaleSource], share: float, seed: int
) -> tuple[list[ScaleSource], list[ScaleSource]]:
    """Part slides into those to learn from and those to measure on, never a slide into both.

    Parameters
    ----------
    sources : sequence of ScaleSource
        All slides.
    share : float
        Of the slides to measure on; at least one if it is above 0 and there are two.
    seed : int
        Chooses them.
    """
    count = round(share * len(sources))
    if share > 0 and len(sources) > 1:
        count = min(max(count, 1), len(sources) - 1)
    held = set(np.random.default_rng(seed).permutation(len(sources))[:count].tolist())
    learned = [source for place, source in enumerate(sources) if place not in held]
    return learned, [source for place, source in enumerate(sources) if place in held]


@contextmanager
def opened(
    config: UnlabelledConfig, sources: Sequence[ScaleSource] | None
) -> Iterator[tuple[list[ScaleSource], list[ScaleSource], list[tuple[str, str]]]]:
    """Give slides to learn from, slides to measure on, and name and licence of what is learned from.

    Slides that were opened here are closed after the block.
    """
    found = open_sources(config.slides) if sources is None else list(sources)
    given = open_sources(config.validate)
    try:
        if not found:
            raise DataError("name at least one slide or folder of pictures to learn from (slides)")
        origins = [(item.title, item.licence) for item in config.slides if sources is None]
        origins += [(source.name, source.licence) for source in found if sources is not None]
        known = {source.slide.fingerprint for source in found}
        if twice := [source.name for source in given if source.slide.fingerprint in known]:
            raise DataError(f"{twice[0]} is both learned from and measured on; leave it out of one of them")
        learned, held_out = (found, given) if given else part_by_slide(found, config.hold_out, config.seed)
        yield learned, held_out, origins
    finally:
        for source in (*(found if sources is None else ()), *given):
            source.slide.close()
