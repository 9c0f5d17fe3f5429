"""GeoJSON into a project: exact round trips, ids and classes, overlaps, undo, and a sentence for every bad feature."""

import json
import tracemalloc
import uuid
from dataclasses import replace

import numpy as np
import pytest

from napari_nucleiseg.core.edits.rasters import polygon
from napari_nucleiseg.core.errors import ImportFileError
from napari_nucleiseg.core.exchange import geojson_import
from napari_nucleiseg.core.exchange.geojson import write_geojson
from napari_nucleiseg.core.exchange.geojson_import import import_geojson
from napari_nucleiseg.core.exchange.reference import open_reference
from napari_nucleiseg.core.exchange.source import (
    NamedClass,
    classes_of,
    source_of_labels,
    source_of_project,
)
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.records import REGIONS
from napari_nucleiseg.core.store.regions import AnnotatedRegion, put_region, read_regions
from napari_nucleiseg.core.store.retouch import Attributes


def square(y, x, side=10, **properties):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "detection", **properties},
    }


def written(tmp_path, features, name="a.geojson"):
    path = tmp_path / name
    path.write_text(features if isinstance(features, str) else json.dumps(features), encoding="utf-8")
    return path


def image_of(project):
    return project.labels.read(project.labels.whole)


def table_of(project):
    return project.nuclei_in(project.labels.whole)


@pytest.fixture
def full(fresh_project, labels):
    """A project with nuclei of classes and scores, some of them not approved, and a region."""
    made = fresh_project(name="full")
    ids = np.unique(labels)[1:].tolist()
    attributes = {key: Attributes(key % 7, (key % 11) / 10, approved=bool(key % 2)) for key in ids}
    made.editor.paint(made.labels.whole, labels.astype(np.uint32), attributes=attributes)
    row = 1, "front", "hold out", "[[10, 20], [10.5, 300], [200, 20]]", 1, 0, "Ada", 1.0
    made.editor.put(REGIONS, 1, row, kind="region", region=Region(10, 20, 190, 280))
    return made


def test_an_export_comes_back_with_pixels_ids_classes_scores_and_regions(full, project, labels, tmp_path):
    write_geojson(source_of_project(full), tmp_path / "a.geojson")
    stages = []
    report = import_geojson(project, tmp_path / "a.geojson", on_progress=lambda *step: stages.append(step))
    np.testing.assert_array_equal(image_of(project), labels)
    there, back = table_of(full), table_of(project)
    for name in ("ids", "centroids", "boxes", "areas_um2", "classes"):
        np.testing.assert_array_equal(getattr(back, name), getattr(there, name))
    np.testing.assert_allclose(back.scores, there.scores, atol=1e-4)
    # Without approval the id of a model's nucleus would not keep it safe from models.
    drawn = there.ids >= PERSON_ID_START
    np.testing.assert_array_equal(back.approved[drawn], there.approved[drawn])
    found = [replace(region, person="", at=0.0) for region in read_regions(project.ledger.reader)]
    assert tuple(found) == (AnnotatedRegion(1, "front", "hold out", ((10, 20), (10.5, 300), (200, 20)), complete=True),)
    assert (report.nuclei, report.ids_kept, report.regions) == (len(there), len(there), 1)
    assert (report.overlapped, dict(report.left_out), report.notes) == (0, {}, ())
    assert {stage for stage, _, _ in stages} == {"reading", "writing"}
    assert stages[-1][1] == stages[-1][2]


def test_one_undo_takes_all_nuclei_back(full, fresh_project, monkeypatch, tmp_path):
    monkeypatch.setattr("napari_nucleiseg.core.exchange.stash.CELL_PX", 100)
    write_geojson(source_of_project(full), tmp_path / "a.geojson")
    project = fresh_project()
    report = import_geojson(project, tmp_path / "a.geojson")
    newest = project.editor.history()[0]
    assert (newest.kind, newest.number, newest.nuclei) == ("import", report.step, report.nuclei)
    assert len(project.editor.undo()) > 10
    assert not image_of(project).any()
    assert project.census.total() == 0
    project.editor.redo()
    np.testing.assert_array_equal(image_of(project), image_of(full))


