"""The dock Train without labels with the method that learns from shapes: by the mouse, to a model that is used."""

import pytest
from qtpy.QtCore import Qt
from test_layout import cut_off
from test_unlabelled_dock import ended, train, type_steps

from gui_parts import WAIT_MS, choose_action, click, until_idle
from napari_nucleiseg.state import BY_SHAPE, NETWORKS
from unlabelled_parts import FolderEngine, TinyEngine, tissue_picture, write_model, write_slide


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """The real one, which lists what was learned."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda _name: str(tmp_path / "data"))
    write_model()
    return FolderEngine(tmp_path)


@pytest.fixture
def dock(viewer, panel, engine, tmp_path, qtbot):
    """The dock as it comes up, with two open slides and few steps."""
    panel.docks.unlabelled.engine = TinyEngine(engine)
    for number in (1, 2):
        path = write_slide(tmp_path / f"s{number}.tif", tissue_picture(number))
        viewer.open(str(path), plugin="napari-nucleiseg")
    viewer.reset_view()
    until_idle(qtbot, panel)
    choose_action(qtbot, panel.panel.correct.more_button, panel.panel.correct.unlabelled_action)
    made = panel.docks.widget("Train without labels")
    qtbot.waitUntil(made.isVisible, timeout=WAIT_MS)
    made.unlabelled.wishes.measure_every = 2
    type_steps(qtbot, made, "4")
    return made


def choose(qtbot, combo, place):
    """Choose an entry by the keyboard, as a person would."""
    combo.setFocus()
    qtbot.keyClick(combo, Qt.Key.Key_Home)
    for _ in range(place):
        qtbot.keyClick(combo, Qt.Key.Key_Down)


def test_the_best_method_is_the_first_and_it_comes_to_a_model_that_finds_nuclei(viewer, panel, dock, qtbot):
    assert dock.network.currentText() == "Nuclei by their shape"
    assert "found by their shape in haematoxylin" in dock.told.text()
    assert not dock.start.isEnabled()
    train(qtbot, panel, dock)
    run = dock.curve.runs[-1]
    assert [step for step, _ in run.losses] == [1, 2, 3, 4]
    assert [step for step, _ in run.scores] == [2, 4]
    # There is no chance level to compare with.
    assert run.former is None
    assert dock.curve.wording.former == ""
    assert len(dock.attention.pictures) == 2
    assert "takes for a nucleus" in dock.attention.toolTip()
    assert "All 4 steps are done" in dock.told.text()
    assert "agree with an F1 of" in dock.told.text()
    for theme in ("light", "dark"):
        viewer.theme = theme
        qtbot.wait(50)
        assert cut_off(dock) == []
    click(qtbot, dock.use_button)
    qtbot.waitUntil(lambda: panel.session.model == "by-shape", timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert panel.panel.model.currentText() == "Nuclei by shape, learned from 2 slides"
    assert "It is in the list of models" in dock.told.text()
    opened = panel.controller._shelf.now
    assert opened.project.tiles_done(*opened.done_key)


def test_another_method_says_what_it_does_and_brings_its_sizes(panel, dock, qtbot):
    train(qtbot, panel, dock)
    assert dock.use_button.isVisible()
    choose(qtbot, dock.network, 2)
    assert dock.unlabelled.wishes.network == NETWORKS[0]
    assert "at which magnification" in dock.told.text()
    assert not dock.use_button.isVisible()
    assert dock.curve.runs == ()
    assert dock.curve.wording.former == "chance"
    assert dock.start.isEnabled()
    # Four steps were typed; what nobody has turned becomes that of the method.
    assert (dock.unlabelled.wishes.steps, dock.unlabelled.wishes.crop_px) == (4, 128)
    click(qtbot, dock.more_button)
    settings = dock._settings
    qtbot.waitUntil(settings.isVisible, timeout=WAIT_MS)
    assert settings.controls["by_shape"].isEnabled()
    choose(qtbot, dock.network, 0)
    assert dock.unlabelled.wishes.network == BY_SHAPE
    assert not settings.controls["by_shape"].isEnabled()
    assert not settings.controls["sparsity"].isEnabled()
    settings.close()
    # The same run is at hand again, whole already.
    train(qtbot, panel, dock)
    assert "All 4 steps are done" in dock.told.text()


def test_a_fit_of_attention_is_told_as_such_and_the_next_run_as_what_it_is(panel, dock, qtbot):
    panel.session.model = "look"
    until_idle(qtbot, panel)
    dock.unlabelled.wishes.fit_steps = 2
    click(qtbot, dock.fit_button)
    ended(qtbot, panel)
    assert dock.curve.wording.former == "chance"
    assert "magnifications apart" in dock.attention.toolTip()
    assert dock.network.currentText() == "Nuclei by their shape"
    train(qtbot, panel, dock)
    assert dock.curve.wording.former == ""
    assert dock.attention.is_of_nuclei


def test_a_start_that_was_chosen_for_attention_does_not_count_here(panel, dock, qtbot):
    choose(qtbot, dock.network, 2)
    dock.unlabelled.wishes.start = "look"
    assert not dock.network.isEnabled()
    dock.unlabelled.wishes.start = ""
    assert dock.network.isEnabled()
    choose(qtbot, dock.network, 0)
    click(qtbot, dock.start_button)
    ended(qtbot, panel)
    assert dock.unlabelled.last.start == ""
