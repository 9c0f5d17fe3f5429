"""Python's search for unreachable objects stops every thread; what stays for good need not be searched each time."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from napari_nucleiseg.core.garbage import without_searches

_lock = threading.Lock()
_holders: weakref.WeakSet[object] = weakref.WeakSet()


@contextmanager
def left_out_of_searches(holder: object) -> Iterator[None]:
    """Make no search within the block, and leave what there is at its end out of all later ones.

    What is left out and becomes unreachable stays in memory until `search_again`. Works for any thread.

    Parameters
    ----------
    holder : object
        Who wants it; may want it again and again.
    """
    with without_searches():
        try:
            yield
        finally:
            with _lock:
                _holders.add(holder)
                gc.freeze()


def search_again(holder: object) -> None:
    """Have everything searched again once nobody wants otherwise; nothing if `holder` did not."""
    with _lock:
        if holder in _holders:
            _holders.remove(holder)
            if not _holders:
                gc.unfreeze()