def test_an_interrupted_import_keeps_what_is_done_and_can_be_undone(full, fresh_project, monkeypatch, tmp_path):
    monkeypatch.setattr("napari_nucleiseg.core.exchange.stash.CELL_PX", 100)
    write_geojson(source_of_project(full), tmp_path / "a.geojson")
    project = fresh_project()

    def stop(stage, done, _total):
        if stage == "writing" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_geojson(project, tmp_path / "a.geojson", on_progress=stop)
    image = image_of(project)
    assert 0 < len(np.unique(image)) - 1 < len(table_of(full))
    np.testing.assert_array_equal(image[image > 0], image_of(full)[image > 0])
    project.editor.undo()
    assert not image_of(project).any()


def test_ids_that_are_taken_become_new_ones(project, tmp_path):
    labels = np.zeros((700, 900), np.int64)
    labels[10:20, 10:20] = 77
    labels[40:50, 10:20] = 78
    write_geojson(source_of_labels(labels, YX(0.5, 0.25)), tmp_path / "a.geojson")
    project.editor.paint(Region(300, 300, 5, 5), np.full((5, 5), 77, np.uint32))
    report = import_geojson(project, tmp_path / "a.geojson")
    assert report.ids_kept == 1
    ids = table_of(project).ids.tolist()
    assert ids[:2] == [77, 78]
    assert ids[2] >= PERSON_ID_START
    assert image_of(project)[300, 300] == 77
    assert "1 of them kept the id that the file gives" in report.sentences[1]


def test_new_ids_do_not_take_those_that_the_file_gives_to_others(project, tmp_path):
    key = project.editor.new_id() + 1
    ours = {**square(50, 50, measurements={"Label": key}), "id": str(uuid.uuid4())[:-8] + f"{key:08x}"}
    report = import_geojson(project, written(tmp_path, [square(10, 10), square(30, 10), ours]))
    assert (report.nuclei, report.ids_kept) == (3, 1)
    assert image_of(project)[55, 55] == key
    assert len(table_of(project)) == 3


def test_numbers_of_every_kind_and_shape_come_in_their_order(project, tmp_path):
    """The first of two that overlap wins, whether it is read as text or as lists."""
    exponent, holed, plain, spaced = square(10, 10), square(15, 15), square(20, 20), square(25, 25)
    exponent["geometry"]["coordinates"][0][1] = [2e1, 10.0]
    holed["geometry"]["coordinates"].append([[18, 18], [19, 18], [19, 19], [18, 19]])
    text = json.dumps([exponent, holed, plain]).replace("20.0", "2e1")[:-1] + "," + json.dumps(spaced, indent=1) + "]"
    assert "2e1" in text
    report = import_geojson(project, written(tmp_path, text))
    assert (report.nuclei, report.left_out) == (4, {})
    ids = [image_of(project)[place, place] for place in (12, 17, 22, 27, 33)]
    assert [ids[0], len(set(ids))] == [ids[1], 4]
    assert (ids[2], image_of(project)[18, 18]) == (ids[2], ids[0])


def test_a_copied_object_of_our_export_gets_an_id_of_its_own(project, tmp_path):
    one = square(10, 10, measurements={"Label": 77})
    ours = {**one, "id": str(uuid.uuid5(uuid.NAMESPACE_URL, "s"))[:-8] + f"{77:08x}"}
    copied = {**square(50, 50, measurements={"Label": 77}), "id": str(uuid.uuid4())}
    report = import_geojson(project, written(tmp_path, [copied, ours, {**ours, **square(90, 90)}]))
    assert (report.nuclei, report.ids_kept) == (3, 1)
    image = image_of(project)
    assert image[15, 15] == 77
    assert len({77, image[55, 55], image[95, 95]}) == 3


