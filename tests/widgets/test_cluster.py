"""Clustering in the window: the live map, stopping, the picker, nuclei, a model of the clusters, and bad input."""

import threading

import cv2
import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication

from dark_model import DarkEngine, disc_centres, disc_picture
from gui_parts import WAIT_MS, choose_action, click, hover, open_and_settle, until_idle
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.models.weights import available_models
from napari_nucleiseg.core.store.listing import Query, list_nuclei
from napari_nucleiseg.viewer.cluster_engine import ClusterEngine
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.segmentation import InUseError
from napari_nucleiseg.widgets import commands, dialogs
from napari_nucleiseg.widgets.cluster_list import CLUSTER, NAME

TINY = {"width": 8, "fit_side": 64, "min_clusters": 2, "iterations": 4}
LAYER = "discs clusters"
STEPS = TINY["iterations"]


SHAPE = (320, 416)
PER_CM = 1e4 / 0.5
IN_USE = "The results of this slide are in use by somebody else."


class ModelEngine(DarkEngine):
    """Knows, beside the network of the tests, what was kept in the user's folder."""

    def models(self):
        return (*super().models(), *(card for card in available_models() if card.network == "s3net"))

    def load(self, name):
        if name in {"nuclei", "research"}:
            return super().load(name)
        return Engine.load(self, name)


class GatedEngine(ClusterEngine):
    """Waits after each step until the test lets it go on."""

    def __init__(self):
        self.gate = threading.Semaphore(10_000)
        self.steps = []

    def hold(self):
        while self.gate.acquire(blocking=False):
            pass

    def fit(self, picture, config, enough):
        for step in super().fit(picture, config, enough):
            self.steps.append(step)
            yield step
            assert self.gate.acquire(timeout=60)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))
    return ModelEngine(tmp_path)


@pytest.fixture
def disc_slide(tmp_path):
    """A small picture of discs, so that all of it can be segmented soon."""
    path = tmp_path / "discs.tif"
    tifffile.imwrite(
        path, disc_picture(SHAPE), tile=(256, 256), resolution=(PER_CM, PER_CM), resolutionunit="CENTIMETER"
    )
    return path


@pytest.fixture
def disc_png(tmp_path):
    """The same, which does not say how large its pixels are."""
    path = tmp_path / "plain.png"
    assert cv2.imwrite(str(path), disc_picture(SHAPE)[..., ::-1])
    return path


@pytest.fixture
def dock(viewer, panel, qtbot):
    """The dock as the panel's command shows it, with a network that takes no time."""
    viewer.window.resize(1000, 640)  # what is drawn takes most of the time
    panel.docks.clustering.engine = GatedEngine()
    panel.docks.show_cluster()
    made = panel.docks.widget("Cluster the view")
    for name, value in TINY.items():
        made.form.boxes[name].setValue(value)
    return made


@pytest.fixture
def near(viewer, panel, dock, disc_slide, qtbot):
    """The dock on a slide of which a part is seen."""
    open_and_settle(viewer, panel, disc_slide, qtbot)
    viewer.scene.camera.zoom = 8.0
    viewer.scene.camera.center = (0.0, 160 * 0.5, 208 * 0.5)
    until_idle(qtbot, panel)
    return dock


def done(qtbot, panel):
    qtbot.waitUntil(lambda: not panel.docks.clustering.is_running, timeout=WAIT_MS)
    until_idle(qtbot, panel)


@pytest.fixture
def found(near, panel, qtbot):
    """The same, clustered."""
    click(qtbot, near.view_button)
    done(qtbot, panel)
    return near


def opened(panel):
    return panel.controller.display.shelf.now


def nuclei_of(panel):
    now = opened(panel)
    return now.project.nuclei_in(now.slide.region)


def alpha(viewer, cluster):
    return float(viewer.layers[LAYER].colormap.color_dict[cluster + 1][3])


def row(dock, place=0):
    """Centre of a row, and of its box."""
    item = dock.list.topLevelItem(place)
    rect = dock.list.visualItemRect(item)
    return item.data(NAME, CLUSTER), rect.center(), QPoint(rect.left() + 10, rect.center().y())


def seen_discs(panel):
    region = panel.docks.clustering.found.picture.region
    return [centre for centre in disc_centres(SHAPE) if region.expand(-8).contains_point(*centre)]


