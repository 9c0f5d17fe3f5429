"""Self-distillation learns without collapse, repeats itself, goes on after a kill, and gives an encoder with a card."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import save_file

from napari_nucleiseg.core.errors import DataError, ModelError, WeightsError
from napari_nucleiseg.core.models.encoders import load_encoder
from napari_nucleiseg.core.models.weights import load_tensors
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.training import checkpoint
from napari_nucleiseg.core.training.dino.learner import Learner
from napari_nucleiseg.core.training.dino.loop import pretrain
from napari_nucleiseg.core.training.dino.patches import PatchSamples
from napari_nucleiseg.core.training.dino.processes import Processes
from napari_nucleiseg.core.training.dino.views import BatchMaker
from written_run import log_of, of_another, same, state_of


def same_run(first, second):
    states = state_of(first), state_of(second)
    return all(same(states[0][part], states[1][part]) for part in ("student", "teacher", "loss"))


@pytest.fixture
def whole(config):
    """The run without any interruption, and what it reported."""
    return config, list(pretrain(config))


@pytest.fixture
def learner_and_maker(config, two_kinds):
    """A learner, and batches of two kinds of tissue."""
    pictures = [tifffile.imread(two_kinds / f"p{number}.tif") for number in range(4)]
    patches = np.stack([picture[y : y + 48, :48] for picture in pictures for y in (0, 48, 96)])
    samples = PatchSamples(patches, config)
    params = {**config.params, "grid": 4}
    return Learner(config, params, "cpu", Processes()), BatchMaker(samples, seed=0, size=config.batch_size)


def test_views_are_told_apart_and_nothing_collapses(config):
    calm = {"jitter_share": 0.0, "grey": 0.0, "solarise": 0.0, "blur": (0.0, 0.0, 0.0), "drop_path": 0.0}
    config = replace(config, steps=80, batch_size=16, head_hidden=64, head_bottleneck=16, ema=0.97, hold_out=0.0)
    config = replace(config, **calm, learning_rate=16 * 1.5e-4, checkpoint_seconds=1e9, patches=100, local_crops=4)
    steps = list(pretrain(replace(config, params={**config.params, "embed": 32}, seed=2, mixed_precision=False)))
    last = {name: np.mean([step.parts[name] for step in steps[-10:]]) for name in steps[0].parts}
    # Nothing is told apart where all prototypes are alike, nor where all views choose the same.
    assert last["used"] - last["entropy"] > 0.5 > 2 * (steps[0].parts["used"] - steps[0].parts["entropy"])
    assert np.mean([step.loss for step in steps[-10:]]) < np.log(config.prototypes) - 0.5
    assert last["feature_std"] > 0.2


def test_a_student_of_a_teacher_that_stands_still_comes_to_say_the_same(config, learner_and_maker):
    learner, maker = learner_and_maker
    learner.config = replace(config, ema=1.0, steps=1000, learning_rate=0.1, warmup=0.0, drop_path=0.0)
    learner.loss.momentum = 1.0
    batch = maker.batch(0)
    found = [learner.step(batch, step) for step in range(1, 41)]
    assert len({step["entropy"] for step in found}) == 1
    apart = [step["loss"] - step["entropy"] for step in found]
    # Its other view is another picture, so that they never agree in all.
    assert apart[-1] < 0.6 * apart[0]


def test_each_step_says_what_it_did(whole):
    config, steps = whole
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert all(set(step.parts) == {"entropy", "used", "feature_std"} for step in steps)
    assert all(step.loss >= step.parts["entropy"] > 0 for step in steps)
    assert [step.held_out is not None for step in steps] == [False, True, False, True]
    assert set(steps[1].held_out) == {"loss", "entropy", "used", "feature_std", "rank"}
    assert 1 <= steps[1].held_out["rank"] <= 16
    assert [step.encoder is not None for step in steps] == [False, False, False, True]
    logged = [json.loads(line) for line in log_of(config).splitlines()]
    assert [line["step"] for line in logged] == [2, 4]
    assert logged[1]["held_out_loss"] == steps[3].held_out["loss"]


def test_the_teacher_is_an_encoder_with_a_card(whole):
    config, steps = whole
    encoder = load_encoder(f"{config.out}/encoder.safetensors")
    assert encoder.spec.name == "hipt-256"
    # Positions are those of a global crop; what is dropped while learning is no property of the encoder.
    assert encoder.card.params == {**config.params, "grid": 4}
    assert (encoder.card.licence, encoder.card.commercial_use) == ("CC0-1.0", True)
    assert encoder.card.training_data == ("discs, no labels (CC0-1.0)",)
    assert "stage 1, step 4 of 4" in encoder.card.notes
    assert encoder.card.features_of == ""
    assert set(encoder.card.metrics["held out"]) == set(steps[-1].held_out)
    teacher = state_of(config)["teacher"]
    kept = encoder.network.state_dict()
    assert all(torch.equal(kept[name], teacher[f"backbone.{name}"].half().float()) for name in kept)
    assert steps[-1].encoder.version == encoder.version
    assert encoder.network(torch.zeros(1, 3, 48, 48)).shape == (1, 16)


@pytest.mark.parametrize("licence", ["", "CC-BY-NC-SA-4.0"])
def test_licence_of_the_slides_becomes_that_of_the_weights(config, licence):
    slides = tuple(replace(item, licence=licence) for item in config.slides)
    list(pretrain(replace(config, slides=slides, steps=1)))
    card = load_encoder(f"{config.out}/encoder.safetensors", accept_licence=True).card
    assert (card.licence, card.commercial_use) == (licence or "unknown", False)


def test_same_seed_same_weights(whole, tmp_path):
    config, _ = whole
    again, other = replace(config, out=str(tmp_path / "again")), replace(config, out=str(tmp_path / "other"), seed=1)
    list(pretrain(again)), list(pretrain(other))
    assert same_run(config, again)
    assert not same_run(config, other)


def test_stopped_and_gone_on_equals_uninterrupted(whole, tmp_path):
    config, steps = whole
    cut = replace(config, out=str(tmp_path / "cut"), checkpoint_seconds=1e9)
    run = pretrain(cut)
    for _ in range(3):
        next(run)
    run.close()
    assert state_of(cut)["step"] == 3
    with (Path(cut.out) / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "loss": 0.0}\n{"step": 6, "lo')
    (Path(cut.out) / "last.pt.part").write_bytes(b"half")
    torch.manual_seed(123)  # whatever else the process did meanwhile
    rest = list(pretrain(cut))
    assert [(step.loss, step.parts) for step in rest] == [(step.loss, step.parts) for step in steps[3:]]
    assert same_run(config, cut)
    assert log_of(config) == log_of(cut)
    assert list(pretrain(cut)) == []


def test_killed_and_gone_on_equals_uninterrupted(whole, tmp_path):
    config, _ = whole
    cut = replace(config, out=str(tmp_path / "cut"))
    (tmp_path / "config.json").write_text(json.dumps(asdict(cut)))
    code = "from napari_nucleiseg.cli import main; import sys; sys.exit(main())"
    command = [sys.executable, "-c", code, "pretrain", "dino", "--config", str(tmp_path / "config.json")]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (Path(cut.out) / "last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert (Path(cut.out) / "last.pt").exists()
    list(pretrain(cut))
    assert same_run(config, cut)
    assert log_of(config) == log_of(cut)


def test_the_last_layer_stays_as_long_as_it_shall_and_the_teacher_follows(config, learner_and_maker):
    learner, maker = learner_and_maker
    learner.config = replace(config, freeze_last=0.5, ema=0.75, last_ema=0.75, steps=4)
    before = {name: value.clone() for name, value in learner.teacher.state_dict().items()}
    prototypes = []
    for step in range(1, 5):
        learner.step(maker.batch(step), step)
        prototypes.append(learner.student.head.prototypes.detach().clone())
        if step == 1:
            student, teacher = learner.student.state_dict(), learner.teacher.state_dict()
            assert all(
                torch.allclose(teacher[name], 0.75 * before[name] + 0.25 * student[name], atol=1e-6) for name in before
            )
    assert torch.equal(prototypes[0], prototypes[1])
    assert torch.equal(prototypes[0], before["head.prototypes"])
    assert not torch.equal(prototypes[1], prototypes[2])


def test_gradients_of_each_tensor_are_clipped_and_only_matrices_decay(config, learner_and_maker):
    learner, maker = learner_and_maker
    learner.config = replace(config, clip=1e-3)
    learner.step(maker.batch(0), 3)
    norms = [float(item.grad.norm()) for item in learner.student.parameters() if item.grad is not None]
    assert max(norms) == pytest.approx(1e-3, rel=1e-3)
    decayed, plain = learner.optimiser.param_groups
    assert decayed["weight_decay"] > 0.04
    assert plain["weight_decay"] == 0
    assert {item.ndim for item in plain["params"]} == {1}


def test_starts_from_the_weights_of_an_encoder(whole, tmp_path):
    config, _ = whole
    path = f"{config.out}/encoder.safetensors"
    still = replace(config, initial=path, out=str(tmp_path / "still"), steps=1, learning_rate=0.0)
    still = replace(still, last_learning_rate=0.0)
    list(pretrain(still))
    begun = load_encoder(path)
    kept = begun.network.state_dict()
    assert (
        f"begun from {begun.version} (CC0-1.0)" in load_encoder(f"{still.out}/encoder.safetensors").card.training_data
    )
    assert all(torch.equal(kept[name], state_of(still)["student"][f"backbone.{name}"]) for name in kept)
    other = replace(still, params={**config.params, "depth": 1}, out=str(tmp_path / "other"))
    with pytest.raises(WeightsError, match="does not fit the network hipt-256"):
        next(pretrain(other))


@pytest.mark.parametrize("has_card", [True, False])
def test_the_licence_of_what_it_started_from_is_passed_on(config, tmp_path, has_card):
    slides = tuple(replace(item, licence="CC-BY-NC-4.0") for item in config.slides)
    list(pretrain(replace(config, slides=slides, steps=1)))
    path = f"{config.out}/encoder.safetensors"
    if not has_card:
        save_file(load_tensors(path), path)
    second = replace(config, initial=path, out=str(tmp_path / "second"), steps=1)
    list(pretrain(second))
    card = load_encoder(f"{second.out}/encoder.safetensors", accept_licence=True).card
    assert (card.licence, card.commercial_use) == ("CC-BY-NC-4.0 AND CC0-1.0" if has_card else "unknown", False)


def test_a_checkpoint_has_its_keys_and_one_of_another_run_is_told(config):
    list(pretrain(replace(config, steps=1)))
    keys = of_another(config, features_of="tissue@1")
    assert keys == ["step", "scores", "learned", "features_of", "student", "teacher", "loss", "optimiser"]
    with pytest.raises(WeightsError, match=r"resuming off \(it was made from features of tissue@1\)"):
        next(pretrain(config))


def test_foreign_checkpoints_are_refused(whole):
    config, _ = whole
    with pytest.raises(WeightsError, match="another output folder"):
        next(pretrain(replace(config, prototypes=33)))
    torch.save({"step": 3, "model": {}}, f"{config.out}/last.pt")
    with pytest.raises(WeightsError, match="another output folder"):
        next(pretrain(config))
    Path(f"{config.out}/last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="another output folder"):
        next(pretrain(config))


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(config, monkeypatch):
    list(pretrain(replace(config, steps=2)))
    before = (Path(config.out) / "last.pt").read_bytes()

    def full(_state, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(WeightsError, match="Free some space"):
        list(pretrain(config))
    assert (Path(config.out) / "last.pt").read_bytes() == before


def test_what_was_opened_is_closed_when_the_run_is_left(config, monkeypatch):
    closed = []
    monkeypatch.setattr(Slide, "close", lambda slide: closed.append(Path(slide.path).stem))
    run = pretrain(config)
    next(run)
    run.close()
    assert sorted(closed) == ["p0", "p1", "p2", "p3"]


def test_one_slide_is_learned_from_and_nothing_is_measured(config):
    steps = list(pretrain(replace(config, slides=(replace(config.slides[0], include=("p0",)),))))
    assert all(step.held_out is None for step in steps)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"global_px": 36}, DataError, "no multiple of the 8 pixels of a token of hipt-256; choose 32 or 40"),
        ({"params": {"width": 3}}, ModelError, "cannot be built"),
        ({"network": "resnet"}, ModelError, "no encoder called resnet"),
        ({"network": "hipt-4k", "params": {}}, DataError, "it learns in stage 2"),
        ({"slides": ()}, DataError, "name at least one slide"),
        ({"steps": 0}, DataError, "steps must be at least 1"),
        ({"tissue": 1.0, "params": {"input_px": 512, "embed": 16, "heads": 2, "depth": 1}}, DataError, "has room"),
    ],
)
def test_what_is_wrong_is_said(config, change, error, sentence):
    with pytest.raises(error, match=sentence):
        next(pretrain(replace(config, **change)))
