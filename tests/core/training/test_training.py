"""A training run learns, repeats itself under a seed, resumes, and explains what is wrong with its data."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from napari_nucleiseg.core.errors import DataError, ModelError, WeightsError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import load_model, read_card
from napari_nucleiseg.core.training import checkpoint, loop
from napari_nucleiseg.core.training.batches import BatchMaker
from napari_nucleiseg.core.training.config import AugmentConfig, DataSet, TrainConfig
from napari_nucleiseg.core.training.loop import train

PARAMS = {"width": 8, "depth": 2, "widest": 16}
CALM = AugmentConfig(scale=1, elastic_um=0, stain=0, stain_transfer=0, colour=0, blur_px=0, noise=0, jpeg=0)


def write_pictures(folder, count=3, side=160):
    """Purple discs on pink, with their labels."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        image = np.full((side, side, 3), (230, 190, 215), np.uint8)
        labels = np.zeros((side, side), np.uint16)
        for k in range(1, 30):
            y, x = rng.integers(8, side - 8, 2)
            cv2.circle(labels, (int(x), int(y)), 7, k, -1)
        image[labels > 0] = (90, 50, 130)
        noise = rng.normal(0, 6, image.shape)
        tifffile.imwrite(folder / "images" / f"p{number}.tif", np.clip(image + noise, 0, 255).astype(np.uint8))
        tifffile.imwrite(folder / "labels" / f"p{number}.tif", labels)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def config(pictures, tmp_path):
    data = DataSet(str(pictures), 0.5, licence="CC0-1.0")
    return TrainConfig(
        out=str(tmp_path / "run"),
        params=PARAMS,
        train=(data,),
        validate=(data,),
        steps=6,
        batch_size=2,
        crop_px=64,
        warmup=1,
        validate_every=3,
        device="cpu",
        threads=1,
    )


def final_tensors(config):
    list(train(config))
    return load_model(f"{config.out}/best.safetensors").network.state_dict()


def test_loss_falls_and_nuclei_are_found(config):
    quick = replace(config, steps=60, validate_every=60, learning_rate=1e-2, ema=0.9, warmup=5, augment=CALM)
    steps = list(train(quick))
    first, last = (np.mean([s.loss for s in part]) for part in (steps[:10], steps[-10:]))
    assert last < 0.6 * first
    assert steps[-1].validation["dice"] > 0.8
    assert steps[-1].validation["aji"] > 0.6
    assert set(steps[0].parts) == {"nuclei", "offsets", "distance", "separated"}


