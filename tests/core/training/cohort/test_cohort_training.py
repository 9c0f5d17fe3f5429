"""Learning from labelled slides: a planted signal is found, none is found where there is none, and seeds decide."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_nucleiseg.core.errors import DataError, ModelError
from napari_nucleiseg.core.models.aggregators import aggregator_names, load_aggregator
from napari_nucleiseg.core.training.cohort.bags import Shelf, find_bags, read_bag, write_bag
from napari_nucleiseg.core.training.cohort.config import CohortConfig
from napari_nucleiseg.core.training.cohort.crossvalidation import FINAL, deal, train_cohort
from napari_nucleiseg.core.training.cohort.labels import load_cohort
from napari_nucleiseg.core.training.cohort.loop import fit
from napari_nucleiseg.core.training.cohort.prediction import predict_slides, slide_attention
from napari_nucleiseg.core.training.cohort.tasks import task_of
from planted_cohort import PLANTED, write_classes, write_labels, write_slide, write_survival


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def config(tmp_path, **changes):
    facts = {"out": str(tmp_path / "run"), "folds": 2, "epochs": 5, "learning_rate": 1e-3, "bootstrap": 200}
    return CohortConfig(**{**facts, "device": "cpu", **changes})


def ended(steps):
    """Run a generator to its end; return what it yielded and what it returned."""
    told = []
    while True:
        try:
            told.append(next(steps))
        except StopIteration as end:
            return told, end.value


def cohort_of(folder, write=lambda folder: write_classes(folder, 8), task="classes"):
    labels = write(folder)
    return load_cohort(find_bags([folder]), labels, task)


def table_of(tmp_path, write, task, **changes):
    return ended(train_cohort(cohort_of(tmp_path, write, task), config(tmp_path, task=task, **changes)))


@pytest.mark.parametrize("name", aggregator_names())
def test_the_response_to_a_treatment_is_found_where_it_was_planted(tmp_path, name):
    steps, table = table_of(tmp_path, write_classes, "classes", aggregators=(name,))
    (row,) = table.rows
    assert (table.metric, table.slides, table.patients) == ("AUC", 24, 12)
    assert row.pooled > 0.9
    assert row.low > 0.7
    assert len(row.folds) == 2
    assert row.mean == pytest.approx(np.mean(row.folds))
    assert steps[-1].done == steps[-1].total == len(steps) == 24 * 2 * 5
    assert [step.part for step in steps if step.done % 60 == 0] == ["fold 1 of 2", "fold 2 of 2", FINAL, FINAL]
    aggregator = load_aggregator(table.outputs[name])
    looked, right = [], 0
    for number in range(24):
        path = tmp_path / f"s{number:03d}.features.safetensors"
        boxes, attention, said = slide_attention(path, aggregator)
        looked.append(attention[:PLANTED].sum())
        right += said.label == ("response" if number // 2 % 2 else "no response")
        assert (boxes[0].tolist(), len(boxes), said.slide) == ([0, 0, 100, 100], 16, f"s{number:03d}.svs")
        assert sum(said.scores.values()) == pytest.approx(1)
    assert right == 24
    by_chance = PLANTED / 16
    if name in {"abmil", "clam"}:
        assert np.mean(looked) > 0.8
    elif name == "hipt":  # its regions have looked at each other already
        assert np.mean(looked) > by_chance
    else:
        assert np.mean(looked) == pytest.approx(by_chance)


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_labels_hold_chance(tmp_path, seed):
    def write(folder):
        return write_classes(folder, 48, shuffled=True, seed=seed)

    # Of few patients, what is held out is by necessity the opposite of what was learned from.
    _, table = table_of(tmp_path, write, "classes", aggregators=("clam",), folds=4, epochs=2)
    assert table.rows[0].low < 0.5 < table.rows[0].high


def test_three_classes(tmp_path):
    def write(folder):
        return write_classes(folder, names=("no response", "partial", "complete"))

    _, table = table_of(tmp_path, write, "classes", aggregators=("clam",), epochs=8)
    aggregator = load_aggregator(table.outputs["clam"])
    assert aggregator.classes == ("complete", "no response", "partial")
    assert table.rows[0].pooled > 0.8


def test_survival_is_found_where_it_was_planted(tmp_path):
    _, table = table_of(tmp_path, write_survival, "survival", aggregators=("clam",), accumulate=4, epochs=8)
    assert table.metric == "c-index"
    assert table.rows[0].pooled > 0.65
    assert table.rows[0].low > 0.5
    aggregator = load_aggregator(table.outputs["clam"])
    assert len(aggregator.edges) == 3
    _, _, said = slide_attention(tmp_path / "s000.features.safetensors", aggregator)
    curve = list(said.scores.values())
    assert [name for name in said.scores if name.startswith("survival")][-1] == "survival_beyond"
    assert 1 > curve[0] > curve[1] > curve[2] > curve[3] > 0
    assert said.scores["risk"] == pytest.approx(-sum(curve[:4]))
    with (tmp_path / "run" / "held_out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"aggregator", "slide", "patient", "fold", "time", "event", "risk"}


def test_shuffled_survival_holds_chance(tmp_path):
    def write(folder):
        return write_survival(folder, shuffled=True)

    _, table = table_of(tmp_path, write, "survival", aggregators=("clam",), accumulate=4)
    assert table.rows[0].low < 0.5 < table.rows[0].high


def test_the_same_seed_gives_the_same_and_another_another(tmp_path):
    cohort = cohort_of(tmp_path)
    found = []
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(7)  # whatever was drawn before
        wanted = config(tmp_path, out=str(tmp_path / run / "run"), aggregators=("mean", "hipt"), epochs=1, seed=seed)
        _, table = ended(train_cohort(cohort, wanted))
        files = [(tmp_path / run / "run" / name).read_bytes() for name in ("held_out.csv",)]
        found.append((table.rows, files, [load_aggregator(path).card.sha256 for path in table.outputs.values()]))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_all_aggregators_are_judged_on_the_same_slides_by_others(tmp_path):
    _, table = table_of(tmp_path, lambda folder: write_classes(folder, 12), "classes", epochs=1)
    assert [row.aggregator for row in table.rows] == list(aggregator_names())
    with (tmp_path / "run" / "held_out.csv").open() as file:
        rows = list(csv.DictReader(file))
    folds = {(row["aggregator"], row["slide"]): row["fold"] for row in rows}
    for number in range(12):
        assert len({folds[name, f"s{number:03d}"] for name in aggregator_names()}) == 1
    assert len(folds) == 4 * 12
    document = json.loads((tmp_path / "run" / "table.json").read_text())
    assert document["rows"][3]["pooled"] == table.rows[3].pooled
    assert document["settings"]["epochs"] == 1
    card = load_aggregator(table.outputs["hipt"]).card
    assert card.features_of == "regions@ba9876543210"
    assert (card.name, card.licence, card.commercial_use) == ("run-hipt", "CC0-1.0", True)
    assert card.taught["encoders"] == ["patches@0123456789ab", "regions@ba9876543210"]


def test_held_out_slides_are_never_read_while_learning(tmp_path):
    cohort = cohort_of(tmp_path)
    wanted, read = config(tmp_path, epochs=3), set()

    class Watched(Shelf):
        def __getitem__(self, place):
            read.add(place)
            return super().__getitem__(place)

    learned = np.flatnonzero(deal(cohort, wanted) != 0)
    ended(fit("mean", Watched(cohort.paths), task_of(cohort, wanted), learned, wanted))
    assert read == set(learned.tolist())


def test_gradients_of_several_slides_make_one_step(tmp_path):
    cohort = cohort_of(tmp_path)
    wanted = config(tmp_path, accumulate=3, epochs=1, dropout=0.0, balanced=False, learning_rate=0.1)
    task, shelf = task_of(cohort, wanted), Shelf(cohort.paths)
    order = task.order(np.arange(8), np.random.default_rng(0))
    _, fitted = ended(fit("mean", shelf, task, np.arange(8), wanted))
    _, start = ended(fit("mean", shelf, task, np.arange(8), replace(wanted, learning_rate=0.0)))
    network = start.network
    optimiser = torch.optim.Adam(network.parameters(), 0.1, weight_decay=wanted.weight_decay)
    for places in (order[:3], order[3:6], order[6:]):
        optimiser.zero_grad()
        torch.stack(
            [task.loss(network(torch.from_numpy(shelf[place]))[0], int(place)) for place in places]
        ).mean().backward()
        optimiser.step()
    for one, other in zip(network.parameters(), fitted.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("slides", "size"), [(900, 32), (320, 32), (40, 4), (5, 1)])
def test_survival_takes_thirty_two_slides_a_step_but_fewer_of_few(slides, size):
    assert CohortConfig(task="survival").slides_a_step(slides) == size
    assert CohortConfig(task="survival", accumulate=8).slides_a_step(slides) == 8
    assert CohortConfig(task="classes").slides_a_step(slides) == 1


def test_rare_classes_are_drawn_as_often(tmp_path):
    for number in range(20):
        write_slide(tmp_path, f"s{number:03d}")
    rows = [(f"s{number:03d}", "rare" if number < 4 else "usual") for number in range(20)]
    labels = write_labels(tmp_path / "labels.csv", ("slide", "label"), rows)
    task = task_of(load_cohort(find_bags([tmp_path]), labels, "classes"), config(tmp_path))
    rng = np.random.default_rng(0)
    drawn = np.concatenate([task.order(np.arange(20), rng) for _ in range(100)])
    assert 0.45 < np.mean(drawn < 4) < 0.55


def test_it_can_be_cancelled_and_then_writes_nothing(tmp_path):
    cohort = cohort_of(tmp_path)
    steps, table = ended(train_cohort(cohort, config(tmp_path, aggregators=("mean",)), cancelled=lambda: True))
    assert (len(steps), table) == (1, None)
    assert list((tmp_path / "run").iterdir()) == []


def test_what_was_interrupted_goes_on_with_the_next_fold_and_gives_the_same(tmp_path):
    cohort = cohort_of(tmp_path)
    whole = config(tmp_path, out=str(tmp_path / "whole" / "run"), aggregators=("mean", "clam"), epochs=2)
    parted = replace(whole, out=str(tmp_path / "parted" / "run"))
    _, expected = ended(train_cohort(cohort, whole))
    asked = iter(range(1000))
    _, table = ended(train_cohort(cohort, parted, cancelled=lambda: next(asked) > 40))
    assert table is None
    with (tmp_path / "parted" / "run" / "folds.jsonl").open("a") as file:
        file.write('{"key": "cut o')
    steps, table = ended(train_cohort(cohort, parted))
    assert {(step.aggregator, step.part) for step in steps} == {("clam", "fold 2 of 2"), ("clam", FINAL)}
    assert steps[-1].done == steps[-1].total == 64
    assert table.rows == expected.rows
    for name in ("mean.safetensors", "clam.safetensors"):
        one, other = (load_aggregator(tmp_path / where / "run" / name) for where in ("whole", "parted"))
        assert one.version == other.version
    again, table = ended(train_cohort(cohort, parted))
    assert (again, table.rows) == ([], expected.rows)


def test_other_labels_or_settings_are_learned_anew(tmp_path):
    cohort, wanted = cohort_of(tmp_path), config(tmp_path, aggregators=("mean",), epochs=1)
    assert len(ended(train_cohort(cohort, wanted))[0]) == 16
    assert len(ended(train_cohort(cohort, replace(wanted, learning_rate=0.01)))[0]) == 16
    other = replace(cohort, cases=tuple(replace(case, label=case.label[::-1]) for case in cohort.cases))
    assert len(ended(train_cohort(other, wanted))[0]) == 16


def test_other_folds_are_judged_anew(tmp_path, monkeypatch):
    cohort, wanted = cohort_of(tmp_path), config(tmp_path, aggregators=("mean",), epochs=1)
    ended(train_cohort(cohort, wanted))
    folds = deal(cohort, wanted)
    monkeypatch.setattr("napari_nucleiseg.core.training.cohort.crossvalidation.deal", lambda *_: 1 - folds)
    assert len(ended(train_cohort(cohort, wanted))[0]) == 16


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"folds": 1}, "folds must be at least 2"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"aggregators": ("best",)}, "there is no aggregator best; choose from mean, abmil, clam, hipt"),
        ({"task": "weather"}, "there is no task weather; choose classes or survival"),
        ({"out": ""}, "name a folder"),
        ({"task": "survival"}, "the labels are read for classes, the run is for survival"),
        ({"folds": 9}, "2 patients with the class no response are too few for 9 folds"),
    ],
)
def test_settings_that_make_no_sense_are_told(tmp_path, changes, said):
    cohort = cohort_of(tmp_path)
    with pytest.raises(DataError, match=said):
        next(train_cohort(cohort, config(tmp_path, **changes)))


def test_few_who_were_lost_from_sight_need_not_be_in_every_fold(tmp_path):
    for number in range(12):
        write_slide(tmp_path, f"s{number:03d}")
    rows = [(f"s{number:03d}", number + 1, int(number > 0)) for number in range(12)]
    labels = write_labels(tmp_path / "labels.csv", ("slide", "time", "event"), rows)
    cohort = load_cohort(find_bags([tmp_path]), labels, "survival")
    folds = deal(cohort, config(tmp_path, task="survival", folds=3))
    assert np.bincount(folds).tolist() == [4, 4, 4]


def survival_of(folder, rows):
    for slide, *_ in rows:
        write_slide(folder, slide)
    labels = write_labels(folder / "labels.csv", ("slide", "patient", "time", "event"), rows)
    return load_cohort(find_bags([folder]), labels, "survival")


def test_patients_with_an_event_in_some_of_their_slides_only_are_in_every_fold(tmp_path):
    rows = [(f"s{number:03d}", f"p{number // 3}", number + 1, int(number % 3 > 0)) for number in range(18)]
    folds = deal(survival_of(tmp_path, rows), config(tmp_path, task="survival", folds=3))
    assert np.bincount(folds).tolist() == [6, 6, 6]
    assert np.bincount(folds[::3]).tolist() == [2, 2, 2]


def test_times_are_written_as_they_were_given(tmp_path):
    times = ["51840123", "0.1", "12", "1234567.25", "0.30000000000000004", "1000000", "2", "3"]
    rows = [(f"s{number}", f"p{number}", time, 1) for number, time in enumerate(times)]
    cohort, wanted = survival_of(tmp_path, rows), config(tmp_path, task="survival", intervals=2, epochs=1)
    ended(train_cohort(cohort, replace(wanted, aggregators=("mean",))))
    with (tmp_path / "run" / "held_out.csv").open() as file:
        assert [row["time"] for row in csv.DictReader(file)] == times


def test_predictions_are_written_and_other_features_refused(tmp_path):
    _, table = table_of(tmp_path, lambda folder: write_classes(folder, 8), "classes", aggregators=("clam",), epochs=1)
    aggregator = load_aggregator(table.outputs["clam"])
    said = list(predict_slides(find_bags([tmp_path]), aggregator, tmp_path / "said"))
    with (tmp_path / "said" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["prediction"] for row in rows] == [one.label for one in said]
    assert float(rows[3]["p_response"]) == pytest.approx(said[3].scores["p_response"], abs=1e-6)
    document = json.loads((tmp_path / "said" / "s003.attention.json").read_text())
    boxes, attention, _ = slide_attention(tmp_path / "s003.features.safetensors", aggregator)
    assert document["boxes"] == boxes.tolist()
    np.testing.assert_allclose(document["attention"], attention, atol=1e-7)
    assert document["aggregator"] == aggregator.version
    foreign = write_slide(tmp_path, "other", encoders=("patches@0", "regions@0"))
    with pytest.raises(ModelError, match="run-clam reads features of patches@0123456789ab and regions@ba9876543210"):
        slide_attention(foreign, aggregator)


def test_slides_in_different_folders_whose_files_have_one_name_are_told_apart(tmp_path):
    _, table = table_of(tmp_path, lambda folder: write_classes(folder, 8), "classes", aggregators=("clam",), epochs=1)
    aggregator = load_aggregator(table.outputs["clam"])
    bags = [write_slide(tmp_path, name, fingerprint=name) for name in ("left", "right")]
    for path in bags:
        bag = read_bag(path)
        write_bag(path, replace(bag, card=replace(bag.card, slide="scan.svs")))
    said = list(predict_slides(bags, aggregator, tmp_path / "said"))
    assert [(one.slide, one.name) for one in said] == [("scan.svs", "left"), ("scan.svs", "right")]
    with (tmp_path / "said" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["slide", "name", "prediction", "p_no response", "p_response"]
    assert [(row["slide"], row["name"], row["prediction"]) for row in rows] == [
        ("scan.svs", one.name, one.label) for one in said
    ]
    list(predict_slides(bags[:1], aggregator, tmp_path / "alone"))
    assert (tmp_path / "alone" / "predictions.csv").read_text().startswith("slide,prediction,")


def test_a_shelf_keeps_no_more_than_it_may(tmp_path):
    paths = [write_slide(tmp_path, name) for name in "abc"]
    shelf = Shelf(paths, most_bytes=2 * 16 * 12 * 4)
    kept = [shelf[place] for place in range(3)]
    assert [shelf[place] is kept[place] for place in range(3)] == [True, True, False]
    np.testing.assert_array_equal(shelf[2], kept[2])
