"""The list of nuclei sorts by the attention on them, and has it measured by itself once a map; with no window."""

from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from psygnal import Signal

from napari_nucleiseg.core.attention.per_nucleus import NucleiAttention
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.listing import Listing, Query
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.viewer.measured_nuclei import ATTENTION, MeasuredNuclei, sorted_by_attention
from napari_nucleiseg.viewer.nuclei_list import NucleiList

SLIDE = Slide("a", (np.zeros((64, 64, 3), np.uint8),), (YX(1.0, 1.0),), YX(0.5, 0.5), fingerprint="a")
IDS = [20, 21, 22, 23, 24, 25]
# By id: the last but one has no pixel in a known token, and the last one lies beside what was looked at.
MEANS = {20: 0.5, 21: 0.125, 22: 0.75, 23: 0.125, 24: np.nan}


class Emitting:
    """Every signal that a list listens to."""

    edited, tile_done, switched, removed = Signal(), Signal(Region), Signal(object), Signal(object)
    picked = Signal(int)
    looked, shown_changed, measured_changed = Signal(), Signal(), Signal()

    def __init__(self, **facts):
        self.__dict__.update(facts)


class Measuring(Emitting):
    """Counts how often it is told to measure, and does so when a test says so."""

    measured = None
    asked = 0

    def measure(self, *, quiet):
        assert quiet
        self.asked += 1

    def say(self, means):
        ids = np.array(sorted(means), np.uint32)
        values = np.array([means[number] for number in sorted(means)], np.float32)
        self.measured = NucleiAttention(ids, values, values) if means else None
        self.measured_changed.emit()


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "p.nucleiseg", SLIDE) as made:
        with made.ledger.transaction() as database:
            database.execute("INSERT INTO runs VALUES (1, 'ant@1', 'k')")
            rows = [(number, 1, None, 0, 30.0, 30.0, 25, 25, 35, 35, 40.0, number % 2, 0.5, 0, 0) for number in IDS]
            database.executemany(f"INSERT INTO nuclei VALUES ({','.join('?' * 15)})", rows)
        made.census.recount_all()
        yield made


@pytest.fixture
def world(project, pump):
    """A list on a slide of which a map is shown, with what it is made of."""
    opened = SimpleNamespace(project=project, layer=None)
    shelf = Emitting(now=opened)
    display = Emitting(viewer=ViewerModel(), jobs=pump.jobs, shelf=shelf)
    heads = Emitting(jobs=pump.jobs, opened=opened, is_running=False, shown=object())
    measuring = Measuring()
    nuclei = NucleiList(Emitting(project=None), display, MeasuredNuclei(heads, measuring))
    heard = SimpleNamespace(listed=0, attention=0)
    nuclei.listed.connect(lambda: setattr(heard, "listed", heard.listed + 1))
    nuclei.attention_changed.connect(lambda: setattr(heard, "attention", heard.attention + 1))
    yield SimpleNamespace(nuclei=nuclei, heads=heads, measuring=measuring, shelf=shelf, heard=heard, pump=pump)
    nuclei.close()


def until_listed(world, act):
    before = world.heard.listed
    act()
    world.pump.run_until(lambda: world.heard.listed > before)
    return world.nuclei.listing.ids.tolist()


def test_unknown_nuclei_come_last_both_ways_and_equal_ones_by_id(world):
    assert until_listed(world, world.nuclei.open) == IDS
    world.measuring.say(MEANS)
    rising = until_listed(world, lambda: world.nuclei.ask(Query(order=ATTENTION), in_view=False))
    assert rising == [21, 23, 20, 22, 24, 25]
    falling = Query(order=ATTENTION, descending=True)
    assert until_listed(world, lambda: world.nuclei.ask(falling, in_view=False)) == [22, 20, 21, 23, 24, 25]
    assert world.nuclei.listing.query == falling
    assert [world.nuclei.attention_of(number) for number in (20, 24, 25, 7)] == [0.5, None, None, None]
    # Of four that are known, two tie for the lowest place.
    assert [world.nuclei.percentile_of(number) for number in (21, 20, 22, 24)] == [0.375, 0.75, 1.0, None]


def test_filters_hold_in_this_order_too(world):
    until_listed(world, world.nuclei.open)
    world.measuring.say(MEANS)
    query = Query(order=ATTENTION, descending=True, class_number=1)
    assert until_listed(world, lambda: world.nuclei.ask(query, in_view=False)) == [21, 23, 25]


