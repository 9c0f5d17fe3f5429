"""A labels layer whose outlines cost little: they are found anew with every tile and every pan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from napari.layers import Labels as NapariLabels
from napari.utils.colormaps import CyclicLabelColormap
from numpy.typing import NDArray

# The complement of haematoxylin and eosin, and lighter than any nucleus.
OUTLINE = "#00f56a"
BY_CLASS = "nuclei by class"
# So many changes are looked up beside the classes that were known before; more are sorted in among them.
RECENT = 1024
Ids = NDArray[np.uint32]
Numbers = NDArray[np.uint8]
# Each pixel and the one below it; each and the one right of it.
_NEIGHBOURS = (
    ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
    ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
)


def is_outline(labels: NDArray[Any], width: int = 1) -> NDArray[np.bool_]:
    """Return where the outermost pixels of labels are: those with another label above, below or beside.

    Parameters
    ----------
    labels : ndarray of integers, shape (y, x)
        0 is background.
    width : int
        Pixels of the outline, all inside the nucleus.

    Returns
    -------
    ndarray of bool, shape (y, x)
        For a width of 1, where napari's contour is.
    """
    inside = np.ones(labels.shape, dtype=np.bool_)
    for one, other in _NEIGHBOURS:
        same = labels[one] == labels[other]
        inside[one] &= same
        inside[other] &= same
    for _ in range(width - 1):
        before = inside.copy()
        for one, other in _NEIGHBOURS:
            inside[one] &= before[other]
            inside[other] &= before[one]
    outline: NDArray[np.bool_] = labels != 0
    outline &= ~inside
    return outline


NO_IDS = np.zeros(0, np.uint32)
NO_NUMBERS = np.zeros(0, np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """Which nuclei have a class.

    Parameters
    ----------
    ids : ndarray of uint32, shape (n,)
        Ascending.
    numbers : ndarray of uint8, shape (n,)
        Class number of each; 0 is none.
    colours : tuple of str
        Colour of class number 1, 2 and so on.
    recent : tuple of ndarray
        The same of nuclei whose class was changed later, which counts more: few, so that a change costs little
        however many nuclei have a class.
    """

    ids: Ids
    numbers: Numbers
    colours: tuple[str, ...] = ()
    recent: tuple[Ids, Numbers] = (NO_IDS, NO_NUMBERS)

    def of(self, ids: NDArray[Any]) -> Numbers:
        """Return the class number of each id; 0 for none."""
        numbers = np.zeros(ids.shape, np.uint8)
        for known, values in ((self.ids, self.numbers), self.recent):
            if len(known):
                places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
                numbers = np.where(known[places] == ids, values[places], numbers)
        return numbers

    def are(self, other: Classes) -> bool:
        """Whether this was read of the same nuclei with the same classes and colours as another."""
        if self is other:
            return True
        (ids, numbers), (other_ids, other_numbers) = self.recent, other.recent
        arrays = (self.ids, other.ids), (self.numbers, other.numbers), (ids, other_ids), (numbers, other_numbers)
        return self.colours == other.colours and all(np.array_equal(mine, theirs) for mine, theirs in arrays)

    def changed(self, later: Classes) -> Classes:
        """Return what becomes of this by a change, which says 0 where a class was taken; itself if nothing does."""
        new = self.of(later.ids) != later.numbers
        if not new.any():
            return self if self.colours == later.colours else replace(self, colours=later.colours)
        recent = _merged(self.recent, (later.ids[new], later.numbers[new]))
        if len(recent[0]) <= RECENT:
            return Classes(self.ids, self.numbers, later.colours, recent)
        ids, numbers = _merged((self.ids, self.numbers), recent)
        return Classes(ids[numbers > 0], numbers[numbers > 0], later.colours)

    def colour_numbers(self, ids: NDArray[Any]) -> Numbers:
        """Return 0 for background, 1 for a nucleus without class, one more than the class for others."""
        colours: Numbers = (ids != 0).astype(np.uint8)
        if len(self.ids) or len(self.recent[0]):
            # A class without a colour has that of the last one.
            colours += np.minimum(self.of(ids), len(self.colours)).astype(np.uint8)
        return colours


def _merged(first: tuple[Ids, Numbers], second: tuple[Ids, Numbers]) -> tuple[Ids, Numbers]:
    """Return ascending ids and their numbers; where both know an id, the second is right."""
    kept = ~np.isin(first[0], second[0])
    ids = np.concatenate([first[0][kept], second[0]])
    numbers = np.concatenate([first[1][kept], second[1]])
    order = np.argsort(ids, kind="stable")
    return ids[order], numbers[order]


NO_CLASSES = Classes(NO_IDS, NO_NUMBERS)


def colours_of(classes: Classes) -> CyclicLabelColormap:
    """Return the colours by `Classes.colour_numbers`."""
    colours = ["transparent", OUTLINE, *classes.colours]
    return CyclicLabelColormap(colors=colours, background_value=0, name=BY_CLASS)


class Labels(NapariLabels):  # type: ignore[misc]
    """napari's own, of the same name and kind, with a short cut for outlines, and with what people said of nuclei.

    A class is the colour of the outline. What is approved is dotted: it is still seen, in its colour and on any tissue,
    but what is left to do stands out. The dots lie still on the slide.

    What is overridden is not public in napari; where a later one does not look for it, outlines are only slower and
    classes are not seen.
    """

    _classes: Classes = NO_CLASSES
    _approved: Ids = NO_IDS

    def show_approved(self, ids: Ids) -> None:
        """Mark these nuclei (ascending) as approved, and no others."""
        if not np.array_equal(ids, self._approved):
            self._approved = ids
            self.refresh(thumbnail=False, extent=False, highlight=False)

    def show_classes(self, classes: Classes) -> None:
        """Colour nuclei by class."""
        shown, self._classes = self._classes, classes
        if classes.are(shown):
            return
        if classes.colours == shown.colours:
            self.refresh(thumbnail=False, extent=False, highlight=False)
        else:
            self.colormap = colours_of(classes)

    def get_color(self, label: int | None) -> Any:
        """Return the colour of a nucleus."""
        if not self._is_by_class or not label:
            return super().get_color(label)
        return self.colormap.colors[int(self._classes.colour_numbers(np.array([label]))[0])]

    @property
    def _is_by_class(self) -> bool:
        """Whether the colours are ours, and not shuffled or reduced to the selected label by the user."""
        colormap = self.colormap
        return getattr(colormap, "name", "") == BY_CLASS and not colormap.use_selection

    def _calculate_contour(self, labels: NDArray[Any], data_slice: tuple[slice, ...]) -> NDArray[Any] | None:
        if self.contour not in {1, 2} or labels.ndim != 2:
            slow: NDArray[Any] | None = super()._calculate_contour(labels, data_slice)
            if not self._is_by_class or labels.ndim != 2:
                return slow
            return self._classes.colour_numbers(labels[data_slice] if slow is None else slow)
        around, inner = _with_margin(data_slice, labels.shape, int(self.contour) + 1)
        part = labels[around]
        outline = is_outline(part, int(self.contour))
        if not self._is_by_class:
            return np.where(outline, part, part.dtype.type(0))[inner]
        if len(self._approved):
            _dot(outline, part, self._approved, (around[0].start, around[1].start), int(self.contour))
        return self._numbers(part, outline)[inner]

    def _numbers(self, labels: NDArray[Any], outline: NDArray[np.bool_]) -> Numbers:
        """Return the numbers of the colours that labels are drawn with."""
        numbers: Numbers = outline.view(np.uint8)
        if self._classes is not NO_CLASSES:
            # Few pixels are outline, and few nuclei have a class.
            numbers = numbers.copy()
            numbers[outline] = self._classes.colour_numbers(labels[outline])
        return numbers


def _dot(outline: NDArray[np.bool_], labels: NDArray[Any], dotted: Ids, corner: tuple[int, int], unit: int) -> None:
    """Leave gaps in the outlines of some nuclei.

    Parameters
    ----------
    outline : ndarray of bool, shape (y, x)
        Changed.
    labels : ndarray of integers, shape (y, x)
        Below the outline.
    dotted : ndarray of uint32, shape (n,)
        Ascending, at least one.
    corner : tuple of int
        Row and column of the first pixel in the whole image, so that each part of it has the same dots.
    unit : int
        Size of the dots; twice as large they are still seen from afar.
    """
    ys, xs = np.nonzero(outline)
    # Other steps along rows than along columns: so there are dots along slanting lines as well.
    gaps = ((ys + corner[0]) // unit + 2 * ((xs + corner[1]) // unit)) & 3 >= 2
    ys, xs = ys[gaps], xs[gaps]
    ids = labels[ys, xs]
    among = dotted[np.minimum(np.searchsorted(dotted, ids), len(dotted) - 1)] == ids
    outline[ys[among], xs[among]] = False


def _with_margin(
    parts: tuple[slice, ...], shape: tuple[int, ...], margin: int
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return parts of an array with a margin as far as there is any, and where the parts are in those."""
    bounds = [part.indices(size)[:2] for part, size in zip(parts, shape, strict=True)]
    starts = [max(0, start - margin) for start, _stop in bounds]
    stops = [min(size, stop + margin) for (_start, stop), size in zip(bounds, shape, strict=True)]
    inner = [slice(start - first, stop - first) for (start, stop), first in zip(bounds, starts, strict=True)]
    return tuple(slice(*ends) for ends in zip(starts, stops, strict=True)), tuple(inner)
