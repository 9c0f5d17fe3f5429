"""labels.zarr: the slide-wide label image as an OME-Zarr 0.5 pyramid of nucleus ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.chunks import ChunkPyramid
from napari_nucleiseg.core.store.files import ZSTD_LEVEL
from napari_nucleiseg.core.store.plane import LazyPlane

CHUNK_PX = 512
# Chunks along a side of the square that a file holds.
PER_SIDE = 4
COARSEST_PX = 512
ALIGN_PX = 16
ROWS_AT_A_TIME = 64

_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_SHARDING = "sharding_indexed"
# Of each level, in the words of zarr v3; chunks are written by `files` and `shards`.
_ARRAY: dict[str, Any] = {
    "data_type": "uint32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [PER_SIDE * CHUNK_PX] * 2}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0,
    "codecs": [
        {
            "name": _SHARDING,
            "configuration": {
                "chunk_shape": [CHUNK_PX, CHUNK_PX],
                "codecs": [_BYTES, {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}],
                "index_codecs": [_BYTES, {"name": "crc32c"}],
                "index_location": "end",
            },
        },
    ],
    "attributes": {},
    "dimension_names": ["y", "x"],
    "storage_transformers": [],
}

UInt32Image = NDArray[np.uint32]


def pyramid_shapes(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Return ``(height, width)`` of each level, halved (rounding up) until no side exceeds `COARSEST_PX`."""
    shapes = [(height, width)]
    while max(shapes[-1]) > COARSEST_PX:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return tuple(shapes)


