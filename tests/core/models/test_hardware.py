"""Which device is taken, and what is said where the wanted one is not there."""

import platform
import subprocess
import sys

import pytest
import torch

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models import hardware
from napari_nucleiseg.core.models.hardware import (
    bound_kept_memory,
    choose_device,
    give_back_memory,
    give_up_device,
    keep_freed_memory,
)


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps its memory as it likes")
def test_layers_get_memory_that_is_at_hand():
    script = """
import resource, torch
from napari_nucleiseg.core.models.hardware import choose_device, give_back_memory
torch.set_num_threads(1)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def again():
    for _ in range(8):
        torch.ones(10 << 20)
    before = faults()
    for _ in range(4):
        torch.ones(10 << 20)
    return (faults() - before) // 4
fresh = again()
choose_device("cpu")
# The system may take pages away meanwhile, where memory is short: not every time.
kept = min(again() for _ in range(4))
give_back_memory()
print(fresh, kept)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    fresh, kept = map(int, ran.stdout.split())
    assert fresh > 100 * max(kept, 1)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps its memory as it likes")
def test_what_is_kept_has_a_bound():
    script = """
import os, torch
from napari_nucleiseg.core.models import hardware
torch.set_num_threads(1)
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
hardware.choose_device("cpu")
hardware.KEPT_BYTES = 1 << 28
def after(mib):
    pieces = [torch.ones(mib << 18), torch.ones(1)]
    del pieces[0]
    kept = resident() - before
    hardware.bound_kept_memory()
    return kept, resident() - before
before = resident()
print(*after(128), *after(768))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    little, still, much, left = map(int, ran.stdout.split())
    assert still >= little - 8 >= 100  # MiB: less than the bound stays at hand
    assert much > 700
    assert left < 100


def test_elsewhere_memory_is_left_to_the_library(monkeypatch):
    keep_freed_memory.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    try:
        assert not keep_freed_memory()
        give_back_memory()
        bound_kept_memory()
    finally:
        keep_freed_memory.cache_clear()
