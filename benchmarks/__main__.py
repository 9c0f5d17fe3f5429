"""The command: list benchmarks, run some, run all that need nobody, and make the report of what was stored."""

import argparse
import sys
from pathlib import Path

from benchmarks import plots, report
from benchmarks.catalogue import BENCHMARKS, benchmark
from benchmarks.results import FOLDER, load_all
from benchmarks.running import lacking, run_all, run_one


def main(words=None):
    """Do what the command line says; return the exit status."""
    words = list(sys.argv[1:] if words is None else words)
    words, own = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, None)
    wanted = _parser().parse_args(words)
    return wanted.do(wanted, own)


def _parser():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, do, told in (
        ("list", _list, "what there is, what it answers and needs"),
        ("run", _run, "run some; arguments after -- go to the script"),
        ("all", _all, "run all that need nobody, one after the other"),
        ("report", _report, "write REPORT.md and draw its figures from the stored results"),
    ):
        command = commands.add_parser(name, help=told, description=told)
        command.set_defaults(do=do)
        command.add_argument("--results", type=Path, default=FOLDER, help="folder of the stored results")
        if name == "run":
            command.add_argument("names", nargs="+", metavar="NAME", choices=[one.name for one in BENCHMARKS])
        if name == "all":
            command.add_argument("--resume", action="store_true", help="go on where the last run ended")
            command.add_argument("--minutes", type=float, default=60, help="begin nothing that ends later than this")
            command.add_argument("--with-peers", action="store_true", help="make environments of other tools (8 GB)")
        if name == "report":
            command.add_argument("--check", action="store_true", help="only say whether both are what results give")
    return parser


def _list(wanted, _):
    stored = load_all(wanted.results)
    for one in BENCHMARKS:
        kind = "by hand" if one.by_hand else f"{one.minutes:g} min"
        facts = ", ".join([kind, *one.goals, *(f"needs {need}" for need in one.needs)])
        last = f"; last {stored[one.name]['date']}, {stored[one.name]['status']}" if one.name in stored else ""
        print(f"{one.name:20}{one.question} ({facts}{last})")
    return 0


def _run(wanted, own):
    good = True
    for one in map(benchmark, wanted.names):
        missing = lacking(one, with_peers=True)
        if missing:
            print(f"{one.name} skipped: {missing}")
            good = False
            continue
        found = run_one(one, own, folder=wanted.results)
        print(f"{one.name} {found['status']} after {found['minutes']:.1f} min {found['message']}".rstrip())
        good &= found["status"] == "finished"
    _report_of(wanted.results)
    return 0 if good else 1


def _all(wanted, _):
    unattended = [one for one in BENCHMARKS if not one.by_hand]
    outcomes = run_all(
        unattended,
        resume=wanted.resume,
        with_peers=wanted.with_peers,
        budget_minutes=wanted.minutes,
        folder=wanted.results,
    )
    print("\n" + "\n".join(f"{name:20}{outcome}" for name, outcome in outcomes))
    _report_of(wanted.results)
    return 0 if all(outcome in {"finished", "skipped"} for _, outcome in outcomes) else 1


def _report(wanted, _):
    if wanted.check:
        wrong = report.old(wanted.results, _page_of(wanted.results))
        what = "REPORT.md and its figures are what the results give"
        print("\n".join([*wrong, "python -m benchmarks report makes them anew"]) if wrong else what)
        return 1 if wrong else 0
    _report_of(wanted.results)
    return 0


def _report_of(folder):
    """Write the page and its figures beside the results: REPORT.md of the repository for its own."""
    page, figures = report.write(folder, _page_of(folder))
    print(f"wrote {page}")
    print(plots.NO_LIBRARY if figures is None else f"drew {len(figures)} figures")


def _page_of(folder):
    return report.PAGE if folder == FOLDER else folder / "REPORT.md"


if __name__ == "__main__":
    raise SystemExit(main())
