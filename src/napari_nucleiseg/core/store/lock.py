"""One writer per project: a lock file that names its holder and can be taken over when the holder is gone."""

from __future__ import annotations

import getpass
import json
import os
import platform
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

import psutil

from napari_nucleiseg.core.errors import StoreError

BEAT_S = 30.0
SILENT_S = 600.0
# When a process began is known to a second or so.
BEGAN_AFTER_S = 5.0

# Tokens of the locks that this process holds.
_HELD: set[str] = set()

_OUTSIDE = "pid:[4026531836]"  # the number that Linux gives the processes of the machine itself


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock.

    Parameters
    ----------
    user, host : str
        Their name and that of their machine.
    pid : int
        Number of the process.
    since : float
        When it took the lock, seconds since 1970.
    token : str
        Tells two holders in one process apart.
    container : str
        Where processes are numbered apart from those of the machine; empty outside of containers.
    """

    user: str
    host: str
    pid: int
    since: float
    token: str
    container: str = ""

    @property
    def is_here(self) -> bool:
        """Whether the process is, or was, one of those that are seen from this one."""
        return self.host == platform.node() and self.container == container_name()

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.since).astimezone().strftime("%Y-%m-%d %H:%M")
        return f"{self.user} on {self.host} (process {self.pid}, since {when})"


class WriterLock:
    """The right to change a project, held from construction to `release`.

    Parameters
    ----------
    path : Path
        The lock file.
    take_over : bool
        Take the lock even from a holder that seems alive; that one can write no more.

    Raises
    ------
    StoreError
        If somebody else holds it; the sentence names them.
    """

    def __init__(self, path: Path, *, take_over: bool = False) -> None:
        self.path = path
        now, token = time.time(), uuid.uuid4().hex
        self.holder = Holder(user_name(), platform.node(), os.getpid(), now, token, container_name())
        # Before the file is there: another thread must not think that a process left it that has ended.
        _HELD.add(token)
        try:
            self._acquire(take_over=take_over)
        except BaseException:
            _HELD.discard(token)
            raise
        self._released = threading.Event()
        # The file's age tells other machines that this one is alive; a thread, because an idle window writes nothing.
        threading.Thread(target=self._beat, name="project-lock", daemon=True).start()

    def check(self) -> None:
        """Make sure that the lock is still ours.

        Raises
        ------
        StoreError
            If it was taken over.
        """
        now = read_holder(self.path)
        if now is None or now.token != self.holder.token:
            who = f"was taken over by {now}" if now else "was removed"
            raise StoreError(
                f"The lock of {self.path.parent} {who}, so nothing more is written from here. "
                "What was finished is kept; open the slide again to go on."
            )

    def release(self) -> None:
        """Let others write."""
        self._released.set()
        now = read_holder(self.path)
        if now is not None and now.token == self.holder.token:
            self.path.unlink(missing_ok=True)
        _HELD.discard(self.holder.token)

    def _acquire(self, *, take_over: bool) -> None:
        for _ in range(3):
            if self._create():
                return
            other = read_holder(self.path)
            if other is None:
                # Being written this very moment, or damaged: an old one counts as abandoned.
                if age_s(self.path) < 5:
                    time.sleep(0.1)
                    continue
            elif not take_over and not is_stale(self.path, other):
                raise StoreError(
                    f"{self.path.parent} is in use by {other}. Close it there, "
                    "open it here for reading only, or take it over if that program is no longer running."
                )
            self._set_aside(other)
        raise StoreError(f"The lock {self.path} cannot be taken. Try again in a moment.")

    def _create(self) -> bool:
        """Make the lock file unless there is one; it appears with its content, so that no kill leaves it empty."""
        made = self._beside()
        try:
            made.write_text(self._text(), encoding="utf-8")
            try:
                os.link(made, self.path)
            except FileExistsError:
                return False
            except OSError:
                return self._create_without_link()
        finally:
            made.unlink(missing_ok=True)
        self._tidy()
        return True

    def _create_without_link(self) -> bool:
        """Make the lock file where the file system knows no links: exFAT, some network drives."""
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(self._text())
        return True

    def _text(self) -> str:
        """Return what stands in the lock file; former versions read it as well, but for a container's."""
        said = asdict(self.holder)
        if not self.holder.container:
            del said["container"]
        return json.dumps(said)

    def _beside(self) -> Path:
        return self.path.with_name(f"{self.path.name}.{self.holder.token}")

    def _tidy(self) -> None:
        """Remove what those left that were killed while they took the lock."""
        for left in self.path.parent.glob(f"{self.path.name}.*"):
            if age_s(left) > SILENT_S:
                left.unlink(missing_ok=True)

    def _set_aside(self, expected: Holder | None) -> None:
        """Remove a stale lock; if somebody renewed it meanwhile, theirs is put back."""
        aside = self._beside()
        try:
            self.path.replace(aside)
        except FileNotFoundError:
            return
        if read_holder(aside) != expected and not self.path.exists():
            aside.replace(self.path)
        else:
            aside.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            try:
                now = read_holder(self.path)
                if now is None or now.token != self.holder.token:
                    return
                os.utime(self.path)
            except OSError:
                # The drive may come back; whoever writes meanwhile gets the sentence from `check`.
                continue


