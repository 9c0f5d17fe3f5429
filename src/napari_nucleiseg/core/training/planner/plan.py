"""Makes a training run of data sets: measures them and the machine, applies the rules, and keeps why."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.training.config import DataSet, TrainConfig, config_as_json
from napari_nucleiseg.core.training.planner import rules_data, rules_network, rules_schedule
from napari_nucleiseg.core.training.planner.fingerprint import Fingerprint, take_fingerprint
from napari_nucleiseg.core.training.planner.machine import Machine, bytes_per_pixel, look_at_machine, seconds_per_step
from napari_nucleiseg.core.training.planner.split import hold_out

Value = TypeVar("Value")
BECAUSE_SUFFIX = ".because.json"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person wants of a run beside its data.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    memory_gb : float
        GiB that the run may take, of the GPU or of the computer; 0 plans for all there is.
    minutes : float
        How long it may train; 0 takes the time that the data need.
    seed : int
        Seeds weights, crops and augmentation.
    threads : int
        Threads of torch on the CPU; 0 leaves torch's choice.
    """

    device: str = "auto"
    memory_gb: float = 0.0
    minutes: float = 0.0
    seed: int = 0
    threads: int = 0

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        if not 0 <= self.memory_gb < 1e6:
            return f"the memory must be a number of GiB, or 0 for all there is, not {self.memory_gb}"
        if not 0 <= self.minutes < 1e6:
            return f"the time must be a number of minutes, or 0 for as many as the data need, not {self.minutes}"
        return None


