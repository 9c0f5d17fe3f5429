"""The dock Batch in a real window: a cohort is queued, worked through, stopped, gone on with and looked at."""

import csv
import sqlite3
import threading

import pytest
from napari.settings import get_plugin_settings
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QCloseEvent, QDesktopServices, QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QApplication, QComboBox, QFileDialog, QMessageBox
from test_layout import cut_off

from batch_parts import HereEngine, find_dark_pixels, write_scan
from dark_model import CARD, RESEARCH, disc_centres
from gui_parts import WAIT_MS, answer, click, open_and_settle, until_idle
from napari_nucleiseg.core.batch.engines.base import EngineLostError
from napari_nucleiseg.core.batch.unattended.database import DONE, FAILED, STOPPED, WAITING, RunDatabase
from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.store.failure import full_disk
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.viewer.batch import NO_FILE, NO_OPEN_SLIDE, NO_SLIDES, Doing
from napari_nucleiseg.viewer.batch_engine import BatchEngine, NotAccepted
from napari_nucleiseg.widgets.batch_table import SLIDE, STATE


@pytest.fixture
def network(monkeypatch):
    return find_dark_pixels(monkeypatch)


@pytest.fixture(autouse=True)
def _forgotten():
    """No test finds the folder of another."""
    settings = get_plugin_settings("napari-nucleiseg")
    settings.batch.folder = ""
    yield
    settings.batch.folder = ""


@pytest.fixture
def dock(viewer, panel, network, qtbot):
    """The dock, opened from the welcome page, with an engine in this process."""
    panel.docks.batch.engine = HereEngine()
    qtbot.waitUntil(panel.welcome.batch_button.isVisible, timeout=WAIT_MS)
    click(qtbot, panel.welcome.batch_button)
    made = panel.docks.widget("Batch")
    qtbot.waitUntil(made.isVisible, timeout=WAIT_MS)
    yield made
    made.batch.engine.gate.set()


@pytest.fixture
def paths(tmp_path):
    return [write_scan(tmp_path / "slides" / f"{name}.svs") for name in "abc"]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results of the cohort"


def settled(qtbot, panel):
    qtbot.waitUntil(lambda: not panel.docks.batch.is_running, timeout=WAIT_MS)
    until_idle(qtbot, panel)


def add(qtbot, panel, dock, monkeypatch, paths):
    """Choose files in the dialog of the menu."""
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: ([str(path) for path in paths], ""))
    dock.add_button.menu().actions()[0].trigger()
    settled(qtbot, panel)


def choose(qtbot, panel, dock, monkeypatch, folder):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    click(qtbot, dock.form.folder_button)
    settled(qtbot, panel)


@pytest.fixture
def ready(panel, dock, paths, out, qtbot, monkeypatch):
    """The dock with three slides and a folder."""
    add(qtbot, panel, dock, monkeypatch, paths)
    choose(qtbot, panel, dock, monkeypatch, out)
    return dock


def start(qtbot, panel, dock):
    click(qtbot, dock.start_button)
    settled(qtbot, panel)


def shown(dock, column):
    model = dock.table.model()
    return [model.index(place, column).data() for place in range(model.rowCount())]


def place_of(dock, row, column=SLIDE):
    return dock.table.visualRect(dock.table.model().index(row, column)).center()


def select(qtbot, dock, row):
    qtbot.mouseClick(dock.table.viewport(), Qt.MouseButton.LeftButton, pos=place_of(dock, row))


def states(dock):
    return [row.state for row in dock.batch.queue]


def project_of(out, name):
    with Project.open(out / f"{name}.nucleiseg", writable=False) as project:
        return project.census.total()


# ---------------------------------------------------------------------- the whole way


