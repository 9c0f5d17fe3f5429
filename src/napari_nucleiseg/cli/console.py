"""Where words go: results to stdout (text or JSON), progress and errors to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.core.errors import NucleiSegError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

OK, FAILED, USAGE, PARTLY, INTERRUPTED = 0, 1, 2, 3, 130

# The same sentences are shown in the window, so which option helps is added here.
_HINTS = dict.fromkeys(("PixelSizeError", "MissingPixelSizeError"), " The option is --mpp, such as --mpp 0.25.")
_HINTS["UnclearPackageError"] = " The options are --foreground CHANNEL, --boundary CHANNEL and --mpp UM."
_HINTS["VoxelSizeError"] = " The option is --voxel, such as --voxel 1,0.25,0.25."


@dataclass(frozen=True, slots=True)
class Console:
    """The two streams of a command.

    Parameters
    ----------
    as_json : bool
        Whether stdout carries one JSON document instead of text.
    """

    as_json: bool = False

    def say(self, sentence: str) -> None:
        """Tell a person something, on stderr."""
        print(sentence, file=sys.stderr, flush=True)

    def result(self, document: Mapping[str, Any]) -> None:
        """Write the command's result as JSON to stdout; nothing if text was asked for."""
        if self.as_json:
            text = json.dumps(document, indent=2, ensure_ascii=False)
            try:
                text.encode(sys.stdout.encoding or "utf-8")
            except UnicodeEncodeError:  # a name that is no UTF-8, or a terminal that knows few letters
                text = json.dumps(document, indent=2)
            print(text, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table to stdout; nothing if JSON was asked for. Columns of numbers are set flush right."""
        if self.as_json:
            return
        from rich.console import Console as Rich
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(title) or None, title_justify="left", title_style="bold", show_header=any(columns))
        for place, name in enumerate(columns):
            numbers = bool(rows) and all(_is_number(row[place]) for row in rows)
            table.add_column(name, justify="right" if numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        if sys.stdout.isatty():
            Rich().print(table)
            return
        # A pipe has no width: nothing may be cut off there. Where nobody reads on (``| head``), Rich would fail.
        screen = Rich(width=200)
        with screen.capture() as drawn:
            screen.print(table)
        print(drawn.get(), end="", flush=True)

    def text(self, lines: str) -> None:
        """Write lines to stdout; nothing if JSON was asked for."""
        if not self.as_json:
            print(lines, flush=True)

    @contextmanager
    def progress(self) -> Iterator[ProgressBars]:
        """Show progress bars on stderr; on a terminal they move, elsewhere only the ends are said."""
        from rich.console import Console as Rich
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        screen = Rich(stderr=True)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bars:
            yield ProgressBars(bars, self)


@dataclass(slots=True)
class ProgressBars:
    """Named bars; made at first mention."""

    bars: Progress
    console: Console
    _tasks: dict[str, TaskID] | None = None

    def update(self, name: str, done: int, total: int, note: str = "") -> None:
        """Set a bar."""
        tasks = self._tasks = {} if self._tasks is None else self._tasks
        if name not in tasks:
            tasks[name] = self.bars.add_task(name, total=total, note=note)
        self.bars.update(tasks[name], completed=done, total=total, note=note)

    def remove(self, name: str) -> None:
        """Take a bar away."""
        if self._tasks and name in self._tasks:
            self.bars.remove_task(self._tasks.pop(name))

    def say(self, sentence: str) -> None:
        """Tell a person something above the bars."""
        if self.bars.disable:
            self.console.say(sentence)
        else:
            self.bars.console.print(sentence, markup=False, highlight=False)


def hint_for(kind: str) -> str:
    """Return what to add to the sentence of an error of the class called `kind`: the option that helps, if one does."""
    return _HINTS.get(kind, "")


def failure_text(path: str, reason: str, kind: str) -> str:
    """Return what is said of a slide that failed while others go on; its path is named once."""
    where = "" if path in reason else f"{path}: "
    return f"Error: {where}{reason}{hint_for(kind)}"


def status_of_many(done: int, failed: int) -> int:
    """Return the exit status of a run over slides of which some may have failed."""
    if not failed:
        return OK
    return PARTLY if done else FAILED


def status_of_error(error: NucleiSegError | OSError, console: Console) -> int:
    """Tell what went wrong and return the exit status."""
    sentence = str(error)
    if isinstance(error, OSError):
        sentence = f"{error.filename}: {error.strerror}" if error.filename else (error.strerror or sentence)
    kind = type(error).__name__
    console.say(f"Error: {sentence}{hint_for(kind)}")
    console.result({"error": sentence, "kind": kind})
    return FAILED


def status_of_interruption(
    console: Console, sentence: str = "Interrupted. What is done is kept; the same command goes on from there."
) -> int:
    """Tell what becomes of work that was interrupted and return the exit status."""
    console.say(sentence)
    console.result({"error": sentence, "kind": KeyboardInterrupt.__name__})
    return INTERRUPTED


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").rstrip("%") or "0")
    except ValueError:
        return False
    return True