def test_classes_are_found_by_name_and_new_ones_added_with_their_colour(project, tmp_path):
    features = [
        square(10, 10, classification={"name": "tumor", "color": [1, 2, 3]}),
        square(30, 10, classification={"names": ["Tumor", "Positive"], "color": [250, 62, 62]}),
        square(50, 10, classification={"name": "Mast cell", "colorRGB": -16711936}),
        square(70, 10, classification={"name": "Mast cell"}),
        square(90, 10, classification="Plasma cell"),
        square(110, 10, classification=None),
    ]
    report = import_geojson(project, written(tmp_path, features))
    assert report.new_classes == ("Tumor: Positive", "Mast cell", "Plasma cell")
    assert "New classes: Tumor: Positive, Mast cell, Plasma cell." in report.sentences
    known = classes_of(project)
    assert known[1] == NamedClass("Tumor", "#e6194b")
    assert [known[n] for n in (7, 8, 9)] == [
        NamedClass("Tumor: Positive", "#fa3e3e"),
        NamedClass("Mast cell", "#00ff00"),
        NamedClass("Plasma cell", "#a9a9a9"),
    ]
    table = table_of(project)
    order = np.argsort(table.centroids[:, 0])
    assert table.classes[order].tolist() == [1, 7, 8, 8, 9, 0]


def test_of_a_cell_the_nucleus_is_taken(project, tmp_path):
    cell = square(100, 100, 40, objectType="cell")
    cell["nucleusGeometry"] = square(110, 110, 8)["geometry"]
    import_geojson(project, written(tmp_path, {"type": "FeatureCollection", "features": [cell]}))
    assert np.count_nonzero(image_of(project)) == 64


def test_holes_and_parts_are_one_nucleus(project, tmp_path):
    outer, hole = (square(*place)["geometry"]["coordinates"][0] for place in ((10, 10, 20), (15, 15, 5)))
    other = square(10, 40)["geometry"]["coordinates"][0]
    feature = square(0, 0)
    feature["geometry"] = {"type": "MultiPolygon", "coordinates": [[outer, hole], [other]]}
    import_geojson(project, written(tmp_path, feature))
    assert table_of(project).areas_um2.tolist() == [(400 - 25 + 100) * 0.125]


def test_annotations_become_regions_or_nuclei_as_one_likes(project, tmp_path):
    features = [square(10, 10, 100, objectType="annotation", name="left"), square(10, 300, 50, objectType="annotation")]
    features[1]["geometry"]["coordinates"].append(square(20, 310, 5)["geometry"]["coordinates"][0])
    path = written(tmp_path, features)
    report = import_geojson(project, path)
    assert (report.nuclei, report.regions) == (0, 2)
    (step,) = project.editor.history()
    assert (step.number, step.kind, step.region) == (report.step, "import", Region(9, 9, 101, 341))
    assert report.sentences[0] == "0 nuclei taken and 2 annotated regions from a.geojson."
    assert "1 annotations have holes, which regions cannot have: they were filled." in report.sentences
    found = read_regions(project.ledger.reader)
    assert [(region.name, region.role, region.complete) for region in found] == [
        ("left", "teach", False),
        ("Region 2", "teach", False),
    ]
    assert found[0].vertices == ((9.5, 9.5), (9.5, 109.5), (109.5, 109.5), (109.5, 9.5))
    # Exactly the pixels that the outline is drawn around in the file, as those of a nucleus would be.
    window = Region(0, 0, 120, 120)
    assert np.argwhere(polygon(found[0].polygon, window)).min(0).tolist() == [10, 10]
    assert np.argwhere(polygon(found[0].polygon, window)).max(0).tolist() == [109, 109]
    assert import_geojson(project, path, annotations="nuclei").nuclei == 2


