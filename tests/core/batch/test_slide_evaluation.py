"""A slide's nuclei against a reference: block by block as in memory, by region, by class, mistake by mistake."""

import itertools
import json

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.batch.slide_evaluation import evaluate_slide, regions_to_evaluate
from napari_nucleiseg.core.edits.rasters import inside_polygon
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.evaluation import Kind, overlaps, scores
from napari_nucleiseg.core.exchange.formats import export
from napari_nucleiseg.core.exchange.imports import import_nuclei
from napari_nucleiseg.core.exchange.mistakes import write_mistakes
from napari_nucleiseg.core.exchange.reference import open_reference
from napari_nucleiseg.core.exchange.source import SOFTWARE, source_of_project
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.classes import NucleusClass, put_classes
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.regions import AnnotatedRegion, put_region

SHAPE = (160, 200)
CLASSES = (NucleusClass(1, "Tumour", "#ff0000"), NucleusClass(2, "Lymphocyte", "#0000ff"))


def image(*boxes, shape=SHAPE):
    """An instance map of boxes ``(id, y0, x0, y1, x1)``."""
    labels = np.zeros(shape, np.uint32)
    for number, y0, x0, y1, x1 in boxes:
        labels[y0:y1, x0:x1] = number
    return labels


class Desk:
    """Makes projects of one slide from label images, and evaluates one against another."""

    def __init__(self, folder):
        self.folder, self.opened, self.numbers = folder, [], itertools.count()

    def project(self, labels, classes=None, regions=(), fingerprint="slide"):
        name = f"p{next(self.numbers)}"
        blank = np.broadcast_to(np.uint8(255), (*labels.shape, 3))
        slide = Slide("/slides/s.svs", (blank,), (YX(1, 1),), YX(0.5, 0.5), fingerprint=fingerprint)
        made = Project.create(self.folder / f"{name}.nucleiseg", slide)
        self.opened.append(made)
        import_nuclei(made, self.tiff(labels, name))
        if classes:
            list(put_classes(made, CLASSES))
            for number, ids in classes.items():
                made.editor.classify(list(ids), number)
        for region in regions:
            put_region(made, region)
        made.flush()
        return made

    def tiff(self, labels, name):
        path = self.folder / f"{name}.tif"
        tifffile.imwrite(path, labels, software=SOFTWARE)  # so that ids are kept
        return path

    def reference(self, labels, **more):
        return open_reference(self.project(labels, **more).folder, self.opened[0])

    def close(self):
        for project in self.opened:
            project.close()


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path)
    yield made
    made.close()


def square(name, y0, x0, y1, x1, role="reference"):
    return AnnotatedRegion(0, name, role, ((y0, x0), (y0, x1), (y1, x1), (y1, x0)))


def comparable(found):
    return {name: value for name, value in found.as_dict().items() if name != "ahd_as_coded"}


@st.composite
def fields(draw):
    """Two label images of rectangles over each other, many of them across the borders of blocks."""
    sides = []
    for _ in range(2):
        labels = np.zeros((60, 70), np.uint32)
        for number in range(1, draw(st.integers(0, 8)) + 1):
            y, x = draw(st.integers(0, 55)), draw(st.integers(0, 65))
            labels[y : y + draw(st.integers(1, 25)), x : x + draw(st.integers(1, 25))] = number * 7
        sides.append(labels)
    return sides


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields(), st.integers(5, 40))
def test_blocks_change_no_score_and_agree_with_what_fits_into_memory(tmp_path_factory, sides, block_px):
    truth, pred = sides
    if not truth.any():
        truth[0, 0] = 1
    desk = Desk(tmp_path_factory.mktemp("desk"))
    try:
        project = desk.project(pred)
        with desk.reference(truth) as reference:
            region = square("half", 0, 0, 33.3, 70)
            reports = [
                evaluate_slide(project, reference, regions=regions, block_px=px)
                for regions in ((), (region,))
                for px in (block_px, 2048)
            ]
        whole, whole_again, part, part_again = (report.as_dict() for report in reports)
        assert (whole, part) == (whole_again, part_again)
        assert comparable(reports[0].total.scores) == pytest.approx(comparable(scores(truth, pred)), nan_ok=True)
        kept = kept_in(truth, pred, region)
        assert comparable(reports[2].total.scores) == pytest.approx(comparable(scores(*kept)), nan_ok=True)
        assert reports[2].regions[0].scores.as_dict() == reports[2].total.scores.as_dict()
    finally:
        desk.close()


