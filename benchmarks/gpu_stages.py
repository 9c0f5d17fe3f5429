"""Where the time of a whole slide goes, stage by stage, while the program runs as it always does."""

import threading
import time
from contextlib import ExitStack
from functools import wraps
from unittest.mock import patch

import torch

from napari_nucleiseg.core.inference import predict, segment
from napari_nucleiseg.core.inference.device import Forward
from napari_nucleiseg.core.inference.device_decode import DeviceDecode
from napari_nucleiseg.core.inference.graphs import Graphs
from napari_nucleiseg.core.inference.transfer import OverlappedTransfer
from napari_nucleiseg.core.store.project import Project

PLACES = {
    "read": (predict, "read_tile"),
    "send": (OverlappedTransfer, "send"),
    "start": (Forward, "start"),
    "wait": (Forward, "_finish"),
    "decode": (segment, "find_nuclei"),
    "write": (Project, "write_tile"),
    "flush": (Project, "flush"),
}


class Stages:
    """Wall and processor seconds of each stage summed over threads, and of what the device computed."""

    def __init__(self, *, cuda):
        self._cuda, self._lock, self._stack = cuda, threading.Lock(), ExitStack()
        self._wall, self._cpu, self._computed = dict.fromkeys(PLACES, 0.0), dict.fromkeys(PLACES, 0.0), []
        self._decoded = []
        self.megapixels = 0.0
        self._inside = threading.local()

    def __enter__(self):
        for name, (owner, attribute) in PLACES.items():
            self._stack.enter_context(patch.object(owner, attribute, self._timed(name, getattr(owner, attribute))))
        self._stack.enter_context(patch.object(Forward, "compute", self._computing(Forward.compute)))
        self._stack.enter_context(patch.object(Graphs, "__call__", self._computing(Graphs.__call__)))
        self._stack.enter_context(patch.object(DeviceDecode, "__call__", self._decoding(DeviceDecode.__call__)))
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _timed(self, name, function):
        @wraps(function)
        def timed(*args, **kwargs):
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
                with self._lock:
                    self._wall[name] += wall
                    self._cpu[name] += cpu

        return timed

    def _computing(self, function):
        @wraps(function)
        def computing(owner, pixels):
            if getattr(self._inside, "yes", False):  # a graph being recorded is no place for a clock
                return function(owner, pixels)
            self._inside.yes = True
            try:
                first, last = self._mark(), None
                found = function(owner, pixels)
                last = self._mark()
            finally:
                self._inside.yes = False
            with self._lock:
                self._computed.append((first, last))
                self.megapixels += pixels[..., 0].numel() / 1e6
            return found

        return computing

    def _decoding(self, function):
        @wraps(function)
        def decoding(owner, maps, windows):
            first = self._mark()
            found = function(owner, maps, windows)
            marks = first, self._mark()
            with self._lock:
                self._decoded.append(marks)
            return found

        return decoding

    def _mark(self):
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @property
    def busy(self):
        """Seconds the device computed or decoded; on a GPU by its own clock."""
        return self._between(self._computed) + self._between(self._decoded)

    def _between(self, marks):
        if not self._cuda:
            return sum(last - first for first, last in marks)
        torch.cuda.synchronize()
        return sum(first.elapsed_time(last) for first, last in marks) / 1e3

    def table(self):
        """Seconds by stage: wall, and processor in brackets' place as a stage of its own."""
        found = {f"{name}, s": seconds for name, seconds in self._wall.items()}
        found["decode on device, s"] = self._between(self._decoded)
        return found | {f"{name}, cpu s": seconds for name, seconds in self._cpu.items()}
