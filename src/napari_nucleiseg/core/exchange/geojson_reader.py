"""The features of a GeoJSON file one after the other, however large the file: only a part of its text is in memory."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from napari_nucleiseg.core.errors import ImportFileError
from napari_nucleiseg.core.exchange.digits import Cutter

READ_CHARS = 1 << 19
# So much of it is read at once, coordinates not counted.
PART_CHARS = 1 << 17
# An error this near to the end of what was read may only mean that the rest is missing.
_NEAR_CHARS = 64
_GAP = re.compile(r"[\s,]*")
_SPACE = re.compile(r"\s*")
_FEATURES = "features"
# What stands at the beginning of a feature, mostly.
_BEGINNING = '"Feature"'
_GEOMETRIES = frozenset(
    {"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection"}
)

Feature = dict[str, Any]


class FeatureReader:
    """Reads a FeatureCollection, a bare list of features, a single feature or a bare geometry.

    Parameters
    ----------
    path : path
        A text file in UTF-8.
    keep_digits : bool
        Leave the coordinates of outlines as `Digits`, which is much quicker than lists.

    Attributes
    ----------
    total_bytes : int
        Size of the file.
    done_bytes : int
        How much of it has been read.
    damage : str
        Where and why reading stopped before the end, as a sentence; empty if it did not.
    members : dict
        What an object says of itself, other than its features, as far as it was read.
    """

    def __init__(self, path: str | os.PathLike[str], *, keep_digits: bool = False) -> None:
        self.path = Path(path)
        self.cutter = Cutter() if keep_digits else None
        try:
            self.total_bytes = self.path.stat().st_size
        except OSError as error:
            raise ImportFileError(f"{path} cannot be read: {error.strerror or error}") from error
        self.done_bytes = 0
        self.damage = ""
        self.members: Feature = {}

    def __iter__(self) -> Iterator[Any]:
        """Yield what stands in the list of features, as JSON; seldom something else than an object.

        Raises
        ------
        ImportFileError
            If the file cannot be read or holds no features at all.
        """
        try:
            with self.path.open(encoding="utf-8-sig") as file:
                features = self._features(_Text(file, self))
                yield from features if self.cutter is None else self._filled(features, self.cutter)
        except UnicodeDecodeError as error:
            raise ImportFileError(
                f"{self.path} is no text: GeoJSON was expected. Choose a file that ends in .geojson."
            ) from error
        except OSError as error:
            raise ImportFileError(f"{self.path} cannot be read: {error.strerror or error}") from error

    @staticmethod
    def _filled(features: Iterator[Any], cutter: Cutter) -> Iterator[Any]:
        for feature in features:
            if isinstance(feature, dict):
                cutter.fill(feature)
            yield feature

    def _features(self, text: _Text) -> Iterator[Any]:
        first = text.peek()
        if first == "[":
            yield from self._items(text)
        elif first == "{":
            yield from self._members(text)
        else:
            raise ImportFileError(f"{self.path} is not GeoJSON: it begins with neither {{ nor [.")

    def _members(self, text: _Text) -> Iterator[Any]:
        """Yield the features of an object: those that it lists, or itself."""
        text.skip(1)
        others = self.members = {}
        listed = False
        try:
            while (sign := text.peek(_GAP)) not in {"}", ""}:
                name = text.value()
                if text.peek() != ":":
                    raise text.wrong("a colon was expected")
                text.skip(1)
                if name == _FEATURES and text.peek() == "[":
                    listed = True
                    yield from self._items(text)
                    if self.damage:
                        return
                else:
                    others[str(name)] = text.value()
            if not sign:
                raise text.wrong("it ends too early")
        except _BrokenTextError as error:
            self.damage = str(error)
        yield from self._itself(others, listed=listed)

    def _itself(self, members: Feature, *, listed: bool) -> Iterator[Feature]:
        kind = members.get("type")
        if kind == "Feature":
            yield members
        elif isinstance(kind, str) and kind in _GEOMETRIES:
            yield {"type": "Feature", "geometry": members, "properties": {}}
        elif not listed:
            why = f" ({self.damage})" if self.damage else ""
            raise ImportFileError(f"{self.path} holds no GeoJSON features{why}. Export it from QuPath as GeoJSON.")

    def _items(self, text: _Text) -> Iterator[Any]:
        text.skip(1)
        try:
            while (sign := text.peek(_GAP)) not in {"]", ""}:
                yield from text.values_here()
            if not sign:
                raise text.wrong("it ends too early")
            text.skip(1)
        except _BrokenTextError as error:
            self.damage = str(error)


class _BrokenTextError(Exception):
    """The text is no JSON from here on."""


class _Text:
    """A text file as a buffer that is refilled when a value does not end in it."""

    def __init__(self, file: IO[str], reader: FeatureReader) -> None:
        self._file, self._reader = file, reader
        self._cutter = reader.cutter
        self._buffer, self._at, self._read = "", 0, 0
        # Whether nobody has tried to read all features in the buffer at once.
        self._is_fresh = False
        self._decode = json.JSONDecoder().raw_decode

    def peek(self, gap: re.Pattern[str] = _SPACE) -> str:
        """Skip a gap and return the sign behind it; empty at the end."""
        while True:
            match = gap.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._refill(READ_CHARS):
                return ""

    def skip(self, signs: int) -> None:
        """Go on by some signs that were seen."""
        self._at += signs

    def value(self) -> Any:
        """Read one value, behind any space."""
        self.peek()
        return self.value_here()

    def values_here(self) -> list[Any]:
        """Read the value that begins here; if coordinates are cut out, also those behind it as far as they are here."""
        buffer = self._buffer
        if self._is_fresh and self._cutter is not None:
            far = self._at + PART_CHARS
            last = buffer.rfind("{", self._at, max(buffer.rfind(_BEGINNING, self._at, far), 0))
            stop = buffer.rfind(",", self._at, max(last, 0))
            if stop > 0 and not buffer[stop + 1 : last].strip():
                # Only whole values are a list: what is no list is read one by one, to find the place.
                with suppress(ValueError, RecursionError):
                    found: list[Any] = json.loads(f"[{buffer[self._at : stop]}]")
                    self._at = stop
                    self._is_fresh = far < len(buffer)
                    return found
            self._is_fresh = False
        return [self.value_here()]

    def value_here(self) -> Any:
        """Read the value that begins here."""
        more = READ_CHARS
        while True:
            try:
                found, end = self._decode(self._buffer, self._at)
            except RecursionError as error:
                raise self.wrong("lists are nested too deeply") from error
            except json.JSONDecodeError as error:
                cut_off = error.pos > len(self._buffer) - _NEAR_CHARS or error.msg.startswith("Unterminated string")
                if not cut_off or not self._refill(more):
                    self._at = error.pos
                    raise self.wrong("it ends too early" if cut_off else error.msg.lower()) from error
                # Twice as much each time: a value of any size is then not begun again too often.
                more = max(more, len(self._buffer) - self._at)
            else:
                # A number may go on behind the end of what was read.
                if end < len(self._buffer) or not self._refill(more):
                    self._at = end
                    return found

    def wrong(self, why: str) -> _BrokenTextError:
        """Return the error of this place."""
        rest = self._buffer[self._at :]
        place = self._read - (len(rest) if self._cutter is None else self._cutter.length(rest))
        return _BrokenTextError(f"the file is damaged at character {place:,}: {why}")

    def _refill(self, signs: int) -> bool:
        """Read more; False at the end of the file."""
        more = self._file.read(signs)
        self._read += len(more)
        self._is_fresh = True
        self._buffer, self._at = self._buffer[self._at :] + more, 0
        if self._cutter is not None:
            self._buffer = self._cutter.cut(self._buffer)
        raw = getattr(self._file, "buffer", None)
        self._reader.done_bytes = self._reader.total_bytes if raw is None else raw.tell()
        return bool(more)
