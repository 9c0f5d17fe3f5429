"""A model that was fitted without labels is measured where there are labels, and refused only if it is worse."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tissue import painted_slide

from dark_attention import dark_attention
from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.scale_attention import with_tau
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.store.regions import HOLD_OUT, TEACH
from napari_nucleiseg.core.teaching.agreement import Agreement, compare
from napari_nucleiseg.core.teaching.examples import Example
from napari_nucleiseg.core.teaching.unlabelled import Origin, judge, keep_fitted, keep_trained, not_worse, require_room
from napari_nucleiseg.core.teaching.versions import all_versions

ORIGIN = Origin((("a.svs", "f" * 8),), "", "", {"steps": 7})


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda _name: str(tmp_path / "data"))


@pytest.fixture
def dark():
    """A model of attention that calls what is dark nuclei: the painted nuclei, as they are."""
    return with_tau(dark_attention(), 3.2)


@pytest.fixture
def examples():
    slide, labels = painted_slide()
    image = slide.read_region(slide.region, labels.shape)
    halves = ((TEACH, slice(0, 256), 1), (HOLD_OUT, slice(256, 512), 2))
    return [
        Example("a.svs", "f" * 8, f"Region {number}", number, role, image[rows], labels[rows].astype(np.int32), 0.25)
        for role, rows, number in halves
    ]


def test_worse_on_corrected_nuclei_is_refused_and_kept_apart(dark, examples):
    outcome = judge(dark, with_tau(dark, 1e3), examples, ORIGIN, "cpu")
    assert outcome.before.aji > 0.3
    assert outcome.after.aji == 0
    assert outcome.after.regions == 2
    assert not outcome.adopted
    assert outcome.reason.startswith("Worse on nuclei that people corrected: AJI")
    version = keep_fitted(outcome, "Look, worse")
    assert version.kind == "refused"
    assert version.card.metrics["held out"]["aji"] == 0
    assert version.reason == outcome.reason


def test_better_or_as_good_is_adopted(dark, examples):
    blind = with_tau(dark, 1e3)
    assert judge(blind, dark, examples, ORIGIN, "cpu").reason.startswith("Better on nuclei")
    same = judge(dark, with_tau(dark, 3.2), examples, ORIGIN, "cpu")
    assert same.adopted
    assert same.reason.startswith("As good on nuclei")


def test_the_former_model_is_left_alone(dark, examples):
    before = {key: value.clone() for key, value in dark.network.state_dict().items()}
    judge(dark, with_tau(dark, 1e3), examples, ORIGIN, "cpu")
    assert all(torch.equal(value, before[key]) for key, value in dark.network.state_dict().items())


def test_where_nobody_annotated_anything_that_is_said(dark):
    outcome = judge(dark, with_tau(dark, 3.0), [], ORIGIN, "cpu")
    assert outcome.adopted
    assert outcome.reason.startswith("Not judged: there is no annotated region")
    version = keep_fitted(outcome, "Look, fitted to a.svs")
    card = version.card
    assert (version.name, version.kind, version.title) == ("look-2", "taught", "Look, fitted to a.svs")
    assert card.parent == dark.version
    assert card.taught["regions"] == [{"slide": "a.svs", "name": "All tissue", "role": "without labels"}]
    assert "held out" not in card.metrics
    assert card.licence == "CC0-1.0"


def test_few_nuclei_are_said_to_say_little():
    one = Agreement(np.array([[90.0, 100, 8, 10, 2]]), 10, 1)
    adopted, reason = not_worse(one, one, compare([one], [one]))
    assert adopted
    assert "So few nuclei say little" in reason


def test_runs_from_nothing_are_roots_with_names_of_their_own(dark):
    first = keep_trained(dark, ORIGIN, "Attention, learned from a.svs")
    second = keep_trained(with_tau(dark, 2.0), ORIGIN, "Attention, learned from a.svs")
    assert [one.name for one in (first, second)] == ["attention", "attention-2"]
    assert {version.kind for version in all_versions() if version.name.startswith("attention")} == {"own"}
    tensors = load_model("attention").network.state_dict()
    assert all(torch.equal(value, tensors[key]) for key, value in dark.network.state_dict().items())


def test_a_licence_that_forbids_commerce_is_inherited(dark):
    origin = Origin((("a.svs", ""), ("b.svs", "")), "CC-BY-NC-4.0")
    card = keep_trained(dark, origin, "Title", dark).card
    assert card.licence == "CC0-1.0 AND CC-BY-NC-4.0"
    assert not card.commercial_use
    assert card.training_data[-1] == "2 slides, no labels (CC-BY-NC-4.0)"


def test_room_on_the_disk_of_a_folder_that_is_not_there_yet(tmp_path, monkeypatch):
    require_room(tmp_path / "a" / "b", need=1)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=1_000_000))
    with pytest.raises(WeightsError, match="has 1 MB left; a run needs 700 MB"):
        require_room(tmp_path / "a" / "b")
