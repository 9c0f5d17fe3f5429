"""The dock "Models": search, filter, choose, use, train, compare, export and import, as a person does it."""

import threading
from dataclasses import replace

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QComboBox, QFileDialog, QLineEdit, QMessageBox, QPushButton

from dark_model import DarkEngine
from foreign_package import foreign_zip, parts, written
from gui_parts import WAIT_MS, answer, click, open_and_settle, until_idle
from napari_nucleiseg.core.models import catalogue
from napari_nucleiseg.core.models.catalogue import PIP_LINE
from napari_nucleiseg.core.models.programs import TORCHSCRIPT, open_program
from napari_nucleiseg.core.models.registry import network_names
from napari_nucleiseg.core.models.weights import read_card, save_model
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.model_doors import WEIGHTS, ModelDoors
from napari_nucleiseg.widgets.model_browser import NOTHING_FOUND
from napari_nucleiseg.widgets.model_card import NOT_MEASURED
from napari_nucleiseg.widgets.model_dialogs import ImportModelDialog, TrainDialog, ask_model_export
from napari_nucleiseg.widgets.model_list import STATE
from napari_nucleiseg.widgets.wording import LINK_COLOURS
from small_models import small_model


class KeptEngine(DarkEngine):
    """The real engine with the user's own weight files."""

    models, load, accept_licence = Engine.models, Engine.load, Engine.accept_licence


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder with three small models, one of them not for commercial use."""
    folder = tmp_path / "home" / "models"
    folder.mkdir(parents=True)
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))
    made = small_model()
    for name, licence in (("first", "MIT"), ("second", "CC-BY-NC-4.0"), ("third", "MIT")):
        card = replace(made.card, name=name, title=name.capitalize(), licence=licence, commercial_use=licence == "MIT")
        save_model(folder / f"{name}.safetensors", made.network, made.spec, card)
    return folder


@pytest.fixture
def engine(tmp_path, home):
    return KeptEngine(tmp_path)


@pytest.fixture
def dock(viewer, panel, qtbot):
    """The dock, opened by the command of the menu."""
    panel.docks.show_models()
    made = panel.docks.widget("Models")
    qtbot.waitUntil(lambda: made.browser.was_read, timeout=WAIT_MS)
    return made


def names(dock):
    return [row.name for row in dock.list.shown]


def item(dock, key):
    (found,) = (one for one in dock.list._items() if one.data(0, Qt.ItemDataRole.UserRole) == key)
    return found


def choose(dock, key, qtbot):
    """Click on a row."""
    one = item(dock, key)
    dock.list.scrollToItem(one)
    place = dock.list.visualItemRect(one).center()
    qtbot.mouseClick(dock.list.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert dock.list.selected.key == key


def said(dock, qtbot, *words):
    qtbot.waitUntil(lambda: all(word in dock.hint.text() for word in words), timeout=WAIT_MS)


def test_the_button_beside_the_model_opens_it_and_nothing_is_left_out(viewer, panel, disc_slide, qtbot, monkeypatch):
    threads = []
    real = ModelDoors.rows

    def watched(doors):
        threads.append(threading.current_thread())
        return real(doors)

    monkeypatch.setattr(ModelDoors, "rows", watched)
    open_and_settle(viewer, panel, disc_slide, qtbot)
    click(qtbot, panel.panel.browse_button)
    dock = panel.docks.widget("Models")
    qtbot.waitUntil(lambda: dock.browser.was_read, timeout=WAIT_MS)
    assert dock.isVisible()
    assert threads[0] is not threading.main_thread()
    assert names(dock)[:2] == ["nuclei", "first"]  # the shipped default before all others
    assert set(network_names()) <= set(names(dock))
    assert dock.list.selected.key == "model nuclei"  # the one in use is looked at first
    assert item(dock, "model nuclei").text(STATE) == "in use"
    assert item(dock, "model second").text(STATE) == "research use only"
    qtbot.waitUntil(lambda: "2,686,100" in dock.card.text(), timeout=WAIT_MS)


def test_words_and_filters_leave_what_is_meant(dock, qtbot):
    qtbot.keyClicks(dock.search, "mirror VGG16")
    assert names(dock) == ["segnet"]
    qtbot.keyClicks(dock.search, " nonsense")
    assert names(dock) == []
    assert dock.nothing.isVisible()
    assert dock.nothing.text() == NOTHING_FOUND
    assert dock.card.text() == ""
    assert not any(button.isEnabled() for button in (dock.use_button, dock.train_button, dock.export_button))
    dock.search.clear()
    click(qtbot, dock.filters["stacks"])
    assert names(dock) == ["unet-3d", "v-net"]
    assert "z-stacks" in dock.card.text()
    click(qtbot, dock.filters["stacks"])
    click(qtbot, dock.filters["usable"])
    click(qtbot, dock.filters["free"])
    assert "first" in names(dock)
    assert not {"second", "hover-net"} & set(names(dock))


def test_a_network_says_what_it_is_good_for(dock, qtbot):
    choose(dock, "network segnet", qtbot)
    told = dock.card.text()
    for part in ("small nuclei suffer", 'href="https://arxiv.org/abs/1511.00561"', "BSD-3-Clause", "AJI 0."):
        assert part in told
    qtbot.waitUntil(lambda: "29,437,957" in dock.card.text(), timeout=WAIT_MS)
    assert not dock.use_button.isEnabled()
    assert "train it first" in dock.use_button.toolTip()
    assert not dock.compare_button.isEnabled()
    choose(dock, "network v-net", qtbot)
    assert NOT_MEASURED in dock.card.text()


def test_what_was_measured_is_in_the_list_and_on_the_card(viewer, panel, tmp_path, monkeypatch, qtbot):
    row = '{"network": "segnet", "parameters": 5, "mp_per_s": 2.5, "aji": 0.5, "pq": 0.25, "steps": 90, "seconds": 120}'
    (tmp_path / "table.json").write_text(f"[{row}]")
    monkeypatch.setattr(catalogue, "_TABLE", str(tmp_path / "table.json"))
    catalogue.measured_networks.cache_clear()
    try:
        panel.docks.show_models()
        dock = panel.docks.widget("Models")
        qtbot.waitUntil(lambda: dock.browser.was_read, timeout=WAIT_MS)
    finally:
        catalogue.measured_networks.cache_clear()
    assert [item(dock, "network segnet").text(column) for column in range(2, 7)] == [
        "to train", "0.0 M", "2.5", "0.500", "0.250",
    ]  # fmt: skip
    choose(dock, "network segnet", qtbot)
    assert "AJI 0.500, PQ 0.250 after 90 steps of 4 crops (120 s on one core)" in dock.card.text()


def test_a_missing_library_is_told_with_the_line_to_type(viewer, panel, monkeypatch, qtbot):
    monkeypatch.setattr(catalogue, "find_spec", lambda _name: None)
    panel.docks.show_models()
    dock = panel.docks.widget("Models")
    qtbot.waitUntil(lambda: dock.browser.was_read, timeout=WAIT_MS)
    assert item(dock, "network hover-net").text(STATE) == "needs monai"
    choose(dock, "network hover-net", qtbot)
    line = PIP_LINE.replace('"', "&quot;")
    assert f"It needs monai, which is not installed: {line}" in dock.card.text()
    click(qtbot, dock.filters["installed"])
    assert "hover-net" not in names(dock)


def test_use_is_what_the_panels_chooser_does(dock, panel, qtbot):
    choose(dock, "model first", qtbot)
    click(qtbot, dock.use_button)
    assert panel.session.model == "first"
    assert panel.panel.model.currentData() == "first"
    assert item(dock, "model first").text(STATE) == "in use"
    assert item(dock, "model nuclei").text(STATE) == "ready"
    assert not dock.use_button.isEnabled()
    panel.session.model = "nuclei"
    assert item(dock, "model nuclei").text(STATE) == "in use"


def test_train_puts_the_line_into_the_clipboard(dock, qtbot):
    QApplication.clipboard().clear()
    choose(dock, "network kiu-net", qtbot)
    click(qtbot, dock.train_button)
    dialog = dock.findChild(TrainDialog)
    line = "napari-nucleiseg train --network kiu-net --train FOLDER,mpp_um=UM --out runs/kiu-net"
    assert dialog.isVisible()
    assert dialog.command.text() == QApplication.clipboard().text() == line
    assert not dialog.open_button.isVisible()
    dialog.reject()


@pytest.mark.parametrize(
    ("key", "opened"),
    [
        ("model first", "Teach"),
        ("network scale-attention-fast", "Train without labels"),
        ("network s3net", "Cluster the view"),
    ],
)
def test_train_opens_what_the_window_has_for_it(dock, panel, qtbot, key, opened):
    choose(dock, key, qtbot)
    click(qtbot, dock.train_button)
    click(qtbot, dock.findChild(TrainDialog).open_button)
    assert panel.docks.widget(opened).isVisible()


def test_two_models_are_compared_in_the_view(viewer, panel, disc_slide, qtbot):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    panel.session.model = "first"
    until_idle(qtbot, panel)
    panel.docks.show_models()
    dock = panel.docks.widget("Models")
    qtbot.waitUntil(lambda: dock.browser.was_read, timeout=WAIT_MS)
    assert not dock.compare_button.isEnabled()  # with itself
    choose(dock, "model third", qtbot)
    click(qtbot, dock.compare_button)
    qtbot.waitUntil(lambda: panel.docks.comparing.is_shown, timeout=WAIT_MS)
    assert panel.docks.comparing.titles == ("First", "Third")
    panel.docks.comparing.stop()


# ---------------------------------------------------------------------- export


def save_as(monkeypatch, path, chosen=""):
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_a, **_k: (str(path), chosen))


@pytest.mark.parametrize(
    ("name", "chosen", "form"),
    [
        ("a.pt", "ONNX (*.onnx)", "torchscript"),
        ("b", "TorchScript (*.pt)", "torchscript"),
        ("c.ONNX", "", "onnx"),
        ("d", "", "bioimageio"),
        ("e.safetensors", "TorchScript (*.pt)", WEIGHTS),
    ],
)
def test_the_name_says_the_format_else_the_choice_does(monkeypatch, name, chosen, form):
    save_as(monkeypatch, name, chosen)
    assert ask_model_export(small_model().card, None) == (name, form)


def test_export_writes_what_says_the_same_and_overwrites_nothing(dock, tmp_path, monkeypatch, qtbot):
    save_as(monkeypatch, tmp_path / "a", "TorchScript (*.pt)")
    choose(dock, "model first", qtbot)
    click(qtbot, dock.export_button)
    said(dock, qtbot, "first is in", "says the same")
    open_program(TORCHSCRIPT, (tmp_path / "a.pt").read_bytes())
    click(qtbot, dock.export_button)
    said(dock, qtbot, "is there already and stays as it is")


def test_a_package_goes_out_and_its_weights_are_copied(dock, tmp_path, monkeypatch, qtbot):
    choose(dock, "model first", qtbot)
    save_as(monkeypatch, tmp_path / "first.zip")
    click(qtbot, dock.export_button)
    said(dock, qtbot, "first is in", "first.zip")
    assert not dock.bar.isVisible()
    save_as(monkeypatch, tmp_path / "copy.safetensors")
    click(qtbot, dock.export_button)
    said(dock, qtbot, "first is copied to")
    assert read_card(tmp_path / "copy.safetensors").name == "first"


def test_a_licence_is_asked_for_before_an_export(dock, tmp_path, monkeypatch, qtbot):
    choose(dock, "model second", qtbot)
    save_as(monkeypatch, tmp_path / "second.pt")
    asked = []

    def accept(box):
        asked.append(box.text())
        box.button(QMessageBox.StandardButton.Yes).click()

    answer(accept)
    click(qtbot, dock.export_button)
    said(dock, qtbot, "second is in")
    assert "CC-BY-NC-4.0" in asked[0]
    assert (tmp_path / "second.pt").is_file()


class Held(ModelDoors):
    """Waits between the stages of an export until the test says so."""

    def __init__(self, engine):
        super().__init__(engine)
        self.began, self.gate = threading.Event(), threading.Event()

    def export(self, card, path, form, on_progress):
        def told(stage, done, total):
            if done == 1:
                self.began.set()
                assert self.gate.wait(60)
            on_progress(stage, done, total)

        return super().export(card, path, form, told)


@pytest.fixture
def held(dock, engine, tmp_path, monkeypatch, qtbot):
    """An export that has been made and waits to be compared."""
    doors = Held(engine)
    dock.browser.exchange._doors = doors
    save_as(monkeypatch, tmp_path / "held.pt")
    choose(dock, "model first", qtbot)
    click(qtbot, dock.export_button)
    qtbot.waitUntil(doors.began.is_set, timeout=WAIT_MS)
    return doors


def test_an_export_shows_progress_and_can_be_stopped(held, dock, tmp_path, qtbot):
    qtbot.waitUntil(dock.bar.isVisible, timeout=WAIT_MS)
    assert "Exporting first" in dock.bar.format()
    assert not dock.import_button.isEnabled()
    click(qtbot, dock.stop_button)
    held.gate.set()
    said(dock, qtbot, "Stopped. Nothing was written.")
    assert not (tmp_path / "held.pt").exists()
    assert dock.import_button.isEnabled()


def test_the_window_can_be_closed_while_a_model_is_written(held, dock, panel, tmp_path):
    panel.shutdown()
    held.gate.set()
    panel.controller.join()
    assert list(tmp_path.glob("held*")) == []


# ---------------------------------------------------------------------- import


def fill_in(path, **texts):
    """Fill the dialog of an import in, as a person would."""

    def act(dialog):
        dialog.path.setText(str(path))
        for name, text in texts.items():
            getattr(dialog, name).setText(text)
        click_on(dialog)

    return act


def click_on(dialog):
    (button,) = (one for one in dialog.buttons.buttons() if one.text() == "Import")
    button.click()


def test_a_foreign_package_is_imported_and_used(dock, panel, tmp_path, qtbot):
    package = foreign_zip(tmp_path / "discs.zip")
    qtbot.keyClicks(dock.search, "hover")
    asked = answer(fill_in(package, name="strangers"), ImportModelDialog)
    click(qtbot, dock.import_button)
    said(dock, qtbot, "strangers is here, and can be used", "maps:foreground")
    assert len(asked) == 1
    qtbot.waitUntil(lambda: dock.list.selected.key == "model strangers", timeout=WAIT_MS)
    assert dock.search.text() == ""
    assert not dock.train_button.isEnabled()
    assert "cannot be taught" in dock.train_button.toolTip()
    click(qtbot, dock.use_button)
    assert panel.session.model == "strangers"
    qtbot.waitUntil(lambda: panel.panel.model.currentData() == "strangers", timeout=WAIT_MS)


def test_what_a_package_does_not_say_is_asked_for(dock, tmp_path, qtbot):
    document, files = parts()
    document["outputs"][0]["axes"][1]["channel_names"] = ["channel0", "channel1"]
    package = written(tmp_path / "unnamed.zip", document, files)
    reasons = []

    def second(dialog):
        reasons.append(dialog.findChildren(type(dock.hint))[0].text())
        assert dialog.path.text() == str(package)
        dialog.foreground.setText("channel0")
        dialog.boundary.setText("channel1")
        click_on(dialog)

    def first(dialog):
        answer(second, ImportModelDialog)
        fill_in(package)(dialog)

    answer(first, ImportModelDialog)
    click(qtbot, dock.import_button)
    said(dock, qtbot, "is here, and can be used")
    assert "Say which one does" in reasons[0]
    assert "--" not in reasons[0]  # options are for the command line


def test_a_file_that_is_no_package_is_refused_in_a_sentence(dock, tmp_path, qtbot):
    (tmp_path / "notes.zip").write_text("no zip")
    answer(fill_in(tmp_path / "notes.zip"), ImportModelDialog)
    click(qtbot, dock.import_button)
    said(dock, qtbot, "notes.zip")
    assert "color" in dock.hint.styleSheet()


def test_nothing_is_imported_when_nothing_is_chosen(dock, monkeypatch, qtbot):
    monkeypatch.setattr(dock.browser.exchange, "import_package", lambda **_k: pytest.fail("nothing was chosen"))
    seen = answer(lambda dialog: dialog.reject(), ImportModelDialog)
    click(qtbot, dock.import_button)
    assert len(seen) == 1


# ---------------------------------------------------------------------- the dock


def test_links_can_be_read_on_both_themes(dock, viewer, qtbot):
    choose(dock, "network segnet", qtbot)
    for theme in ("light", "dark"):
        viewer.theme = theme
        assert f'style="color:{LINK_COLOURS[theme]}"' in dock.card.text()


def test_every_control_explains_itself(dock):
    controls = [one for kind in (QPushButton, QLineEdit, QComboBox) for one in dock.findChildren(kind)]
    assert len(controls) > 12
    assert [one for one in controls if not one.toolTip()] == []


def test_a_closed_dock_follows_nothing_and_opens_as_it_was(dock, panel, qtbot):
    choose(dock, "network segnet", qtbot)
    panel.docks.frame("Models").parent().close()
    assert not dock.browser._connections.is_open
    panel.docks.show_models()
    qtbot.waitUntil(lambda: dock.isVisible() and dock.browser._connections.is_open, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert dock.list.selected.key == "network segnet"