def kept_in(truth, pred, region):
    """Both images with what belongs to a region only, by the rule as it is written."""
    masks = [[labels == number for number in np.unique(labels) if number] for labels in (truth, pred)]
    inside = [
        [bool(inside_polygon(np.argwhere(mask).mean(0)[None], region.polygon)[0]) for mask in side] for side in masks
    ]
    for (a, one), (b, other) in itertools.product(enumerate(masks[0]), enumerate(masks[1])):
        if np.sum(one & other) > 0.5 * np.sum(one | other):
            inside[1][b] = inside[0][a]
    for labels, side, flags in zip((truth, pred), masks, inside, strict=True):
        kept = np.zeros_like(labels)
        for mask, flag in zip(side, flags, strict=True):
            if flag:
                kept[mask] = labels[mask]
        yield kept


def test_each_nucleus_is_right_missed_added_split_or_merged(desk):
    truth = image(
        (1, 0, 0, 10, 10), (2, 20, 0, 30, 10), (3, 40, 0, 50, 20), (4, 60, 0, 70, 10), (5, 60, 10, 70, 20),
        (6, 80, 0, 90, 10),
    )  # fmt: skip
    pred = image(
        (11, 0, 0, 10, 9), (12, 100, 50, 110, 60), (13, 40, 0, 50, 10), (14, 40, 10, 50, 20), (15, 60, 0, 70, 20),
        (16, 80, 0, 83, 10),
    )  # fmt: skip
    project = desk.project(pred)
    with desk.reference(truth) as reference:
        report = evaluate_slide(project, reference, block_px=64)
    assert report.total.verdicts.as_dict() == {"correct": 1, "missed": 2, "added": 2, "split": 1, "merged": 1}
    told = {kind: (report.truth.of(kind).tolist(), report.pred.of(kind).tolist()) for kind in Kind}
    assert told == {
        Kind.SAME: ([1], [11]),
        Kind.CHANGED: ([], []),
        Kind.SPLIT: ([3], [13, 14]),
        Kind.MERGED: ([4, 5], [15]),
        Kind.ADDED: ([], [12, 16]),  # 16 is too small for 6 to count as found
        Kind.MISSED: ([2, 6], []),
    }


def test_regions_are_scored_alone_and_a_nucleus_in_two_counts_once(desk):
    truth = image((1, 10, 10, 20, 20), (2, 10, 60, 20, 70), (3, 100, 150, 110, 160))
    pred = image((1, 10, 10, 20, 20), (5, 40, 12, 50, 22))
    regions = square("Left", 0, 0, 90, 50), square("All above", 0, 0, 90, 200, role="hold out")
    project = desk.project(pred, regions=regions)
    with desk.reference(truth) as reference:
        chosen = regions_to_evaluate(project, reference, "all")
        report = evaluate_slide(project, reference, regions=chosen)
        assert [region.name for region in regions_to_evaluate(project, reference, "holdout")] == ["All above"]
        assert [region.name for region in regions_to_evaluate(project, reference, "reference")] == ["Left"]
        assert regions_to_evaluate(project, reference) == regions_to_evaluate(project, reference, "none") == ()
    left, above = report.regions
    assert (left.name, left.role, left.scores.truth_count, left.scores.pred_count) == ("Left", "reference", 1, 2)
    assert left.verdicts.as_dict() == {"correct": 1, "missed": 0, "added": 1, "split": 0, "merged": 0}
    assert (above.role, above.scores.truth_count, above.verdicts.missed) == ("hold out", 2, 1)
    assert (report.total.scores.truth_count, report.total.scores.pred_count) == (2, 2)
    assert report.truth.ids.tolist() == [1, 2]


