"""A plan is a run that can be trained as it is, says why it is so, and stays sane for strange data."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from labelled_discs import disc_labels, write_discs
from napari_nucleiseg.core.errors import DataError, ModelError
from napari_nucleiseg.core.models.weights import load_model, read_card
from napari_nucleiseg.core.training.config import DataSet, TrainConfig, load_config
from napari_nucleiseg.core.training.loop import train
from napari_nucleiseg.core.training.planner import machine, plan
from napari_nucleiseg.core.training.planner.machine import Machine, bytes_per_pixel, look_at_machine, seconds_per_step
from napari_nucleiseg.core.training.planner.plan import Wishes, make_plan, write_plan
from napari_nucleiseg.core.training.planner.split import hold_out
from napari_nucleiseg.core.training.samples import picture_files

CPU = Wishes(device="cpu", threads=1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """What a network takes is the same for every plan; it is counted once, in the test of it."""
    monkeypatch.setattr(plan, "bytes_per_pixel", lambda _config: 1500.0)


@pytest.fixture
def discs(tmp_path):
    """A data set of six pictures."""
    for number in range(6):
        write_discs(tmp_path / "data", disc_labels(), stem=f"p{number}")
    return DataSet(str(tmp_path / "data"), 0.5, licence="CC0-1.0")


def must_be_sane(made):
    """A configuration that training takes, with numbers a person would not laugh at."""
    config = made.config
    assert config.validation_error() is None
    assert 96 <= config.crop_px <= 512
    assert 1 <= config.batch_size <= 32
    assert 1 <= config.params["depth"] <= 4
    assert 1 <= config.steps <= 20_000
    assert 0 < config.learning_rate < 0.01
    assert 0.4 <= config.threshold <= 0.5
    assert 1 <= config.min_area_um2 <= 30
    assert 1 <= config.augment.scale <= 1.6
    numbers = json.loads(json.dumps(made.as_dict()), parse_constant=lambda name: pytest.fail(f"{name} in the plan"))
    assert numbers["config"]["crop_px"] == config.crop_px


# ---------------------------------------------------------------------- holding out


def test_a_fifth_is_held_out_by_name_and_stays_so_when_pictures_come(tmp_path):
    for number in range(40):
        write_discs(tmp_path, np.zeros((40, 40), np.uint16), stem=f"p{number}")
    data = DataSet(str(tmp_path), 0.5)
    (taught,), (held,) = hold_out([data])
    assert not {*taught.include} & {*held.include}
    assert len(taught.include) + len(held.include) == 40
    assert 3 <= len(held.include) <= 14
    for number in range(40, 50):
        write_discs(tmp_path, np.zeros((40, 40), np.uint16), stem=f"p{number}")
    assert {*hold_out([data])[1][0].include} >= {*held.include}


def test_names_with_signs_of_patterns_are_found_again(tmp_path):
    for stem in ("a[1]", "a1", "b*", "bc"):
        write_discs(tmp_path, np.zeros((40, 40), np.uint16), stem=stem)
    parts = [part for sets in hold_out([DataSet(str(tmp_path), 0.5)]) for part in sets]
    found = [path.stem for part in parts for path in picture_files(part)]
    assert sorted(found) == ["a1", "a[1]", "b*", "bc"]


def test_only_pictures_that_the_person_chose_are_parted(discs):
    (taught,), (held,) = hold_out([replace(discs, include=("p[0-2]",))])
    assert sorted((*taught.include, *held.include)) == ["p0", "p1", "p2"]


# ---------------------------------------------------------------------- machine


def test_a_machine_says_what_it_has_and_takes_what_it_is_told():
    found = look_at_machine("cpu")
    assert (found.device, found.name) == ("cpu", "CPU")
    assert found.cores >= 1
    assert found.memory_gb > 0.5
    assert look_at_machine("cpu", 3.5) == replace(found, memory_gb=3.5)


def test_a_gpu_is_planned_for_by_its_own_memory(monkeypatch):
    class Facts:
        total_memory, name = 8 << 30, "some GPU"

    monkeypatch.setattr(machine, "choose_device", lambda _wanted: torch.device("cuda"))
    monkeypatch.setattr(machine, "has_fast_bfloat16", lambda _device: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: Facts)
    found = look_at_machine("cuda")
    assert (found.device, found.name, found.memory_gb, found.bfloat16) == ("cuda", "some GPU", 8.0, True)


def test_wider_networks_take_more_memory(discs):
    config = TrainConfig(train=(discs,), params={"width": 4, "widest": 8})
    narrow, wide = bytes_per_pixel(config), bytes_per_pixel(replace(config, params={"width": 8, "widest": 16}))
    # Three numbers of 4 bytes a pixel go in, five come out, and what lies between is kept, too.
    assert 32 < narrow < wide < 2 * narrow


def test_a_step_is_timed_without_leaving_anything(discs, tmp_path):
    ticks = iter(range(0, 1000, 3))
    config = TrainConfig(
        out=str(tmp_path / "run"),
        train=(discs,),
        crop_px=64,
        batch_size=1,
        params={"width": 4},
        threads=1,
        device="cpu",
    )
    assert seconds_per_step(config, lambda: float(next(ticks))) == 3
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------- plans


def test_a_plan_is_written_and_trained_as_it_is(discs, tmp_path):
    made = make_plan([discs], wishes=CPU, out=str(tmp_path / "run"))
    must_be_sane(made)
    beside = write_plan(made, tmp_path / "plans" / "mine.json")
    config = load_config(str(tmp_path / "plans" / "mine.json"))
    assert config == made.config
    short = replace(config, steps=1, batch_size=1, crop_px=64, params={**config.params, "width": 4})
    (step,) = train(short)
    assert step.is_best
    card, spec = (
        read_card(tmp_path / "run" / "best.safetensors"),
        load_model(str(tmp_path / "run" / "best.safetensors")).spec,
    )
    assert (card.threshold, card.min_area_um2) == (made.config.threshold, made.config.min_area_um2)
    assert (spec.mean, spec.std, spec.decoder) == (made.config.mean, made.config.std, made.config.decoder)
    assert json.loads(beside.read_text())["decisions"][0]["setting"] == "network"


def test_every_setting_that_differs_from_the_default_has_a_reason(discs):
    made = make_plan([discs], wishes=CPU)
    usual = TrainConfig(device="cpu", threads=1)
    changed = {
        name
        for name in TrainConfig.__dataclass_fields__
        if getattr(made.config, name) != getattr(usual, name) and name not in {"train", "validate", "augment", "params"}
    }
    reasons = {decision.setting: decision for decision in made.decisions}
    assert changed <= reasons.keys()
    for decision in reasons.values():
        assert decision.because.endswith(".")
        assert decision.rule.startswith("rules_")
        assert decision.measured
    assert reasons["crop_px"].value == made.config.crop_px
    assert reasons["crop_px"].usual == usual.crop_px
    assert reasons["augment.stain"].value == made.config.augment.stain
    assert reasons["crop_px"].measured["side_um"] == 48


def test_the_same_data_give_the_same_plan(discs):
    assert make_plan([discs], wishes=CPU) == make_plan([discs], wishes=CPU)


def test_sets_to_validate_by_are_taken_whole(discs, tmp_path):
    held = DataSet(str(write_discs(tmp_path / "held", disc_labels())), 0.5)
    made = make_plan([discs], [held], CPU)
    assert made.config.validate == (held,)
    assert made.config.train == (discs,)
    assert not any("by their names" in note for note in made.notes)


def test_shares_that_a_person_set_stay(discs, tmp_path):
    other = DataSet(str(write_discs(tmp_path / "other", disc_labels())), 0.5)
    shares = [item.share for item in make_plan([discs, other], [discs], CPU).config.train]
    assert 0 < shares[1] < shares[0] < 1
    kept = make_plan([discs, replace(other, share=3.0)], [discs], CPU).config.train
    assert kept[1].share == 3.0


def test_little_memory_makes_small_batches(discs):
    big, small = (make_plan([discs], wishes=replace(CPU, memory_gb=memory)).config for memory in (64, 0.1))
    assert small.batch_size * small.crop_px**2 < big.batch_size * big.crop_px**2
    assert small.batch_size * small.crop_px**2 * 1500 < 0.1 * 2**30


def test_time_decides_the_steps(discs, monkeypatch):
    monkeypatch.setattr(plan, "seconds_per_step", lambda _config, _clock: 0.5)
    counts = [make_plan([discs], wishes=replace(CPU, minutes=minutes)).config.steps for minutes in (1, 5, 0)]
    assert counts[0] == 108
    assert counts == sorted(counts)
    assert any("minutes are short" in note for note in make_plan([discs], wishes=replace(CPU, minutes=1)).notes)


@pytest.mark.parametrize(
    ("labels", "mpp_um", "note"),
    [
        (np.zeros((64, 64), np.uint16), 0.25, "no nucleus in these pictures"),
        (np.zeros((64, 64), np.uint16), None, "pixel size of some pictures is not known"),
        (disc_labels(), 0.5, "one picture only"),
        (disc_labels(side=1500), 0.25, "one picture only"),
        (disc_labels(side=40, radius=3, gap=0), 0.02, "one picture only"),
        (disc_labels(side=400, radius=60), 2.0, "one picture only"),
        (np.ones((50, 50), np.uint16), None, "one picture only"),
    ],
    ids=["empty", "empty without mpp", "one picture", "giant", "tiny pixels", "huge nuclei", "all one nucleus"],
)
def test_strange_data_give_a_sane_plan_and_a_note(tmp_path, labels, mpp_um, note):
    made = make_plan([DataSet(str(write_discs(tmp_path, labels)), mpp_um)], wishes=CPU)
    must_be_sane(made)
    assert made.config.validate == ()
    assert any(note in sentence for sentence in made.notes)


def test_pictures_that_nobody_labelled_are_pointed_out(discs, tmp_path):
    write_discs(tmp_path / "data", np.zeros((64, 64), np.uint16), stem="empty")
    notes = make_plan([discs], wishes=CPU).notes
    assert any("1 of 7 pictures hold no nucleus" in note for note in notes)


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        (replace(CPU, minutes=-1.0), "number of minutes, or 0"),
        (replace(CPU, memory_gb=math.nan), "number of GiB, or 0"),
        (replace(CPU, seed=-1), "seed must be between"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(discs, wishes, sentence):
    with pytest.raises(DataError, match=sentence):
        make_plan([discs], wishes=wishes)


def test_what_is_not_there_is_refused(discs, tmp_path):
    with pytest.raises(DataError, match="at least one data set"):
        make_plan([], wishes=CPU)
    with pytest.raises(DataError, match="needs two folders"):
        make_plan([DataSet(str(tmp_path), 0.5)], wishes=CPU)
    with pytest.raises(ModelError, match="no device called abacus"):
        make_plan([discs], wishes=Wishes(device="abacus"))


def test_a_plan_that_cannot_be_written_is_said(discs, tmp_path):
    made = make_plan([discs], wishes=CPU)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="plan cannot be written to"):
        write_plan(made, tmp_path / "file" / "plan.json")


def test_the_plan_names_its_machine(discs):
    assert isinstance(make_plan([discs], wishes=CPU).machine, Machine)
