"""The window's engine: imports are left out of searches for garbage once; models that look in another way are kept."""

import gc
import weakref

import pytest

from dark_model import CARD, SPEC, Dark
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.viewer.engine import LOOKING, Engine


class Node:
    """Unreachable once nobody holds it, and yet in a cycle."""

    def __init__(self):
        self.me = self


@pytest.fixture
def engine():
    """An engine whose window closes; what other tests left out is so again afterwards."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    made = Engine()
    yield made
    made.cool_down()
    if frozen:
        gc.freeze()


def test_a_second_fine_tune_leaves_nothing_else_out(engine):
    engine.import_training()
    assert gc.get_freeze_count()
    node = Node()
    there = weakref.ref(node)
    del node
    engine.import_training()
    gc.collect()
    assert there() is None


def test_when_the_window_closes_everything_is_searched_again(engine):
    engine.warm_up()
    engine.import_training()
    engine.cool_down()
    assert not gc.get_freeze_count()


def test_a_model_that_looks_in_another_way_is_made_once(engine):
    model, other = (LoadedModel(SPEC, CARD, Dark().eval()) for _ in range(2))
    seeing = engine.looking(model, ignore_brown=True)
    assert engine.looking(other, ignore_brown=True) is not seeing
    assert engine.looking(model, ignore_brown=True, thorough=True).version == f"{model.version}+nobrown+turned"
    assert engine.looking(model, ignore_brown=True) is seeing
    assert engine.looking(model, ignore_brown=False) is model
    for _ in range(2 * LOOKING):
        engine.looking(LoadedModel(SPEC, CARD, Dark().eval()), ignore_brown=True)
    assert len(engine._looking) == LOOKING + 1