def test_from_files_to_nuclei_in_the_viewer(viewer, panel, ready, out, paths, qtbot, monkeypatch):
    dock = ready
    assert shown(dock, SLIDE) == ["a.svs", "b.svs", "c.svs"]
    assert shown(dock, STATE) == ["Waiting"] * 3
    assert not dock.open_button.isEnabled()
    assert not dock.summary_button.isEnabled()
    told = []
    dock.batch.row_changed.connect(lambda path: told.append(dock.batch.queue[path].stage))
    start(qtbot, panel, dock)
    assert shown(dock, STATE) == ["Done"] * 3
    assert {"segmenting", "measuring", "writing"} <= set(told)
    assert [row.nuclei for row in dock.batch.queue] == [project_of(out, name) for name in "abc"]
    assert dock.batch.queue[str(paths[0])].nuclei == len(disc_centres((700, 900)))
    assert dock.bar.text() == "3 of 3 done"
    assert dock.bar.value() == dock.bar.maximum()
    assert "3 slides done" in dock.told.text()
    assert (out / "a.parquet").exists()
    assert threading.main_thread() not in dock.batch.engine.threads
    # The page and the folder are opened by the system.
    opened = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    click(qtbot, dock.summary_button)
    click(qtbot, dock.show_button)
    assert opened == [str(out / "summary.html"), str(out)]
    assert (out / "summary.html").exists()
    # A double click shows the slide with these nuclei.
    select(qtbot, dock, 1)
    qtbot.mouseDClick(dock.table.viewport(), Qt.MouseButton.LeftButton, pos=place_of(dock, 1))
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert [layer.name for layer in viewer.layers] == ["b", "b nuclei"]
    project = panel.controller.display.shelf.now.project
    assert project.folder == out / "b.nucleiseg"
    assert int((viewer.layers["b nuclei"].data[0][:] > 0).sum()) > 0
    assert panel.panel.facts.name.whole == "b.svs"
    # Once more it comes to the front and is not opened twice.
    viewer.layers.selection.active = viewer.layers["b nuclei"]
    select(qtbot, dock, 1)
    click(qtbot, dock.open_button)
    until_idle(qtbot, panel)
    assert len(viewer.layers) == 2
    assert viewer.layers.selection.active == viewer.layers["b"]


def test_the_same_again_does_nothing_and_a_new_slide_is_all_that_is_done(
    panel, ready, network, out, tmp_path, qtbot, monkeypatch
):
    start(qtbot, panel, ready)
    tiles = network.log.tiles
    start(qtbot, panel, ready)
    assert network.log.tiles == tiles
    assert states(ready) == [DONE] * 3
    add(qtbot, panel, ready, monkeypatch, [write_scan(tmp_path / "slides" / "d.svs")])
    assert shown(ready, STATE) == ["Done"] * 3 + ["Waiting"]
    start(qtbot, panel, ready)
    assert network.log.tiles == tiles * 4 // 3
    assert states(ready) == [DONE] * 4


