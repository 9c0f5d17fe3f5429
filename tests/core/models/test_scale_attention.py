"""Scale attention has its published size, names and steps; its level is a number that tiles share."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_nucleiseg.core.errors import ModelError, WeightsError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.resnet34 import ResNet34, download_imagenet, load_imagenet
from napari_nucleiseg.core.models.scale_attention import (
    ScaleAttention,
    ScaleClassifier,
    estimate_tau,
    load_published_state,
    published_state,
    with_tau,
)
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard, load_model, save_model


def tiny(**changes):
    torch.manual_seed(0)
    return ScaleAttention(**{"width": 4, **changes}).eval()


def loaded(name="scale-attention"):
    torch.manual_seed(0)
    spec = network_spec(name, {"width": 4})
    return LoadedModel(spec, ModelCard("a", spec.name, dict(spec.params)), build_network(spec).eval())


def reach(network, side):
    """Sides of the part of the input that the central output pixel depends on."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 0.1)
    x = torch.ones(1, 3, side, side, requires_grad=True)
    network.eval().confidence(x)[0, 0, side // 2, side // 2].backward()
    ys, xs = torch.nonzero(x.grad[0].abs().sum(0), as_tuple=True)
    return int(ys.max() - ys.min() + 1), int(xs.max() - xs.min() + 1)


def test_network_has_the_published_size():
    assert sum(p.numel() for p in ScaleAttention().parameters()) == 445_825
    assert sum(p.numel() for p in ResNet34().parameters()) == 21_797_672


def test_field_of_view_is_the_published_one():
    assert reach(ScaleAttention(width=1), 201) == (167, 167)


def test_halo_holds_the_field_of_view():
    for name in ("scale-attention", "scale-attention-fast"):
        spec = network_spec(name)
        side = reach(build_network(network_spec(name, {"width": 1})), 220)[0]
        assert 150 < side <= 170
        assert spec.halo_px > side // 2


def test_fast_network_costs_a_quarter():
    def work(stride):
        done = []
        network = tiny(width=64, stride=stride)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(lambda m, _i, out: done.append(m.weight.numel() * out[0, 0].numel()))
        network(torch.zeros(1, 3, 32, 32))
        return sum(done) / 32**2

    assert work(1) == pytest.approx(444_992, rel=0.01)
    assert work(2) < 0.26 * work(1)


@pytest.mark.parametrize("stride", [1, 2])
def test_mirrored_pictures_give_mirrored_maps(stride):
    # Kernels that are alike on both sides: what is left of an asymmetry comes from sampling.
    network = tiny(stride=stride)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = (module.weight + module.weight.flip(3)) / 2
    x = torch.randn(1, 3, 48, 64)
    assert torch.allclose(network.confidence(x.flip(3)), network.confidence(x).flip(3), atol=1e-5)


def test_names_are_those_of_the_published_code():
    keys = published_state(ScaleAttention(), ScaleClassifier())
    assert len(keys["model"]) == 300
    assert sum(value.numel() for key, value in keys["model"].items() if is_parameter(key)) == 22_243_497
    assert {"first", "tau", "attention_net.0.main.0.weight", "attention_net.6.res.4.running_var"} <= keys[
        "model"
    ].keys()
    assert {"attention_net.7.bias", "feats_net.conv_block.layer4.2.bn2.bias"} <= keys["model"].keys()
    assert {key: tuple(value.shape) for key, value in keys["scale_net"].items()} == {
        "linear.weight": (3, 512),
        "linear.bias": (3,),
    }


def is_parameter(key):
    return not any(word in key for word in ("running", "num_batches", "first", "tau"))


def test_published_tensors_load_strictly(shared_data):
    state = {}
    for part, name in (("model", "seed_attention_resnet34_model"), ("scale_net", "seed_scale_net")):
        stated = json.loads((shared_data / "weights_info" / f"{name}.json").read_text())["keys"]
        state[part] = {
            key: torch.full(shape, 2, dtype=getattr(torch, kind.removeprefix("torch.")))
            for key, (shape, kind) in stated.items()
        }
    network, classifier = ScaleAttention(), ScaleClassifier()
    load_published_state(network, classifier, state)
    assert float(network.tau) == 2
    assert all(
        bool((value == 2).all()) for part in published_state(network, classifier).values() for value in part.values()
    )


def test_own_tensors_come_back_and_foreign_ones_are_refused():
    network, classifier = tiny(), ScaleClassifier(levels=3, width=2)
    state = published_state(network, classifier)
    other, another = tiny(), ScaleClassifier(levels=3, width=2)
    load_published_state(other, another, state)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in network.state_dict().items())
    assert torch.equal(another.linear.weight, classifier.linear.weight)
    with pytest.raises(WeightsError, match="scale attention as it is set up"):
        load_published_state(tiny(width=8), another, state)
    with pytest.raises(WeightsError, match="scale attention"):
        load_published_state(other, another, {"network": {}})