def test_a_pair_is_not_parted_by_the_border_of_a_region_and_no_nucleus_is_cut(desk):
    # The centroid of the true nucleus lies inside the region, that of the found one outside.
    truth, pred = image((1, 40, 40, 60, 60)), image((1, 42, 40, 62, 60))
    project = desk.project(pred)
    with desk.reference(truth) as reference:
        report = evaluate_slide(project, reference, regions=(square("R", 0, 0, 51, 200),), block_px=51)
        other = evaluate_slide(project, reference, regions=(square("R", 51, 0, 160, 200),), block_px=51)
    assert report.total.scores.dice == scores(truth, pred).dice
    assert (report.total.scores.truth_count, report.total.scores.pred_count) == (1, 1)
    assert (other.total.scores.truth_count, other.total.scores.pred_count) == (0, 0)


def test_the_regions_of_a_reference_say_where_it_speaks(desk):
    truth = image((1, 10, 10, 20, 20))
    project = desk.project(image((1, 10, 10, 20, 20), (2, 100, 100, 110, 110)))
    with desk.reference(truth, regions=(square("Seen", 0, 0, 50, 50),)) as reference:
        assert [region.name for region in regions_to_evaluate(project, reference)] == ["Seen"]
        assert evaluate_slide(project, reference, regions=regions_to_evaluate(project, reference)).total.scores.f1 == 1
        assert [region.name for region in regions_to_evaluate(project, reference, "reference")] == ["Seen"]
        with pytest.raises(DataError, match="has any region for “hold out”"):
            regions_to_evaluate(project, reference, "holdout")


def test_classes_are_compared_by_name(desk):
    truth = image((1, 0, 0, 10, 10), (2, 20, 0, 30, 10), (3, 40, 0, 50, 10), (4, 60, 0, 70, 10))
    pred = image((7, 0, 0, 10, 10), (8, 20, 0, 30, 10), (9, 40, 0, 50, 10))
    project = desk.project(pred, classes={1: [7, 9], 2: [8]})
    with desk.reference(truth, classes={1: [1, 2], 2: [3]}) as reference:
        report = evaluate_slide(project, reference)
    assert report.are_classes_compared
    tumour, lymphocyte = report.classes
    assert (tumour.name, tumour.found, tumour.scores.truth_count, tumour.scores.pred_count) == ("Tumour", 1.0, 2, 2)
    assert tumour.scores.f1 == 0.5
    assert (lymphocyte.found, lymphocyte.scores.f1, lymphocyte.scores.pq) == (1.0, 0, 0)
    assert report.confusion.reference == ("Tumour", "Lymphocyte", "no class")
    assert report.confusion.counts == ((1, 1, 0), (1, 0, 0), (0, 0, 0))
    assert report.confusion.agreement == pytest.approx(1 / 3)
    assert report.as_dict()["confusion"]["counts"]["Tumour"] == {"Tumour": 1, "Lymphocyte": 1, "no class": 0}


def test_without_classes_what_is_found_counts_for_the_class_it_lies_on(desk):
    truth = image((1, 0, 0, 10, 10), (2, 20, 0, 30, 10), (3, 40, 0, 50, 10))
    # 8 lies on 2 but is far too large; 9 lies on nothing.
    pred = image((7, 0, 0, 10, 10), (8, 20, 0, 39, 30), (9, 100, 0, 110, 10))
    project = desk.project(pred)
    with desk.reference(truth, classes={1: [1], 2: [2, 3]}) as reference:
        report = evaluate_slide(project, reference)
    assert not report.are_classes_compared
    tumour, lymphocyte = report.classes
    assert (tumour.scores.f1, tumour.scores.pq, tumour.found) == (1, 1, 1)
    assert (lymphocyte.scores.truth_count, lymphocyte.scores.pred_count, lymphocyte.found) == (2, 1, 0)
    assert report.confusion.counts == ((1,), (0,), (0,))
    assert report.confusion.agreement == 0


