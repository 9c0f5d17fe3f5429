"""The summary of a folder of results: one HTML file with everything inside, for any browser and any mail."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from napari_nucleiseg.core.batch.unattended.database import DONE, FAILED, RunRow, SlideRow, read_run_database
from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.source import SOFTWARE
from napari_nucleiseg.core.exchange.whole_file import whole_file

NAME = "summary.html"
_GENERATOR = f'<meta name="generator" content="{SOFTWARE}">'
_NOTE = (
    "Research use only. Counts and measurements depend on the model, its threshold and the stain; look at the nuclei "
    "before you trust them."
)
_MARKS = {DONE: "done", FAILED: "failed", "running": "at work", "stopped": "stopped", "waiting": "waiting"}
_COLUMNS = ("", "Slide", "State", "Nuclei", "per mm²", "Tissue, mm²", "Median area, µm²", "Pixel, µm", "Tiles", "Time")
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1f23; --paper: #fff; --line: #d9dde2; --soft: #f4f6f8; --quiet: #5b6570;
  --good: #1a7f4b; --bad: #b42318; --bar: #3b76b8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #16191d; --line: #343a41; --soft: #1f2429;
  --quiet: #9aa4af; --good: #4ac083; --bad: #ff7a6b; --bar: #6ea8e5; } }
* { box-sizing: border-box; } body { margin: 0 auto; max-width: 1280px; padding: 24px; background: var(--paper);
  color: var(--ink); font: 14px/1.45 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 28px 0 8px; }
a { color: var(--bar); } .quiet { color: var(--quiet); } .good { color: var(--good); } .bad { color: var(--bad); }
.figures { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; }
.figure { background: var(--soft); border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px;
  min-width: 120px; }
.figure b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; } th, td { border-bottom: 1px solid var(--line); padding: 6px 8px;
  text-align: left; vertical-align: top; } th { position: sticky; top: 0; background: var(--paper); cursor: pointer;
  white-space: nowrap; } td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.number { text-align: right; } td img { display: block; width: 240px; max-width: 26vw; border-radius: 4px;
  border: 1px solid var(--line); } .wide { overflow-x: auto; } .notes { margin: 4px 0 0; padding-left: 18px; }
.bar { height: 6px; background: var(--bar); border-radius: 3px; margin-top: 4px; margin-left: auto; }
"""
# Sorts by the column whose head is clicked; numbers by their value, which `data-by` holds.
_SCRIPT = """
for (const head of document.querySelectorAll('table.sortable th')) head.addEventListener('click', () => {
  const table = head.closest('table'), place = [...head.parentNode.children].indexOf(head);
  const up = head.dataset.up !== '1'; head.dataset.up = up ? '1' : '0';
  const key = row => { const cell = row.children[place]; const by = cell.dataset.by;
    return by === undefined ? cell.innerText.toLowerCase() : Number(by); };
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => { const x = key(a), y = key(b); return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1); });
  rows.forEach(row => table.tBodies[0].appendChild(row));
});
"""