def test_another_map_lists_anew_only_where_its_order_is_wanted(world):
    until_listed(world, world.nuclei.open)
    world.measuring.say(MEANS)
    world.pump.run_for(0.2)
    assert (world.heard.listed, world.heard.attention) == (1, 1)
    until_listed(world, lambda: world.nuclei.ask(Query(order=ATTENTION), in_view=False))
    other = {number: -number for number in IDS}
    assert until_listed(world, lambda: world.measuring.say(other)) == IDS[::-1]
    assert world.nuclei.percentile_of(25) == pytest.approx(1 / 6)
    assert until_listed(world, lambda: world.measuring.say({})) == IDS
    assert not world.nuclei.has_attention
    assert (world.nuclei.attention_of(20), world.nuclei.percentile_of(20)) == (None, None)


def test_a_closed_list_hears_nothing(world):
    until_listed(world, world.nuclei.open)
    until_listed(world, lambda: world.nuclei.ask(Query(order=ATTENTION), in_view=False))
    world.nuclei.close()
    world.measuring.say(MEANS)
    world.heads.shown_changed.emit()
    world.pump.run_for(0.3)
    assert (world.heard.listed, world.heard.attention, world.measuring.asked) == (2, 0, 0)


def test_a_map_is_measured_once_when_the_list_is_opened_and_once_when_there_is_another(world):
    until_listed(world, world.nuclei.open)
    world.pump.run_until(lambda: world.measuring.asked == 1)
    world.nuclei.refresh()
    world.heads.looked.emit()
    world.heads.shown_changed.emit()
    world.pump.run_for(0.3)
    assert world.measuring.asked == 1  # there was nothing to measure: that is not tried again
    world.heads.shown = object()
    world.heads.shown_changed.emit()
    world.pump.run_until(lambda: world.measuring.asked == 2)
    # From now on whoever measures follows the map by itself.
    world.measuring.say(MEANS)
    world.heads.shown = object()
    world.heads.shown_changed.emit()
    world.pump.run_for(0.3)
    assert world.measuring.asked == 2


@pytest.mark.parametrize("missing", ["map", "slide", "project", "nuclei", "end"])
def test_nothing_is_measured_where_something_is_missing(world, project, missing):
    heads = world.heads
    if missing == "map":
        heads.shown = None
    elif missing == "slide":
        heads.opened = None
    elif missing == "project":
        heads.opened.project = None
    elif missing == "nuclei":
        with project.ledger.transaction() as database:
            database.execute("DELETE FROM nuclei")
        project.census.recount_all()
    else:
        heads.is_running = True  # more of the map is to come
    world.nuclei.open()
    world.pump.run_for(0.3)
    assert world.measuring.asked == 0


def test_nuclei_are_measured_once_the_segmentation_has_ended(world, monkeypatch):
    monkeypatch.setattr("napari_nucleiseg.viewer.measured_nuclei.SEGMENTED_S", 0.05)
    running = {"segment"}
    monkeypatch.setattr("napari_nucleiseg.viewer.measured_nuclei.SEGMENTING", "segment")
    monkeypatch.setattr(world.pump.jobs, "is_running", lambda lane: lane in running)
    world.nuclei.open()
    world.pump.run_for(0.3)
    assert world.measuring.asked == 0
    running.clear()
    world.pump.run_until(lambda: world.measuring.asked == 1)


def test_a_list_without_heads_knows_no_attention(world, pump):
    display = world.nuclei._display
    plain = NucleiList(Emitting(project=None), display)
    plain.open()
    assert not plain.has_attention
    assert (plain.attention_of(20), plain.percentile_of(20)) == (None, None)
    plain.ask(Query(order=ATTENTION, descending=True), in_view=False)
    pump.run_until(lambda: len(plain.listing) == len(IDS))
    assert plain.listing.ids.tolist() == IDS
    plain.close()


def test_a_measurement_of_no_nucleus_changes_no_order():
    listing = Listing(ids=np.array(IDS, np.uint32))
    nothing = NucleiAttention(np.zeros(0, np.uint32), np.zeros(0, np.float32), np.zeros(0, np.float32))
    assert sorted_by_attention(listing, Query(order=ATTENTION), nothing).ids.tolist() == IDS


def test_only_nuclei_of_the_results_that_are_corrected_can_be_changed(world):
    editing = world.nuclei._editing
    editing.project = world.nuclei.project
    assert not world.nuclei.can_change  # they are not listed yet
    until_listed(world, world.nuclei.open)
    assert world.nuclei.can_change
    editing.project = object()
    assert not world.nuclei.can_change
