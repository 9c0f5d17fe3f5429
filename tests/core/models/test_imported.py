"""A network of another program is one of ours: kept in a weight file, copied, moved, run on any tile."""

import copy
from dataclasses import replace

import pytest
import torch

from foreign_package import Rims, torchscript_of
from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.imported import Description, ImportedHead, from_json, is_imported, network_of
from napari_nucleiseg.core.models.registry import network_names, network_spec
from napari_nucleiseg.core.models.weights import ModelCard, load_model, save_model

CONTENT = torchscript_of(Rims())
HEADS = (
    ImportedHead("separated", 0, (0,), less=(0, 1)),
    ImportedHead("maps", 0, (0, 1), title="Both"),
)
GIVEN = Description(
    kind="torchscript",
    size_bytes=len(CONTENT),
    title="Rims",
    mpp_um=0.5,
    heads=HEADS,
    decoder="border",
    white=1.0,
    tile_px=96,
    halo_px=16,
    least_px=32,
)


def expected_of(x):
    dark, rim = Rims()(x / 255).split(1, dim=1)
    return dark * (1 - rim)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.rand(2, 3, 48, 64) * 255


def test_a_description_is_read_back():
    given = replace(GIVEN, before=({"id": "clip", "kwargs": {"min": 0, "max": 1}},))
    assert from_json(given.as_json()) == given


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"heads": [{}]}'])
def test_a_damaged_description_is_said_to_be(text):
    with pytest.raises(ModelError, match="damaged"):
        from_json(text)


def test_heads_are_what_the_channels_say(x):
    maps = network_of(GIVEN, CONTENT)(x)
    assert torch.allclose(torch.sigmoid(maps["separated"]), expected_of(x), atol=1e-5)
    assert torch.allclose(torch.sigmoid(maps["maps"]), Rims()(x / 255), atol=1e-5)


def test_a_copy_says_the_same_and_moves_nothing(x):
    network = network_of(GIVEN, CONTENT)
    before = network(x)["separated"]
    other = copy.deepcopy(network).to(torch.float16).to(memory_format=torch.channels_last)
    assert other.program.dtype == torch.uint8
    assert torch.equal(other(x)["separated"], before)


def test_a_picture_smaller_than_the_network_takes_is_enlarged():
    x = torch.rand(1, 3, 16, 16) * 255
    assert network_of(GIVEN, CONTENT)(x)["separated"].shape == (1, 1, 16, 16)


def test_one_picture_at_a_time_says_the_same(x):
    one = network_of(replace(GIVEN, one_at_a_time=True), CONTENT)
    assert torch.allclose(one(x)["separated"], network_of(GIVEN, CONTENT)(x)["separated"], atol=1e-4)


def test_another_order_of_axes(x):
    class Last(torch.nn.Module):
        def forward(self, values):
            return Rims()(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    content = torchscript_of(Last(), torch.zeros(1, 32, 32, 3))
    given = replace(GIVEN, axes="byxc", output_axes=("byxc",), size_bytes=len(content))
    assert torch.allclose(torch.sigmoid(network_of(given, content)(x)["separated"]), expected_of(x), atol=1e-5)


def test_values_that_are_no_probabilities_are_taken_as_they_are(x):
    heads = (*HEADS, ImportedHead("values", 0, (1,), probability=False))
    maps = network_of(replace(GIVEN, heads=heads), CONTENT)(x)
    assert torch.equal(maps["values"], Rims()(x * (1 / 255))[:, 1:])


def test_outputs_that_are_missing_are_told_of(x):
    with pytest.raises(ModelError, match="1 outputs and not 2"):
        network_of(replace(GIVEN, output_axes=("bcyx", "bcyx"), after=((), ())), CONTENT)(x)


def test_it_is_kept_in_a_weight_file_like_any_other(x, tmp_path):
    network, spec = network_of(GIVEN, CONTENT), GIVEN.spec()
    card = ModelCard("rims", "imported", licence="MIT", commercial_use=True, decoder="border")
    card = save_model(tmp_path / "rims.safetensors", network, spec, card)
    again = load_model(str(tmp_path / "rims.safetensors"))
    assert again.spec == spec
    assert again.spec.params == spec.params
    assert (again.version, is_imported(again.network)) == (card.version, True)
    assert torch.equal(again.network(x)["separated"], network(x)["separated"])


def test_without_weights_there_is_no_such_network():
    assert "imported" not in network_names()
    with pytest.raises(ModelError, match="damaged"):
        network_spec("imported")
