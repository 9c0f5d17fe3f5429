"""A network for stacks learns from a few corrected planes; the guard keeps it from becoming worse."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from napari_nucleiseg.core.errors import ModelError, TeachingError
from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.core.inference.stacks import segment_stack
from napari_nucleiseg.core.models import registry
from napari_nucleiseg.core.models.registry import build_network, network_spec, register_model
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard, load_model
from napari_nucleiseg.core.teaching.agreement import Agreement, compare
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.learner import Learner
from napari_nucleiseg.core.teaching.notebook import FILE
from napari_nucleiseg.core.teaching.stacks import teach
from napari_nucleiseg.core.teaching.stacks.examiner import StackExaminer
from napari_nucleiseg.core.teaching.stacks.judge import stack_verdict
from napari_nucleiseg.core.teaching.stacks.lesson import StackLesson, divide_stack
from napari_nucleiseg.core.teaching.stacks.teach import LEARNING, TEACHING, new_model, teach_stack
from napari_nucleiseg.core.teaching.versions import all_versions, keep
from stack_parts import VOXEL_UM, balls, stack_scores

PLANES = (6, 10, 14, 18)
QUICK = replace(
    TEACHING, steps=4, crop_px=32, batch_size=1, warmup=1, validate_every=2, ema=0.5, threads=1, device="cpu"
)


@pytest.fixture(scope="module")
def stack():
    return balls(40, shape=(26, 96, 96), radius_um=3.0, seed=4)


@pytest.fixture
def lesson(stack):
    image, labels = stack
    return StackLesson("cells", image, labels, PLANES, ZYX(*VOXEL_UM), "f" * 32)


@pytest.fixture(autouse=True)
def _library():
    pytest.importorskip("monai", reason="the extra zoo is not installed")


class BrightVoxels(torch.nn.Module):
    """Finds balls by their grey value, from `level` on: the one weight that there is to learn."""

    def __init__(self, level=0.5):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(float(level)))

    def forward(self, x):
        nuclei = (x * 0.25 + 0.25 - self.level) * 20
        around = torch.sigmoid(nuclei)
        for side in ((9, 1, 1), (1, 9, 1), (1, 1, 9)):
            around = F.avg_pool3d(around, side, 1, [one // 2 for one in side], count_include_pad=False)
        return {"nuclei": nuclei, "distance": (around - 0.75) * 20, "separated": nuclei}


@pytest.fixture(scope="module")
def registered():
    """`BrightVoxels` as a network of the registry, for as long as these tests run."""
    spec = replace(network_spec("unet-3d"), name="bright-voxels", needs="", tile_px=64, halo_px=16)
    with patch.dict(registry._registry):
        register_model(spec)(BrightVoxels)
        yield spec


def bright(spec, level):
    card = ModelCard("bright", spec.name, licence="CC0-1.0", commercial_use=True, sha256="b" * 64, title="Bright")
    network = build_network(spec)
    network.load_state_dict({"level": torch.tensor(float(level))})
    return LoadedModel(spec, card, network.eval())


def test_a_model_that_sees_too_little_learns_and_is_adopted(registered, lesson):
    former = bright(registered, 0.93)
    config = replace(QUICK, steps=40, learning_rate=0.03, batch_size=2, validate_every=10, anchor=0.0, memory=0.0)
    steps = list(teach_stack(former, lesson, config))
    outcome = steps[-1].outcome
    assert outcome.adopted, outcome.reason
    assert outcome.after.choice > outcome.before.choice + 0.1
    assert outcome.reason.startswith("Better where it was judged")
    measured = [step for step in steps[1:] if step.measured]
    assert measured
    assert all(step.former == outcome.before.choice for step in measured)
    assert steps[0].measured.choice == outcome.before.choice
    assert former.network.level.item() == pytest.approx(0.93)
    card = outcome.model.card
    assert (card.parent, card.licence, card.commercial_use) == (former.card.version, "CC0-1.0", True)
    assert "cells" in card.training_data[-1]
    assert card.metrics["gain"]["choice"] == pytest.approx(outcome.gain.choice, abs=1e-4)


def test_wrong_labels_make_no_worse_model(registered, lesson):
    """Planes whose nuclei are somewhere else teach to see nothing; what is held out knows better."""
    division = divide_stack(lesson)
    levels = np.arange(0.3, 0.7, 0.05)
    good = [StackExaminer(bright(registered, level), lesson, division, "cpu").measure().choice for level in levels]
    former = bright(registered, levels[int(np.argmax(good))])
    shifted = np.roll(lesson.labels, (0, 14, 17), (0, 1, 2))
    # What is held out is right, so that harm shows.
    rows, columns = division.held
    shifted[:, rows, columns] = lesson.labels[:, rows, columns]
    config = replace(QUICK, steps=20, learning_rate=0.05, batch_size=2, validate_every=5, anchor=0.0, memory=0.0)
    *_, last = teach_stack(former, replace(lesson, labels=shifted), config)
    assert not last.outcome.adopted
    assert "not better" in last.outcome.reason or "chance" in last.outcome.reason or "forgotten" in last.outcome.reason


def test_a_first_network_is_made_of_nothing(lesson, tmp_path):
    config = replace(QUICK, anchor=0.0, memory=0.0, learning_rate=LEARNING.learning_rate)
    steps = list(teach_stack(new_model(width=4), replace(lesson, licence="CC0-1.0"), config))
    outcome = steps[-1].outcome
    assert outcome.adopted
    assert outcome.reason.startswith("A first model for stacks")
    assert steps[0].measured is None
    assert [step.step for step in steps] == [0, 1, 2, 3, 4, 4]
    assert np.isfinite([step.loss for step in steps]).all()
    version = keep(outcome)
    assert version in all_versions()
    card = version.card
    assert (card.parent, card.licence, card.commercial_use) == ("", "CC0-1.0", True)
    assert card.title == "unet-3d, taught with cells"
    again = load_model(version.name, dimensions=3)
    statistics = [value for key, value in again.network.state_dict().items() if key.endswith("running_mean")]
    assert statistics
    assert all(value.abs().sum() > 0 for value in statistics)
    assert segment_stack(lesson.volume, again, VOXEL_UM).shape == lesson.labels.shape


@pytest.mark.slow
def test_a_first_network_finds_nuclei_of_another_stack(lesson):
    config = replace(LEARNING, steps=150, crop_px=32, validate_every=50, threads=1, device="cpu")
    *_, last = teach_stack(new_model(width=8), lesson, config)
    assert last.outcome.after.f1 > 0.8
    image, truth = balls(40, shape=(26, 96, 96), radius_um=3.0, seed=9)
    assert stack_scores(truth, segment_stack(image, last.outcome.model, VOXEL_UM)).f1 > 0.8


@pytest.mark.parametrize(("name", "is_new"), [("unet-3d", True), ("unet-3d", False), ("v-net", True)])
def test_every_network_for_stacks_can_be_taught(name, is_new, lesson):
    torch.manual_seed(0)
    model = new_model(name, 4)
    if not is_new:
        model = replace_card(model, sha256="c" * 64)
    room = teach._prepare(model, lesson, QUICK)
    batches = room.batches(teach.RUN, QUICK, 0)
    learner = Learner(model, QUICK, room.losses, is_new=is_new)
    before = [value.detach().clone() for value in learner.network.parameters()]
    for number in (1, 2):
        total, parts = learner.step(*next(batches), number)
        assert np.isfinite(total)
    batches.close()
    assert parts.keys() >= {*room.losses, "memory"}
    changed = [not torch.equal(*pair) for pair in zip(before, learner.network.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2


def replace_card(model, **facts):
    return LoadedModel(model.spec, replace(model.card, **facts), model.network)


def test_a_slope_beyond_all_numbers_spoils_no_weight(registered, lesson):
    model = bright(registered, 0.5)
    room = teach._prepare(model, lesson, QUICK)
    batches = room.batches(teach.RUN, QUICK, 0)
    learner = Learner(model, QUICK, room.losses)
    hook = learner.network.level.register_hook(lambda slope: slope * torch.inf)
    learner.step(*next(batches), 1)
    assert learner.network.level.item() == pytest.approx(0.5)
    hook.remove()
    learner.step(*next(batches), 2)
    batches.close()
    assert torch.isfinite(learner.network.level).all()
    assert learner.network.level.item() != pytest.approx(0.5, abs=1e-7)


def test_after_a_crash_it_goes_on(lesson, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_nucleiseg.core.teaching.notebook.EVERY_SECONDS", 0.0)
    config = replace(QUICK, anchor=0.0, memory=0.0)
    start = new_model(width=4)
    whole = [step.loss for step in teach_stack(start, lesson, config)]
    stopped = teach_stack(start, lesson, config, tmp_path)
    begun = [next(stopped).loss for _ in range(3)]
    stopped.close()
    assert (tmp_path / FILE).exists()
    rest = list(teach_stack(start, lesson, config, tmp_path))
    assert [step.step for step in rest[1:]] == [3, 4, 4]
    assert begun + [step.loss for step in rest[1:]] == pytest.approx(whole, rel=1e-4)
    assert not (tmp_path / FILE).exists()


def test_places_above_each_other_count_once(registered, lesson):
    """Planes of one nucleus are no independent samples."""
    examiner = StackExaminer(bright(registered, 0.5), lesson, divide_stack(lesson), "cpu")
    one = StackExaminer(
        bright(registered, 0.5), replace(lesson, planes=(10,)), divide_stack(replace(lesson, planes=(10,))), "cpu"
    )
    all_planes, single = examiner.measure(), one.measure()
    assert all_planes.f1 > 0.9
    rows, columns = divide_stack(lesson).held
    truth = np.unique(lesson.labels[list(PLANES)][:, rows, columns])
    assert all_planes.nuclei == (truth > 0).sum()
    assert len(all_planes.sums) <= 4 * len(single.sums)
    assert all_planes.sums[:, 3].sum() > single.sums[:, 3].sum()


def test_of_a_large_stack_only_a_part_is_measured_unless_it_shows_too_few_nuclei(registered):
    shape = (6, 1200, 1600)
    labels = np.zeros(shape, np.int32)
    many = [(y, x) for y in range(20, 1180, 40) for x in range(20, 1580, 40)]
    for number, (y, x) in enumerate(many, 1):
        labels[2:4, y : y + 10, x : x + 10] = number
    few = np.where(labels % 40 == 1, labels, 0)
    measured = {}
    for name, one in (("many", labels), ("few", few)):
        lesson = StackLesson("large", np.zeros(shape, np.uint8), one, (2, 3), ZYX(1.0, 0.5, 0.5))
        examiner = StackExaminer(bright(registered, 0.5), lesson, divide_stack(lesson), "cpu")
        measured[name] = [part.stop - part.start for part in examiner._box], len(examiner._ids(examiner._box))
    assert measured["many"][0] == [288, 288]
    assert measured["many"][1] >= 30
    assert max(measured["few"][0]) > 288


def test_it_says_what_is_missing(lesson, registered):
    seen = np.unique(lesson.labels[list(PLANES)])
    few = replace(lesson, labels=np.where(lesson.labels <= seen[5], lesson.labels, 0))
    with pytest.raises(TeachingError, match="only 5 nuclei"):
        next(teach_stack(new_model(width=4), few, QUICK))
    with pytest.raises(TeachingError, match="cannot start"):
        next(teach_stack(new_model(width=4), lesson, replace(QUICK, steps=0)))
    with pytest.raises(TeachingError, match="for pictures"):
        new_model("nuclei")
    with pytest.raises(ModelError, match="is for slides and pictures"):
        next(teach_stack(load_model("nuclei"), lesson, QUICK))


def test_the_guard_of_stacks_says_why():
    def agreement(found, wrong):
        sums = np.zeros((30, 5))
        sums[:] = (found, found + wrong, found * 0.8, found, wrong)
        return Agreement(sums, 30, 1)

    good, bad = agreement(9.0, 1.0), agreement(5.0, 5.0)
    config = FinetuneConfig()
    assert stack_verdict(bad, good, compare([bad], [good]), 0.9, config)[0]
    for before, after, kept, told in (
        (good, bad, 0.9, "not better"),
        (bad, good, 0.2, "forgotten too much"),
        (bad, replace(good, nuclei=4), None, "Only 4 nuclei are held out"),
        (bad, replace(good, nuclei=0), None, "No nucleus is held out"),
    ):
        adopted, reason = stack_verdict(before, after, compare([before], [after]), kept, config)
        assert not adopted
        assert told in reason


@pytest.mark.parametrize("step", [1 << 24, 1 << 31, 1 << 32])
def test_nuclei_of_large_ids_are_all_learned_and_held(lesson, step):
    small = divide_stack(lesson)
    ids = np.asarray(lesson.labels).astype(np.int64)
    large = divide_stack(replace(lesson, labels=np.where(ids > 0, ids * step, ids)))
    assert (large.learned_nuclei, large.held_nuclei) == (small.learned_nuclei, small.held_nuclei)
    for plane, labels in small.labels.items():
        np.testing.assert_array_equal(large.labels[plane] > 0, labels > 0)
        np.testing.assert_array_equal(large.labels[plane] < 0, labels < 0)
