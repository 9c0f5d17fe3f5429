"""What libraries log while a command runs: errors only, all of it with ``--debug``, never raw between progress bars."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from napari_nucleiseg.cli.console import Console

_PACKAGE = logging.getLogger("napari_nucleiseg")


class _Told(logging.Handler):
    """Says each record as a line on stderr; progress bars that are shown stay below it."""

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self._console = console
        self.setFormatter(logging.Formatter("%(levelname)s from %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._console.say(self.format(record))


@contextmanager
def log_told(console: Console, *, debug: bool) -> Iterator[None]:
    """Take what is logged, and what Python warns of, for the time of a command.

    What matters to a person is told by the command itself; the log repeats it for whoever looks for a fault.

    Parameters
    ----------
    console : Console
        Where it is said.
    debug : bool
        Whether to say all of it; else errors only.
    """
    handler, level = _Told(console, logging.DEBUG if debug else logging.ERROR), _PACKAGE.level
    logging.root.addHandler(handler)
    logging.captureWarnings(capture=True)
    if debug:
        _PACKAGE.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        _PACKAGE.setLevel(level)
        logging.captureWarnings(capture=False)
        logging.root.removeHandler(handler)