@dataclass(frozen=True, slots=True)
class Decision:
    """One setting of a plan and why it is so.

    Parameters
    ----------
    setting : str
        Field of the configuration, such as ``crop_px`` or ``augment.stain``.
    value, usual : object
        What was chosen, and the default.
    rule : str
        Module and function that chose it.
    measured : mapping
        What the rule was given.
    because : str
        The rule in one sentence.
    """

    setting: str
    value: object
    usual: object
    rule: str
    measured: Mapping[str, object]
    because: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A training run and where its settings come from.

    Parameters
    ----------
    config : TrainConfig
        The run.
    fingerprint : Fingerprint
        Of its data.
    machine : Machine
        Where it is to run.
    decisions : tuple of Decision
        One a setting.
    notes : tuple of str
        Sentences about what a person should know or give.
    """

    config: TrainConfig
    fingerprint: Fingerprint
    machine: Machine
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, fit for JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Rules:
    """Applies rules and keeps a record of it."""

    usual: TrainConfig = field(default_factory=TrainConfig)
    decisions: list[Decision] = field(default_factory=list)

    def decide(self, setting: str, rule: Callable[..., Value], usual: object = None, **measured: object) -> Value:
        """Return what `rule` makes of what was measured; `usual` is read from the default run where not given."""
        value = rule(**measured)
        if usual is None:
            usual = self.usual
            for name in setting.split("."):
                usual = getattr(usual, name)
        sentence = " ".join((inspect.getdoc(rule) or "").split("\n\n")[0].split())
        where = f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}"
        self.decisions.append(Decision(setting, value, usual, where, _rounded(measured), sentence))
        return value


def make_plan(
    data: Sequence[DataSet],
    validate: Sequence[DataSet] = (),
    wishes: Wishes | None = None,
    *,
    out: str = "training",
    clock: Callable[[], float] = time.perf_counter,
    on_picture: Callable[[int, int], None] | None = None,
) -> Plan:
    """Plan a training run.

    Parameters
    ----------
    data : sequence of DataSet
        What to learn from.
    validate : sequence of DataSet
        What to choose the best weights by; without any a fifth of the pictures of `data` is held out.
    wishes : Wishes, optional
        Device, memory and time.
    out : str
        Folder for the weights of the run.
    clock : callable
        Returns seconds; times the steps of a run that has a limit of time.
    on_picture : callable, optional
        Called with the number of pictures measured and of all.

    Returns
    -------
    Plan
        The run and why it is so.

    Raises
    ------
    DataError
        If there are no data, they cannot be read, or the wishes make no sense.
    ModelError
        If the device is not there.
    """
    wishes = wishes or Wishes()
    given = TrainConfig(out=out, train=tuple(data), validate=tuple(validate), device=wishes.device, seed=wishes.seed)
    problem = wishes.validation_error() or given.validation_error()
    if problem:
        raise DataError(problem)
    machine = look_at_machine(wishes.device, wishes.memory_gb)
    facts = take_fingerprint(data, on_picture)
    if validate:
        checked_mm2 = take_fingerprint(validate).area_mm2
        config = replace(given, threads=wishes.threads)
    else:
        train, held = hold_out(data)
        checked_mm2 = facts.area_mm2 * sum(len(item.include) for item in held) / facts.pictures
        config = replace(given, train=train, validate=held, threads=wishes.threads)
    rules = _Rules()
    config = _for_the_network(rules, config, facts, machine, wishes)
    config = _for_the_data(rules, config, facts)
    config = _for_the_time(rules, config, facts, minutes=wishes.minutes, checked_mm2=checked_mm2, clock=clock)
    return Plan(config, facts, machine, tuple(rules.decisions), _notes(config, facts, wishes))


def _for_the_network(
    rules: _Rules, config: TrainConfig, facts: Fingerprint, machine: Machine, wishes: Wishes
) -> TrainConfig:
    """Choose pixels, depth, crops and batches."""
    nuclei = facts.diameter_um
    name = rules.decide(
        "network",
        rules_network.network,
        diameter_um=nuclei.median,
        mpp_um=facts.mpp_um,
        minutes=wishes.minutes,
    )
    config = replace(config, network=name)
    mpp_um = network_spec(name).mpp_um
    per_px = bytes_per_pixel(config)
    side = rules.decide(
        "crop_px",
        rules_network.crop_px,
        side_um=facts.side_um.median,
        diameter_um=nuclei.median,
        model_mpp_um=mpp_um,
        most_px=rules_network.most_crop_px(machine.memory_gb, per_px),
    )
    levels = rules.decide(
        "params.depth",
        rules_network.depth,
        usual=4,
        diameter_high_um=nuclei.high,
        model_mpp_um=mpp_um,
        side_px=side,
    )
    size = rules.decide(
        "batch_size",
        rules_network.batch_size,
        side_px=side,
        nuclei_per_mpx=facts.nuclei / max(facts.area_mm2 / mpp_um**2, 1e-9),
        most=rules_network.most_crops(machine.memory_gb, per_px, side),
        device=machine.device,
    )
    return replace(config, crop_px=side, batch_size=size, params={"depth": levels})


def _for_the_data(rules: _Rules, config: TrainConfig, facts: Fingerprint) -> TrainConfig:
    """Choose shares, normalisation, augmentation, losses and decoding."""
    nuclei, pictures, decide = facts.diameter_um, facts.pictures, rules.decide
    mpp_um = network_spec(config.network).mpp_um
    counts = [item.nuclei for item in facts.sets]
    # What a person set stays.
    shares = [
        decide(f"train[{place}].share", rules_data.share, usual=1.0, nuclei=count, all_nuclei=counts)
        if len(counts) > 1 and item.share == 1.0
        else item.share
        for place, (item, count) in enumerate(zip(config.train, counts, strict=True))
    ]
    augment = replace(
        config.augment,
        stain=decide("augment.stain", rules_data.stain, stain_spread=facts.stain_spread, pictures=pictures),
        colour=decide("augment.colour", rules_data.colour, light_spread=facts.light_spread, pictures=pictures),
        scale=decide(
            "augment.scale", rules_data.scale, low_um=nuclei.low, high_um=nuclei.high, mpp_given=facts.mpp_given
        ),
        elastic_um=decide("augment.elastic_um", rules_data.elastic_um, diameter_um=nuclei.median),
    )
    return replace(
        config,
        train=tuple(replace(item, share=share) for item, share in zip(config.train, shares, strict=True)),
        augment=augment,
        mean=decide("mean", rules_data.mean, tissue_mean=facts.mean),
        std=decide("std", rules_data.std, tissue_std=facts.std),
        border_weight=decide(
            "border_weight", rules_data.border_weight, touching_share=facts.touching_share, nuclei=facts.nuclei
        ),
        border_sigma_um=decide("border_sigma_um", rules_data.border_sigma_um, diameter_um=nuclei.median),
        class_balance=decide("class_balance", rules_data.class_balance, foreground_share=facts.foreground_share),
        decoder=decide("decoder", rules_data.decoder, usual="offsets", diameter_high_um=nuclei.high),
        threshold=decide("threshold", rules_data.threshold, diameter_low_um=nuclei.low, model_mpp_um=mpp_um),
        min_area_um2=decide("min_area_um2", rules_data.min_area_um2, smallest_area_um2=facts.smallest_area_um2),
    )


def _for_the_time(
    rules: _Rules,
    config: TrainConfig,
    facts: Fingerprint,
    *,
    minutes: float,
    checked_mm2: float,
    clock: Callable[[], float],
) -> TrainConfig:
    """Choose steps, rate and validations."""
    decide, mpp_um = rules.decide, network_spec(config.network).mpp_um
    step_px = float(config.batch_size * config.crop_px**2)
    total = decide(
        "steps",
        rules_schedule.steps,
        area_px=facts.area_mm2 * 1e6 / mpp_um**2,
        step_px=step_px,
        seconds_a_step=seconds_per_step(config, clock) if minutes else 0.0,
        minutes=minutes,
    )
    return replace(
        config,
        steps=total,
        learning_rate=decide("learning_rate", rules_schedule.learning_rate, step_px=step_px),
        warmup=decide("warmup", rules_schedule.warmup, total=total),
        ema=decide("ema", rules_schedule.ema, total=total),
        validate_every=decide(
            "validate_every",
            rules_schedule.validate_every,
            total=total,
            step_px=step_px,
            validation_px=checked_mm2 * 1e6 / mpp_um**2,
        ),
    )


def _notes(config: TrainConfig, facts: Fingerprint, wishes: Wishes) -> tuple[str, ...]:
    """Return sentences about what is missing or odd."""
    empty = sum(item.empty_pictures for item in facts.sets)
    notes = {
        "There is no nucleus in these pictures: nothing tells how large nuclei are, and nothing can be learnt but "
        "background. Settings that depend on nuclei are the defaults.": not facts.nuclei,
        f"{empty} of {facts.pictures} pictures hold no nucleus. If nobody labelled them, leave them out: they teach "
        "that what they show is background.": 0 < empty < facts.pictures,
        "The pixel size of some pictures is not known; each is scaled so that its median nucleus is as large as "
        "nucleus_um says. Give it where you know it: PATH,mpp_um=0.25.": not facts.mpp_given,
        "There is one picture only: nothing is held out, so that the last weights are kept, good or not.": (
            not config.validate
        ),
        "Pictures are held out by their names. If several are of one patient, name others to validate by: "
        "--validate PATH.": bool(config.validate)
        and {item.path for item in config.validate} <= {item.path for item in config.train},
        f"Only {facts.labelled_share:.0%} of the pixels are annotated; the rest is passed over.": (
            facts.labelled_share < 0.995
        ),
        f"{wishes.minutes:g} minutes are short: {config.steps} steps. Weights that nuclei are trusted to take "
        "thousands.": bool(wishes.minutes) and config.steps < 500,
    }
    return tuple(note for note, is_so in notes.items() if is_so)


def write_plan(plan: Plan, path: Path) -> Path:
    """Write the run to `path`, for ``train --config``, and all of the plan beside it; return where that is.

    Raises
    ------
    DataError
        If the files cannot be written.
    """
    beside = path.with_suffix(BECAUSE_SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_over(path, config_as_json(plan.config).encode())
        write_over(beside, json.dumps(plan.as_dict(), indent=2).encode())
    except OSError as error:
        raise DataError(f"the plan cannot be written to {path}: {error}") from error
    return beside


def _rounded(measured: Mapping[str, object]) -> dict[str, object]:
    """Return what a rule was given with no more digits than people read."""
    return {name: _short(value) for name, value in measured.items()}


def _short(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [_short(one) for one in value] if isinstance(value, list | tuple) else value
