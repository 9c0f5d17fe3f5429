"""Readers of other tools as candidates beside ours: each in a process of its own environment, asked in turn."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np

from environments import FOLDER, HERE, ONE_THREAD, NotInstalledError, present
from measuring import Spent

READERS = {"tiffslide": "tiffslide", "pyvips": "pyvips", "cucim": "cuCIM"}
ENVIRONMENT = "readers"


class ReaderLostError(Exception):
    """A reader's process ended; the message has the last that it said."""


class OtherReader:
    """One reader of another tool, waiting in its process.

    Parameters
    ----------
    name : str
        Of `READERS`.
    slide : Path
        That it opens.
    folder : Path
        Where environments are.

    Raises
    ------
    NotInstalledError
        If its environment is not there.
    """

    def __init__(self, name, slide, folder=FOLDER):
        self.scratch = Path(slide).parent
        self.said = self.scratch / f"{name}.log"
        command = [str(present(ENVIRONMENT, folder)), str(HERE / "peers" / "readers.py"), name, str(slide)]
        with self.said.open("w") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, **ONE_THREAD}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True,
            )  # fmt: skip

    def timed(self, corners, side):
        """What reading squares cost the process, as `measuring.in_turn` takes it."""
        return Spent(**self._answer(corners=corners, side=side))

    def pixels(self, y, x, side):
        """One square as it reads it, uint8 (y, x, 3)."""
        into = self.scratch / "pixels.npy"
        self._answer(corner=(int(y), int(x)), side=side, into=str(into))
        return np.load(into)

    def _answer(self, **asked):
        try:
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (OSError, json.JSONDecodeError) as error:
            lines = self.said.read_text(errors="replace").strip().splitlines()
            raise ReaderLostError(f"it failed: {lines[-1] if lines else 'no word'}") from error

    def close(self):
        """End its process."""
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:  # what was asked of a lost process is still in the pipe
                continue
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def others(slide, folder=FOLDER):
    """Open every reader that is there.

    Returns
    -------
    dict of str to OtherReader
        By title; to be closed.
    dict of str to str
        Why the others are not there, by title.
    """
    found, missing = {}, {}
    for name, title in READERS.items():
        try:
            reader = OtherReader(name, slide, folder)
        except NotInstalledError as error:
            missing[title] = str(error)
            continue
        try:
            reader.pixels(0, 0, 256)
            found[title] = reader
        except ReaderLostError as error:
            reader.close()
            missing[title] = str(error)
    return found, missing
