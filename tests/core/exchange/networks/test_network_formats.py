"""Exported models say what the model says, on every size and number of pictures, or no file is left."""

import copy
import importlib
import json
import re
import sys
import zipfile

import pytest
import torch
from torch import nn

from foreign_package import Rims, torchscript_of
from napari_nucleiseg.core.errors import ExportError, MissingDependencyError
from napari_nucleiseg.core.exchange.networks import exported, formats, torchscript
from napari_nucleiseg.core.exchange.networks.formats import NETWORK_FORMATS, export_model, network_format_of
from napari_nucleiseg.core.models.imported import Description, ImportedHead, network_of
from napari_nucleiseg.core.models.programs import TORCHSCRIPT, open_program, torchscript_allowed
from napari_nucleiseg.core.models.weights import LoadedModel
from small_models import SMALL, small_model


@pytest.mark.parametrize("name", SMALL)
def test_torchscript_of_every_network_says_the_same(name, tmp_path):
    made = small_model(name)
    path = export_model(made, tmp_path / "a", "torchscript")
    side = exported.side_near(made.spec, 100)
    x = torch.rand(3, 3, side, side + 2 * made.spec.size_multiple) * 255
    mean, std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (made.spec.mean, made.spec.std))
    with torch.inference_mode():
        maps = made.network((x - mean) / std)
        found = open_program(TORCHSCRIPT, path.read_bytes())(x)
    for head, one in zip(made.spec.heads, found, strict=True):
        raw = maps[head.name]
        expected = torch.sigmoid(raw) if head.activation == "sigmoid" else raw
        assert torch.allclose(one, expected, atol=1e-4), head.name


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_onnx_of_every_network_says_the_same(name, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    assert export_model(small_model(name), tmp_path / "a", "onnx").stat().st_size > 1000


def test_trial_pictures_are_of_several_sizes_and_numbers(model):
    shapes = [picture.shape for picture in exported.trial_inputs(model.spec)]
    assert len(set(shapes)) == 3
    assert {shape[0] for shape in shapes} == {1, 2}
    assert all(side % model.spec.size_multiple == 0 for shape in shapes for side in shape[2:])


def other_weights(model):
    """A copy of a model one of whose weights is another."""
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        network.head[1].bias.add_(0.01)
    return LoadedModel(model.spec, model.card, network)


@pytest.mark.parametrize("form", ["torchscript", "bioimageio"])
def test_a_file_that_says_something_else_is_not_left(model, tmp_path, monkeypatch, form):
    whole = torchscript.encode
    monkeypatch.setattr(torchscript, "encode", lambda made, **given: whole(other_weights(made), **given))
    with pytest.raises(ExportError, match="says something else than the model"):
        export_model(model, tmp_path / "a", form)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_damaged_is_not_left(model, tmp_path, monkeypatch):
    whole = torchscript.encode
    monkeypatch.setattr(torchscript, "encode", lambda made, **given: whole(made, **given)[:-200])
    with pytest.raises(Exception, match="damaged"):
        export_model(model, tmp_path / "a", "torchscript")
    assert list(tmp_path.iterdir()) == []


class Fixed(nn.Module):
    """Says the same as long as the picture is as large as when it was traced."""

    def forward(self, x):
        return {"nuclei": x[:, :1, : int(x.shape[2]), : int(x.shape[3])] + torch.zeros(1, 1, int(x.shape[2]), 1)}


def test_a_network_that_was_traced_for_one_size_only_is_refused(model, tmp_path):
    spec = model.spec
    spec = type(spec)("fixed", "Fixed", 0.5, (spec.heads[0],), "watershed", tile_px=64, halo_px=16, size_multiple=32)
    with pytest.raises(ExportError, match="does not run on 1 x 3 x 64 x 64"):
        export_model(LoadedModel(spec, model.card, Fixed().eval()), tmp_path / "a", "torchscript")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(model, tmp_path):
    path = export_model(model, tmp_path, "torchscript")
    assert path == tmp_path / "small-nuclei.pt"
    before = path.read_bytes()
    with pytest.raises(ExportError, match="is there already and stays as it is"):
        export_model(model, tmp_path, "torchscript")
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_told_of(model, tmp_path):
    with pytest.raises(ExportError, match="cannot be written"):
        export_model(model, tmp_path / "no such folder" / "a.pt", "torchscript")


def test_an_unknown_format_is_refused(model, tmp_path):
    with pytest.raises(ExportError, match="bioimageio, torchscript, onnx"):
        export_model(model, tmp_path / "a", "keras")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_onnx_says_what_to_install(model, tmp_path, monkeypatch, missing):
    if missing == "onnxscript":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'napari-nucleiseg\[exchange\]'"):
        export_model(model, tmp_path / "a", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_licence_and_training_data_stay_in_the_file(tmp_path):
    made = small_model(licence="CC-BY-NC-4.0", commercial_use=False)
    path = export_model(made, tmp_path / "a", "torchscript")
    found = {torchscript.FACTS: ""}
    with torchscript_allowed():
        torch.jit.load(str(path), _extra_files=found)
    card = json.loads(found[torchscript.FACTS])["card"]
    assert (card["licence"], card["commercial_use"]) == ("CC-BY-NC-4.0", False)
    assert card["training_data"] == ["discs (CC0-1.0)"]


def test_no_file_says_where_the_program_lay(model, tmp_path):
    path = export_model(model, tmp_path / "a", "torchscript")
    with zipfile.ZipFile(path) as archive:
        texts = [archive.read(name) for name in archive.namelist()]
    assert not any(re.search(rb"\.py\b.{0,40}forward|site-packages", text) for text in texts)


def test_the_network_of_another_program_is_not_exported_anew(tmp_path):
    content = torchscript_of(Rims())
    given = Description("torchscript", len(content), "Rims", 0.5, (ImportedHead("nuclei", 0, (0,)),), "watershed")
    card = small_model().card
    with pytest.raises(ExportError, match="was imported from another program"):
        export_model(LoadedModel(given.spec(), card, network_of(given, content)), tmp_path / "a", "torchscript")


@pytest.mark.parametrize(
    ("path", "form"), [("a.zip", "bioimageio"), ("b/a.PT", "torchscript"), ("a.onnx", "onnx"), ("a.safetensors", "")]
)
def test_the_name_of_a_file_says_its_format(path, form):
    assert network_format_of(path) == form


def test_every_format_can_be_opened_again():
    for form in NETWORK_FORMATS.values():
        module = importlib.import_module(f"{formats._PACKAGE}.{form.module}")
        assert callable(module.encode)
        assert callable(module.programs)
