"""Teach takes every network of pictures: a step changes its weights and says what of."""

import pytest
import torch
from tissue import example

from napari_nucleiseg.core.teaching.classroom import prepare
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.learner import Learner
from torchvision_shim import import_timm
from zoo_parts import slim_model, zoo_names

QUICK = FinetuneConfig(
    steps=2, validate_every=1, crop_px=64, batch_size=2, warmup=1, ema=0.5, threads=1, device="cpu", trust_labels=True
)


@pytest.fixture(autouse=True)
def _libraries():
    pytest.importorskip("monai", reason="the extra zoo is not installed")
    import_timm()


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo_names())
def test_a_step_teaches_it(name):
    model = slim_model(name)
    room = prepare(model, Lesson((example(1), example(2), example(9, "hold out"))), QUICK)
    batches = room.batches(room.division.runs[0], QUICK, 0)
    learner = Learner(model, QUICK, room.losses)
    before = [value.detach().clone() for value in learner.network.parameters()]
    for number in (1, 2):  # the first step of a warm-up may be too small to see
        total, parts = learner.step(*next(batches), number)
        assert torch.isfinite(torch.as_tensor(total))
    batches.close()
    assert parts.keys() >= set(room.losses)
    changed = [not torch.equal(*pair) for pair in zip(before, learner.network.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2
