"""Packages that are written: what they say, what other programs make of them, and the same model back."""

import hashlib
import io
import subprocess
import sys
import zipfile

import imagecodecs
import numpy as np
import pytest
import torch
import yaml

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.exchange.networks.bioimageio import tensor_names
from napari_nucleiseg.core.exchange.networks.formats import export_model
from napari_nucleiseg.core.exchange.networks.package import Package
from napari_nucleiseg.core.exchange.networks.reading import read_package
from napari_nucleiseg.core.inference.segment import segment_picture
from napari_nucleiseg.core.models.spec import HeadSpec
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.slides.synthetic import synthetic_slide
from small_models import SMALL, small_model


@pytest.fixture(scope="module")
def package_path(tmp_path_factory):
    made = small_model(licence="CC-BY-4.0 AND MIT")
    return export_model(made, tmp_path_factory.mktemp("package") / "a", "bioimageio", authors=["Ada / Lovelace"])


def document_of(path):
    with Package(path) as package:
        return package.document


def rewritten(path, target, *, change=None, without=(), files=None):
    """A copy of a package whose document `change` changes, without some files, others with another content."""
    with zipfile.ZipFile(path) as former, zipfile.ZipFile(target, "w") as archive:
        for name in former.namelist():
            content = (files or {}).get(name, former.read(name))
            if name == "rdf.yaml" and change is not None:
                document = yaml.safe_load(content)
                change(document)
                content = yaml.safe_dump(document)
            if name not in without:
                archive.writestr(name, content)
    return target


def test_a_package_says_what_the_network_is_given(package_path, model):
    document, spec = document_of(package_path), model.spec
    (given,) = document["inputs"]
    y, x = given["axes"][2:]
    assert (y["scale"], y["unit"], x["id"]) == (spec.mpp_um, "micrometer", "x")
    assert y["size"]["step"] == spec.size_multiple
    assert y["size"]["min"] > 2 * spec.halo_px
    normalising = given["preprocessing"][1]
    assert normalising["id"] == "fixed_zero_mean_unit_variance"
    assert normalising["kwargs"]["mean"] == pytest.approx([255 * one for one in spec.mean])
    assert normalising["kwargs"]["std"] == pytest.approx([255 * one for one in spec.std])
    assert [one["id"] for one in document["outputs"]] == ["nuclei", "offsets", "distance", "separated"]
    assert all(axis["halo"] == spec.halo_px for one in document["outputs"] for axis in one["axes"][2:])


def test_a_valid_convolution_says_how_much_it_loses(tmp_path):
    made = small_model("unet-2015")
    (output,) = document_of(export_model(made, tmp_path, "bioimageio"))["outputs"]
    assert output["axes"][2]["size"]["offset"] == -2 * made.spec.output_margin_px


def test_every_file_has_the_digest_that_is_told(package_path):
    document = document_of(package_path)
    entries = [
        *document["covers"], *document["attachments"], document["documentation"], document["license"],
        *document["weights"].values(), *(one["test_tensor"] for one in (*document["inputs"], *document["outputs"])),
    ]  # fmt: skip
    with zipfile.ZipFile(package_path) as archive:
        for entry in entries:
            assert hashlib.sha256(archive.read(entry["source"])).hexdigest() == entry["sha256"]


def test_licence_authors_and_papers_are_kept(package_path, tmp_path):
    document = document_of(package_path)
    with zipfile.ZipFile(package_path) as archive:
        assert archive.read(document["license"]["source"]) == b"CC-BY-4.0 AND MIT\n"
        page = archive.read("README.md").decode()
    assert "CC-BY-4.0 AND MIT" in page
    assert "discs (CC0-1.0)" in page
    assert "not for commercial use" not in page
    assert document["authors"] == [{"name": "Ada - Lovelace"}]
    assert {"https://arxiv.org/abs/1505.04597"} <= {one["url"] for one in document["cite"]}
    made = small_model(licence="CC-BY-NC-SA-4.0", commercial_use=False)
    path = export_model(made, tmp_path, "bioimageio")
    assert document_of(path)["license"] == "CC-BY-NC-SA-4.0"
    with zipfile.ZipFile(path) as archive:
        assert "not for commercial use" in archive.read("README.md").decode()


def test_the_cover_is_twice_as_wide_as_high_and_small(package_path):
    with zipfile.ZipFile(package_path) as archive:
        content = archive.read("cover.png")
    height, width, _ = imagecodecs.png_decode(content).shape
    assert width == 2 * height
    assert len(content) < 500_000


def test_the_cover_shows_what_was_found(tmp_path):
    made = load_model("nuclei")
    with zipfile.ZipFile(export_model(made, tmp_path, "bioimageio")) as archive:
        cover = imagecodecs.png_decode(archive.read("cover.png"))
    left, right = np.split(cover.astype(int), 2, axis=1)
    drawn = np.abs(left - right).sum(axis=2) > 0
    assert 0.01 < drawn.mean() < 0.3  # outlines, not areas


