"""``open`` and ``demo``: a real window, its picture, and wrong files refused before it appears."""

import imagecodecs
import numpy as np
import pytest

from dark_model import CARD, SPEC, Dark, disc_picture
from napari_nucleiseg.core.models.weights import LoadedModel


def test_a_file_that_is_no_slide_is_refused_before_a_window_opens(shell, monkeypatch, tmp_path):
    monkeypatch.setattr("napari_nucleiseg.cli.open.open_window", lambda: pytest.fail("a window was opened"))
    (tmp_path / "a.svs").write_text("no slide")
    answer = shell("open", tmp_path / "a.svs")
    assert answer.status == 1
    assert "is no slide or picture that is known here" in answer.err


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
    outline = np.array([0x00, 0xE5, 0xA0])
    assert np.sum(np.abs(picture[..., :3].astype(int) - outline).max(axis=-1) < 40) > 200
    assert (tmp_path / "a.nucleiseg" / "project.sqlite").exists()
