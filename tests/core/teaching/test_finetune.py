"""The loop: same seed, same model; the former model is never touched; stopped or killed, nothing is lost."""

import io
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from tissue import example, small_model
from torch import nn

from napari_nucleiseg.core.errors import ModelError, TeachingError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.models.without_brown import picture_without_brown
from napari_nucleiseg.core.teaching import notebook
from napari_nucleiseg.core.teaching.classroom import prepare
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.finetune import finetune
from napari_nucleiseg.core.teaching.learner import Learner

QUICK = FinetuneConfig(
    steps=4, validate_every=2, crop_px=64, batch_size=2, warmup=1, ema=0.5, threads=1, device="cpu", trust_labels=True
)


def lesson(**more):
    held = example(9, "hold out")
    return Lesson((example(1), example(2), held), (example(5, "reference", labels=np.full((96, 96), -1, np.int32)),))


@pytest.fixture(scope="module")
def model():
    return small_model()


def weights_of(model):
    return {key: value.clone() for key, value in model.network.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=0, atol=0)


def test_from_the_first_step_to_the_outcome(model):
    before = weights_of(model)
    steps = list(finetune(model, lesson(), QUICK))
    first, last = steps[0], steps[-1]
    assert (first.step, first.total) == (0, 4)
    assert first.measured.nuclei == 16
    assert "you held out" in first.note
    assert [step.step for step in steps[1:-1]] == [1, 2, 3, 4]
    assert [step.measured is not None for step in steps[1:-1]] == [False, True, False, True]
    assert {"nuclei", "offsets", "memory"} <= steps[1].parts.keys()
    outcome = last.outcome
    assert outcome.before.choice == first.measured.choice
    assert isinstance(outcome.adopted, bool)
    assert outcome.reason
    assert_same(before, weights_of(model))
    changed = weights_of(outcome.model)
    assert any(not torch.equal(before[key], changed[key]) for key in before)


def test_the_card_says_where_it_comes_from(model):
    card = list(finetune(model, lesson(), QUICK))[-1].outcome.model.card
    assert (card.parent, card.licence, card.network) == (model.version, "CC0-1.0", "nuclei")
    assert card.taught["slides"] == [{"name": "a.svs", "fingerprint": "print of a.svs"}]
    assert {"slide": "a.svs", "name": "Region 9", "role": "hold out"} in card.taught["regions"]
    assert card.taught["settings"]["seed"] == 0
    assert card.taught["family"] == model.card.name
    assert card.taught["nuclei"] > 0
    assert card.metrics["before"]["nuclei"] == card.metrics["held out"]["nuclei"] == 16
    assert "32 corrected nuclei of a.svs" in card.training_data


def test_a_function_of_the_seed(model):
    one, again, other = (
        weights_of(list(finetune(model, lesson(), replace(QUICK, seed=seed)))[-1].outcome.model) for seed in (3, 3, 4)
    )
    assert_same(one, again)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_it_learns(model):
    config = replace(QUICK, steps=60, validate_every=20, learning_rate=0.02, anchor=0.0, memory=0.0, batch_size=4)
    outcome = list(finetune(model, lesson(), config))[-1].outcome
    assert outcome.before.pq < 0.1
    assert outcome.after.pq > outcome.before.pq + 0.2
    assert outcome.adopted


def test_killed_and_called_again_it_goes_on_and_ends_the_same(model, tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "EVERY_SECONDS", 0.0)
    whole = list(finetune(model, lesson(), QUICK))[-1].outcome
    broken = finetune(model, lesson(), QUICK, tmp_path)
    assert [step.step for step in islice(broken, 4)] == [0, 1, 2, 3]
    broken.close()
    steps = list(finetune(model, lesson(), QUICK, tmp_path))
    assert [step.step for step in steps] == [0, 4, 4]
    assert_same(weights_of(whole.model), weights_of(steps[-1].outcome.model))
    assert list(tmp_path.iterdir()) == []


