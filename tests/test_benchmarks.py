"""The harness around the benchmarks: catalogue, stored results, report, and that `all` goes on after failures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The benchmarks are no part of the package that is installed.
sys.path.insert(0, str(ROOT))

from benchmarks import report, results, running  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.catalogue import BENCHMARKS, GOALS, HERE, PARTS, Benchmark, benchmark  # noqa: E402

SCRIPT = """
import sys
sys.path.insert(0, {benchmarks!r})
from measuring import in_turn, note, record, table, unmeasured, verdict

def main():
    {body}

if __name__ == "__main__":
    record(main)
"""
GOOD = """
    table(("what", "MP"), [("ours", 3), ("theirs", 1.5)], title="Speed")
    note("all quiet")
    in_turn({"nothing": lambda: sum(range(1000))}, 2)
    unmeasured("G3", "times cuCIM", "cuCIM is not installed")
    raise SystemExit(not verdict("times theirs", %s, 4, at_most=False, goal="G3"))
"""


@dataclass(frozen=True)
class Scripted(Benchmark):
    """A benchmark whose script a test wrote."""

    folder: str = ""

    @property
    def file(self) -> Path:
        return Path(self.folder) / f"{self.name}.py"

    @property
    def limit_minutes(self) -> float:
        return self.minutes


def scripted(folder: Path, name: str, body: str, *, minutes: float = 1.0, needs: tuple[str, ...] = ()) -> Scripted:
    (folder / f"{name}.py").write_text(SCRIPT.format(benchmarks=str(HERE), body=body.strip()), encoding="utf-8")
    return Scripted(name, f"Is {name} good?", goals=("G3",), minutes=minutes, needs=needs, folder=str(folder))


def figure(what: str, value: float, *, met: bool, goal: str = "G3") -> dict[str, Any]:
    return {
        "goal": goal, "what": what, "value": value, "shown": f"{value:.1f}", "wanted": ">= 4.0", "met": met,
        "anchor": "",
    }  # fmt: skip


def stored(folder: Path, name: str, *figures: dict[str, Any], status: str = "finished", message: str = "") -> None:
    record = {"figures": list(figures), "status": status, "message": message}
    results.store(results.result(name, record, command=f"python benchmarks/{name}.py", minutes=1.0), folder)


def test_every_entry_of_the_catalogue_has_a_script() -> None:
    assert [one.name for one in BENCHMARKS if not one.file.exists()] == []
    assert len({one.name for one in BENCHMARKS}) == len(BENCHMARKS) > 30


def test_every_script_is_in_the_catalogue_or_a_part_of_others() -> None:
    scripts = {path.stem for path in HERE.glob("*.py")}
    assert scripts - {one.name for one in BENCHMARKS} - PARTS == set()


def test_every_goal_is_answered_by_a_benchmark_that_needs_nobody() -> None:
    keys = [goal.key for goal in GOALS]
    assert keys == [*(f"G{number}" for number in range(1, 12)), *(f"S{number}" for number in range(1, 5))]
    answered = {key for one in BENCHMARKS if not one.by_hand for key in one.goals}
    assert answered == set(keys)


def test_each_script_gives_figures_of_the_goals_that_the_catalogue_says() -> None:
    for one in BENCHMARKS:
        text = one.file.read_text(encoding="utf-8")
        assert [key for key in one.goals if f'"{key}"' not in text] == [], one.name


def test_all_takes_less_than_an_hour_and_says_what_it_needs() -> None:
    unattended = [one for one in BENCHMARKS if not one.by_hand]
    assert sum(one.minutes for one in unattended) < 60
    assert {need for one in BENCHMARKS for need in one.needs} <= {"data", "window", "peers", "gpu"}
    with pytest.raises(KeyError, match="there is no benchmark 'speed'; there are reading"):
        benchmark("speed")


def test_what_a_script_prints_is_stored_and_comes_back(tmp_path: Path) -> None:
    one = scripted(tmp_path, "reading", GOOD % 5)
    found = running.run_one(one, folder=tmp_path / "results")
    assert found == results.load("reading", tmp_path / "results")
    assert found["status"] == "finished"
    assert found["tables"] == [{"title": "Speed", "header": ["what", "MP"], "rows": [["ours", 3], ["theirs", 1.5]]}]
    assert "all quiet" in found["notes"]
    assert found["rounds"][0]["rounds"] == 2
    missing, (_, speed) = found["figures"][0], found["figures"]
    assert (missing["value"], missing["reason"]) == (None, "cuCIM is not installed")
    assert (speed["goal"], speed["value"], speed["wanted"], speed["met"]) == ("G3", 5.0, ">= 4.00", True)
    assert found["versions"]["python"]
    assert found["machine"]


def test_a_missed_goal_is_a_result_and_the_former_value_stays(tmp_path: Path) -> None:
    one = scripted(tmp_path, "reading", GOOD % 5)
    running.run_one(one, folder=tmp_path)
    scripted(tmp_path, "reading", GOOD % 3)
    found = running.run_one(one, folder=tmp_path)
    again = results.load("reading", tmp_path)
    assert again is not None
    assert found["status"] == "finished"
    assert again["figures"][1]["met"] is False
    former = results.before(again, "times theirs")
    assert former is not None
    assert former["value"] == 5.0
    assert results.before(again, "times cuCIM") is None


def test_json_file_of_a_script_run_by_hand(tmp_path: Path) -> None:
    one = scripted(tmp_path, "reading", GOOD % 5)
    kept = tmp_path / "kept.json"
    subprocess.run([sys.executable, str(one.file), "--json", str(kept)], check=True, capture_output=True)
    record = json.loads(kept.read_text(encoding="utf-8"))
    assert (record["status"], record["figures"][1]["shown"]) == ("finished", "5.00")


def test_all_goes_on_after_failures_and_stops_what_takes_too_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, progress = tmp_path / "results", tmp_path / "progress.json"
    benchmarks = [
        scripted(tmp_path, "one", 'raise ValueError("no such slide")'),
        scripted(tmp_path, "two", 'raise SystemExit("labelled data are missing")'),
        scripted(tmp_path, "three", "import time; note('begun'); time.sleep(60)", minutes=0.05),
        scripted(tmp_path, "four", "import os; os.abort()"),
        scripted(tmp_path, "five", "pass", needs=("peers",)),
        scripted(tmp_path, "six", GOOD % 5),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "PEERS", ROOT / ".benchmarks" / "none")
        outcomes = running.run_all(benchmarks, folder=folder, progress=progress)
    assert [outcome for _, outcome in outcomes] == ["failed", "failed", "stopped", "failed", "skipped", "finished"]
    found = results.load_all(folder)
    assert found["one"]["message"] == "ValueError: no such slide"
    assert found["two"]["message"] == "labelled data are missing"
    assert found["three"]["notes"] == ["begun"]
    assert "longer than 0.05 minutes" in found["three"]["message"]
    said = capsys.readouterr().out
    assert "6 benchmarks, about 4 minutes" in said
    assert "skipped: No environment of another tool" in said

    late = [*benchmarks, scripted(tmp_path, "late", GOOD % 5, minutes=10)]
    assert running.run_all(late, resume=True, budget_minutes=9, folder=folder, progress=progress)[-1] == (
        "late",
        "left",
    )
    assert "9 minutes are over; --resume goes on with late" in capsys.readouterr().out

    resumed = [*benchmarks, scripted(tmp_path, "seven", GOOD % 5)]
    assert dict(running.run_all(resumed, resume=True, folder=folder, progress=progress))["seven"] == "finished"
    assert "1 benchmarks, about 1 minutes; 6 were done before" in capsys.readouterr().out


def test_the_report_has_a_row_for_every_goal_and_says_why_one_has_no_figure(tmp_path: Path) -> None:
    stored(tmp_path, "reading", figure("times openslide", 3.5, met=False))
    stored(tmp_path, "reading", figure("times openslide", 4.5, met=True))
    stored(tmp_path, "memory", figure("more MiB", 20.0, met=True, goal="G6"))
    stored(tmp_path, "memory", status="stopped", message="took longer than 4 minutes")
    stored(tmp_path, "seams")
    page = report.text(results.load_all(tmp_path))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    by_goal = {goal.key: [row for row in rows if row[0] == goal.key] for goal in GOALS}
    assert [key for key, found in by_goal.items() if not found] == []
    (read,) = by_goal["G3"]
    assert read[1:3] + read[5:] == ["times openslide", "`reading`", "3.5", "4.5", "met"]
    (memory,) = by_goal["G6"]
    assert memory[5:] == ["more MiB 20.0", "-", "stopped: took longer than 4 minutes"]
    assert by_goal["G5"][0][-1] == "not measured: these arguments leave it out"
    assert by_goal["G1"][0][-1] == "not measured yet: `python -m benchmarks run engine`"
    assert "### reading" in page
    assert "How fast are JPEG slides read?" in page


def test_the_report_command_writes_what_the_results_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path, "reading", figure("times openslide", 4.5, met=True))
    assert main(["report", "--results", str(tmp_path)]) == 0
    assert (tmp_path / "REPORT.md").read_text(encoding="utf-8") == report.text(results.load_all(tmp_path))
    assert main(["list", "--results", str(tmp_path)]) == 0
    (listed,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("reading "))
    assert "G3" in listed
    assert "finished" in listed


def test_the_report_of_the_repository_is_what_its_results_give() -> None:
    if not report.PAGE.exists():
        pytest.skip("no results are stored yet")
    assert report.old() == []