def test_more_annotations_than_anyone_draws_are_taken_for_nuclei(monkeypatch, project, tmp_path):
    monkeypatch.setattr(geojson_import, "MOST_REGIONS", 3)
    path = written(tmp_path, [square(30 * n, 10, objectType="annotation") for n in range(4)])
    with pytest.raises(ImportFileError, match=r"so many are likely nuclei\. Import it with annotations as 'nuclei'"):
        import_geojson(project, path)
    assert project.editor.history() == []
    assert import_geojson(project, path, annotations="nuclei").nuclei == 4


def test_nuclei_exported_as_annotations_are_nuclei(project, tmp_path):
    labels = np.zeros((700, 900), np.int64)
    labels[10:20, 10:20] = 5
    write_geojson(source_of_labels(labels, YX(0.5, 0.25)), tmp_path / "a.geojson", object_type="annotation")
    report = import_geojson(project, tmp_path / "a.geojson")
    assert (report.nuclei, report.regions) == (1, 0)


# ---------------------------------------------------------------------- slides that hold pixels in a part only


SCANNED = Region(100, 200, 500, 600)


@pytest.fixture
def scanned(tmp_path):
    """Return a function that makes the project of a slide that holds pixels from (100, 200) on, or is not known to."""
    opened = []

    def make(name, bounds=SCANNED):
        white = np.broadcast_to(np.uint8(255), (700, 900, 3))
        slide = Slide("/slides/s.mrxs", (white,), (YX(1, 1),), YX(0.5, 0.25), bounds=bounds, fingerprint="a" * 48)
        opened.append(Project.create(tmp_path / f"{name}.nucleiseg", slide))
        return opened[-1]

    yield make
    for project in opened:
        project.close()


def drawn(project):
    """Draw a nucleus, one over the upper left corner of the part with pixels, and a region exactly around the first."""
    image = np.zeros((700, 900), np.uint32)
    image[150:160, 260:272], image[95:105, 195:205] = 5, 6
    project.editor.paint(project.labels.whole, image)
    put_region(
        project, AnnotatedRegion(0, "a", "teach", ((149.5, 259.5), (149.5, 271.5), (159.5, 271.5), (159.5, 259.5)))
    )
    project.flush()
    return image


def features_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["features"]


@pytest.mark.parametrize("tolerance_px", [0, 0.1])
def test_coordinates_count_from_the_part_of_a_slide_that_qupath_shows(scanned, tmp_path, tolerance_px):
    project = scanned("a")
    drawn(project)
    write_geojson(source_of_project(project), tmp_path / "a.geojson", tolerance_px=tolerance_px)
    document = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))
    assert document["napari-nucleiseg"] == {"origin": [200, 100]}
    region, *nuclei = (np.array(one["geometry"]["coordinates"][0]) for one in document["features"])
    spans = sorted([*ring.min(0).tolist(), *ring.max(0).tolist()] for ring in nuclei)
    assert spans == [[-5, -5, 5, 5], [60, 50, 72, 60]]
    assert [*region.min(0).tolist(), *region.max(0).tolist()] == [60, 50, 72, 60]


def test_an_export_of_such_a_slide_comes_back_in_place_also_by_way_of_qupath(scanned, tmp_path):
    project = scanned("a")
    image = drawn(project)
    write_geojson(source_of_project(project), tmp_path / "a.geojson")
    ours = features_of(tmp_path / "a.geojson")
    # QuPath keeps the objects but not what the collection says, and adds what was drawn there.
    qupath = written(tmp_path, {"type": "FeatureCollection", "features": [*ours, square(20, 30)]}, "q.geojson")
    for path, name in ((tmp_path / "a.geojson", "b"), (qupath, "c")):
        other = scanned(name)
        import_geojson(other, path)
        found = image_of(other)
        assert (found[image > 0] == image[image > 0]).all()
        assert [region.vertices for region in read_regions(other.ledger.reader)] == [
            region.vertices for region in read_regions(project.ledger.reader)
        ]
    found[image > 0] = 0
    assert np.argwhere(found).min(0).tolist() == [120, 230]
    assert np.count_nonzero(found) == 100
    with open_reference(qupath, project) as reference:
        assert (image_of(reference.project)[image > 0] == image[image > 0]).all()


