"""Teach works with every network of the zoo: side outputs, "is there any nucleus?", distances to the centre."""

import pytest
import torch
from tissue import example
from torch import nn

from napari_nucleiseg.core.decoders.hover import HoverDecoder
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.models.zoo.contract import PRESENT
from napari_nucleiseg.core.teaching.classroom import prepare
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.learner import Learner

QUICK = FinetuneConfig(
    steps=4, validate_every=2, crop_px=64, batch_size=2, warmup=1, ema=0.5, threads=1, device="cpu", trust_labels=True
)


class Supervised(nn.Module):
    """Finds nuclei by their dark and says what it sees at two levels, also where it is not in training."""

    def __init__(self):
        super().__init__()
        self.nuclei = nn.ModuleList(nn.Conv2d(3, 1, 1) for _ in range(2))
        self.hover = nn.ModuleList(nn.Conv2d(3, 2, 5, padding=2) for _ in range(2))
        self.some = nn.Linear(3, 1)

    def forward(self, x):
        maps = {f"{name}{suffix}": getattr(self, name)[level](x)
                for level, suffix in enumerate(("", "/1")) for name in ("nuclei", "hover")}  # fmt: skip
        return maps | {PRESENT: self.some(x.mean((2, 3)))[:, :, None, None]}


@pytest.fixture
def model():
    torch.manual_seed(0)
    spec = ModelSpec("supervised", "Says it twice", 0.5, HoverDecoder.heads, "hover", size_multiple=16)
    return LoadedModel(spec, ModelCard("supervised", "supervised", sha256="2" * 64), Supervised().eval())


def test_a_step_learns_from_all_that_a_network_says(model):
    room = prepare(model, Lesson((example(1), example(2), example(9, "hold out"))), QUICK)
    assert set(room.losses) == {"nuclei", "hover"}
    batches = room.batches(room.division.runs[0], QUICK, 0)
    learner = Learner(model, QUICK, room.losses)
    before = [value.detach().clone() for value in learner.network.parameters()]
    course = [learner.step(*next(batches), number)[1] for number in (1, 2)]
    batches.close()
    assert set(course[0]) == {"nuclei", "hover", "side outputs", PRESENT, "memory"}
    after = list(learner.network.parameters())
    assert all(not torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_what_it_says_of_distances_is_remembered_in_their_own_unit(model):
    learner = Learner(model, QUICK, {"nuclei": 1.0, "hover": 1.0})
    image = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        said = learner.network(image)
    moved = said | {"hover": said["hover"] + 1.0}
    same = float(learner._former_view(image, said))
    # Beyond a tenth the price of a difference is the difference less a twentieth; both maps count twice together.
    assert float(learner._former_view(image, moved)) - same == pytest.approx(2 * 0.95, abs=1e-4)
