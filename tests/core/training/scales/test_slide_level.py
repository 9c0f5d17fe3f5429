"""The level of attention that suits a slide: whose model gets it, that it is always the same, and found once."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from broken_levels import broken_above
from dark_attention import BLIND, dark_attention
from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.segment import segment, segment_picture
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.scale_attention import at_level, with_tau
from napari_nucleiseg.core.models.turned import turned
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.tissue import tissue_mask
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.training.scales import slide_level
from napari_nucleiseg.core.training.scales.adaptation import tau_of_slide
from napari_nucleiseg.core.training.scales.slide_level import (
    FULL_WINDOWS,
    OWN_LEVEL,
    WINDOWS,
    SlideLevel,
    choose_windows,
    level_of_slide,
    model_between,
    model_for_slide,
    recorded_level,
)
from unlabelled_parts import tissue_picture, write_slide


@pytest.fixture
def slide(tmp_path):
    """Nuclei on a square of three windows by three, of which many overlap."""
    with closing(open_slide(write_slide(tmp_path / "a.tif", tissue_picture(1, 1536)))) as opened:
        yield opened


@pytest.fixture
def small(tmp_path):
    """One window."""
    with closing(open_slide(write_slide(tmp_path / "small.tif", tissue_picture(1)))) as opened:
        yield opened


def test_a_model_gets_the_level_of_the_slide_and_finds_nuclei_at_it(small):
    model = dark_attention()
    assert segment_picture(small, model, device="cpu").max() == 0
    fitting = model_for_slide(model, small)
    assert segment_picture(small, fitting, device="cpu").max() > 20
    assert fitting.card == model.card
    tau = tau_of_slide(model, small, otsu=True)
    assert float(fitting.network.tau) == pytest.approx(tau, abs=0.0006)
    assert fitting.version == f"{model.version}+level{tau:.3f}"
    assert turned(fitting).version == f"{fitting.version}+turned"
    assert float(model.network.tau) == BLIND


def test_its_own_level_stays_where_that_is_asked_for(small):
    model = dark_attention()
    assert model_for_slide(model, small, "model") is model
    assert level_of_slide(model, small, "model") is None


def test_a_level_that_was_set_is_kept(small):
    model = with_tau(dark_attention(), 3.5)
    assert model.card.level_is_set
    assert model_for_slide(model, small) is model


def test_models_of_other_networks_stay_as_they_are(small):
    spec = network_spec("nuclei", {"width": 8})
    model = LoadedModel(spec, ModelCard("nuclei", "nuclei"), build_network(spec))
    assert model_for_slide(model, small) is model


def test_it_is_the_same_whoever_asks(slide, tmp_path):
    model, threads = dark_attention(), torch.get_num_threads()
    first = model_for_slide(model, slide).version
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        with closing(open_slide(tmp_path / "a.tif")) as again:
            assert model_for_slide(dark_attention(), again).version == first
    finally:
        torch.set_num_threads(threads)


def test_results_that_are_there_say_the_level_to_go_on_with(small, tmp_path):
    model = dark_attention()
    assert recorded_level(None, model) is None
    with Project.create(tmp_path / "p.nucleiseg", small) as project:
        assert recorded_level(project, model) is None
        used = turned(at_level(model, 3.25))
        list(segment(small, used, project, plan_inference(small, model.spec), device="cpu"))
        assert recorded_level(project, model) == 3.25
        assert model_for_slide(model, small, project=project).version == f"{model.version}+level3.250"
        assert level_of_slide(model, replace(small, mpp_um=None), project=project) == 3.25
        other = dark_attention(4.0)
        assert recorded_level(project, other) is None


def test_without_tissue_the_level_is_the_models_own_and_that_is_said(tmp_path):
    glass = np.full((600, 600, 3), 244, np.uint8)
    model, said = dark_attention(), []
    with closing(open_slide(write_slide(tmp_path / "glass.tif", glass))) as slide:
        assert model_for_slide(model, slide, on_message=said.append) is model
    assert said == [OWN_LEVEL]


def test_a_slide_smaller_than_any_window_is_told_like_one_without_tissue(tmp_path):
    model, said = dark_attention(), []
    with closing(open_slide(write_slide(tmp_path / "tiny.tif", tissue_picture(1, 12)))) as slide:
        assert model_for_slide(model, slide, on_message=said.append) is model
    assert said == [OWN_LEVEL]


class Counted(slide_level.Windows):
    """Windows that note which of them were read."""

    def read(self, slide, number):
        READ.append(number)
        return super().read(slide, number)


READ = []


@pytest.fixture
def _counted(monkeypatch):
    READ.clear()

    def choose(*args, **kwargs):
        found = choose_windows(*args, **kwargs)
        return Counted(found.corners, found.side, found.step)

    monkeypatch.setattr(slide_level, "choose_windows", choose)


@pytest.mark.usefixtures("_counted")
def test_stopped_it_goes_on_where_it_was_and_then_knows(slide):
    level = SlideLevel(dark_attention())
    steps = level.look(slide)
    assert [next(steps) for _ in range(3)] == [(0, WINDOWS), (1, WINDOWS), (2, WINDOWS)]
    steps.close()
    assert READ == [0, 1]
    assert level.model.suffix == ""
    assert list(level.look(slide))[-1] == (WINDOWS, WINDOWS)
    assert list(range(WINDOWS)) == READ
    assert list(level.look(slide)) == []
    assert level.model.version == model_for_slide(dark_attention(), slide).version


@pytest.mark.usefixtures("_counted")
def test_the_slower_network_looks_at_fewer_windows(slide):
    model_for_slide(dark_attention(network="scale-attention"), slide)
    assert list(range(FULL_WINDOWS)) == READ


class Torn(slide_level.Windows):
    """Windows of which some cannot be read."""

    torn = frozenset()

    def read(self, slide, number):
        if number in Torn.torn:
            raise OSError("the drive is gone")
        return super().read(slide, number)


def test_what_cannot_be_read_is_left_out_and_looked_at_again_if_it_is_all(slide, monkeypatch):
    whole = choose_windows(dark_attention().spec, slide)
    monkeypatch.setattr(slide_level, "choose_windows", lambda *_a, **_k: Torn(whole.corners, whole.side, whole.step))
    monkeypatch.setattr(Torn, "torn", frozenset(range(WINDOWS)))
    level = SlideLevel(dark_attention())
    with pytest.raises(SlideError, match=r"the drive is gone.*try again"):
        list(level.look(slide))
    assert not level.is_known
    monkeypatch.setattr(Torn, "torn", frozenset({0}))
    level = SlideLevel(dark_attention())
    list(level.look(slide))
    assert level.tau is not None
    assert not level.is_whole


def test_a_window_counts_where_only_a_level_that_is_not_read_is_damaged(small):
    found, wanted = SlideLevel(dark_attention()), SlideLevel(dark_attention())
    tissue = tissue_mask(small)
    list(wanted.look(small, tissue))
    list(found.look(broken_above(small), tissue))
    assert (found.tau, found.note) == (wanted.tau, "")
    assert found.tau is not None


def test_several_slides_teach_at_the_mean_of_their_levels():
    model = dark_attention()
    assert model_between(model, []) is model
    between = model_between(model, [3.0, 4.0])
    assert between.version == f"{model.version}+level3.500"
    assert between.card == model.card
