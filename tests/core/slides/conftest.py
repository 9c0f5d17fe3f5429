"""Fixtures of the slide tests."""

import pytest

from napari_nucleiseg.core.slides.tilecache import shared_cache


@pytest.fixture(autouse=True)
def empty_cache():
    """Let no test depend on tiles that another one left behind."""
    shared_cache().clear()
