"""What every engine does: it takes tasks that do not depend on each other and tells how each ended."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from napari_nucleiseg.core.errors import NucleiSegError

# Tasks a worker holds besides the one it does, so that it never waits for the next.
AHEAD = 2
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


class Ending(Enum):
    """How a task ended."""

    DONE = "done"
    FAILED = "failed"
    NO_MEMORY = "no memory"
    DIED = "died"


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Something to do anywhere: a function of a module and what it is called with, both small and picklable.

    Parameters
    ----------
    name : str
        Unique in a run.
    function : callable
        Found by its module and name on the worker; what it returns is small too.
    arguments : tuple
        What it is called with.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """How a task ended.

    Parameters
    ----------
    task : Task
        Which.
    ending : Ending
        Done, failed, out of memory, or its worker died.
    value : object
        What the function returned; None unless it is done.
    sentence : str
        What went wrong; empty if it is done.
    kind : str
        Name of the error's class; empty if it is done.
    """

    task: Task
    ending: Ending
    value: Any = None
    sentence: str = ""
    kind: str = ""


class EngineLostError(NucleiSegError):
    """The place where tasks are done is gone; what was finished is kept."""


class Engine(ABC):
    """Does tasks; made, used and closed by one thread."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many tasks are done at once, now."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Tasks that were submitted and have not come back from `collect`."""

    @property
    def room(self) -> int:
        """How many more tasks may be submitted now."""
        return max(0, self.workers * (1 + AHEAD) - self.waiting)

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Have a task done.

        Raises
        ------
        EngineLostError
            If there is nobody left to do it.
        """

    @abstractmethod
    def collect(self, timeout_s: float) -> list[Outcome]:
        """Return what ended, after waiting for at most `timeout_s` seconds for the first.

        Raises
        ------
        EngineLostError
            If nothing can come any more.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return in words where tasks are done."""

    @abstractmethod
    def close(self) -> None:
        """Stop; tasks that were not begun are dropped, those that run may end unheard."""


def ended(task: Task, error: BaseException) -> Outcome:
    """Return the outcome of a task that raised."""
    text = str(error).strip()
    if isinstance(error, MemoryError) or any(words in text.lower() for words in _NO_MEMORY):
        return Outcome(task, Ending.NO_MEMORY, None, text or "there was not enough memory", type(error).__name__)
    if not isinstance(error, NucleiSegError):
        # Not foreseen: where it happened is worth more than what it is called.
        where = traceback.extract_tb(error.__traceback__)[-1:]
        place = f" ({where[0].name}, line {where[0].lineno})" if where else ""
        text = f"{type(error).__name__}: {text}{place}"
    return Outcome(task, Ending.FAILED, None, text, type(error).__name__)
