"""Features of any registered network: where they lie, whole or in parts, layers by name."""

import numpy as np
import pytest
import torch

from napari_nucleiseg.core.errors import DataError, ModelError
from napari_nucleiseg.core.fewshot import layers
from napari_nucleiseg.core.fewshot.field import colour_field, field_of, field_steps, layers_of
from napari_nucleiseg.core.fewshot.search import LikeOptions, Mark, find_the_like
from napari_nucleiseg.core.models.encoders import load_encoder
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard, load_model

NAMES = ("nuclei", "nuclei-label-free", "tissue-patches")


def load(name):
    return load_encoder(name) if name == "tissue-patches" else load_model(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_field_lies_on_the_view(two_kinds, name):
    field = field_of(load(name), two_kinds.image, 0.5, origin=(40.0, 60.0))
    assert field.features.shape[1:] == tuple(int(np.ceil(side / field.stride)) for side in field.model_shape)
    assert (field.origin, field.shape) == ((40.0, 60.0), two_kinds.labels.shape)
    assert field.features.dtype == np.float32
    np.testing.assert_allclose(field.features.mean(axis=(1, 2)), 0, atol=1e-4)
    assert field.step.y == pytest.approx(field.stride * field.mpp_um / 0.5, rel=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_discs_of_one_kind_are_found_by_a_networks_features(two_kinds, name):
    field = field_of(load(name), two_kinds.image, 0.5)
    marks = [Mark(two_kinds.point(number)) for number in two_kinds.blue[::12]]
    found = find_the_like(field, two_kinds.labels, marks, LikeOptions("sg-one"))
    highest = found.all_ids[np.argsort(-found.all_scores)][: len(two_kinds.blue)]
    assert np.isin(highest, two_kinds.blue).mean() > 0.9


def test_features_lie_where_the_picture_changes():
    image = np.full((136, 196, 3), 230, np.uint8)
    image[60:76, 90:106] = (80, 60, 130)
    for field in (*(field_of(load(name), image, 0.5) for name in NAMES), colour_field(image, 0.5)):
        # How far each place is from what lies round about; the rim of the picture is left out, which has its own look.
        ring = field.on_view(np.square(field.features).sum(axis=0))[28:108, 58:138]
        weights = np.maximum(ring - np.median(ring), 0)
        middle = [float((place * weights).sum() / weights.sum()) for place in np.indices(ring.shape)]
        assert middle == pytest.approx([39.5, 39.5], abs=1.5), field.layers


def test_parts_of_a_view_make_the_same_field(two_kinds, monkeypatch):
    model = load("nuclei")
    whole = field_of(model, two_kinds.image, 0.5)
    monkeypatch.setattr(layers, "CORE_PX", 96)
    steps = list(field_steps(model, two_kinds.image, 0.5))
    assert [step.done for step in steps] == list(range(1, 10))
    assert [step.field is None for step in steps] == [True] * 8 + [False]
    inner = (slice(None), slice(20, -20), slice(20, -20))
    difference = np.abs(steps[-1].field.features[inner] - whole.features[inner])
    assert np.quantile(difference, 0.99) < 0.15 * whole.features.std()


def test_layers_are_listed_and_taken_by_name(two_kinds):
    model = load("nuclei")
    known = layers_of(model)
    assert known["decoder.1"] == (64, 4)
    assert not any(name.startswith("decoder.1.") for name in known)
    field = field_of(model, two_kinds.image, 0.5, "decoder.1+encoder.2")
    assert (field.channels, field.stride, field.layers) == (192, 4, ("decoder.1", "encoder.2"))
    with pytest.raises(ModelError, match=r"no layer decoder\.9; it has"):
        field_of(model, two_kinds.image, 0.5, "decoder.9")


@pytest.mark.parametrize("name", ["unet-2015", "unet-2015-padded", "nuclei-fine", "scale-attention"])
def test_networks_of_every_kind_have_layers(two_kinds, name):
    spec = network_spec(name)
    torch.manual_seed(0)
    model = LoadedModel(spec, ModelCard(name, name), build_network(spec).eval())
    field = field_of(model, two_kinds.image[:64, :80], 0.5)
    assert field.features.shape[1:] == tuple(int(np.ceil(side / field.stride)) for side in field.model_shape)
    assert np.isfinite(field.features).all()
    assert field.features.any()


def test_the_network_itself_is_left_as_it_was(two_kinds):
    model = load("nuclei")
    field_of(model, two_kinds.image, 0.5)
    assert not any(module._forward_hooks for module in model.network.modules())


def test_an_encoder_of_regions_is_refused():
    with pytest.raises(ModelError, match="choose an encoder of patches"):
        layers_of(load_encoder("tissue-regions"))


@pytest.mark.parametrize(
    ("image", "mpp_um", "said"),
    [
        (np.zeros((4, 4), np.uint8), 0.5, "RGB picture"),
        (np.zeros((4, 4, 3), np.float32), 0.5, "RGB picture"),
        (np.zeros((0, 4, 3), np.uint8), 0.5, "RGB picture"),
        (np.zeros((4, 4, 3), np.uint8), 0.0, "cannot be right"),
    ],
)
def test_what_is_no_view_gets_a_sentence(image, mpp_um, said):
    with pytest.raises(DataError, match=said):
        colour_field(image, mpp_um)
    with pytest.raises(DataError, match=said):
        field_of(load("nuclei"), image, mpp_um)