def test_notes_of_other_regions_are_not_used(model, tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "EVERY_SECONDS", 0.0)
    for step in finetune(model, lesson(), QUICK, tmp_path):
        if step.step == 3:
            break
    other = Lesson((example(3), example(2), example(9, "hold out")))
    assert [step.step for step in finetune(model, other, QUICK, tmp_path)] == [0, 1, 2, 3, 4, 4]


def packed(state):
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "written",
    [
        b"half a file",
        b"",
        bytes(range(200)),
        b"\x85" * 9,
        packed({"fingerprint": "x"})[:-40],
        packed([1, 2]),
        packed({"step": 3}),
    ],
)
def test_damaged_notes_are_no_notes(model, tmp_path, written):
    (tmp_path / notebook.FILE).write_bytes(written)
    assert [step.step for step in finetune(model, lesson(), QUICK, tmp_path)] == [0, 1, 2, 3, 4, 4]


def test_a_full_disk_is_said_and_the_former_model_is_as_it_was(model, tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(notebook, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TeachingError, match="Free some space and teach again; the former model is as it was"):
        list(finetune(model, lesson(), QUICK, tmp_path))


def test_without_a_hold_out_every_region_is_judged_unseen_and_the_last_run_has_no_curve(model):
    steps = list(finetune(model, Lesson((example(1), example(2))), QUICK))
    assert [step.run for step in steps if step.run][::4] == ["part 1 of 2", "part 2 of 2", "with everything"]
    assert steps[0].total == 12
    assert steps[-1].outcome.after.nuclei == 32
    assert all(step.measured is None for step in steps if step.run == "with everything")


def test_what_stands_still_is_stopped_early(model):
    config = replace(QUICK, steps=40, validate_every=1, patience=3, learning_rate=0.0)
    steps = list(finetune(model, lesson(), config))
    assert steps[-2].step == 4


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 9 GB")]
)
def test_what_does_not_fit_is_tried_smaller(model, monkeypatch, error):
    sizes = []
    step = Learner.step

    def small_memory(self, batch, unlabelled, number):
        sizes.append((len(batch["image"]), batch["image"].shape[-1]))
        if len(batch["image"]) > 1 or batch["image"].shape[-1] > 96:
            raise error
        return step(self, batch, unlabelled, number)

    monkeypatch.setattr(Learner, "step", small_memory)
    steps = list(finetune(model, lesson(), replace(QUICK, crop_px=192, batch_size=4)))
    assert sizes[:4] == [(4, 192), (2, 192), (1, 192), (1, 96)]
    assert [one.note for one in steps if "Memory did not suffice" in one.note][-1].endswith("crops of 96 px.")
    assert steps[-2].step == 4


def test_what_would_not_fit_is_not_even_tried(model, monkeypatch):
    sizes = []
    step = Learner.step

    def noted(self, batch, unlabelled, number):
        sizes.append((len(batch["image"]), batch["image"].shape[-1]))
        return step(self, batch, unlabelled, number)

    monkeypatch.setattr(Learner, "step", noted)
    wanted = replace(QUICK, crop_px=192, batch_size=4)
    a_crop = Learner(model, wanted, {}).kept_bytes() * 192**2
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=3.5 * 1.5 * a_crop))
    steps = list(finetune(model, lesson(), wanted))
    # Two crops with labels and one without.
    assert set(sizes) == {(2, 192)}
    assert "Memory would not suffice: going on with 2 crops at a time." in [one.note for one in steps]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    sizes.clear()
    steps = list(finetune(model, lesson(), wanted))
    assert set(sizes) == {(1, 96)}
    assert steps[-1].outcome is not None


