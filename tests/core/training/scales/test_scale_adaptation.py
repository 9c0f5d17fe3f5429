"""A model is fitted to a slide without labels, by all weights or by its level alone, and tiles leave no seams."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_nucleiseg.core.errors import DataError, ModelError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.predict import predict
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.scale_attention import with_tau
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard, load_model, save_model
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.scales.adaptation import ADAPTATION, adapt, at_slide_level, tau_of_slide
from napari_nucleiseg.core.training.scales.config import SHAPED


@pytest.fixture
def slide(tissue):
    return open_slide(tissue / "p0.tif", mpp_um=0.25)


def model_of(name="scale-attention-fast", **changes):
    torch.manual_seed(0)
    spec = network_spec(name, {"width": 2})
    spec = replace(spec, **changes)
    card = ModelCard("look", name, dict(spec.params), licence="CC0-1.0", commercial_use=True, sha256="0123456789abcdef")
    return LoadedModel(spec, card, build_network(spec).eval())


@pytest.fixture
def short(config):
    return replace(ADAPTATION, crop_px=32, batch_size=3, steps=2, classifier_width=2, device="cpu", threads=1)


def test_a_fit_gives_a_descendant_that_can_be_kept(slide, short, tmp_path):
    model = model_of()
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    steps = list(adapt(model, slide, [Region(0, 0, 200, 288)], short))
    assert [step.step for step in steps] == [1, 2]
    fitted = steps[-1].model
    assert fitted.card.name == "look"
    assert fitted.card.parent == model.version
    assert fitted.card.taught["slides"][0]["name"] == "p0.tif"
    assert fitted.card.taught["regions"] == [{"y": 0, "x": 0, "height": 200, "width": 288}]
    assert fitted.card.licence == "CC0-1.0"
    assert fitted.version != model.version
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
    assert not torch.equal(fitted.network.attention_net[7].weight, model.network.attention_net[7].weight)
    save_model(tmp_path / "fitted.safetensors", fitted.network, fitted.spec, fitted.card, half=False)
    again = load_model(str(tmp_path / "fitted.safetensors"))
    assert again.version == fitted.version
    set_by_hand = with_tau(fitted, 0.5)
    save_model(tmp_path / "set.safetensors", set_by_hand.network, fitted.spec, set_by_hand.card, half=False)
    assert load_model(str(tmp_path / "set.safetensors")).card.level_is_set


def test_weights_that_were_fitted_have_a_level_that_nobody_set(slide, short):
    *_, last = adapt(with_tau(model_of(), 0.5), slide, config=short)
    assert not last.model.card.level_is_set


def test_a_fit_by_shape_begins_from_what_the_model_looked_at_and_its_level_is_kept(slide, short):
    model = with_tau(model_of(), 0.5)
    gently = replace(short, losses=dict(SHAPED), learning_rate=0.0, steps=1)
    *_, last = adapt(model, slide, config=gently)
    assert last.model.card.level_is_set
    assert float(last.model.network.tau) == 0
    picture = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        raw = [torch.sigmoid(one.network(picture)["attention"]) for one in (model, last.model)]
    # But for the statistics of normalisation, which a step moves, the maps are alike.
    assert float((raw[0] - raw[1]).abs().mean()) < 0.2


def test_a_fit_leaves_files_only_where_it_is_told(slide, short, tmp_path):
    list(adapt(model_of(), slide, config=replace(short, out=str(tmp_path / "kept"))))
    assert (tmp_path / "kept" / "last.pt").exists()


def test_a_fit_states_its_parent_once_and_stopped_it_leaves_nothing(slide, short, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    *_, last = adapt(model_of(), slide, config=short, licence="CC0-1.0")
    assert last.model.card.licence == "CC0-1.0"
    assert last.model.card.training_data == ("p0.tif, no labels (CC0-1.0)",)
    run = adapt(model_of(), slide, config=replace(short, steps=9))
    next(run)
    run.close()
    assert list(tmp_path.iterdir()) == []


def test_licence_of_a_slide_is_added(slide, short):
    *_, last = adapt(model_of(), slide, config=short, licence="CC-BY-NC-4.0")
    assert last.model.card.licence == "CC0-1.0 AND CC-BY-NC-4.0"
    assert not last.model.card.commercial_use


def test_regions_too_small_are_told(slide, short):
    with pytest.raises(DataError, match="no place for crops of 10x"):
        list(adapt(model_of(), slide, [Region(0, 0, 100, 100)], short))
    with pytest.raises(DataError, match="too small"):
        tau_of_slide(model_of(), slide, [Region(0, 0, 8, 8)])


def test_a_coarser_slide_has_fewer_magnifications(tissue, short):
    slide = open_slide(tissue / "p0.tif", mpp_um=0.5)
    *_, last = adapt(model_of(), slide, config=short)
    assert last.model.card.taught["settings"]["magnifications"] == (10.0, 20.0)
    with pytest.raises(DataError, match="too coarse"):
        list(adapt(model_of(), open_slide(tissue / "p0.tif", mpp_um=1.0), config=short))


def test_other_networks_are_told(slide, short):
    spec = network_spec("nuclei", {"width": 8})
    other = LoadedModel(spec, ModelCard("nuclei", "nuclei"), build_network(spec))
    for call in (lambda: list(adapt(other, slide, config=short)), lambda: tau_of_slide(other, slide)):
        with pytest.raises(ModelError, match="no attention to fit"):
            call()


@pytest.mark.parametrize("mpp_um", [0.25, 0.5])
def test_level_of_a_slide_is_exceeded_by_the_stated_share(tissue, mpp_um):
    slide = open_slide(tissue / "p0.tif", mpp_um=mpp_um)
    model = at_slide_level(model_of(), slide)
    picture = slide.read_region(slide.region, (round(288 * mpp_um / 0.25),) * 2)
    x = (torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 - torch.tensor(model.spec.mean).view(3, 1, 1)) / (
        torch.tensor(model.spec.std).view(3, 1, 1)
    )
    with torch.inference_mode():
        share = float((model.network(x)["nuclei"] > 0).float().mean())
    assert share == pytest.approx(0.07, abs=0.02)
    assert tau_of_slide(model_of(), slide, [Region(0, 0, 144, 144)]) != pytest.approx(float(model.network.tau))


@pytest.mark.parametrize("name", ["scale-attention", "scale-attention-fast"])
def test_tiles_leave_no_seams(slide, name):
    small, large = (at_slide_level(model_of(name, tile_px=side, halo_px=112), slide) for side in (96, 288))
    maps = []
    for model in (small, large):
        found = np.zeros(slide.shape, np.float32)
        plan = plan_inference(slide, model.spec)
        for prediction in predict(plan, slide, model, heads=("attention",), device="cpu"):
            core, inside = prediction.tile.core_px, prediction.tile.inside_px
            shifted = core.translate(-inside.y, -inside.x)
            found[core.slices] = prediction.maps["attention"][0][shifted.slices]
        maps.append(found)
    assert maps[1].max() > 0
    # Stored in steps of 1 / 255.
    assert np.abs(maps[0] - maps[1]).max() <= 1
