"""The slide's project: one folder with the label image, the maps, the nuclei table and what has been done."""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.fingerprint import is_same
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.about import bounds_of, corner_of, meta_of, name_of
from napari_nucleiseg.core.store.census import Census
from napari_nucleiseg.core.store.editor import Editor
from napari_nucleiseg.core.store.failure import explained, not_writable
from napari_nucleiseg.core.store.labels import LabelStore
from napari_nucleiseg.core.store.ledger import Ledger, read_meta, tiles_done, tiles_in
from napari_nucleiseg.core.store.lock import Holder, WriterLock, read_holder, user_name
from napari_nucleiseg.core.store.maps import MapStore
from napari_nucleiseg.core.store.nuclei import NucleiTable, TileNuclei
from napari_nucleiseg.core.store.redo import Parts, RedoLog
from napari_nucleiseg.core.store.tiles import TileWriter

DATABASE = "project.sqlite"
LABELS = "labels.zarr"
MAPS = "maps.zarr"
LOCK = "project.lock"
SCRATCH = "unfinished"


def default_folder(slide_path: str | os.PathLike[str]) -> Path:
    """Return the project's folder beside the slide: the slide's name with ``.nucleiseg`` for its ending."""
    path = Path(slide_path)
    return path.with_name(f"{path.stem or path.name}.nucleiseg")


