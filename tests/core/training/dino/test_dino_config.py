"""The configuration holds what was published, says what is wrong, and its schedules go where they should."""

import json
from dataclasses import asdict, replace

import pytest

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.training.dino.config import DinoConfig, load_dino_config
from napari_nucleiseg.core.training.dino.schedules import cosine, scheduled
from napari_nucleiseg.core.training.scales.config import SlideSet


def test_published_schedules():
    config = DinoConfig(steps=1000)
    first, risen, last = (scheduled(config, step) for step in (1, 101, 1000))
    assert risen.learning_rate == pytest.approx(5e-4)
    assert 0 < first.learning_rate < 1e-5
    assert last.learning_rate == pytest.approx(1e-6, rel=0.01)
    assert (first.weight_decay, first.ema) == pytest.approx((0.04, 0.996))
    assert (last.weight_decay, last.ema) == pytest.approx((0.4, 1.0), abs=1e-5)
    assert {scheduled(config, step).teacher_temperature for step in (1, 500, 1000)} == {0.04}
    assert [scheduled(config, step).prototypes_frozen for step in (1, 10, 11)] == [True, True, False]


def test_learning_rate_goes_with_the_batch():
    rates = [scheduled(DinoConfig(batch_size=size, warmup=0.0), 1).learning_rate for size in (128, 256)]
    assert rates == pytest.approx([2.5e-4, 5e-4])


def test_temperature_rises_where_it_shall():
    config = DinoConfig(steps=100, first_teacher_temperature=0.02, temperature_warmup=0.5)
    found = [scheduled(config, step).teacher_temperature for step in (1, 26, 51, 100)]
    assert found == pytest.approx([0.02, 0.03, 0.04, 0.04])


def test_cosine_is_half_way_in_the_middle():
    assert [cosine(done, 10, 1.0, 0.0) for done in (0, 5, 10)] == pytest.approx([1, 0.5, 0])


def test_what_is_written_is_read_again_and_paths_are_taken_from_its_folder(tmp_path):
    config = DinoConfig(stage=2, patch_encoder="own.safetensors", slides=(SlideSet("slides"),), params={"depth": 2})
    (tmp_path / "c.json").write_text(json.dumps(asdict(config)))
    found = load_dino_config(str(tmp_path / "c.json"))
    assert found.slides[0].path == str(tmp_path / "slides")
    assert found.patch_encoder == str(tmp_path / "own.safetensors")
    assert replace(found, slides=config.slides, patch_encoder=config.patch_encoder) == config
    (tmp_path / "c.json").write_text('{"patch_encoder": "tissue", "stage": 2}')
    assert load_dino_config(str(tmp_path / "c.json")).patch_encoder == "tissue"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stage": 3}, "stage must be between 1 and 2"),
        ({"stage": 2}, "the encoder of patches that the first has made"),
        ({"patch_encoder": "tissue"}, "choose stage 2"),
        ({"global_scale": (0.9, 0.4)}, "a least and a most share"),
        ({"local_scale": (0.4,)}, "must be 2 numbers"),
        ({"jitter": (0.4, 0.4, 0.2, 0.6)}, "the hue"),
        ({"blur_px": (0.0, 2.0)}, "blur_px must be a least and a most above 0"),
        ({"global_cells": 17}, "larger than regions of 16"),
        ({"global_crops": 1}, "global_crops must be at least 2"),
        ({"out": ""}, "name a folder"),
        ({"slides": (SlideSet("a.svs", 100.0),)}, "cannot be right"),
    ],
)
def test_what_is_wrong_is_a_sentence(change, sentence):
    assert sentence in (replace(DinoConfig(), **change).validation_error() or "")


def test_the_defaults_are_right_and_unknown_fields_are_not(tmp_path):
    assert DinoConfig().validation_error() is None
    (tmp_path / "c.json").write_text('{"epochs": 3}')
    with pytest.raises(DataError, match="unknown fields: epochs"):
        load_dino_config(str(tmp_path / "c.json"))
