"""Python's search for unreachable objects, which stops every thread, held up for a while."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_searches() -> Iterator[None]:
    """Make no search within the block; for where very many objects are made of which none is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
