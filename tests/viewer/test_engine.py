"""What the window's engine imports is left out of searches for garbage once, not again with each fine-tune."""

import gc
import weakref

import pytest

from napari_nucleiseg.viewer.engine import Engine


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