class Project:
    """Everything that is kept about one slide; use `create`, `open` or `open_or_create`.

    One thread writes (`write_tile`, `flush`, `approve`); any thread reads (`labels.levels`, `nuclei_in`, `count_in`,
    `tiles_done`). What `write_tile` returned from survives a crash at any later instant.

    Attributes
    ----------
    folder : Path
        Where it lies.
    shape : tuple of int
        Level-0 ``(height, width)`` of the slide.
    mpp_um : YX
        Micrometres per level-0 pixel.
    corner : YX
        The level-0 pixel at which the part of the slide begins that holds pixels, where `Slide.bounds` says one.
    labels : LabelStore
        The label image; ``labels.levels`` are array-likes for napari and dask.
    ledger : Ledger
        The database.
    census : Census
        Counts and tables of regions.
    maps : MapStore
        What the network said, as far as it is kept.
    editor : Editor
        What people change, with its history.
    writable : bool
        Whether this process holds the writer's lock.
    """

    def __init__(self, folder: Path, lock: WriterLock | None) -> None:
        self.folder = folder
        self.writable = lock is not None
        self._lock = lock
        self._closed = False
        self._writing = threading.RLock()
        self.ledger = Ledger(folder / DATABASE, writable=self.writable)
        try:
            meta = self.ledger.meta()
            self.slide_name = meta["slide"]
            self.fingerprint = meta["fingerprint"]
            self.shape = int(meta["height"]), int(meta["width"])
            self.mpp_um = YX(float(meta["mpp_y_um"]), float(meta["mpp_x_um"]))
            self.corner = corner_of(meta)
            self.labels = LabelStore(folder / LABELS, self.shape, folder / SCRATCH, self.mpp_um, writable=self.writable)
            self.maps = MapStore(folder / MAPS, folder / SCRATCH, writable=self.writable)
            self.census = Census(self.ledger, self.shape)
            self._redo = RedoLog(self.labels, self.ledger)
            self._redo.replay()
            self._writer = TileWriter(self.labels, self.ledger, self.census, self._redo)
            parts = Parts(self.labels, self.ledger, self.census, self._redo)
            self.editor = Editor(parts, self.changing, user_name())
        except BaseException:
            self.ledger.close()
            raise

    @classmethod
    def create(cls, folder: str | os.PathLike[str], slide: Slide) -> Project:
        """Make the project of a slide in a folder that has none yet, and open it for writing.

        Raises
        ------
        StoreError
            If the folder holds a project already or cannot be written.
        MissingPixelSizeError
            If the slide does not state its pixel size.
        """
        folder = Path(folder).absolute()
        mpp = slide.require_mpp()
        if (folder / DATABASE).exists():
            raise StoreError(f"{folder} holds a project already. Open it, or choose another folder.")
        with explained(folder):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise StoreError(not_writable(folder)) from error
            lock = WriterLock(folder / LOCK)
            try:
                _prepare_scratch(folder)
                _create_labels(folder, slide, mpp)
                Ledger.create(folder / DATABASE, meta_of(slide, mpp)).close()
                return cls(folder, lock)
            except BaseException:
                lock.release()
                raise

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        slide: Slide | None = None,
        *,
        writable: bool = True,
        take_over: bool = False,
    ) -> Project:
        """Open the project in a folder.

        Parameters
        ----------
        folder : path
            Where it lies.
        slide : Slide, optional
            The slide it should belong to; not checked if None.
        writable : bool
            False: look on, whoever writes.
        take_over : bool
            Take the writer's lock even from a holder that seems alive.

        Raises
        ------
        StoreError
            If there is none, it belongs to another slide, somebody else writes, or it is damaged.
        """
        folder = Path(folder).absolute()
        if not (folder / DATABASE).is_file():
            raise StoreError(f"There is no project in {folder}. Segment a slide first, or choose another folder.")
        with explained(folder):
            _check_slide(folder, slide)
            lock = WriterLock(folder / LOCK, take_over=take_over) if writable else None
            try:
                if writable:
                    _prepare_scratch(folder)
                return cls(folder, lock)._following(slide)  # noqa: SLF001
            except BaseException:
                if lock is not None:
                    lock.release()
                raise

    @classmethod
    def open_or_create(cls, folder: str | os.PathLike[str], slide: Slide, *, writable: bool = True) -> Project:
        """Open the slide's project, made first where there is none. See `open` and `create`."""
        if (Path(folder) / DATABASE).exists() or not writable:
            return cls.open(folder, slide, writable=writable)
        return cls.create(folder, slide)

    def _following(self, slide: Slide | None) -> Self:
        """Note a slide's new name, which tells its project from a copy's; a fuller fingerprint with the next change."""
        name = self.slide_name if slide is None else name_of(slide)
        if self.writable and name != self.slide_name:
            self.slide_name = name
            self.ledger.writer.execute("UPDATE meta SET value = ? WHERE key = 'slide'", (name,))
        if slide is not None:
            if self.fingerprint != slide.fingerprint and 0 < len(self.fingerprint) <= len(slide.fingerprint):
                self.fingerprint = slide.fingerprint
                self.ledger.say("fingerprint", self.fingerprint)
            self.note_bounds(slide)
        return self

    def note_bounds(self, slide: Slide) -> None:
        """Take over where the slide's pixels begin, which former versions did not keep; kept with the next change."""
        said = bounds_of(slide)
        if said and corner_of(said) != self.corner:
            self.corner = corner_of(said)
            for key, value in said.items():
                self.ledger.say(key, value)

    def write_tile(self, nuclei: TileNuclei, model_version: str, options_key: str) -> None:
        """Take over the nuclei of one tile: into the image, the table and the list of tiles done, all or nothing.

        The result does not depend on the order in which tiles come. Of nuclei that two tiles both found (IoU > 0.5)
        the lower id stays; elsewhere a pixel shows the lowest id. Nuclei of another model version or other options
        that lie in the tile's core or under a new nucleus go. What a person made or approved is never touched.

        Parameters
        ----------
        nuclei : TileNuclei
            What the tile owns.
        model_version : str
            Who found them.
        options_key : str
            With which decoding options; another key makes earlier results stale.

        Raises
        ------
        StoreError
            If the disk is full, the lock was taken over or the project is open for reading only. Everything written
            before stays valid.
        """
        with self.changing():
            self._writer.write(nuclei, model_version, options_key)

    def flush(self, *, settle: bool = False) -> None:
        """Bring all changes into the files of ``labels.zarr``, so that other programs see them.

        Not needed for safety: what `write_tile` returned from survives a crash without it.

        Parameters
        ----------
        settle : bool
            Also wait until the disk has them for certain, and drop the notes kept for the case of a crash.

        Raises
        ------
        StoreError
            As `write_tile`.
        """
        with self.changing():
            if settle:
                self._redo.settle()
            else:
                self._redo.flush()

    def approve(self, ids: Iterable[int], *, approved: bool = True) -> None:
        """Mark nuclei as approved, or give them back to the models; see `Editor.review`."""
        self.editor.review(list(ids), approved=approved)

    def tiles_done(self, model_version: str, options_key: str) -> set[int]:
        """Return the indices of the tiles that are whole for a model version and its decoding options."""
        return tiles_done(self.ledger.reader, model_version, options_key)

    def tiles_in(self, region: Region) -> list[Region]:
        """Return where nuclei were looked for, by whichever model and settings, as far as it touches `region`."""
        return tiles_in(self.ledger.reader, region)

    def nuclei_in(self, region: Region) -> NucleiTable:
        """Return the nuclei whose centroid lies in `region` (level-0 pixels, half-open), ascending by id."""
        return self.census.nuclei_in(region)

    def centroids_in(self, region: Region) -> NDArray[np.float64]:
        """Return ``(y, x)`` level-0 pixels of the nuclei in `region`, shape (n, 2), in no order; quick for many."""
        return self.census.centroids_in(region)

    def count_in(self, region: Region) -> int:
        """Return the number of nuclei whose centroid lies in `region`; quick at any size."""
        return self.census.count_in(region)

    def refresh(self) -> None:
        """Look anew at what another process has written; only for a project open for reading."""
        if self.writable:
            return
        with self._writing:  # one thread at a time
            if not self._closed:
                self.labels.chunks.forget()
                self._redo.replay()
                self.census.recount_all()

    def close(self) -> None:
        """Flush, close and let others write; safe to call twice."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            try:
                if self._lock is not None:
                    with explained(self.folder):
                        self._lock.check()
                        self._redo.settle()
            finally:
                self.ledger.close()
                if self._lock is not None:
                    self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the right to write for the length of the block.

        Raises
        ------
        StoreError
            If the project is open for reading only, closed or taken over, or when the block cannot write.
        """
        with self._writing, explained(self.folder):
            if self._lock is None:
                raise StoreError(_reading_only(self.folder))
            if self._closed:
                raise StoreError(f"{self.folder} has been closed. Open the slide again.")
            self._lock.check()
            yield