def test_panel_and_command_open_the_dock(viewer, panel, qtbot, disc_slide, monkeypatch):
    monkeypatch.setattr(commands, "open_panel", lambda _viewer: panel)
    commands.show_cluster(viewer)
    dock = panel.docks.widget("Cluster the view")
    assert dock.isVisible()
    assert "no model" in dock.about.text()
    assert [dock.form.preset.itemText(place) for place in range(2)] == ["For nuclei", "As published"]
    click(qtbot, dock.view_button)
    assert "Open a slide" in dock.hint.text()
    dark = dock.hint.styleSheet()
    viewer.theme = "light"
    QApplication.processEvents()
    assert dock.hint.styleSheet() != dark
    click(qtbot, dock.shape_button)
    assert "Open a slide" in dock.hint.text()
    open_and_settle(viewer, panel, disc_slide, qtbot)
    choose_action(qtbot, panel.panel.correct.more_button, panel.panel.correct.cluster_action)
    assert not dock.form.more.isVisible()
    click(qtbot, dock.form.more_button)
    assert dock.form.more.isVisible()


def test_the_label_map_of_each_step_lies_over_the_slide(viewer, panel, near, qtbot):
    engine = panel.docks.clustering.engine
    engine.hold()
    click(qtbot, near.view_button)
    qtbot.waitUntil(lambda: LAYER in viewer.layers, timeout=WAIT_MS)
    seen = engine.steps[0].labels[panel.docks.clustering._picture.core]
    assert near.bar.text() == f"Step 1 of {STEPS}  ·  {len(np.unique(seen[seen >= 0]))} clusters"
    layer, slide = viewer.layers[LAYER], opened(panel).layer
    picture = panel.docks.clustering._picture
    assert tuple(layer.scale) == tuple(slide.scale)
    assert layer.units == slide.units
    np.testing.assert_allclose(layer.data_to_world((0, 0)), slide.data_to_world((picture.region.y, picture.region.x)))
    assert viewer.layers.index(layer) == viewer.layers.index(slide) + 1
    first = np.array(layer.data)
    np.testing.assert_array_equal(first, engine.steps[0].labels[picture.core] + 1)
    # The window goes on while the fit is held.
    assert viewer.layers.selection.active == slide
    engine.gate.release()
    qtbot.waitUntil(lambda: near.bar.value() == 2, timeout=WAIT_MS)
    engine.gate.release(1000)
    done(qtbot, panel)
    assert near.list.isVisible()
    assert near.view_button.isVisible()


def test_stop_acts_after_one_step_and_keeps_the_last_map(viewer, panel, near, qtbot):
    engine = panel.docks.clustering.engine
    engine.hold()
    near.form.boxes["least_share"].setValue(0.1)  # the fit ends by fewer clusters than are seen
    click(qtbot, near.view_button)
    qtbot.waitUntil(lambda: near.bar.value() == 1, timeout=WAIT_MS)
    engine.gate.release()
    qtbot.waitUntil(lambda: near.bar.value() == 2, timeout=WAIT_MS)
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_Q, Qt.KeyboardModifier.ShiftModifier)
    assert "Stopping" in near.hint.text()
    click(qtbot, near.stop_button)
    engine.gate.release(1000)
    done(qtbot, panel)
    fits = [step for step in engine.steps if step.result is None]
    assert len(fits) == 2
    found = panel.docks.clustering.found
    assert found.result.iteration == 2
    rows = near.list.topLevelItemCount()
    assert rows == len(found.ranked) > fits[-1].clusters
    assert near.bar.text() == f"Step 2 of {STEPS}  ·  {rows} clusters"
    assert near.hint.text().startswith(f"{rows} clusters")
    assert LAYER in viewer.layers


def test_the_picker_lists_the_richest_first_lights_up_what_is_pointed_at_and_is_ticked(viewer, panel, found, qtbot):
    ranked = panel.docks.clustering.found.ranked
    items = found.list.items()
    assert [item.data(NAME, CLUSTER) for item in items] == [item.cluster for item in ranked]
    assert [item.checkState(NAME) == Qt.CheckState.Checked for item in items] == [item.proposed for item in ranked]
    assert items[0].checkState(NAME) == Qt.CheckState.Checked
    assert items[-1].checkState(NAME) == Qt.CheckState.Unchecked
    assert items[0].text(2) == f"{ranked[0].haematoxylin:.2f}"
    cluster, centre, _ = row(found)
    other, _, _ = row(found, found.list.topLevelItemCount() - 1)
    before = alpha(viewer, cluster), alpha(viewer, other)
    assert before[0] > before[1] > 0
    hover(qtbot, found.list.viewport(), centre)
    qtbot.waitUntil(lambda: alpha(viewer, cluster) > before[0], timeout=WAIT_MS)
    assert alpha(viewer, other) < before[1]
    qtbot.mouseClick(found.list.viewport(), Qt.MouseButton.LeftButton, pos=centre)
    assert alpha(viewer, cluster) > before[0]
    found.list.leaveEvent(None)
    assert (alpha(viewer, cluster), alpha(viewer, other)) == pytest.approx(before)
    # A click ticks; without any there is nothing to make.
    for place in range(found.list.topLevelItemCount()):
        cluster, _, box = row(found, place)
        if cluster in panel.docks.clustering.chosen:
            qtbot.mouseClick(found.list.viewport(), Qt.MouseButton.LeftButton, pos=box)
            assert cluster not in panel.docks.clustering.chosen
    assert not found.nuclei_button.isEnabled()
    assert not found.slide_button.isEnabled()
    assert found.share.text() == "0% of the area is ticked."
    cluster, _, box = row(found)
    faint = alpha(viewer, cluster)
    qtbot.mouseClick(found.list.viewport(), Qt.MouseButton.LeftButton, pos=box)
    assert panel.docks.clustering.chosen == {cluster}
    assert found.nuclei_button.isEnabled()
    share = panel.docks.clustering.found.ranked[0].share
    assert found.share.text().startswith(f"{share:.0%} of the area is ticked")
    for item in panel.docks.clustering.found.ranked[1:]:
        panel.docks.clustering.choose(item.cluster, on=True)
    assert "100% of the area is ticked, more than nuclei cover" in found.share.text()
    for item in panel.docks.clustering.found.ranked[1:]:
        panel.docks.clustering.choose(item.cluster, on=False)
    found.list.leaveEvent(None)
    assert alpha(viewer, cluster) > faint


