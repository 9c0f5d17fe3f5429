"""A picture of discs as a slide file, and napari in a real window with the panel docked."""

import pytest

from gui_parts import *  # noqa: F403 - fixtures that the widgets' tests share
from gui_parts import Pump


@pytest.fixture
def pump():
    """Jobs whose answers wait until the test takes them, with no Qt."""
    made = Pump()
    yield made
    made.jobs.close()
    made.jobs.join()