def test_looking_at_a_result_does_not_make_it_stale(viewer, panel, ready, network, qtbot):
    start(qtbot, panel, ready)
    tiles = network.log.tiles
    select(qtbot, ready, 0)
    qtbot.keyClick(ready.table, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    start(qtbot, panel, ready)
    assert network.log.tiles == tiles
    assert states(ready) == [DONE] * 3


def test_a_result_is_shown_beside_the_slide_with_other_results(viewer, panel, ready, paths, out, qtbot):
    """What a person has corrected in the usual place stays in sight and is not mixed up."""
    start(qtbot, panel, ready)
    open_and_settle(viewer, panel, paths[0], qtbot)
    usual = panel.controller.display.shelf.now
    select(qtbot, ready, 0)
    click(qtbot, ready.open_button)
    qtbot.waitUntil(lambda: panel.controller.display.shelf.now is not usual, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert panel.controller.display.shelf.now.project.folder == out / "a.nucleiseg"
    assert usual.project is None
    assert usual.layer in viewer.layers


# ---------------------------------------------------------------------- the list


def test_folders_manifests_and_drops_are_added(panel, dock, paths, tmp_path, qtbot, monkeypatch):
    folder = tmp_path / "more"
    for name in ("x", "y"):
        write_scan(folder / f"{name}.svs")
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,name,mpp,stain\nslides/a.svs,first,0.4,PAS\nslides/b.svs,,,HE\n")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(manifest), ""))
    _, of_folder, of_manifest, _ = dock.add_button.menu().actions()
    of_folder.trigger()
    of_manifest.trigger()
    settled(qtbot, panel)
    assert shown(dock, SLIDE) == ["x.svs", "y.svs", "a.svs", "b.svs"]
    first = dock.batch.queue[str(paths[0])].entry
    assert (first.stem, first.mpp_um, dict(first.facts)) == ("first", 0.4, {"stain": "PAS"})
    notes = tmp_path / "notes.txt"
    notes.write_text("no slide")
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in (paths[2], notes)])
    copy, left, none = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(QPoint(50, 50), copy, mime, left, none)
    QApplication.sendEvent(dock, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(dock, QDropEvent(QPointF(50, 50), copy, mime, left, none))
    settled(qtbot, panel)
    assert shown(dock, SLIDE)[-1] == "c.svs"
    assert len(dock.batch.queue) == 5
    assert "notes.txt is no slide" in dock.told.text()
    assert "color" in dock.told.styleSheet()


def test_what_cannot_be_added_is_told_and_the_rest_is_there(panel, dock, paths, tmp_path, qtbot):
    empty = tmp_path / "empty"
    empty.mkdir()
    bad = tmp_path / "bad.csv"
    bad.write_text("file\na.svs\n")
    dock.batch.add([str(empty), str(bad), str(paths[0])])
    settled(qtbot, panel)
    assert shown(dock, SLIDE) == ["a.svs"]
    assert "holds no slide" in dock.told.text()
    assert "no column called path" in dock.told.text()


def test_delete_and_clear_take_slides_off_the_list_and_leave_results(panel, ready, out, qtbot):
    start(qtbot, panel, ready)
    select(qtbot, ready, 1)
    qtbot.keyClick(ready.table, Qt.Key.Key_Delete)
    assert shown(ready, SLIDE) == ["a.svs", "c.svs"]
    select(qtbot, ready, 0)
    click(qtbot, ready.remove_button)
    assert shown(ready, SLIDE) == ["c.svs"]
    click(qtbot, ready.clear_button)
    assert shown(ready, SLIDE) == []
    assert not ready.clear_button.isEnabled()
    assert ready.bar.text() == "No slides"
    assert all((out / f"{name}.nucleiseg").is_dir() for name in "abc")


def test_the_open_slide_is_added_with_the_pixel_size_that_was_given(
    viewer, panel, dock, tmp_path, out, qtbot, monkeypatch
):
    dock.add_button.menu().actions()[3].trigger()
    assert dock.told.text() == NO_OPEN_SLIDE
    path = write_scan(tmp_path / "plain.svs", mpp_um=None)
    open_and_settle(viewer, panel, path, qtbot)
    from napari_nucleiseg.core.geometry import YX

    panel.controller.set_pixel_size(YX(0.5, 0.5))
    until_idle(qtbot, panel)
    dock.add_button.menu().actions()[3].trigger()
    assert dock.batch.queue[str(path)].entry.mpp_um == 0.5
    choose(qtbot, panel, dock, monkeypatch, out)
    start(qtbot, panel, dock)
    assert states(dock) == [DONE]


def test_a_slide_that_is_no_file_is_not_added(viewer, panel, dock, qtbot):
    viewer.open_sample("napari-nucleiseg", "synthetic")
    until_idle(qtbot, panel)
    dock.add_button.menu().actions()[3].trigger()
    assert dock.told.text() == NO_FILE
    assert len(dock.batch.queue) == 0


def test_columns_sort_and_a_third_click_brings_the_order_back(panel, dock, tmp_path, out, qtbot, monkeypatch):
    paths = [
        write_scan(tmp_path / "s" / f"{name}.svs", (300 + 64 * height, 400))
        for name, height in (("z", 1), ("m", 3), ("k", 2))
    ]
    add(qtbot, panel, dock, monkeypatch, paths)
    choose(qtbot, panel, dock, monkeypatch, out)
    start(qtbot, panel, dock)
    header = dock.table.horizontalHeader()

    def press(column):
        spot = QPoint(header.sectionViewportPosition(column) + 20, header.height() // 2)
        qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=spot)

    select(qtbot, dock, 0)
    press(SLIDE)
    assert shown(dock, SLIDE) == ["k.svs", "m.svs", "z.svs"]
    assert [row.name for row in dock.table.selected] == ["z.svs"]
    press(SLIDE)
    assert shown(dock, SLIDE) == ["z.svs", "m.svs", "k.svs"]
    press(SLIDE)
    assert shown(dock, SLIDE) == ["z.svs", "m.svs", "k.svs"]
    assert header.sortIndicatorSection() == -1
    press(2)
    assert shown(dock, SLIDE) == ["z.svs", "k.svs", "m.svs"]


# ---------------------------------------------------------------------- the run


def test_start_asks_for_what_is_missing(panel, dock, paths, out, qtbot, monkeypatch):
    click(qtbot, dock.start_button)
    assert dock.told.text() == NO_SLIDES
    add(qtbot, panel, dock, monkeypatch, paths[:1])
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")
    click(qtbot, dock.start_button)
    assert not dock.batch.is_running
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(out))
    start(qtbot, panel, dock)
    assert states(dock) == [DONE]


