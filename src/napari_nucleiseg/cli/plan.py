"""``napari-nucleiseg plan``: set up a training by what the data and the machine are like."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.flags import add_flags, read_flags, read_record
from napari_nucleiseg.core.training.config import DataSet
from napari_nucleiseg.core.training.planner.plan import Wishes

if TYPE_CHECKING:
    from napari_nucleiseg.core.training.planner.fingerprint import Fingerprint, Spread
    from napari_nucleiseg.core.training.planner.plan import Plan

_RECORD = "PATH[,KEY=VALUE...]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "A data set is a folder with images/ and labels/ that pair up by file name: /data/mine,mpp_um=0.25. Without "
        "mpp_um it is estimated from the nuclei. The plan is a configuration of train: train --config plan.json. "
        "Beside it plan.because.json keeps what was measured and why each setting is so."
    )
    data_set = partial(read_record, DataSet)
    parser.add_argument("data", nargs="+", type=data_set, metavar=_RECORD, help="folders to learn from")
    parser.add_argument(
        "--validate",
        action="append",
        type=data_set,
        default=[],
        metavar=_RECORD,
        help="folder to choose the best weights by (default: a fifth of the pictures)",
    )
    parser.add_argument("--out", default="plan.json", metavar="JSON", help="the plan (default: plan.json)")
    parser.add_argument("--json", action="store_true", help="print the plan, what was measured and why, as JSON")
    add_flags(parser, Wishes)


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, plan, write, and say why."""
    from napari_nucleiseg.core.training.planner.plan import make_plan, write_plan

    path = Path(options.out).absolute()
    data, validate = ([_absolute(item) for item in items] for items in (options.data, options.validate))
    with console.progress() as bars:
        plan = make_plan(
            data,
            validate,
            read_flags(options, Wishes()),
            out=str(_run_folder(path)),
            on_picture=lambda done, total: bars.update("measuring", done, total),
        )
    beside = write_plan(plan, path)
    _show(plan, console)
    console.say(f"The plan is {path}; why it is so, {beside}.")
    console.say(f"Train with: napari-nucleiseg train --config {path}")
    console.result({"plan": str(path), "because": str(beside), **plan.as_dict()})
    return OK


def _run_folder(plan: Path) -> Path:
    """Return the folder of the run: called like the plan, and never the plan's own path."""
    return plan.with_suffix("") if plan.suffix else plan.with_name(f"{plan.name}-run")


def _absolute(data: DataSet) -> DataSet:
    """Take a relative folder from where the person stands: the plan may lie elsewhere."""
    from dataclasses import replace

    return replace(data, path=str(Path(data.path).absolute())) if data.path else data


def _show(plan: Plan, console: Console) -> None:
    console.table("what was measured", ("", ""), _facts(plan.fingerprint, plan.machine.name, plan.machine.memory_gb))
    console.table(
        "the plan",
        ("setting", "value", "default", "from", "because"),
        [
            (
                decision.setting,
                _said(decision.value),
                _said(decision.usual),
                ", ".join(f"{name} {_said(value)}" for name, value in decision.measured.items()),
                decision.because,
            )
            for decision in plan.decisions
        ],
    )
    for note in plan.notes:
        console.say(f"Note: {note}")


def _facts(facts: Fingerprint, machine: str, memory_gb: float) -> list[tuple[str, str]]:
    how = "given" if facts.mpp_given else "estimated from the nuclei"
    return [
        ("pictures, nuclei", f"{facts.pictures}, {facts.nuclei}"),
        ("annotated area", f"{facts.area_mm2:.3f} mm2, {facts.labelled_share:.0%} of the pictures"),
        ("pixel size", f"{facts.mpp_um:.3f} um, {how}"),
        ("shorter side", f"{_spread(facts.side_px)} px"),
        ("nucleus diameter", f"{_spread(facts.diameter_um)} um"),
        ("distance to the next", f"{_spread(facts.distance_um)} um"),
        ("nuclei a picture", _spread(facts.nuclei_per_picture)),
        ("touching, foreground", f"{facts.touching_share:.0%}, {facts.foreground_share:.0%}"),
        ("mean and std of RGB", f"{_said(facts.mean)}; {_said(facts.std)}"),
        ("haematoxylin, eosin", f"{_spread(facts.haematoxylin)}; {_spread(facts.eosin)} (optical density)"),
        ("spread of stain, light", f"{facts.stain_spread:.3f}, {facts.light_spread:.3f} (between pictures)"),
        ("machine", f"{machine}, {memory_gb:.1f} GiB"),
    ]


def _spread(spread: Spread) -> str:
    return f"{spread.median:.3g} ({spread.low:.3g} to {spread.high:.3g})"


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_said(one) for one in value) or "the network's"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