def test_names_of_heads_become_names_of_tensors():
    heads = [HeadSpec(name) for name in ("nuclei", "Nuclei", "2nd look", "rgb")]
    assert tensor_names(heads) == ["nuclei", "nuclei_1", "map_2nd_look", "map_rgb"]


@pytest.mark.parametrize("name", SMALL)
def test_every_model_comes_back_as_it_was(name, tmp_path):
    made = small_model(name)
    path = export_model(made, tmp_path, "bioimageio")
    back = read_package(path).model
    assert (back.spec, back.spec.params) == (made.spec, made.spec.params)
    assert back.card.training_data == made.card.training_data
    for key, value in made.network.state_dict().items():
        assert torch.equal(value, back.network.state_dict()[key]), key


def test_the_shipped_model_comes_back_as_the_same_version(tmp_path):
    shipped = load_model("nuclei")
    assert read_package(export_model(shipped, tmp_path, "bioimageio")).model.version == shipped.version


def without_weight_file(document):
    document["attachments"] = []


def test_without_its_weight_file_the_torchscript_is_used_and_says_the_same(package_path, model, tmp_path):
    path = rewritten(
        package_path, tmp_path / "b.zip", change=without_weight_file, without=("small-nuclei.safetensors",)
    )
    back = read_package(path).model
    assert back.card.network == "imported"
    assert (back.spec.decoder, back.spec.mpp_um) == (model.spec.decoder, model.spec.mpp_um)
    assert [head.name for head in back.spec.heads] == [head.name for head in model.spec.heads]
    picture = torch.randint(0, 256, (1, 3, 128, 128)).float()
    mean, std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (model.spec.mean, model.spec.std))
    with torch.inference_mode():
        expected, found = model.network((picture - mean) / std), back.network(picture)
    for head in model.spec.heads:
        one, other = expected[head.name], found[head.name]
        if head.activation == "sigmoid":
            one, other = torch.sigmoid(one), torch.sigmoid(other)
        assert torch.allclose(one, other, atol=1e-4), head.name


def test_either_way_back_finds_the_same_nuclei(tmp_path, monkeypatch):
    # What is imported is run in float32; ours are compared in it too, for bfloat16 moves a few pixels of outlines.
    monkeypatch.setattr("napari_nucleiseg.core.inference.device.has_fast_bfloat16", lambda _device: False)
    shipped = load_model("nuclei")
    path = export_model(shipped, tmp_path, "bioimageio")
    bare = rewritten(path, tmp_path / "bare.zip", change=without_weight_file, without=("nuclei.safetensors",))
    slide = synthetic_slide(400, 300, 0.5, seed=3, glass=False)
    expected = segment_picture(slide, shipped, device="cpu")
    assert expected.max() > 50
    for back in (path, bare):
        assert np.array_equal(segment_picture(slide, read_package(back).model, device="cpu"), expected)


def test_a_package_of_weights_that_say_something_else_is_refused(package_path, tmp_path):
    with zipfile.ZipFile(package_path) as archive:
        values = np.load(io.BytesIO(archive.read("test_output_nuclei.npy")))
    buffer = io.BytesIO()
    np.save(buffer, values * 0.5)

    def change(document):
        del document["outputs"][0]["test_tensor"]["sha256"]

    path = rewritten(
        package_path, tmp_path / "b.zip", change=change, files={"test_output_nuclei.npy": buffer.getvalue()}
    )
    with pytest.raises(WeightsError, match=r"says something else of its own test picture .* nuclei"):
        read_package(path)


# That library leaves files open and torch's advice unheeded, which are errors here: it runs by itself.
JUDGE = """
import sys
from bioimageio.core import load_description_and_test
summary = load_description_and_test(sys.argv[1]).validation_summary
print(summary.status, *(f"{part.name}: {part.status}" for part in summary.details), sep="\\n")
"""


@pytest.mark.parametrize("with_onnx", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_other_programs_can_use_it(tmp_path, with_onnx):
    """The format's own library finds no fault, and what it runs says what the package says."""
    pytest.importorskip("bioimageio.core")
    if with_onnx:
        pytest.importorskip("onnxscript")
    path = export_model(small_model(), tmp_path, "bioimageio", with_onnx=with_onnx)
    answer = subprocess.run([sys.executable, "-c", JUDGE, str(path)], capture_output=True, text=True, check=True)
    status, *judged = answer.stdout.splitlines()[-40:]
    assert status == "passed", answer.stdout
    for kind in ("torchscript", *(["onnx"] * with_onnx)):
        assert f"Reproduce test outputs from test inputs ({kind}): passed" in judged