def test_pause_continue_and_stop(panel, ready, network, qtbot):
    dock, engine = ready, ready.batch.engine
    network.log.hold_after = 1
    click(qtbot, dock.start_button)
    qtbot.waitUntil(lambda: shown(dock, STATE)[0].startswith("Segmenting"), timeout=WAIT_MS)
    assert not dock.start_button.isEnabled()
    assert not dock.form.model.isEnabled()
    assert not dock.add_button.isEnabled()
    click(qtbot, dock.pause_button)
    assert dock.pause_button.text() == "Continue"
    assert dock.bar.text().startswith("Paused")
    network.log.hold_after = 10**9
    network.log.gate.set()
    # What was given out comes back, and then nothing more is.
    tiles = -1
    while tiles != network.log.tiles:
        tiles = network.log.tiles
        qtbot.wait(700)
    done = dock.batch.queue.count(DONE)
    assert done < 3
    click(qtbot, dock.pause_button)
    assert dock.pause_button.text() == "Pause"
    qtbot.waitUntil(lambda: dock.batch.queue.count(DONE) > done, timeout=WAIT_MS)
    engine.gate.clear()
    click(qtbot, dock.stop_button)
    assert "Stopping" in dock.bar.text()
    assert not dock.stop_button.isEnabled()
    engine.gate.set()
    settled(qtbot, panel)
    stopped = states(dock)
    if stopped != [DONE] * 3:
        assert "Start goes on from there" in dock.told.text()
    start(qtbot, panel, dock)
    assert states(dock) == [DONE] * 3


def test_a_stopped_run_is_gone_on_with_and_says_so(panel, ready, network, out, qtbot):
    dock = ready
    network.log.hold_after = 1
    click(qtbot, dock.start_button)
    qtbot.waitUntil(lambda: next(iter(dock.batch.queue)).part > 0, timeout=WAIT_MS)
    assert shown(dock, STATE)[0] == "Segmenting 8%"
    click(qtbot, dock.stop_button)
    network.log.hold_after = 10**9
    network.log.gate.set()
    settled(qtbot, panel)
    assert states(dock)[0] == STOPPED
    assert shown(dock, STATE)[0] == "Begun"
    assert set(states(dock)) <= {STOPPED, WAITING}
    assert "Start goes on from there" in dock.told.text()
    before = network.log.tiles
    start(qtbot, panel, dock)
    assert states(dock) == [DONE] * 3
    # None of the tiles that were done is done again.
    assert before > 0
    assert network.log.tiles == 3 * tiles_of(out)
    assert [project_of(out, name) for name in "abc"] == [row.nuclei for row in dock.batch.queue]


