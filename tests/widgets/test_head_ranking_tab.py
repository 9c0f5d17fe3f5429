"""Heads and nuclei in a real window: rank, sort, click a row and a dot, colour, walk, seed, and the table of nuclei."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication

from dark_model import DarkEngine
from gui_parts import WAIT_MS, click, open_and_settle, until_idle
from heads_parts import HEIGHT, WIDTH, use_home, write_discs, write_encoders
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.widgets.head_ranking import COLUMNS
from napari_nucleiseg.widgets.nuclei_model import ATTENTION_PLACES

LEFT = Qt.MouseButton.LeftButton
HEADS = 6


@pytest.fixture
def engine(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    return DarkEngine(tmp_path)


@pytest.fixture
def tab(viewer, panel, qtbot, tmp_path):
    """The tab, opened on a slide that was looked at and has no nuclei."""
    write_encoders()
    open_and_settle(viewer, panel, str(write_discs(tmp_path / "discs.tif")), qtbot)
    click(qtbot, panel.panel.heads_button)
    dock = panel.docks.widget("Attention heads")
    viewer.reset_view()
    until_idle(qtbot, panel)
    dock.tabs.setCurrentIndex(2)
    QApplication.processEvents()
    click(qtbot, dock.look_button)
    until_idle(qtbot, panel)
    dock.ranking.hint = dock.hint
    return dock.ranking


def segment(panel, qtbot):
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    project = panel.controller.display.shelf.now.project
    return project.nuclei_in(Region(0, 0, HEIGHT, WIDTH))


def column(tab, place):
    return [tab.table.item(row, place).text() for row in range(tab.table.rowCount())]


def click_title(tab, qtbot, place):
    header = tab.table.horizontalHeader()
    middle = header.sectionViewportPosition(place) + header.sectionSize(place) // 2
    qtbot.mouseClick(header.viewport(), LEFT, pos=QPoint(middle, header.height() // 2))


def shown(panel):
    wishes = panel.docks.heads.wishes
    layer = 1 if wishes.layer == -1 else wishes.layer
    return str(layer + 1), str(int(wishes.head) + 1)


def named(viewer, part):
    return [layer for layer in viewer.layers if part in layer.name]


def test_ranked_sorted_and_shown_by_a_click_on_a_row_or_a_dot(viewer, panel, tab, qtbot):
    click(qtbot, tab.rank_button)
    assert "There are no nuclei here to rank heads against" in tab.hint.text()
    assert tab.plot.grab().width() > 0
    segment(panel, qtbot)
    click(qtbot, tab.rank_button)
    until_idle(qtbot, panel)
    assert "tells nuclei from the rest best" in tab.hint.text()
    assert tab.table.rowCount() == HEADS
    assert tab.table.columnCount() == len(COLUMNS)
    assert {*zip(column(tab, 0), column(tab, 1), strict=True)} == {(a, b) for a in "12" for b in "123"}
    header = tab.table.horizontalHeader()
    for place in range(len(COLUMNS)):  # no number is cut off
        assert tab.table.columnWidth(place) >= tab.table.sizeHintForColumn(place)
    low, high = tab.plot._range()
    assert 0 <= low < high <= 1
    assert tab.table.columnWidth(2) >= header.sectionSizeHint(2) > tab.table.columnWidth(1)  # the sign of sorting fits
    aurocs = [float(text) for text in column(tab, 2)]
    assert aurocs == sorted(aurocs, reverse=True)
    for place in range(len(COLUMNS)):
        for _ in range(2):
            click_title(tab, qtbot, place)
            values = [float(text.rstrip("%")) for text in column(tab, place)]
            rises = tab.table.horizontalHeader().sortIndicatorOrder() == Qt.SortOrder.AscendingOrder
            assert values == sorted(values, reverse=not rises)
    # Sorted by whatever, a row shows its own head.
    for row in (0, HEADS - 1):
        tab.table.scrollToItem(tab.table.item(row, 0))
        middle = tab.table.visualItemRect(tab.table.item(row, 1)).center()
        qtbot.mouseClick(tab.table.viewport(), LEFT, pos=middle)
        until_idle(qtbot, panel)
        assert shown(panel) == (column(tab, 0)[row], column(tab, 1)[row])
        (layer,) = [one for one in viewer.layers if one.metadata.get("nucleiseg_role") == "attention heads"]
        assert f"head {column(tab, 1)[row]}" in layer.name
    scores = panel.docks.heads_nuclei.scores
    dots = tab.plot._points()
    apart = [min((dot - other).manhattanLength() for other in dots if other is not dot) > 3 for dot in dots]
    assert sum(apart) > 1
    for place in np.flatnonzero(apart):
        qtbot.mouseClick(tab.plot, LEFT, pos=dots[place].toPoint())
        assert shown(panel) == (str(scores[place].layer + 1), str(scores[place].head + 1))
        (row,) = {item.row() for item in tab.table.selectedItems()}
        assert (column(tab, 0)[row], column(tab, 1)[row]) == shown(panel)
    assert tab.plot.grab().width() > 0
    viewer.layers.remove("discs")
    until_idle(qtbot, panel)
    assert tab.table.rowCount() == 0


def test_nuclei_are_coloured_visited_and_listed_with_their_attention(viewer, panel, tab, qtbot):
    nuclei = segment(panel, qtbot)
    click(qtbot, tab.colour_button)
    until_idle(qtbot, panel)
    (picture,) = named(viewer, "nuclei by attention")
    before = np.nan_to_num(picture.data)
    click(qtbot, tab.most_button)
    until_idle(qtbot, panel)
    assert "number 1 of" in tab.hint.text()
    (ring,) = named(viewer, "nucleus by attention")
    first = ring.data[0]
    click(qtbot, tab.least_button)
    until_idle(qtbot, panel)
    assert "from the least attended" in tab.hint.text()
    assert not np.allclose(named(viewer, "nucleus by attention")[0].data[0], first)
    panel.docks.heads.wishes.head = "1"
    until_idle(qtbot, panel)
    assert not np.array_equal(np.nan_to_num(named(viewer, "nuclei by attention")[0].data), before)
    click(qtbot, tab.colour_button)
    assert not named(viewer, "nuclei by attention")
    click(qtbot, tab.seed_button)
    until_idle(qtbot, panel)
    (seeds,) = named(viewer, "seeds")
    assert f"{len(seeds.data):,} seeds" in tab.hint.text()
    panel.docks.show_table()
    table = panel.docks.widget("Nuclei table")
    qtbot.waitUntil(lambda: table.model.rowCount() == len(nuclei), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert not table.view.isColumnHidden(ATTENTION_PLACES[0])
    viewer.layers.remove("discs")
    until_idle(qtbot, panel)
    assert len(viewer.layers) == 0
    assert table.view.isColumnHidden(ATTENTION_PLACES[0])
    assert not tab.colour_button.isChecked()
