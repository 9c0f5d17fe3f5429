"""Foreign packages become models as far as they are understood; else it is said what is missing."""

import io
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from dark_model import disc_centres, disc_picture
from foreign_package import SIDE, Rims, foreign_zip, npy, parts, scripted, torchscript_of, written
from napari_nucleiseg.core.errors import MissingDependencyError, WeightsError
from napari_nucleiseg.core.exchange.networks.mapping import Meaning
from napari_nucleiseg.core.exchange.networks.reading import read_package
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.inference.segment import segment_picture
from napari_nucleiseg.core.slides.pyramid import Slide


@pytest.fixture
def package(tmp_path):
    """Write a package after `change` has changed its document and its files."""

    def write(change=None, **how):
        document, files = parts(**how)
        if change is not None:
            change(document, files)
        return written(tmp_path / "discs.zip", document, files)

    return write


def refused(path, match, meaning=None):
    with pytest.raises(WeightsError, match=match) as caught:
        read_package(path, meaning)
    assert str(caught.value).endswith(".")


def nuclei_in_discs(model, shape=(192, 256)):
    picture = disc_picture(shape)
    slide = Slide("discs.png", (picture,), (YX(1.0, 1.0),), YX(0.5, 0.5), "test", "test")
    return segment_picture(slide, model, device="cpu")


def test_channels_with_plain_names_are_understood(package):
    found = read_package(package())
    assert found.told == "Nuclei are where maps:foreground says so, parted where maps:boundary is."
    spec, card = found.model.spec, found.model.card
    assert (spec.decoder, spec.mpp_um, spec.size_multiple) == ("border", 0.5, 16)
    assert [head.name for head in spec.heads] == ["separated", "maps"]
    assert (card.name, card.licence, card.commercial_use) == ("dark-discs", "MIT", True)
    assert "Ada" in card.notes
    assert "10.1000/182" in card.notes


def test_it_segments_a_picture(package):
    labels = nuclei_in_discs(read_package(package()).model)
    centres = disc_centres((192, 256))
    ids = labels[centres[:, 0], centres[:, 1]]
    assert len(set(ids)) == len(centres)
    assert labels.max() == len(centres)
    assert 0 not in ids


def unnamed(document, _files):
    document["outputs"][0]["axes"][1]["channel_names"] = ["channel0", "channel1"]


def test_channels_without_a_meaning_are_asked_for(package):
    refused(
        package(unnamed), r"maps:channel0, maps:channel1\. Say which one does, and which one tells where they touch"
    )


@pytest.mark.parametrize("names", [("channel0", "channel1"), ("maps:channel0", "maps:channel1"), ("0", "maps:1")])
def test_channels_that_a_person_names_are_used(package, names):
    model = read_package(package(unnamed), Meaning(*names)).model
    assert nuclei_in_discs(model).max() == len(disc_centres((192, 256)))


def test_a_foreground_alone_is_parted_by_its_shape(package):
    model = read_package(package(unnamed), Meaning("channel0")).model
    assert model.spec.decoder == "watershed"
    assert nuclei_in_discs(model).max() == len(disc_centres((192, 256)))


def test_a_channel_that_is_not_there_is_told_of(package):
    refused(package(), "there is no channel inside; its channels are maps:foreground, maps:boundary", Meaning("inside"))


class Raw(nn.Module):
    def forward(self, x):
        return Rims()(x) * 40 - 20


def test_a_channel_of_no_probabilities_is_refused(package):
    refused(package(network=Raw()), "no probabilities")


def test_a_sigmoid_that_the_package_states_makes_probabilities(package):
    def change(document, files):
        document["outputs"][0]["postprocessing"] = [{"id": "sigmoid"}]
        raw = np.load(io.BytesIO(files["out.npy"]))
        files["out.npy"] = npy(1 / (1 + np.exp(-raw)))

    assert read_package(package(change, network=Raw())).model.spec.decoder == "border"


