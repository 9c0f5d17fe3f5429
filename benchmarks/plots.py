"""Figures of the report: which stored numbers each shows, and whether its file still shows them.

`drawing.py` draws them with matplotlib. Each file keeps a digest of the numbers that it was drawn from, so that one can
tell without matplotlib whether it is old.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.catalogue import GOALS

FOLDER = Path(__file__).parent / "figures"
NO_LIBRARY = (
    "matplotlib is not installed, so the figures stay as they are: pip install 'matplotlib>=3.9', which is the extra "
    "bench, then python -m benchmarks report"
)
DIGEST = re.compile(r"numbers sha256:([0-9a-f]{16})")
ANCHOR = re.compile(r"(TIAToolbox) ([\d.]+)")
YARDSTICK = "scipy.ndimage.label"


@dataclass(frozen=True)
class Plot:
    """One figure.

    Parameters
    ----------
    name : str
        Of its file, and of the function of `drawing` that draws it.
    benchmark : str
        In whose section of the page it stands; empty for the goals.
    title : str
        What it shows.
    numbers : callable
        Takes all stored results; returns what is drawn as plain data, empty where nothing is stored of it.
    sentence : callable
        Takes these numbers; returns what is read off the figure.
    """

    name: str
    benchmark: str
    title: str
    numbers: Callable
    sentence: Callable

    def embedded(self, found):
        """Lines of Markdown with the figure of these results; none where nothing is stored of it."""
        numbers = self.numbers(found)
        return [f"![{self.title}]({FOLDER.name}/{self.name}.svg)", "", self.sentence(numbers), ""] if numbers else []


def of(benchmark):
    """Figures of a benchmark's section; those of the goals for an empty name."""
    return [plot for plot in PLOTS if plot.benchmark == benchmark]


def write(found, folder=FOLDER):
    """Draw every figure of which something is stored, and remove the others; nothing without matplotlib.

    Returns
    -------
    list of Path or None
        The files; None without matplotlib.
    """
    try:
        from benchmarks import drawing
    except ImportError:
        return None
    paths = []
    for plot in PLOTS:
        path, numbers = folder / f"{plot.name}.svg", plot.numbers(found)
        if not numbers:
            path.unlink(missing_ok=True)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        drawing.save(plot, numbers, path, f"numbers sha256:{digest(plot, numbers)}")
        paths.append(path)
    return paths


def old(found, folder=FOLDER):
    """Say of each figure that does not show these results what is wrong, in a sentence; none needs matplotlib."""
    said = []
    for plot in PLOTS:
        path, numbers = folder / f"{plot.name}.svg", plot.numbers(found)
        if not numbers:
            continue
        if not path.exists():
            said.append(f"{folder.name}/{path.name} is missing")
            continue
        drawn = DIGEST.search(path.read_text(encoding="utf-8"))
        if drawn is None or drawn[1] != digest(plot, numbers):
            said.append(f"{folder.name}/{path.name} shows other numbers than the results")
    return said


def digest(plot, numbers):
    """What tells these numbers from others."""
    return hashlib.sha256(json.dumps([plot.name, numbers]).encode()).hexdigest()[:16]


# --------------------------------------------------------------------------- what is drawn


def better(value, wanted):
    """How many times better than wanted: 1 at the goal, infinite for nothing of what may be something.

    Parameters
    ----------
    value : float
        Measured.
    wanted : str
        "<= limit" or ">= limit".
    """
    sign, limit = wanted.split(" ")
    limit = float(limit.replace(",", ""))
    if limit <= 0:
        return float(value <= limit if sign == "<=" else value >= limit)
    if value <= 0:
        return math.inf if sign == "<=" else 0.0
    return limit / value if sign == "<=" else value / limit


def _goals(found):
    """Every figure with a goal, as (goal, figure, benchmark, times better than wanted, value, wanted, met)."""
    figures = [
        (goal.key, figure, name)
        for goal in GOALS
        for name, stored in found.items()
        for figure in stored["figures"]
        if figure["goal"] == goal.key
    ]
    rows = [
        [key, figure["what"], name, better(figure["value"], figure["wanted"]), figure["shown"], figure["wanted"],
         figure["met"]]
        for key, figure, name in figures
        if figure["value"] is not None
    ]  # fmt: skip
    return {"rows": rows, "unmeasured": len(figures) - len(rows)} if rows else {}


