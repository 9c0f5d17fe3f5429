"""Scoring by words in the window: weights, words, colours, the score, classes and undo, bad moments."""

import shutil
import threading

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from dark_model import Dark, DarkEngine
from gui_parts import WAIT_MS, answer, click, open_and_settle, until_idle
from napari_nucleiseg.core.fewshot.by_text import score_by_text
from napari_nucleiseg.core.fewshot.clip import load_clip
from napari_nucleiseg.core.fewshot.clip_source import SOURCE
from napari_nucleiseg.core.models.download import sha256_of
from napari_nucleiseg.core.store.classes import read_classes
from napari_nucleiseg.viewer.by_text import FOUND_ANEW, NO_SLIDE, NO_WEIGHTS, NOTHING, STOPPED
from napari_nucleiseg.viewer.by_text_accept import NO_CLASS
from napari_nucleiseg.viewer.by_text_engine import MISSING, NO_NUCLEI, TOO_LARGE, ByTextEngine
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.widgets.by_text_dialogs import AddressDialog
from napari_nucleiseg.widgets.by_text_words import ABOUT, EXAMPLE, NO_CLIPS, READY, READY_WITH_WORDS
from tiny_clip import build, nuclei, taught, write_clip

PER_CM = 1e4 / 0.5
SIDE = 320
VIEW = nuclei(SIDE)
WORDS = "tumour = dark; pale"


class Apart(Dark):
    """Logit of being unlike the grey between the discs."""

    def forward(self, x):
        self.log.begin(len(x))
        return {"separated": ((x.mean(dim=1, keepdim=True) - 0.45).abs() - 0.15) * 24}


class GatedEngine(ByTextEngine):
    """Waits after the first batch, if it is told to."""

    def __init__(self):
        super().__init__()
        self.gate, self.began = threading.Event(), threading.Event()
        self.gate.set()

    def score(self, *args):
        for step in super().score(*args):
            self.began.set()
            assert self.gate.wait(60), "nobody opened the gate"
            yield step


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "tiny", taught(build()))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's folder, empty; licences are accepted in it."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))
    monkeypatch.setattr(DarkEngine, "accept_licence", Engine.accept_licence)
    return tmp_path / "home"


@pytest.fixture
def by_text(panel):
    """What the dock shows; its engine can be held."""
    made = panel.docks.by_text
    made.engine = made.download.engine = GatedEngine()
    panel.controller._engine.network = Apart().eval()
    panel.session.tissue_only = False
    panel.session.device = "cpu"
    return made


@pytest.fixture
def dock(viewer, panel, by_text, qtbot):
    """The dock as the panel's command shows it."""
    viewer.window.resize(1100, 720)
    panel.docks.show_by_text()
    settle(qtbot, panel)
    return panel.docks.widget("By text")


@pytest.fixture
def slide(viewer, panel, tmp_path, qtbot):
    """A slide of dark and pale discs in view; nothing is found yet."""
    path = tmp_path / "discs.tif"
    tifffile.imwrite(path, VIEW.image, tile=(256, 256), resolution=(PER_CM, PER_CM), resolutionunit="CENTIMETER")
    open_and_settle(viewer, panel, path, qtbot)
    return path


@pytest.fixture
def ready(dock, slide, by_text, panel, clip, qtbot):
    """The same with nuclei, weights and words."""
    panel.controller.segment_view()
    by_text.use_clip(str(clip))
    dock.prompts.setFocus()
    qtbot.keyClicks(dock.prompts, WORDS)
    settle(qtbot, panel)
    return dock


@pytest.fixture
def scored(ready, panel, qtbot):
    """The same, scored."""
    click(qtbot, ready.view_button)
    settle(qtbot, panel)
    return ready


def settle(qtbot, panel):
    jobs = panel.controller.display.jobs
    for _ in range(2):
        qtbot.waitUntil(lambda: jobs.is_settled(0.5), timeout=WAIT_MS)
        until_idle(qtbot, panel)


def is_dark(by_text):
    """Of each number of the nuclei that were scored whether its disc is dark; the first is no nucleus."""
    look = by_text.found.look
    ys, xs = ([int(np.nonzero(look.labels == n)[a].mean()) for n in range(1, len(look) + 1)] for a in (0, 1))
    return look.image[ys, xs].mean(axis=1) < 100


