"""Warm starts are learned, repeat themselves, go on where they were left, and say what is wrong."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_nucleiseg.core.errors import DataError, MissingDependencyError, ModelError, WeightsError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.starts import taught_tensors
from napari_nucleiseg.core.models.weights import load_model, load_tensors, read_card
from napari_nucleiseg.core.training.dino.processes import Processes
from napari_nucleiseg.core.training.scales.config import SlideSet
from napari_nucleiseg.core.training.warm.config import METHODS, load_warm_config
from napari_nucleiseg.core.training.warm.learner import Learner
from napari_nucleiseg.core.training.warm.loop import pretrain
from napari_nucleiseg.core.training.warm.views import WarmSamples
from written_run import log_of, of_another, same, state_of


@pytest.mark.parametrize(
    ("method", "part", "falls_by"),
    [
        ("simclr", "encoder", 0.3),
        ("moco", "encoder", 0.3),
        ("swin-unetr", "encoder", 0.3),
        ("masked", "encoder", 0.1),
        ("masked", "network", 0.1),
    ],
)
def test_the_loss_falls(config, method, part, falls_by):
    calm = {"jitter_share": 0.0, "grey": 0.0, "stain": 0.0, "blur": 0.0, "view_scale": (0.8, 1.0), "turns": False}
    config = replace(config, method=method, part=part, **calm, batch_size=16, steps=60, learning_rate=1e-2, memory=128)
    steps = list(pretrain(replace(config, hold_out=0.0, checkpoint_seconds=1e9)))
    losses = [step.loss for step in steps]
    # The memory is full of nothing at first, which is easily told apart.
    first = losses[8:16] if method == "moco" else losses[:4]
    assert np.mean(losses[-8:]) < np.mean(first) - falls_by
    assert steps[-1].parts["rank"] > 1.5


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_gone_on_equals_uninterrupted(config, method, tmp_path):
    whole = replace(config, method=method)
    cut = replace(whole, out=str(tmp_path / "cut"), checkpoint_seconds=1e9)
    steps = list(pretrain(whole))
    run = pretrain(cut)
    for _ in range(3):
        next(run)
    run.close()
    assert state_of(cut)["step"] == 3  # what was cancelled is kept
    assert (Path(cut.out) / "warm.safetensors").exists()
    torch.manual_seed(123)  # whatever else the process did meanwhile
    rest = list(pretrain(cut))
    assert [(step.loss, step.parts) for step in rest] == [(step.loss, step.parts) for step in steps[3:]]
    assert same(state_of(whole), state_of(cut))
    assert log_of(whole) == log_of(cut)
    assert list(pretrain(cut)) == []


def test_a_run_that_goes_on_with_other_slides_remembers_those_before(config):
    list(pretrain(replace(config, steps=2)))
    other = replace(config.slides[0], licence="CC-BY-NC-4.0", name="others")
    list(pretrain(replace(config, slides=(other,))))
    card = read_card(f"{config.out}/warm.safetensors")
    assert card.training_data == ("discs, no labels (CC0-1.0)", "others, no labels (CC-BY-NC-4.0)")
    assert (card.licence, card.commercial_use) == ("CC-BY-NC-4.0 AND CC0-1.0", False)


def test_a_run_that_does_not_resume_keeps_weights_when_it_is_stopped(config):
    run = pretrain(replace(config, resume=False, checkpoint_seconds=1e9))
    next(run)
    run.close()
    assert "step 1 of 4" in read_card(f"{config.out}/warm.safetensors").notes
    assert not (Path(config.out) / "last.pt").exists()


def test_what_cannot_be_measured_on_is_named(config, tmp_path):
    tifffile.imwrite(tmp_path / "glass.tif", np.full((160, 160, 3), 244, np.uint8), photometric="rgb")
    given = (SlideSet(str(tmp_path / "glass.tif"), 0.5),)
    with pytest.raises(DataError, match=r"held out to measure on \(glass\).*too little tissue.*\(validate\)"):
        next(pretrain(replace(config, validate=given)))


def test_same_seed_same_weights(config, tmp_path):
    again, other = replace(config, out=str(tmp_path / "again")), replace(config, out=str(tmp_path / "other"), seed=1)
    for run in (config, again, other):
        list(pretrain(run))
    assert same(state_of(config), state_of(again))
    assert not same(state_of(config)["method"], state_of(other)["method"])


def test_each_step_says_what_it_did(config):
    steps = list(pretrain(replace(config, method="swin-unetr")))
    assert all(set(step.parts) == {"rotation", "contrast", "painting", "rank"} for step in steps)
    terms = [sum(value for name, value in step.parts.items() if name != "rank") for step in steps]
    assert terms == pytest.approx([step.loss for step in steps], rel=1e-5)
    assert [step.held_out is not None for step in steps] == [False, True, False, True]
    logged = [json.loads(line) for line in log_of(config).splitlines()]
    assert [line["step"] for line in logged] == [2, 4]
    assert logged[1]["held_out_loss"] == steps[3].held_out["loss"]


def test_what_is_remembered_are_the_last_keys(config):
    config = replace(config, method="moco")
    seen = []
    for step in pretrain(config):
        memory = state_of(config)["method"]["_extra_state"]
        seen.append((int(memory["pointer"]), memory["bank"].clone()))
        assert memory["bank"].shape == (24, 8)
        assert torch.allclose(memory["bank"].norm(dim=1), torch.ones(24), atol=1e-5)
        assert step.loss > 0
    assert [pointer for pointer, _ in seen] == [8, 16, 0, 8]
    # Each batch takes the place of the oldest and leaves the others.
    assert torch.equal(seen[0][1][8:], seen[1][1][8:].clone().index_copy(0, torch.arange(8), seen[0][1][8:16]))
    assert torch.equal(seen[1][1][:16], seen[2][1][:16])
    assert not torch.equal(seen[2][1][:8], seen[3][1][:8])


def test_the_encoder_of_keys_follows_slowly(config):
    config = replace(config, method="moco", momentum=0.5, steps=2)
    run = pretrain(config)
    next(run)
    first = state_of(config)["method"]
    next(run)
    second = state_of(config)["method"]
    name = "trunk.network.stem.0.weight"
    assert not torch.equal(first[name], first[f"key_{name}"])
    assert torch.allclose(second[f"key_{name}"], 0.5 * first[f"key_{name}"] + 0.5 * first[name], atol=1e-7)


@pytest.mark.parametrize(("method", "part"), [("simclr", "encoder"), ("masked", "network")])
def test_what_is_not_taught_stays_as_it_was_built(config, method, part):
    config = replace(config, method=method, part=part)
    list(pretrain(config))
    path = f"{config.out}/warm.safetensors"
    taught = set(taught_tensors(read_card(path)))
    torch.manual_seed(config.seed)
    fresh = build_network(network_spec("nuclei", config.params)).state_dict()
    found = load_tensors(path)
    changed = {name for name in fresh if not torch.equal(found[name], fresh[name].half().float())}
    assert changed <= taught
    assert {name for name in taught if fresh[name].ndim == 4} <= changed
    assert ("decoder.0.first.0.weight" in taught) == (part == "network")
    assert "head.1.weight" not in taught


def test_the_weights_have_a_card_and_can_be_loaded_as_a_model(config):
    list(pretrain(config))
    model = load_model(f"{config.out}/warm.safetensors")
    assert (model.card.licence, model.card.commercial_use) == ("CC0-1.0", True)
    assert model.card.training_data == ("discs, no labels (CC0-1.0)",)
    assert "not a model of nuclei" in model.card.title
    assert "SimCLR" in model.card.notes
    assert set(model.card.metrics["held out"]) == {"loss", "contrast", "rank"}


def test_a_warm_start_can_go_on_from_another(config, tmp_path):
    slides = (replace(config.slides[0], licence="CC-BY-NC-4.0"),)
    list(pretrain(replace(config, method="masked", slides=slides)))
    path = f"{config.out}/warm.safetensors"
    still = {"learning_rate": 0.0, "weight_decay": 0.0, "last_learning_rate": 0.0}
    second = replace(config, out=str(tmp_path / "second"), initial=path, steps=1, **still)
    list(pretrain(second))
    kept, card = load_tensors(path), read_card(f"{second.out}/warm.safetensors")
    now = state_of(second)["method"]
    assert all(
        torch.equal(kept[name], now[f"trunk.network.{name}"]) for name in taught_tensors(card) if kept[name].ndim == 4
    )
    assert (card.licence, card.commercial_use) == ("CC-BY-NC-4.0 AND CC0-1.0", False)


def test_a_checkpoint_has_its_keys_and_one_of_another_run_is_told(config):
    list(pretrain(replace(config, steps=1)))
    keys = of_another(config, kind="moco of the network of nuclei")
    assert keys == ["step", "scores", "learned", "kind", "method", "optimiser"]
    with pytest.raises(WeightsError, match=r"resuming off \(it is one of moco of the network of nuclei\)"):
        next(pretrain(config))


def test_foreign_checkpoints_are_refused(config):
    list(pretrain(config))
    for other in ({"hidden": 17}, {"method": "masked"}, {"network": "nuclei-fine"}):
        with pytest.raises(WeightsError, match="another output folder"):
            next(pretrain(replace(config, **other)))
    Path(f"{config.out}/last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="another output folder"):
        next(pretrain(config))


@pytest.mark.parametrize(("method", "package"), [("simclr", "lightly"), ("moco", "lightly"), ("swin-unetr", "monai")])
def test_a_missing_library_is_named(config, monkeypatch, method, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"the method {method} needs {package}: .*nucleiseg\[zoo\]"):
        next(pretrain(replace(config, method=method)))


def test_covering_needs_no_library(config, monkeypatch):
    for package in ("lightly", "monai"):
        monkeypatch.setitem(sys.modules, package, None)
    assert next(pretrain(replace(config, method="masked"))).loss > 0


def test_a_network_that_loses_a_margin_is_given_wider_views(config):
    config = replace(config, network="unet-2015", params={"width": 2}, view_px=4, mask_px=4, patch_px=220, steps=1)
    config = replace(config, slides=(replace(config.slides[0], mpp_um=1.0),), params={"width": 2})
    learner = Learner(replace(config, view_px=4), "cpu", Processes())
    assert learner.view_px == 188
    with pytest.raises(DataError, match="loses a margin"):
        Learner(replace(config, method="masked"), "cpu", Processes())


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"method": "byol"}, DataError, "method must be simclr, moco, swin-unetr or masked"),
        ({"part": "decoder"}, DataError, "part must be encoder or network"),
        ({"part": "network"}, DataError, "simclr teaches the encoder only"),
        ({"view_px": 40}, DataError, "next side that fits is 64"),
        ({"mask_px": 7}, DataError, "no multiple of blocks of 7"),
        ({"steps": 0}, DataError, "steps must be at least 1"),
        ({"jitter": (0.1,)}, DataError, "jitter must be 4 numbers"),
        ({"jitter": (0.1, 0.1, 2.0, 0.1)}, DataError, "jitter must lie between"),
        ({"view_scale": (0.5, 0.2)}, DataError, "view_scale must be a least and a most"),
        ({"blur_px": (0.0, 1.0)}, DataError, "blur_px must be a least and a most"),
        ({"slides": ()}, DataError, "name at least one slide"),
        ({"out": ""}, DataError, "name a folder"),
        ({"network": "resnet"}, ModelError, "no network called resnet"),
        ({"network": "v-net", "params": {}}, DataError, "reads stacks"),
        ({"patch_px": 512}, DataError, "has room"),
        ({"initial": "nowhere.safetensors"}, WeightsError, "there is no weight file"),
    ],
)
def test_what_is_wrong_is_said(config, change, error, sentence):
    with pytest.raises(error, match=sentence):
        next(pretrain(replace(config, **change)))


def test_a_file_gives_the_settings(config, tmp_path):
    (tmp_path / "tissue").mkdir()
    raw = {"method": "moco", "slides": [{"path": "tissue"}], "initial": "start.safetensors", "jitter": [0.1, 0.1, 0, 0]}
    (tmp_path / "warm.json").write_text(json.dumps(raw))
    found = load_warm_config(str(tmp_path / "warm.json"))
    assert found.slides[0].path == str(tmp_path / "tissue")
    assert found.initial == str(tmp_path / "start.safetensors")
    assert found.jitter == (0.1, 0.1, 0, 0)


@pytest.mark.slow
def test_two_processes_remember_the_keys_of_both(config, tmp_path):
    config = replace(config, method="moco", steps=2, hold_out=0.25)
    (tmp_path / "both.json").write_text(json.dumps(asdict(config)))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    tests = Path(__file__).parents[3]
    code = f"import sys; sys.path.insert(0, {str(tests)!r}); import torchvision_shim; torchvision_shim.import_timm()"
    code += "; from napari_nucleiseg.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "pretrain", "contrastive", "--config", str(tmp_path / "both.json")]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [{**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    running = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for env in ranks]
    told = [process.communicate(timeout=200)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    assert int(state_of(config)["method"]["_extra_state"]["pointer"]) == 16  # 8 a step, 4 of each process


def test_views_whose_covered_parts_are_filled_keep_their_colours(config):
    patches = np.zeros((1, 48, 48, 3), np.uint8)
    patches[..., 0] = 200
    for method, is_grey in (("masked", False), ("simclr", True)):
        grey = replace(config, method=method, grey=1.0, jitter_share=0.0)
        (view, *_), _ = WarmSamples(patches, grey, 32).crops(np.random.default_rng(0))
        assert bool((np.ptp(view, axis=2) == 0).all()) == is_grey