def test_slopes_beyond_all_numbers_in_half_precision_are_made_again_in_full(config, tmp_path, monkeypatch):
    seen, device, half = [], torch.device("cpu"), torch.autocast("cpu", torch.bfloat16)

    def spoil(network, batch):
        seen.append(torch.is_autocast_enabled("cpu"))
        if seen[-1]:
            (*_, last) = network.parameters()
            last.register_hook(lambda slope: slope * (float("nan") if network.is_spoilt else 1.0))
        network.is_spoilt = seen[-1]

    def spoilt(spec):
        network = build_network(spec)
        network.register_forward_pre_hook(spoil)
        return network

    calm = replace(config, validate=(), steps=3)
    full = [step.loss for step in train(replace(calm, mixed_precision=False, out=str(tmp_path / "full")))]
    monkeypatch.setattr(loop, "build_network", spoilt)
    monkeypatch.setattr(loop, "training_device", lambda _: (device, half))
    mixed = [step.loss for step in train(calm)]
    # The averaged copy is not asked here: nothing is measured.
    assert seen == [True, False, False, False]
    # Nearly: where memory lies moves the last digit.
    np.testing.assert_allclose(mixed, full, rtol=1e-3)
    weights = load_model(f"{calm.out}/best.safetensors").network.state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_same_seed_same_weights(config, tmp_path):
    first = final_tensors(replace(config, validate=()))
    again = final_tensors(replace(config, validate=(), out=str(tmp_path / "again")))
    other = final_tensors(replace(config, validate=(), out=str(tmp_path / "other"), seed=1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_gradient_descent_with_momentum_is_resumed_too(config):
    config = replace(config, momentum=0.9, learning_rate=1e-3)
    steps = list(train(config))
    state = torch.load(f"{config.out}/last.pt", weights_only=True)["optimiser"]
    assert state["param_groups"][0]["momentum"] == 0.9
    assert len(steps) == 6
    assert [step.step for step in train(replace(config, steps=8))] == [7, 8]


def test_interrupted_run_goes_on_where_it_stopped(config, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY_SECONDS", 0.0)
    whole = final_tensors(replace(config, validate=()))
    cut = replace(config, out=str(tmp_path / "cut"), validate=())
    run = train(cut)
    for _ in range(4):
        next(run)
    run.close()
    rest = list(train(cut))
    assert [step.step for step in rest] == [5, 6]
    resumed = load_model(f"{cut.out}/best.safetensors").network.state_dict()
    assert all(torch.allclose(whole[key].float(), resumed[key].float(), atol=1e-6) for key in whole)


def test_what_is_dropped_out_does_not_depend_on_a_stop(config, tmp_path):
    config = replace(config, network="unet-2015-padded", params={"width": 4, "dropout": 0.5}, validate=())
    whole = [step.loss for step in train(config)]
    cut = replace(config, out=str(tmp_path / "cut"))
    run = train(cut)
    begun = [next(run).loss for _ in range(3)]
    run.close()
    assert begun + [step.loss for step in train(cut)] == pytest.approx(whole, rel=1e-5)


def test_a_stopped_run_keeps_its_last_step_and_weights_to_use(config):
    """Not only that of the last minute, and though nothing was measured yet."""
    run = train(config)
    for _ in range(2):
        next(run)
    run.close()
    assert read_card(Path(config.out) / "best.safetensors").notes.startswith("step 2 of 6")
    rest = list(train(config))
    assert [step.step for step in rest] == [3, 4, 5, 6]
    # The first measurement takes its place, however bad it is.
    assert rest[0].is_best
    assert [step.network is not None for step in rest] == [True, False, False, True]


def test_training_starts_from_given_weights(config, tmp_path):
    before = final_tensors(config)
    still = replace(config, out=str(tmp_path / "second"), initial=f"{config.out}/best.safetensors", steps=1)
    after = final_tensors(replace(still, learning_rate=0.0, params={**PARAMS, "detail": 4}))
    assert all(torch.allclose(after[key], before[key]) for key in before if "running" not in key and "num" not in key)
    assert set(after) > set(before)


def test_given_weights_of_another_network_are_refused(config, tmp_path):
    final_tensors(config)
    start = replace(config, out=str(tmp_path / "second"), initial=f"{config.out}/best.safetensors")
    with pytest.raises(WeightsError, match="does not fit network nuclei"):
        next(train(replace(start, params={**PARAMS, "width": 16})))
    with pytest.raises(WeightsError, match="made for another network than nuclei: it holds encoder"):
        next(train(replace(start, params={**PARAMS, "depth": 1})))


def pickled(_):
    """Return a file that would run something when it is unpickled."""
    return pickle.dumps(Path("harm"), protocol=2)


def test_checkpoint_of_another_network_is_refused(config):
    list(train(replace(config, steps=1)))
    with pytest.raises(WeightsError, match="another output folder"):
        list(train(replace(config, params={**PARAMS, "width": 4})))


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda _: b"nothing of the kind", lambda _: b"", pickled]
)
def test_a_damaged_checkpoint_is_refused_in_a_sentence(config, damage):
    list(train(replace(config, steps=1)))
    path = Path(config.out) / "last.pt"
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(WeightsError, match="another output folder or switch resuming off"):
        list(train(config))
    assert path.read_bytes() == before


def test_full_disk_stops_with_a_sentence_and_keeps_the_last_checkpoint(config, monkeypatch):
    list(train(replace(config, steps=2, validate=())))
    before = (Path(config.out) / "last.pt").read_bytes()

    def full(_state, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")  # what torch says when the disk is full

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(WeightsError, match="Free some space"):
        list(train(replace(config, steps=4, validate=())))
    assert (Path(config.out) / "last.pt").read_bytes() == before


def test_card_names_data_licence_and_scores(config):
    list(train(config))
    card = load_model(f"{config.out}/best.safetensors").card
    assert card.licence == "CC0-1.0"
    assert card.commercial_use
    assert "CC0-1.0" in card.training_data[0]
    assert 0 <= card.metrics["validation"]["aji"] <= 1
    log = [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [3, 6]


def test_one_restricted_data_set_restricts_the_weights(config, pictures):
    restricted = DataSet(str(pictures), 0.5, licence="CC-BY-NC-SA-4.0")
    list(train(replace(config, train=(*config.train, restricted), steps=1, validate=())))
    card = load_model(f"{config.out}/best.safetensors", accept_licence=True).card
    assert not card.commercial_use
    assert "CC-BY-NC-SA-4.0" in card.licence


def test_a_data_set_without_a_licence_makes_that_of_the_weights_unknown(config, pictures):
    unstated = DataSet(str(pictures), 0.5)
    list(train(replace(config, train=(*config.train, unstated), steps=1, validate=())))
    card = read_card(f"{config.out}/best.safetensors")
    assert (card.licence, card.commercial_use) == ("unknown", False)
    assert card.training_data[1].endswith("(licence not stated)")


@pytest.mark.parametrize("stated", [True, False])
def test_what_it_began_with_passes_its_licence_on_also_to_a_run_that_goes_on(config, tmp_path, stated):
    former = replace(config, steps=1, validate=(), out=str(tmp_path / "former"))
    former = replace(former, train=tuple(replace(item, licence="CC-BY-NC-SA-4.0") for item in former.train))
    list(train(former))
    weights = Path(former.out) / "best.safetensors"
    version = read_card(weights).version
    if not stated:
        save_file(load_file(weights), tmp_path / "bare.safetensors")
        weights = tmp_path / "bare.safetensors"
    begun = replace(config, initial=str(weights), validate=())
    run = train(begun)
    next(run)
    run.close()
    weights.unlink()
    list(train(begun))
    card = read_card(f"{begun.out}/best.safetensors")
    assert card.commercial_use is False
    assert card.licence == ("CC-BY-NC-SA-4.0 AND CC0-1.0" if stated else "unknown")
    assert card.training_data[1:] == (
        (f"begun from {version} (CC-BY-NC-SA-4.0)",) if stated else ("begun from bare (unknown)",)
    )


def test_a_run_that_goes_on_with_other_data_remembers_what_it_learned_from_before(config, tmp_path):
    other = DataSet(str(write_pictures(tmp_path / "other", count=1)), 0.5, licence="CC-BY-NC-4.0")
    sessions = [config.train, (other,), config.train]
    for steps, data in enumerate(sessions, start=1):
        list(train(replace(config, train=data, steps=steps, validate=())))
    card = read_card(f"{config.out}/best.safetensors")
    assert (card.licence, card.commercial_use) == ("CC-BY-NC-4.0 AND CC0-1.0", False)
    titles = [f"{data.title} ({data.licence})" for data in (config.train[0], other)]
    assert list(card.training_data) == titles


def test_a_run_in_the_current_folder_has_its_name(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(train(replace(config, out=".", steps=1, validate=())))
    assert read_card("best.safetensors").name == tmp_path.name


def test_a_run_that_does_not_resume_keeps_weights_when_it_is_stopped(config):
    run = train(replace(config, resume=False))
    for _ in range(2):
        next(run)
    run.close()
    assert read_card(Path(config.out) / "best.safetensors").notes.startswith("step 2 of 6")
    assert not (Path(config.out) / "last.pt").exists()


def test_a_licence_that_is_stated_on_going_on_counts(config):
    unstated = replace(config, train=tuple(replace(item, licence="") for item in config.train), validate=())
    run = train(unstated)
    next(run)
    run.close()
    list(train(replace(config, validate=())))
    card = read_card(f"{config.out}/best.safetensors")
    assert (card.licence, card.commercial_use, len(card.training_data)) == ("CC0-1.0", True, 1)


def test_a_run_that_does_not_resume_leaves_nothing_of_another(config):
    list(train(config))
    state = Path(config.out) / "last.pt"
    run = train(replace(config, resume=False, steps=9, seed=2))
    next(run)
    assert not state.exists()
    run.close()
    list(train(replace(config, resume=False)))
    lines = (Path(config.out) / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 6]


def test_weights_of_another_run_are_set_aside_until_this_one_has_its_own(config):
    best, former = (Path(config.out) / name for name in ("best.safetensors", "former-best.safetensors"))
    list(train(config))
    before = best.read_bytes()
    run = train(replace(config, resume=False, seed=2))
    # A run that is killed before it measured leaves no file that is not its own.
    assert [next(run).note, next(run).note] == [
        f"The weights that another run left in {config.out} are called former-best.safetensors now.",
        "",
    ]
    assert (best.exists(), former.read_bytes()) == (False, before)
    run.close()
    assert "seed 2" in read_card(best).notes
    # What it begins with stays where it is, so that the same call can be made again.
    run = train(replace(config, resume=False, initial=str(best)))
    assert "another run" not in next(run).note
    assert "seed 2" in read_card(best).notes
    run.close()
    assert former.read_bytes() == before


def test_weights_of_all_former_runs_are_kept_and_what_a_run_begins_with_stays(tmp_path):
    best, initial = tmp_path / "best.safetensors", tmp_path / "former-best.safetensors"
    told = []
    for run in ("first", "second", "third"):
        best.write_text(run)
        told.append(checkpoint.set_aside(best, str(initial)))
    names = ["former-best.safetensors", "former-best-2.safetensors", "former-best-3.safetensors"]
    assert [sentence.split()[-2] for sentence in told] == names
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict(
        zip(names, ("first", "second", "third"), strict=True)
    )


def test_batches_do_not_depend_on_threads(config):
    maker = BatchMaker(config, network_spec("nuclei", PARAMS))
    one = list(maker.batches(0, 3, workers=1))
    two = list(maker.batches(0, 3, workers=3))
    for left, right in zip(one, two, strict=True):
        assert all(torch.equal(left[key], right[key]) for key in left)


def test_targets_fit_the_crop(config):
    batch = BatchMaker(config, network_spec("nuclei", PARAMS)).batch(0)
    inside = batch["nuclei"] > 0
    assert inside.any()
    assert (batch["distance"][inside] > 0).all()
    assert (batch["separated"][~inside] == 0).all()
    assert batch["image"].shape == (2, 3, 64, 64)
    assert batch["offsets"].abs().max() < 40


@pytest.mark.parametrize("network", ["unet-2015", "unet-2015-padded"])
def test_original_unet_trains_on_its_border_weights(config, network):
    crop_px = 52 if network == "unet-2015" else 64  # 52 + 184 = 188 + 16 * 3
    run = replace(config, network=network, params={"width": 4}, crop_px=crop_px, losses={"separated": 1.0})
    steps = list(train(run))
    assert set(steps[-1].parts) == {"separated"}
    assert steps[-1].validation["dice"] >= 0
    batch = BatchMaker(run, network_spec(network, {"width": 4})).batch(0)
    assert batch["separated"].shape[-1] == crop_px
    assert batch["image"].shape[-1] == crop_px + (184 if network == "unet-2015" else 0)
    assert batch["weights"].max() > 1  # some nuclei lie close together


def test_negative_labels_are_not_annotated(config, tmp_path):
    folder = write_pictures(tmp_path / "sparse", count=1)
    labels = tifffile.imread(folder / "labels" / "p0.tif").astype(np.int32)
    labels[:80] = -1
    tifffile.imwrite(folder / "labels" / "p0.tif", labels)
    maker = BatchMaker(replace(config, train=(DataSet(str(folder), 0.5),)), network_spec("nuclei", PARAMS))
    known = torch.cat([maker.batch(i)["known"] for i in range(6)])
    assert 0.1 < known.mean() < 0.9


def test_unknown_pixel_size_is_taken_from_the_nuclei(pictures, config):
    data = DataSet(str(pictures), None, nucleus_um=7.5)
    maker = BatchMaker(replace(config, train=(data,)), network_spec("nuclei", PARAMS))
    assert maker.sampler.images[0].mpp_um == pytest.approx(0.5, rel=0.2)  # the discs are 15 px wide


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda f: (f / "labels").rename(f / "masks"), "needs two folders"),
        (lambda f: (f / "labels" / "p1.tif").unlink(), "no label image called p1"),
        (lambda f: tifffile.imwrite(f / "labels" / "p1.tif", np.zeros((5, 5), np.uint16)), "its label image"),
        (lambda f: tifffile.imwrite(f / "labels" / "p1.tif", np.zeros((160, 160), np.float32)), "whole numbers"),
        (lambda f: (f / "images" / "p1.tif").write_bytes(b"no picture"), "cannot be read as a picture"),
    ],
)
def test_broken_data_are_explained(config, tmp_path, break_it, words):
    folder = write_pictures(tmp_path / "data")
    break_it(folder)
    with pytest.raises(DataError, match=words):
        next(train(replace(config, train=(DataSet(str(folder), 0.5),))))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": ()}, "at least one data set"),
        ({"crop_px": 50}, "next side that fits is 64"),
        ({"crop_px": 8}, "at least 32"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_impossible_configurations_are_explained(config, changes, words):
    with pytest.raises(DataError, match=words):
        next(train(replace(config, **changes)))


@pytest.mark.parametrize(
    ("network", "losses", "sentence"),
    [
        ("nuclei", {"focal": 1.0}, "network nuclei has no output focal to train: losses can name nuclei, offsets, dis"),
        ("nuclei", {"nuclei": 1.0, "types": 1.0, "focal": 1.0}, "no output focal or types to train"),
        ("unet-2015", {"nuclei": 1.0}, "network unet-2015 has no output nuclei to train: losses can name separated"),
    ],
)
def test_losses_of_outputs_that_are_not_there_are_refused_before_anything_is_written(config, network, losses, sentence):
    with pytest.raises(DataError, match=sentence) as refused:
        next(train(replace(config, network=network, losses=losses)))
    assert "focal_gamma" in str(refused.value)
    assert not Path(config.out).exists()


def test_losses_that_only_other_networks_have_are_passed_over(config):
    run = replace(config, network="unet-2015-padded", params={"width": 4}, steps=1, validate=())
    (step,) = train(replace(run, losses={"separated": 1.0, "offsets": 1.0}))
    assert set(step.parts) == {"separated"}


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, sentence in (("cuda", "has no cuda; choose auto or cpu"), ("abacus", "choose auto, cuda, mps or cpu")):
        with pytest.raises(ModelError, match=sentence):
            next(train(replace(config, device=name)))
    assert not Path(config.out).exists()


@pytest.mark.parametrize(
    ("supported", "wanted", "precision"),
    [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)],
)
def test_a_step_multiplies_in_bfloat16_where_the_hardware_does_and_it_is_wanted(
    config, monkeypatch, supported, wanted, precision
):
    seen = []

    def build(spec):
        network = build_network(spec)
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        first.register_forward_hook(lambda _module, _input, output: seen.append(output.dtype))
        return network

    monkeypatch.setattr(loop, "build_network", build)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    (step,) = train(replace(config, steps=1, validate=(), mixed_precision=wanted))
    assert seen == [precision]
    assert np.isfinite(step.loss)
    weights = load_model(f"{config.out}/best.safetensors").network.state_dict()
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}