def read_holder(path: Path) -> Holder | None:
    """Return who holds a lock file; None if there is none or it cannot be understood."""
    try:
        said = dict(json.loads(path.read_text(encoding="utf-8")))
        return Holder(**{field.name: said[field.name] for field in fields(Holder) if field.name in said})
    except (FileNotFoundError, ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Occupant:
    """The holder of a lock as seen from here.

    Parameters
    ----------
    holder : Holder
        Who it is.
    is_here : bool
        Whether it runs (or ran) on this machine, and in the same container if in any.
    is_own : bool
        Whether it is this very process: another window of the same program.
    is_gone : bool
        Whether it has ended, or was silent for long on another machine.
    silent_s : float
        Seconds since its last sign of life.
    """

    holder: Holder
    is_here: bool
    is_own: bool
    is_gone: bool
    silent_s: float


def read_occupant(path: Path) -> Occupant | None:
    """Return who holds a lock file and whether that one is still there; None if nobody holds it."""
    holder = read_holder(path)
    if holder is None:
        return None
    gone = is_stale(path, holder)
    own = holder.is_here and holder.pid == os.getpid() and not gone
    return Occupant(holder, holder.is_here, own, gone, age_s(path))


def is_stale(path: Path, holder: Holder) -> bool:
    """Whether the holder is gone: its process ended (this machine) or it was silent for long (another machine).

    A process that has only the number of one that ended is another: this one knows which locks it holds itself. A
    container counts as another machine.
    """
    if not holder.is_here:
        return age_s(path) > SILENT_S
    if holder.pid == os.getpid():
        return holder.token not in _HELD
    if not process_runs(holder.pid):
        return True
    # Who holds a lock shows it again and again, also after the clock was set.
    last_seen = max(holder.since, time.time() - age_s(path))
    return began(holder.pid) > last_seen + BEGAN_AFTER_S


def began(pid: int) -> float:
    """Return when a process of this machine began, seconds since 1970; 0 if that cannot be known."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def container_name() -> str:
    """Return what tells the container apart that this process runs in; empty outside of one."""
    try:
        name = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        return ""  # no Linux
    return "" if name == _OUTSIDE else name


def age_s(path: Path) -> float:
    """Return the seconds since a file was touched; 0 if it is gone."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def process_runs(pid: int) -> bool:
    """Whether a process of this machine exists."""
    if sys.platform == "win32":
        import ctypes

        query_limited_information, still_active = 0x1000, 259
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(query_limited_information, False, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == still_active
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def user_name() -> str:
    """Return who uses this machine."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "an unknown user"
