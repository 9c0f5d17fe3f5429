"""Draws the figures of `plots.py` with matplotlib: one function a figure, all in one look, as small SVG files."""

import math
import re
from functools import partial
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.figure import Figure

FAMILY = "font-family: 'DejaVu Sans', sans-serif"
LONGEST = 64  # letters of a figure's name beside its row
OURS, OTHERS, MISSED = "#2f6f8f", "#b3bcc4", "#c0553f"
INK, FAINT, GRID = "#333a40", "#6f7a83", "#dfe3e6"
LOOK = {
    "svg.fonttype": "none",  # text as text: small, and found by a search in the page
    "svg.hashsalt": "napari-nucleiseg",  # the same names of clips on every run
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so the layout is the same everywhere
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "figure.facecolor": "white",
    "legend.frameon": False,
}
WIDTH = 10.0  # inches, of every figure
ROW = 0.27  # inches, of a bar
# Bars that differ by more than this many times are drawn on a logarithmic axis.
SPAN = 100
SETTLING = 0.25  # as in long_run.py: the part of the looks that does not count
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
BEYOND = 0.1, 100.0  # ends of the scale of the goals


def save(plot, numbers, path, description):
    """Draw a figure into an SVG file; `description` goes into its metadata."""
    with mpl.rc_context(LOOK):
        figure = DRAWN[plot.name](numbers)
        where = f"results/{plot.benchmark}.json" if plot.benchmark else "results/*.json"
        figure.text(1 - 0.1 / WIDTH, 0.06 / figure.get_figheight(), f"from {where}", ha="right", color=FAINT, size=7)
        # Neither date nor version: the same numbers give the same file.
        facts = {"Title": escape(plot.title), "Description": description, "Date": None, "Creator": None}
        figure.savefig(path, format="svg", metadata=facts)
    path.write_text(_small(path.read_text(encoding="utf-8")), encoding="utf-8")


def _small(svg):
    """The same picture in half the bytes: hundredths of a point are enough, and one family of letters is named once."""
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r' id="(?:text|line2d|patch|[xy]tick)_\d+"', "", svg)
    svg = (
        svg.replace(" text-anchor: start;", "")
        .replace(f" {FAMILY};", "")
        .replace('<style type="text/css">', f'<style type="text/css">text{{{FAMILY}}}')
    )
    return "\n".join(line.strip() for line in svg.splitlines()) + "\n"


def _axes(figure, left, top, width, height):
    """Axes at inches from the left and the top."""
    high = figure.get_figheight()
    return figure.add_axes((left / WIDTH, 1 - (top + height) / high, width / WIDTH, height / high))


def _room(names):
    """Inches left of bars that their names take."""
    return max(1.4, 0.2 + 0.075 * max(map(len, names)))


def _colour(name):
    """Ours stands out."""
    return OURS if name.startswith(("ours", "napari-nucleiseg")) else OTHERS


def _bars(axes, names, values, colours, told, *, label, title, limit=None):
    """Bars from the top down, each with what is told of it at its end; no axis of values, since each is written."""
    places = range(len(names))
    axes.barh(places, values, color=colours, height=0.68)
    axes.set_yticks(places, names, size=8.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, max([*values, limit or 0]) * 1.02)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label, size=8)
    axes.set_title(title)
    for place, (value, text) in enumerate(zip(values, told, strict=True)):
        axes.annotate(text, (value, place), (4, 0), textcoords="offset points", va="center", size=8)


# --------------------------------------------------------------------------- goals