def test_every_kind_of_reference_gives_the_same_scores(desk, tmp_path):
    truth = image((1, 0, 0, 10, 10), (2, 20, 0, 30, 10), (3, 40, 0, 50, 20), (4, 60, 60, 70, 70))
    project = desk.project(image((1, 0, 1, 10, 11), (2, 22, 0, 31, 10), (3, 40, 0, 50, 9)))
    known = desk.project(truth)
    found = []
    for name in ("r.geojson", "r.tif", "r.labels.zarr"):
        form = {"r.tif": "tif", "r.geojson": "geojson"}.get(name, "zarr")
        export(source_of_project(known), tmp_path / name, form)
        with open_reference(tmp_path / name, project) as reference:
            assert reference.notes == ()
            folder = reference.project.folder
            found.append(evaluate_slide(project, reference, block_px=32).total)
        assert not folder.exists()
    with open_reference(known.folder, project) as reference:
        assert {json.dumps(one.as_dict()) for one in found} == {
            json.dumps(evaluate_slide(project, reference).total.as_dict())
        }
    assert comparable(found[0].scores) == pytest.approx(comparable(scores(truth, project_image(project))))


def project_image(project):
    return project.labels.read(Region(0, 0, *project.shape))


def feature(kind, y, x, side=20):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": kind},
    }


