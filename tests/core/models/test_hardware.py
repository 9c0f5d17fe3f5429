"""Which device is taken, and what is said where the wanted one is not there."""

import pytest
import torch

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models import hardware
from napari_nucleiseg.core.models.hardware import choose_device, give_up_device


def test_auto_is_always_a_device_that_is_there():
    wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == wanted
    assert choose_device("cpu").type == "cpu"


def test_unknown_and_absent_devices_are_refused_with_a_way_out():
    for unknown in ("quantum", "", "cpu:first"):
        with pytest.raises(ModelError, match=f"no device called {unknown}; choose auto, cuda, mps or cpu"):
            choose_device(unknown)
    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(ModelError, match="choose auto or cpu"):
        choose_device(absent)


def test_a_gpu_that_was_lost_is_not_chosen_again(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cuda"
    monkeypatch.setattr(hardware, "_lost_kinds", set())
    give_up_device(torch.device("cuda:0"))
    give_up_device(torch.device("cpu"))  # there is nothing to take instead
    assert choose_device("auto").type == "cpu"
    assert choose_device("cuda").type == "cuda"  # whoever insists may try


def test_a_gpu_with_a_number_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ModelError, match="has no cuda:2; its GPUs are cuda:0 to cuda:1: choose one, auto or cpu"):
        choose_device("cuda:2")
