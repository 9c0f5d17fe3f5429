"""The run's memory: one line a finished slide, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from napari_nucleiseg.core.errors import StoreError

NAME = "segmented.jsonl"


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
    """

    stem: str
    path: str
    fingerprint: str
    settings: str
    outputs: list[str]
    nuclei: int


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
        self._entries: dict[tuple[str, str, str], Entry] = {}
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
        for line in text.splitlines():
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):
                continue  # a line cut off by a crash: that slide is done again
            self._remember(entry)

    def _remember(self, entry: Entry) -> None:
        self._entries[entry.stem, entry.fingerprint, entry.settings] = entry
        self._writers.update(dict.fromkeys(entry.outputs, entry))

    def find(self, stem: str, fingerprint: str, settings: str) -> Entry | None:
        """Return the entry of a slide done with the same settings, or None.

        It counts only while all its results are there and no run with other settings has written over them.
        """
        entry = self._entries.get((stem, fingerprint, settings))
        if entry is None:
            return None
        intact = all(self._writers[name] is entry and (self._folder / name).exists() for name in entry.outputs)
        return entry if intact else None

    def add(self, entry: Entry) -> None:
        """Remember a finished slide.

        Raises
        ------
        StoreError
            If the line cannot be written.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" * self._torn + json.dumps(asdict(entry)) + "\n")
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror or error}") from error
        self._torn = False
        self._remember(entry)
