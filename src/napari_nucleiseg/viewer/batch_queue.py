"""The slides of an unattended run in the order in which they are worked through, and how far each is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from napari_nucleiseg.core.batch.job import SlideAdvanced, SlideFailed, SlideNoted, SlideStarted
from napari_nucleiseg.core.batch.unattended.database import DONE, FAILED, RUNNING, STOPPED, WAITING, SlideRow
from napari_nucleiseg.core.batch.unattended.job import BatchEvent, SlideDone, Stage
from napari_nucleiseg.core.batch.unattended.manifest import Entry

# What is done with a slide, one after the other, as runs call it.
PREPARING, SEGMENTING, MEASURING, ENCODING, WRITING = STAGES = tuple(
    stage.value for stage in Stage if stage is not Stage.OVER
)


@dataclass(frozen=True, slots=True)
class Row:
    """One slide.

    Parameters
    ----------
    entry : Entry
        Path, name of the results, what a manifest says.
    state : str
        ``waiting``, ``running``, ``done``, ``failed``, or ``stopped``: begun and gone on with by the next start.
    stage : str
        What is being done, while it runs.
    part, parts : int
        How far that is: tiles or blocks.
    tiles : int
        Of the whole slide; 0 as long as they are not known.
    tiles_skipped : int
        That could not be read or computed.
    nuclei : int
        Found so far.
    sentence, kind : str
        Why it failed, and the name of the error's class.
    notes : tuple of str
        What a person should know.
    is_added : bool
        Whether the user has put it here; otherwise the folder of results knows it from before.
    """

    entry: Entry
    state: str = WAITING
    stage: str = ""
    part: int = 0
    parts: int = 0
    tiles: int = 0
    tiles_skipped: int = 0
    nuclei: int = 0
    sentence: str = ""
    kind: str = ""
    notes: tuple[str, ...] = ()
    is_added: bool = True

    @property
    def path(self) -> str:
        """Of the slide; tells rows apart."""
        return self.entry.path

    @property
    def name(self) -> str:
        """Of the slide, for people."""
        return Path(self.entry.path).name or self.entry.stem


class Queue:
    """Rows by path; pure book-keeping."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._known: dict[str, SlideRow] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __getitem__(self, path: str) -> Row:
        return self._rows[path]

    def __contains__(self, path: object) -> bool:
        return path in self._rows

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All slides, in their order."""
        return tuple(row.entry for row in self)

    def count(self, state: str) -> int:
        """Return how many slides are in a state."""
        return sum(row.state == state for row in self)

    def add(self, entries: Iterable[Entry]) -> int:
        """Put slides at the end, each once; return how many are new. Results of two slides never get one name."""
        before = len(self)
        for entry in entries:
            held = self._rows.get(entry.path)
            if held is not None:
                # What a manifest says of a slide counts also if the slide is there already.
                said = replace(entry, stem=held.entry.stem, mpp_um=entry.mpp_um or held.entry.mpp_um)
                self._rows[entry.path] = replace(held, entry=said, is_added=True)
            else:
                self._rows[entry.path] = self._recalled(Row(replace(entry, stem=self._name(entry))))
        return len(self) - before

    def remove(self, paths: Collection[str]) -> None:
        """Take slides off the list; their results stay."""
        for path in paths:
            self._rows.pop(path, None)

    def know(self, slides: Iterable[SlideRow]) -> None:
        """Take over what a folder of results says; what another folder has said is forgotten."""
        self._known = {slide.path: slide for slide in slides}
        added = [row for row in self if row.is_added]
        self._rows = {
            path: self._recalled(Row(Entry(path, slide.stem, facts=_facts(slide)), is_added=False))
            for path, slide in self._known.items()
        }
        self.add(row.entry for row in added)

    def take(self, event: BatchEvent) -> str:
        """Note what happened; return the path of the slide that it concerns, empty for none."""
        path = getattr(event, "path", "")
        row = self._rows.get(path)
        if row is None:
            return ""
        if isinstance(event, SlideStarted):
            row = Row(row.entry, RUNNING, tiles=row.tiles, is_added=row.is_added)
        elif isinstance(event, SlideAdvanced):
            row = replace(row, stage=event.stage, part=event.done, parts=event.total, nuclei=event.nuclei)
        elif isinstance(event, SlideNoted):
            row = replace(row, notes=(*row.notes, event.sentence))
        elif isinstance(event, SlideFailed):
            row = replace(row, state=FAILED, sentence=event.reason, kind=event.kind)
        elif isinstance(event, SlideDone):
            row = replace(
                row, state=DONE, stage="", sentence="", kind="", nuclei=event.nuclei, tiles_skipped=event.skipped_tiles
            )
        self._rows[path] = row
        return path

    def settle(self) -> None:
        """Say of slides that nobody works on any more that they were begun."""
        for path, row in self._rows.items():
            if row.state == RUNNING:
                self._rows[path] = replace(row, state=STOPPED)

    def _recalled(self, row: Row) -> Row:
        """Return a row with what the folder of results says of it."""
        slide = self._known.get(row.path)
        if slide is None:
            return row
        return replace(
            row,
            # One that was killed could not say that it stopped.
            state=STOPPED if slide.state == RUNNING else slide.state,
            tiles=slide.tiles,
            tiles_skipped=slide.tiles_skipped,
            nuclei=slide.nuclei,
            sentence=slide.sentence,
            kind=slide.kind,
            notes=slide.notes,
        )

    def _name(self, entry: Entry) -> str:
        """Return a name of results that no other slide has: the former one, its own, or that of its folder, too."""
        if entry.path in self._known:
            return self._known[entry.path].stem
        taken = {row.entry.stem for row in self} | {slide.stem for slide in self._known.values()}
        name = entry.stem
        if name in taken:
            name = f"{Path(entry.path).parent.name}-{entry.stem}".lstrip("-")
        number = 2
        base = name
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        return name


def _facts(slide: SlideRow) -> dict[str, str]:
    """Return what a manifest had said of a slide."""
    return {str(name): str(said) for name, said in dict(slide.told.get("manifest") or {}).items()}