def without_unit(document, _files):
    for tensor in (*document["inputs"], *document["outputs"]):
        for axis in tensor["axes"][2:]:
            del axis["unit"]
            axis["scale"] = 1.0


def test_a_pixel_size_that_is_not_stated_is_asked_for(package):
    path = package(without_unit)
    refused(path, "say how many micrometres")
    assert read_package(path, Meaning(mpp_um=0.25)).model.spec.mpp_um == 0.25


def test_nanometres_are_read(package):
    def change(document, _files):
        for tensor in (*document["inputs"], *document["outputs"]):
            for axis in tensor["axes"][2:]:
                axis |= {"unit": "nanometer", "scale": 500.0}

    assert read_package(package(change)).model.spec.mpp_um == pytest.approx(0.5)


def test_source_code_of_others_is_not_run(package, tmp_path):
    def change(document, files):
        document["weights"] = {
            "pytorch_state_dict": {
                "source": "w.pth", "architecture": {"source": "net.py", "callable": "Net"}, "pytorch_version": "2.6",
            }
        }  # fmt: skip
        files["w.pth"] = b"\x80\x04"
        files["net.py"] = b"open('run', 'w')"

    refused(package(change), "no code of others is run here")
    assert [path.name for path in tmp_path.iterdir()] == ["discs.zip"]


def test_weights_of_other_kinds_are_refused(package):
    def change(document, _files):
        document["weights"] = {"keras_hdf5": {"source": "weights.pt"}}

    refused(package(change), "keras_hdf5; TorchScript and ONNX can be run here")


class Writes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "written.pt")
        return torch.cat([x[:, :1], x[:, :1]], dim=1)


def test_weights_that_reach_for_files_are_refused(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(package(weights=scripted(Writes())), "reach files")
    assert not (tmp_path / "written.pt").exists()


def test_what_says_something_else_than_its_test_is_refused(package):
    def change(_document, files):
        files["out.npy"] = npy(np.load(io.BytesIO(files["out.npy"])) * 0.9)

    refused(package(change), "says something else of its own test picture")


def test_a_test_that_is_a_pickle_is_refused(package):
    def change(_document, files):
        buffer = io.BytesIO()
        np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
        files["in.npy"] = buffer.getvalue()

    refused(package(change), "test of input is damaged")


def test_a_package_whose_test_is_missing_is_refused(package):
    def change(document, _files):
        document["inputs"][0]["test_tensor"] = {"source": "gone.npy"}

    refused(package(change), r"gone\.npy that it does not hold")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda document: document.update(format_version="0.4.10"), r"in the format 0\.4\.10"),
        (lambda document: document.update(type="dataset"), "it is a dataset"),
        (lambda document: document["inputs"].append(document["inputs"][0]), "2 inputs"),
        (lambda document: document["inputs"][0]["axes"].pop(1), "channel, y, x in any order"),
        (lambda document: document["inputs"][0]["axes"][1].update(channel_names=["grey"]), "reads 1 channels"),
        (lambda document: document["inputs"][0]["axes"][2].update(size=64), "other sizes in y than in x"),
        (lambda document: document["inputs"][0]["axes"][2].update(scale=0.25), "not squares"),
        (lambda document: document["inputs"][0].update(preprocessing=[{"id": "custom"}]), "the step custom"),
        (lambda document: document["outputs"][0].update(postprocessing=[{"id": "stardist"}]), "the step stardist"),
        (lambda document: document["outputs"][0]["axes"][2].update(scale=1.0), "not of the input's size"),
        (lambda document: document["inputs"][0]["axes"][2].pop("size"), "not understood"),
        (lambda document: document.update(inputs=7), "not understood"),
        (lambda document: document.pop("weights"), "not understood"),
    ],
)
def test_what_is_not_understood_is_said(tmp_path, change, match):
    document, files = parts()
    change(document)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("rdf.yaml", yaml.safe_dump(document))
        for name, content in files.items():
            archive.writestr(name, content)
    refused(tmp_path / "b.zip", match)