def tiles_of(out):
    with sqlite3.connect(out / "batch.sqlite") as connection:
        return connection.execute("SELECT max(tiles) FROM slides").fetchone()[0]


def test_closing_the_window_asks_and_leaves_what_can_be_gone_on_with(
    viewer, panel, ready, network, out, qtbot, monkeypatch
):
    wanted = []

    def reply(box):
        monkeypatch.setattr(box, "clickedButton", lambda: next(b for b in box.buttons() if b.text() == wanted[-1]))

    monkeypatch.setattr(QMessageBox, "exec", reply)
    network.log.hold_after = 1
    click(qtbot, ready.start_button)
    qtbot.waitUntil(lambda: shown(ready, STATE)[0].startswith("Segmenting"), timeout=WAIT_MS)
    for text, leaves in (("Keep open", False), ("Stop and close", True)):
        wanted.append(text)
        event = QCloseEvent()
        assert panel.eventFilter(panel.window(), event) is not leaves
        assert event.isAccepted() is leaves
    network.log.hold_after = 10**9
    network.log.gate.set()
    panel.controller.join()
    # The folder is nobody's any more, and nothing of it says that it is at work.
    with RunDatabase(out) as database:
        assert {run.state for run in database.runs()} == {"stopped"}
        found = {row.state for row in database.slides().values()}
        assert STOPPED in found
        assert found <= {STOPPED, WAITING}


def test_closing_the_dock_does_not_stop_the_run(viewer, panel, ready, network, qtbot):
    network.log.hold_after = 1
    click(qtbot, ready.start_button)
    qtbot.waitUntil(lambda: shown(ready, STATE)[0].startswith("Segmenting"), timeout=WAIT_MS)
    viewer.window.remove_dock_widget(panel.docks.frame("Batch"))
    network.log.gate.set()
    settled(qtbot, panel)
    panel.docks.show_batch()
    assert panel.docks.widget("Batch") is ready
    assert ready.isVisible()
    assert shown(ready, STATE) == ["Done"] * 3


def test_a_slide_that_fails_says_why_and_is_tried_again(panel, dock, paths, out, tmp_path, qtbot, monkeypatch):
    plain = write_scan(tmp_path / "slides" / "plain.svs", mpp_um=None)
    add(qtbot, panel, dock, monkeypatch, [plain, *paths[:2]])
    choose(qtbot, panel, dock, monkeypatch, out)
    start(qtbot, panel, dock)
    assert states(dock) == [FAILED, DONE, DONE]
    assert "2 slides done" in dock.told.text()
    assert "1 failed" in dock.told.text()
    assert dock.bar.text() == "2 of 3 done, 1 failed"
    tip = dock.table.model().index(0, STATE).data(Qt.ItemDataRole.ToolTipRole)
    assert "does not say how large its pixels are" in tip
    select(qtbot, dock, 0)
    assert dock.details.text() == tip
    assert "More settings" in tip
    assert not dock.open_button.isEnabled()
    qtbot.keyClick(dock.table, Qt.Key.Key_Return)
    assert "not done yet" in dock.told.text()
    # Said under More, it is for this slide alone: the others state their own.
    click(qtbot, dock.form.more_button)
    qtbot.waitUntil(dock.form.mpp_um.isVisible, timeout=WAIT_MS)
    dock.form.mpp_um.selectAll()
    qtbot.keyClicks(dock.form.mpp_um, "0.5")
    qtbot.keyClick(dock.form.mpp_um, Qt.Key.Key_Return)
    start(qtbot, panel, dock)
    assert states(dock) == [DONE] * 3
    with (out / "queue.csv").open(encoding="utf-8") as file:
        assert [row["mpp"] for row in csv.DictReader(file)] == ["0.5", "", ""]


# ---------------------------------------------------------------------- settings


