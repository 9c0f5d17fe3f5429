"""Other tools' environments: made once from the versions pinned in `peers/`, cached in `.benchmarks/peers`.

Run ``python benchmarks/environments.py [tiatoolbox instanseg ...]`` to make them beforehand; without names all of
them. Nothing is installed into our own environment, and what cannot be installed is said, not raised.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parent / ".benchmarks" / "peers"
NAMES = tuple(sorted(path.stem for path in (HERE / "peers").glob("*.txt")))
# What `peers.py` runs; the others take part in `reading.py` and `postprocessing.py`.
ENGINES = ("cellpose", "instanseg", "monai", "tiatoolbox")
LIBRARIES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "VIPS_CONCURRENCY")
ONE_THREAD = dict.fromkeys(LIBRARIES, "1")
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class NotInstalledError(Exception):
    """A tool's environment could not be made, or nobody made it; the message says why."""


class PeerFailedError(Exception):
    """What ran in an environment ended with an error; the message has its last line."""


def made(name, folder=FOLDER):
    """The Python of a tool's environment, which is made where that was not done before.

    Parameters
    ----------
    name : str
        Of its list of packages in `peers/`, without ``.txt``.
    folder : Path
        Where environments are.

    Returns
    -------
    Path

    Raises
    ------
    NotInstalledError
        If a step failed; the next call begins anew.
    """
    home, pinned = _places(name, folder)
    if not _is_current(home, pinned):
        print(f"making the environment {home}", flush=True)
        _done(sys.executable, "-m", "venv", "--clear", home)
        _install(_python(home), pinned)
        (home / "installed").write_text(_key(pinned), encoding="utf-8")
    return _python(home)


def present(name, folder=FOLDER):
    """The Python of a tool's environment if it is there; else a `NotInstalledError` that says how to make it."""
    home, pinned = _places(name, folder)
    if not _is_current(home, pinned):
        old = "is of other versions" if (home / "installed").exists() else "is not there"
        raise NotInstalledError(f"its environment {old}: python benchmarks/environments.py {name}")
    return _python(home)


def is_present(name, folder=FOLDER):
    """Whether a tool's environment is there, with the versions that are pinned now."""
    return _is_current(*_places(name, folder))


def answer_of(name, script, *arguments, folder=FOLDER):
    """What a script of `peers/` prints last, which is JSON, run with one thread in a tool's environment.

    Parameters
    ----------
    name : str
        Of the environment.
    script : str
        File in `peers/`.
    *arguments : object
        For its command line.
    folder : Path
        Where environments are.

    Returns
    -------
    object
        Of JSON.

    Raises
    ------
    NotInstalledError
        If the environment is not there.
    PeerFailedError
        If the script ended with an error.
    """
    command = [present(name, folder), HERE / "peers" / script, *arguments]
    quiet = {**os.environ, **ONE_THREAD, "TQDM_DISABLE": "1"}
    answer = subprocess.run([*map(str, command)], env=quiet, capture_output=True, text=True, check=False)
    if answer.returncode:
        said = answer.stderr.strip().splitlines() or [f"it ended with {answer.returncode} without a word"]
        raise PeerFailedError(f"it failed: {said[-1]}")
    return json.loads(answer.stdout.strip().splitlines()[-1])


def _places(name, folder):
    return Path(folder).absolute() / name, HERE / "peers" / f"{name}.txt"


def _python(home):
    return home / ("Scripts" if os.name == "nt" else "bin") / "python"


def _key(pinned):
    """What an environment was made of: the version of Python and the list."""
    text = pinned.read_text(encoding="utf-8")
    return hashlib.sha256(f"{sys.version_info[:2]} {text}".encode()).hexdigest()


def _is_current(home, pinned):
    stamp = home / "installed"
    return stamp.exists() and stamp.read_text(encoding="utf-8") == _key(pinned)


def _install(python, pinned):
    """Install the list. Every package is in it: pip may choose nothing, so that no other torch comes along."""
    command = [python, "-m", "pip", "install", "--quiet", "--no-deps"]
    torch = [line for line in pinned.read_text(encoding="utf-8").splitlines() if line.startswith("torch==")]
    if torch:
        _install_torch(command, torch[0])
    _done(*command, "--requirement", pinned)


def _install_torch(command, torch):
    """Take torch's CPU build from pip's wheel folders if they hold one, else from PyTorch's index."""
    try:
        _done(*command, "--no-index", torch)
    except NotInstalledError:
        _done(*command, "--index-url", TORCH_CPU_INDEX, "--retries", "2", torch)


def _done(*command):
    step = [str(part) for part in command]
    answer = subprocess.run(step, capture_output=True, text=True, check=False)
    if answer.returncode:
        said = "\n".join((answer.stderr or answer.stdout).strip().splitlines()[-3:])
        raise NotInstalledError(f"'{' '.join(step)}' failed: {said}")


def make(names=NAMES, folder=FOLDER):
    """Make environments; say which could not be made, and return their names."""
    failed = []
    for name in names:
        try:
            made(name, folder)
        except NotInstalledError as error:
            failed.append(name)
            print(f"{name} could not be made: {error}", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default all")
    parser.add_argument("--environments", type=Path, default=FOLDER)
    wanted = parser.parse_args()
    unknown = set(wanted.names) - set(NAMES)
    if unknown:
        parser.error(f"there is no list of packages for {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    raise SystemExit(bool(make(wanted.names or NAMES, wanted.environments)))


if __name__ == "__main__":
    main()
