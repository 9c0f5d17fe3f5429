"""``pretrain mae`` from the shell: slides become an encoder, resumed, and what is wrong is said."""

import json

import pytest

from napari_nucleiseg.core.models.encoders import load_encoder

QUICK = {
    "params": {"embed": 8, "depth": 1, "heads": 2, "input_px": 32, "patch_px": 8, "mpp_um": 0.5},
    "patches": 10,
    "view_px": 24,
    "decoder_embed": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "batch_size": 2,
    "steps": 2,
    "measured": 2,
    "measure_every": 2,
    "device": "cpu",
    "threads": 1,
}


@pytest.fixture
def words(slides, quick):
    return ("pretrain", "mae", slides, "--mpp", 0.5, "--licence", "CC0-1.0", *quick)


def test_slides_become_an_encoder(shell, words, tmp_path):
    answer = shell(*words, "--json", "--mask-share", 0.5)
    assert answer.status == 0, answer.err
    weights = tmp_path / "run" / "encoder.safetensors"
    assert answer.document["weights"] == str(weights)
    assert answer.document["network"] == "hipt-256"
    assert set(answer.document["last"]) == {"loss", "rank", "held_out"}
    assert "step      2 of 2" in answer.err
    assert f"Done. The encoder is {weights}" in answer.err
    assert load_encoder(weights).card.licence == "CC0-1.0"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["mask_share"] == 0.5
    assert "Nothing left to do" in shell(*words, "--mask-share", 0.5).err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [(("--view-px", 20), "the next side that fits is 24"), (("--network", "hipt-4k"), "choose one of patches")],
)
def test_what_is_wrong_is_said(shell, words, more, sentence):
    answer = shell(*words, *more, *(("--params", "input_px=32") if "hipt-4k" in more else ()))
    assert answer.status == 1
    assert sentence in answer.err


def test_the_recipe_is_listed_and_explains_its_flags(shell):
    assert "mae" in shell("pretrain", "--help").out
    told = shell("pretrain", "mae", "--help").out
    assert all(flag in told for flag in ("--mask-share", "--decoder-depth", "--view-px", "--initial"))
