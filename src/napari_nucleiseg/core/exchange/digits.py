"""Coordinates as text to numbers, those of thousands of outlines at once: number by number it costs the most."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# So many digits, and powers of ten up to here, are exact as float64; so is then the rounding of their quotient.
MOST_DIGITS = 15
# From so many digits on, 32 bits are too few.
_LONG = 10
_COMMA, _DOT, _MINUS = b",.-"
# What `_plain_numbers` tells apart by itself.
_PLAIN = b"0123456789,.- \t\r\n"
_ZERO = np.uint8(ord("0"))
_NO_NUMBERS = dict.fromkeys(map(ord, "0123456789.+-eE \t\r\n"))
_BRACKETS_TO_SPACES = str.maketrans("[]", "  ")
# What may stand between coordinates and the next name or the end.
_BEHIND = ", \t\r\n"
_KEY = '"coordinates"'


class Digits:
    """The text of a list of lists of numbers that nobody has read yet; it may turn out to be none.

    Attributes
    ----------
    text : str
        As in the file.
    points : int
        How many points there are if this is a polygon of one ring; else 0.
    """

    __slots__ = ("points", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        signs = text.translate(_NO_NUMBERS)
        points = len(signs) // 4
        self.points = points if points and signs == f"[[{'[,],' * (points - 1)}[,]]]" else 0

    @property
    def is_whole(self) -> bool:
        """Whether every bracket has its other half, and there are neither objects nor strings in it."""
        return self.text.count("[") == self.text.count("]") > 0 and not {"{", '"'} & set(self.text)

    def read(self) -> Any:
        """Return the lists; a list of something else if these are none."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return [None]


class Cutter:
    """Takes the coordinates out of JSON text before it is read, and gives them back as `Digits`.

    A place holder is left that no file can hold by chance.
    """

    def __init__(self) -> None:
        self._mark = secrets.token_hex(8)
        self._found = re.compile(f'"{self._mark}([0-9]+)"')
        self._lists: dict[int, Digits] = {}
        self._count = 0

    def cut(self, text: str) -> str:
        """Return JSON text with place holders for the coordinates that are wholly in it."""
        parts: list[str] = []
        done = 0
        # Not a regular expression: to look for one sign takes hardly any time, however far away it is.
        at = text.find(_KEY)
        while at >= 0:
            at += len(_KEY)
            begin, stop, end = _span(text, at)
            if stop < 0:
                break
            if text[at:begin].strip() == ":" and not text[end:stop].strip(_BEHIND):
                lists = Digits(text[begin:end])
                if lists.points or lists.is_whole:
                    parts += text[done:begin], f'"{self._mark}{self._count}"'
                    self._lists[self._count] = lists
                    self._count += 1
                    at = done = end
            at = text.find(_KEY, at)
        return "".join((*parts, text[done:]))

    def length(self, text: str) -> int:
        """Return how long a text was before it was cut."""
        held = [(one[0], self._lists.get(int(one[1]))) for one in self._found.finditer(text)]
        return len(text) + sum(len(lists.text) - len(mark) for mark, lists in held if lists is not None)

    def fill(self, feature: dict[str, Any]) -> None:
        """Put the coordinates back where an outline may stand in a feature, and forget the others up to there."""
        last = self._filled(feature.get("geometry"))
        properties = feature.get("properties")
        for holder in (feature, properties):
            if isinstance(holder, dict) and "nucleusGeometry" in holder:
                last = max(last, self._filled(holder["nucleusGeometry"]))
        if self._lists and next(iter(self._lists)) < last:
            self._lists = {number: lists for number, lists in self._lists.items() if number > last}

    def _filled(self, geometry: Any) -> int:
        """Put the coordinates back into a geometry; return the number of its place holder, -1 if it has none."""
        mark = geometry.get("coordinates") if isinstance(geometry, dict) else None
        if not isinstance(mark, str) or not mark.startswith(self._mark):
            return -1
        number = int(mark[len(self._mark) :])
        geometry["coordinates"] = self._lists.pop(number)
        return number


def _span(text: str, at: int) -> tuple[int, int, int]:
    """Return where a list begins, the quote or brace behind it (-1: there is none) and where the list may end."""
    begin = text.find("[", at)
    quote, brace = text.find('"', begin), text.find("}", begin)
    stop = min(quote, brace) if quote >= 0 and brace >= 0 else max(quote, brace)
    return begin, (stop if begin >= 0 else -1), text.rfind("]", begin, stop) + 1


def numbers_of(texts: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the numbers of some lists one after the other, as near as float64 can be; None if they are no lists."""
    text = ",".join(texts).translate(_BRACKETS_TO_SPACES)
    found = _plain_numbers(text.encode(errors="replace"))
    if found is not None:
        return found
    try:
        return np.array(json.loads(f"[{text}]"), np.float64)
    except (ValueError, TypeError, OverflowError):
        return None


def _plain_numbers(text: bytes) -> NDArray[np.float64] | None:
    """Return numbers that are written with few digits and without exponent; None if others are among them."""
    if text.translate(None, _PLAIN):
        return None
    signs = np.frombuffer(b" " + text + b" ", np.uint8)
    dots = np.flatnonzero(signs == _DOT) if b"." in text else np.zeros(0, np.int64)
    if len(dots):
        signs = np.delete(signs, dots)
        dots -= np.arange(len(dots))
    digits = signs - _ZERO
    edges = np.flatnonzero(np.diff(digits < 10))
    befores, lasts = edges[::2], edges[1::2]
    commas = np.flatnonzero(signs == _COMMA)
    if len(commas) != len(lasts) - 1 or (commas <= lasts[:-1]).any() or (commas > befores[1:]).any():
        return None
    minuses = signs[befores] == _MINUS if b"-" in text else np.zeros(len(befores), np.bool_)
    values = _whole_numbers(digits, lasts, lasts - befores)
    if values is None or text.count(b"-") != np.count_nonzero(minuses) or not _divide(values, dots, befores, lasts):
        return None
    return np.where(minuses, -values, values) if minuses.any() else values


def _divide(
    values: NDArray[np.float64], dots: NDArray[np.int64], befores: NDArray[np.int64], lasts: NDArray[np.int64]
) -> bool:
    """Divide numbers that were read without their dots, which stood before these places; False if some are astray."""
    owners = np.searchsorted(lasts, dots)
    # Digits on both sides, and one dot a number.
    if len(dots) and owners[-1] == len(lasts):
        return False
    if (dots - 1 <= befores[owners]).any() or (owners[1:] == owners[:-1]).any():
        return False
    values[owners] /= 10.0 ** (lasts[owners] + 1 - dots)
    return True


def _whole_numbers(
    digits: NDArray[np.uint8], lasts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Return the numbers whose last digits stand at some places; None if one is too long."""
    shortest, longest = int(lengths.min()), int(lengths.max())
    if longest > MOST_DIGITS:
        return None
    kind = np.int32 if longest < _LONG else np.int64
    values = digits[lasts].astype(kind)
    for place in range(1, longest):
        part = digits[lasts - place]
        if place >= shortest:
            part[lengths <= place] = 0
        np.add(values, part * kind(10**place), out=values)
    return values.astype(np.float64)
