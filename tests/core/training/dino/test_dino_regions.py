"""Features of regions are made once, crops of them teach, and the card says whose features they are."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_nucleiseg.core.attention.forward import EncoderForward
from napari_nucleiseg.core.errors import DataError, WeightsError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.encoders import load_encoder
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.dino.grids import GridReader
from napari_nucleiseg.core.training.dino.loop import pretrain
from napari_nucleiseg.core.training.dino.processes import Processes
from napari_nucleiseg.core.training.scales.samples import ScaleSource

SMALL = {"embed": 8, "depth": 1, "heads": 2}


@pytest.fixture
def patches(config, tmp_path):
    """An encoder of patches of 48 px, saved as the first stage leaves it."""
    first = replace(config, out=str(tmp_path / "patches"), steps=1)
    list(pretrain(first))
    return load_encoder(f"{first.out}/encoder.safetensors")


@pytest.fixture
def second(config, tmp_path):
    """The second stage on regions of 4 by 4 patches: a picture of 192 px holds one."""
    stage = {"stage": 2, "patch_encoder": str(tmp_path / "patches" / "encoder.safetensors"), "params": SMALL}
    return replace(config, **stage, region_cells=4, global_cells=3, local_cells=2, regions=3, measured=2)


def test_regions_become_an_encoder_that_says_whose_features_it_reads(second, patches):
    steps = list(pretrain(second))
    assert steps[-1].held_out is not None
    encoder = load_encoder(f"{second.out}/encoder.safetensors")
    assert encoder.spec.name == "hipt-4k"
    assert encoder.card.params == {**SMALL, "features": 16, "input_px": 48, "mpp_um": 0.5, "grid": 3}
    assert encoder.card.features_of == patches.version
    assert encoder.card.training_data == ("discs, no labels (CC0-1.0)", f"features of {patches.version} (CC0-1.0)")
    assert encoder.card.commercial_use
    assert encoder.network(torch.zeros(1, 16, 4, 4)).shape == (1, 8)
    # Three pictures are learned from and one is measured on.
    assert len(list((Path(second.out) / "regions").iterdir())) == 4


def test_features_are_those_of_the_patches_row_by_row_and_made_once(second, patches, two_kinds, monkeypatch):
    source = ScaleSource("p0", open_slide(two_kinds / "p0.tif", mpp_um=0.5))
    (grid,) = GridReader(second, patches, "cpu", Processes()).read([source], 5)
    assert grid.shape == (4, 4, 16)
    pixels = source.slide.read_box(96, 144, 1, 1, (48, 48))
    assert np.allclose(grid[2, 3], EncoderForward(patches, "cpu").features(pixels[None])[0], atol=2e-2)
    monkeypatch.setattr(EncoderForward, "features", lambda *_: pytest.fail("made twice"))
    reader = GridReader(second, patches, "cpu", Processes())
    assert np.array_equal(reader.read([source], 5)[0], grid)


def test_a_damaged_file_of_features_is_made_again(second, patches, two_kinds):
    source = ScaleSource("p0", open_slide(two_kinds / "p0.tif", mpp_um=0.5))
    reader = GridReader(second, patches, "cpu", Processes())
    (grid,) = reader.read([source], 5)
    (path,) = reader.folder.iterdir()
    os.truncate(path, 200)
    assert np.array_equal(reader.read([source], 5)[0], grid)


def test_regions_of_small_pictures_are_smaller(second, patches, two_kinds):
    slide = open_slide(two_kinds / "p0.tif", mpp_um=0.5)
    whole, small = ScaleSource("p0", slide), ScaleSource("part", slide, (Region(0, 0, 100, 150),))
    grids = GridReader(second, patches, "cpu", Processes()).read([whole, small], 1000)
    assert {grid.shape for grid in grids} == {(4, 4, 16), (2, 2, 16)}
    tiny = ScaleSource("part", slide, (Region(0, 0, 90, 150),))
    with pytest.raises(DataError, match="region of 2 by 2 patches: 96 pixels"):
        GridReader(second, patches, "cpu", Processes()).read([tiny], 5)


def test_stopped_and_gone_on_equals_uninterrupted(second, patches, tmp_path):
    steps = list(pretrain(second))
    cut = replace(second, out=str(tmp_path / "cut"))
    run = pretrain(cut, patch_encoder=patches)
    next(run)
    run.close()
    assert [step.loss for step in pretrain(cut)] == [step.loss for step in steps[1:]]


def test_a_run_does_not_go_on_with_features_of_another_encoder(second, patches, config, tmp_path):
    list(pretrain(second))
    other = replace(config, out=str(tmp_path / "others"), steps=1, seed=1)
    list(pretrain(other))
    with pytest.raises(WeightsError, match=f"made from features of {patches.version}"):
        next(pretrain(replace(second, patch_encoder=f"{other.out}/encoder.safetensors")))


@pytest.mark.usefixtures("patches")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"params": {**SMALL, "features": 12}}, "gives 16 features of patches of 48 px"),
        ({"params": {**SMALL, "mpp_um": 0.25}}, "leave features, input_px and mpp_um out"),
    ],
)
def test_what_does_not_fit_is_said(second, change, sentence):
    with pytest.raises(DataError, match=sentence):
        next(pretrain(replace(second, **change)))


@pytest.mark.usefixtures("patches")
def test_an_encoder_of_regions_gives_no_features_of_patches(second, tmp_path):
    list(pretrain(second))
    again = replace(second, patch_encoder=f"{second.out}/encoder.safetensors", out=str(tmp_path / "again"))
    with pytest.raises(DataError, match="is an encoder of regions"):
        next(pretrain(again))
