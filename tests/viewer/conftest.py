"""A picture of discs as a slide file, and napari in a real window with the panel docked."""

import pytest
from napari.components import ViewerModel

from gui_parts import *  # noqa: F403 - fixtures that the widgets' tests share
from gui_parts import Pump
from heads_parts import ALL, Windowless, use_home, write_discs, write_encoders
from napari_nucleiseg.core.attention.forward import EncoderForward


@pytest.fixture
def pump():
    """Jobs whose answers wait until the test takes them, with no Qt."""
    made = Pump()
    yield made
    made.jobs.close()
    made.jobs.join()


@pytest.fixture
def computed(monkeypatch):
    """How many patches were looked at by a transformer, batch by batch."""
    batches, patches = [], EncoderForward.patches
    monkeypatch.setattr(EncoderForward, "patches", lambda self, x: batches.append(len(x)) or patches(self, x))
    return batches


@pytest.fixture
def bare(pump, tmp_path, monkeypatch):
    """Heads of a viewer in which nothing is open, and there is no encoder."""
    use_home(monkeypatch, tmp_path)
    made = Windowless(ViewerModel(), pump, tmp_path)
    made.parts.heads.open()
    made.parts.pointing.open()
    made.settle()
    yield made
    made.close()


@pytest.fixture
def ready(bare, tmp_path):
    """The same with a slide and encoders."""
    write_encoders()
    bare.heads.encoders.list()
    bare.open(write_discs(tmp_path / "discs.tif"))
    assert bare.wishes.encoder == "tiny"
    return bare


@pytest.fixture
def seen(ready, computed):
    """The same, looked at."""
    ready.look()
    assert sum(computed) == ALL
    return ready
