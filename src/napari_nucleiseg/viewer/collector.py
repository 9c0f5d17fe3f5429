"""Python's search for unreachable objects stops every thread; what stays for good need not be searched each time.

napari, torch and this package are some 600,000 objects, and to look through all of them stopped the window for a third
of a second every half minute of work.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

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
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        with _lock:
            _holders.add(holder)
            gc.freeze()
        if was_on:
            gc.enable()


def search_again(holder: object) -> None:
    """Have everything searched again once nobody wants otherwise; nothing if `holder` did not."""
    with _lock:
        if holder in _holders:
            _holders.remove(holder)
            if not _holders:
                gc.unfreeze()
