"""`REPORT.md` from the stored results: a row for every goal, then each benchmark, with the figures of `plots.py`."""

from pathlib import Path

from benchmarks import plots
from benchmarks.catalogue import BENCHMARKS, GOALS
from benchmarks.results import FOLDER, before, load_all

PAGE = Path(__file__).parent / "REPORT.md"
HEAD = """# Report

Made by `python -m benchmarks report` from the files in `results/`; do not edit it. How it is measured:
[README.md](README.md). What does not fit a table, and accuracy: [RESULTS.md](RESULTS.md). "Before" is the figure of the
former run of the same benchmark.
"""


def write(folder=FOLDER, page=PAGE):
    """Write the page and draw its figures beside it; return the page's path and the figures', None where none drew."""
    found = load_all(folder)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text(found), encoding="utf-8")
    return page, plots.write(found, page.parent / plots.FOLDER.name)


def old(folder=FOLDER, page=PAGE):
    """Say what of the page and its figures is not what the results give, a sentence each."""
    found = load_all(folder)
    same = page.exists() and page.read_text(encoding="utf-8") == text(found)
    return [f"{page.name} is old"] * (not same) + plots.old(found, page.parent / plots.FOLDER.name)


def text(found):
    """The page of these results (dict by name of the benchmark), as Markdown."""
    parts = [HEAD, _goals(found), "## Benchmarks\n"]
    parts += [_section(one, found) for one in BENCHMARKS if one.name in found]
    missing = [f"`{one.name}`" for one in BENCHMARKS if one.name not in found and not one.by_hand]
    if missing:
        parts.append(f"Without a stored result: {', '.join(missing)}.\n")
    return "\n".join(parts)


# --------------------------------------------------------------------------- goals


def _goals(found):
    rows = [row for goal in GOALS for row in _rows_of(goal, found)]
    header = ("goal", "figure", "benchmark", "others", "wanted", "before", "now", "")
    wording = "\n".join(f"- **{goal.key}**: {goal.wanted} {goal.elsewhere}".rstrip() for goal in GOALS)
    drawn = "\n".join(line for plot in plots.of("") for line in plot.embedded(found))
    return "\n".join(["## Goals\n", f"{wording}\n", *([drawn] if drawn else []), _table(header, rows)])


def _rows_of(goal, found):
    """Rows of one goal: its figures, and a reason for each benchmark that has none."""
    rows = []
    for one in (one for one in BENCHMARKS if goal.key in one.goals):
        stored = found.get(one.name)
        figures = [figure for figure in stored["figures"] if figure["goal"] == goal.key] if stored else []
        rows += [_row(goal, one, stored, figure) for figure in figures]
        if not figures or stored["status"] != "finished":
            rows.append(
                (goal.key, "-", f"`{one.name}`", goal.anchor, "-", _former(goal, stored), "-", _why(one, stored))
            )
    return rows


def _row(goal, one, stored, figure):
    former = before(stored, figure["what"])
    was = former["shown"] if former else "-"
    anchor = figure["anchor"] or goal.anchor
    return (
        goal.key,
        figure["what"],
        f"`{one.name}`",
        anchor,
        figure["wanted"] or "-",
        was,
        figure["shown"],
        _judged(figure),
    )


def _judged(figure):
    if figure["met"] is None:
        return f"not measured: {figure['reason']}"
    return "met" if figure["met"] else "**missed**"


def _former(goal, stored):
    """Figures of the newest former run, for a goal that this run did not answer."""
    for run in reversed(stored["history"] if stored else []):
        figures = [figure for figure in run["figures"] if figure["goal"] == goal.key]
        if figures:
            return "; ".join(f"{figure['what']} {figure['shown']}" for figure in figures)
    return "-"


def _why(one, stored):
    if stored is None:
        return f"not measured yet: `python -m benchmarks run {one.name}`"
    if stored["status"] == "finished":
        return "not measured: these arguments leave it out"
    return f"{stored['status']}: {stored['message']}"


# --------------------------------------------------------------------------- benchmarks


def _section(one, found):
    """What was asked, how it was measured, and what came out."""
    stored = found[one.name]
    ending = "" if stored["status"] == "finished" else f" **{stored['status']}**: {stored['message']}."
    took = f", {stored['minutes']:.1f} min" if stored["minutes"] else ""
    made = f"{stored['date']}, commit {stored['commit'] or 'unknown'}{took}. {stored['machine']}."
    against = f" Beside: {one.peer}." if one.peer else ""
    lines = [
        f"### {one.name}",
        "",
        f"{one.question} {one.method}{against}",
        "",
        f"`{stored['command']}`; {made}{ending}",
        "",
        *(line for plot in plots.of(one.name) for line in plot.embedded(found)),
    ]
    for table in stored["tables"]:
        lines += [f"{table['title']}\n"] if table["title"] else []
        lines.append(_table(table["header"], table["rows"]))
    others = [
        (figure["what"], figure["wanted"] or "-", figure["shown"], _judged(figure)) for figure in stored["figures"]
    ]
    if others:
        lines.append(_table(("figure", "wanted", "value", ""), others))
    lines += [f"- {note}" for note in stored["notes"]] + [""] * bool(stored["notes"])
    spreads = [one["spread"] for one in stored["rounds"]]
    if spreads:
        discarded = sum(one["discarded"] for one in stored["rounds"])
        total = sum(one["rounds"] for one in stored["rounds"])
        lines.append(f"Spread of rounds: {max(spreads):.0%} at most; {discarded} of {total} rounds left out.\n")
    return "\n".join(lines)


def _table(header, rows):
    """A Markdown table."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]]) + "\n"