def holder(folder: str | os.PathLike[str]) -> Holder | None:
    """Return who has the project in a folder open for writing; None if nobody."""
    return read_holder(Path(folder) / LOCK)


def _reading_only(folder: Path) -> str:
    """Return why nothing can be changed in a project that is open for reading only."""
    writer = holder(folder)
    if writer is None:
        return f"{folder} is open for reading only. Open it again for writing."
    return (
        f"{folder} is in use by {writer}, so it is open for reading only here: you see what is done there, but cannot "
        "change anything. Close it there and open the slide again."
    )


def pixel_size_of(folder: str | os.PathLike[str], slide: Slide) -> YX | None:
    """Return the micrometres per level-0 pixel ``(y, x)`` that the project in a folder was made with.

    None if there is no project that can be read, or it is another slide's.
    """
    if not (Path(folder) / DATABASE).is_file():
        return None
    try:
        with explained(Path(folder)):
            found = read_meta(Path(folder) / DATABASE)
    except StoreError:
        return None  # opening it will say why
    if not is_same(found.get("fingerprint", ""), slide.fingerprint):
        return None
    return YX(float(found["mpp_y_um"]), float(found["mpp_x_um"]))


def _check_slide(folder: Path, slide: Slide | None) -> None:
    """Refuse the project of another slide, or of this one with another pixel size."""
    if slide is None:
        return
    found = read_meta(folder / DATABASE)
    wanted = meta_of(slide, slide.mpp_um or YX(float(found["mpp_y_um"]), float(found["mpp_x_um"])))
    known = bool(wanted["fingerprint"] and found["fingerprint"])
    same = is_same(found["fingerprint"], wanted["fingerprint"]) or not known
    if not same or any(found[key] != wanted[key] for key in ("height", "width")):
        raise StoreError(
            f"{folder} belongs to another slide ({found['slide']}, {found['width']} x {found['height']} px), "
            f"not to {wanted['slide']}. Choose another folder for this slide."
        )
    for axis in ("mpp_y_um", "mpp_x_um"):
        if not math.isclose(float(found[axis]), float(wanted[axis]), rel_tol=1e-3):
            raise StoreError(
                f"{folder} was made with {float(found[axis]):g} µm per pixel, but {wanted['slide']} is now opened "
                f"with {float(wanted[axis]):g}. Open it with the former pixel size, or choose another folder."
            )


def _create_labels(folder: Path, slide: Slide, mpp_um: YX) -> None:
    """Make the label image; one that is there must be left from a creation that was broken off, so be empty."""
    final, unfinished = folder / LABELS, folder / SCRATCH / LABELS
    if final.exists():
        if any(path.is_file() for level in final.iterdir() for path in (level / "c").glob("*/*")):
            raise StoreError(
                f"{folder} holds nuclei ({LABELS}) but not the list of what was done ({DATABASE}). "
                "Restore the folder from a copy, or choose another folder."
            )
        shutil.rmtree(final)
    LabelStore.create(unfinished, slide.shape, mpp_um, folder / SCRATCH)
    unfinished.replace(final)


def _prepare_scratch(folder: Path) -> None:
    """Make the folder for files in the making, empty."""
    scratch = folder / SCRATCH
    if scratch.exists():
        shutil.rmtree(scratch)
    scratch.mkdir()
