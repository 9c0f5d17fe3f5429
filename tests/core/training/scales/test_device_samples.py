"""Crops made where the network is are those that the processor makes, but for roundings."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.scales import device_samples, loop
from napari_nucleiseg.core.training.scales.config import SlideSet
from napari_nucleiseg.core.training.scales.device_samples import DeviceScaleBatches, can_make, parts_of
from napari_nucleiseg.core.training.scales.learner import Learner
from napari_nucleiseg.core.training.scales.samples import ScaleSampler, ScaleSource
from napari_nucleiseg.core.training.scales.sources import open_sources
from unlabelled_parts import tissue_picture, write_slide

SPEC = network_spec("scale-attention")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PLAIN = {"reinhard": 0.0, "hed_jitter": 0.0}


@pytest.fixture
def sources(tissue):
    return open_sources([SlideSet(str(tissue), 0.25)])


def both(sources, config, number=0, **options):
    """Batch `number` of the processor and of the device."""
    sampler = ScaleSampler(sources, config, SPEC, **options)
    return sampler.batch(number), DeviceScaleBatches(sampler, CPU).batch(number)


def apart(first, second):
    """How far the colours of two batches differ, in levels of 255."""
    std = torch.tensor(SPEC.std).view(1, 3, 1, 1) * 255
    return ((first["image"] - second["image"]) * std).abs()


@pytest.mark.parametrize("number", [0, 3])
def test_what_is_read_is_the_same(config, sources, number):
    # 48 crops: each magnification in each of its eight positions, from four pictures.
    first, second = both(sources, replace(config, batch_size=48, **PLAIN), number)
    assert first.keys() == second.keys() == {"image", "level"}
    assert torch.equal(first["image"], second["image"])
    assert torch.equal(first["level"], second["level"])


def test_the_levels_of_a_pyramid_are_read_as_crops_read_them(config, tmp_path, monkeypatch):
    monkeypatch.setattr(device_samples, "_STRIP", 100)
    slide = open_slide(write_slide(tmp_path / "slide.tif", tissue_picture(1, 1536)))
    assert len(slide.levels) > 1
    first, second = both([ScaleSource("slide", slide)], replace(config, batch_size=24, **PLAIN))
    assert torch.equal(first["image"], second["image"])


def test_colours_change_as_on_the_processor(config, sources):
    """Tables give what OpenCV does of each colour, exactly.

    Means and spreads are summed up in float32 there and in float64 here: where a value of L, a or b lies next to a
    whole number it may be cut to the one below, and all pixels of that value differ by one step of it.
    """
    config = replace(config, batch_size=24, crop_px=64, hed_jitter=0.03)
    for share in (1.0, 0.5):
        off = apart(*both(sources, replace(config, reinhard=share)))
        assert (off > 0.5).float().mean() < 0.02
        assert off.mean() < 0.05
        assert off.max() < 12
    # Without it only the last digit of an exponential function is rounded.
    off = apart(*both(sources, replace(config, reinhard=0.0)))
    assert (off > 0.5).float().mean() < 1e-3
    assert off.max() < 1.01
    # The comparison means something: jitter alone moves colours by more than that.
    still = both(sources, replace(config, **PLAIN))[1]
    assert apart(still, both(sources, replace(config, reinhard=0.0))[1]).mean() > 1


def test_measured_crops_are_not_jittered_here_either(config, sources):
    config = replace(config, reinhard=0.0, hed_jitter=0.2, batch_size=12)
    first, second = both(sources, config, stream=1, augmented=False)
    assert torch.equal(first["image"], second["image"])


def test_haematoxylin_comes_along_where_the_loss_asks_for_it(config, sources):
    config = replace(config, losses={"haematoxylin": 1.0}, batch_size=12)
    first, second = both(sources, replace(config, **PLAIN))
    assert second["haematoxylin"].shape == (12, 1, 32, 32)
    assert torch.allclose(first["haematoxylin"], second["haematoxylin"], atol=1e-5)


def test_a_batch_is_a_function_of_its_number(config, sources):
    made, again = (DeviceScaleBatches(ScaleSampler(sources, config, SPEC), CPU) for _ in range(2))
    first, other = made.batch(3), made.batch(4)
    assert torch.equal(first["image"], again.batch(3)["image"])
    assert not torch.equal(first["image"], other["image"])
    assert first["image"].is_contiguous(memory_format=torch.channels_last)


def test_regions_are_kept_apart_and_crops_stay_in_them(config, tissue):
    picture = open_slide(tissue / "p0.tif", mpp_um=0.25)
    even = (Region(8, 16, 140, 152), Region(100, 4, 160, 280))
    first, second = both([ScaleSource("", picture, even)], replace(config, batch_size=24, **PLAIN))
    assert torch.equal(first["image"], second["image"])
    # One that begins between two pixels of a crop: its first whole one is the first that is kept.
    odd = Region(9, 18, 140, 152)
    sampler = ScaleSampler([ScaleSource("", picture, (odd,))], replace(config, **PLAIN), SPEC)
    begins = []
    for (places,) in sampler.places:
        (part,), which = parts_of(places, 32)
        assert which.tolist() == [0] * len(places.corners)
        assert part.y % places.factor == part.x % places.factor == 0
        assert odd.contains(Region(part.y, part.x, part.height * places.factor, part.width * places.factor))
        begins.append((part.y, part.x))
    off = apart(sampler.batch(0, 24), DeviceScaleBatches(sampler, CPU).batch(0, 24)).amax(dim=(1, 2, 3))
    choices = [sampler.choose(number) for number in range(24)]
    moved = [choice.y < begins[choice.level][0] or choice.x < begins[choice.level][1] for choice in choices]
    assert 0 < sum(moved) < 16
    assert ((off > 0).numpy() == moved).all()


def test_crops_are_made_on_a_gpu_where_the_slides_fit_into_its_memory(config, sources):
    sampler = ScaleSampler(sources, config, SPEC)
    assert can_make(sampler, CUDA)
    assert not can_make(sampler, CPU)
    pixels = 4 * 288**2 * (1 + 1 / 4 + 1 / 16)
    assert can_make(sampler, CUDA, most_bytes=int(4 * pixels))
    assert not can_make(sampler, CUDA, most_bytes=int(4 * pixels) - 1)
    assert len(DeviceScaleBatches(sampler, CPU).pool) == pixels
    assert not can_make(ScaleSampler(sources, replace(config, losses={"shape": 1.0}), SPEC), CUDA)


def test_pretraining_takes_them_and_learns_the_same(config, monkeypatch):
    config, asked = replace(config, steps=3, losses={"scale": 1.0, "smoothness": 1.0}, **PLAIN), []
    expected = [step.loss for step in loop.pretrain(replace(config, out=f"{config.out}-cpu"))]
    monkeypatch.setattr(loop, "can_make", lambda _sampler, device: asked.append(device) or True)
    assert [step.loss for step in loop.pretrain(config)] == expected
    assert asked == [CPU]
    assert np.isfinite(expected).all()


def test_a_step_waits_for_the_device_only_to_report(config, sources, monkeypatch):
    spec = network_spec(config.network, config.params)
    config = replace(config, own_tau=True, losses={"scale": 1.0, "smoothness": 1.0, "equivariance": 1.0})
    learner, batch = Learner(config, spec), ScaleSampler(sources, config, spec).batch(0)

    def waited(*_):
        raise AssertionError("a number was asked for")

    with monkeypatch.context() as patched:
        for name in ("__bool__", "__float__", "__int__", "item", "tolist"):
            patched.setattr(torch.Tensor, name, waited)
        terms, accuracy = learner.terms(batch, 1)
    assert {name: value.shape for name, value in (terms | accuracy).items()} == dict.fromkeys(
        ("scale", "smoothness", "equivariance", "accuracy"), ()
    )
    assert all(isinstance(value, float) for value in learner.step(batch, 2).values())