def _said_of_goals(numbers):
    rows, left = numbers["rows"], numbers["unmeasured"]
    met = sum(row[-1] for row in rows)
    others = f"; {left} figures that could not be measured here are left out" if left else ""
    return (
        f"How many times better than its goal each figure is: {met} of {len(rows)} meet it, and those that miss it "
        f"are red{others}. Arrows go beyond the scale."
    )


def _reading(found):
    """Per table of readers: title and (reader, MP per CPU second, times openslide-python, spread)."""
    panels = []
    for table in _tables(found.get("reading"), "reader", "MP per CPU s"):
        columns = [_column(table, name) for name in ("MP per CPU s", "x openslide", "spread")]
        rows = [[row[0], *(None if at is None else _number(row[at]) for at in columns)] for row in table["rows"]]
        panels.append({"title": table["title"], "rows": [row for row in rows if row[1] is not None]})
    return {"panels": panels} if panels else {}


def _peers(found):
    """Per size of slide: title and (engine, best and worst CPU ms per MP beside the stand-in, times ours)."""
    stored = found.get("peers")
    panels = []
    for table in _tables(stored, "engine", "beside the stand-in", "times ours"):
        cost, times = _column(table, "beside the stand-in"), _column(table, "times ours")
        rows = [[row[0], *_ends(row[cost]), _number(row[times])] for row in table["rows"]]
        panels.append({"title": table["title"], "rows": [row for row in rows if row[1] is not None]})
    return {"panels": panels} if panels else _peers_of_figures(stored)


def _peers_of_figures(stored):
    """The same of the figures alone, where no table is stored: ours in CPU ms per MP, others by how many times it."""
    figures = [figure for figure in stored["figures"] if figure["value"] is not None] if stored else []
    sides = {}
    for figure in figures:
        side, _, what = figure["what"].partition(": ")
        if what.startswith("ours beside"):
            sides[side] = figure["value"]
    panels = []
    for side, ours in sides.items():
        rows = [["napari-nucleiseg", ours, ours, 1.0]]
        for figure in figures:
            of_side, _, what = figure["what"].partition(": ")
            name, is_peer, _ = what.partition(", times ours")
            if of_side == side and is_peer:
                cost = round(ours * figure["value"], 1)
                rows.append([name, cost, cost, figure["value"]])
        panels.append({"title": side, "rows": rows})
    return {"panels": panels, "reckoned": True} if panels else {}


def _said_of_peers(numbers):
    ranged = any(row[1] != row[2] for panel in numbers["panels"] for row in panel["rows"])
    ends = "; the thin line ends at the worst round" if ranged else ""
    ends += "; others' are ours times their ratio" if numbers.get("reckoned") else ""
    return (
        "What each engine costs beside the same stand-in for a network, on the same slide and one core: shorter is "
        f"cheaper{ends}."
    )


def _postprocessing(found):
    """Yardsticks by decoder and by tool as (name, what, yardsticks); cost by density as (nuclei per mm2, ms per MP)."""
    stored = found.get("postprocessing")
    rows = [
        [row[0], "ours", _number(row[_column(table, "yardsticks")])]
        for table in _tables(stored, "decoder", "yardsticks")
        for row in table["rows"]
        if row[0] != YARDSTICK
    ]
    tools = [
        [row[0], row[_column(table, "what")], _number(row[_column(table, "yardsticks")])]
        for table in _tables(stored, "tool", "what", "yardsticks")
        for row in table["rows"]
    ]
    density = [
        [_number(row[0]), _number(row[_column(table, "cpu-ms/MP")])]
        for table in _tables(stored, "nuclei/mm2", "cpu-ms/MP")
        for row in table["rows"]
    ]
    # What a figure is held against, where the tool itself did not run beside ours.
    named = {tool for tool, _, _ in tools}
    for figure in stored["figures"] if stored else []:
        anchor = ANCHOR.fullmatch(figure["anchor"])
        if anchor and "yardsticks" in figure["what"] and anchor[1] not in named:
            with_outlines = ", with outlines" if "outlines" in figure["what"] else ""
            tools.append([anchor[1], f"measured before{with_outlines}", float(anchor[2])])
    return {"rows": [*rows, *tools], "density": density} if rows else {}


