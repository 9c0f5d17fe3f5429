"""Which slides a run works through: files, folders, and manifests that say more about each."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_nucleiseg.core.batch.inputs import find_inputs, stem_of
from napari_nucleiseg.core.errors import DataError, SlideError
from napari_nucleiseg.core.slides.bytesource import is_address
from napari_nucleiseg.core.slides.pixelsize import given_mpp

SUFFIXES = (".csv", ".tsv")
_PATH, _MPP, _NAME = "path", "mpp", "name"


@dataclass(frozen=True, slots=True)
class Entry:
    """One slide of a run.

    Parameters
    ----------
    path : str
        File, folder or address.
    stem : str
        Name of its results.
    mpp_um : float or None
        Micrometres per pixel, if the manifest says so.
    facts : mapping of str to str
        The other columns of the manifest: case, stain, label ...; they are shown in the summary.
    """

    path: str
    stem: str
    mpp_um: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


def read_entries(paths: Iterable[str]) -> tuple[Entry, ...]:
    """Return the slides that files, folders and manifests name, in their order, each once.

    A manifest is a CSV (or TSV) file with a header. Its column ``path`` is relative to the manifest; ``mpp``
    (micrometres per pixel) and ``name`` (of the results) may be empty or missing, but no more than one column may be
    called so. Of other columns of one name the first counts; those without a name are passed over.

    Raises
    ------
    DataError
        If a manifest cannot be understood.
    SlideError
        If a folder holds no slide, or two slides would be written to one name.
    PixelSizeError
        If a manifest gives a pixel size that cannot be true.
    """
    entries: list[Entry] = []
    for path in paths:
        if Path(path).suffix.lower() in SUFFIXES and not is_address(path):
            entries += _of_manifest(Path(path))
        else:
            entries += [Entry(found.path, found.stem) for found in find_inputs([path])]
    once = {entry.path: entry for entry in entries}
    by_stem: dict[str, Entry] = {}
    for entry in once.values():
        other = by_stem.setdefault(entry.stem, entry)
        if other is not entry:
            raise SlideError(
                f"{other.path} and {entry.path} would both be written to {entry.stem}; give one of them another name "
                "in the column name of a manifest, or rename it"
            )
    if not by_stem:
        raise DataError("no slide is named; give slides, folders, or a manifest with at least one row")
    return tuple(by_stem.values())


def write_entries(path: Path, entries: Iterable[Entry]) -> None:
    """Write a manifest from which `read_entries` reads the same slides.

    Parameters
    ----------
    path : Path
        CSV file to write; its folder exists.
    entries : iterable of Entry
        What it lists, in this order.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    listed = tuple(entries)
    facts = dict.fromkeys(name for entry in listed for name in entry.facts)
    made = path.with_name(f"{path.name}.new")
    with made.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([_PATH, _NAME, _MPP, *facts])
        for entry in listed:
            mpp = "" if entry.mpp_um is None else repr(entry.mpp_um)
            writer.writerow([entry.path, entry.stem, mpp, *(entry.facts.get(name, "") for name in facts)])
    made.replace(path)


def _of_manifest(path: Path) -> list[Entry]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        # The name of a file need not be UTF-8, but then there is such a file.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            columns = [name.strip().lower() for name in next(reader, ())]
            rows = [(reader.line_num, _named(columns, row)) for row in reader]
        cells = [cell for _, said in rows if not _names_such_file(path, said) for cell in said.values()]
        "".join((*columns, *cells)).encode("utf-8", "surrogateescape").decode()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the manifest {path} cannot be read ({error}); save it as CSV in UTF-8") from error
    if _PATH not in columns:
        raise DataError(
            f"the manifest {path} has no column called path (it has {', '.join(columns) or 'none'}); name the slides "
            "there, one a row"
        )
    if twice := [name for name in (_PATH, _MPP, _NAME) if columns.count(name) > 1]:
        raise DataError(
            f"the manifest {path} has {columns.count(twice[0])} columns called {twice[0]}; keep the one that counts, "
            "and remove the others or call them something else"
        )
    return [_entry(path, line, said) for line, said in rows if said.get(_PATH)]


def _names_such_file(manifest: Path, said: Mapping[str, str]) -> bool:
    """Whether the path in a row is no UTF-8 and there is a file of that name."""
    given = said.get(_PATH, "")
    return any("\udc80" <= character <= "\udcff" for character in given) and (manifest.parent / given).exists()


def _named(columns: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    """Return what a row says by the names of its columns, which may be fewer or more than it has cells."""
    said: dict[str, str] = {}
    for name, cell in zip(columns, row, strict=False):
        if name:
            said.setdefault(name, cell.strip())
    return said


def _entry(manifest: Path, line: int, said: Mapping[str, str]) -> Entry:
    given = said[_PATH]
    path = given if is_address(given) or Path(given).is_absolute() else str(manifest.parent / given)
    facts = {name: value for name, value in said.items() if name not in {_PATH, _MPP, _NAME} and value}
    name = said.get(_NAME) or stem_of(path)
    if name != Path(name).name or name in {".", ".."}:
        raise DataError(f"{manifest}, line {line}: {name} is no name for results; leave out slashes")
    return Entry(path, name, _mpp(manifest, line, said.get(_MPP, "")), facts)


def _mpp(manifest: Path, line: int, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(f"{manifest}, line {line}: {text} is no number of micrometres per pixel") from error
    given_mpp(value)
    return value