def test_nuclei_that_are_drawn_as_annotations_are_taken_and_that_is_told(desk, tmp_path):
    project = desk.project(image((1, 10, 10, 30, 30)))
    path = tmp_path / "drawn.geojson"
    path.write_text(json.dumps([feature("annotation", 10, 10), feature("annotation", 90, 90)]))
    with open_reference(path, project) as reference:
        assert "annotations of the file were taken as nuclei" in reference.notes[0]
        assert reference.project.census.total() == 2
    # So many would be no regions.
    path.write_text(json.dumps([feature("annotation", 2 * (k % 70), 2 * (k // 70), 1) for k in range(5001)]))
    with open_reference(path, project) as reference:
        assert reference.project.census.total() == 5001
    path.write_text(json.dumps([feature("annotation", 0, 0, 100), feature("detection", 10, 10)]))
    with open_reference(path, project) as reference:
        assert reference.project.census.total() == 1
        assert len(regions_to_evaluate(project, reference)) == 1
    with open_reference(path, project, annotations="nuclei") as reference:
        # The large one was drawn first: what lies under it wholly is left out, which is told.
        assert reference.project.census.total() == 1
        (note,) = reference.notes
        assert note.endswith("whose pixels stay with the first: 1; left out as hidden by more than half: 1.")


def test_a_reference_of_a_former_version_is_of_the_same_slide(desk):
    labels = image((1, 10, 10, 30, 30))
    project, twin = (desk.project(labels, fingerprint=middle * 16 + "e" * 32) for middle in "ab")
    with open_reference(desk.project(labels, fingerprint="e" * 32).folder, project) as reference:
        assert reference.project.census.total() == 1
    with pytest.raises(DataError, match="belongs to another slide"):
        open_reference(twin.folder, project)


def test_what_cannot_be_a_reference_is_said(desk, tmp_path):
    project = desk.project(image((1, 10, 10, 30, 30)))
    with pytest.raises(DataError, match="is the project itself"):
        open_reference(project.folder, project)
    other = desk.project(image((1, 10, 10, 30, 30), shape=(90, 90)))
    with pytest.raises(DataError, match=r"belongs to another slide \(s.svs, 90 x 90 px\)"):
        open_reference(other.folder, project)
    path = tmp_path / "beside.geojson"
    path.write_text(json.dumps([feature("detection", 5000, 5000)]))
    with pytest.raises(DataError, match=r"holds no nuclei of this slide .* beside the slide"):
        open_reference(path, project)


def test_mistakes_are_written_with_their_kind_as_class(desk, tmp_path):
    truth = image((1, 0, 0, 10, 10), (2, 20, 0, 30, 10), (3, 40, 0, 50, 20), (4, 60, 0, 70, 10), (5, 60, 10, 70, 20))
    pred = image((1, 0, 0, 10, 10), (2, 100, 9, 110, 19), (3, 40, 0, 50, 10), (4, 40, 10, 50, 20), (5, 60, 0, 70, 20))
    project = desk.project(pred, regions=(square("R", 0, 0, 9, 9),))
    path = tmp_path / "wrong.geojson"
    with desk.reference(truth) as reference:
        report = evaluate_slide(project, reference)
        assert write_mistakes(project, reference, report, path) == 5
    features = json.loads(path.read_text())["features"]
    told = [
        (one["properties"]["classification"]["name"], one["properties"]["measurements"]["Label"]) for one in features
    ]
    assert sorted(told) == [("Added", 2), ("Merged", 5), ("Missed", 2), ("Split", 3), ("Split", 4)]
    assert len({one["id"] for one in features}) == 5
    missed = next(one for one in features if one["properties"]["classification"]["name"] == "Missed")
    assert np.array(missed["geometry"]["coordinates"][0]).max(0).tolist() == [10, 30]


def test_the_report_is_json_without_single_nuclei(desk, tmp_path):
    project = desk.project(image((1, 10, 10, 30, 30)))
    with desk.reference(image((1, 100, 100, 130, 130))) as reference:
        report = evaluate_slide(project, reference)
    report.write_json(tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text())
    assert document == report.as_dict()
    assert (document["total"]["f1"], document["total"]["ahd"], document["total"]["missed"]) == (0, None, 1)
    with pytest.raises(DataError, match="cannot be written"):
        report.write_json(tmp_path / "not" / "there.json")


def test_stopping_leaves_nothing_behind(desk, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    project = desk.project(image((1, 10, 10, 30, 30)))

    class EnoughError(Exception):
        pass

    def stop(_stage, _done, _total):
        raise EnoughError

    with pytest.raises(EnoughError):
        open_reference(desk.tiff(image((1, 0, 0, 9, 9)), "r"), project, on_progress=stop)
    assert not list((tmp_path / "scratch").iterdir())
    with desk.reference(image((1, 0, 0, 9, 9))) as reference, pytest.raises(EnoughError):
        evaluate_slide(project, reference, on_progress=stop)


def test_a_table_of_some_nuclei_is_that_of_images_with_no_others():
    truth, pred = image((3, 0, 0, 9, 9), (5, 5, 20, 15, 30)), image((2, 0, 3, 9, 12), (4, 5, 22, 15, 32))
    table = overlaps(truth, pred)
    smaller, rows = table.only(np.array([False, True]), np.array([True, True]))
    wanted = overlaps(np.where(truth == 5, truth, 0), pred)
    for name in ("truth_ids", "pred_ids", "truth_areas", "truth_index", "pred_index", "intersections"):
        assert getattr(smaller, name).tolist() == getattr(wanted, name).tolist()
    assert rows.tolist() == [1]


def test_mistakes_bear_the_numbers_that_the_reference_of_another_program_gave(desk, tmp_path):
    project = desk.project(image((1, 10, 10, 20, 20)))
    path = tmp_path / "theirs.tif"
    tifffile.imwrite(path, image((3, 10, 10, 20, 20), (17, 40, 40, 50, 50)))
    with open_reference(path, project) as reference:
        assert evaluate_slide(project, reference).truth.ids.tolist() == [3, 17]