def _said_of_postprocessing(numbers):
    text = f"Cost of making nuclei of maps, in times what `{YARDSTICK}` takes on the same field: shorter is cheaper"
    if numbers["density"]:
        text += "; and our cost by how dense nuclei lie"
    return f"{text}."


def _memory(found):
    """Per slide: peak MiB and CPU seconds a tile; the limit of the peak."""
    stored = found.get("memory")
    rows = [
        [f"{row[0]} px", _number(row[_column(table, "peak")]), _number(row[_column(table, "cpu s a tile")])]
        for table in _tables(stored, "slide", "peak", "cpu s a tile")
        for row in table["rows"]
    ]
    limits = [
        _number(one["wanted"]) for one in (stored["figures"] if stored else []) if one["what"].startswith("peak memory")
    ]
    return {"rows": rows, "limit": limits[0] if limits else None} if rows else {}


def _planning(found):
    """Lines of what a tile costs by how many there are: name and (tiles, CPU ms)."""
    stored = found.get("planning")
    lines = []
    for table in _tables(stored, "tiles"):
        for start, name in (("a tile, cpu-ms", "planning and ledger"), ("each tile after it, cpu-ms", "`segment`")):
            if (column := _column(table, start)) is not None:
                lines.append([name, [[_number(row[0]), _number(row[column])] for row in table["rows"]]])
    return {"lines": lines} if lines else {}


LOOKS = {
    "minutes": "min",
    "memory": "MB",
    "given_back": "of it given back",
    "caches": "in caches",
    "held": "else",
    "files": "files",
    "threads": "threads",
    "layers": "layers",
    "stall": "99 % of gaps",
    "stroke": "stroke",
}


def _long_run(found):
    """By name of `LOOKS`: a value for each look, None where there was nothing to measure."""
    for table in _tables(found.get("long_run"), *LOOKS.values()):
        columns = {name: _column(table, start) for name, start in LOOKS.items()}
        return {name: [_number(row[column]) for row in table["rows"]] for name, column in columns.items()}
    return {}


def _tables(stored, first, *columns):
    """Tables of a stored result whose first column has this name and that have columns that begin like these."""
    return [
        table
        for table in (stored["tables"] if stored else [])
        if table["rows"] and table["header"][0] == first and all(_column(table, name) is not None for name in columns)
    ]


def _column(table, start):
    """Which column's name begins like this, or None."""
    return next((number for number, name in enumerate(table["header"]) if name.startswith(start)), None)


def _number(cell):
    """The first number in a cell, or None."""
    found = re.search(r"-?\d[\d,]*\.?\d*(?:[eE][+-]?\d+)?", str(cell))
    return float(found[0].replace(",", "")) if found else None


def _ends(cell):
    """Both ends of a cell like "30.1 to 31.2"; one number is both."""
    low, _, high = str(cell).partition(" to ")
    return _number(low), _number(high or low)


PLOTS = (
    Plot("goals", "", "Every figure beside its goal", _goals, _said_of_goals),
    Plot("reading", "reading", "Speed of readers", _reading,
         lambda _: "Megapixels that each reader gives for a second of CPU time: longer is faster."),
    Plot("peers", "peers", "Cost of engines beside the network", _peers, _said_of_peers),
    Plot("postprocessing", "postprocessing", "Cost of post-processing", _postprocessing, _said_of_postprocessing),
    Plot("memory", "memory", "Peak memory and cost of a tile by size of the slide", _memory,
         lambda _: "The same number of tiles spread over a slide of each size: bars of one length mean that size costs "
                   "nothing."),
    Plot("planning", "planning", "Cost of a tile by how many there are", _planning,
         lambda _: "CPU time of one tile beside its pixels and its network; level lines mean that the number of tiles "
                   "costs nothing."),
    Plot("long_run", "long_run", "Memory, threads and stalls over hours", _long_run,
         lambda _: "What was measured at each look, when nothing worked; the first quarter fills the caches."),
)  # fmt: skip
