"""The attention on nuclei as a list shows it: looked up, sorted by, and measured by itself while the list is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_nucleiseg.core.store.listing import Listing, Query
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.heads import Heads
from napari_nucleiseg.viewer.heads_lanes import MEASURING
from napari_nucleiseg.viewer.heads_nuclei import HeadsNuclei
from napari_nucleiseg.viewer.segmenter import LANE as SEGMENTING

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.per_nucleus import NucleiAttention
    from napari_nucleiseg.core.attention.shown import ShownMap

ATTENTION = "attention"
KEY = "attention of listed nuclei"
SETTLED_S, SEGMENTED_S = 0.1, 2.0


class MeasuredNuclei:
    """How much the map of attention that is shown lies on each nucleus; all methods are for the main thread.

    Parameters
    ----------
    heads : Heads
        Knows which map is shown.
    nuclei : HeadsNuclei
        Measures, and knows what was measured.

    Notes
    -----
    Between `open` and `close` it has nuclei measured by itself, once for a map that is shown.
    """

    changed = Signal()
    """Other values are known, or none any more."""

    def __init__(self, heads: Heads, nuclei: HeadsNuclei) -> None:
        self._heads, self._nuclei = heads, nuclei
        self._tried: ShownMap | None = None
        self._ranked: tuple[NucleiAttention, NDArray[np.float32]] | None = None
        self._connections = Connections(
            (nuclei.measured_changed, self._on_measured),
            (heads.looked, self.measure_soon),
            (heads.shown_changed, self.measure_soon),
        )

    def open(self) -> None:
        """Begin to measure what is shown."""
        self._connections.open()
        self.measure_soon()

    def close(self) -> None:
        """Cease to."""
        self._connections.close()
        self._heads.jobs.forget(KEY)

    # ------------------------------------------------------------------ what is known

    @property
    def measured(self) -> NucleiAttention | None:
        """The values; None where nothing is known."""
        return self._nuclei.measured

    def mean_of(self, nucleus_id: int) -> float | None:
        """Return the mean of the map over a nucleus, in the map's scale; None where that is not known."""
        measured = self.measured
        return None if measured is None else _value_of(measured, measured.means, nucleus_id)

    def percentile_of(self, nucleus_id: int) -> float | None:
        """Return the rank of this mean among all nuclei that were measured, 0..1; None where that is not known."""
        measured = self.measured
        if measured is None:
            return None
        if self._ranked is None or self._ranked[0] is not measured:
            self._ranked = measured, measured.percentiles
        return _value_of(measured, self._ranked[1], nucleus_id)

    def _on_measured(self) -> None:
        self.changed.emit()

    # ------------------------------------------------------------------ measuring

    def measure_soon(self) -> None:
        """Measure, once things are at rest, what is shown and not known."""
        self._heads.jobs.later(KEY, SETTLED_S, self._measure)

    def _measure(self) -> None:
        heads, opened = self._heads, self._heads.opened
        if not self._connections.is_open or opened is None or opened.project is None or heads.is_running:
            return
        if heads.jobs.is_running(SEGMENTING):
            # There are more nuclei to come, and a map is measured but once.
            heads.jobs.later(KEY, SEGMENTED_S, self._measure)
            return
        is_known = self.measured is not None or heads.jobs.is_running(MEASURING)
        if is_known or heads.shown is None or heads.shown is self._tried or not opened.project.census.total():
            return
        self._tried = heads.shown
        self._nuclei.measure(quiet=True)


def sorted_by_attention(listing: Listing, query: Query, measured: NucleiAttention | None) -> Listing:
    """Return nuclei in the order of their attention; for any thread.

    Parameters
    ----------
    listing : Listing
        Nuclei, ascending by id.
    query : Query
        What is asked for: whether the most attended comes first.
    measured : NucleiAttention or None
        What is known; nuclei of which nothing is known come last both ways, and equal ones ascending by id.
    """
    keys = np.full(len(listing.ids), np.inf)
    if measured is not None and len(measured.ids):
        places = np.minimum(np.searchsorted(measured.ids, listing.ids), len(measured.ids) - 1)
        means = measured.means[places].astype(np.float64)
        is_known = (measured.ids[places] == listing.ids) & ~np.isnan(means)
        keys[is_known] = -means[is_known] if query.descending else means[is_known]
    return replace(listing, query=query, ids=listing.ids[np.argsort(keys, kind="stable")])


def _value_of(measured: NucleiAttention, values: NDArray[Any], nucleus_id: int) -> float | None:
    # In the type of the ids, or all of them would be turned into another one for each look-up.
    place = int(np.searchsorted(measured.ids, np.uint32(nucleus_id)))
    if place == len(measured.ids) or measured.ids[place] != nucleus_id or np.isnan(values[place]):
        return None
    return float(values[place])
