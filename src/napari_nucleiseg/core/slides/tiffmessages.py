"""What tifffile logs while slides are opened: its words are for programmers, and people are told in ours."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)
_here = threading.local()


def _is_wanted(record: logging.LogRecord) -> bool:
    if not getattr(_here, "quiet", False):
        return True
    logger.debug("tifffile: %s", record.getMessage())
    return False


logging.getLogger("tifffile").addFilter(_is_wanted)


@contextmanager
def quiet_tifffile() -> Iterator[None]:
    """Turn what tifffile logs in this thread inside the block into debug messages of this package."""
    before = getattr(_here, "quiet", False)
    _here.quiet = True
    try:
        yield
    finally:
        _here.quiet = before
