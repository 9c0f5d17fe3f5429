"""The run's memory: one line a finished slide, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.slides.fingerprint import is_same
from napari_nucleiseg.core.store.finding import last_written

NAME = "segmented.jsonl"
_WRITES = "writes"
# What a Zarr store, version 3 or 2, says of itself.
_OF_STORES = ("zarr.json", ".zattrs", ".zgroup")


@dataclass(frozen=True, slots=True)
class Entry:
    """A slide that is done.

    Parameters
    ----------
    stem : str
        Name of its results; two copies of one slide each have their own.
    path : str
        Of the slide.
    fingerprint : str
        Of its content.
    settings : str
        All that decides what comes out: weights, options, region, formats.
    outputs : list of str
        Names inside the output folder.
    nuclei : int
        Found.
    written : float or None
        When the last of the outputs was written, by the clock of their drive; former versions did not note it.
    """

    stem: str
    path: str
    fingerprint: str
    settings: str
    outputs: list[str]
    nuclei: int
    written: float | None = field(default=None, compare=False)


class Record:
    """``segmented.jsonl`` in the output folder; lines are only ever added.

    Parameters
    ----------
    folder : Path
        Output folder; made if need be.

    Raises
    ------
    StoreError
        If the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME
        # By name of the results and settings, then by fingerprint.
        self._entries: dict[tuple[str, str], dict[str, Entry]] = {}
        self._writers: dict[str, Entry] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path.touch()
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise StoreError(
                f"nothing can be written to {folder} ({error.strerror or error}); choose another folder"
            ) from error
        # A line that a crash cut off must not swallow the next one.
        self._torn = bool(text) and not text.endswith("\n")
        for line in _lines(text):
            try:
                entry = Entry(**line)
            except TypeError:
                continue
            self._remember(entry)

    def _remember(self, entry: Entry) -> None:
        # What a former version noted is not found any more: one that tells more of the slide takes its place.
        known = self._entries.setdefault((entry.stem, entry.settings), {})
        for fingerprint in [one for one in known if is_same(one, entry.fingerprint)]:
            del known[fingerprint]
        known[entry.fingerprint] = entry
        self._writers.update(dict.fromkeys(entry.outputs, entry))

    def find(self, stem: str, fingerprint: str, settings: str) -> Entry | None:
        """Return the entry of a slide done with the same settings, or None.

        It counts only while all its results are there and nobody has written to them since: neither a run with other
        settings, nor a batch run, nor who edits the project. That of a former version is noted anew, so that later
        another picture is told from this one.

        Raises
        ------
        StoreError
            If the line cannot be written.
        """
        known = self._entries.get((stem, settings), {})
        same = (known[one] for one in known if is_same(one, fingerprint))
        entry = known.get(fingerprint) or next(same, None)
        if entry is None:
            return None
        if not all(self._writers[name] is entry and (self._folder / name).exists() for name in entry.outputs):
            return None
        if entry.written is not None and self._last_written(entry.outputs) > entry.written:
            return None
        if entry.fingerprint != fingerprint:
            entry = replace(entry, fingerprint=fingerprint)
            self.add(entry)
        return entry

    def add(self, entry: Entry) -> None:
        """Remember a finished slide, whose results are written and whose project is closed.

        Raises
        ------
        StoreError
            If the line cannot be written.
        """
        entry = replace(entry, written=self._last_written(entry.outputs))
        self._append(asdict(entry))
        self._remember(entry)

    def _last_written(self, names: Iterable[str]) -> float:
        return max((_written(self._folder / name) for name in names), default=0.0)

    def begin(self, outputs: Iterable[str]) -> None:
        """Note names that are about to be written: they are known as results even if the slide is never finished.

        Parameters
        ----------
        outputs : iterable of str
            Names inside the output folder.

        Raises
        ------
        StoreError
            If the line cannot be written.
        """
        if names := list(outputs):
            self._append({_WRITES: names})

    def _append(self, line: dict[str, Any]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" * self._torn + json.dumps(line) + "\n")
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror or error}") from error
        self._torn = False


def recorded_names(folder: Path) -> frozenset[str]:
    """Return the names inside a folder that runs have written or begun to write; none if nothing is recorded."""
    try:
        text = (folder / NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    listed = (line.get(key) for line in _lines(text) for key in ("outputs", _WRITES))
    return frozenset(name for names in listed if isinstance(names, list) for name in names if isinstance(name, str))


def _written(result: Path) -> float:
    """Return when a result was written; who only looks at a project or store touches its folder, but not its files."""
    stores = [result / name for name in _OF_STORES]
    try:
        of_store = max((path.stat().st_mtime for path in stores if path.is_file()), default=0.0)
        return last_written(result) or of_store or result.stat().st_mtime
    except OSError:
        return 0.0  # gone, and so no result any more


def _lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue  # cut off by a crash: that slide is done again
        if isinstance(said, dict):
            yield said
