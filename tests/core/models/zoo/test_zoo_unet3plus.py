"""U-Net 3+: five scales in every level, side outputs while training, the gate afterwards."""

import pytest
import torch
from torch import nn

from napari_nucleiseg.core.exchange.networks.formats import export_model
from napari_nucleiseg.core.models.nuclei_unet import HEADS
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.zoo.contract import PRESENT
from napari_nucleiseg.core.models.zoo.unet3plus import MAPS_FIELD_PX, ClassGuide
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.loop import total_loss
from zoo_parts import full_size, made_linear, seen_px, slim_model, tiny_batch, weights_in

NAME = "unet-3plus"


class Says(nn.Module):
    """A guide with a fixed answer for each picture."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = torch.tensor(answers).view(-1, 1, 1, 1)

    def forward(self, _x):
        return self.answers


def test_every_level_joins_five_scales_of_64_channels():
    network = full_size(NAME)
    assert len(network.decoder) == 4
    for level in network.decoder:
        assert [branch[1][0].out_channels for branch in level.branches] == [64] * 5
        assert level.join[0].in_channels == level.join[0].out_channels == 320
    assert [block[1][0].out_channels for block in network.encoder] == [64, 128, 256, 512, 1024]
    assert weights_in(network.encoder, network.decoder) == 26_962_368
    assert weights_in(network.guide) == 2 * 1025


def test_while_training_there_are_side_outputs_of_full_size_and_the_answer_whether_there_are_nuclei():
    network = slim_model(NAME).network.train()
    maps = network(torch.randn(2, 3, 48, 64))
    names = [head.name for head in HEADS]
    assert set(maps) == {*names, *(f"{name}/{level}" for name in names for level in (1, 2, 3, 4)), PRESENT}
    for head in HEADS:
        for level in ("", "/1", "/2", "/3", "/4"):
            assert maps[head.name + level].shape == (2, head.channels, 48, 64)
    assert maps[PRESENT].shape == (2, 1, 1, 1)


def test_the_gate_closes_each_picture_by_itself():
    network = slim_model(NAME).network
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        network.guide = Says(1.0, 1.0)
        whole = network(x)
        network.guide = Says(0.1, -0.1)
        gated = network(x)
    for head in HEADS:
        assert torch.equal(gated[head.name][0], whole[head.name][0])
        shut = gated[head.name][1]
        if head.activation == "sigmoid":
            assert torch.sigmoid(shut).max() < 1e-6
        else:
            assert shut.abs().max() == 0


def test_a_gate_that_was_never_taught_is_open():
    network = slim_model(NAME).network
    free = slim_model(NAME, guided=False).network
    free.load_state_dict(network.state_dict(), strict=False)
    x = torch.randn(1, 3, 32, 48) * 5
    with torch.inference_mode():
        gated, plain = network(x), free(x)
    assert all(torch.equal(gated[name], plain[name]) for name in plain)
    assert PRESENT not in free.train()(torch.randn(2, 3, 32, 32))


def test_the_guide_learns_to_tell_pictures_apart():
    torch.manual_seed(0)
    guide = ClassGuide(4).eval()
    x = torch.rand(2, 4, 3, 3) * 0.1
    x[0, 2, 1, 1] = 3.0  # one place is enough
    there = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    optimiser = torch.optim.Adam(guide.parameters(), lr=0.1)
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(guide(x), there)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert ((guide(x) > 0) == there.bool()).all()


def test_the_answer_and_the_side_outputs_are_learned_in_training():
    network = slim_model(NAME).network.train()
    batch = tiny_batch(64)
    loss, parts = total_loss(network(batch["image"]), batch, TrainConfig())
    loss.backward()
    assert {PRESENT, "side outputs"} <= parts.keys()
    assert network.guide.classes[1].weight.grad.abs().max() > 0
    assert all(side[0].weight.grad.abs().max() > 0 for side in network.sides)


def test_a_pixel_sees_as_far_as_is_said_and_the_gate_sees_all():
    spec = network_spec(NAME)
    assert spec.receptive_field_px == 0, "because of the gate"
    network = made_linear(build_network(network_spec(NAME, {"width": 1, "guided": False})).eval())
    assert seen_px(network, spec.stride, 16, 640) == MAPS_FIELD_PX


def test_it_is_exported_with_its_gate(tmp_path):
    model = slim_model(NAME)
    model.network.guide.classes[1].bias.data.copy_(torch.tensor([1.0, -1.0]))
    assert export_model(model, tmp_path / "shut", "torchscript").stat().st_size > 1000


@pytest.mark.slow
def test_it_is_exported_as_onnx(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    assert export_model(slim_model(NAME, width=1), tmp_path / "a", "onnx").stat().st_size > 1000
