"""``pretrain dino`` from the shell: patches, then regions, resumed, and what is wrong is said."""

import json

import pytest

from napari_nucleiseg.core.models.encoders import load_encoder

QUICK = {
    "params": {"embed": 8, "depth": 1, "heads": 2, "input_px": 32, "patch_px": 8, "mpp_um": 0.5},
    "patches": 20,
    "global_px": 16,
    "local_px": 16,
    "local_crops": 1,
    "head_hidden": 8,
    "head_bottleneck": 4,
    "prototypes": 16,
    "batch_size": 2,
    "steps": 2,
    "measured": 2,
    "measure_every": 2,
    "device": "cpu",
    "threads": 1,
}


def test_slides_become_an_encoder_of_patches_then_one_of_regions(shell, slides, quick, tmp_path):
    words = ("pretrain", "dino", slides, "--mpp", 0.5, "--licence", "CC0-1.0")
    answer = shell(*words, *quick, "--json")
    assert answer.status == 0
    weights = tmp_path / "run" / "encoder.safetensors"
    assert answer.document["weights"] == str(weights)
    assert set(answer.document["last"]) == {"loss", "entropy", "used", "feature_std", "held_out"}
    assert "step      2 of 2" in answer.err
    assert "held out:" in answer.err
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (written["slides"][0]["licence"], written["slides"][0]["mpp_um"]) == ("CC0-1.0", 0.5)
    assert "Nothing left to do" in shell(*words, *quick).err
    small = ("--params", "embed=4,depth=1,heads=2", "--region-cells", 4, "--global-cells", 3, "--local-cells", 2)
    second = ("--stage", 2, "--patch-encoder", weights, *small, "--out", tmp_path / "regions", "--json")
    answer = shell(*words, *quick[:2], *second)
    assert answer.status == 0
    regions = load_encoder(tmp_path / "regions" / "encoder.safetensors")
    assert regions.card.features_of == load_encoder(weights).version
    assert regions.card.licence == "CC0-1.0"


def test_flags_override_the_file(shell, slides, quick, tmp_path):
    words = ("--mpp", 0.5, "--steps", 1, "--seed", 3, "--batch-size", 3, "--turns", "--jitter", 0.2, "--jitter", 0.2)
    words = (*words, "--jitter", 0.1, "--jitter", 0.05)
    assert shell("pretrain", "dino", "--slides", slides, *quick, *words).status == 0
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [written[name] for name in ("steps", "seed", "batch_size", "turns")] == [1, 3, 3, True]
    assert written["jitter"] == [0.2, 0.2, 0.1, 0.05]


def test_weights_that_are_not_free_are_asked_for_before_their_features_are(shell, slides, quick, tmp_path):
    assert shell("pretrain", "dino", slides, "--mpp", 0.5, *quick).status == 0  # no licence stated
    small = ("--params", "embed=4,depth=1,heads=2", "--region-cells", 4, "--global-cells", 3, "--local-cells", 2)
    weights = tmp_path / "run" / "encoder.safetensors"
    words = ("pretrain", "dino", slides, "--mpp", 0.5, *quick[:2], "--stage", 2, "--patch-encoder", weights, *small)
    refused = shell(*words, "--out", tmp_path / "regions")
    assert refused.status == 1
    assert "--accept-licence" in refused.err
    assert shell(*words, "--out", tmp_path / "regions", "--accept-licence").status == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "name at least one slide"),
        (("SLIDES",), "does not say how large its pixels are"),
        (("missing.svs",), "missing.svs does not exist"),
        (("SLIDES,mpp_um=0.5", "--stage", "2"), "needs the encoder of patches"),
        (("SLIDES,mpp_um=0.5", "--patch-encoder", "x", "--stage", "2"), "there is no"),
        (("SLIDES,mpp_um=0.5", "--global-px", "20"), "choose 16 or 24"),
        (("SLIDES,mpp_um=0.5", "--params", "embed=8,depth=1,heads=2,mpp_um=0.25"), "no slide is as fine as 0.25"),
        (("SLIDES,mpp_um=0.5", "--params", "embed=8,depth=1,heads=2,mpp_um=0.5"), "no slide has room"),
    ],
)
def test_what_is_wrong_is_said(shell, slides, quick, words, sentence):
    answer = shell("pretrain", "dino", *(word.replace("SLIDES", str(slides)) for word in words), *quick)
    assert answer.status == 1
    assert sentence in answer.err


def test_the_recipe_is_listed_and_explains_its_flags(shell):
    assert "dino" in shell("pretrain", "--help").out
    out = shell("pretrain", "dino", "--help").out
    assert "--teacher-temperature" in out
    assert "--patch-encoder" in out