def test_level_is_what_the_stated_share_of_pixels_exceeds():
    network = tiny(sparsity=0.07)
    confidence = torch.randn(3, 1, 40, 50)
    for picture in confidence:
        tau = network.tau_of(picture[None])
        assert int((picture > tau).sum()) == 140  # 7 % of 2000
    assert torch.allclose(network.tau_of(confidence), torch.stack([network.tau_of(c[None]) for c in confidence]).mean())


def test_sigmoid_is_sharp_and_half_at_the_level():
    network = tiny()
    attention = torch.sigmoid(network.raw_map(torch.tensor([1.0, 1.11, 0.89]), torch.tensor([1.0])))
    assert attention[0] == 0.5
    assert attention[1] > 0.9
    assert attention[2] < 0.1


def test_running_level_starts_with_the_first_batch_and_follows_slowly():
    network = tiny()
    assert network.first.tolist() == [1]
    network.remember(torch.tensor([2.0]))
    assert network.tau.tolist() == [2.0]
    assert network.first.tolist() == [0]
    network.remember(torch.tensor([3.0]))
    assert network.tau.tolist() == [pytest.approx(0.9 * 2 + 0.1 * 3)]


def test_both_heads_are_the_same_map_around_the_running_level():
    network = tiny()
    network.remember(torch.tensor([0.3]))
    x = torch.randn(2, 3, 32, 32)
    maps = network(x)
    assert torch.equal(maps["nuclei"], maps["attention"])
    assert torch.allclose(maps["nuclei"], 20 * (network.confidence(x) - 0.3))


def test_training_mode_does_not_move_the_level():
    network = tiny().train()
    network(torch.randn(2, 3, 32, 32))
    assert network.first.tolist() == [1]


def test_a_level_moved_to_zero_leaves_the_attention_as_it_was():
    network = tiny().eval()
    network.tau.fill_(0.37)
    picture = torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        before = network(picture)["attention"]
    network.level_to_zero()
    with torch.inference_mode():
        after = network(picture)["attention"]
    assert float(network.tau) == 0
    assert torch.allclose(before, after, atol=1e-4)


def test_level_of_pictures_is_set_on_a_copy_with_a_version_of_its_own():
    model = loaded()
    pictures = [np.random.default_rng(n).integers(0, 256, (64, 48, 3), dtype=np.uint8) for n in range(2)]
    tau = estimate_tau(model.network, model.spec, pictures)
    # All pixels count together: that of one picture is another.
    assert tau != pytest.approx(estimate_tau(model.network, model.spec, pictures[:1]), abs=1e-6)
    changed = with_tau(model, tau)
    assert float(changed.network.tau) == pytest.approx(tau)
    assert float(model.network.tau) == 0
    assert changed.version != with_tau(model, tau + 1).version
    assert "tau" in changed.card.notes