def test_model_threshold_and_smallest_area_are_those_of_the_panel_until_another_model_is_chosen(panel, ready, qtbot):
    wishes, session = ready.batch.wishes, panel.session
    session.threshold, session.min_area_um2 = 0.61, 12.0
    assert (wishes.model, wishes.threshold, wishes.min_area_um2) == ("nuclei", 0.61, 12.0)
    ready.form.model.setCurrentIndex(ready.form.model.findData("research"))
    ready.form.model.activated.emit(ready.form.model.currentIndex())
    assert (wishes.model, wishes.threshold, wishes.min_area_um2) == (
        "research", RESEARCH.threshold, RESEARCH.min_area_um2,
    )  # fmt: skip
    session.threshold = 0.3
    assert wishes.threshold == RESEARCH.threshold
    assert session.model == "nuclei"
    assert "research use only" in ready.form.model.toolTip()
    wishes.model = "nuclei"
    assert wishes.threshold == 0.3


def test_the_job_is_what_the_form_and_the_panel_say(panel, ready, out, qtbot):
    panel.session.threshold, panel.session.device, panel.session.tissue_only = 0.4, "cpu", False
    form = ready.form
    for name in ("csv", "geojson"):
        qtbot.mouseClick(form.formats.boxes[name], Qt.MouseButton.LeftButton, pos=QPoint(8, 8))
    qtbot.mouseClick(form.measure, Qt.MouseButton.LeftButton, pos=QPoint(8, 8))
    click(qtbot, form.more_button)
    qtbot.waitUntil(form.workers.isVisible, timeout=WAIT_MS)
    assert form.workers.text() == "automatic"
    qtbot.wait(50)
    line = form.workers.lineEdit()
    assert line.width() > line.fontMetrics().horizontalAdvance("automatic")
    for box, text in ((form.workers, "3"), (form.threads, "2")):
        box.selectAll()
        qtbot.keyClicks(box, text)
        qtbot.keyClick(box, Qt.Key.Key_Return)
    assert not form.scheduler.isEnabled()
    assert not form.attention_maps.isEnabled()
    start(qtbot, panel, ready)
    job, entries, mpp_um = ready.batch.engine.jobs[0]
    assert set(job.formats) == {"parquet", "csv", "geojson"}
    assert (job.measure, job.workers, job.threads, job.threshold) == (False, 3, 2, 0.4)
    assert (job.device, job.tissue_mask, job.engine, job.scheduler, job.encoder) == ("cpu", False, "local", "", "")
    assert mpp_um is None
    assert len(entries) == 3
    assert (out / "a.geojson").exists()
    assert (out / "a.csv").exists()


def test_a_scheduler_is_named_only_where_it_has_an_effect(ready, qtbot):
    wishes, form = ready.batch.wishes, ready.form
    click(qtbot, form.more_button)
    wishes.engine = "dask"
    assert form.scheduler.isEnabled()
    qtbot.keyClicks(form.scheduler, "tcp://host:8786")
    assert wishes.scheduler == "tcp://host:8786"
    wishes.engine = "local"
    assert not form.scheduler.isEnabled()


def test_encoders_are_offered_with_the_regions_that_fit_them(panel, dock, qtbot):
    found = BatchEngine().encoders()
    qtbot.waitUntil(lambda: dock.form.encoder.count() == 1 + len(found.titles), timeout=WAIT_MS)
    with_region = next(name for name, regions in found.regions.items() if regions)
    dock.batch.wishes.encoder = with_region
    assert dock.form.region_encoder.isEnabled()
    assert dock.form.attention_maps.isEnabled()
    dock.batch.wishes.region_encoder = next(iter(found.regions[with_region]))
    dock.batch.wishes.encoder = ""
    assert dock.batch.wishes.region_encoder == ""
    assert not dock.form.region_encoder.isEnabled()