def test_ticked_clusters_become_nuclei_that_are_listed_and_can_be_corrected(viewer, panel, found, qtbot):
    click(qtbot, found.nuclei_button)
    qtbot.waitUntil(lambda: "nuclei were made" in found.hint.text(), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    nuclei = nuclei_of(panel)
    discs = seen_discs(panel)
    hits = sum(np.hypot(*(nuclei.centroids - centre).T).min() < 2 for centre in discs)
    assert hits > 0.95 * len(discs)
    assert all(origin.startswith("S3-Net clusters@") for origin in nuclei.origins)
    assert not viewer.layers[LAYER].visible
    assert [layer.name for layer in viewer.layers] == ["discs", LAYER, "discs nuclei"]
    assert found.hint.text().startswith(f"{len(nuclei):,} nuclei")
    # The panel tells the same, though no model was ever asked.
    read_outs = panel.panel
    assert int(read_outs.count.text()) == pytest.approx(len(nuclei), abs=2)
    density = float(found.hint.text().split(", ")[-1].split(" per")[0].replace(",", ""))
    assert float(read_outs.density.text().replace(",", "")) == pytest.approx(density, rel=0.03)
    assert read_outs.density_caption.text() == "per mm² segmented"
    # A person takes one away; the same clusters again do not bring it back, undo does.
    panel.session.editing = True
    until_idle(qtbot, panel)
    gone = int(nuclei.ids[0])
    panel.controller.editing.delete([gone])
    until_idle(qtbot, panel)
    click(qtbot, found.nuclei_button)
    until_idle(qtbot, panel)
    assert len(nuclei_of(panel)) == len(nuclei) - 1
    panel.controller.editing.undo()
    until_idle(qtbot, panel)
    assert gone in nuclei_of(panel).ids
    project = opened(panel).project
    assert len(list_nuclei(project.ledger.reader, project.census, Query()).ids) == len(nuclei)
    # Pointing shows the map again.
    _, centre, _ = row(found)
    hover(qtbot, found.list.viewport(), centre)
    qtbot.waitUntil(lambda: viewer.layers[LAYER].visible, timeout=WAIT_MS)
    found.list.leaveEvent(None)
    assert not viewer.layers[LAYER].visible


def test_the_fitted_network_becomes_a_model_that_segments_the_whole_slide(panel, found, qtbot):
    click(qtbot, found.slide_button)
    qtbot.waitUntil(lambda: panel.session.model == "discs-clusters", timeout=WAIT_MS)
    qtbot.waitUntil(lambda: panel.controller.is_running, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert panel.panel.model.currentText() == "S3-Net, clusters of discs"
    nuclei = nuclei_of(panel)
    discs = disc_centres(SHAPE)
    hits = sum(np.hypot(*(nuclei.centroids - centre).T).min() < 2 for centre in discs)
    assert hits > 0.9 * len(discs)
    assert all(origin.startswith("discs-clusters@") for origin in nuclei.origins)
    # Once more gives another name; nothing is overwritten, and only kept, nothing is segmented.
    click(qtbot, found.model_button)
    qtbot.waitUntil(lambda: panel.session.model == "discs-clusters-2", timeout=WAIT_MS)
    until_idle(qtbot, panel)


def test_as_published_the_network_belongs_to_the_view(panel, near, qtbot):
    near.form.preset.setCurrentIndex(1)
    near.form.preset.activated.emit(1)
    for name, value in {**TINY, "fit_side": 512}.items():
        near.form.boxes[name].setValue(value)
    panel.docks.clustering._viewer.scene.camera.zoom = 12.0
    until_idle(qtbot, panel)
    assert near.form.config.offsets == "free"
    click(qtbot, near.view_button)
    done(qtbot, panel)
    assert near.nuclei_button.isEnabled()
    assert not near.slide_button.isEnabled()
    assert "belongs to this view" in near.slide_button.toolTip()
    click(qtbot, near.nuclei_button)
    until_idle(qtbot, panel)
    assert len(nuclei_of(panel)) > 0


def test_the_selected_shape_is_clustered(viewer, panel, near, qtbot):
    click(qtbot, near.shape_button)
    assert "Draw a rectangle" in near.hint.text()
    shapes = viewer.layers["Regions"]
    shapes.add_rectangles([[100, 150], [100, 300], [220, 300], [220, 150]])
    shapes.selected_data = {0}
    click(qtbot, near.shape_button)
    done(qtbot, panel)
    region = panel.docks.clustering.found.picture.region
    assert (region.y, region.x, region.height, region.width) == pytest.approx((100, 150, 120, 150), abs=1)


def test_a_view_that_is_too_large_and_settings_that_make_no_sense_are_sentences(
    viewer, panel, near, qtbot, monkeypatch
):
    monkeypatch.setattr("napari_nucleiseg.core.batch.clustered.LARGEST_PX", 120 * 120)
    click(qtbot, near.view_button)
    done(qtbot, panel)
    assert "too much to be clustered at once" in near.hint.text()
    assert "Zoom in" in near.hint.text()
    assert near.view_button.isVisible()
    assert panel.docks.clustering.found is None
    near.form.boxes["min_clusters"].setValue(20)
    click(qtbot, near.view_button)
    assert "cannot be more than the clusters to begin with" in near.hint.text()
    assert not panel.docks.clustering.is_running


def test_white_glass_is_refused(viewer, panel, dock, tmp_path, qtbot):
    path = tmp_path / "glass.tif"
    tifffile.imwrite(
        path, np.full((256, 256, 3), 240, np.uint8), tile=(256, 256), resolution=(2e4, 2e4), resolutionunit="CENTIMETER"
    )
    open_and_settle(viewer, panel, path, qtbot)
    click(qtbot, dock.view_button)
    done(qtbot, panel)
    assert dock.hint.text().startswith("The region is white (glass)")
    assert not any("clusters" in layer.name for layer in viewer.layers)


def test_without_a_pixel_size_it_is_asked_for_and_then_goes_on(viewer, panel, dock, disc_png, qtbot, monkeypatch):
    asked = []
    monkeypatch.setattr(dialogs, "ask_pixel_size", lambda slide, _parent: asked.append(slide) or YX(0.5, 0.5))
    open_and_settle(viewer, panel, disc_png, qtbot)
    click(qtbot, dock.view_button)
    qtbot.waitUntil(lambda: panel.docks.clustering.found is not None, timeout=WAIT_MS)
    done(qtbot, panel)
    assert len(asked) == 1
    assert viewer.layers["plain clusters"].units == opened(panel).layer.units


def in_use(*_what, **_how):
    raise InUseError(IN_USE)


def test_who_else_writes_is_said_and_where_nothing_can_be_written_a_folder_is_asked_for(
    viewer, panel, found, engine, tmp_path, qtbot, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr("napari_nucleiseg.viewer.cluster_nuclei.writable_project", in_use)
        click(qtbot, found.nuclei_button)
        qtbot.waitUntil(panel.panel.take_over_button.isVisible, timeout=WAIT_MS)
        assert found.hint.text() == IN_USE
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(engine, "project_folder", lambda _slide, _folder="": tmp_path / "file" / "discs.nucleiseg")
    asked = []
    monkeypatch.setattr(
        dialogs, "ask_folder", lambda slide, reason, _parent: asked.append(reason) or tmp_path / "other"
    )
    click(qtbot, found.nuclei_button)
    qtbot.waitUntil(lambda: "nuclei were made" in found.hint.text(), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert len(asked) == 1
    assert (tmp_path / "other").is_dir()


def test_another_slide_takes_the_clusters_away(viewer, panel, found, tmp_path, qtbot):
    path = tmp_path / "other.png"
    assert cv2.imwrite(str(path), np.full((64, 64, 3), 128, np.uint8))
    open_and_settle(viewer, panel, path, qtbot)
    assert panel.docks.clustering.found is None
    assert LAYER not in viewer.layers
    assert not found.list.isVisible()


def test_closing_while_it_runs_leaves_nothing_behind(viewer, panel, near, qtbot):
    engine = panel.docks.clustering.engine
    engine.hold()
    click(qtbot, near.view_button)
    qtbot.waitUntil(lambda: LAYER in viewer.layers, timeout=WAIT_MS)
    panel.shutdown()
    engine.gate.release(1000)
    panel.controller.join()
    assert LAYER not in viewer.layers
