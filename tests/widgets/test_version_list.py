"""The tree of versions: what it says of each, and what its buttons do to files; refused ones and deleting ask first."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QLineEdit, QMessageBox

from dark_model import DarkEngine
from gui_parts import WAIT_MS, click
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard, save_model
from napari_nucleiseg.core.teaching import versions
from napari_nucleiseg.core.teaching.agreement import Agreement, Gain
from napari_nucleiseg.core.teaching.verdict import Outcome
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.widgets.version_list import AJI, KIND, LEARNT, MADE, NOTHING_CHOSEN, PQ, TITLE
from napari_nucleiseg.widgets.version_text import NOT_KNOWN

SPEC = network_spec("nuclei", {"width": 8, "depth": 1, "widest": 8})
SCORES = Agreement(np.zeros((1, 5)), 20, 1)
BASE = ModelCard("base", "nuclei", title="Base", licence="CC0-1.0", commercial_use=True, created="2026-01-02 10:00")
REASON = "Only 12 nuclei to judge by: too few."


class KeptEngine(DarkEngine):
    """The real engine with the user's own weight files."""

    models, load = Engine.models, Engine.load


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))
    (tmp_path / "home" / "models").mkdir(parents=True)
    save_model(tmp_path / "home" / "models" / "base.safetensors", build_network(SPEC), SPEC, BASE)
    return KeptEngine(tmp_path)


def keep(parent="base", *, adopted=True, seed=1):
    """Keep a version as teaching does; its tensors depend on the seed."""
    card = versions.find_version(parent).card
    torch.manual_seed(seed)
    network = build_network(SPEC)
    taught = {
        "family": "base",
        "slides": [{"name": "liver.svs", "fingerprint": "f"}],
        "regions": [
            {"slide": "liver.svs", "name": "Region 1", "role": "teach"},
            {"slide": "liver.svs", "name": "Front <2>", "role": "hold out"},
        ],
        "nuclei": 412,
        "settings": {"steps": 60, "learning_rate": 5e-4, "seed": 7},
        "judged": "Judged on one region that you held out (40 nuclei).",
    }
    metrics = {"before": {"aji": 0.412, "pq": 0.35}, "held out": {"aji": 0.537, "pq": 0.4601}}
    new = replace(card, parent=card.version, created="", sha256="", taught=taught, metrics=metrics)
    model = LoadedModel(SPEC, new, network.eval())
    reason = "Better where it was judged." if adopted else REASON
    outcome = Outcome(model, SCORES, SCORES, Gain(0, 0, 0, 0, 0, 0, 1), None, adopted, reason, "Judged.", 2)
    return versions.keep(outcome)


def opened(panel, qtbot):
    panel.docks.show_versions()
    made = panel.docks.widget("Versions")
    qtbot.waitUntil(lambda: made.versions.was_read, timeout=WAIT_MS)
    return made


def items(made):
    return made.tree.findItems("", Qt.MatchFlag.MatchContains | Qt.MatchFlag.MatchRecursive, TITLE)


def row(made, name):
    (found,) = (item for item in items(made) if made._version_of(item).name == name)
    return found


def names(made):
    return {made._version_of(item).name for item in items(made)}


def choose(made, name):
    made.tree.clearSelection()
    row(made, name).setSelected(True)


@pytest.fixture
def answer(monkeypatch):
    """Answers questions with a button's text; what was asked is noted."""

    class Answer:
        button = "Cancel"
        asked = ()

    def run(box):
        Answer.asked = (*Answer.asked, box.text() + " " + box.informativeText())
        box.setProperty("chosen", Answer.button)

    def clicked(box):
        return next(button for button in box.buttons() if button.text() == box.property("chosen"))

    monkeypatch.setattr(QMessageBox, "exec", run)
    monkeypatch.setattr(QMessageBox, "clickedButton", clicked)
    return Answer


def test_before_anything_is_taught_it_says_so_and_shows_what_is_shipped(viewer, panel, qtbot):
    panel.docks.show_teach()
    click(qtbot, panel.docks.widget("Teach").versions_button)
    made = panel.docks.widget("Versions")
    qtbot.waitUntil(lambda: made.versions.was_read, timeout=WAIT_MS)
    assert made.isVisible()
    assert made.nothing.isVisible()
    assert {"nuclei", "base"} <= names(made)
    assert row(made, "nuclei").text(KIND) == "shipped, in use"
    assert row(made, "base").text(KIND) == "trained"
    assert row(made, "nuclei").text(LEARNT) == row(made, "nuclei").text(AJI) == NOT_KNOWN
    assert made.selected.name == "nuclei"  # the one in use is looked at first
    assert not made.use_button.isEnabled()
    assert not made.rename_button.isEnabled()
    assert not made.delete_button.isEnabled()
    assert "commercial use" in made.details.text()


def test_the_card_is_read_whole_in_a_narrow_dock(viewer, panel, qtbot):
    made = opened(panel, qtbot)
    choose(made, "nuclei")
    made.details.setText(made.details.text() + "<p>averylongwordwithoutanyplacetobreakit.svs</p>")
    made.window().resize(700, 700)
    made.setFixedWidth(made.minimumSizeHint().width())
    qtbot.wait(50)
    room = made.details.parentWidget()
    assert made.details.width() == room.width()
    assert made.details.height() >= made.details.heightForWidth(room.width())