def classes_in(panel):
    """How many nuclei of the project have each class, by name."""
    database = panel.docks.by_text.controller.editing.project.ledger.reader
    names = {entry.number: entry.name for entry in read_classes(database)}
    rows = database.execute("SELECT class, count(*) FROM nuclei WHERE state = 0 GROUP BY class").fetchall()
    return {names.get(number, ""): count for number, count in rows}


def test_it_begins_with_what_to_do_and_names_licences(dock, by_text, qtbot, monkeypatch):
    assert dock.hint.text() == ABOUT
    assert dock.nothing.text() == NO_CLIPS
    assert dock.prompts.placeholderText() == EXAMPLE
    assert "openai/clip-vit-base-patch32  ·  MIT, 605 MB…" in [action.text() for action in dock.menu.actions()]
    assert max(len(line) for action in dock.menu.actions() for line in action.toolTip().splitlines()) < 80
    click(qtbot, dock.view_button)
    assert dock.hint.text() == NO_SLIDE
    by_text.engine.missing = lambda: MISSING
    dock.hide()
    dock.show()
    qtbot.waitUntil(lambda: dock.nothing.text() == MISSING, timeout=WAIT_MS)
    assert "napari-nucleiseg[zoo]" in MISSING
    said, begun = [], []
    monkeypatch.setattr(by_text.download, "begin", begun.append)

    def refuse(box):
        said.append(box.text() + box.informativeText())
        box.button(QMessageBox.StandardButton.No).click()

    answer(refuse)
    dock.menu.actions()[0].trigger()
    assert "Licence: MIT" in said[0]
    assert "No checksum" in said[0]
    assert begun == []
    answer(lambda box: box.button(QMessageBox.StandardButton.Yes).click())
    dock.menu.actions()[0].trigger()
    assert begun == ["openai/clip-vit-base-patch32"]


def test_what_is_missing_or_wrong_is_said(dock, slide, by_text, panel, clip, tmp_path, qtbot, monkeypatch):
    click(qtbot, dock.view_button)
    assert "say what to look for" in dock.hint.text().lower()
    assert dock._warning_colour in dock.hint.styleSheet()
    usual, by_text.wishes.background = by_text.wishes.background, "glass, stroma, " * 20
    assert dock.background.cursorPosition() == 0
    assert "glass, stroma" in dock.background.toolTip()
    by_text.wishes.background = usual
    assert "glass" not in dock.background.toolTip()
    qtbot.keyClicks(dock.prompts, "dark")
    assert dock.hint.text() == ABOUT
    qtbot.keyClick(dock.prompts, Qt.Key.Key_Return)
    assert dock.hint.text() == NO_WEIGHTS
    changed, ask = tmp_path / "mine", "napari_nucleiseg.widgets.by_text_dialogs.QFileDialog.getExistingDirectory"
    shutil.copytree(clip, changed)
    (changed / SOURCE).write_text('{"url": "http://a/b.bin", "licence": "MIT", "sha256": {"vocab.json": "0"}}')

    def use(folder):
        monkeypatch.setattr(ask, lambda *_: str(folder))
        dock.menu.actions()[-1].trigger()
        settle(qtbot, panel)
        assert dock.clip.currentText() == folder.name
        click(qtbot, dock.view_button)
        settle(qtbot, panel)

    use(clip)
    assert dock.nothing.text() == READY_WITH_WORDS
    assert dock.hint.text() == NO_NUCLEI
    panel.controller.segment_view()
    settle(qtbot, panel)
    use(clip.parent)
    assert "holds no model.safetensors" in dock.hint.text()
    use(changed)
    assert "is no longer the file that was downloaded" in dock.hint.text()
    assert dock.view_button.isVisible()