def test_former_exports_of_such_a_slide_count_from_its_corner(scanned, tmp_path):
    former = scanned("a", None)
    image = drawn(former)
    write_geojson(source_of_project(former), tmp_path / "a.geojson")
    written(tmp_path, [*features_of(tmp_path / "a.geojson"), square(20, 30)], "q.geojson")
    for path in ("a.geojson", "q.geojson"):
        project = scanned(f"of {path}")
        import_geojson(project, tmp_path / path)
        assert (image_of(project)[image > 0] == image[image > 0]).all()
        assert [region.vertices for region in read_regions(project.ledger.reader)] == [
            region.vertices for region in read_regions(former.ledger.reader)
        ]
    assert np.count_nonzero(image_of(project)[120:130, 230:240]) == 100


@pytest.mark.parametrize("kind", ["annotation", "detection"])
def test_an_export_that_counts_from_a_corner_that_nobody_says_is_refused(scanned, tmp_path, kind):
    project, unknown = scanned("a"), scanned("b", None)
    image = drawn(project)
    write_geojson(source_of_project(project), tmp_path / "a.geojson")
    ours = [one for one in features_of(tmp_path / "a.geojson") if one["properties"]["objectType"] == kind]
    assert ours
    with pytest.raises(ImportFileError, match=r"neither the file nor the project says .* Name the slide, not its proj"):
        import_geojson(unknown, written(tmp_path, [square(20, 30), *ours], "q.geojson"))
    assert not image_of(unknown).any()
    assert not read_regions(unknown.ledger.reader)
    import_geojson(unknown, tmp_path / "a.geojson")  # it says so itself
    assert (image_of(unknown) == image).all()


@pytest.mark.parametrize("said", [5, {"origin": 5}, {"origin": ["a", 1]}, {"origin": [1e300, 0]}, {"origin": [1]}])
def test_an_origin_that_is_no_place_is_not_listened_to(scanned, tmp_path, said):
    project = scanned("a")
    document = {"type": "FeatureCollection", "napari-nucleiseg": said, "features": [square(20, 30)]}
    import_geojson(project, written(tmp_path, document))
    assert np.argwhere(image_of(project)).min(0).tolist() == [120, 230]


# ---------------------------------------------------------------------- overlaps


@pytest.fixture
def crowded(project):
    """A nucleus 5 of 20 x 20 pixels and 6 of 20 x 20 beside it."""
    image = np.zeros((20, 60), np.uint32)
    image[:, :20], image[:, 30:50] = 5, 6
    project.editor.paint(Region(100, 100, 20, 60), image)
    return project


def test_by_default_what_is_there_stays(crowded, tmp_path):
    features = [square(100, 102, 10), square(100, 115, 10), square(110, 114, 12), square(200, 200)]
    report = import_geojson(crowded, written(tmp_path, features))
    image = image_of(crowded)
    assert np.count_nonzero(image == 5) == np.count_nonzero(image == 6) == 400
    # The first lies on 5; the second and the third have half of their pixels free.
    assert (report.nuclei, report.overlapped, report.replaced) == (3, 3, 0)
    assert report.left_out == {"there_already": 1}
    assert "1 nucleus lie for more than half on others; choose overlap 'replace'" in " ".join(report.sentences)


def test_replacing_takes_all_pixels_and_removes_what_is_mostly_covered(crowded, tmp_path):
    report = import_geojson(crowded, written(tmp_path, [square(100, 100, 16), square(100, 131, 5)]), overlap="replace")
    image = image_of(crowded)
    assert not (image == 5).any()  # no rim of it is left
    assert np.count_nonzero(image == 6) == 400 - 25
    assert (report.nuclei, report.overlapped, report.replaced) == (2, 2, 1)
    crowded.editor.undo()
    assert np.count_nonzero(image_of(crowded) == 5) == 400


