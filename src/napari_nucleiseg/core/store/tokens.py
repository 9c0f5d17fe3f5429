"""What encoders said of the patches of a slide, kept in maps.zarr: a bounded cache that any number of programs share.

One zarr array a version of an encoder and shift of the grid, one chunk a patch: features, attention of every head of
every layer, rollout, one after the other as float16. A patch's answer depends on nothing but pixels and weights, so no
lock is needed: whoever writes a chunk writes the same one, whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.models.files import sweep
from napari_nucleiseg.core.store.failure import explained
from napari_nucleiseg.core.store.files import (
    ZSTD_LEVEL,
    decode_chunk,
    encode_chunk,
    read_file,
    remove_file,
    write_file,
)
from napari_nucleiseg.core.store.maps import folder_name

ENDING = ".tokens"
DEFAULT_BUDGET_BYTES = 1 << 30
# How often, in chunks written, it is looked whether all together have become too many; the first time at the first.
SWEEP_EVERY = 256
# What programs that were killed left half written is removed when nobody can be writing it any more.
_LEFT_BEHIND_S = 3600.0
_SCRATCH = ".begun-"


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """What is kept of each patch.

    Parameters
    ----------
    version : str
        Of the encoder.
    grid_key : str
        Name of the grid of patches, its shift included.
    patches : int
        Of the whole grid.
    embed, layers, heads, side : int
        Width of the features; layers, heads in each, and rows and columns of tokens.
    """

    version: str
    grid_key: str
    patches: int
    embed: int
    layers: int
    heads: int
    side: int

    @property
    def values(self) -> int:
        """Numbers kept of a patch."""
        return self.embed + (self.layers * self.heads + 1) * self.side**2


@dataclass(frozen=True, slots=True, eq=False)
class PatchTokens:
    """What an encoder says of one patch.

    Parameters
    ----------
    features : ndarray of float16, shape (embed,)
        Of the whole patch.
    attention : ndarray of float16, shape (layers, heads, side, side)
        What the class token attends to, first layer first; softmax over all tokens of the patch.
    rollout : ndarray of float16, shape (side, side)
        Attention rollout of the class token.
    """

    features: NDArray[np.float16]
    attention: NDArray[np.float16]
    rollout: NDArray[np.float16]


class TokenStore:
    """Answers of one encoder on one grid of one slide; for any thread.

    Parameters
    ----------
    root : Path
        The ``maps.zarr`` folder of the slide's project; made with the first chunk.
    layout : TokenLayout
        What is kept; another layout under the same name begins anew.
    budget_bytes : int
        Most bytes that all encoders and shifts may take here together; the oldest chunks are dropped.
    """

    def __init__(self, root: Path, layout: TokenLayout, *, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self.layout, self.budget_bytes = layout, budget_bytes
        self.folder = root / (folder_name(f"{layout.version}+{layout.grid_key}") + ENDING)
        self._root = root
        self._lock = threading.Lock()
        self._is_ready = self._has_layout()
        self._written = 0

    def get(self, patch: int) -> PatchTokens | None:
        """Return what is kept of a patch; None if nothing (whole) is."""
        if not self._is_ready:
            return None
        with suppress(ValueError, OSError):
            data = read_file(self._path(patch))
            if data is not None:
                return self._unpacked(decode_chunk(data, (1, self.layout.values), np.dtype(np.float16))[0])
        return None

    def put(self, patch: int, tokens: PatchTokens) -> None:
        """Keep what was said of a patch.

        Raises
        ------
        StoreError
            If it cannot be written: the disk is full, or the folder is read-only.
        """
        parts = (tokens.features, tokens.attention.ravel(), tokens.rollout.ravel())
        values = np.concatenate(parts).astype(np.float16)[None]
        if values.shape != (1, self.layout.values):
            raise StoreError(f"{values.size} numbers do not fit a layout of {self.layout.values}")
        with explained(self._root.parent), self._lock:
            if not self._is_ready:
                self._begin()
            write_file(self._path(patch), encode_chunk(values), str(self.folder))
            if self._written % SWEEP_EVERY == 0:
                self._sweep()
            self._written += 1

    def bytes_on_disk(self) -> int:
        """Return the bytes that the chunks take."""
        return sum(path.stat().st_size for path in self.folder.glob("c.*"))

    def _unpacked(self, values: NDArray[np.float16]) -> PatchTokens:
        kept = self.layout
        features, rest = values[: kept.embed], values[kept.embed :].reshape(-1, kept.side, kept.side)
        attention = rest[:-1].reshape(kept.layers, kept.heads, kept.side, kept.side)
        return PatchTokens(features, attention, rest[-1])

    def _path(self, patch: int) -> str:
        return str(self.folder / f"c.{patch}.0")

    def _has_layout(self) -> bool:
        try:
            stated = json.loads((self.folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]["tokens"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return bool(stated == asdict(self.layout))

    def _begin(self) -> None:
        """Make the array, in the place of one of another layout, unless another program has made it meanwhile."""
        if not self._has_layout():
            self._root.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self._root))
            try:
                self._create(scratch / "new")
                if self.folder.exists() and not self._has_layout():
                    self.folder.rename(scratch / "former")
                # Whole and at once: a folder that is there is never one that is being made.
                (scratch / "new").rename(self.folder)
            except OSError:
                if not self._has_layout():
                    raise
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        self._is_ready = True

    def _create(self, folder: Path) -> None:
        import zarr
        from zarr.codecs import BytesCodec, ZstdCodec

        zarr.create_array(
            store=folder,
            shape=(self.layout.patches, self.layout.values),
            chunks=(1, self.layout.values),
            dtype="float16",
            fill_value=0,
            serializer=BytesCodec(endian="little"),
            compressors=ZstdCodec(level=ZSTD_LEVEL),
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=("patch", "value"),
            attributes={"tokens": asdict(self.layout)},
            zarr_format=3,
        )

    def _sweep(self) -> None:
        """Drop the oldest chunks of all encoders beyond the budget, and what was left half written."""
        found, now = [], time.time()
        for folder in self._root.glob(f"*{ENDING}"):
            sweep(folder)
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    # Another program may be sweeping, too.
                    with suppress(FileNotFoundError):
                        status = entry.stat()
                        if entry.name.startswith("c."):
                            found.append((status.st_mtime, status.st_size, entry.path))
        for scratch in self._root.glob(f"{_SCRATCH}*"):
            with suppress(OSError):
                if now - scratch.stat().st_mtime > _LEFT_BEHIND_S:
                    shutil.rmtree(scratch, ignore_errors=True)
        surplus = sum(size for _, size, _ in found) - self.budget_bytes
        for _, size, path in sorted(found):
            if surplus <= 0:
                break
            remove_file(path)
            surplus -= size