def test_a_licence_is_asked_for_before_the_run(panel, ready, network, qtbot, monkeypatch):
    accepted = []
    monkeypatch.setattr(BatchEngine, "unaccepted", lambda _self, _job: None if accepted else RESEARCH)
    monkeypatch.setattr(panel.controller._engine, "accept_licence", accepted.append)
    asked = []

    def reply(box, button):
        asked.append(box.text())
        box.button(button).click()

    answer(lambda box: reply(box, QMessageBox.StandardButton.No))
    click(qtbot, ready.start_button)
    qtbot.waitUntil(lambda: len(asked) == 1, timeout=WAIT_MS)
    settled(qtbot, panel)
    assert states(ready) == [WAITING] * 3
    assert "research only" in asked[0]
    answer(lambda box: reply(box, QMessageBox.StandardButton.Yes))
    click(qtbot, ready.start_button)
    qtbot.waitUntil(lambda: states(ready) == [DONE] * 3, timeout=WAIT_MS)
    settled(qtbot, panel)
    assert accepted == [RESEARCH]


def test_licences_that_nobody_has_accepted_are_found(panel, ready, monkeypatch, tmp_path):
    from napari_nucleiseg.core.models import encoders, weights

    monkeypatch.setattr(weights, "user_folder", lambda: tmp_path)
    monkeypatch.setattr(weights, "available_models", lambda: (CARD, RESEARCH))
    monkeypatch.setattr(encoders, "available_encoders", tuple)
    engine, wishes = BatchEngine(), ready.batch.wishes
    from napari_nucleiseg.viewer.batch_wishes import job_of

    assert engine.unaccepted(job_of(wishes, panel.session, "x")) is None
    wishes.model = "research"
    job = job_of(wishes, panel.session, "x")
    assert engine.unaccepted(job) is RESEARCH
    assert [event.card for event in engine.run(job, (), None, cancelled=bool, paused=bool)] == [RESEARCH]
    assert isinstance(next(iter(engine.run(job, (), None, cancelled=bool, paused=bool))), NotAccepted)
    weights.remember_acceptance(RESEARCH)
    assert engine.unaccepted(job) is None


# ---------------------------------------------------------------------- folders


def test_a_folder_that_was_worked_on_before_shows_what_is_in_it(panel, ready, paths, out, tmp_path, qtbot, monkeypatch):
    start(qtbot, panel, ready)
    assert get_plugin_settings("napari-nucleiseg").batch.folder == str(out)
    nuclei = [row.nuclei for row in ready.batch.queue]
    choose(qtbot, panel, ready, monkeypatch, tmp_path / "elsewhere")
    assert states(ready) == [WAITING] * 3
    assert not ready.summary_button.isEnabled()
    click(qtbot, ready.clear_button)
    choose(qtbot, panel, ready, monkeypatch, out)
    assert shown(ready, SLIDE) == ["a.svs", "b.svs", "c.svs"]
    assert states(ready) == [DONE] * 3
    assert [row.nuclei for row in ready.batch.queue] == nuclei
    assert ready.summary_button.isEnabled()
    # What only the folder knew goes when another one is chosen.
    choose(qtbot, panel, ready, monkeypatch, tmp_path / "elsewhere")
    assert shown(ready, SLIDE) == []


def test_the_folder_is_remembered_and_read_when_the_dock_is_opened(viewer, panel, network, paths, out, qtbot):
    from napari_nucleiseg.core.batch.unattended.database import SlideRow

    with RunDatabase(out) as database:
        database.put(SlideRow("a", str(paths[0]), state=DONE, nuclei=17))
    panel.docks.batch.wishes.folder = str(out)
    panel.docks.show_batch()
    dock = panel.docks.widget("Batch")
    qtbot.waitUntil(lambda: shown(dock, STATE) == ["Done"], timeout=WAIT_MS)
    assert shown(dock, 2) == ["17"]


def test_a_folder_in_use_by_another_run_is_told(panel, ready, out, qtbot):
    with RunDatabase(out):
        start(qtbot, panel, ready)
        assert ready.batch.doing is Doing.NOTHING
        assert "process" in ready.told.text()
        assert "color" in ready.told.styleSheet()
    start(qtbot, panel, ready)
    assert states(ready) == [DONE] * 3