def goals(numbers):
    """A row for each figure: its name, how many times better than wanted, its value, what is wanted and where from."""
    rows, pitch, top = numbers["rows"], 0.185, 0.62
    keys = [row[0] for row in rows]
    gaps = [0.5 * sum(keys[i] != keys[i - 1] for i in range(1, place + 1)) for place in range(len(rows))]
    places = [place + gap for place, gap in enumerate(gaps)]
    height = (places[-1] + 1) * pitch
    figure = Figure(figsize=(WIDTH, top + height + 0.55))
    axes = _axes(figure, 4.0, top, 3.1, height)
    low, high = BEYOND
    shares = [min(max(row[3], low), high) for row in rows]
    colours = [OURS if row[-1] else MISSED for row in rows]
    axes.set(xscale="log", xlim=(low, high), ylim=(places[-1] + 0.5, -0.5))
    for colour in (OURS, MISSED):
        # One broken line each: a path for every row would double the file.
        kept = [i for i, one in enumerate(colours) if one == colour]
        xs = [x for i in kept for x in (1, shares[i], math.nan)]
        axes.plot(xs, [y for i in kept for y in (places[i], places[i], math.nan)], color=colour, linewidth=1.6)
    axes.axvline(1, color=INK, linewidth=1)
    ends = (low, "<"), (high, ">")
    for marker in ("o", "<", ">"):
        kept = [i for i, share in enumerate(shares) if dict(ends).get(share, "o") == marker]
        if kept:
            axes.scatter([shares[i] for i in kept], [places[i] for i in kept], s=18, marker=marker, zorder=3,
                         color=[colours[i] for i in kept], clip_on=False)  # fmt: skip
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS], size=8)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("times better than wanted", size=8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    _goal_names(axes, rows, places)
    heading = partial(axes.annotate, xycoords="axes fraction", textcoords="offset points", size=8, color=FAINT)
    heading("met", (1 / 3, 1), (6, 6))
    heading("missed", (1 / 3, 1), (-6, 6), ha="right", color=MISSED)
    heading("now (wanted)", (1, 1), (12, 6))
    heading("benchmark", (1, 1), (140, 6))
    figure.text(0.1 / WIDTH, 1 - 0.27 / figure.get_figheight(), "Every figure beside its goal", size=10)
    return figure


def _goal_names(axes, rows, places):
    beside = partial(axes.annotate, xycoords=("axes fraction", "data"), textcoords="offset points", va="center", size=8)
    former = ""
    for (key, what, benchmark, _, shown, wanted, met), place in zip(rows, places, strict=True):
        if key != former:
            beside(key, (0, place), (-278, 0), weight="bold")
        former = key
        beside(what if len(what) <= LONGEST else f"{what[:LONGEST]}…", (0, place), (-8, 0), ha="right")
        wanted_short = wanted.replace("<=", "≤").replace(">=", "≥")
        beside(f"{shown} ({wanted_short})", (1, place), (12, 0), color=INK if met else MISSED)
        beside(benchmark, (1, place), (140, 0), color=FAINT)


# --------------------------------------------------------------------------- benchmarks


def _panelled(panels, draw, *, told):
    """Panels of bars below each other on one scale, each as high as its rows need; `told` inches right of the bars."""
    left = _room(row[0] for panel in panels for row in panel["rows"])
    heights = [ROW * len(panel["rows"]) for panel in panels]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.85 * len(panels) + 0.1))
    top = 0.4
    for panel, height in zip(panels, heights, strict=True):
        draw(_axes(figure, left, top, WIDTH - left - told, height), panel)
        top += height + 0.85
    longest = max(axes.get_xlim()[1] for axes in figure.axes)
    for axes in figure.axes:
        axes.set_xlim(0, longest)
    return figure


def reading(numbers):
    """Bars by reader, a panel for each way of reading."""

    def panel(axes, one):
        names, values, times, spreads = zip(*one["rows"], strict=True)
        told = [
            f"{value:.0f}{'' if many is None else f' ({many:.1f} x openslide)'}"
            f"{'' if spread is None else f', spread {spread:.0f} %'}"
            for value, many, spread in zip(values, times, spreads, strict=True)
        ]
        _bars(axes, names, values, [*map(_colour, names)], told, label="MP per CPU second", title=one["title"])

    return _panelled(numbers["panels"], panel, told=2.4)


def peers(numbers):
    """Bars by engine, a panel for each size of slide; thin lines up to the worst round."""

    def panel(axes, one):
        names, best, worst, times = zip(*one["rows"], strict=True)
        told = [
            f"{low:,.1f}{f' to {high:,.1f}' if high > low else ''}"
            f"{'' if many in {None, 1} else f' ({many:.1f} x ours)'}"
            for low, high, many in zip(best, worst, times, strict=True)
        ]
        _bars(axes, names, worst, "none", told, label="CPU ms per megapixel beside the network", title=one["title"])
        axes.barh(range(len(names)), best, color=[*map(_colour, names)], height=0.68)
        axes.hlines(range(len(names)), best, worst, color=INK, linewidth=1)

    return _panelled(numbers["panels"], panel, told=2.0)


def postprocessing(numbers):
    """Bars in yardsticks by decoder and tool; beside them our cost by density."""
    rows, density = numbers["rows"], numbers["density"]
    height = max(ROW * len(rows), 1.6)
    figure = Figure(figsize=(WIDTH, height + 1.0))
    names = [f"ours: {name}" if what == "ours" else f"{name}, {what}" for name, what, _ in rows]
    values = [value for *_, value in rows]
    colours = [OURS if what == "ours" else OTHERS for _, what, _ in rows]
    left, right = _room(names), 3.6 if density else 0.7
    axes = _axes(figure, left, 0.4, WIDTH - left - right, height)
    _bars(axes, names, values, colours, [f"{value:.1f}" for value in values],
          label="times scipy.ndimage.label", title="In yardsticks")  # fmt: skip
    if max(values) > SPAN * min(values):
        axes.set(xscale="log", xlim=(1, 1.3 * max(values)), xlabel="times scipy.ndimage.label (logarithmic)")
        axes.xaxis.set_major_formatter("{x:,.0f}")
    if density:
        axes = _axes(figure, WIDTH - 2.5, 0.4, 2.2, height)
        _line(axes, *zip(*density, strict=True), OURS)
        axes.set(ylim=(0, None), xlim=(0, None), title="Our cost by density")
        axes.set_xlabel("nuclei per mm²", size=8)
        axes.set_ylabel("CPU ms per megapixel", size=8)
        axes.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def memory(numbers):
    """Peak memory and cost of a tile by size of the slide."""
    names, peaks, costs = zip(*numbers["rows"], strict=True)
    height = max(ROW * len(names), 0.6)
    figure = Figure(figsize=(WIDTH, height + 0.95))
    axes = _axes(figure, 1.4, 0.4, 4.0, height)
    limit = numbers["limit"]
    _bars(axes, names, peaks, [OURS] * len(names), [f"{peak:,.0f}" for peak in peaks],
          label="MiB", title="Peak memory", limit=limit)  # fmt: skip
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if limit:
        axes.axvline(limit, color=INK, linewidth=1)
        axes.annotate(f"at most {limit:,.0f}", (limit, 1), (-3, 4), xycoords=("data", "axes fraction"),
                      textcoords="offset points", ha="right", size=8)  # fmt: skip
    axes = _axes(figure, 6.2, 0.4, 2.8, height)
    told = [f"{cost:.3f}" for cost in costs]
    _bars(axes, [""] * len(names), costs, [OURS] * len(names), told, label="CPU s", title="A tile with its network")
    return figure