def test_nuclei_get_the_colour_of_what_they_are_most_like(scored, panel, by_text, viewer, clip):
    look, numbers = by_text.found.look, by_text.numbers()
    assert len(look) == len(VIEW.is_dark) == 64
    np.testing.assert_array_equal(numbers[1:] == 1, is_dark(by_text))
    np.testing.assert_array_equal(numbers[1:] == 2, ~is_dark(by_text))
    assert [(row.name, row.nuclei) for row in by_text.rows()] == [("tumour", 22), ("pale", 42)]
    assert scored.count.text() == "64 of 64 nuclei fit the words"
    assert [scored.list.topLevelItem(row).text(1).strip() for row in (0, 1)] == ["22", "42"]
    # Python gets the same from the same pixels.
    prompts = {"tumour": ["dark"], "pale": ["pale"]}
    again = score_by_text(look.image, look.mpp_um, look.labels, prompts, load_clip(clip), device="cpu")
    np.testing.assert_allclose(by_text.found.scores.scores, again.scores, atol=1e-5)
    layer = by_text._layer.layer
    colours = [row.colour for row in by_text.rows()]
    assert layer.contour == 2
    for number in (1, 2, 40):
        want = tuple(int(colours[numbers[number] - 1][at : at + 2], 16) / 255 for at in (1, 3, 5))
        np.testing.assert_allclose(layer.get_color(number)[:3], want, atol=0.01)
    scored.threshold.slider.setValue(100)
    assert scored.count.text() == "0 of 64 nuclei fit the words"
    assert layer is by_text._layer.layer  # nothing was scored anew
    assert layer.get_color(1)[3] == 0
    assert not scored.accept_button.isEnabled()
    panel.docks.frame("By text").parent().hide()
    assert by_text._layer.layer is None
    panel.docks.frame("By text").parent().show()
    assert by_text._layer.layer is not None
    viewer.layers.clear()
    assert by_text.found is None  # another slide has other nuclei
    assert by_text._layer.layer is None


def test_classes_are_given_in_one_step_and_undone(scored, by_text, panel, qtbot):
    click(qtbot, scored.accept_button)
    settle(qtbot, panel)
    assert classes_in(panel) == {"tumour": 22, "pale": 42}
    assert scored.hint.text() == "64 nuclei have another class now, 2 classes are new. Ctrl+Z undoes it."
    assert by_text._layer.layer is None
    assert panel.session.editing
    panel.controller.editing.undo()
    settle(qtbot, panel)
    assert classes_in(panel) == {"": 64}
    # The classes are there now, and are taken.
    click(qtbot, scored.view_button)
    settle(qtbot, panel)
    choice = scored.list.choices["pale"]
    assert choice.currentText() == "pale"
    offered = [choice.itemText(place) for place in range(choice.count())]
    assert (offered[0], offered[-2:]) == ("No class", ["tumour", "pale"])
    qtbot.keyClick(choice, Qt.Key.Key_Home)
    assert by_text.classes_wanted["pale"] == NO_CLASS
    click(qtbot, scored.accept_button)
    settle(qtbot, panel)
    assert classes_in(panel) == {"tumour": 22, "": 42}
    by_text.accept()
    assert scored.hint.text() == NOTHING


def test_a_shape_is_scored_alone_and_clearing_takes_the_colours(ready, by_text, panel, viewer, qtbot, monkeypatch):
    click(qtbot, ready.shape_button)
    assert "Draw a rectangle" in ready.hint.text()
    viewer.layers["Regions"].add_rectangles(np.array([(0, 0), (0, 39.6), (39.6, 39.6), (39.6, 0)]) / 0.5)
    click(qtbot, ready.shape_button)
    settle(qtbot, panel)
    assert len(by_text.found.look) == 4
    assert by_text.found.look.image.shape[0] > 80  # with what is around them
    click(qtbot, ready.clear_button)
    assert by_text.found is None
    assert by_text._layer.layer is None
    assert ready.nothing.text() == READY_WITH_WORDS
    monkeypatch.setattr("napari_nucleiseg.viewer.by_text_engine.MOST_PX", 100)
    click(qtbot, ready.view_button)
    settle(qtbot, panel)
    assert ready.hint.text() == TOO_LARGE
    ready.prompts.selectAll()
    qtbot.keyClick(ready.prompts, Qt.Key.Key_Backspace)
    assert ready.nothing.text() == READY


