"""The data set of a run that learns from shapes: windows of all slides, labelled once, some of them held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from napari_nucleiseg.core.errors import DataError, SlideError
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.training.by_shape.config import ByShapeConfig
from napari_nucleiseg.core.training.scales.samples import ScaleSource
from napari_nucleiseg.core.training.scales.shape_set import label_windows, windows_to_label

LEARNED, HELD_OUT = "learned", "held-out"
# Of all slides together: 3 MB of memory each.
MOST_WINDOWS = 480
_DONE = "labels.json"
# Coarser slides do not show the shape of a nucleus.
COARSEST_UM = 0.75
NO_NUCLEI = (
    "no nucleus was found by its shape on these slides: they need tissue stained with haematoxylin, scanned at 0.5 "
    "micrometres per pixel or finer. Choose other slides, or let attention learn from the magnification alone."
)


@dataclass(frozen=True, slots=True)
class Labelling:
    """How far labelling has come.

    Parameters
    ----------
    name : str
        Of the slide at hand.
    nuclei : int
        Found on it so far.
    done, total : int
        Windows labelled so far, windows of all slides; a slide with less tissue has fewer, which count as labelled.
    note : str
        Why the slide is passed over; else empty.
    """

    name: str
    nuclei: int
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Labels:
    """Where the labelled windows lie.

    Parameters
    ----------
    folder : Path
        With `LEARNED` and, if `measured`, `HELD_OUT`: data sets as `train` takes them.
    nuclei : int
        To learn from.
    measured : tuple of str
        Names of the windows to measure on; none where nothing is held out.
    fullest : str
        Name of the window to learn from that has the most nuclei.
    """

    folder: Path
    nuclei: int
    measured: tuple[str, ...]
    fullest: str


def label_slides(
    config: ByShapeConfig, spec: ModelSpec, learned: Sequence[ScaleSource], held_out: Sequence[ScaleSource]
) -> Generator[Labelling, None, Labels]:
    """Label windows of each slide, unless an earlier run has done it; what it returns is where they are.

    Parameters
    ----------
    config : ByShapeConfig
        The run.
    spec : ModelSpec
        Of the network that is to learn.
    learned, held_out : sequence of ScaleSource
        Slides to learn from and to measure on. Without any to measure on, some windows of each slide are held out.

    Yields
    ------
    Labelling
        One a window, and one for a slide that is passed over: it cannot be read, is too coarse, or has no tissue.

    Raises
    ------
    DataError
        If no nucleus was found, or the folder cannot be written to.
    """
    parts = _parted(learned, held_out)
    folder = windows_folder(config, spec, learned, held_out)
    if (known := _read(folder)) is not None:
        return known
    labeller = _Labeller(config, spec, folder, len(parts))
    if not held_out and config.hold_out:
        labeller.hold_out_every = max(2, round(1 / config.hold_out))
    for place, (source, part) in enumerate(parts):
        yield from labeller.label(place, source, part)
    if not labeller.nuclei:
        raise DataError(NO_NUCLEI)
    measured = _to_measure(labeller.held_out, config.measured)
    labels = Labels(folder, labeller.nuclei, measured, labeller.fullest[1])
    _write(labels)
    return labels


def windows_folder(
    config: ByShapeConfig, spec: ModelSpec, learned: Sequence[ScaleSource], held_out: Sequence[ScaleSource]
) -> Path:
    """Return where `label_slides` writes: a folder for these slides, their pixel sizes and these settings alone."""
    return Path(config.out) / f"windows-{_digest(config, spec, _parted(learned, held_out))}"


def _parted(learned: Sequence[ScaleSource], held_out: Sequence[ScaleSource]) -> list[tuple[ScaleSource, str]]:
    return [*((source, LEARNED) for source in learned), *((source, HELD_OUT) for source in held_out)]


@dataclass(slots=True)
class _Labeller:
    """Labels slide after slide, and counts."""

    config: ByShapeConfig
    spec: ModelSpec
    folder: Path
    slides: int
    hold_out_every: int = 0
    nuclei: int = 0
    fullest: tuple[int, str] = (0, "")
    held_out: list[list[tuple[int, str]]] = field(default_factory=list)

    @property
    def each(self) -> int:
        """Windows of each slide: all of them are in memory while it learns."""
        return min(self.config.windows, max(1, MOST_WINDOWS // self.slides))

    def label(self, place: int, source: ScaleSource, part: str) -> Iterator[Labelling]:
        try:
            yield from self._label(place, source, part)
        except SlideError as error:
            yield self._passed_over(place, source, str(error))

    def _passed_over(self, place: int, source: ScaleSource, reason: str) -> Labelling:
        note = f"{source.name} is passed over: {reason.rstrip('.')}."
        return Labelling(source.name, 0, (place + 1) * self.each, self.slides * self.each, note)

    def _label(self, place: int, source: ScaleSource, part: str) -> Iterator[Labelling]:
        config, spec, slide = self.config, self.spec, source.slide
        begun, total = place * self.each, self.slides * self.each
        choice = {"most": self.each, "seed": config.seed, "tissue": config.tissue}
        if (mpp_um := max(slide.require_mpp())) > COARSEST_UM:
            reason = f"{mpp_um:.3g} µm per pixel are too coarse, 0.5 or less are needed"
            yield self._passed_over(place, source, reason)
            return
        try:
            windows = windows_to_label(slide, spec, source.regions, **choice)  # type: ignore[arg-type]
        except DataError as error:
            yield self._passed_over(place, source, str(error))
            return
        found = 0
        # At least one, unless it is all there is.
        every = min(self.hold_out_every, len(windows)) if len(windows) > 1 else 0
        self.held_out.append([])
        labelled = label_windows(slide, f"{place:03}-{source.name}", spec, windows)
        for number, window in enumerate(labelled, start=1):
            is_held_out = part == HELD_OUT or (every and number % every == 0)
            window.write(self.folder / (HELD_OUT if is_held_out else LEARNED))
            found += window.nuclei
            if is_held_out:
                self.held_out[-1].append((window.nuclei, window.name))
            else:
                self.nuclei += window.nuclei
                self.fullest = max(self.fullest, (window.nuclei, window.name))
            yield Labelling(source.name, found, begun + number, total)


def _to_measure(held_out: Sequence[Sequence[tuple[int, str]]], most: int) -> tuple[str, ...]:
    """Choose windows with many nuclei, of all slides in turn."""
    in_turn = zip_longest(*(sorted(windows, reverse=True) for windows in held_out))
    found = [window for turn in in_turn for window in turn if window is not None and window[0]]
    return tuple(name for _, name in found[:most])


def _digest(config: ByShapeConfig, spec: ModelSpec, parts: Sequence[tuple[ScaleSource, str]]) -> str:
    """Tell one set of labels from another: slides, their pixel sizes and parts, and what they are labelled for."""
    seen = [
        (source.slide.fingerprint or source.name, source.slide.mpp_um, str(source.regions), part)
        for source, part in parts
    ]
    told = [spec.mpp_um, spec.size_multiple, config.windows, config.seed, config.tissue, config.hold_out]
    return hashlib.sha256(json.dumps([seen, told, config.measured]).encode()).hexdigest()[:8]


def _write(labels: Labels) -> None:
    told = {"nuclei": labels.nuclei, "measured": labels.measured, "fullest": labels.fullest}
    try:
        write_over(labels.folder / _DONE, json.dumps(told).encode())
    except OSError as error:
        raise DataError(f"{labels.folder} cannot be written to: {error}; choose another folder") from error


def _read(folder: Path) -> Labels | None:
    """Return what an earlier run has labelled; it says so only when all of it is written."""
    try:
        told = json.loads((folder / _DONE).read_text(encoding="utf-8"))
        return Labels(folder, int(told["nuclei"]), tuple(told["measured"]), told["fullest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
