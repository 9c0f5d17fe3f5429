"""TorchScript and ONNX files are opened with care: what reaches for files is refused, what is damaged is said to be."""

import io
import sys
import zipfile

import pytest
import torch
from torch import nn

from foreign_package import Rims, scripted, torchscript_of
from napari_nucleiseg.core.errors import MissingDependencyError, WeightsError
from napari_nucleiseg.core.models.programs import ONNX, TORCHSCRIPT, open_program


class Writes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "written.pt")
        return x


class Reads(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("read.bin", True, 4).sum()


class Named(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"first": x, "second": 2 * x}


class Numbers(nn.Module):
    def forward(self, x: torch.Tensor) -> int:
        return x.shape[0]


def test_a_torchscript_says_what_its_network_says():
    x = torch.rand(2, 3, 48, 32)
    (found,) = open_program(TORCHSCRIPT, torchscript_of(Rims()))(x)
    assert torch.allclose(found, Rims()(x), atol=1e-6)


def test_outputs_may_come_by_name():
    first, second = open_program(TORCHSCRIPT, scripted(Named()))(torch.ones(1))
    assert (float(first), float(second)) == (1, 2)


@pytest.mark.parametrize(("network", "word"), [(Writes(), "save"), (Reads(), "from_file")])
def test_what_reaches_for_files_is_refused_before_it_runs(network, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=word):
        open_program(TORCHSCRIPT, scripted(network))
    assert list(tmp_path.iterdir()) == []


def test_what_reaches_for_files_is_found_in_the_graph_too(monkeypatch):
    """Also if the code is told otherwise than torch reads it."""
    monkeypatch.setattr("napari_nucleiseg.core.models.programs._refuse_calling_out", lambda _content: None)
    with pytest.raises(WeightsError, match="aten::save"):
        open_program(TORCHSCRIPT, scripted(Writes()))


def test_operators_of_other_packages_are_refused():
    content = io.BytesIO(torchscript_of(Rims()))
    made = io.BytesIO()
    with zipfile.ZipFile(content) as former, zipfile.ZipFile(made, "w") as archive:
        for entry in former.infolist():
            text = former.read(entry)
            if entry.filename.endswith(".py"):
                text += b"\n# ops.evil.run\n"
            archive.writestr(entry.filename, text)
    with pytest.raises(WeightsError, match="evil"):
        open_program(TORCHSCRIPT, made.getvalue())


@pytest.mark.parametrize("content", [b"", b"PK nothing", b"\x80\x04pickle"])
def test_damage_is_said(content):
    with pytest.raises(WeightsError, match="damaged or none"):
        open_program(TORCHSCRIPT, content)


def test_a_cut_file_is_said_to_be_damaged():
    content = torchscript_of(Rims())
    with pytest.raises(WeightsError):
        open_program(TORCHSCRIPT, content[: len(content) // 2])


def test_what_returns_no_maps_is_refused():
    with pytest.raises(WeightsError, match="something else than maps"):
        open_program(TORCHSCRIPT, scripted(Numbers()))(torch.ones(1))


def test_no_other_kind_is_opened():
    with pytest.raises(WeightsError, match="keras"):
        open_program("keras", b"")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_onnx_says_what_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'napari-nucleiseg\[exchange\]'"):
        open_program(ONNX, b"")


def plus_one(onnx, *, external=False):
    """An ONNX file that adds one."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    one = helper.make_tensor("one", kind, [1], [1.0])
    if external:
        one.ClearField("float_data")
        one.data_location = onnx.TensorProto.EXTERNAL
        one.external_data.add(key="location", value="../../secret")
    shape = ["b", 3, "y", "x"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["raw", "one"], ["more"])],
        "plus one",
        [helper.make_tensor_value_info("raw", kind, shape)],
        [helper.make_tensor_value_info("more", kind, shape)],
        [one],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_an_onnx_file_is_run():
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    x = torch.rand(2, 3, 8, 8)
    (found,) = open_program(ONNX, plus_one(onnx))(x)
    assert torch.allclose(found, x + 1)


def test_an_onnx_file_that_names_other_files_is_refused():
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    with pytest.raises(WeightsError, match="in other files"):
        open_program(ONNX, plus_one(onnx, external=True))


def test_a_damaged_onnx_file_is_said_to_be():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    with pytest.raises(WeightsError, match="ONNX"):
        open_program(ONNX, b"no such thing")
