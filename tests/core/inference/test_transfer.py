"""Carrying pictures and maps: the same bytes on every way, copies beside the computing, waiting only at the end."""

import numpy as np
import pytest
import torch
from fake_cuda import FakeCuda

from napari_nucleiseg.core.inference.transfer import DirectTransfer, OverlappedTransfer, page_locked, transfer_of

CPU = torch.device("cpu")


@pytest.fixture
def batch():
    return np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), dtype=np.uint8)


@pytest.fixture
def maps():
    torch.manual_seed(0)
    offsets = torch.randn(3, 2, 8, 6).half().to(memory_format=torch.channels_last)
    return {"nuclei": torch.randint(0, 256, (3, 1, 8, 6), dtype=torch.uint8), "offsets": offsets}


def test_each_device_gets_what_suits_it(monkeypatch):
    FakeCuda(monkeypatch)
    assert isinstance(transfer_of(CPU), DirectTransfer)
    assert isinstance(transfer_of(torch.device("mps")), DirectTransfer)
    assert isinstance(transfer_of(torch.device("cuda:0")), OverlappedTransfer)


def test_a_batch_is_not_copied_for_the_cpu(batch):
    assert np.shares_memory(DirectTransfer(CPU).send(batch).numpy(), batch)
    assert np.shares_memory(DirectTransfer(CPU).send([batch[1]]).numpy(), batch)


@pytest.mark.parametrize("way", [DirectTransfer, OverlappedTransfer])
def test_the_same_bytes_arrive_there_and_back(monkeypatch, way, batch, maps):
    FakeCuda(monkeypatch)
    transfer = way(CPU)
    for pictures in (batch, list(batch)):
        np.testing.assert_array_equal(transfer.send(pictures).numpy(), batch)
    back = transfer.fetch(maps)()
    assert back.keys() == maps.keys()
    for name, value in maps.items():
        np.testing.assert_array_equal(back[name], value.numpy())
        assert back[name].dtype == value.numpy().dtype


def test_copies_have_streams_of_their_own_and_nobody_waits_before_the_maps_are_wanted(monkeypatch, batch, maps):
    cuda = FakeCuda(monkeypatch)
    transfer = OverlappedTransfer(CPU)
    transfer.send(batch)
    assert cuda.log == [("main", "locks", batch.shape), ("main", "waits for", "up"), ("main", "holds")]
    cuda.log.clear()
    wait = transfer.fetch(maps)
    assert cuda.log[0] == ("down", "waits for", "main")
    assert cuda.log[1:-1] == [
        ("down", "locks", (3, 1, 8, 6)), ("down", "holds"), ("down", "locks", (3, 2, 8, 6)), ("down", "holds"),
    ]  # fmt: skip
    assert cuda.log[-1] == ("down", "marks")
    wait()
    assert cuda.log[-1] == ("host", "waits")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_bytes_are_the_same_too(batch, maps):
    device = torch.device("cuda")
    transfer = OverlappedTransfer(device)
    assert page_locked((2,), torch.uint8).is_pinned()
    np.testing.assert_array_equal(transfer.send(batch).cpu().numpy(), batch)
    back = transfer.fetch({name: value.to(device) for name, value in maps.items()})()
    for name, value in maps.items():
        np.testing.assert_array_equal(back[name], value.numpy())
