"""Which files of a folder are results of earlier runs: they may be replaced, and are not segmented; others may not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from napari_nucleiseg.core.batch.record import recorded_names
from napari_nucleiseg.core.batch.unattended.database import read_run_database
from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.exchange.marks import first_page, is_our_store
from napari_nucleiseg.core.exchange.source import SOFTWARE
from napari_nucleiseg.core.exchange.spatial_data import is_export

WRITES = "writes"
"""Key of what is told of a slide in a run's database: names of what is, or was, written for it."""

FOLDERS = ("attention", "features", "pictures")
"""Folders beside the projects in which batch runs write."""

_TIFF_SUFFIXES = (".tif", ".tiff")


class EarlierResults:
    """Results of earlier runs in a folder, by what the runs noted and by what files say of themselves.

    Parameters
    ----------
    folder : Path
        Nothing is written there; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hold(self, path: Path) -> bool:
        """Whether a file or folder in the folder is such a result."""
        name = path.relative_to(self._folder).as_posix()
        if path.is_dir():
            return name in self.names or is_our_store(path) or is_export(path)
        if path.suffix.lower() not in _TIFF_SUFFIXES or "/" in name:
            return name in self.names
        page = first_page(path)
        if page is None:
            return name in self.names
        # A person may have put a picture under a name that a run has used.
        software, is_labels = page
        return is_labels and (software == SOFTWARE or name in self.names)

    def name_of(self, output: str) -> str:
        """Return the name in the folder of what a batch run noted, maybe before the folder was moved."""
        return _inside(self._folder.absolute(), Path(output))

    @cached_property
    def names(self) -> frozenset[str]:
        """What the runs noted, relative to the folder."""
        return recorded_names(self._folder) | frozenset(_of_batches(self._folder.absolute()))


def _of_batches(folder: Path) -> Iterator[str]:
    try:
        slides, _ = read_run_database(folder)
    except StoreError:
        return  # there was none, or it cannot be read: then files count as people's own
    for row in slides.values():
        yield from row.told.get(WRITES, ())
        for output in filter(None, (*row.outputs, row.told.get("picture"))):
            yield _inside(folder, Path(output))


def _inside(folder: Path, path: Path) -> str:
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    # The folder of results was moved.
    return f"{path.parent.name}/{path.name}" if path.parent.name in FOLDERS else path.name
