"""Streams, events and graphs of CUDA for machines without: they compute at once and note in which order."""

from contextlib import contextmanager

import torch


class FakeStream:
    def __init__(self, log, name):
        self.log, self.name = log, name

    def wait_stream(self, other):
        self.log.append((self.name, "waits for", other.name))


class FakeCuda:
    """Takes the place of what `OverlappedTransfer` uses of ``torch.cuda``; `log` tells what happened."""

    def __init__(self, monkeypatch):
        self.log, self.names = [], iter(["up", "down"])
        self.main = self.now = FakeStream(self.log, "main")
        monkeypatch.setattr(torch.cuda, "Stream", lambda *_: FakeStream(self.log, next(self.names)))
        monkeypatch.setattr(torch.cuda, "stream", self.entered)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: self.now)
        monkeypatch.setattr(torch.cuda, "Event", self.event)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: self.log.append((stream.name, "holds")))
        monkeypatch.setattr("napari_nucleiseg.core.inference.transfer.page_locked", self.page_locked)

    @contextmanager
    def entered(self, stream):
        before, self.now = self.now, stream
        yield
        self.now = before

    def page_locked(self, shape, dtype):
        self.log.append((self.now.name, "locks", shape))
        return torch.empty(shape, dtype=dtype)

    def event(self, *, blocking):
        assert blocking
        cuda = self

        class Event:
            def record(self, stream):
                cuda.log.append((stream.name, "marks"))

            def synchronize(self):
                cuda.log.append(("host", "waits"))

        return Event()