def halve(image: UInt32Image) -> UInt32Image:
    """Reduce 2 x 2 pixels to their highest id, so that no nucleus vanishes before it must.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Ids; odd sides are completed with background.

    Returns
    -------
    ndarray of uint32, shape (ceil(y / 2), ceil(x / 2))
        Ids.
    """
    height, width = image.shape
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2)))
    halved = np.empty((image.shape[0] // 2, image.shape[1] // 2), np.uint32)
    # A few rows at a time stay in the cache.
    for top in range(0, len(image), ROWS_AT_A_TIME):
        band = image[top : top + ROWS_AT_A_TIME]
        rows = np.maximum(band[::2], band[1::2])
        np.maximum(rows[:, ::2], rows[:, 1::2], out=halved[top // 2 : top // 2 + len(rows)])
    return halved


def ome_attributes(name: str, levels: int, mpp_um: YX) -> dict[str, Any]:
    """Return the OME-Zarr 0.5 attributes of an image-label pyramid with axes y, x in micrometres."""
    datasets = []
    for level in range(levels):
        factor = 2.0**level
        # Pixel centres: a pixel of level k covers 2**k pixels, whose middle lies (2**k - 1) / 2 further on.
        shift = [mpp * (factor - 1) / 2 for mpp in mpp_um]
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": [mpp * factor for mpp in mpp_um]}]
        if level:
            transforms.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": datasets, "type": "max"}],
        "image-label": {"version": "0.5"},
    }


class LabelStore:
    """Nucleus ids of the whole slide, read by any thread and written by one.

    Parameters
    ----------
    root : Path
        The ``labels.zarr`` folder; make it with `create`.
    shape : tuple of int
        Level-0 ``(height, width)``.
    scratch : Path
        Folder on the same disk for files in the making.
    mpp_um : YX
        Micrometres per level-0 pixel.
    writable : bool
        Whether its files may be changed.

    Raises
    ------
    StoreError
        If the folder is not the label image of a slide of that size.
    """

    def __init__(self, root: Path, shape: tuple[int, int], scratch: Path, mpp_um: YX, *, writable: bool = True) -> None:
        self.root = root
        self.shape = shape
        self.mpp_um = mpp_um
        self.shapes = pyramid_shapes(*shape)
        per_side = self._chunks_per_side()
        self.files_px = per_side * CHUNK_PX
        """Side of the square that a file holds, pixels of its level."""
        self.chunks = ChunkPyramid(root, self.shapes, CHUNK_PX, scratch, per_side=per_side, writable=writable)
        self.levels: tuple[LazyPlane, ...] = tuple(self._plane(level) for level in range(len(self.shapes)))

    @classmethod
    def create(cls, root: Path, shape: tuple[int, int], mpp_um: YX, scratch: Path) -> LabelStore:
        """Make an empty label image; takes no time whatever the size, because empty chunks have no file.

        The few files are what zarr-python would write, without the time it takes to be imported and to write them.
        """
        shapes = pyramid_shapes(*shape)
        _describe(root, "group", attributes={"ome": ome_attributes("nuclei", len(shapes), mpp_um)})
        for level, level_shape in enumerate(shapes):
            _describe(root / str(level), "array", shape=level_shape, **_ARRAY)
        return cls(root, shape, scratch, mpp_um)

    def read(self, region: Region) -> UInt32Image:
        """Read ids at level 0; `region` must lie inside the slide. Unwritten changes are included."""
        return self.chunks.read(0, region.y, region.x, region.y1, region.x1)

    def apply(self, region: Region, ids: UInt32Image, entry: int) -> None:
        """Set level-0 pixels in memory and bring the pyramid above them up to date.

        Parameters
        ----------
        region : Region
            Level-0 pixels inside the slide.
        ids : ndarray of uint32, shape (y, x)
            New ids over `region`.
        entry : int
            Number of the journal entry that holds this change.
        """
        self.chunks.write(0, region.y, region.x, ids, entry)
        for level in range(1, len(self.shapes)):
            below = Region(0, 0, *self.shapes[level - 1])
            above = Region.from_bounds(region.y // 2, region.x // 2, -(-region.y1 // 2), -(-region.x1 // 2))
            wanted = Region(2 * above.y, 2 * above.x, 2 * above.height, 2 * above.width).intersect(below)
            if wanted != region:
                ids = self.chunks.read(level - 1, wanted.y, wanted.x, wanted.y1, wanted.x1)
            region, ids = above, halve(ids)
            self.chunks.write(level, region.y, region.x, ids, entry)

    def aligned(self, region: Region) -> Region:
        """Grow a region to whole pixels of the first coarse levels, so that `apply` need not read around it."""
        return (
            region.scaled_outward(1 / ALIGN_PX, 1 / ALIGN_PX).scaled_outward(ALIGN_PX, ALIGN_PX).intersect(self.whole)
        )

    @property
    def whole(self) -> Region:
        """All of level 0."""
        return Region(0, 0, *self.shape)

    def _plane(self, level: int) -> LazyPlane:
        def read(y0: int, x0: int, y1: int, x1: int) -> UInt32Image:
            return self.chunks.read(level, y0, x0, y1, x1)

        return LazyPlane(self.shapes[level], np.uint32, (CHUNK_PX, CHUNK_PX), read)

    def _chunks_per_side(self) -> int:
        """Return how many chunks lie along a side of what a file holds; older projects have files that are chunks."""
        sides: set[int] = set()
        for level, shape in enumerate(self.shapes):
            try:
                stated = json.loads((self.root / str(level) / "zarr.json").read_text(encoding="utf-8"))
                found = tuple(stated["shape"]), stated["data_type"]
                of_file: tuple[int, ...] = tuple(stated["chunk_grid"]["configuration"]["chunk_shape"])
                codec = stated["codecs"][0]
                inner = codec["configuration"]["chunk_shape"] if codec["name"] == _SHARDING else of_file
            except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
                raise StoreError(
                    f"{self.root} is not a whole label image (level {level}: {error}). "
                    "Restore the folder from a copy, or move it away and segment the slide again."
                ) from error
            sides.add(of_file[0] // CHUNK_PX)
            is_ours = tuple(inner) == (CHUNK_PX, CHUNK_PX) and of_file == (of_file[0],) * 2 and len(sides) == 1
            if found[0] == shape and (found[1] != "uint32" or not is_ours or of_file[0] % CHUNK_PX):
                raise StoreError(
                    f"{self.root} is no label image of this program (level {level}: {found[1]} in files of {of_file}). "
                    "Restore the folder from a copy, or move it away and segment the slide again."
                )
            if found[0] != shape:
                raise StoreError(
                    f"{self.root} has {found[0]} pixels at level {level} where this slide has {shape}. "
                    "It belongs to another slide; choose another folder."
                )
        return sides.pop()


def _describe(folder: Path, kind: str, **facts: Any) -> None:
    """Write what zarr must know of a group or an array; its folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"zarr_format": 3, "node_type": kind, **facts}, indent=2)
    (folder / "zarr.json").write_text(text, encoding="utf-8")
