"""Two models on the view: three layers in the right place, the legend, and all as before when one has seen enough."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt

from dark_model import CARD, SPEC, Dark, DarkEngine, disc_centres
from gui_parts import WAIT_MS, open_and_settle, until_idle
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.store.regions import AnnotatedRegion
from napari_nucleiseg.core.teaching.agreement import Agreement, Gain
from napari_nucleiseg.core.teaching.differences import Kind
from napari_nucleiseg.core.teaching.verdict import Outcome
from napari_nucleiseg.core.teaching.versions import REFUSED, SHIPPED, Branch, Version
from napari_nucleiseg.viewer.comparison_layers import DIFFERENCES, FORMER, NOW
from napari_nucleiseg.viewer.teaching import Taught
from napari_nucleiseg.widgets.comparison_bar import CUT

NEW = replace(CARD, name="nuclei-2", title="Nuclei, taught", parent=CARD.version, sha256="f" * 64)
NAMES = [DIFFERENCES, FORMER, NOW]


class Blind(Dark):
    """Sees nothing."""

    def forward(self, x):
        return {"separated": super().forward(x)["separated"] * 0 - 20}


class TwoEngine(DarkEngine):
    """The model in use sees all discs, the one that was taught from it sees what the test wants."""

    def __init__(self, folder):
        super().__init__(folder)
        self.new, self.mpp_um = Blind().eval(), 0.5
        self.gate = threading.Event()
        self.gate.set()

    def load(self, name):
        if "nuclei-2" in name:
            assert self.gate.wait(60)
            return LoadedModel(replace(SPEC, mpp_um=self.mpp_um), NEW, self.new)
        return super().load(name)

    def versions(self):
        return tuple(branch.version for branch in self.tree())

    def tree(self):
        return (
            Branch(Version(CARD, self.folder / "nuclei.safetensors", SHIPPED, CARD.title), 0),
            Branch(Version(NEW, self.folder / "nuclei-2.safetensors", REFUSED, NEW.title), 1),
        )


@pytest.fixture
def engine(tmp_path):
    return TwoEngine(tmp_path)


def click(qtbot, button):
    assert button.isVisible()
    assert button.isEnabled()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.fixture
def made(viewer, panel, disc_slide, qtbot):
    """The list of versions on a segmented slide, the version that is not in use selected."""
    open_and_settle(viewer, panel, disc_slide, qtbot)
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    panel.docks.show_versions()
    shown = panel.docks.widget("Versions")
    qtbot.waitUntil(lambda: shown.versions.was_read, timeout=WAIT_MS)
    shown.tree.setCurrentItem(shown.tree.topLevelItem(0).child(0))
    viewer.reset_view()
    until_idle(qtbot, panel)
    return shown


def bar_of(widget):
    from napari_nucleiseg.widgets.comparison_bar import ComparisonBar

    return widget.findChild(ComparisonBar)


def compare(qtbot, panel, made):
    click(qtbot, made.compare_button)
    qtbot.waitUntil(lambda: panel.docks.comparing.is_shown, timeout=WAIT_MS)
    until_idle(qtbot, panel)


def test_three_layers_lie_where_the_nuclei_are_and_the_legend_counts(viewer, panel, made, qtbot):
    nuclei = panel.controller.display.shelf.now.nuclei
    compare(qtbot, panel, made)
    assert [layer.name for layer in viewer.layers][-3:] == NAMES
    former, now = viewer.layers[FORMER], viewer.layers[NOW]
    centres = disc_centres((768, 1024)) * 0.5  # micrometres
    assert all(former.get_value(tuple(centre), world=True) for centre in centres)
    assert not np.asarray(now.data).any()
    found = [viewer.layers[DIFFERENCES].get_value(tuple(centre), world=True) for centre in centres]
    assert set(found) == {Kind.MISSED}
    assert former.units == nuclei.units
    assert not nuclei.visible
    assert panel.session.outlines  # the user has not hidden them
    legend = bar_of(made).legend.text()
    assert f"{len(centres)} missed; 0 as before." in legend
    assert CUT not in legend
    assert "AJI" not in legend


def test_stopping_gives_back_what_was_seen(viewer, panel, made, qtbot):
    before = [(layer.name, layer.visible) for layer in viewer.layers]
    compare(qtbot, panel, made)
    click(qtbot, bar_of(made).stop_button)
    assert [(layer.name, layer.visible) for layer in viewer.layers] == before
    assert not bar_of(made).isVisible()
    compare(qtbot, panel, made)
    viewer.layers.remove(NOW)  # as good as the button
    assert [(layer.name, layer.visible) for layer in viewer.layers] == before


def test_a_view_that_is_too_wide_is_cut_and_other_pixel_sizes_are_joined(
    viewer, panel, made, qtbot, engine, monkeypatch
):
    monkeypatch.setattr("napari_nucleiseg.core.teaching.comparison.MOST_PX", 256)
    engine.new, engine.mpp_um = engine.network, 1.0
    compare(qtbot, panel, made)
    assert CUT in bar_of(made).legend.text()
    former, now = viewer.layers[FORMER], viewer.layers[NOW]
    assert former.data.shape == now.data.shape == (256, 256)
    inside = [centre for centre in disc_centres((768, 1024)) * 0.5 if former.get_value(tuple(centre), world=True)]
    assert len(inside) == 64
    assert all(now.get_value(tuple(centre), world=True) for centre in inside)


def test_with_corrected_regions_both_are_measured(panel, made, qtbot):
    panel.session.editing = True
    until_idle(qtbot, panel)
    corners = ((100.0, 100.0), (100.0, 400.0), (300.0, 400.0), (300.0, 100.0))
    panel.docks.regions.put(AnnotatedRegion(0, "", "hold out", corners, done=True))
    until_idle(qtbot, panel)
    edit = panel.controller.display.shelf.now.edit
    panel.session.tool = "brush"
    compare(qtbot, panel, made)
    legend = bar_of(made).legend.text()
    assert "in one region here: AJI" in legend
    assert "→ 0.000, PQ" in legend
    assert not edit.visible
    panel.docks.comparing.stop()
    assert edit.visible
    assert (panel.session.tool, edit.mode) == ("brush", "paint")


def test_it_can_be_stopped_while_models_are_at_work(viewer, panel, made, qtbot, engine):
    engine.gate.clear()
    click(qtbot, made.compare_button)
    bar = bar_of(made)
    qtbot.waitUntil(bar.bar.isVisible, timeout=WAIT_MS)
    click(qtbot, bar.stop_button)
    engine.gate.set()
    until_idle(qtbot, panel)
    assert not bar.isVisible()
    assert NOW not in viewer.layers
    assert panel.controller.display.shelf.now.nuclei.visible


def test_closing_the_slide_ends_it_and_without_a_slide_it_says_why(viewer, panel, made, qtbot):
    compare(qtbot, panel, made)
    viewer.layers.remove(panel.controller.display.shelf.now.layer)
    until_idle(qtbot, panel)
    assert len(viewer.layers) == 0
    click(qtbot, made.compare_button)
    assert "Open a slide first" in bar_of(made).legend.text()


def test_another_pixel_size_ends_it(viewer, panel, made, qtbot):
    compare(qtbot, panel, made)
    panel.controller.set_pixel_size(YX(0.25, 0.25))
    until_idle(qtbot, panel)
    assert not panel.docks.comparing.is_shown
    assert [layer.name for layer in viewer.layers] == ["discs"]


def test_the_one_that_was_made_first_is_the_former_one_whichever_is_in_use(panel, made, qtbot, monkeypatch):
    old, new = (branch.version for branch in panel.controller.teaching.engine.tree())
    old = replace(old, card=replace(old.card, created="2026-11-25 14:32"))
    new = replace(new, card=replace(new.card, created="2026-11-26 09:01"))
    begun = []
    monkeypatch.setattr(panel.docks.comparing, "begin", lambda *both: begun.append([one.name for one in both]))
    for selected, in_use in ((new, old), (old, new)):
        monkeypatch.setattr(type(made), "selected", selected)
        monkeypatch.setattr(type(made.versions), "in_use", in_use)
        click(qtbot, made.compare_button)
    assert begun == [["nuclei-2", "nuclei"]] * 2


def test_the_verdict_compares_former_and_new(viewer, panel, made, qtbot, engine):
    panel.docks.show_teach()
    teach = panel.docks.widget("Teach")
    scores = Agreement(np.zeros((1, 5)), 20, 1)
    outcome = Outcome(engine.load("nuclei-2"), scores, scores, Gain(0, 0, 0, 0, 0, 0, 1), None, False, "No.", "So.", 2)
    panel.controller.teaching.last = taught = Taught(outcome, engine.versions()[1])
    panel.controller.teaching.ended.emit(taught)
    viewer.reset_view()
    until_idle(qtbot, panel)
    compare(qtbot, panel, teach)
    legend = bar_of(teach).legend.text()
    assert "former: Nuclei in H&amp;E" in legend
    assert "new: Nuclei, taught" in legend
