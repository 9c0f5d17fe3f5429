"""``segment-stack`` writes labels of the stack's own voxels; models for stacks and for slides keep apart."""

import pytest
import tifffile
import torch

from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import ModelCard, save_model
from napari_nucleiseg.core.slides.stacks import open_stack
from stack_parts import balls, bright_model, stack_scores, write_labelled, write_stack


@pytest.fixture
def stack(tmp_path):
    image, labels = balls(6)
    return write_stack(tmp_path / "stack.ome.tif", image), labels


@pytest.fixture
def _bright(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(
        "napari_nucleiseg.core.models.weights.load_model", lambda _name, accept_licence, dimensions: bright_model()
    )


@pytest.fixture
def weights(tmp_path):
    """A weight file for stacks that has learned nothing."""
    spec = network_spec("unet-3d", {"width": 4})
    card = ModelCard("mine", "unet-3d", licence="MIT", commercial_use=True)
    path = tmp_path / "mine.safetensors"
    save_model(path, build_network(spec), spec, card)
    return path


@pytest.mark.usefixtures("_bright")
def test_labels_are_written_with_the_voxel_size(shell, stack, tmp_path):
    path, truth = stack
    out = tmp_path / "labels.ome.tif"
    answer = shell("segment-stack", path, "--model", "bright", "--out", out, "--device", "cpu", "--json")
    assert answer.status == 0
    assert answer.document["nuclei"] == 6
    assert answer.document["voxel_um"] == [1.0, 0.5, 0.5]
    labels = tifffile.imread(out)
    assert labels.dtype == "int32"
    assert stack_scores(truth, labels).f1 == 1.0
    assert open_stack(out).voxel_um == (1.0, 0.5, 0.5)
    again = shell("segment-stack", path, "--model", "x", "--out", out, "--min-area", "300", "--device", "cpu")
    assert "0 nuclei in" in again.err


@pytest.mark.usefixtures("_bright")
def test_the_voxel_size_is_asked_for_where_the_file_says_none(shell, tmp_path):
    image, _ = balls(6)
    path, out = tmp_path / "plain.tif", tmp_path / "labels.tif"
    tifffile.imwrite(path, image)
    answer = shell("segment-stack", path, "--model", "bright", "--out", out)
    assert answer.status == 1
    assert answer.err == (
        f"Error: {path} does not say how large its voxels are. The option is --voxel, such as --voxel 1,0.25,0.25.\n"
    )
    assert shell("segment-stack", path, "--model", "b", "--out", out, "--voxel", "1,0.5,0.5").status == 0
    assert tifffile.imread(out).max() == 6
    assert shell("segment-stack", path, "--model", "b", "--out", out, "--voxel", "1,2").status == 2
    assert "must end in .tif" in shell("segment-stack", path, "--model", "b", "--out", tmp_path / "a.zarr").err
    assert "has no channel 3" in shell("segment-stack", path, "--model", "b", "--out", out, "--channel", "3").err


@pytest.mark.usefixtures("_bright")
def test_an_interruption_is_json_too_and_leaves_no_labels(shell, stack, tmp_path, monkeypatch):
    def stop(*_arguments, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_nucleiseg.core.inference.stacks.segment_stack", stop)
    out = tmp_path / "labels.tif"
    answer = shell("segment-stack", stack[0], "--model", "bright", "--out", out, "--json")
    assert answer.status == 130
    sentence = "Interrupted. Nothing was written; the same command begins anew."
    assert answer.document == {"error": sentence, "kind": "KeyboardInterrupt"}
    assert not out.exists()


def test_models_for_stacks_and_for_slides_keep_apart(shell, stack, weights, png, tmp_path):
    path, _ = stack
    out = tmp_path / "labels.tif"
    answer = shell("segment-stack", path, "--model", "nuclei", "--out", out)
    assert answer.status == 1
    assert "network nuclei is for slides and pictures, not for z-stacks. Train one for stacks first" in answer.err
    assert not out.exists()
    answer = shell("segment", png, "--model", weights, "--mpp", "0.5", "--out", tmp_path)
    assert answer.status == 1
    assert "network unet-3d is for z-stacks, not for slides and pictures: use its weights with" in answer.err
    assert "napari-nucleiseg segment-stack" in answer.err
    answer = shell("models", "export", weights, "--as", "onnx", "--out", tmp_path / "a.onnx")
    assert answer.status == 1
    answer = shell("segment-stack", path, "--model", weights, "--out", out, "--device", "cpu")
    assert answer.status == 0
    assert tifffile.imread(out).shape == (28, 64, 64)


def test_train_takes_stacks_by_the_same_configuration(shell, tmp_path):
    data = write_labelled(tmp_path / "set", (0,))
    words = ["train", "--network", "unet-3d", "--train", f"{data},mpp_um=none", "--out", tmp_path / "run"]
    answer = shell(*words)
    assert answer.status == 1
    assert "choose crop_px between 32 and 192, such as 64" in answer.err
    small = ["--params", "width=4", "--crop-px", "32", "--batch-size", "1", "--steps", "2", "--device", "cpu", "--json"]
    answer = shell(*words, *small)
    assert answer.status == 0, answer.err
    assert answer.document["weights"].endswith("best.safetensors")
    given = shell(*words[:3], "--train", f"{data},mpp_um=0.5,z_um=1", "--out", tmp_path / "again", *small)
    assert given.status == 0, given.err
