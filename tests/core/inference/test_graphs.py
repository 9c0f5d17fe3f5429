"""Recorded work: only for shapes that come again, never for many, and given up with a sentence."""

import pytest
import torch

from napari_nucleiseg.core.inference.graphs import MOST_SHAPES, Graphs, graphs_wanted


class Recorder:
    """Stands for `record_cuda`; counts, and fails with `error`."""

    def __init__(self, error=None):
        self.shapes, self.replayed, self.error = [], 0, error

    def __call__(self, compute, pixels):
        if self.error is not None:
            raise self.error
        self.shapes.append(tuple(pixels.shape))

        def replay(values):
            self.replayed += 1
            return compute(values)

        return replay


def bright(pixels):
    return {"nuclei": pixels.float() + 1}


def pixels_of(count):
    return torch.full((count, 4, 4, 3), count, dtype=torch.uint8)


@pytest.mark.parametrize(("value", "wanted"), [("1", True), ("0", False), ("", False), (None, False)])
def test_graphs_are_off_unless_the_environment_asks(monkeypatch, value, wanted):
    monkeypatch.delenv("NUCLEISEG_CUDA_GRAPHS", raising=False)
    if value is not None:
        monkeypatch.setenv("NUCLEISEG_CUDA_GRAPHS", value)
    assert graphs_wanted() is wanted


def test_a_shape_is_recorded_when_it_comes_again_and_replayed_from_then_on():
    record, told = Recorder(), []
    graphs = Graphs(bright, told.append, record)
    for count, replayed in ((1, 0), (8, 0), (8, 1), (8, 2), (3, 2)):
        torch.testing.assert_close(graphs(pixels_of(count))["nuclei"], pixels_of(count).float() + 1)
        assert record.replayed == replayed
    assert record.shapes == [(8, 4, 4, 3)] == list(graphs.recorded)
    assert graphs.seconds > 0
    assert told == []


def test_memory_is_kept_for_few_shapes():
    record = Recorder()
    graphs = Graphs(bright, pytest.fail, record)
    for _ in range(3):
        for count in range(1, MOST_SHAPES + 3):
            torch.testing.assert_close(graphs(pixels_of(count))["nuclei"], pixels_of(count).float() + 1)
    assert len(record.shapes) == MOST_SHAPES


@pytest.mark.parametrize(
    ("error", "why"),
    [(RuntimeError("operation not permitted when stream is capturing\nmore"), "operation not permitted when stream"),
     (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"), (RuntimeError(), "RuntimeError")],
)  # fmt: skip
def test_what_cannot_be_recorded_runs_as_it_is_and_that_is_said_once(error, why):
    told = []
    graphs = Graphs(bright, told.append, Recorder(error))
    for _ in range(4):
        torch.testing.assert_close(graphs(pixels_of(2))["nuclei"], pixels_of(2).float() + 1)
    assert len(told) == 1
    assert why in told[0]
    assert told[0].endswith("going on without; unset NUCLEISEG_CUDA_GRAPHS to try no more.")
    assert "more)" not in told[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_replay_says_the_same_and_keeps_what_was_said():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 2, 3, padding=1).cuda()

    def compute(pixels):
        return {"nuclei": layer(pixels.permute(0, 3, 1, 2).float())}

    graphs = Graphs(compute, pytest.fail)
    batches = [torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, device="cuda") for _ in range(4)]
    with torch.inference_mode():
        said = [graphs(batch)["nuclei"] for batch in batches]
        assert graphs.recorded
        for batch, values in zip(batches, said, strict=True):
            torch.testing.assert_close(values, compute(batch)["nuclei"])
