"""maps.zarr: what the network said, kept per model version for heatmaps and for decoding again; a bounded cache."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.failure import explained
from napari_nucleiseg.core.store.files import ZSTD_LEVEL, decode_chunk, encode_chunk, read_file, remove_file, write_file
from napari_nucleiseg.core.store.layout import MapLayout
from napari_nucleiseg.core.store.plane import LazyPlane

Maps = Mapping[str, NDArray[np.uint8] | NDArray[np.float16]]
DEFAULT_BUDGET_BYTES = 4 << 30
MEMORY_BYTES = 48 << 20
COARSEST_PX = 512
OVERVIEW = ".overview"
# How a head in model pixels is shown as bytes: 128 is zero, one pixel is this many steps.
STEPS_PER_PX = 4


class MapStore:
    """Maps of tiles on disk, oldest dropped when they exceed a budget; one thread writes, any reads.

    Parameters
    ----------
    root : Path
        The ``maps.zarr`` folder; made with the first map.
    scratch : Path
        Folder on the same disk for files in the making.
    writable : bool
        Whether maps may be added.
    budget_bytes : int
        Most bytes on disk.
    """

    def __init__(self, root: Path, scratch: Path, *, writable: bool, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self.root = root
        self.budget_bytes = budget_bytes
        self._scratch = scratch
        self._writable = writable
        self._layouts: dict[str, MapLayout] = {}
        self._heads: dict[str, dict[str, tuple[int, np.dtype[Any]]]] = {}
        self._sizes: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._memory: OrderedDict[str, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._scan()

    def declare(self, model_version: str, layout: MapLayout) -> None:
        """Say on which grid the maps of a model version lie; needed before its first `put`.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        if self._layouts.get(model_version) == layout:
            return
        self._must_be_writable()
        with explained(self.root.parent):
            if model_version in self._layouts:
                self._forget(model_version)
            self._create_group(model_version, layout)
        self._layouts[model_version] = layout
        self._heads[model_version] = {}

    def put(self, model_version: str, tile: int, maps: Maps) -> None:
        """Keep the maps of one tile, exactly as they are.

        Parameters
        ----------
        model_version : str
            Declared before.
        tile : int
            Index on the grid.
        maps : mapping of str to ndarray, shape (channels, y, x)
            Over the tile's core and halo, clipped to the slide; uint8 probabilities times 255, float16 model pixels.

        Raises
        ------
        StoreError
            If the disk is full or the model version was not declared.
        ValueError
            If the maps do not cover what the layout says.
        """
        self._must_be_writable()
        layout = self._layouts.get(model_version)
        if layout is None:
            raise StoreError(f"Maps of {model_version} cannot be kept, because its grid was not declared.")
        inside = layout.inside(tile)
        with explained(self.root.parent):
            size = 0
            for head, values in maps.items():
                if values.shape[1:] != (inside.height, inside.width):
                    raise ValueError(f"map {head} of tile {tile} is {values.shape[1:]} but should cover {inside}")
                size += self._put_head(model_version, layout, tile, head, np.asarray(values))
            key = model_version, tile
            with self._lock:
                self._sizes[key] = size
                self._sizes.move_to_end(key)
            while sum(self._sizes.values()) > self.budget_bytes and len(self._sizes) > 1:
                self._drop(*next(iter(self._sizes)))

    def get(self, model_version: str, tile: int) -> dict[str, NDArray[Any]] | None:
        """Return the maps of one tile as they were put; None if they are not kept (any more)."""
        layout = self._layouts.get(model_version)
        if layout is None or (model_version, tile) not in self._sizes:
            return None
        inside = layout.inside(tile)
        found = {}
        for head in self._heads[model_version]:
            box = self._box(model_version, head, tile)
            if box is None:
                return None
            found[head] = box[:, : inside.height, : inside.width].copy()
        return found

    def tiles(self, model_version: str) -> set[int]:
        """Return the tiles whose maps are kept."""
        with self._lock:
            return {tile for version, tile in self._sizes if version == model_version}

    def heads(self, model_version: str) -> tuple[str, ...]:
        """Return the names of the heads that are kept."""
        return tuple(self._heads.get(model_version, ()))

    def levels(self, model_version: str, head: str, channel: int = 0) -> tuple[LazyPlane, ...] | None:
        """Return one head over the whole slide as a pyramid of lazy uint8 planes; None if none is kept.

        The first level has model pixels; 0 where no map is kept. Heads in model pixels are shown as
        128 + 4 per pixel.
        """
        layout = self._layouts.get(model_version)
        if layout is None or head not in self._heads[model_version]:
            return None
        planes = []
        factor = 1
        while True:
            shape = -(-layout.height // factor), -(-layout.width // factor)
            planes.append(self._plane((model_version, head, channel), layout, factor, shape))
            if max(shape) <= COARSEST_PX or layout.tile_px % (2 * factor):
                return tuple(planes)
            factor *= 2

    def bytes_on_disk(self) -> int:
        """Return the bytes that the kept maps take."""
        with self._lock:
            return sum(self._sizes.values())

    def clear(self) -> None:
        """Drop all maps."""
        self._must_be_writable()
        with explained(self.root.parent):
            for version in list(self._layouts):
                self._forget(version)

    def _plane(self, source: tuple[str, str, int], layout: MapLayout, factor: int, shape: tuple[int, int]) -> LazyPlane:
        version, head, channel = source
        step = layout.overview_step
        side = layout.tile_px // factor

        def core(tile: int) -> NDArray[np.uint8] | None:
            if factor >= step:
                box = self._box(version, head + OVERVIEW, tile)
                return None if box is None else box[channel, :: factor // step, :: factor // step]
            box = self._box(version, head, tile)
            if box is None:
                return None
            area, inside = layout.core(tile), layout.inside(tile)
            part = box[channel][area.translate(-inside.y, -inside.x).slices]
            return _as_bytes(part[::factor, ::factor])

        def read(y0: int, x0: int, y1: int, x1: int) -> NDArray[np.uint8]:
            out = np.zeros((y1 - y0, x1 - x0), np.uint8)
            for row in range(y0 // side, -(-y1 // side)):
                for column in range(x0 // side, -(-x1 // side)):
                    tile = row * layout.columns + column
                    part = core(tile) if (version, tile) in self._sizes else None
                    if part is None:
                        continue
                    place = Region(row * side, column * side, *part.shape)
                    seen = place.intersect(Region.from_bounds(y0, x0, y1, x1))
                    out[seen.translate(-y0, -x0).slices] = part[seen.translate(-place.y, -place.x).slices]
            return out

        return LazyPlane(shape, np.uint8, (side, side), read)

    def _put_head(self, version: str, layout: MapLayout, tile: int, head: str, values: NDArray[Any]) -> int:
        """Write the map of one head and its overview; returns the bytes they take."""
        channels, side = values.shape[0], layout.side_px
        step = layout.overview_step
        small = layout.tile_px // step
        if head not in self._heads[version]:
            self._create_array(version, layout, head, (channels, side, side), values.dtype)
            self._create_array(version, layout, head + OVERVIEW, (channels, small, small), np.dtype(np.uint8))
            self._heads[version][head] = channels, values.dtype
        if self._heads[version][head] != (channels, values.dtype):
            raise ValueError(f"map {head} changed from {self._heads[version][head]} to {channels, values.dtype}")
        box = np.zeros((channels, side, side), values.dtype)
        box[:, : values.shape[1], : values.shape[2]] = values
        area, inside = layout.core(tile), layout.inside(tile)
        core = values[(slice(None), *area.translate(-inside.y, -inside.x).slices)]
        overview = np.zeros((channels, small, small), np.uint8)
        for channel, plane in enumerate(core):
            reduced = _reduced(_as_bytes(plane), step)
            overview[channel, : reduced.shape[0], : reduced.shape[1]] = reduced
        size = 0
        for name, chunk in ((head, box), (head + OVERVIEW, overview)):
            data = encode_chunk(chunk)
            path = self._path(version, name, tile)
            write_file(path, data, str(self._scratch))
            size += len(data)
            with self._lock:
                self._memory.pop(path, None)
        return size

    def _box(self, version: str, name: str, tile: int) -> NDArray[Any] | None:
        """Read what a tile's file holds, ``(channels, y, x)``; None if it is not there or damaged."""
        path = self._path(version, name, tile)
        with self._lock:
            if path in self._memory:
                self._memory.move_to_end(path)
                return self._memory[path]
        layout = self._layouts[version]
        channels, dtype = self._heads[version][name.removesuffix(OVERVIEW)]
        side = layout.side_px
        if name.endswith(OVERVIEW):
            side, dtype = layout.tile_px // layout.overview_step, np.dtype(np.uint8)
        try:
            data = read_file(path)
            if data is None:
                return None
            box = decode_chunk(data, (channels, side, side), dtype)
        except ValueError:
            return None
        box.setflags(write=False)
        with self._lock:
            self._memory[path] = box
            while sum(kept.nbytes for kept in self._memory.values()) > MEMORY_BYTES and len(self._memory) > 1:
                self._memory.popitem(last=False)
        return box

    def _drop(self, version: str, tile: int) -> None:
        with self._lock:
            self._sizes.pop((version, tile), None)
        for head in self._heads[version]:
            for name in (head, head + OVERVIEW):
                path = self._path(version, name, tile)
                remove_file(path)
                with self._lock:
                    self._memory.pop(path, None)

    def _forget(self, version: str) -> None:
        for tile in self.tiles(version):
            self._drop(version, tile)
        shutil.rmtree(self._folder(version), ignore_errors=True)
        self._layouts.pop(version, None)
        self._heads.pop(version, None)

    def _folder(self, version: str) -> Path:
        return self.root / folder_name(version)

    def _path(self, version: str, name: str, tile: int) -> str:
        return str(self._folder(version) / name / f"c.{tile}.0.0.0")

    def _create_group(self, version: str, layout: MapLayout) -> None:
        import zarr

        attributes = {"model_version": version, "layout": asdict(layout)}
        zarr.create_group(store=self._folder(version), zarr_format=3, attributes=attributes, overwrite=True)
        if not (self.root / "zarr.json").exists():
            zarr.create_group(store=self.root, zarr_format=3)

    def _create_array(
        self, version: str, layout: MapLayout, name: str, shape: tuple[int, int, int], dtype: np.dtype[Any]
    ) -> None:
        import zarr
        from zarr.codecs import BytesCodec, ZstdCodec

        zarr.create_array(
            store=self._folder(version) / name,
            shape=(layout.rows * layout.columns, *shape),
            chunks=(1, *shape),
            dtype=dtype.name,
            fill_value=0,
            serializer=BytesCodec(endian="little" if dtype.itemsize > 1 else None),
            compressors=ZstdCodec(level=ZSTD_LEVEL),
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=("tile", "channel", "y", "x"),
            zarr_format=3,
        )

    def _scan(self) -> None:
        """Find out what is kept, oldest first."""
        if not self.root.is_dir():
            return
        found: dict[tuple[str, int], tuple[float, int]] = {}
        for folder in sorted(path for path in self.root.iterdir() if path.is_dir()):
            known = _read_group(folder)
            heads = _read_heads(folder)
            # Maps can be made again: those whose description is damaged are as if they had never been kept.
            if known is None or heads is None:
                continue
            version, self._layouts[version], self._heads[version] = known[0], known[1], heads
            for key, when, size in _kept_tiles(folder, version, tuple(self._heads[version])):
                found[key] = when, size
        for key, (_, size) in sorted(found.items(), key=lambda item: item[1][0]):
            self._sizes[key] = size

    def _must_be_writable(self) -> None:
        if not self._writable:
            raise StoreError(f"{self.root.parent} is open for reading only. Open it again for writing.")


def folder_name(version: str) -> str:
    """Return a name for the folder of a version's maps that every file system takes; no two versions share one."""
    plain = re.sub(r"[^A-Za-z0-9._@-]", "_", version)
    # Two versions must not share a folder, nor one be hidden or differ from another by case alone.
    mark = hashlib.blake2b(version.encode(), digest_size=4).hexdigest()
    return f"{plain.lstrip('.')}-{mark}"


def _read_group(folder: Path) -> tuple[str, MapLayout] | None:
    try:
        attributes = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        return attributes["model_version"], MapLayout(**attributes["layout"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_heads(folder: Path) -> dict[str, tuple[int, np.dtype[Any]]] | None:
    heads = {}
    for path in sorted(folder.glob("*/zarr.json")):
        if not path.parent.name.endswith(OVERVIEW):
            try:
                stated = json.loads(path.read_text(encoding="utf-8"))
                heads[path.parent.name] = int(stated["shape"][1]), np.dtype(stated["data_type"])
            except (OSError, ValueError, KeyError, TypeError, IndexError):
                return None
    return heads


def _kept_tiles(folder: Path, version: str, heads: tuple[str, ...]) -> list[tuple[tuple[str, int], float, int]]:
    """Return key, age and bytes of the tiles that have the maps of all heads."""
    parts: dict[int, list[tuple[float, int]]] = {}
    for head in heads:
        for name in (head, head + OVERVIEW):
            for path in (folder / name).glob("c.*"):
                status = path.stat()
                parts.setdefault(int(path.name.split(".")[1]), []).append((status.st_mtime, status.st_size))
    return [
        ((version, tile), max(when for when, _ in files), sum(size for _, size in files))
        for tile, files in parts.items()
        if len(files) == 2 * len(heads)
    ]


def _as_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    scaled = np.rint(values.astype(np.float32) * STEPS_PER_PX) + 128
    return np.asarray(np.clip(scaled, 0, 255), dtype=np.uint8)


def _reduced(plane: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Area mean over `step` x `step` pixels; incomplete blocks at the edge count what they have."""
    height, width = -(-plane.shape[0] // step), -(-plane.shape[1] // step)
    padded = cv2.copyMakeBorder(
        plane, 0, height * step - plane.shape[0], 0, width * step - plane.shape[1], cv2.BORDER_REPLICATE
    )
    return np.asarray(cv2.resize(padded, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
