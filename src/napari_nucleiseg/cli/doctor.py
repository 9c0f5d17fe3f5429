"""``napari-nucleiseg doctor``: check this installation and say what to fix."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from napari_nucleiseg.cli.console import FAILED, OK, Console
from napari_nucleiseg.cli.diagnosis import BAD, diagnose

_MARKS = {"ok": "ok", "warning": "note", "error": "FIX"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(_options: argparse.Namespace, console: Console) -> int:
    """Print all findings; fail if one of them stops the program from working."""
    with console.progress() as bars:
        checks = []
        for check in diagnose():
            checks.append(check)
            bars.update("looking", len(checks), len(checks) + 1, check.name)
    console.table(
        "", ("", "what", "found", "what to do"), [(_MARKS[c.status], c.name, c.found, c.remedy) for c in checks]
    )
    broken = sum(check.status == BAD for check in checks)
    console.text("All is well." if not broken else f"{broken} to fix.")
    console.result({"ok": not broken, "checks": [asdict(check) for check in checks]})
    return FAILED if broken else OK
