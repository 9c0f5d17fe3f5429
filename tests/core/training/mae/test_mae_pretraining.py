"""Masked autoencoders learn, repeat themselves, go on where they were left, and give an encoder to start from."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_nucleiseg.core.errors import DataError, ModelError, WeightsError
from napari_nucleiseg.core.models.encoders import load_encoder
from napari_nucleiseg.core.models.weights import load_tensors
from napari_nucleiseg.core.teaching.heads.config import HeadTeachConfig
from napari_nucleiseg.core.teaching.heads.painted import PaintedPatch
from napari_nucleiseg.core.teaching.heads.teach import teach_head
from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.dino.loop import pretrain as distil
from napari_nucleiseg.core.training.mae.config import load_mae_config
from napari_nucleiseg.core.training.mae.loop import pretrain
from torchvision_shim import import_timm
from written_run import log_of, of_another, same, state_of

TIMM = {"model_name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1}


def weights_of(config):
    return Path(config.out) / "encoder.safetensors"


def test_the_loss_falls_below_that_of_flat_tokens(config):
    config = replace(
        config, steps=120, batch_size=16, learning_rate=256 / 16 * 4e-3, view_scale=(0.8, 1.0), turns=False
    )
    steps = list(pretrain(replace(config, hold_out=0.0, checkpoint_seconds=1e9, mask_share=0.5)))
    losses = [step.loss for step in steps]
    # The mean of each token would have 1.
    assert np.mean(losses[:4]) > 0.95
    assert np.mean(losses[-8:]) < 0.85
    assert steps[-1].parts["rank"] > 1.2


def test_stopped_and_gone_on_equals_uninterrupted(config, tmp_path):
    cut = replace(config, out=str(tmp_path / "cut"), checkpoint_seconds=1e9)
    steps = list(pretrain(config))
    run = pretrain(cut)
    for _ in range(3):
        next(run)
    run.close()
    assert state_of(cut)["step"] == 3  # what was cancelled is kept
    assert weights_of(cut).exists()
    torch.manual_seed(123)  # whatever else the process did meanwhile
    rest = list(pretrain(cut))
    assert [(step.loss, step.parts) for step in rest] == [(step.loss, step.parts) for step in steps[3:]]
    assert same(state_of(config), state_of(cut))
    assert log_of(config) == log_of(cut)
    assert list(pretrain(cut)) == []


def test_same_seed_same_weights(config, tmp_path):
    again, other = replace(config, out=str(tmp_path / "again")), replace(config, out=str(tmp_path / "other"), seed=1)
    for run in (config, again, other):
        list(pretrain(run))
    assert same(state_of(config), state_of(again))
    assert not same(state_of(config)["autoencoder"], state_of(other)["autoencoder"])


def test_each_step_says_what_it_did(config):
    steps = list(pretrain(config))
    assert [(step.step, step.total) for step in steps] == [(number, 4) for number in range(1, 5)]
    assert [step.held_out is not None for step in steps] == [False, True, False, True]
    assert set(steps[1].held_out) == {"loss", "rank"}
    assert all(step.saved for step in steps)
    logged = [json.loads(line) for line in log_of(config).splitlines()]
    assert [line["step"] for line in logged] == [2, 4]
    assert logged[1]["held_out_loss"] == steps[3].held_out["loss"]


def test_the_encoder_has_a_card_and_describes_patches(config):
    list(pretrain(config))
    encoder = load_encoder(weights_of(config))
    assert encoder.spec.name == "hipt-256"
    assert encoder.card.params == {**config.params, "grid": 4}
    assert (encoder.card.licence, encoder.card.commercial_use) == ("CC0-1.0", True)
    assert encoder.card.training_data == ("stripes, no labels (CC0-1.0)",)
    assert "masked autoencoder (He et al., CVPR 2022); step 4 of 4" in encoder.card.notes
    learned = state_of(config)["autoencoder"]
    kept = encoder.network.state_dict()
    assert all(torch.equal(kept[name], learned[f"encoder.{name}"].half().float()) for name in kept)
    assert encoder.network(torch.zeros(1, 3, 48, 48)).shape == (1, 16)


def test_self_distillation_can_begin_with_it(config, tmp_path):
    list(pretrain(config))
    still = {"learning_rate": 0.0, "last_learning_rate": 0.0, "weight_decay": 0.0, "last_weight_decay": 0.0}
    second = DinoConfig(
        out=str(tmp_path / "dino"), params=config.params, slides=config.slides, initial=str(weights_of(config)),
        steps=1, patches=8, global_px=32, local_px=16, local_crops=1, head_hidden=8, head_bottleneck=4, prototypes=16,
        batch_size=2, measured=2, device="cpu", threads=1, drop_path=0.0, **still,
    )  # fmt: skip
    list(distil(second))
    assert same(load_tensors(weights_of(second)), load_tensors(weights_of(config)))


def test_a_head_of_it_can_be_taught(config):
    list(pretrain(config))
    encoder = load_encoder(weights_of(config))
    rng = np.random.default_rng(0)
    look = np.zeros((6, 6), np.float32)
    look[:3] = 1.0
    patches = [
        PaintedPatch(rng.integers(0, 255, (48, 48, 3)).astype(np.uint8), look, 1 - look, group=str(number))
        for number in range(6)
    ]
    steps = list(teach_head(encoder, patches, None, HeadTeachConfig(head=1, steps=2, validate_every=1, threads=1)))
    assert steps[-1].outcome is not None
    assert steps[-1].outcome.encoder.card.network == "hipt-256"


def test_it_goes_on_from_weights_and_passes_their_licence_on(config, tmp_path):
    slides = (replace(config.slides[0], licence="CC-BY-NC-4.0"),)
    list(pretrain(replace(config, slides=slides)))
    still = {"learning_rate": 0.0, "weight_decay": 0.0}
    second = replace(config, out=str(tmp_path / "second"), initial=str(weights_of(config)), steps=1, **still)
    list(pretrain(second))
    assert same(load_tensors(weights_of(second)), load_tensors(weights_of(config)))
    card = load_encoder(weights_of(second), accept_licence=True).card
    assert (card.licence, card.commercial_use) == ("CC-BY-NC-4.0 AND CC0-1.0", False)
    assert any("begun from run@" in item for item in card.training_data)


def test_an_encoder_of_timm_learns_too(config):
    import_timm()
    pytest.importorskip("lightly", reason="the extra zoo is not installed")
    params = {**TIMM, "num_heads": 4, "mpp_um": 0.5}
    steps = list(pretrain(replace(config, network="timm", params=params, steps=2)))
    assert all(np.isfinite(step.loss) for step in steps)
    encoder = load_encoder(weights_of(config))
    assert encoder.card.params == params
    assert encoder.network(torch.zeros(1, 3, 32, 32)).shape == (1, 24)


def test_a_checkpoint_has_its_keys_and_one_of_another_run_is_told(config):
    list(pretrain(replace(config, steps=1)))
    keys = of_another(config, kind="moco of the encoder of nuclei")
    assert keys == ["step", "scores", "learned", "kind", "autoencoder", "optimiser"]
    with pytest.raises(WeightsError, match=r"resuming off \(it is one of moco of the encoder of nuclei\)"):
        next(pretrain(config))


def test_foreign_checkpoints_are_refused(config):
    list(pretrain(config))
    for other in ({"decoder_depth": 2}, {"params": {**config.params, "embed": 8}}):
        with pytest.raises(WeightsError, match="another output folder"):
            next(pretrain(replace(config, **other)))
    with pytest.raises(WeightsError, match="does not fit the network hipt-256"):
        next(
            pretrain(
                replace(config, resume=False, initial=str(weights_of(config)), params={**config.params, "depth": 1})
            )
        )


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"view_px": 36}, DataError, "the next side that fits is 40"),
        ({"view_px": 8}, DataError, "the next side that fits is 16"),
        ({"params": {"width": 3}}, ModelError, "cannot be built"),
        ({"network": "nuclei"}, ModelError, "no encoder called nuclei"),
        ({"network": "hipt-4k", "params": {}}, DataError, "choose one of patches, such as hipt-256"),
        ({"slides": ()}, DataError, "name at least one slide"),
        ({"mask_share": 1.0}, DataError, "mask_share must be"),
        ({"decoder_embed": 18}, DataError, "decoder_embed must be a multiple of 4 and of the 2 heads"),
        ({"view_scale": (0.5, 0.2)}, DataError, "view_scale must be a least and a most"),
        ({"out": ""}, DataError, "name a folder"),
    ],
)
def test_what_is_wrong_is_said(config, change, error, sentence):
    with pytest.raises(error, match=sentence):
        next(pretrain(replace(config, **change)))


def test_our_transformer_needs_no_library(config, monkeypatch):
    for package in ("lightly", "timm"):
        monkeypatch.setitem(sys.modules, package, None)
    assert next(pretrain(config)).loss > 0


def test_a_configuration_is_read_from_a_file(config, tmp_path):
    path = tmp_path / "mae.json"
    path.write_text(json.dumps({**asdict(config), "initial": "start.safetensors"}))
    found = load_mae_config(str(path))
    assert found == replace(config, initial=str(tmp_path / "start.safetensors"))
