"""Pretraining tells scales apart, repeats itself, goes on after a kill as if nothing had been, and gives a model."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from napari_nucleiseg.core.errors import DataError, ModelError, WeightsError
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.models.resnet34 import ResNet34
from napari_nucleiseg.core.models.weights import load_model, read_card
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.scales import checkpoint
from napari_nucleiseg.core.training.scales.config import SlideSet, load_scale_config
from napari_nucleiseg.core.training.scales.examination import Examination
from napari_nucleiseg.core.training.scales.learner import Learner
from napari_nucleiseg.core.training.scales.loop import pretrain
from napari_nucleiseg.core.training.scales.samples import ScaleSampler, ScaleSource
from written_run import log_of, same, state_of


def same_run(first, second):
    return all(same(state_of(first)[part], state_of(second)[part]) for part in ("model", "scale_net"))


@pytest.fixture
def whole(config):
    """The run without any interruption, and what it reported."""
    return config, list(pretrain(config))


def test_scales_are_told_apart_after_a_few_steps(config):
    # So small a classifier needs to see more than the paper's share of pixels.
    config = replace(config, params={"width": 4, "sparsity": 0.5}, classifier_width=8, steps=30, batch_size=12)
    config = replace(config, crop_px=64, learning_rate=3e-3, validate_every=30, validation_crops=8)
    steps = list(pretrain(config))
    assert np.mean([step.parts["scale"] for step in steps[-5:]]) < 0.7 * steps[0].parts["scale"]
    found = steps[-1].validation
    assert np.mean([step.parts["accuracy"] for step in steps[-5:]]) > 0.6
    assert found["accuracy"] == pytest.approx(np.mean([found[f"accuracy_{power}x"] for power in (10, 20, 40)]))
    assert 0 < found["covered"] < 1


def test_told_by_shape_attention_lies_on_nuclei_at_a_level_that_stays_0(config):
    config = replace(config, params={"width": 4}, classifier_width=4, steps=40, batch_size=12, crop_px=64)
    config = replace(config, losses={"scale": 1.0, "shape": 1.0}, learning_rate=3e-3, validate_every=40)
    config = replace(config, settled_tau=True, own_tau=True, validation_crops=8)
    steps = list(pretrain(config))
    told = [step.parts["shape"] for step in steps]
    assert np.mean(told[-5:]) < 0.5 * told[0]
    found = steps[-1].validation
    assert found["haematoxylin"] > 1.5
    assert found["shape"] > 0.5
    # Chosen by shapes, not by how often the magnification is told.
    assert state_of(config)["best"] == pytest.approx(found["shape"])
    model = load_model(f"{config.out}/best.safetensors")
    assert (float(model.network.tau), int(model.network.first)) == (0, 0)
    assert model.card.level_is_set


def test_each_step_says_what_it_did(whole):
    config, steps = whole
    assert [step.step for step in steps] == list(range(1, 9))
    assert set(steps[0].parts) == {"scale", "smoothness", "equivariance", "accuracy"}
    assert steps[0].loss == pytest.approx(sum(steps[0].parts[name] for name in ("scale", "smoothness", "equivariance")))
    measured = [step for step in steps if step.validation]
    assert [step.step for step in measured] == [4, 8]
    assert all(0 <= step.glance.attention.min() <= step.glance.attention.max() <= 1 for step in measured)
    assert np.array_equal(measured[0].glance.picture, measured[1].glance.picture)
    drawn = cv2.imread(f"{config.out}/attention/000008.png")
    assert drawn.shape == (32, 64, 3)
    assert [json.loads(line)["step"] for line in log_of(config).splitlines()] == [4, 8]


def test_weights_are_a_model_with_a_card(whole):
    config, steps = whole
    model = load_model(f"{config.out}/best.safetensors")
    assert model.spec.name == "scale-attention-fast"
    assert model.card.licence == "CC0-1.0"
    assert model.card.commercial_use
    assert model.card.training_data == ("discs, no labels (CC0-1.0)",)
    assert "Sahasrabudhe" in model.card.notes
    assert set(model.card.metrics["validation"]) >= {"accuracy", "covered", "haematoxylin"}
    assert float(model.network.tau) != 0
    # The classifier is of no use to anyone who segments.
    assert not any("trunk" in key or "linear" in key for key in model.network.state_dict())
    last = steps[-1].model
    assert last.network.tau == state_of(config)["model"]["tau"]
    assert not last.network.training
    assert last.version == model.version if steps[-1].is_best else last.version != model.version


@pytest.mark.parametrize("licence", ["", "CC-BY-NC-SA-4.0"])
def test_licence_of_the_slides_becomes_that_of_the_weights(config, licence):
    slides = tuple(replace(item, licence=licence) for item in config.slides)
    config = replace(config, slides=slides, steps=1)
    list(pretrain(config))
    card = load_model(f"{config.out}/best.safetensors", accept_licence=True).card
    assert card.licence == (licence or "unknown")
    assert not card.commercial_use


def test_same_seed_same_weights(whole, tmp_path):
    config, _ = whole
    again, other = replace(config, out=str(tmp_path / "again")), replace(config, out=str(tmp_path / "other"), seed=1)
    list(pretrain(again)), list(pretrain(other))
    assert same_run(config, again)
    assert not torch.equal(state_of(config)["model"]["tau"], state_of(other)["model"]["tau"])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_stopped_and_gone_on_equals_uninterrupted(config, tmp_path, ema):
    config, cut = replace(config, ema=ema), replace(config, ema=ema, out=str(tmp_path / "cut"))
    steps = list(pretrain(config))
    run = pretrain(cut)
    for _ in range(5):
        next(run)
    run.close()
    # The checkpoint is that of step 5, though none was due; what was logged after it is forgotten.
    with (Path(cut.out) / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "accuracy": 0.0}\n{"step": 7, "accu')
    (Path(cut.out) / "last.pt.part").write_bytes(b"half")
    rest = list(pretrain(cut))
    assert [step.loss for step in rest] == [step.loss for step in steps[5:]]
    assert [step.validation for step in rest] == [step.validation for step in steps[5:]]
    assert same_run(config, cut)
    assert log_of(config) == log_of(cut)
    first, second = (load_model(f"{run.out}/best.safetensors") for run in (config, cut))
    assert same(first.network.state_dict(), second.network.state_dict())
    assert list(pretrain(cut)) == []


def test_stopped_before_anything_was_measured_there_are_weights_to_use(config):
    run = pretrain(replace(config, validate_every=100, checkpoint_every=100))
    next(run)
    run.close()
    assert state_of(config)["step"] == 1
    assert load_model(f"{config.out}/best.safetensors").card.notes.count("step 1 of 8")


def test_killed_and_gone_on_equals_uninterrupted(whole, tmp_path):
    config, _ = whole
    cut = replace(config, out=str(tmp_path / "cut"))
    (tmp_path / "config.json").write_text(json.dumps(asdict(cut)))
    code = "from napari_nucleiseg.cli import main; import sys; sys.exit(main())"
    command = [sys.executable, "-c", code, "pretrain", "scale-attention", "--config", str(tmp_path / "config.json")]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (Path(cut.out) / "last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    list(pretrain(cut))
    assert same_run(config, cut)
    assert log_of(config) == log_of(cut)


def test_one_slide_is_learned_from_and_nothing_is_measured(config):
    config = replace(config, slides=(replace(config.slides[0], include=("p0",)),), steps=4)
    steps = list(pretrain(config))
    assert all(step.validation is None for step in steps)
    assert steps[-1].glance is not None
    assert load_model(f"{config.out}/best.safetensors").card.notes.count("step 4")


def test_measured_on_given_slides_that_are_not_learned_from(config, tissue):
    given = (SlideSet(str(tissue / "p3.tif"), 0.25),)
    rest = (replace(config.slides[0], include=("p[012]",)),)
    steps = list(pretrain(replace(config, slides=rest, validate=given, steps=4)))
    assert steps[-1].validation is not None
    with pytest.raises(DataError, match="p3 is both learned from and measured on"):
        next(pretrain(replace(config, validate=given)))


def test_what_was_opened_is_closed_and_what_was_given_stays_open(config, tissue, monkeypatch):
    closed = []
    monkeypatch.setattr(Slide, "close", lambda slide: closed.append(Path(slide.path).stem))
    own = [ScaleSource("own", open_slide(tissue / "p0.tif", mpp_um=0.25))]
    list(pretrain(replace(config, steps=1), own))
    assert closed == []
    run = pretrain(replace(config, steps=2, resume=False))
    next(run)
    run.close()
    assert sorted(closed) == ["p0", "p1", "p2", "p3"]


def test_all_terms_can_be_switched_on_and_off(config):
    losses = dict.fromkeys(("scale_equivariance", "haematoxylin", "self_training"), 0.5)
    (step,) = list(pretrain(replace(config, losses=losses, steps=1)))
    assert set(step.parts) == set(losses)
    assert step.loss == pytest.approx(0.5 * sum(step.parts.values()))
    assert all(np.isfinite(value) for value in step.parts.values())


def test_each_crop_can_be_looked_at_around_its_own_level(config, tissue):
    sources = [ScaleSource("p0", open_slide(tissue / "p0.tif", mpp_um=0.25))]
    batch = ScaleSampler(sources, config, network_spec(config.network)).batch(0)
    shares = {}
    for own in (False, True):
        torch.manual_seed(0)
        learner = Learner(replace(config, own_tau=own), network_spec(config.network, config.params))
        seen = []
        learner.classifier.register_forward_hook(lambda _m, given, _out, seen=seen: seen.append(given[1] > 0.5))
        learner.step(batch, 1)
        examination = Examination(sources, learner.config, network_spec(config.network), held_out=True)
        examination.scores(learner.network, learner.classifier)
        shares[own] = torch.cat(seen).float().mean(dim=(1, 2, 3))
    # Three crops to learn from, six to measure on.
    assert shares[True].tolist() == pytest.approx([0.07] * 9, abs=0.002)
    assert shares[False].std() > 0.01


def test_of_a_few_crops_the_one_with_most_nuclei_is_shown(config, tissue):
    sources = [ScaleSource("p0", open_slide(tissue / "p0.tif", mpp_um=0.25))]
    examination = Examination(sources, config, network_spec(config.network), held_out=False)
    finest = [number for number in range(24) if examination.sampler.picture(number)[1] == 2]
    stain = {number: examination.sampler.crop(number, stained=True)["haematoxylin"].mean() for number in finest}
    assert examination.shown == max(stain, key=stain.get)


def test_second_look_updates_nothing(config, tissue):
    sources = [ScaleSource("p0", open_slide(tissue / "p0.tif", mpp_um=0.25))]
    counts = {}
    for losses in ({"smoothness": 1.0}, {"smoothness": 1.0, "equivariance": 1.0, "scale_equivariance": 1.0}):
        config = replace(config, losses=losses, steps=2, resume=False, learning_rate=0.0)
        list(pretrain(config, sources))
        counts[len(losses)] = state_of(config)["model"]
    assert same(counts[1], counts[3])


def test_learning_rate_drops_to_a_tenth(config):
    config = replace(config, drops=(2, 4))
    assert [config.rate(step) for step in (1, 2, 3, 5)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


def test_starts_from_weights_and_from_a_checkpoint_with_its_classifier(whole, tmp_path):
    config, _ = whole
    still = replace(config, steps=1, learning_rate=0.0, out=str(tmp_path / "still"), resume=False)
    for name, classifier in (("best.safetensors", False), ("last.pt", True)):
        list(pretrain(replace(still, initial=f"{config.out}/{name}")))
        begun, former = state_of(still), state_of(config)
        weight = "attention_net.7.weight"
        assert torch.equal(begun["model"][weight], former["model"][weight])
        assert torch.equal(begun["scale_net"]["linear.weight"], former["scale_net"]["linear.weight"]) == classifier
        card = read_card(f"{still.out}/best.safetensors")
        assert card.training_data[-1].startswith("begun from ")
        # A checkpoint states no licence.
        assert card.commercial_use == (not classifier)


def test_a_model_to_start_from_passes_its_licence_on_also_to_a_run_that_goes_on(whole, tmp_path):
    config, _ = whole
    model = load_model(f"{config.out}/best.safetensors")
    card = replace(model.card, licence="CC-BY-NC-4.0", commercial_use=False)
    model = replace(model, card=card)
    begun = replace(config, out=str(tmp_path / "begun"), initial="is not looked at.safetensors")
    run = pretrain(begun, None, model)
    next(run)
    run.close()
    *_, last = pretrain(begun)
    for found in (last.model.card, read_card(f"{begun.out}/best.safetensors")):
        assert (found.licence, found.commercial_use) == ("CC-BY-NC-4.0 AND CC0-1.0", False)
        assert found.training_data == ("discs, no labels (CC0-1.0)", f"begun from {card.version} (CC-BY-NC-4.0)")


def test_a_run_that_goes_on_with_other_slides_remembers_those_before(config):
    list(pretrain(replace(config, steps=2)))
    other = replace(config.slides[0], licence="CC-BY-NC-4.0", name="others")
    list(pretrain(replace(config, steps=4, slides=(other,))))
    *_, last = pretrain(replace(config, steps=6))
    assert last.model.card.training_data == ("discs, no labels (CC0-1.0)", "others, no labels (CC-BY-NC-4.0)")
    assert not last.model.card.commercial_use


def test_a_run_in_the_current_folder_has_its_name(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(pretrain(replace(config, out=".", steps=1)))
    assert read_card("best.safetensors").name == tmp_path.name


def test_a_run_that_does_not_resume_keeps_weights_when_it_is_stopped(config):
    run = pretrain(replace(config, validate_every=100, checkpoint_every=100, resume=False))
    next(run)
    run.close()
    assert read_card(f"{config.out}/best.safetensors").notes.count("step 1 of 8")
    assert not (Path(config.out) / "last.pt").exists()


@pytest.mark.parametrize("seed", range(4))
def test_a_slide_that_is_too_coarse_is_not_held_out(config, tissue, seed):
    names, coarse = ("p0", "p1"), ("p2", "p3")
    slides = tuple(SlideSet(str(tissue / f"{name}.tif"), 0.25) for name in names)
    slides += tuple(SlideSet(str(tissue / f"{name}.tif"), 0.5) for name in coarse)
    (step,) = pretrain(replace(config, slides=slides, steps=1, seed=seed))
    assert step.validation is not None


def test_what_cannot_be_measured_on_is_named(config, tissue, tmp_path):
    cv2.imwrite(str(tmp_path / "glass.png"), np.full((288, 288, 3), 244, np.uint8))
    config = replace(config, slides=(replace(config.slides[0], include=("p[012]",)),))
    glass, coarse = SlideSet(str(tmp_path / "glass.png"), 0.25), SlideSet(str(tissue / "p3.tif"), 0.5)
    for given, said in ((glass, r"\(glass\).*too little tissue"), (coarse, r"\(p3\).*no slide is as fine as 40x")):
        with pytest.raises(DataError, match=rf"held out to measure on {said}.*\(validate\)"):
            next(pretrain(replace(config, validate=(given,))))


def test_classifier_starts_from_imagenet_weights(config, tmp_path):
    trunk = ResNet34(width=2)
    torch.save(trunk.state_dict(), tmp_path / "resnet.pth")
    config = replace(config, imagenet=str(tmp_path / "resnet.pth"), steps=1, learning_rate=0.0)
    list(pretrain(config))
    assert torch.equal(
        state_of(config)["model"]["feats_net.conv_block.layer2.0.conv1.weight"], trunk.layer2[0].conv1.weight
    )
    assert "ImageNet" in load_model(f"{config.out}/best.safetensors").card.notes


def test_foreign_checkpoints_and_weights_are_refused(whole, tmp_path):
    config, _ = whole
    with pytest.raises(WeightsError, match="another output folder"):
        next(pretrain(replace(config, params={"width": 3})))
    other = replace(config, params={"width": 3}, out=str(tmp_path / "other"))
    for name in ("best.safetensors", "last.pt"):
        with pytest.raises(WeightsError, match="as it is set up"):
            next(pretrain(replace(other, initial=f"{config.out}/{name}")))


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


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"slides": ()}, "name at least one slide"),
        ({"magnifications": (40.0,)}, "at least two magnifications"),
        ({"magnifications": (10.0, 25.0)}, "factors of two, such as 10, 20 and 40, not 10, 25"),
        ({"losses": {"sparsity": 1.0}}, "no loss called sparsity; there are scale"),
        ({"losses": {"scale": 0.0}}, "at least one loss"),
        ({"losses": {"scale": -1.0}}, "at least 0"),
        ({"crop_px": 40}, "the next side is 48"),
        ({"tissue": 2.0}, "tissue must be between 0 and 1"),
        ({"slides": (SlideSet("a", mpp_um=-1.0),)}, "-1.0 micrometres per pixel cannot be right for a"),
        ({"slides": (SlideSet("a", regions=("1,2",)),)}, "1,2 is no region"),
        ({"out": ""}, "name a folder"),
    ],
)
def test_impossible_settings_are_explained(config, changes, sentence):
    with pytest.raises(DataError, match=sentence):
        next(pretrain(replace(config, **changes)))


def test_only_scale_attention_learns_from_scale(config):
    with pytest.raises(ModelError, match="does not learn from magnification"):
        Learner(config, network_spec("nuclei", {"width": 8}))


def test_configuration_is_read_as_it_was_written(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)))
    assert load_scale_config(str(tmp_path / "config.json")) == config
    (tmp_path / "relative.json").write_text(json.dumps({"slides": [{"path": "here"}], "imagenet": "download"}))
    relative = load_scale_config(str(tmp_path / "relative.json"))
    assert relative.slides[0].path == str(tmp_path / "here")
    assert relative.imagenet == "download"


def test_the_level_of_what_is_kept_is_that_of_its_own_weights(config, tissue):
    """The running level lags behind the weights, and it is not that of their moving average."""
    spec = network_spec(config.network, config.params)
    sources = [ScaleSource("p0", open_slide(tissue / "p0.tif", mpp_um=0.25))]
    share, away = 0.2, {}
    for settled in (True, False):
        tried = replace(
            config, settled_tau=settled, ema=0.9, learning_rate=3e-3, params={**config.params, "sparsity": share}
        )
        *_, last = pretrain(replace(tried, out=f"{config.out}-{settled}"), sources)
        sampler = ScaleSampler(sources, tried, spec, stream=7, augmented=False)
        levels = range(tried.magnifications.index(40.0), 60, len(tried.magnifications))
        crops = torch.from_numpy(np.stack([sampler.crop(number)["image"] for number in levels]))
        with torch.no_grad():
            away[settled] = abs(float((last.model.network(crops)["attention"] > 0).float().mean()) - share)
    assert away[True] < 0.05
    assert away[True] < away[False]


def test_setting_the_level_leaves_the_run_as_it_was(config):
    runs = [replace(config, settled_tau=settled, out=f"{config.out}-{settled}") for settled in (True, False)]
    for run in runs:
        list(pretrain(run))
    assert same_run(*runs)