def test_stopping_scores_nothing_and_closing_meanwhile_is_quiet(ready, by_text, panel, qtbot):
    by_text.engine.gate.clear()
    click(qtbot, ready.view_button)
    qtbot.waitUntil(by_text.engine.began.is_set, timeout=WAIT_MS)
    assert ready.bar.isVisible()
    assert not ready.view_button.isVisible()
    click(qtbot, ready.stop_button)
    by_text.engine.gate.set()
    settle(qtbot, panel)
    assert by_text.found is None
    assert ready.hint.text() == STOPPED
    by_text.engine.gate.clear()
    by_text.engine.began.clear()
    click(qtbot, ready.view_button)
    qtbot.waitUntil(by_text.engine.began.is_set, timeout=WAIT_MS)
    panel.shutdown()
    by_text.engine.gate.set()
    panel.controller.join()
    assert by_text.found is None


def give_address(address, sha256=""):
    """Answer the dialog about an address."""

    def act(dialog):
        for text in ("", "/data/clip"):
            dialog.address.setText(text)
            assert not dialog.ok_button.isEnabled()
        dialog.address.setText(address)
        dialog.sha256.setText(sha256)
        assert dialog.ok_button.isEnabled()
        dialog.ok_button.click()

    return answer(act, AddressDialog)


def test_weights_come_from_an_address_with_licence_progress_and_checksum(dock, by_text, panel, web, clip, home, qtbot):
    folder, address = web
    shutil.copytree(clip, folder / "tiny")
    (folder / "tiny" / "README.md").unlink()
    digest = sha256_of(clip / "model.safetensors")
    told, where = [], f"{address}/tiny/model.safetensors"
    by_text.download.progress_changed.connect(told.append)
    from_address = next(action for action in dock.menu.actions() if "address" in action.text())
    no = answer(lambda box: box.button(QMessageBox.StandardButton.No).click())
    seen = give_address(where, digest)
    from_address.trigger()
    qtbot.waitUntil(lambda: bool(no), timeout=WAIT_MS)
    settle(qtbot, panel)
    assert seen
    assert not list(home.rglob("model.safetensors"))  # the licence comes first
    yes = answer(lambda box: box.button(QMessageBox.StandardButton.Yes).click())
    give_address(where, digest)
    from_address.trigger()
    qtbot.waitUntil(lambda: bool(by_text.clips), timeout=WAIT_MS)
    settle(qtbot, panel)
    assert len(yes) == 1
    assert digest in dock.hint.text()
    assert told[0].total == 0
    assert told[-1] is None
    assert dock.clip.currentText().endswith("(unknown)")
    assert by_text.wishes.clip == dock.clip.currentData()
    assert [path.parent for path in home.rglob(SOURCE)] == [next(home.rglob("model.safetensors")).parent]


def test_a_download_that_is_stopped_keeps_nothing(dock, by_text, panel, qtbot):
    gate, began, after = threading.Event(), threading.Event(), []

    def get(_where, _sha256, progress):
        progress(1, 2)
        began.set()
        assert gate.wait(60)
        progress(2, 2)
        after.append("went on")
        return ""

    by_text.engine.get = get
    by_text.download.begin("http://host/clip")
    qtbot.waitUntil(began.is_set, timeout=WAIT_MS)
    assert dock.stop_button.isVisible()
    click(qtbot, dock.stop_button)
    gate.set()
    settle(qtbot, panel)
    assert after == []
    assert "Nothing of the weights was kept" in dock.hint.text()
    assert dock.view_button.isVisible()


@pytest.mark.parametrize("is_aside", [False, True])
def test_scores_go_with_the_nuclei_that_had_them(scored, by_text, panel, qtbot, is_aside):
    if is_aside:
        panel.docks.frame("By text").parent().hide()
    panel.session.min_area_um2 += 1
    panel.controller.segment_view()
    settle(qtbot, panel)
    qtbot.waitUntil(lambda: by_text.found is None, timeout=WAIT_MS)
    assert by_text._layer.layer is None
    assert scored.hint.text() == FOUND_ANEW
    by_text.accept()
    assert scored.hint.text() == NOTHING
    assert not panel.session.editing
