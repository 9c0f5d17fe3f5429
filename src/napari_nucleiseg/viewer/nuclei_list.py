"""The nuclei of the slide in hand as a table shows them: found and read off the main thread, kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.listing import Entry, Ids, Listing, Query, entries_of, list_nuclei
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.editing import Editing
from napari_nucleiseg.viewer.given_anew import FOUND_ANEW, GivenAnew, tell_given_anew
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.marker import Marker, fly_to
from napari_nucleiseg.viewer.measured_nuclei import ATTENTION, MeasuredNuclei, sorted_by_attention
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.project_view import class_list, has_class
from napari_nucleiseg.viewer.visible import visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project

LANES = LANE, ROWS_LANE = "table", "table rows"
PAGE = 128
# Of so many pages the values are kept; a screen shows one or two.
PAGES = 64
AT_ONCE_S = 0.02
EDITED_S = 0.4
TILE_S = 2.0
VIEW_S = 0.25


class NucleiList:
    """What a table of nuclei shows in one viewer; all methods are for the main thread.

    Parameters
    ----------
    editing : Editing
        Tells of edits, and makes those that are asked for here.
    display : Display
        Knows the viewer, the slide in hand and the jobs.
    attention : MeasuredNuclei, optional
        Knows how much of the attention of a head each nucleus gets: the order `ATTENTION`, beside those of the store.

    Notes
    -----
    It works only between `open` and `close`.
    """

    listed = Signal()
    """There is a new `listing`."""
    read = Signal(int, int)
    """The values of the rows from the first to before the second are known (anew)."""
    pointed = Signal(int)
    """The user picked the nucleus of this row on the slide."""
    attention_changed = Signal()
    """Of nuclei another attention is known, or none any more."""
    said = Signal(Hint)
    chosen = Signal(object)
    """The user has selected rows of these nuclei (ids, in the order of the list)."""
    given_anew = Signal(object)
    """A model has just written these ids: they may be of other nuclei now. Told also while this is closed."""

    def __init__(self, editing: Editing, display: Display, attention: MeasuredNuclei | None = None) -> None:
        self._editing, self._display, self._attention = editing, display, attention
        self._viewer, self._jobs, self._shelf = display.viewer, display.jobs, display.shelf
        self.marker = Marker(self._viewer)
        self.listing = Listing()
        self.in_view = False
        """Whether only nuclei that the camera shows are listed."""
        self.only: Ids | None = None
        """Whether, and which, nuclei (ascending ids) are listed only, because they were selected elsewhere."""
        self._connections = self._make_connections()
        self._query = Query()
        self._listed_of: Project | None = None
        self._anew = GivenAnew()
        self._pages: dict[int, list[Entry | None]] = {}
        self._stale: set[int] = set()
        self._wanted: dict[int, None] = {}
        self._picked = 0
        self._going: tuple[int, bool] | None = None
        display.tile_done.connect(self._on_tile_written)

    # ------------------------------------------------------------------ life

    def open(self) -> None:
        """Begin to list."""
        self._connections.open()
        if self._attention is not None:
            self._attention.open()
        self.refresh()

    def close(self) -> None:
        """Cease to list, and take the ring away."""
        if self.is_open:
            self._connections.close()
            if self._attention is not None:
                self._attention.close()
            self._jobs.cancel(LANE)
            self._jobs.cancel(ROWS_LANE)
            self.marker.hide()

    def _make_connections(self) -> Connections:
        camera = self._viewer.scene.camera.events
        attention = self._attention
        return Connections(
            *(() if attention is None else ((attention.changed, self._on_attention_changed),)),
            (self._editing.edited, self._on_edited),
            (self._editing.picked, self._on_picked),
            (self._shelf.switched, self.begin_anew),
            (self._shelf.removed, self.begin_anew),
            (self._viewer.layers.events.inserted, self._on_layers_changed),
            (camera.center, self._on_view_moved),
            (camera.zoom, self._on_view_moved),
        )

    @property
    def is_open(self) -> bool:
        """Whether it works."""
        return self._connections.is_open

    @property
    def project(self) -> Project | None:
        """The project whose nuclei are listed."""
        return None if self._shelf.now is None else self._shelf.now.project

    @property
    def can_change(self) -> bool:
        """Whether the nuclei that are listed are being corrected."""
        return self._editing.project is not None and self._editing.project is self._listed_of

    @property
    def total(self) -> int:
        """How many nuclei the slide has."""
        return 0 if self.project is None else self.project.census.total()

    def classes(self) -> list[tuple[int, str, str]]:
        """Return number, name and colour of each class."""
        return class_list(self.project)

    # ------------------------------------------------------------------ which nuclei

    @property
    def query(self) -> Query:
        """What is asked for, but for the region in view."""
        return self._query

    def ask(self, query: Query, *, in_view: bool) -> None:
        """List other nuclei, or in another order."""
        if (query, in_view) != (self._query, self.in_view):
            self._query, self.in_view = query, in_view
            self.refresh()

    def show_only(self, ids: Ids | None) -> None:
        """List these nuclei (ascending ids), as far as what is asked for lets them; None lists others again."""
        self.only = ids
        self.refresh()

    def choose(self, rows: NDArray[np.int64]) -> None:
        """Tell that the user has selected these rows."""
        ids = self.meant(rows)
        if len(ids):
            self.chosen.emit(ids)

    def meant(self, rows: NDArray[np.int64]) -> Ids:
        """Return the nuclei of rows, without those whose id a model has given anew since they were listed."""
        ids = self.listing.ids[rows]
        return ids[~self._anew.among(ids)]

    def refresh(self) -> None:
        """List anew."""
        opened, project = self._shelf.now, self.project
        if not self.is_open:
            return
        if opened is None or project is None:
            self._on_listed(None, Listing(), self._anew.now)
            return
        query = self._query
        if self.in_view:
            query = replace(query, region=visible_region(self._viewer, opened.layer))

        measured = None if self._attention is None else self._attention.measured
        only, told = self.only, self._anew.now

        def work(_cancelled: Cancelled) -> Iterator[Listing]:
            by_attention = query.order == ATTENTION
            kept = replace(query, order="id", descending=False) if by_attention else query
            found = list_nuclei(project.ledger.reader, project.census, kept)
            if only is not None:
                found = replace(found, ids=found.ids[np.isin(found.ids, only)])
            yield sorted_by_attention(found, query, measured) if by_attention else found

        self._jobs.start(LANE, work, on_value=lambda listing: self._on_listed(project, listing, told))

    def _on_listed(self, project: Project | None, listing: Listing, told: int) -> None:
        if project is not self.project:
            return
        self._listed_of = project
        self._anew.forget(told)
        self.listing = listing
        self._pages.clear()
        self._stale.clear()
        self._wanted.clear()
        self._going = None
        self.listed.emit()
        if self._attention is not None:
            self._attention.measure_soon()
        if listing.row_of(self._picked) is not None:
            self._point()

    # ------------------------------------------------------------------ what is known of them

    def entry(self, row: int) -> Entry | None:
        """Return what is known of the nucleus of a row; None as long as it is being read."""
        page, place = divmod(row, PAGE)
        if page not in self._pages or page in self._stale:
            self._wanted[page] = self._wanted.pop(page, None)
            self._jobs.soon(ROWS_LANE, AT_ONCE_S, self._read_pages)
        entries = self._pages.get(page, [])
        return entries[place] if place < len(entries) else None

    @property
    def has_attention(self) -> bool:
        """Whether anything is known of the attention on nuclei."""
        return self._attention is not None and self._attention.measured is not None

    def attention_of(self, nucleus_id: int) -> float | None:
        """Return the mean of the map of attention over a nucleus; None where nothing was measured."""
        return None if self._attention is None else self._attention.mean_of(nucleus_id)

    def percentile_of(self, nucleus_id: int) -> float | None:
        """Return the rank of its attention among the nuclei that were measured, 0..1; None where nothing was."""
        return None if self._attention is None else self._attention.percentile_of(nucleus_id)

    def _read_pages(self) -> None:
        project, listing = self.project, self.listing
        if project is None or project is not self._listed_of or not self.is_open:
            return
        # What was scrolled past is not wanted any more.
        pages = list(self._wanted)[-4:]

        def work(_cancelled: Cancelled) -> Iterator[tuple[int, list[Entry | None]]]:
            for page in pages:
                ids = listing.ids[page * PAGE : (page + 1) * PAGE].tolist()
                found = entries_of(project.ledger.reader, ids)
                yield page, [found.get(nucleus_id) for nucleus_id in ids]

        self._jobs.start(ROWS_LANE, work, on_value=lambda answer: self._on_page_read(listing, *answer))

    def _on_page_read(self, listing: Listing, page: int, entries: list[Entry | None]) -> None:
        if listing is not self.listing:
            return
        self._wanted.pop(page, None)
        self._stale.discard(page)
        self._pages.pop(page, None)
        self._pages[page] = entries
        while len(self._pages) > PAGES:
            self._pages.pop(next(iter(self._pages)))
        self.read.emit(page * PAGE, page * PAGE + len(entries))
        if self._going is not None and self._going[0] // PAGE == page:
            self.go_to(self._going[0], fly=self._going[1])

    # ------------------------------------------------------------------ what the user does

    def go_to(self, row: int, *, fly: bool = True) -> None:
        """Draw a ring around the nucleus of a row; and show it, near enough to correct it, if `fly`."""
        if not len(self.meant(np.array([row]))):
            self.said.emit(Hint(FOUND_ANEW))
            return
        opened, entry = self._shelf.now, self.entry(row)
        self._going = (row, fly) if entry is None else None
        if opened is None or entry is None:
            return
        if fly:
            fly_to(self._viewer, opened, entry.box)
        self.marker.show(opened, entry.box)

    def approve(self, rows: Collection[int], *, approved: bool) -> None:
        """Mark the nuclei of rows as right, or take that back, as one step."""
        self._change(rows, lambda ids: self._editing.approve(ids, approved=approved))

    def delete(self, rows: Collection[int], *, kind: str) -> None:
        """Take the nuclei of rows away as one step; `kind` is ``delete`` or ``reject``."""
        self._change(rows, lambda ids: self._editing.delete(ids, kind=kind))
        self.marker.hide()

    def classify(self, rows: Collection[int], number: int) -> None:
        """Give the nuclei of rows a class as one step; 0 takes it, and a number that is no class does nothing."""
        if has_class(self.project, number):
            self._change(rows, lambda ids: self._editing.classify(ids, number))

    def _change(self, rows: Collection[int], change: Callable[[list[int]], None]) -> None:
        """Change the nuclei that rows are of, and say if some are others by now."""
        ids = self.meant(np.array(list(rows), np.int64)).tolist()
        if ids:
            change(ids)
        if len(ids) < len(rows):
            self._editing.hinted.emit(Hint(f"{len(rows) - len(ids):,} of them have been found anew: nothing was done."))

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_edited(self) -> None:
        self._stale.update(self._pages)
        if self._pages:
            self.read.emit(0, 0)
        self._jobs.later(LANE, EDITED_S, self.refresh)

    def _on_attention_changed(self) -> None:
        if self._query.order == ATTENTION:
            self.refresh()
        self.attention_changed.emit()

    def _on_tile_written(self, tile: Region) -> None:
        project = self.project
        if project is not None:
            tell_given_anew(self._jobs, project, tile, lambda ids: self._on_given_anew(project, ids))

    def _on_given_anew(self, project: Project, ids: Ids) -> None:
        if project is not self.project:
            return
        if self.only is not None:
            self.only = np.setdiff1d(self.only, ids)
        self._anew.tell(ids)
        self.given_anew.emit(ids)
        self._refresh_soon()

    def _refresh_soon(self) -> None:
        if self.is_open:
            self._jobs.soon("table tiles", TILE_S, self.refresh)

    def begin_anew(self) -> None:
        """List what the slide has that is in hand now; with another pixel size its nuclei are others."""
        self.marker.hide()
        self._picked, self.only = 0, None
        self._jobs.later(LANE, 0.0, self.refresh)

    def _on_layers_changed(self, _event: Any = None) -> None:
        """The results of an earlier session are shown as a layer when they have been opened."""
        if self.project is not self._listed_of:
            self._jobs.later(LANE, 0.0, self.refresh)

    def _on_view_moved(self, _event: Any = None) -> None:
        if self.in_view:
            self._jobs.later(LANE, VIEW_S, self.refresh)

    def _on_picked(self, nucleus_id: int) -> None:
        self._picked = nucleus_id
        self._point()

    def _point(self) -> None:
        """Point at the row of the nucleus that was picked last; what was drawn just now may come with the next list."""
        opened, row = self._shelf.now, self.listing.row_of(self._picked)
        if not self._picked or opened is None:
            self.marker.hide()
        elif row is not None and len(self.meant(np.array([row]))):
            self._picked = 0
            self.pointed.emit(row)
            self.go_to(row, fly=False)
        elif row is not None:
            self._refresh_soon()  # the row of the new list is meant
        elif not self._jobs.is_running(LANE):
            self.said.emit(Hint(f"Nucleus {self._picked} is not among the rows shown."))