def require_own_page(folder: Path) -> None:
    """Make sure that the summary replaces nothing but one of an earlier run; to be asked before work begins.

    Parameters
    ----------
    folder : Path
        Of the results; it need not exist.

    Raises
    ------
    ExportError
        If something else has its name.
    """
    path = folder / NAME
    # Pages of former versions have only the sentence at their end.
    if path.exists() and not any(mark in _text(path) for mark in (_GENERATOR, _NOTE)):
        raise ExportError(
            f"{path} is there already and is no summary of an earlier run, so it is not replaced; choose another "
            "folder for the results (--out), or move that file away."
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def write_page(folder: Path) -> Path:
    """Write the summary of all slides and runs of a folder of results.

    Parameters
    ----------
    folder : Path
        Holds the run's database.

    Returns
    -------
    Path
        The HTML file; it appears as a whole.

    Raises
    ------
    StoreError
        If there is no database.
    ExportError
        If the file cannot be written.
    """
    slides, runs = read_run_database(folder)
    path = folder / NAME
    with whole_file(path) as file:
        # A name that is no UTF-8 is shown with marks in its place; links to such files are whole.
        file.write(render(folder, list(slides.values()), runs).encode("utf-8", "replace").decode())
    return path


def render(folder: Path, slides: Sequence[SlideRow], runs: Sequence[RunRow]) -> str:
    """Return the page as text.

    Parameters
    ----------
    folder : Path
        Of the results; its name is the title, and results in it are linked to.
    slides : sequence of SlideRow
        In the order they are shown.
    runs : sequence of RunRow
        Oldest first.
    """
    title, last = folder.name, runs[-1] if runs else None
    densest = max((_density(row) or 0.0 for row in slides), default=0.0)
    heads = "".join(f"<th{' class=number' * (number > 2)}>{name}</th>" for number, name in enumerate(_COLUMNS))
    body = "".join(_row(row, densest, folder) for row in slides)
    failures = [row for row in slides if row.state == FAILED]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}: nuclei</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{_GENERATOR}'
        f"<style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>{_when(last)}{_figures(slides)}"
        f"{_failures(failures)}"
        f'<h2>Slides</h2><p class="quiet">Left the slide, right the density of its nuclei (brightest where it is '
        "highest on that slide). Click a head to sort.</p>"
        f'<div class="wide"><table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
        f"{_runs(runs)}{_versions(last)}"
        f'<p class="quiet">{_NOTE}</p>'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _when(last: RunRow | None) -> str:
    if last is None:
        return '<p class="quiet">Not run yet.</p>'
    ended = "still at work" if last.ended is None else f"to {_clock(last.ended)}, {last.state}"
    model = last.versions.get("model", "")
    told = f"Last run {_clock(last.started)} {ended}; {last.engine or 'workers not known'}; model {model}"
    return f'<p class="quiet">{escape(told)}</p>'


def _figures(slides: Sequence[SlideRow]) -> str:
    done = [row for row in slides if row.state == DONE]
    failed = sum(row.state == FAILED for row in slides)
    tissue = sum(float(row.told.get("tissue_mm2") or 0.0) for row in done)
    nuclei = sum(row.nuclei for row in done)
    figures = [
        (f"{len(done)} of {len(slides)}", "slides done"),
        (str(failed), "failed"),
        (f"{nuclei:,}", "nuclei"),
        (f"{tissue:,.1f}", "mm² of tissue"),
        (f"{nuclei / tissue:,.0f}" if tissue else "–", "nuclei per mm²"),
    ]
    return f'<div class="figures">{"".join(_figure(value, name) for value, name in figures)}</div>'


def _figure(value: str, name: str) -> str:
    return f'<div class="figure"><b>{escape(value)}</b><span class="quiet">{escape(name)}</span></div>'


def _failures(failed: Sequence[SlideRow]) -> str:
    if not failed:
        return ""
    rows = "".join(f"<li><b>{escape(row.stem)}</b>: {escape(row.sentence)}</li>" for row in failed)
    return f'<h2 class="bad">Failed</h2><ul>{rows}</ul>'


