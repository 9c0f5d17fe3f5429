"""Devices at work: a full memory or a lost GPU costs time, not results."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from darkness import Darkness, darkness_model
from torch import nn

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.device import Forward, default_readers, set_torch_threads
from napari_nucleiseg.core.inference.device_decode import LABELS, DeviceDecode
from napari_nucleiseg.core.inference.graphs import Graphs
from napari_nucleiseg.core.inference.transfer import DirectTransfer
from napari_nucleiseg.core.models.hardware import has_fast_bfloat16
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard

HEADS = ("nuclei", "offsets")


class Said(nn.Module):
    """Says what it was made with, whatever it sees."""

    def __init__(self, nuclei):
        super().__init__()
        self.heads = {"nuclei": nuclei, "offsets": torch.zeros(1, 2, *nuclei.shape[2:])}

    def forward(self, x):
        return self.heads


def test_probabilities_are_rounded_as_torch_rounds_them_on_every_device():
    halves = torch.logit((torch.arange(255, dtype=torch.float64) + 0.5) / 255).float()
    others = torch.cat([torch.randn(2000) * 6, torch.tensor([-200.0, 200.0, 0.0, -0.0, 88.0, -88.0])])
    raw = torch.cat([halves, others, torch.zeros(3000)])[: 32 * 64].view(1, 1, 32, 64)
    spec = network_spec("nuclei")
    said = Forward(LoadedModel(spec, ModelCard("nuclei", "nuclei"), Said(raw)), "cpu", heads=HEADS)
    found = said(np.zeros((1, 32, 64, 3), np.uint8))["nuclei"]
    np.testing.assert_array_equal(found, torch.sigmoid(raw).mul(255).round().to(torch.uint8))


@pytest.mark.parametrize("decode", [None, DeviceDecode(0.5, 0.5, frozenset({"nuclei"}))])
@pytest.mark.parametrize(
    ("head", "value", "said"),
    [
        ("nuclei", np.nan, "nuclei:"),
        ("offsets", np.nan, "offsets:"),
        ("offsets", np.inf, "offsets:"),
        ("offsets", 7e4, "offsets:"),  # infinite in the float16 that is kept
    ],
)
def test_what_is_no_number_is_refused_wherever_a_network_says_it(batch, decode, head, value, said):
    windows = [Region(0, 0, 32, 48)] * 4
    sound, broken = (Said(torch.zeros(4, 1, 32, 48)) for _ in range(2))
    for network in (sound, broken):
        network.heads["offsets"] = torch.zeros(4, 2, 32, 48)
    broken.heads[head][2, 0, 7, 9] = value
    forward = Forward(darkness_model(sound), "cpu", heads=HEADS, decode=decode)
    assert set(forward.start(batch, windows)()) == ({"nuclei", "offsets"} if decode is None else {"nuclei", LABELS})
    forward = Forward(darkness_model(broken), "cpu", heads=HEADS, decode=decode)
    with pytest.raises(ModelError, match=rf"darkness says what is no number .* for {said} .* choose another model\.$"):
        forward.start(batch, windows)()


def test_large_numbers_whose_sum_float16_does_not_hold_are_kept(batch):
    said = Said(torch.zeros(4, 1, 32, 48))
    said.heads["offsets"] = torch.full((4, 2, 32, 48), 6e4)
    assert (Forward(darkness_model(said), "cpu", heads=HEADS)(batch)["offsets"] == np.float16(6e4)).all()


def test_a_logit_without_bounds_is_a_probability():
    said = torch.zeros(1, 1, 32, 48)
    said[..., :24], said[..., 24:] = np.inf, -np.inf
    found = Forward(darkness_model(Said(said)), "cpu", heads=HEADS)(np.zeros((1, 32, 48, 3), np.uint8))["nuclei"]
    assert (found[..., :24] == 255).all()
    assert (found[..., 24:] == 0).all()


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


class LaterLost:
    """A way to the device whose maps are lost the first `times` they are waited for."""

    def __init__(self, times):
        self.direct, self.times = DirectTransfer(torch.device("cpu")), times

    def send(self, pictures):
        return self.direct.send(pictures)

    def fetch(self, maps):
        there = self.direct.fetch(maps)

        def wait():
            if self.times > 0:
                self.times -= 1
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return there()

        return wait


def test_pictures_one_by_one_are_a_batch(batch):
    forward = Forward(darkness_model(), "cpu", heads=HEADS)
    one, other = forward(batch), forward(list(batch))
    for name in HEADS:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_gpu_that_is_lost_while_two_batches_are_in_work_costs_neither_and_is_said_once(batch):
    told = []
    forward = Forward(darkness_model(), "cpu", heads=HEADS, on_message=told.append)
    expected = [forward(batch), forward(batch[:2])]
    forward._transfer = LaterLost(2)
    started = [forward.start(batch), forward.start(batch[:2])]
    for wait, maps in zip(started, expected, strict=True):
        found = wait()
        for name in HEADS:
            np.testing.assert_array_equal(found[name], maps[name])
    assert len(told) == 1
    assert told[0].startswith("The GPU stopped working (CUDA error: an illegal memory access")


def test_a_cpu_has_no_graphs_and_finishes_what_it_starts(monkeypatch, batch):
    monkeypatch.setenv("NUCLEISEG_CUDA_GRAPHS", "1")
    forward = Forward(darkness_model(), "cpu", heads=HEADS)
    assert forward.graphs is None
    assert forward.ahead == 0
    assert default_readers(forward.device) == 2
    assert forward(batch)["nuclei"].shape == (4, 1, 32, 48)


def test_a_gpu_gets_readers_for_half_of_the_cores(monkeypatch):
    found = []
    for cores in (2, 16, 64):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        found.append(default_readers(torch.device("cuda")))
    assert found == [2, 8, 8]


@pytest.mark.parametrize(("asked", "variable", "wanted"), [(True, "0", True), (False, "1", False), (None, "1", True)])
def test_graphs_are_an_argument_or_a_variable_and_say_the_same(monkeypatch, batch, asked, variable, wanted):
    """On a device that says it is a GPU and computes here."""
    monkeypatch.setenv("NUCLEISEG_CUDA_GRAPHS", variable)
    recorded = []

    def record(compute, pixels):
        recorded.append(tuple(pixels.shape))
        return compute

    expected = Forward(darkness_model(), "cpu", heads=HEADS)(batch)
    forward = Forward(darkness_model(), "cpu", heads=HEADS, graphs=asked)
    assert forward._wants_graphs is wanted
    forward._graphs = Graphs(forward.compute_apart, pytest.fail, record) if wanted else None
    for _ in range(3):
        found = forward(batch)
        for name in HEADS:
            np.testing.assert_array_equal(found[name], expected[name])
    assert recorded == [batch.shape] * wanted


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("graphs", [False, True])
def test_on_a_gpu_the_maps_are_those_of_the_cpu(graphs):
    torch.manual_seed(0)
    spec = network_spec("nuclei", {"width": 16, "depth": 2})
    model = LoadedModel(spec, ModelCard("nuclei", "nuclei"), build_network(spec).eval())
    batch = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    expected = Forward(model, "cpu", heads=HEADS)(batch)
    forward = Forward(model, "cuda", heads=HEADS, graphs=graphs, on_message=pytest.fail)
    assert forward.ahead == 1
    for wait in [forward.start(batch) for _ in range(3)]:
        found = wait()
        assert np.abs(found["nuclei"].astype(int) - expected["nuclei"]).max() <= 3
        np.testing.assert_allclose(found["offsets"], expected["offsets"], atol=0.1)
    assert bool(forward.graphs and forward.graphs.recorded) is graphs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_network_that_cannot_be_recorded_still_runs(batch):
    """`Darkness` carries a number from the CPU to the GPU in its forward."""
    told = []
    forward = Forward(darkness_model(), "cuda", heads=HEADS, graphs=True, on_message=told.append)
    expected = Forward(darkness_model(), "cpu", heads=HEADS)(batch)
    for _ in range(4):
        assert np.abs(forward(batch)["nuclei"].astype(int) - expected["nuclei"]).max() <= 2
    assert len(told) == 1
    assert "cannot be recorded" in told[0]
