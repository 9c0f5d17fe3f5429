"""The dock Train without labels in a real window: from slides to a model that is used, by the mouse."""

import threading
from dataclasses import replace

import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QFileDialog, QMessageBox, QPushButton
from test_layout import cut_off

from gui_parts import WAIT_MS, choose_action, click, until_idle
from napari_nucleiseg.core.store.regions import AnnotatedRegion
from napari_nucleiseg.core.teaching import unlabelled as core
from napari_nucleiseg.core.teaching.versions import all_versions
from napari_nucleiseg.state import NETWORKS
from napari_nucleiseg.viewer.unlabelled_engine import Trained
from napari_nucleiseg.widgets.facts import ElidedLabel
from napari_nucleiseg.widgets.wording import trained_text
from unlabelled_parts import FolderEngine, TinyEngine, tissue_picture, write_model, write_slide


class HeldEngine(TinyEngine):
    """Waits before each step that a test has not let through."""

    def __init__(self, engine):
        super().__init__(engine)
        self.gate = threading.Event()
        self.gate.set()
        self.threads = set()

    def pretrain(self, config, slides, files, **more):
        enough = more.pop("enough")

        def wait():
            self.threads.add(threading.current_thread())
            assert self.gate.wait(60)
            return enough()

        return super().pretrain(config, slides, files, enough=wait, **more)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda _name: str(tmp_path / "data"))
    write_model()
    return FolderEngine(tmp_path)


@pytest.fixture
def dock(viewer, panel, engine, tmp_path, qtbot):
    """The dock, opened from the panel, with two open slides and few steps."""
    panel.docks.unlabelled.engine = HeldEngine(engine)
    paths = [write_slide(tmp_path / f"s{number}.tif", tissue_picture(number)) for number in (1, 2)]
    for path in paths:
        viewer.open(str(path), plugin="napari-nucleiseg")
    viewer.reset_view()
    until_idle(qtbot, panel)
    choose_action(qtbot, panel.panel.correct.more_button, panel.panel.correct.unlabelled_action)
    made = panel.docks.widget("Train without labels")
    qtbot.waitUntil(made.isVisible, timeout=WAIT_MS)
    made.unlabelled.wishes.network = NETWORKS[0]
    made.unlabelled.wishes.measure_every = 2
    type_steps(qtbot, made, "4")
    return made


def type_steps(qtbot, dock, text):
    qtbot.mouseClick(dock.steps.lineEdit(), Qt.MouseButton.LeftButton)
    dock.steps.lineEdit().selectAll()
    qtbot.keyClicks(dock.steps.lineEdit(), text)
    qtbot.keyClick(dock.steps.lineEdit(), Qt.Key.Key_Return)


def tick(qtbot, dock, place):
    """Click the check box of an entry."""
    choice = dock.slides.list
    box = choice.visualItemRect(choice.item(place))
    qtbot.mouseClick(choice.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(box.left() + 10, box.center().y()))


def ended(qtbot, panel):
    qtbot.waitUntil(lambda: not panel.docks.unlabelled.is_running, timeout=WAIT_MS)
    until_idle(qtbot, panel)


def train(qtbot, panel, dock):
    click(qtbot, dock.start_button)
    ended(qtbot, panel)


def take(qtbot, panel, name="look"):
    panel.session.model = name
    until_idle(qtbot, panel)


