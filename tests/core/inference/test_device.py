"""Devices at work: a full memory or a lost GPU costs time, not results."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from darkness import Darkness, darkness_model
from torch import nn

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.inference.device import Forward, set_torch_threads
from napari_nucleiseg.core.models.hardware import has_fast_bfloat16
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard

HEADS = ("nuclei", "offsets")


@pytest.fixture
def batch():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)


class Fails(nn.Module):
    """`Darkness` that raises what `trouble(x, calls)` returns."""

    def __init__(self, trouble):
        super().__init__()
        self.inner, self.trouble, self.sizes = Darkness(), trouble, []

    def __deepcopy__(self, memo):
        return self  # so that the test sees the calls

    def forward(self, x):
        self.sizes.append(len(x))
        error = self.trouble(x, len(self.sizes))
        if error is not None:
            raise error
        return self.inner(x)


def test_bfloat16_is_used_only_where_the_hardware_has_it(monkeypatch, batch):
    assert has_fast_bfloat16(torch.device("mps")) is False
    for there, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        seen = []

        class Probe(nn.Module):
            def forward(self, x, seen=seen):
                seen.append(nn.functional.conv2d(x, torch.ones(1, 3, 1, 1)).dtype)
                return {"nuclei": x[:, :1], "offsets": x[:, :2]}

        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda there=there: there)
        Forward(darkness_model(Probe()), "cpu", heads=HEADS)(batch)
        assert seen == [dtype]


def test_threads_leave_a_core_to_the_window():
    before = torch.get_num_threads()
    try:
        every, some = set_torch_threads(beside_gui=False), set_torch_threads(beside_gui=True)
        assert some == max(1, every - 1) == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def test_maps_are_probabilities_in_bytes_and_offsets_in_half_precision(batch):
    maps = Forward(darkness_model(), "cpu", heads=HEADS)(batch)
    assert (maps["nuclei"].dtype, maps["nuclei"].shape) == (np.uint8, (4, 1, 32, 48))
    assert (maps["offsets"].dtype, maps["offsets"].shape) == (np.float16, (4, 2, 32, 48))
    assert set(Forward(darkness_model(), "cpu", heads=("nuclei",))(batch)) == {"nuclei"}


def test_the_pixels_reach_the_network_normalised(batch):
    class Echo(nn.Module):
        def forward(self, x):
            return {"nuclei": x[:, :1], "offsets": x[:, 1:]}

    model = darkness_model(Echo())
    model.spec = replace(model.spec, mean=(0.7, 0.5, 0.6), std=(0.2, 0.25, 0.5))
    maps = Forward(model, "cpu", heads=("offsets",))(batch)
    expected = (batch[..., 1:].astype(np.float64) / 255 - (0.5, 0.6)) / (0.25, 0.5)
    np.testing.assert_allclose(maps["offsets"], np.moveaxis(expected, 3, 1), atol=2e-3)


def test_a_full_memory_halves_the_batch_and_goes_on(batch):
    network = Fails(lambda x, _: torch.OutOfMemoryError("CUDA out of memory") if len(x) > 1 else None)
    told = []
    forward = Forward(darkness_model(network), "cpu", heads=HEADS, on_message=told.append)
    maps = forward(batch)
    expected = Forward(darkness_model(), "cpu", heads=HEADS)(batch)
    for name in HEADS:
        np.testing.assert_array_equal(maps[name], expected[name])
    assert network.sizes == [4, 2, 1, 1, 1, 1]
    assert told == [
        "The cpu memory is full: going on with 2 tiles at a time.",
        "The cpu memory is full: going on with one tile at a time.",
    ]
    network.sizes.clear()
    forward(batch)
    assert network.sizes == [1, 1, 1, 1]


def test_one_tile_that_does_not_fit_is_a_sentence(batch):
    network = Fails(lambda *_: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    with pytest.raises(ModelError, match="close other programs"):
        Forward(darkness_model(network), "cpu", heads=HEADS)(batch)


def test_a_lost_gpu_is_left_for_the_cpu_and_the_batch_is_done_again(batch):
    network = Fails(
        lambda _, calls: RuntimeError("CUDA error: unspecified launch failure\nmore") if calls == 1 else None
    )
    told = []
    maps = Forward(darkness_model(network), "cpu", heads=HEADS, on_message=told.append)(batch)
    expected = Forward(darkness_model(), "cpu", heads=HEADS)(batch)
    np.testing.assert_array_equal(maps["offsets"], expected["offsets"])
    assert told == [
        "The GPU stopped working (CUDA error: unspecified launch failure): going on, more slowly, on the CPU."
    ]
    assert network.sizes == [4, 1, 1, 1, 1]


def test_other_errors_of_the_network_are_told(batch):
    network = Fails(lambda *_: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(ModelError, match="darkness cannot run: mat1"):
        Forward(darkness_model(network), "cpu", heads=HEADS)(batch)


def test_the_loaded_network_stays_as_it_was_and_folding_changes_next_to_nothing(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    spec = network_spec("nuclei", {"width": 8, "depth": 2})
    torch.manual_seed(0)
    network = build_network(spec).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    batch = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    maps = Forward(LoadedModel(spec, ModelCard("nuclei", "nuclei"), network), "cpu", heads=HEADS)(batch)
    x = torch.from_numpy(batch).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        raw = network((x - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1))
    np.testing.assert_allclose(maps["offsets"], raw["offsets"], atol=2e-3)
    np.testing.assert_allclose(maps["nuclei"] / 255, raw["nuclei"].sigmoid(), atol=1 / 255)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_what_was_too_much_once_is_not_tried_again_at_the_next_view(batch):
    network = Fails(lambda x, _: torch.OutOfMemoryError("out of memory") if len(x) > 1 else None)
    model, told = darkness_model(network), []
    Forward(model, "cpu", heads=HEADS, on_message=told.append)(batch)
    network.sizes.clear()
    Forward(model, "cpu", heads=HEADS, on_message=told.append)(batch)
    assert network.sizes == [1, 1, 1, 1]
    assert len(told) == 2
