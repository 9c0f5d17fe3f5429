"""Regions that change while the next one is being drawn, with no window."""

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_nucleiseg.core.store.regions import read_regions
from plots_parts import WindowlessPlots


class Drawing(WindowlessPlots):
    """Somebody who draws squares of 80 pixels."""

    def square(self, y):
        self.regions._layer.add_polygons(np.array([(y, 10), (y, 90), (y + 80, 90), (y + 80, 10)], float))

    def draw(self, y):
        self.regions.draw("polygon")
        self.settle()
        self.square(y)
        self.settle()

    def begin(self):
        """Make the first click of a polygon."""
        self.regions.draw("polygon")
        self.regions._layer._is_creating = True

    def end(self, y):
        """Make the last one."""
        self.regions._layer._is_creating = False
        self.square(y)
        self.settle()

    def kept(self):
        return [region.vertices[0][0] for region in read_regions(self.project.ledger.reader)]

    def known(self):
        return [region.vertices[0][0] for region in self.regions.regions]

    def kinds(self):
        return [step.kind for step in reversed(self.project.editor.history()) if not step.undone]


@pytest.fixture
def drawing(pump, tmp_path, disc_slide):
    made = Drawing(ViewerModel(), pump, tmp_path)
    made.open(disc_slide)
    made.segment()
    yield made
    made.close()


def test_a_region_that_is_read_while_the_next_is_drawn_stays(drawing, pump):
    drawing.regions.draw("polygon")
    drawing.settle()
    drawing.square(10)
    pump.run_until(lambda: drawing.kept() == [10])
    drawing.begin()
    pump.run_until(lambda: drawing.known() == [10])
    drawing.end(200)
    assert drawing.kept() == drawing.known() == [10, 200]
    assert drawing.kinds() == ["region", "region"]
    assert drawing.regions._layer.features["region"].tolist() == [1, 2]


def test_a_region_that_undo_brings_back_while_another_is_drawn_stays(drawing, pump):
    drawing.draw(10)
    drawing.regions.remove(drawing.regions.regions[0])
    drawing.settle()
    assert drawing.kept() == []
    drawing.begin()
    drawing.editing.undo()
    pump.run_until(lambda: drawing.known() == [10])
    drawing.end(200)
    assert drawing.kept() == drawing.known() == [10, 200]


def test_a_region_that_undo_takes_away_while_another_is_drawn_is_not_drawn_anew(drawing, pump):
    drawing.draw(10)
    drawing.begin()
    drawing.editing.undo()
    pump.run_until(lambda: drawing.known() == [])
    drawing.end(200)
    assert drawing.kept() == drawing.known() == [200]
    assert drawing.regions._layer.nshapes == 1


def test_a_move_that_is_undone_while_another_is_drawn_is_not_done_again(drawing, pump):
    drawing.draw(10)
    layer = drawing.regions._layer
    layer.data = [layer.data[0] + (5, 0)]
    layer.events.data(value=layer.data, action="changed", data_indices=(0,), vertex_indices=((),))
    pump.run_until(lambda: drawing.kept() == [15])
    drawing.begin()
    pump.run_until(lambda: drawing.known() == [15])
    drawing.editing.undo()
    pump.run_until(lambda: drawing.known() == [10])
    drawing.end(200)
    assert drawing.kept() == drawing.known() == [10, 200]
    assert drawing.kinds() == ["region", "region"]