def test_trained_and_used_it_segments_the_view_and_shows_its_attention(viewer, panel, dock, qtbot):
    assert [dock.slides.list.item(place).text() for place in (0, 1)] == ["s1.tif", "s2.tif"]
    told = []
    dock.unlabelled.progress_changed.connect(lambda progress: told.append(progress and progress.left_s))
    train(qtbot, panel, dock)
    assert any(isinstance(left, float) for left in told)
    run = dock.curve.runs[-1]
    assert [step for step, _ in run.losses] == [1, 2, 3, 4]
    assert [step for step, _ in run.scores] == [2, 4]
    assert run.former == pytest.approx(1 / 3)
    assert len(dock.attention.pictures) == 2
    assert "All 4 steps are done" in dock.told.text()
    assert main_thread_was_free(dock)
    click(qtbot, dock.use_button)
    qtbot.waitUntil(lambda: panel.session.model == "attention", timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert panel.panel.model.currentText() == "Attention, learned from 2 slides"
    assert "It is in the list of models and under Versions" in dock.told.text()
    assert not dock.use_button.isVisible()
    opened = panel.controller._shelf.now
    assert opened.project is not None
    assert opened.project.tiles_done(*opened.done_key)
    assert panel.panel.heatmap.findData("attention") >= 0
    panel.session.heatmap = "attention"
    until_idle(qtbot, panel)
    heat = opened.heatmap
    assert heat in viewer.layers
    assert heat.name == "s2 Attention"
    assert tuple(heat.contrast_limits) == (0, 255)
    viewer.layers.selection.active = heat
    controls = viewer.window._qt_viewer.controls.widgets[heat]
    assert controls.isVisible()
    heat.contrast_limits = (40, 200)
    assert tuple(heat.contrast_limits) == (40, 200)
    panel.docks.show_versions()
    until_idle(qtbot, panel)
    listed = panel.docks.widget("Versions")
    assert any(branch.version.name == "attention" for branch in listed.versions.branches)


def main_thread_was_free(dock):
    return threading.main_thread() not in dock.unlabelled.engine.threads


def test_slides_are_added_by_the_button_and_ticked_by_the_mouse(panel, dock, tmp_path, qtbot, monkeypatch):
    folder = tmp_path / "more"
    folder.mkdir()
    other = write_slide(folder / "other.tif", tissue_picture(7))
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: ([str(other)], ""))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    files, whole = dock.slides.add_button.menu().actions()
    files.trigger()
    whole.trigger()
    shown = [dock.slides.list.item(place).text() for place in range(4)]
    assert shown == ["s1.tif", "s2.tif", "other.tif (added)", "more (added)"]
    train(qtbot, panel, dock)
    assert [name for name, _ in dock.unlabelled.last.origin.slides] == ["s1.tif", "s2.tif", "other"]
    for place in (0, 2, 3):
        tick(qtbot, dock, place)
    train(qtbot, panel, dock)
    assert [name for name, _ in dock.unlabelled.last.origin.slides] == ["s2.tif"]
    assert "Nothing is held out" in dock.told.text()
    tick(qtbot, dock, 1)
    click(qtbot, dock.start_button)
    assert dock.told.text() == "Tick at least one slide to learn from."
    assert "color" in dock.told.styleSheet()
    tick(qtbot, dock, 1)
    assert "Nothing needs to be drawn" in dock.told.text()
    assert not dock.told.styleSheet()


def test_stop_keeps_what_was_learned_and_start_goes_on(panel, dock, qtbot):
    engine = dock.unlabelled.engine
    engine.gate.clear()
    click(qtbot, dock.start_button)
    qtbot.waitUntil(lambda: bool(dock.curve.runs and dock.curve.runs[-1].losses), timeout=WAIT_MS)
    assert not dock.start_button.isVisible()
    assert not dock.steps.isEnabled()
    click(qtbot, dock.stop_button)
    assert "Stopping after this step" in dock.doing.text()
    engine.gate.set()
    ended(qtbot, panel)
    assert "Stopped after 1 of 4 steps" in dock.told.text()
    assert dock.use_button.isVisible()
    train(qtbot, panel, dock)
    assert [step for step, _ in dock.curve.runs[-1].losses] == [1, 2, 3, 4]
    # Whole already, it is all still in sight.
    train(qtbot, panel, dock)
    assert "All 4 steps are done" in dock.told.text()
    assert [step for step, _ in dock.curve.runs[-1].losses] == [1, 2, 3, 4]
    assert len(dock.attention.pictures) == 2
    # Another run begins anew.
    dock.unlabelled.wishes.by_shape = False
    type_steps(qtbot, dock, "1")
    train(qtbot, panel, dock)
    assert [step for step, _ in dock.curve.runs[-1].losses] == [1]


def test_closing_while_it_learns_asks(panel, dock, qtbot, monkeypatch):
    wanted = []

    def answer(box):
        monkeypatch.setattr(
            box, "clickedButton", lambda: next(one for one in box.buttons() if one.text() == wanted[-1])
        )

    monkeypatch.setattr(QMessageBox, "exec", answer)
    engine = dock.unlabelled.engine
    engine.gate.clear()
    click(qtbot, dock.start_button)
    qtbot.waitUntil(lambda: bool(dock.curve.runs and dock.curve.runs[-1].losses), timeout=WAIT_MS)
    for text, leaves in (("Keep open", False), ("Stop and close", True)):
        wanted.append(text)
        event = QCloseEvent()
        assert panel.eventFilter(panel.window(), event) is not leaves
        assert event.isAccepted() is leaves
        assert dock.unlabelled.is_running is not leaves
    engine.gate.set()
    panel.controller.join()
    (state,) = (engine.engine.folder / "data" / "pretraining").glob("*/last.pt")
    assert state.stat().st_size > 0


def test_other_models_cannot_be_adapted_and_the_dock_says_why(panel, dock, qtbot):
    assert panel.session.model == "nuclei"
    for button in (dock.fit_button, dock.fit_view_button, dock.level_button):
        assert not button.isEnabled()
    assert "For models of attention only" in dock.fitted.toolTip()
    take(qtbot, panel)
    assert dock.fit_button.isEnabled()
    assert dock.fitted.whole == "Adapt Look"


