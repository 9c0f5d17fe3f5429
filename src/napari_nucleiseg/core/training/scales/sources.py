"""Slides of a run: opened, parted into those to learn from and those to measure on, and closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

import numpy as np

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.slides.registry import can_open, open_slide
from napari_nucleiseg.core.training.scales.config import SlideSet, UnlabelledConfig
from napari_nucleiseg.core.training.scales.samples import ScaleSource

Made = TypeVar("Made")


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
    sources: Sequence[ScaleSource], share: float, seed: int, suits: Callable[[ScaleSource], bool] = lambda _: True
) -> tuple[list[ScaleSource], list[ScaleSource]]:
    """Part slides into those to learn from and those to measure on, never a slide into both.

    Parameters
    ----------
    sources : sequence of ScaleSource
        All slides; of one that is there more than once, as with several regions, all go to the same part.
    share : float
        Of the slides to measure on; at least one if it is above 0 and there are two.
    seed : int
        Chooses them.
    suits : callable
        Whether a slide can be measured on; one of these is always left to learn from.
    """
    slides = list(dict.fromkeys(_slide_of(source) for source in sources))
    fit = list(dict.fromkeys(_slide_of(source) for source in sources if suits(source)))
    count = min(max(round(share * len(slides)), 1), max(len(fit) - 1, 0)) if share > 0 else 0
    held = {fit[place] for place in np.random.default_rng(seed).permutation(len(fit))[:count].tolist()}
    learned = [source for source in sources if _slide_of(source) not in held]
    return learned, [source for source in sources if _slide_of(source) in held]


def _slide_of(source: ScaleSource) -> str:
    """Return what tells a slide from others, by whatever path and in whatever regions it is named."""
    return source.slide.fingerprint or source.name


def measured_on(held_out: Sequence[ScaleSource], make: Callable[[], Made]) -> Made:
    """Return what `make` makes of slides that are held out, or say of which slides it is that they do not suffice.

    Raises
    ------
    DataError
        With their names.
    """
    try:
        return make()
    except DataError as error:
        names = ", ".join(dict.fromkeys(source.name for source in held_out))
        raise DataError(
            f"what is held out to measure on ({names}) is of no use for that: {str(error).rstrip('.')}. Or leave it "
            "out, or name other slides to measure on (validate)."
        ) from error


@contextmanager
def opened(
    config: UnlabelledConfig,
    sources: Sequence[ScaleSource] | None,
    suits: Callable[[ScaleSource], bool] = lambda _: True,
) -> Iterator[tuple[list[ScaleSource], list[ScaleSource], list[tuple[str, str]]]]:
    """Give slides to learn from, slides to measure on, and name and licence of what is learned from.

    Slides that were opened here are closed after the block. Where none is named to measure on, they are chosen of those
    that the run says it `suits`.
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
        learned, held_out = (found, given) if given else part_by_slide(found, config.hold_out, config.seed, suits)
        yield learned, held_out, origins
    finally:
        for source in (*(found if sources is None else ()), *given):
            source.slide.close()