def test_a_network_that_loses_a_margin_gets_crops_that_fit_it():
    spec = network_spec("unet-2015", {})
    former = LoadedModel(spec, ModelCard("u", "unet-2015", sha256="0" * 64, licence="CC0-1.0"), build_network(spec))
    room = prepare(former, lesson(), replace(QUICK, crop_px=96, batch_size=1, trust_labels=True))
    batch, quiet = next(room.batches(room.division.runs[0], room.config, 0))
    side = spec.fitting_side(96)
    assert side > 96
    assert batch["separated"].shape[-2:] == (side, side)
    assert batch["image"].shape[-1] == quiet.shape[-1] == side + 2 * spec.output_margin_px


def test_what_a_step_keeps_is_near_what_is_foretold(model):
    learner = Learner(model, replace(QUICK, crop_px=192), {"nuclei": 1.0})
    kept = {}

    def seen(value):
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda value: value), learner.autocast:
        learner.network(torch.zeros(2, 3, 192, 192))
    assert 0.8 < 2 * 192**2 * learner.kept_bytes() / sum(kept.values()) < 1.5


def test_no_memory_at_all_is_said(model, monkeypatch):
    def none(*_args):
        raise MemoryError("no")

    monkeypatch.setattr(Learner, "step", none)
    with pytest.raises(ModelError, match="Close other programs"):
        list(finetune(model, lesson(), QUICK))


def test_another_error_is_not_taken_for_a_lack_of_memory(model, monkeypatch):
    def broken(*_args):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Learner, "step", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        list(finetune(model, lesson(), QUICK))


@pytest.mark.parametrize(
    ("regions", "word"),
    [
        ((), "no corrected nuclei to learn from"),
        ((example(9, "hold out"),), "no corrected nuclei to learn from"),
        ((example(1, labels=np.zeros((96, 96), np.int32)),), "no corrected nuclei"),
        ((example(1, labels=np.where(example(1).labels > 3, 0, example(1).labels)),), "only 3 corrected nuclei"),
    ],
)
def test_too_little_to_learn_from(model, regions, word):
    with pytest.raises(TeachingError, match=word) as caught:
        next(finetune(model, Lesson(regions, (), ("Region 7 is left out.",)), QUICK))
    assert "Draw a region" in str(caught.value)
    assert "Region 7 is left out." in str(caught.value)


def test_labels_that_look_wrong_are_refused_unless_they_are_to_be_trusted(model):
    shifted = Lesson((example(1, labels=np.roll(example(1).labels, 5, 0)), example(2)))
    with pytest.raises(TeachingError, match=r"Region 1 of a\.svs seems to be shifted"):
        next(finetune(model, shifted, replace(QUICK, trust_labels=False)))
    assert next(finetune(model, shifted, QUICK)).step == 0


@pytest.mark.parametrize("change", [{"steps": 0}, {"certainty": 1.5}, {"folds": 1}, {"batch_size": -1}])
def test_senseless_settings_are_refused(model, change):
    with pytest.raises(TeachingError, match=next(iter(change))):
        next(finetune(model, lesson(), replace(QUICK, **change)))


def test_anchors_keep_it_close_to_the_former_model(model):
    def strayed(**change):
        learner_config = replace(QUICK, learning_rate=0.02, steps=8, **change)
        new = weights_of(list(finetune(model, lesson(), learner_config))[-1].outcome.model)
        former = weights_of(model)
        return sum(float(((new[key] - former[key]) ** 2).sum()) for key in former if former[key].is_floating_point())

    assert strayed(anchor=40.0) < strayed(anchor=0.0)