def test_versions_stand_below_what_they_were_taught_from(panel, qtbot):
    keep(seed=1)
    keep("base-2", seed=2)
    keep("base-2", seed=3, adopted=False)
    made = opened(panel, qtbot)
    assert not made.nothing.isVisible()
    base, second, refused = row(made, "base"), row(made, "base-2"), row(made, "base-4")
    assert second.parent() is base
    assert row(made, "base-3").parent() is refused.parent() is second
    assert second.text(TITLE) == "base, taught with liver.svs"
    assert second.text(KIND) == "taught"
    assert refused.text(KIND) == "refused"
    assert second.text(MADE).startswith("today")
    assert base.text(MADE) != NOT_KNOWN
    assert second.text(LEARNT) == "412 nuclei, 1 region, 1 slide"
    assert second.text(AJI) == "0.412 → 0.537"
    assert second.text(PQ) == "0.350 → 0.460"
    choose(made, "base-4")
    told = made.details.text()
    for part in (REASON, "Judged on one region", "steps 60", "seed 7", "Front &lt;2&gt; of liver.svs (hold out)"):
        assert part in told
    made.tree.clearSelection()
    assert made.details.text() == NOTHING_CHOSEN


def test_use_takes_a_version_and_marks_it(panel, qtbot):
    keep()
    made = opened(panel, qtbot)
    choose(made, "base-2")
    click(qtbot, made.use_button)
    qtbot.waitUntil(lambda: row(made, "base-2").text(KIND) == "taught, in use", timeout=WAIT_MS)
    assert panel.session.model == "base-2"
    assert row(made, "nuclei").text(KIND) == "shipped"
    assert made.selected.name == "base-2"
    assert not made.delete_button.isEnabled()
    assert versions.preferred("base").name == "base-2"


def test_a_refused_one_is_used_only_if_the_user_insists(panel, qtbot, answer):
    keep(adopted=False)
    made = opened(panel, qtbot)
    choose(made, "base-2")
    click(qtbot, made.use_button)
    assert REASON in answer.asked[0]
    qtbot.wait(200)
    assert panel.session.model == "nuclei"
    answer.button = "Use it"
    click(qtbot, made.use_button)
    qtbot.waitUntil(lambda: row(made, "base-2").text(KIND) == "taken anyway, in use", timeout=WAIT_MS)
    assert panel.session.model == "base-2"


def test_a_title_is_changed_in_place_and_an_empty_one_is_refused(panel, qtbot):
    keep()
    made = opened(panel, qtbot)
    choose(made, "base-2")
    click(qtbot, made.rename_button)
    editor = made.tree.findChild(QLineEdit)
    editor.setText("Liver, second try")
    qtbot.keyClick(editor, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: versions.find_version("base-2").title == "Liver, second try", timeout=WAIT_MS)
    qtbot.waitUntil(lambda: row(made, "base-2").text(TITLE) == "Liver, second try", timeout=WAIT_MS)
    row(made, "base-2").setText(TITLE, " ")
    qtbot.waitUntil(lambda: "at least one letter" in made.hint.text(), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: row(made, "base-2").text(TITLE) == "Liver, second try", timeout=WAIT_MS)


def test_a_title_half_typed_is_given_to_its_version_though_the_list_changes(panel, qtbot):
    keep(seed=1)
    made = opened(panel, qtbot)
    choose(made, "base-2")
    click(qtbot, made.rename_button)
    made.tree.findChild(QLineEdit).setText("Liver, sec")
    panel.session.model = "base-2"
    keep(seed=2)
    panel.controller.teaching.ended.emit(None)
    qtbot.waitUntil(lambda: "base-3" in names(made), timeout=WAIT_MS)
    editor = made.tree.itemWidget(row(made, "base-2"), TITLE)
    assert editor.text() == "Liver, sec"
    qtbot.keyClicks(editor, "ond")
    qtbot.keyClick(editor, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: versions.find_version("base-2").title == "Liver, second", timeout=WAIT_MS)
    assert versions.find_version("base-3").title != "Liver, second"


def test_export_copies_and_never_overwrites(panel, qtbot, tmp_path, monkeypatch):
    version = keep()
    made = opened(panel, qtbot)
    choose(made, "base-2")
    target = tmp_path / "mine.safetensors"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_a, **_k: (str(target), ""))
    click(qtbot, made.export_button)
    qtbot.waitUntil(target.exists, timeout=WAIT_MS)
    assert target.read_bytes() == version.path.read_bytes()
    qtbot.waitUntil(lambda: str(target) in made.hint.text(), timeout=WAIT_MS)
    click(qtbot, made.export_button)
    qtbot.waitUntil(lambda: "is there already" in made.hint.text(), timeout=WAIT_MS)


def test_deleting_says_who_was_taught_from_it_and_those_stay(panel, qtbot, answer, engine):
    parent, child = keep(seed=1), keep("base-2", seed=2)
    made = opened(panel, qtbot)
    choose(made, "base-2")
    click(qtbot, made.delete_button)
    assert child.name in answer.asked[0]
    assert parent.path.exists()
    engine.load("base-2")
    answer.button = "Delete"
    click(qtbot, made.delete_button)
    qtbot.waitUntil(lambda: "base-2" not in names(made), timeout=WAIT_MS)
    assert not Path(parent.path).exists()
    assert "base-2" not in engine._models  # a later version may get that name
    left = row(made, "base-3")
    assert left.parent() is None
    assert "not there any more" in left.toolTip(TITLE)
    choose(made, "base-3")
    assert "base-2, which is no longer there" in made.details.text()


def test_what_is_taught_meanwhile_appears(panel, qtbot):
    made = opened(panel, qtbot)
    assert made.nothing.isVisible()
    keep()
    panel.controller.teaching.ended.emit(None)
    qtbot.waitUntil(lambda: "base-2" in names(made), timeout=WAIT_MS)
    assert not made.nothing.isVisible()