def test_a_network_for_one_size_only_is_run_on_tiles_of_that_size(package):
    class Square(nn.Module):
        def forward(self, x):
            return Rims()(x.reshape(1, 3, SIDE, SIDE))

    def change(document, _files):
        document["inputs"][0]["axes"][0]["size"] = 1
        for axis in document["inputs"][0]["axes"][2:]:
            axis["size"] = SIDE

    model = read_package(package(change, network=Square())).model
    assert model.spec.tile_px + 2 * model.spec.halo_px == SIDE
    assert nuclei_in_discs(model).max() == len(disc_centres((192, 256)))


def test_values_from_0_to_1_are_made_where_the_package_wants_them(package):
    def change(document, files):
        document["inputs"][0] |= {"data": {"type": "float32", "range": [0, 1]}, "preprocessing": []}
        files["in.npy"] = npy(np.load(io.BytesIO(files["in.npy"])).astype(np.float32) / 255)

    assert nuclei_in_discs(read_package(package(change)).model).max() == len(disc_centres((192, 256)))


def test_other_outputs_become_heatmaps(package):
    class Two(nn.Module):
        def forward(self, x):
            both = Rims()(x)
            return both, 10 * both[:, :1]

    content = torchscript_of(Two())

    def change(document, files):
        second = {**document["outputs"][0], "id": "depth", "test_tensor": {"source": "depth.npy"}}
        second["axes"] = [second["axes"][0], {"type": "channel", "channel_names": ["depth"]}, *second["axes"][2:]]
        document["outputs"].append(second)
        files["depth.npy"] = npy(10 * np.load(io.BytesIO(files["out.npy"]))[:, :1])

    spec = read_package(package(change, weights=content)).model.spec
    assert [(head.name, head.activation, head.shown) for head in spec.heads] == [
        ("separated", "sigmoid", True), ("maps", "sigmoid", True), ("depth", "none", False),
    ]  # fmt: skip


def test_a_network_that_cannot_take_its_tiles_is_refused(package):
    class Small(nn.Module):
        def forward(self, x):
            return Rims()(x.reshape(-1, 3, SIDE, SIDE))

    refused(package(network=Small()), "cannot be run on a tile|where .* px are described")


def onnx_of(onnx):
    """An ONNX file with two probabilities: how dark red is, and 0."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    values = {"w": [-24.0, 0, 0, 0, 0, 0], "b": [12.0, -30.0]}
    given = [
        helper.make_tensor("w", kind, [2, 3, 1, 1], values["w"]),
        helper.make_tensor("b", kind, [2], values["b"]),
    ]
    nodes = [helper.make_node("Conv", ["raw", "w", "b"], ["c"]), helper.make_node("Sigmoid", ["c"], ["maps"])]
    ends = [
        helper.make_tensor_value_info(name, kind, ["n", channels, "y", "x"])
        for name, channels in (("raw", 3), ("maps", 2))
    ]
    graph = helper.make_graph(nodes, "dark", ends[:1], ends[1:], given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


class DarkRed(nn.Module):
    def forward(self, x):
        return torch.cat([torch.sigmoid(12 - 24 * x[:, :1]), torch.full_like(x[:, :1], 1 / (1 + np.exp(30)))], dim=1)


def test_an_onnx_package_segments_too(package):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = read_package(package(kind="onnx", network=DarkRed(), weights=onnx_of(onnx))).model
    assert nuclei_in_discs(model).max() == len(disc_centres((192, 256)))


def test_an_onnx_package_says_what_to_install(package, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"napari-nucleiseg\[exchange\]"):
        read_package(package(kind="onnx", weights=b"any"))


def test_nothing_is_warned_of(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_package(foreign_zip(tmp_path / "a.zip"))