def test_a_folder_that_cannot_be_written_is_told(panel, ready, tmp_path, qtbot, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    choose(qtbot, panel, ready, monkeypatch, tmp_path / "file" / "inside")
    start(qtbot, panel, ready)
    assert "cannot be used" in ready.told.text()
    assert states(ready) == [WAITING] * 3


@pytest.mark.parametrize(
    "error", [StoreError(full_disk("/data")), EngineLostError("no worker answers; start them again")]
)
def test_what_ends_a_run_is_told_in_a_sentence_and_what_was_begun_can_be_gone_on_with(
    error, panel, ready, qtbot, monkeypatch
):
    from napari_nucleiseg.core.batch.engines.here import LocalEngine

    collect = LocalEngine.collect
    times = iter(range(100))

    def fails(self, timeout_s):
        if next(times) > 3:
            raise error
        return collect(self, timeout_s)

    monkeypatch.setattr(LocalEngine, "collect", fails)
    start(qtbot, panel, ready)
    assert str(error)[1:] in ready.told.text()
    assert ready.told.text()[0].isupper() or ready.told.text().startswith("/")
    assert "color" in ready.told.styleSheet()
    assert STOPPED in states(ready)
    monkeypatch.setattr(LocalEngine, "collect", collect)
    start(qtbot, panel, ready)
    assert states(ready) == [DONE] * 3


# ---------------------------------------------------------------------- looks


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_is_cut_off_and_everything_explains_itself(theme, viewer, panel, ready, tmp_path, qtbot):
    viewer.window.resize(1400, 960)
    viewer.theme = theme
    click(qtbot, ready.form.more_button)
    for _ in range(2):
        qtbot.wait(100)
        assert cut_off(ready) == []
        scroll = ready.table.parentWidget().parentWidget().parentWidget()
        assert ready.table.parentWidget().minimumSizeHint().width() <= scroll.viewport().width()
        assert ready.start_button.isVisible()
        assert ready.start_button.mapTo(panel.window(), QPoint(0, ready.start_button.height())).y() <= 960
        start(qtbot, panel, ready)
    assert ready.width() <= 400
    kinds = (QAbstractButton, QComboBox, QAbstractSpinBox)
    controls = [control for kind in kinds for control in ready.findChildren(kind)]
    bare = [control for control in controls if not control.toolTip() and not control.objectName().startswith("qt_")]
    assert bare == []


def test_the_key_opens_the_dock(viewer, panel, qtbot):
    from napari_nucleiseg.widgets import commands, shortcuts

    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.keyClick(canvas, Qt.Key.Key_B, Qt.KeyboardModifier.ShiftModifier)
    qtbot.waitUntil(lambda: panel.docks.widget("Batch") is not None, timeout=WAIT_MS)
    assert shortcuts.BATCH.text in panel.panel.correct.batch_action.toolTip()
    assert commands.show_batch


@pytest.mark.slow
def test_worker_processes_do_it_while_the_window_answers(viewer, panel, tmp_path, qtbot):
    """The shipped model in processes of their own; the main thread is never kept for long."""
    import time

    paths = [write_scan(tmp_path / "slides" / f"{name}.svs", (600, 600)) for name in "ab"]
    out = tmp_path / "out"
    panel.docks.show_batch()
    dock = panel.docks.widget("Batch")
    dock.batch.add([str(path) for path in paths])
    dock.batch.choose_folder(str(out))
    until_idle(qtbot, panel)
    dock.batch.wishes.workers = 2
    click(qtbot, dock.start_button)
    pauses, last = [], time.monotonic()
    end = last + 240
    while dock.batch.is_running:
        QApplication.processEvents()
        now = time.monotonic()
        pauses.append(now - last)
        last = now
        assert now < end
        time.sleep(0.005)
    assert states(dock) == [DONE, DONE]
    assert max(pauses) < 1.0
    assert sorted(pauses)[int(len(pauses) * 0.99)] < 0.1
    for name in "ab":
        assert project_of(out, name) > 50
    until_idle(qtbot, panel)
