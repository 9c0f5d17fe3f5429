"""A person at the table of nuclei after heads were looked at: columns come, sort and go with the map shown."""

from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from gui_parts import WAIT_MS, click, open_and_settle, until_idle
from napari_nucleiseg.core.attention.grid import TokenGrid
from napari_nucleiseg.core.attention.shown import ShownMap
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.widgets.nuclei_model import ATTENTION_PLACES, COLUMNS

HEIGHT, WIDTH, TOKEN = 768, 1024, 16
ALL = 24 * 32
FALLING, RISING = Qt.SortOrder.DescendingOrder, Qt.SortOrder.AscendingOrder
ATTENTION, PERCENTILE = ATTENTION_PLACES


def map_along(axis, columns=WIDTH // TOKEN):
    """A map that rises down (0) or to the right (1), and is known of the first columns of tokens only."""
    values = np.indices((HEIGHT // TOKEN, WIDTH // TOKEN))[axis].astype(np.float32) / 64
    values[:, columns:] = np.nan
    return ShownMap(values, TokenGrid(*values.shape, YX(float(TOKEN), float(TOKEN))), (0.0, 1.0))


def show_map(panel, shown):
    """Have a map shown as if the whole slide had been looked at."""
    heads = panel.docks.heads
    heads.open()
    heads._opened = heads.shelf.now
    heads._slide = heads.shelf.now.slide
    heads.looks = SimpleNamespace(looks=[SimpleNamespace(plan=SimpleNamespace(region=Region(0, 0, HEIGHT, WIDTH)))])
    heads.shown = shown
    heads.looked.emit()
    heads.shown_changed.emit()


@pytest.fixture(autouse=True)
def _no_encoders(monkeypatch, tmp_path):
    """What is shown is made here: nothing is looked at in its place."""
    monkeypatch.setattr("napari_nucleiseg.core.models.encoders.SHIPPED_FOLDER", tmp_path / "none")


@pytest.fixture
def table(viewer, panel, disc_slide, qtbot):
    """The table on a slide that is segmented and of whose left half a map is shown."""
    open_and_settle(viewer, panel, disc_slide, qtbot)
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    click(qtbot, panel.panel.correct.table_button)
    made = panel.docks.widget("Nuclei table")
    qtbot.waitUntil(lambda: made.model.rowCount() == ALL, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    return made


def is_seen(table):
    hidden = [table.view.isColumnHidden(place) for place in ATTENTION_PLACES]
    assert hidden in ([True, True], [False, False])
    return not hidden[0]


def cells(table, place):
    return [table.model.data(table.model.index(row, place)) for row in range(table.model.rowCount())]


def click_title(table, qtbot, panel, place):
    header = table.view.horizontalHeader()
    middle = header.sectionViewportPosition(place) + header.sectionSize(place) // 2
    qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(middle, 8))
    until_idle(qtbot, panel)


def indicator(table):
    header = table.view.horizontalHeader()
    return header.sortIndicatorSection(), header.sortIndicatorOrder()


def centres(table, panel):
    """Where the nuclei of the rows lie."""
    nuclei = panel.controller.display.shelf.now.project.nuclei_in(Region(0, 0, HEIGHT, WIDTH))
    return nuclei.centroids[np.searchsorted(nuclei.ids, table.model._nuclei.listing.ids)]


def test_the_columns_come_with_a_map_sort_by_it_and_follow_the_next_one(table, panel, qtbot):
    assert not is_seen(table)
    before = table.model._nuclei.listing.ids.tolist()
    show_map(panel, map_along(1, columns=32))
    qtbot.waitUntil(lambda: is_seen(table), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert table.model._nuclei.listing.ids.tolist() == before  # still by number
    x = centres(table, panel)[:, 1]
    shown = cells(table, ATTENTION)
    assert [bool(text) for text in shown] == (x < 512).tolist()  # nothing was measured beyond
    known = np.array([float(text) for text in shown if text])
    assert np.abs(known - (x[x < 512] / TOKEN - 0.5) / 64).max() < 1 / 64
    assert {len(text.replace(".", "").lstrip("0")) for text in shown if text} <= {0, 3}
    percent = [int(text) for text in cells(table, PERCENTILE) if text]
    assert (min(percent), max(percent)) == (3, 97)  # 16 columns of discs that tie in themselves

    for place in ATTENTION_PLACES:
        click_title(table, qtbot, panel, place)
        orders = [indicator(table)[1]]
        values = [[float(text) for text in cells(table, place) if text]]
        click_title(table, qtbot, panel, place)
        assert indicator(table)[0] == place
        orders.append(indicator(table)[1])
        values.append([float(text) for text in cells(table, place) if text])
        assert set(orders) == {RISING, FALLING}
        for order, column in zip(orders, values, strict=True):
            assert column == sorted(column, reverse=order == FALLING)
            assert len(column) == ALL / 2
        assert not any(cells(table, place)[ALL // 2 :])  # unknown ones last, both ways

    table.view.sortByColumn(ATTENTION, FALLING)
    until_idle(qtbot, panel)
    show_map(panel, map_along(0))
    qtbot.waitUntil(lambda: all(cells(table, ATTENTION)), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    y = centres(table, panel)[:, 0]
    assert (np.diff(y) < 4).all()
    assert y[0] > HEIGHT - 40
    assert y[-1] < 40
    assert indicator(table) == (ATTENTION, FALLING)


def test_the_columns_go_with_the_slide_and_the_order_by_them_too(viewer, table, panel, qtbot):
    show_map(panel, map_along(1))
    qtbot.waitUntil(lambda: is_seen(table), timeout=WAIT_MS)
    click_title(table, qtbot, panel, PERCENTILE)
    assert indicator(table)[0] == PERCENTILE
    viewer.layers.remove(viewer.layers[0])
    qtbot.waitUntil(lambda: table.model.rowCount() == 0, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert not is_seen(table)
    assert indicator(table) == (0, RISING)
    assert table.model._nuclei.query.order == COLUMNS[0].order


def test_opening_the_table_measures_what_is_shown_and_what_went_while_it_was_closed_is_gone(
    viewer, table, panel, qtbot, monkeypatch
):
    asked = []
    measure = panel.docks.heads_nuclei.measure
    monkeypatch.setattr(panel.docks.heads_nuclei, "measure", lambda **how: (asked.append(how), measure(**how)))
    viewer.window.remove_dock_widget(panel.docks.frame("Nuclei table"))
    show_map(panel, map_along(1))
    until_idle(qtbot, panel)
    assert asked == []  # nobody looks at the table
    click(qtbot, panel.panel.correct.table_button)
    qtbot.waitUntil(lambda: is_seen(table), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert asked == [{"quiet": True}]
    table.view.sortByColumn(ATTENTION, FALLING)
    viewer.window.remove_dock_widget(panel.docks.frame("Nuclei table"))
    panel.docks.heads.drop()
    click(qtbot, panel.panel.correct.table_button)
    until_idle(qtbot, panel)
    assert not is_seen(table)
    assert indicator(table) == (0, RISING)
    assert (np.diff(table.model._nuclei.listing.ids.astype(np.int64)) > 0).all()
    assert len(asked) == 1