def test_replacing_gives_a_nucleus_of_the_same_id_its_new_outline_and_class(crowded, tmp_path):
    write_geojson(source_of_project(crowded), tmp_path / "a.geojson")
    features = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))["features"]
    features[0]["geometry"] = square(104, 104, 6)["geometry"]
    features[0]["properties"]["classification"] = {"name": "Stroma"}
    report = import_geojson(crowded, written(tmp_path, features, "b.geojson"), overlap="replace")
    assert (report.nuclei, report.ids_kept, report.replaced, report.overlapped) == (2, 2, 0, 0)
    image = image_of(crowded)
    assert np.argwhere(image == 5).min(0).tolist() == [104, 104]
    assert np.count_nonzero(image == 5) == 36
    assert table_of(crowded).classes.tolist() == [2, 0]
    crowded.editor.undo()
    assert table_of(crowded).classes.tolist() == [0, 0]
    assert np.count_nonzero(image_of(crowded) == 5) == 400


def test_nuclei_of_one_file_that_overlap_share_nothing(project, tmp_path):
    features = [square(10, 10, 20), square(10, 14, 20), square(10, 40, 20), square(12, 42, 10)]
    report = import_geojson(project, written(tmp_path, features))
    assert (report.nuclei, report.overlapped) == (2, 2)
    assert np.count_nonzero(image_of(project)) == 800
    report = import_geojson(project, written(tmp_path, features), overlap="replace")
    assert report.left_out == {"covered": 1}
    assert report.nuclei == 3


# ---------------------------------------------------------------------- bad files