def planning(numbers):
    """Lines of a tile's cost by how many tiles there are."""
    figure = Figure(figsize=(WIDTH, 2.6))
    axes = _axes(figure, 0.9, 0.4, 6.6, 1.6)
    for name, line in numbers["lines"]:
        tiles, costs = zip(*line, strict=True)
        _line(axes, tiles, costs, OURS)
        for end in (0, -1):
            axes.annotate(f"{costs[end]:.3f}", (tiles[end], costs[end]), (0, 6), textcoords="offset points",
                          ha="center", size=8)  # fmt: skip
        axes.annotate(name.replace("`", ""), (tiles[-1], costs[-1]), (20, 0), textcoords="offset points", va="center")
    axes.set(xscale="log", ylim=(0, None), title="A tile, its pixels and its network left out")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.15)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xticks([], minor=True)
    axes.set_xlabel("tiles of the slide", size=8)
    axes.set_ylabel("CPU ms", size=8)
    return figure


def long_run(numbers):
    """Memory, what is counted, stalls and strokes over the minutes, below each other."""
    minutes = numbers["minutes"]
    figure = Figure(figsize=(WIDTH, 7.2))
    places = (0.4, 1.9), (2.85, 1.1), (4.5, 0.7), (5.75, 0.7)
    panels = [_axes(figure, 0.9, top, 7.2, height) for top, height in places]
    for axes in panels:
        axes.set_xlim(0, max(minutes))
        axes.axvspan(0, SETTLING * max(minutes), color=GRID, alpha=0.5, linewidth=0)
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.tick_params(labelsize=8)
    panels[0].annotate("shaded: caches fill, not counted", (1, 1), (0, 6), xycoords="axes fraction",
                       textcoords="offset points", ha="right", size=8, color=FAINT)  # fmt: skip
    parts = (
        ("held", "all else", OURS),
        ("caches", "bounded caches", "#8fb3c4"),
        ("given_back", "kept for the next forward", OTHERS),
    )
    panels[0].stackplot(minutes, *(numbers[name] for name, _, _ in parts), colors=[colour for *_, colour in parts])
    heights = [numbers[name][-1] for name, _, _ in parts]
    _at_the_end(panels[0], [sum(heights[:i]) + high / 2 for i, high in enumerate(heights)], [one[1] for one in parts])
    panels[0].set(title="Memory, MB")
    counted = ("files", "threads", "layers")
    for name in counted:
        _line(panels[1], minutes, numbers[name], OURS)
    panels[1].set_ylim(0, None)
    lasts = [numbers[name][-1] for name in counted]
    _at_the_end(panels[1], lasts, [f"{name}: {last:.0f}" for name, last in zip(counted, lasts, strict=True)])
    panels[1].set(title="Open files, threads and layers")
    for axes, name, title in ((panels[2], "stall", "99 % of gaps of a 10 ms timer are below, ms"),
                              (panels[3], "stroke", "Stroke until it is kept, median ms")):  # fmt: skip
        known = [(at, value) for at, value in zip(minutes, numbers[name], strict=True) if value is not None]
        if known:
            _line(axes, *zip(*known, strict=True), OURS)
        axes.set(title=title, ylim=(0, None))
    panels[3].set_xlabel("minutes", size=8)
    return figure


def _line(axes, xs, ys, colour):
    axes.plot(xs, ys, color=colour, linewidth=1.4, marker="o", markersize=3.5, clip_on=False)
    axes.tick_params(labelsize=8)


def _at_the_end(axes, values, texts):
    """Labels right of the last points, from the lowest up, each at least a line above the one below it."""
    line = 0.17 * axes.get_ylim()[1] / (axes.get_position().height * axes.figure.get_figheight())
    free = -math.inf
    for value, text in sorted(zip(values, texts, strict=True)):
        free = max(value, free)
        axes.annotate(text, (1, free), (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                      va="center", size=8)  # fmt: skip
        free += line


DRAWN = {one.__name__: one for one in (goals, reading, peers, postprocessing, memory, planning, long_run)}
