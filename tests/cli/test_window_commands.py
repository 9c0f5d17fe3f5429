"""``open`` and ``demo``: a real window, its picture, and wrong files refused before it appears."""

import importlib
import os
import subprocess
import sys
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
from qtpy.QtCore import QRect
from qtpy.QtGui import QScreen

from dark_model import CARD, SPEC, Dark, disc_picture
from napari_nucleiseg.cli.window import open_window
from napari_nucleiseg.core.errors import NucleiSegError
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.viewer.outlines import OUTLINE


def test_a_file_that_is_no_slide_is_refused_before_a_window_opens(shell, monkeypatch, tmp_path):
    monkeypatch.setattr("napari_nucleiseg.cli.open.open_window", lambda: pytest.fail("a window was opened"))
    (tmp_path / "a.svs").write_text("no slide")
    answer = shell("open", tmp_path / "a.svs")
    assert answer.status == 1
    assert "is no slide or picture of a kind that can be read" in answer.err


@pytest.fixture
def _no_display(monkeypatch):
    """A Linux machine without any display; a window would be noticed."""
    importlib.import_module("napari_nucleiseg.widgets.commands")  # nothing shall be imported under a false platform
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")

    def opened(**_):
        raise NucleiSegError("a window was opened")

    monkeypatch.setattr("napari.Viewer", opened)


@pytest.mark.usefixtures("_no_display")
@pytest.mark.parametrize("command", ["demo", "open"])
def test_without_a_display_it_is_said_what_to_do(shell, tmp_path, command):
    slide = tmp_path / "a.png"
    slide.write_bytes(imagecodecs.png_encode(disc_picture((64, 64))))
    answer = shell(command, *([slide] if command == "open" else []))
    assert answer.status == 1
    assert answer.err.startswith("Error: there is no display to show a window on. Set DISPLAY")
    for way_out in ("xvfb-run -a napari-nucleiseg demo --screenshot", "napari-nucleiseg segment"):
        assert way_out in answer.err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is always a display")
def test_without_a_display_the_process_ends_by_itself():
    hidden = {"DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"}
    program = "from napari_nucleiseg.cli import main; raise SystemExit(main(['demo']))"
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith("Error: there is no display")


@pytest.mark.usefixtures("_no_display")
@pytest.mark.parametrize(
    ("platform", "variables"),
    [
        ("linux", {"DISPLAY": ":7"}),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}),
        ("linux", {"QT_QPA_PLATFORM": "vnc"}),
        ("darwin", {}),
        ("win32", {}),
    ],
)
def test_a_display_of_any_kind_is_believed(shell, monkeypatch, platform, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert shell("demo").err == "Error: a window was opened\n"


@pytest.mark.parametrize(
    ("screen", "wanted"),
    [((1920, 1080), (1500, 950)), ((1366, 768), (1366, 728)), ((1440, 1200), (1440, 950))],
    ids=["large", "laptop", "narrow"],
)
@pytest.mark.usefixtures("qtbot")
def test_the_window_is_no_larger_than_the_screen(monkeypatch, screen, wanted):
    sizes = []
    made = SimpleNamespace(window=SimpleNamespace(resize=lambda *size: sizes.append(size)))
    monkeypatch.setattr("napari.Viewer", lambda **_: made)
    monkeypatch.setattr("napari_nucleiseg.widgets.commands.open_panel", lambda _viewer: None)
    monkeypatch.setattr(QScreen, "availableGeometry", lambda _screen: QRect(0, 0, *screen))
    assert open_window().viewer is made
    assert sizes == [wanted]


@pytest.mark.usefixtures("qtbot")
@pytest.mark.parametrize("shape", [(300, 400), (700, 600)], ids=["one level", "pyramid"])
def test_demo_shows_a_slide_with_its_nuclei_and_saves_a_picture(shell, monkeypatch, tmp_path, shape):
    network = Dark().eval()
    monkeypatch.setattr(
        "napari_nucleiseg.core.models.weights.load_model", lambda _name, **_: LoadedModel(SPEC, CARD, network)
    )
    slide = tmp_path / "a.png"
    slide.write_bytes(imagecodecs.png_encode(disc_picture(shape)))
    answer = shell("demo", "--slide", slide, "--mpp", 0.5, "--screenshot", tmp_path / "window.png")
    assert answer.status == 0, answer.err
    picture = imagecodecs.png_decode((tmp_path / "window.png").read_bytes())
    assert picture.shape[0] > 500
    assert network.log.tiles > 0
    # The colour of the outlines is on the picture.
    outline = np.array(list(bytes.fromhex(OUTLINE.removeprefix("#"))))
    assert np.sum(np.abs(picture[..., :3].astype(int) - outline).max(axis=-1) < 40) > 200
    assert (tmp_path / "a.nucleiseg" / "project.sqlite").exists()