BAD = {
    "no geometry": ({**square(0, 0), "geometry": None}, "1 feature without an outline"),
    "empty polygon": ({**square(0, 0), "geometry": {"type": "Polygon", "coordinates": []}}, "without an outline"),
    "empty ring": ({**square(0, 0), "geometry": {"type": "Polygon", "coordinates": [[]]}}, "without an outline"),
    "point": ({**square(0, 0), "geometry": {"type": "Point", "coordinates": [1, 2]}}, "1 point or line"),
    "line": ({**square(0, 0), "geometry": {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}}, "1 point or line"),
    "collection": ({**square(0, 0), "geometry": {"type": "GeometryCollection"}}, "neither Polygon nor MultiPolygon"),
    "kinds": ({**square(0, 0), "geometry": {"type": ["Polygon"]}}, "neither Polygon nor MultiPolygon"),
    "text": ({**square(0, 0), "geometry": {"type": "Polygon", "coordinates": [[["a", "b"]] * 4]}}, "no finite numbers"),
    "null": ({**square(0, 0), "geometry": {"type": "Polygon", "coordinates": [[[None, 1]] * 4]}}, "no finite numbers"),
    "flat": ({**square(0, 0), "geometry": {"type": "Polygon", "coordinates": [[1, 2, 3, 4]]}}, "no finite numbers"),
    "deep": ({**square(0, 0), "geometry": {"type": "Polygon", "coordinates": [[[[1, 2]] * 4]]}}, "no finite numbers"),
    "single": ({**square(0, 0), "geometry": {"type": "Polygon", "coordinates": [[[1]] * 4]}}, "no finite numbers"),
    "huge": ({**square(0, 0), "geometry": {"type": "Polygon", "coordinates": [[[10**400, 1]] * 4]}}, "no finite"),
    "number": (7, "1 entry of the list are no features"),
    "two points": (
        {**square(0, 0), "geometry": {"type": "Polygon", "coordinates": [[[1, 2], [30, 40]]]}},
        "without a pixel",
    ),
    "speck": (square(10.1, 10.1, 0.2), "1 outline without a pixel inside"),
    "beside": (square(10, 5000), "1 outline beside the slide"),
    "negative": (square(-100, -100), "1 outline beside the slide"),
    "tile": (square(10, 10, objectType="tile"), "1 object of a kind that is neither nucleus nor region"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_feature_is_left_out_and_the_others_are_taken(project, tmp_path, name):
    bad, sentence = BAD[name]
    report = import_geojson(project, written(tmp_path, [square(10, 10), bad, square(50, 50)]))
    assert report.nuclei == 2
    assert sum(report.left_out.values()) == 1
    assert sentence in " ".join(report.sentences)
    assert report.as_dict()["sentences"] == list(report.sentences)


def test_nan_and_infinity_are_no_coordinates(project, tmp_path):
    text = json.dumps([square(10, 10), square(123456, 10), square(50, 50)]).replace("123456", "NaN")
    report = import_geojson(project, written(tmp_path, text.replace("123466", "-Infinity")))
    assert (report.nuclei, report.left_out) == (2, {"coordinates": 1})


@pytest.mark.parametrize("kind", [["detection"], {"a": 1}, 5])
def test_a_kind_that_is_no_text_says_nothing(project, tmp_path, kind):
    assert import_geojson(project, written(tmp_path, [square(10, 10, objectType=kind)])).nuclei == 1


def test_names_that_no_file_can_hold_are_taken_with_question_marks(project, tmp_path):
    features = [
        square(10, 10, classification={"name": "\ud800x"}),
        square(30, 10, classification="\udfffy"),
        square(50, 10, objectType="annotation", name="left\ud800"),
    ]
    report = import_geojson(project, written(tmp_path, features))
    assert (report.nuclei, report.regions, report.new_classes) == (2, 1, ("?x", "?y"))
    assert [region.name for region in read_regions(project.ledger.reader)] == ["left?"]


@pytest.mark.parametrize(("score", "taken"), [("1" + "0" * 400, 1), ("-1" + "0" * 400, 0), ("0.25", 0.25), ("NaN", 1)])
def test_a_score_may_be_any_number(project, tmp_path, score, taken):
    text = json.dumps(square(10, 10, measurements={"Score": 123456})).replace("123456", score)
    assert import_geojson(project, written(tmp_path, text)).nuclei == 1
    assert table_of(project).scores.tolist() == [taken]


@pytest.mark.parametrize("kind", ["detection", "annotation"])
def test_coordinates_at_the_end_of_all_numbers_disturb_nothing(project, tmp_path, kind):
    far = square(0, 0, objectType=kind)
    far["geometry"]["coordinates"] = [[[1e308, -1e308], [-1e308, 1e308], [5, 5]]]
    report = import_geojson(project, written(tmp_path, [square(10, 10), far, square(50, 50)]))
    # Within the slide the triangle is what lies above the line through (5, 5).
    assert (report.nuclei, report.regions) == ((3, 0) if kind == "detection" else (2, 1))
    assert np.count_nonzero(image_of(project)[:10, :10]) == (45 if kind == "detection" else 0)


def test_an_outline_over_the_rim_is_cut(project, tmp_path):
    report = import_geojson(project, written(tmp_path, [square(695, 895), square(-4, 100)]))
    assert (report.nuclei, report.clipped) == (2, 2)
    assert np.count_nonzero(image_of(project)) == 25 + 60
    assert "2 outlines cut at the rim of the slide." in report.sentences


def test_an_outline_that_crosses_itself_is_filled_by_parity_and_told(project, tmp_path):
    bow = square(0, 0)
    bow["geometry"]["coordinates"] = [[[10, 10], [50, 10], [10, 50], [50, 50], [10, 10]]]
    report = import_geojson(project, written(tmp_path, bow))
    assert report.nuclei == 1
    assert 700 < np.count_nonzero(image_of(project)) < 900
    assert any("cross themselves" in sentence for sentence in report.sentences)


def test_a_million_vertices_are_one_nucleus_and_endless_zigzag_is_none(project, tmp_path):
    turns = np.linspace(0, 2 * np.pi, 1_000_000)
    circle = np.stack([300 + 100 * np.cos(turns), 300 + 100 * np.sin(turns)], axis=1).round(4)
    zigzag = np.stack([np.arange(20_000) / 40, np.tile([0, 600], 10_000)], axis=1)
    round_one, zig = square(0, 0), square(0, 0)
    round_one["geometry"]["coordinates"] = [circle.tolist()]
    zig["geometry"]["coordinates"] = [zigzag.tolist()]
    report = import_geojson(project, written(tmp_path, [zig, round_one]))
    assert (report.nuclei, report.left_out) == (1, {"too_complicated": 1})
    assert np.count_nonzero(image_of(project)) == pytest.approx(np.pi * 100**2, rel=0.002)


def test_a_shape_too_large_for_a_nucleus_is_left_out(monkeypatch, project, tmp_path):
    monkeypatch.setattr(geojson_import, "MOST_NUCLEUS_PX", 10_000)
    report = import_geojson(project, written(tmp_path, [square(10, 10, 101), square(200, 200)]))
    assert (report.nuclei, report.left_out) == (1, {"too_large": 1})


def test_micrometres_and_foreign_slides_are_suspected(project, tmp_path):
    report = import_geojson(project, written(tmp_path, [square(10 * n, 10, 3) for n in range(5)]))
    assert any("seem to be in micrometres" in sentence for sentence in report.sentences)
    report = import_geojson(project, written(tmp_path, [square(10, 10_000)]))
    assert any("x up to 900 and y up to 700" in sentence for sentence in report.sentences)


def test_of_a_cut_file_the_whole_features_are_taken(project, tmp_path):
    text = json.dumps({"type": "FeatureCollection", "features": [square(10, 10), square(50, 50)]})
    report = import_geojson(project, written(tmp_path, text[:-60]))
    assert report.nuclei == 1
    assert any("Only a part was read: the file is damaged at character" in sentence for sentence in report.sentences)


def test_files_of_qupath_0_2_are_understood(project, tmp_path):
    old = square(10, 10)
    old["id"] = "PathDetectionObject"
    old["properties"] = {"measurements": [{"name": "Score", "value": 0.25}], "classification": {"name": "Other"}}
    region = {**square(100, 100, 50), "id": "PathAnnotationObject", "properties": {"name": "r"}}
    root = {**square(0, 0, 600), "id": "PathRootObject", "properties": {}}
    report = import_geojson(project, written(tmp_path, [old, region, root]))
    assert (report.nuclei, report.regions, report.left_out) == (1, 1, {"object_type": 1})
    table = table_of(project)
    assert (table.scores.tolist(), table.classes.tolist()) == ([0.25], [6])


def test_memory_does_not_grow_with_the_file(fresh_project, monkeypatch, tmp_path):
    monkeypatch.setattr(geojson_import, "FEATURES_AT_A_TIME", 200)
    monkeypatch.setattr("napari_nucleiseg.core.exchange.geojson_reader.READ_CHARS", 1 << 16)
    monkeypatch.setattr("napari_nucleiseg.core.exchange.stash.MEMORY_BYTES", 100_000)

    def peak(side, name):
        project = fresh_project((side, side), name)
        places = np.random.default_rng(0).permutation(
            [(y, x) for y in range(10, side - 20, 40) for x in range(10, side - 20, 40)]
        )
        path = written(tmp_path, [square(int(y), int(x)) for y, x in places])
        del places
        peaks = []
        tracemalloc.start()
        report = import_geojson(
            project,
            path,
            # What is written is bounded by the project's caches, which this small a slide does not fill.
            on_progress=lambda stage, *_: stage == "reading" and peaks.append(tracemalloc.get_traced_memory()[1]),
        )
        tracemalloc.stop()
        return report.nuclei, max(peaks)

    small_count, small = peak(1024, "small")
    large_count, large = peak(4096, "large")
    assert large_count > 8 * small_count
    assert large < small + 1_000_000
