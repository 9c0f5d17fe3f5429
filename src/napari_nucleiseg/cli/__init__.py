"""The same functions from a shell: ``napari-nucleiseg segment slide.svs --out results``.

This package parses and prints; every result comes from ``core``. Exit status: 0 all is well, 1 something the
sentence on stderr explains, 2 the command line cannot be understood, 3 some slides failed and the others are done, or a
model was taught and refused, 130 interrupted (the same command goes on where it was).
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from keyword import iskeyword
from types import ModuleType

import napari_nucleiseg
from napari_nucleiseg.cli.console import OK, Console, status_of_error, status_of_interruption
from napari_nucleiseg.cli.log import log_told
from napari_nucleiseg.core.errors import NucleiSegError

# One module a command, imported only when it is called, so that help is instant.
COMMANDS = {
    "open": "open a slide in napari",
    "segment": "find the nuclei of slides and pictures",
    "segment-stack": "find the nuclei of z-stacks in three dimensions",
    "batch": "work through whole cohorts: nuclei, tables, a summary",
    "measure": "measure shape, stain and neighbours of each nucleus",
    "export": "write the nuclei of a slide for other programs",
    "import": "take nuclei and regions from a file of another program",
    "plan": "set up a training by what the data and the machine are like",
    "train": "train a network on images with labels",
    "pretrain": "let a network learn from slides without labels",
    "finetune": "teach a model with what you corrected",
    "teach-stack": "teach a network for z-stacks with planes that you corrected",
    "teach-head": "teach one head of attention with what you painted",
    "like": "find all that is like a few marked nuclei",
    "by-text": "score nuclei by words, with a CLIP of yours",
    "cluster": "part a region into clusters without labels",
    "heads": "write what attention heads look at, rank them against nuclei",
    "features": "describe slides by what encoders make of them",
    "cohort": "learn from labelled slides which are which, and judge others",
    "evaluate": "score label images or a slide against a reference",
    "models": "list models and versions, show cards, accept licences",
    "check": "look whether the results of a slide are whole, and mend them",
    "doctor": "check this installation and say what to fix",
    "demo": "open napari on a sample slide",
}

_COORDINATES = re.compile(r"-\d+(,-?\d+)+")

EPILOG = """exit status:
  0  all is well
  1  something went wrong; the sentence on stderr says what and what to do
  2  the command line cannot be understood
  3  some slides failed, the others are done; of finetune, teach-stack, teach-head: the new model was refused
  130  interrupted; the same command goes on where it was
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after the program's name; default those of the process.
    """
    words = _joined(sys.argv[1:] if arguments is None else arguments)
    options = _parser(words).parse_args(words)
    console = Console(as_json=bool(getattr(options, "json", False)))
    try:
        with log_told(console, debug=options.debug):
            return int(_module(options.command).run(options, console))
    except KeyboardInterrupt:
        return status_of_interruption(console)
    except BrokenPipeError:
        # Whoever read the output has seen enough (``| head``); the interpreter must not flush into the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (NucleiSegError, OSError) as error:
        if options.debug:
            raise
        return status_of_error(error, console)


def _joined(words: Sequence[str]) -> list[str]:
    """Join ``--region`` and ``-100,-100,150,150``, which argparse would take for another option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and _COORDINATES.fullmatch(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _module(command: str) -> ModuleType:
    # No module may be called like a word of the language, or have a dash in its name.
    return importlib.import_module(f"{__name__}.{command.replace('-', '_')}{'_' * iskeyword(command)}")


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-nucleiseg",
        description=napari_nucleiseg.__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=napari_nucleiseg.__version__)
    parser.add_argument("--debug", action="store_true", help="show the log and where an error came from")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    called = next((word for word in words if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        command = subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
        )
        if name == called:
            _module(name).add_arguments(command)
    return parser
