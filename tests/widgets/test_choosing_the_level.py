"""A model of attention in the window: View finds the level of the slide, and the panel offers the model's own."""

import threading
from dataclasses import replace

import pytest

from dark_attention import dark_attention, keep
from gui_parts import WAIT_MS, click, open_and_settle, until_idle
from napari_nucleiseg.core.models.scale_attention import with_tau
from napari_nucleiseg.core.training.scales.slide_level import Windows
from unlabelled_parts import FolderEngine, tissue_picture, write_model, write_slide

SET = "set"


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda _name: str(tmp_path / "data"))
    model = dark_attention()
    keep(model)
    explicit = with_tau(model, 3.2)
    keep(replace(explicit, card=replace(explicit.card, name=SET)), SET)
    write_model("other")
    return FolderEngine(tmp_path)


@pytest.fixture
def gate(monkeypatch):
    """Holds what looks at windows while it is clear, and counts them."""
    made, read = threading.Event(), Windows.read
    made.set()
    made.reads, made.threads = 0, set()

    def held(windows, slide, number):
        made.reads += 1
        made.threads.add(threading.current_thread())
        assert made.wait(60)
        return read(windows, slide, number)

    monkeypatch.setattr(Windows, "read", held)
    return made


@pytest.fixture
def opened(viewer, panel, gate, tmp_path, qtbot):
    """The panel with a slide, and the model of attention in hand."""
    open_and_settle(viewer, panel, write_slide(tmp_path / "a.tif", tissue_picture(1, 640)), qtbot)
    panel.session.model = "look"
    until_idle(qtbot, panel)
    return panel


def count_shown(panel):
    return int(panel.panel.count.text().replace(",", ""))


def version(panel):
    return panel.controller._shelf.now.done_key[0]


def test_view_finds_nuclei_at_the_level_of_the_slide_beside_the_window(opened, gate, qtbot):
    gate.clear()
    click(qtbot, opened.panel.view_button)
    qtbot.waitUntil(lambda: "Finding the level" in opened.panel.bar.text(), timeout=WAIT_MS)
    assert opened.panel.stop_button.isVisible()
    segmenter = opened.controller.segmenter
    segmenter._show_preparing(segmenter.wish)  # due before, but late, as where the window is being drawn
    assert "Finding the level" in opened.panel.bar.text()
    gate.set()
    until_idle(qtbot, opened)
    assert count_shown(opened) > 20
    assert "+level" in version(opened)
    assert threading.main_thread() not in gate.threads
    reads = gate.reads
    click(qtbot, opened.panel.slide_button)
    until_idle(qtbot, opened)
    assert gate.reads == reads > 1


def test_stop_ends_the_search_and_the_next_press_goes_on(opened, gate, qtbot):
    gate.clear()
    click(qtbot, opened.panel.view_button)
    qtbot.waitUntil(lambda: gate.reads == 1, timeout=WAIT_MS)
    click(qtbot, opened.panel.stop_button)
    assert not opened.controller.is_running
    gate.set()
    until_idle(qtbot, opened)
    assert gate.reads == 1
    assert opened.panel.count.text() == "–"
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    assert count_shown(opened) > 20
    assert gate.reads == 4


def test_the_models_own_level_is_a_choice(opened, gate, qtbot):
    level = opened.panel.level
    assert level.isVisible()
    assert [level.itemText(place) for place in range(level.count())] == ["This slide's", "The model's own"]
    level.setCurrentIndex(1)
    level.activated.emit(1)
    assert opened.session.attention_level == "model"
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    assert count_shown(opened) == 0
    assert "+level" not in version(opened)
    assert gate.reads == 0


def test_it_is_offered_only_where_there_is_one_to_choose(opened, qtbot):
    for name, offered in ((SET, False), ("other", True), ("nuclei", False), ("look", True)):
        opened.session.model = name
        until_idle(qtbot, opened)
        assert opened.panel.level.isVisible() is offered, name


def test_a_level_that_was_set_is_kept(opened, gate, qtbot):
    opened.session.model = SET
    until_idle(qtbot, opened)
    click(qtbot, opened.panel.view_button)
    until_idle(qtbot, opened)
    assert count_shown(opened) > 20
    assert version(opened).startswith("set@")
    assert "+level" not in version(opened)
    assert gate.reads == 0