def test_adapted_to_the_view_where_nothing_was_annotated_it_waits_to_be_used(panel, dock, qtbot):
    take(qtbot, panel)
    dock.unlabelled.wishes.fit_steps = 2
    click(qtbot, dock.fit_view_button)
    ended(qtbot, panel)
    assert "The model is adapted" in dock.told.text()
    assert "Not judged: there is no annotated region" in dock.told.text()
    assert panel.session.model == "look"
    (name,) = [version.name for version in all_versions() if version.card.parent.startswith("look@")]
    box = dock.unlabelled.last.version.card.taught["regions"][0]["name"]
    assert box.count(":") == 3
    click(qtbot, dock.use_button)
    qtbot.waitUntil(lambda: panel.session.model == name, timeout=WAIT_MS)
    until_idle(qtbot, panel)


@pytest.fixture
def annotated(panel, dock, qtbot):
    """The dock with a model of attention at hand and a finished region on the slide."""
    take(qtbot, panel)
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    panel.session.editing = True
    until_idle(qtbot, panel)
    corners = ((40.0, 40.0), (40.0, 280.0), (280.0, 280.0), (280.0, 40.0))
    panel.docks.regions.put(AnnotatedRegion(0, "", "teach", corners, done=True))
    until_idle(qtbot, panel)
    return dock


def test_with_annotated_regions_it_is_judged_by_them(panel, annotated, qtbot, monkeypatch):
    real = core.judge
    shown, is_better = [], []

    def judged(former, new, examples, origin, device):
        shown.extend(example.region for example in examples)
        outcome = real(former, new, examples, origin, device)
        after = replace(outcome.after, nuclei=max(outcome.after.nuclei, 20))
        reason = "Better" if is_better else "Worse"
        return replace(
            outcome, after=after, adopted=bool(is_better), reason=f"{reason} on nuclei that people corrected."
        )

    monkeypatch.setattr(core, "judge", judged)
    click(qtbot, annotated.level_button)
    ended(qtbot, panel)
    assert shown
    assert "The former model stays" in annotated.told.text()
    assert panel.session.model == "look"
    assert annotated.use_button.text() == "Use it anyway"
    click(qtbot, annotated.use_button)
    qtbot.waitUntil(lambda: panel.session.model == "look-2", timeout=WAIT_MS)
    until_idle(qtbot, panel)
    # One that is better is used at once.
    is_better.append(True)
    click(qtbot, annotated.level_button)
    ended(qtbot, panel)
    assert "The adapted model is in use" in annotated.told.text()
    assert not annotated.use_button.isVisible()
    qtbot.waitUntil(lambda: panel.session.model == "look-3", timeout=WAIT_MS)
    until_idle(qtbot, panel)


def test_more_settings_act_at_once(dock, qtbot):
    click(qtbot, dock.more_button)
    settings = dock._settings
    qtbot.waitUntil(settings.isVisible, timeout=WAIT_MS)
    qtbot.mouseClick(settings.controls["by_shape"], Qt.MouseButton.LeftButton, pos=QPoint(10, 10))
    assert not dock.unlabelled.wishes.by_shape
    # Without shapes a share has to be stated; with them it has no effect.
    assert settings.controls["sparsity"].isEnabled()
    qtbot.keyClicks(settings.controls["licence"], "CC0-1.0")
    assert dock.unlabelled.wishes.licence == "CC0-1.0"
    # Return ends a number; it neither closes the window nor asks for a folder.
    qtbot.keyClicks(settings.controls["fit_steps"], "7")
    qtbot.keyClick(settings.controls["fit_steps"], Qt.Key.Key_Return)
    assert settings.isVisible()
    assert not any(button.isDefault() or button.autoDefault() for button in settings.findChildren(QPushButton))
    assert cut_off(settings) == []
    settings.close()


def test_nothing_is_cut_off(viewer, panel, dock, qtbot):
    train(qtbot, panel, dock)
    for theme, width in (("dark", 1280), ("light", 1600)):
        viewer.theme = theme
        viewer.window.resize(width, 800)
        qtbot.wait(50)
        assert cut_off(dock) == []
    assert dock.findChildren(ElidedLabel)


def test_what_a_run_has_come_to_in_words():
    origin = core.Origin((("a.svs", ""),))

    def told(**scores):
        return trained_text(Trained("x", origin, 3, 9, 3, scores))

    assert "Stopped after 3 of 9 steps" in told()
    assert "look at the tile" in told(accuracy=0.5, covered=0.2, haematoxylin=1.0)
    assert "2.0 times the haematoxylin" in told(accuracy=0.5, covered=0.2, haematoxylin=2.0)
    assert "50% of the time" in told(accuracy=0.5, covered=0.2, haematoxylin=2.0)
    assert "It looks nowhere yet" in told(accuracy=0.5, covered=0.0, haematoxylin=0.0)
