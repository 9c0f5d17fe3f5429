"""The figures of the benchmarks' report: the numbers they show, and that an old one is found without matplotlib."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The benchmarks are no part of the package that is installed.
sys.path.insert(0, str(ROOT))

from benchmarks import plots, report, results  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.catalogue import BENCHMARKS  # noqa: E402

MOST_BYTES = 60_000


def figure(
    what: str, value: float | None, wanted: str, *, met: bool, goal: str = "", anchor: str = ""
) -> dict[str, Any]:
    return {
        "goal": goal, "what": what, "value": value, "shown": f"{value}", "wanted": wanted, "met": met,
        "anchor": anchor, "reason": "it is not there",
    }  # fmt: skip


def table(title: str, header: list[str], *rows: list[Any]) -> dict[str, Any]:
    return {"title": title, "header": header, "rows": list(rows)}


LOOKS = [
    "min", "MB", "of it given back", "in caches", "else", "files", "threads", "layers", "objects",
    "99 % of gaps below, ms", "stroke kept, ms (strokes)",
]  # fmt: skip
RECORDS: dict[str, dict[str, list[Any]]] = {
    "reading": {
        "figures": [
            figure("aligned, times openslide", 5.0, ">= 4.00", met=True, goal="G3"),
            figure("difference of a pixel", 0.0, "<= 0", met=True, goal="G3"),
            figure("times cuCIM", None, "", met=False, goal="G3"),
        ],
        "tables": [
            table("aligned", ["reader", "MP per CPU s", "x openslide", "spread"], ["openslide", "50.0", "1.00", "2%"],
                  ["ours", "250.5", "5.01", "-"], ["gone", "-", "-", "-"]),
        ],
    },
    "peers": {
        "figures": [
            figure("4096 px: ours beside the stand-in, cpu-ms/MP", 30.0, "<= 20.0", met=False, goal="G2"),
            figure("4096 px: cellpose, times ours", 2.0, ">= 6.0", met=False, goal="G2"),
        ],
        "tables": [],
    },
    "postprocessing": {
        "figures": [
            figure("offsets decoder, in yardsticks", 2.5, "<= 3.5", met=True, goal="G4", anchor="TIAToolbox 28"),
            figure("nuclei matched", 0.99, ">= 0.921", met=True, goal="G4", anchor="TIAToolbox found 0.921"),
        ],
        "tables": [
            table("field", ["decoder", "MP/cpu-s", "yardsticks"], ["offsets", "160", "2.6"],
                  ["scipy.ndimage.label", "400", "1.0"]),
            table("density", ["nuclei/mm2", "nuclei owned", "cpu-ms/MP"], ["500", "106", "5.6"], ["8,000", "9", "8.1"]),
        ],
    },
    "memory": {
        "figures": [figure("peak memory of the large slide, MiB", 1200.0, "<= 2048", met=True, goal="G6")],
        "tables": [
            table("peak", ["slide", "peak, MiB", "cpu s a tile"], ["8,000²", "1146", "0.363"],
                  ["100,000²", "1,195", "0.372"]),
        ],
    },
    "planning": {
        "figures": [],
        "tables": [
            table("parts", ["tiles", "a tile, cpu-ms"], ["1,024", "0.338"], ["1,000,000", "0.335"]),
            table("all", ["tiles", "to the first", "each tile after it, cpu-ms"], ["1,024", "0.1", "0.8"]),
        ],
    },
    "long_run": {
        "figures": [],
        "tables": [
            table("", LOOKS, ["5.0", "1000", "100", "50", "850", "40", "39", "6", "1,234", "-", "30 (4)"],
                  ["10.0", "1010", "0", "60", "950", "40", "39", "6", "1,240", "44", "-"]),
        ],
    },
}  # fmt: skip


def stored(folder: Path, *names: str) -> dict[str, Any]:
    for name in names or RECORDS:
        record = {**RECORDS[name], "status": "finished", "message": ""}
        results.store(results.result(name, record, command=f"python benchmarks/{name}.py", minutes=1.0), folder)
    return results.load_all(folder)


def numbers(name: str, found: dict[str, Any]) -> dict[str, Any]:
    (plot,) = (one for one in plots.PLOTS if one.name == name)
    drawn: dict[str, Any] = plot.numbers(found)
    return drawn


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "benchmarks.drawing", raising=False)
    monkeypatch.delattr("benchmarks.drawing", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.mark.parametrize(
    ("value", "wanted", "times"),
    [
        (2.0, ">= 4.0", 0.5), (5.0, "<= 10,000", 2000.0), (0.002, "<= 1.0e-03", 0.5), (0.0, "<= 0", 1.0),
        (3.0, "<= 0", 0.0), (0.0, "<= 1", math.inf), (-266.0, "<= 50", math.inf), (0.0, ">= 0.9", 0.0),
    ],
)  # fmt: skip
def test_how_many_times_better_than_wanted(value: float, wanted: str, times: float) -> None:
    assert plots.better(value, wanted) == pytest.approx(times)


def test_goals_are_in_their_order_and_what_was_not_measured_is_counted(tmp_path: Path) -> None:
    drawn = numbers("goals", stored(tmp_path))
    assert [(row[0], row[2], row[-1]) for row in drawn["rows"]] == [
        ("G2", "peers", False), ("G2", "peers", False), ("G3", "reading", True), ("G3", "reading", True),
        ("G4", "postprocessing", True), ("G4", "postprocessing", True), ("G6", "memory", True),
    ]  # fmt: skip
    assert drawn["unmeasured"] == 1
    page = report.text(results.load_all(tmp_path))
    assert "5 of 7 meet it, and those that miss it are red; 1 figures that could not be measured" in page


def test_each_figure_shows_the_rows_that_are_stored(tmp_path: Path) -> None:
    found = stored(tmp_path)
    (readers,) = numbers("reading", found)["panels"]
    assert readers["rows"] == [["openslide", 50.0, 1.0, 2.0], ["ours", 250.5, 5.01, None]]
    post = numbers("postprocessing", found)
    assert post["rows"] == [["offsets", "ours", 2.6], ["TIAToolbox", "measured before", 28.0]]
    assert post["density"] == [[500.0, 5.6], [8000.0, 8.1]]
    assert numbers("memory", found)["rows"][1] == ["100,000² px", 1195.0, 0.372]
    assert numbers("memory", found)["limit"] == 2048.0
    assert [name for name, _ in numbers("planning", found)["lines"]] == ["planning and ledger", "`segment`"]
    looks = numbers("long_run", found)
    assert (looks["minutes"], looks["held"]) == ([5.0, 10.0], [850.0, 950.0])
    assert (looks["stall"], looks["stroke"]) == ([None, 44.0], [30.0, None])


def test_engines_are_taken_from_the_table_and_from_the_ratios_only_without_one(tmp_path: Path) -> None:
    found = stored(tmp_path, "peers")
    (panel,) = numbers("peers", found)["panels"]
    assert panel == {"title": "4096 px", "rows": [["napari-nucleiseg", 30.0, 30.0, 1.0], ["cellpose", 60.0, 60.0, 2.0]]}
    header = ["engine", "beside the stand-in, cpu-ms/MP", "times ours"]
    found["peers"]["tables"] = [table("4,096 px", header, ["napari-nucleiseg", "30.1 to 31.2", "1.0"])]
    (panel,) = numbers("peers", found)["panels"]
    assert panel["rows"] == [["napari-nucleiseg", 30.1, 31.2, 1.0]]


def test_nothing_is_drawn_of_what_is_not_stored(tmp_path: Path) -> None:
    found = stored(tmp_path, "memory")
    assert [plot.name for plot in plots.PLOTS if plot.numbers(found)] == ["goals", "memory"]
    page = report.text(found)
    assert re.findall(r"!\[.*\]\((.*)\)", page) == ["figures/goals.svg", "figures/memory.svg"]
    assert {plot.benchmark for plot in plots.PLOTS} <= {"", *(one.name for one in BENCHMARKS)}


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_the_page_is_written_and_the_figures_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path, "memory")
    kept = tmp_path / "figures" / "memory.svg"
    kept.parent.mkdir()
    kept.write_text("as it was")
    assert main(["report", "--results", str(tmp_path)]) == 0
    assert plots.NO_LIBRARY in capsys.readouterr().out
    assert kept.read_text() == "as it was"
    assert "(figures/memory.svg)" in (tmp_path / "REPORT.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_matplotlib")
def test_an_old_or_missing_figure_is_found_without_matplotlib(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, check = stored(tmp_path, "memory"), ["report", "--check", "--results", str(tmp_path)]
    report.write(tmp_path, tmp_path / "REPORT.md")
    assert main(check) == 1
    assert capsys.readouterr().out.splitlines()[:2] == ["figures/goals.svg is missing", "figures/memory.svg is missing"]
    (tmp_path / "figures").mkdir()
    for plot in plots.PLOTS:
        if drawn := plot.numbers(found):
            (tmp_path / "figures" / f"{plot.name}.svg").write_text(f"numbers sha256:{plots.digest(plot, drawn)}")
    assert main(check) == 0
    found["memory"]["tables"][0]["rows"][0][1] = "1147"
    results.store(found["memory"], tmp_path)
    report.write(tmp_path, tmp_path / "REPORT.md")
    assert report.old(tmp_path, tmp_path / "REPORT.md") == ["figures/memory.svg shows other numbers than the results"]


def test_matplotlib_draws_small_files_that_are_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the figures are drawn with the extra bench")
    found = stored(tmp_path)
    paths = plots.write(found, tmp_path / "figures")
    assert paths is not None
    assert [path.stem for path in paths] == [plot.name for plot in plots.PLOTS]
    first = [path.read_bytes() for path in paths]
    assert plots.old(found, tmp_path / "figures") == []
    assert [path.read_bytes() for path in plots.write(found, tmp_path / "figures") or ()] == first
    for content in first:
        assert len(content) < MOST_BYTES
        assert ET.fromstring(content).tag.endswith("svg")
    said = {path.stem: "".join(ET.parse(path).getroot().itertext()) for path in paths}
    assert "30.0 (≤ 20.0)" in said["goals"]
    assert "250 (5.0 x openslide)" in said["reading"]
    assert "60.0 (2.0 x ours)" in said["peers"]
    assert "from results/long_run.json" in said["long_run"]

    del found["long_run"]
    plots.write(found, tmp_path / "figures")
    assert not (tmp_path / "figures" / "long_run.svg").exists()


def test_the_figures_of_the_repository_are_small_and_all_in_the_page() -> None:
    drawn = sorted(plots.FOLDER.glob("*.svg"))
    assert len(drawn) >= 5
    assert {path.name: path.stat().st_size for path in drawn if path.stat().st_size >= MOST_BYTES} == {}
    page = report.PAGE.read_text(encoding="utf-8")
    assert [path.name for path in drawn if f"(figures/{path.name})" not in page] == []
