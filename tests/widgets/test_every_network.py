"""Every network of pictures, chosen in the panel, segments what is in view, and its maps can be seen."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from dark_model import disc_picture
from gui_parts import click, open_and_settle
from napari_nucleiseg.core.models.registry import build_network, network_names, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.widgets.panel import NO_HEATMAP
from torchvision_shim import import_timm
from zoo_parts import SLIM, zoo_names

SIDE_PX = 192
SLOW_MS = 240_000


def cards():
    """One for each network; the first is what the panel opens with."""
    return {
        name: ModelCard(name, name, SLIM[name], name, licence="MIT", commercial_use=True, sha256=f"{number:064x}")
        for number, name in enumerate(zoo_names())
    }


class Louder(nn.Module):
    """An untrained network starts near nought everywhere: its maps are spread so that one sees them."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return {name: 3 * (raw - raw.mean()) / (raw.std() + 1e-9) for name, raw in self.network(x).items()}


class ZooEngine(Engine):
    """The real engine, with slim networks in place of weight files; projects lie in a folder of the test."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.cards, self.asked = folder, cards(), []

    def models(self):
        return tuple(self.cards.values())

    def preferred(self, family):
        return family if family in self.cards else next(iter(self.cards))

    def load(self, name):
        card = self.cards[self.preferred(name)]
        self.asked.append(card.name)
        torch.manual_seed(0)
        spec = network_spec(card.network, card.params)
        return LoadedModel(spec, card, Louder(build_network(spec).eval()))

    def project_folder(self, slide, results_folder=""):
        return self.folder / f"{Path(slide.path).stem}.nucleiseg"


@pytest.fixture
def engine(tmp_path):
    pytest.importorskip("monai", reason="the extra zoo is not installed")
    import_timm()
    return ZooEngine(tmp_path)


@pytest.fixture
def small_slide(tmp_path):
    """Path of a TIFF of 192 x 192 pixels of 0.5 um with dark discs."""
    path, per_cm = tmp_path / "small.tif", 1e4 / 0.5
    tifffile.imwrite(
        path, disc_picture((SIDE_PX, SIDE_PX)), tile=(64, 64), resolution=(per_cm,) * 2, resolutionunit="CENTIMETER"
    )
    return path


def test_the_zoo_is_large():
    assert len(zoo_names()) >= 16
    assert set(zoo_names()) <= set(network_names())


def until_done(qtbot, panel):
    """Wait longer than elsewhere: some of these networks are not small even when they are slim."""
    for _ in range(3):
        qtbot.wait(20)
        qtbot.waitUntil(lambda: not (panel.controller.is_running or panel.controller.is_busy), timeout=SLOW_MS)


def choose(choice, value):
    """Choose an entry of a list as a person does."""
    place = choice.findData(value)
    assert place >= 0, f"{value} is not offered"
    choice.setCurrentIndex(place)
    choice.activated.emit(place)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_network_segments_the_view(viewer, panel, engine, small_slide, qtbot):
    qtbot.waitUntil(lambda: panel.panel.model.count() == len(engine.cards))
    open_and_settle(viewer, panel, small_slide, qtbot)
    for name in engine.cards:
        choose(panel.panel.model, name)
        until_done(qtbot, panel)
        click(qtbot, panel.panel.view_button)
        until_done(qtbot, panel)
        assert engine.asked[-1] == name
        assert panel.panel.count.text().replace(",", "").isdigit(), f"{name}: {panel.panel.status.text()}"
        choose(panel.panel.heatmap, "nuclei")
        until_done(qtbot, panel)
        (layer,) = [layer for layer in viewer.layers if "probability" in layer.name]
        seen = np.asarray(layer.data[0])
        assert seen.shape == (SIDE_PX, SIDE_PX), name
        assert seen.min() < seen.max(), name
        choose(panel.panel.heatmap, NO_HEATMAP)
    assert set(engine.asked) == set(engine.cards)