class Looking(nn.Module):
    """Finds nuclei by their dark, and looks wherever its one weight says."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.look = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        dark = -x.mean(dim=1, keepdim=True)
        return {
            "nuclei": dark * self.gain,
            "offsets": torch.zeros_like(x[:, :2]) * self.gain,
            "attention": self.look(x),
        }


def looking_model():
    torch.manual_seed(0)
    heads = (HeadSpec("nuclei", 1, "sigmoid"), HeadSpec("offsets", 2, "none"), HeadSpec("attention", 2, "sigmoid"))
    spec = ModelSpec("looking", "Looks", 0.5, heads, "offsets", size_multiple=16)
    return LoadedModel(spec, ModelCard("looking", "looking", sha256="1" * 64), Looking().eval())


def test_where_a_person_painted_the_model_learns_to_look():
    looking = looking_model()
    painted = np.full((96, 96), -1, np.int8)
    one = example(1)
    painted[one.labels > 0], painted[:20][one.labels[:20] == 0] = 1, 0
    shown = torch.from_numpy(one.image.transpose(2, 0, 1)[None] / np.float32(255))

    def apart(network):
        """How much more it looks at nuclei than beside them, both heads."""
        with torch.inference_mode():
            said = torch.sigmoid(network((shown - 0.5) / 0.25)["attention"])[0].numpy()
        return said[:, one.labels > 0].mean(1) - said[:, one.labels == 0].mean(1)

    taught = Lesson((replace(one, attention=painted), example(2), example(9, "hold out")))
    config = replace(QUICK, steps=30, validate_every=30, learning_rate=0.05, anchor=0.0, memory=0.0)
    room = prepare(looking, taught, config)
    assert room.losses["attention"] == config.attention > 0
    learner = Learner(looking, config, room.losses)
    for number, batch in enumerate(room.batches(room.division.runs[0], config, 0), 1):
        _, parts = learner.step(*batch, number)
    assert "attention" in parts
    assert (apart(learner.average.module) > apart(looking.network) + 0.2).all()
    plain = prepare(looking, Lesson((example(1), example(9, "hold out"))), config)
    assert "attention" not in plain.losses


def test_a_model_that_ignores_brown_is_taught_and_judged_without_it():
    lessons = Lesson((example(1), example(9, "hold out")), elsewhere=(example(3),))
    room = prepare(looking_model(), lessons, replace(QUICK, ignore_brown=True))
    plain = prepare(looking_model(), lessons, QUICK)
    assert room.fingerprint != plain.fingerprint
    for taught, before in zip(
        room.lesson.examples + room.lesson.elsewhere, lessons.examples + lessons.elsewhere, strict=False
    ):
        np.testing.assert_array_equal(taught.image, picture_without_brown(before.image))
        assert taught.labels is before.labels
    np.testing.assert_array_equal(plain.lesson.examples[0].image, lessons.examples[0].image)
    (held,) = [one for one in room.division.held if one.number == 9]
    np.testing.assert_array_equal(held.image, picture_without_brown(example(9).image))


def test_what_nobody_painted_stays_as_the_model_saw_it():
    looking, one = looking_model(), example(1)
    painted = np.full((96, 96), -1, np.int8)
    painted[one.labels > 0] = 1
    unsaid = replace(one, labels=np.full_like(one.labels, -1), attention=painted)
    shown = torch.from_numpy(one.image.transpose(2, 0, 1)[None] / np.float32(255))

    def rise(memory):
        """How much attention changes on average where it was painted and where it was not."""
        config = replace(QUICK, steps=30, validate_every=30, learning_rate=0.02, anchor=0.0, memory=memory)
        room = prepare(looking, Lesson((unsaid,)), config)
        learner = Learner(looking, config, room.losses)
        for number, batch in enumerate(room.batches(room.division.runs[0], config, 0), 1):
            _, parts = learner.step(batch[0], batch[1][:0], number)
        assert "unpainted" in parts
        with torch.inference_mode():
            before, after = (
                torch.sigmoid(network((shown - 0.5) / 0.25)["attention"])[0].mean(0).numpy()
                for network in (looking.network, learner.average.module)
            )
        return (after - before)[painted == 1].mean(), (after - before)[painted < 0].mean()

    painted_freely, unpainted_freely = rise(0.0)
    painted_held, unpainted_held = rise(3.0)
    assert painted_freely > 0.05
    assert painted_held > 0.02
    assert abs(unpainted_held) < 0.5 * abs(unpainted_freely)