def _row(row: SlideRow, densest: float, folder: Path) -> str:
    told, density = row.told, _density(row)
    width = 0 if not densest or density is None else round(100 * density / densest)
    bar = f'<div class="bar" style="width:{width}%"></div>' if width else ""
    mpp, area, tissue = (told.get(name) for name in ("mpp_y_um", "median_area_um2", "tissue_mm2"))
    tiles = f"{row.tiles_done:,} of {row.tiles:,}" if row.tiles else "–"
    skipped = f'<br><span class="bad">{row.tiles_skipped:,} left out</span>' if row.tiles_skipped else ""
    wall = row.seconds.get("wall")
    state = {DONE: "good", FAILED: "bad"}.get(row.state, "quiet")
    stage = f'<br><span class="quiet">{escape(row.stage)}</span>' if row.stage and row.state != FAILED else ""
    cells = (
        f"<td>{_picture(told.get('picture'))}</td>",
        f"<td>{_name(row, folder)}</td>",
        f'<td class="{state}">{_MARKS.get(row.state, row.state)}{stage}</td>',
        _number(row.nuclei, f"{row.nuclei:,}" if row.nuclei or row.state == DONE else "–", ""),
        _number(density, "–" if density is None else f"{density:,.0f}", bar),
        _number(tissue, "–" if tissue is None else f"{tissue:,.2f}", ""),
        _number(area, "–" if area is None else f"{area:.1f}", ""),
        _number(mpp, "–" if mpp is None else f"{mpp:.3f}", ""),
        _number(row.tiles_done, tiles, skipped),
        _number(wall, "–" if wall is None else _span(wall), _spent(row)),
    )
    return f"<tr>{''.join(cells)}</tr>"


def _number(by: float | None, shown: str, more: str) -> str:
    return f'<td class="number" data-by="{-1 if by is None else by}">{shown}{more}</td>'


def _name(row: SlideRow, folder: Path) -> str:
    facts = row.told.get("manifest") or {}
    shown = "".join(
        f'<br><span class="quiet">{escape(name)}: {escape(str(said))}</span>' for name, said in facts.items()
    )
    best = row.told.get("best_head")
    head = f'<br><span class="quiet">best head: {escape(best)}</span>' if best else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in row.notes[:5])
    more = f"<li>and {len(row.notes) - 5} more</li>" if len(row.notes) > 5 else ""
    told = f'<ul class="notes quiet">{notes}{more}</ul>' if notes else ""
    return f'<b title="{escape(row.path)}">{escape(row.stem)}</b>{shown}{head}{_links(row, folder)}{told}'


def _links(row: SlideRow, folder: Path) -> str:
    """Link to the results, as seen from the page, so that the folder can be moved."""
    inside = [Path(output) for output in row.outputs if Path(output).is_relative_to(folder)]
    links = (f'<a href="{_address(path.relative_to(folder))}">{escape(path.name)}</a>' for path in inside)
    return "".join(f"<br>{link}" for link in links)


def _address(path: Path) -> str:
    return quote(path.as_posix(), errors="surrogateescape")


def _picture(path: str | None) -> str:
    if not path:
        return ""
    try:
        data = Path(path).read_bytes()
    except OSError:
        return ""  # it was removed; the figures still stand
    return f'<img alt="slide and density of nuclei" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'


def _spent(row: SlideRow) -> str:
    parts = [f"{name} {_span(seconds)}" for name, seconds in row.seconds.items() if name != "wall" and seconds >= 0.05]
    return "".join(f'<br><span class="quiet">{escape(part)}</span>' for part in parts)


def _runs(runs: Sequence[RunRow]) -> str:
    rows = "".join(
        f"<tr><td>{run.run}</td><td>{_clock(run.started)}</td>"
        f"<td>{'' if run.ended is None else _span(run.ended - run.started)}</td>"
        f"<td>{escape(run.state)}</td><td>{escape(run.engine)}</td>"
        f"<td>{escape(run.versions.get('model', ''))}</td></tr>"
        for run in reversed(runs)
    )
    heads = "<tr><th>Run</th><th>Began</th><th>Took</th><th>Ended</th><th>Where</th><th>Model</th></tr>"
    return f'<h2>Runs</h2><div class="wide"><table><thead>{heads}</thead><tbody>{rows}</tbody></table></div>'


def _versions(last: RunRow | None) -> str:
    if last is None:
        return ""
    shown = ", ".join(f"{name} {value}" for name, value in last.versions.items() if name != "model")
    return f'<h2>Versions</h2><p class="quiet">{escape(shown)}</p>'


def _density(row: SlideRow) -> float | None:
    tissue = row.told.get("tissue_mm2")
    return row.nuclei / tissue if tissue and row.state == DONE else None


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