def test_level_is_that_of_a_share_or_of_two_kinds_of_pixels():
    model = loaded()
    picture = np.full((64, 64, 3), 200, np.uint8)
    picture[16:48, 16:48] = (90, 50, 130)
    x = (torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 - torch.tensor(model.spec.mean).view(3, 1, 1)) / (
        torch.tensor(model.spec.std).view(3, 1, 1)
    )
    with torch.inference_mode():
        confidence = model.network.confidence(x).numpy()
    for share in (0.07, 0.4):
        tau = estimate_tau(model.network, model.spec, [picture], share=share)
        assert np.mean(confidence > tau) == pytest.approx(share, abs=0.001)
    tau = estimate_tau(model.network, model.spec, [picture], otsu=True)
    assert confidence.min() < tau < confidence.max()
    with pytest.raises(ModelError, match="between 0 and 1, not 2"):
        estimate_tau(model.network, model.spec, [picture], share=2)


def test_level_needs_a_picture_and_a_network_of_scale_attention():
    model = loaded()
    with pytest.raises(ModelError, match="without a picture"):
        estimate_tau(model.network, model.spec, [])
    spec = network_spec("nuclei", {"width": 8})
    other = LoadedModel(spec, ModelCard("b", "nuclei"), build_network(spec))
    with pytest.raises(ModelError, match="no level of attention"):
        with_tau(other, 1.0)


@pytest.mark.parametrize("name", ["scale-attention", "scale-attention-fast"])
def test_weights_are_saved_with_their_level_and_loaded(name, tmp_path):
    model = loaded(name)
    model.network.remember(torch.tensor([0.123]))
    save_model(tmp_path / "a.safetensors", model.network, model.spec, model.card, half=False)
    again = load_model(str(tmp_path / "a.safetensors"), accept_licence=True)
    assert float(again.network.tau) == pytest.approx(0.123)
    assert again.spec.decoder == "watershed"


def test_impossible_settings_are_explained():
    with pytest.raises(ModelError, match="stride is 1 or 2"):
        build_network(network_spec("scale-attention", {"stride": 3}))


def test_classifier_says_one_number_a_level():
    classifier = ScaleClassifier(levels=4, width=2).eval()
    assert classifier(torch.randn(2, 3, 64, 64), torch.rand(2, 1, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_imagenet_weights_with_the_names_of_torchvision_are_loaded(ending, tmp_path):
    made = ResNet34(width=2)
    path = tmp_path / f"resnet34.{ending}"
    tensors = {key: torch.full_like(value, 3) for key, value in made.state_dict().items()}
    assert "layer2.0.downsample.0.weight" in tensors
    assert "fc.weight" in tensors
    if ending == "pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, str(path))
    load_imagenet(made, path)
    assert bool((made.layer3[1].conv2.weight == 3).all())
    with pytest.raises(WeightsError, match="torchvision"):
        load_imagenet(ResNet34(width=4), path)


class Foreign:
    """Something that is no tensor."""


def test_weight_files_that_hold_more_than_tensors_are_refused(tmp_path):
    path = tmp_path / "foreign.pth"
    torch.save({"conv1.weight": Foreign()}, path)
    with pytest.raises(WeightsError, match="read safely"):
        load_imagenet(ResNet34(width=2), path)
    with pytest.raises(WeightsError, match="no weight file"):
        load_imagenet(ResNet34(width=2), tmp_path / "missing.pth")


def test_downloaded_weights_are_checked_and_kept(tmp_path, served):
    url, digest = served
    path = download_imagenet(tmp_path / "cache", url=url, sha256=digest)
    load_imagenet(ResNet34(width=2), path)
    assert download_imagenet(tmp_path / "cache", url=url, sha256=digest[:8]) == path
    with pytest.raises(WeightsError, match="not the published file"):
        download_imagenet(tmp_path / "cache", url=url, sha256="00000000")
    assert not path.exists()
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        download_imagenet(tmp_path / "cache", url=url.replace("weights", "nothing"), sha256=digest)


@pytest.fixture
def served(web):
    """A weight file on a web server of this machine, and its digest."""
    folder, address = web
    torch.save(ResNet34(width=2).state_dict(), folder / "weights.pth")
    return f"{address}/weights.pth", hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()
