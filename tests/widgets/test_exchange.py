"""A person exports nuclei from the panel, imports them again, drops a file on it, and stops what takes too long."""

import json

import pytest
from napari.utils import notifications
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QDialog, QFileDialog, QLabel

from gui_parts import WAIT_MS, click, open_and_settle, until_idle
from napari_nucleiseg.core.exchange import imports
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.widgets import exchange_dialogs

LEFT = Qt.MouseButton.LeftButton
ALL = 24 * 32
EVERYTHING = Region(0, 0, 768, 1024)


@pytest.fixture
def opened(viewer, panel, disc_slide, qtbot):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    return panel


@pytest.fixture
def geojson(tmp_path):
    """A file with two nuclei and one annotation, as QuPath writes them."""

    def square(y, x, side, kind, name):
        ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
        properties = {"objectType": kind, "classification": {"name": name, "color": [10, 200, 30]}}
        return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}

    path = tmp_path / "cells.geojson"
    features = [square(100, 200, 16, "detection", "Tumor"), square(300, 400, 12, "detection", "Mitosis")]
    features.append(square(50, 50, 400, "annotation", "Region"))
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def nuclei(panel):
    return panel.controller.display.shelf.now.project.nuclei_in(EVERYTHING)


def report_of(panel):
    return [dialog for dialog in panel.findChildren(QDialog) if dialog.windowTitle() == "Import"]


def until_reported(qtbot, panel):
    qtbot.waitUntil(lambda: bool(report_of(panel)), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    (dialog,) = report_of(panel)
    text = "\n".join(label.text() for label in dialog.findChildren(QLabel))
    dialog.close()
    return text


def test_an_import_is_reported_shown_and_undone(viewer, opened, geojson, qtbot, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(geojson), ""))
    click(qtbot, opened.panel.correct.import_button)
    text = until_reported(qtbot, opened)
    assert "2 nuclei taken and 1 annotated region from cells.geojson" in text
    assert "Mitosis" in text
    assert len(nuclei(opened)) == 2
    assert opened.session.editing
    assert len(opened.docks.regions.regions) == 1
    qtbot.waitUntil(lambda: "Mitosis" in [name for _, name, _ in opened.panel.correct._shown], timeout=WAIT_MS)
    layer = next(layer for layer in viewer.layers if layer.name.endswith("nuclei"))
    assert layer.data[0][108, 208] > 0
    click(qtbot, opened.panel.correct.undo_button)
    until_idle(qtbot, opened)
    assert len(nuclei(opened)) == 0
    assert not opened.docks.regions.regions
    assert not opened.panel.correct.undo_button.isEnabled()


def test_a_dropped_file_goes_into_the_slide_that_is_open(opened, geojson, qtbot):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(geojson))])
    event = QDropEvent(
        QPointF(QPoint(20, 20)),
        Qt.DropAction.CopyAction,
        data,
        LEFT,
        Qt.KeyboardModifier.NoModifier,
    )
    opened.dropEvent(event)
    assert "2 nuclei taken" in until_reported(qtbot, opened)
    assert len(opened.controller._viewer.layers) >= 2  # no other slide was opened
    assert opened.panel.facts.name.whole == "discs.tif"


def test_an_export_comes_back_whole(opened, qtbot, monkeypatch, tmp_path):
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    out = tmp_path / "out.geojson"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(out), "QuPath GeoJSON (*.geojson)"))
    click(qtbot, opened.panel.correct.export_button)
    qtbot.waitUntil(lambda: f"{ALL} nuclei written" in opened.panel.hint.text(), timeout=WAIT_MS)
    until_idle(qtbot, opened)
    assert len(json.loads(out.read_text())["features"]) == ALL
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(out), ""))
    monkeypatch.setattr(exchange_dialogs, "ask_overlap", lambda _parent: "replace")
    before = nuclei(opened).ids.tolist()
    click(qtbot, opened.panel.correct.import_button)
    assert f"{ALL} nuclei taken" in until_reported(qtbot, opened)
    assert nuclei(opened).ids.tolist() == before


def test_without_nuclei_there_is_nothing_to_export(opened, qtbot, monkeypatch, tmp_path):
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "a.csv"), ""))
    click(qtbot, opened.panel.correct.export_button)
    assert "no nuclei to export" in opened.panel.hint.text()


def test_a_file_that_cannot_be_read_is_told(opened, qtbot, tmp_path, monkeypatch):
    broken = tmp_path / "broken.geojson"
    broken.write_text("{ not json")
    said, shown = [], []
    monkeypatch.setattr(notifications, "show_error", said.append)
    # Later sentences may take its place: what the panel shows is noted at each of them.
    opened.controller.hint_changed.connect(lambda _hint: shown.append(opened.panel.hint.text()))
    opened.import_file(str(broken))
    qtbot.waitUntil(lambda: any("broken.geojson" in text for text in shown), timeout=WAIT_MS)
    assert said == [next(text for text in shown if "broken.geojson" in text)]
    assert not opened.controller.exchange.is_running
    assert not opened.panel.bar.isVisible()


def test_an_import_is_stopped(opened, geojson, qtbot, monkeypatch):
    import threading

    began = threading.Event()

    def slow(_project, _path, *, overlap, on_progress):
        began.set()
        for part in range(10_000):
            on_progress("reading", part, 10_000)
            threading.Event().wait(0.01)

    monkeypatch.setattr(imports, "import_nuclei", slow)
    opened.import_file(str(geojson))
    qtbot.waitUntil(began.is_set, timeout=WAIT_MS)
    qtbot.waitUntil(opened.panel.bar.isVisible, timeout=WAIT_MS)
    click(qtbot, opened.panel.stop_button)
    qtbot.waitUntil(lambda: "Stopped" in opened.panel.hint.text(), timeout=WAIT_MS)
    assert not opened.controller.exchange.is_running
    assert not report_of(opened)


@pytest.mark.parametrize(
    ("chosen", "key", "written"),
    [
        ("/a/b.geojson", "csv", ("/a/b.geojson", "geojson")),
        ("/a/b", "csv", ("/a/b.csv", "csv")),
        ("/a/b.json", "coco", ("/a/b.coco.json", "coco")),
        ("/a/b.labels.zarr", "geojson", ("/a/b.labels.zarr", "zarr")),
        ("/a/b.v2", "parquet", ("/a/b.v2.parquet", "parquet")),
        ("/a/b.zarr", "spatialdata", ("/a/b.spatial.zarr", "spatialdata")),
        ("/a/b.spatial.zarr", "zarr", ("/a/b.spatial.zarr", "spatialdata")),
        ("/a/b.h5ad", "geojson", ("/a/b.h5ad", "anndata")),
    ],
)
def test_the_name_says_the_format(chosen, key, written):
    assert exchange_dialogs.with_ending(chosen, key) == written
