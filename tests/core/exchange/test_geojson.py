"""QuPath GeoJSON: the round trip to pixels, the properties, identities, and memory that does not grow."""

import json
import tracemalloc
import uuid
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from skimage.draw import polygon2mask

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.geojson import write_geojson
from napari_nucleiseg.core.exchange.source import LabelSource, NamedClass, rows_of, source_of_labels
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.store.regions import AnnotatedRegion


def rasterised(feature, shape):
    geometry = feature["geometry"]
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    mask = np.zeros(shape, bool)
    for outer, *holes in parts:
        part = polygon2mask(shape, np.array(outer)[:, ::-1] - 0.5)
        for hole in holes:
            part &= ~polygon2mask(shape, np.array(hole)[:, ::-1] - 0.5)
        mask |= part
    return mask


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_polygons_give_back_the_same_nuclei(source, labels, tmp_path):
    count = write_geojson(source, tmp_path / "a.geojson")
    features = read(tmp_path / "a.geojson")["features"]
    assert count == len(features) == len(np.unique(labels)) - 1
    for feature in features:
        truth = labels == feature["properties"]["measurements"]["Label"]
        found = rasterised(feature, labels.shape)
        np.testing.assert_array_equal(found, truth)
    kinds = {f["properties"]["measurements"]["Label"]: f["geometry"]["type"] for f in features}
    assert kinds[9] == "MultiPolygon"
    assert kinds[5] == "MultiPolygon"  # at a corner only: one ring would touch itself


def test_outlines_may_be_simplified(source, labels, tmp_path):
    write_geojson(source, tmp_path / "a.geojson")
    write_geojson(source, tmp_path / "b.geojson", tolerance_px=0.35)
    assert (tmp_path / "b.geojson").stat().st_size < (tmp_path / "a.geojson").stat().st_size
    for feature in read(tmp_path / "b.geojson")["features"]:
        truth = labels == feature["properties"]["measurements"]["Label"]
        found = rasterised(feature, labels.shape)
        assert np.sum(truth & found) / np.sum(truth | found) > 0.9


def test_real_nuclei_survive_the_round_trip(shared_data, tmp_path):
    path = min((shared_data / "kumar_train30" / "labels").glob("*.tif"))
    labels = tifffile.imread(path)[:500, :500]
    write_geojson(source_of_labels(labels, YX(0.25, 0.25)), tmp_path / "a.geojson")
    for feature in read(tmp_path / "a.geojson")["features"]:
        truth = labels == feature["properties"]["measurements"]["Label"]
        found = rasterised(feature, labels.shape)
        np.testing.assert_array_equal(found, truth)


def test_properties_are_what_qupath_reads(labels, tmp_path):
    source = source_of_labels(np.where(labels == 9, labels, 0), YX(0.5, 0.25), scores=np.array([0.875], np.float32))
    write_geojson(source, tmp_path / "a.geojson", object_type="annotation")
    (feature,) = read(tmp_path / "a.geojson")["features"]
    assert feature["type"] == "Feature"
    assert feature["properties"]["objectType"] == "annotation"
    assert "classification" not in feature["properties"]
    # Two parts of 16 px, each 0.5 x 0.25 um.
    assert feature["properties"]["measurements"] == {"Label": 9, "Area µm^2": 4.0, "Score": 0.875}
    assert uuid.UUID(feature["id"]).version == 5
    assert int(feature["id"][-8:], 16) == 9


def test_classes_get_their_names(tmp_path):
    source = source_of_labels(np.array([[1, 1, 0, 2, 2, 0, 3]]), YX(1, 1))
    table = replace(source.nuclei_in(source.region), classes=np.array([0, 1, 2], np.int32))
    classes = {1: NamedClass("Tumour", "#e6194B")}
    classed = LabelSource(source.levels, source.mpp_um, lambda _region: table, classes=classes)
    write_geojson(classed, tmp_path / "a.geojson")
    found = [f["properties"].get("classification") for f in read(tmp_path / "a.geojson")["features"]]
    assert found == [None, {"name": "Tumour", "color": [230, 25, 75]}, {"name": "Class 2"}]


def test_regions_become_annotations(source, tmp_path):
    region = AnnotatedRegion(3, "front", "hold out", ((10.0, 20.0), (10.0, 50.5), (40.0, 20.0)), complete=True)
    assert write_geojson(replace(source, regions=(region,)), tmp_path / "a.geojson") > 1
    first = read(tmp_path / "a.geojson")["features"][0]
    assert first["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[20.5, 10.5], [51, 10.5], [20.5, 40.5], [20.5, 10.5]]],
    }
    assert first["properties"]["name"] == "front"
    assert first["properties"]["objectType"] == "annotation"
    assert first["properties"]["metadata"] == {"role": "hold out", "complete": "true", "done": "false"}


def test_identities_stay_the_same_between_exports_and_differ_between_slides(source, tmp_path):
    def identities(name, of):
        write_geojson(of, tmp_path / name)
        return [feature["id"] for feature in read(tmp_path / name)["features"]]

    first = identities("a.geojson", source)
    other = LabelSource(source.levels, source.mpp_um, source.nuclei_in, fingerprint="another slide")
    assert first == identities("b.geojson", source)
    assert len(set(first)) == len(first)
    assert not set(first) & set(identities("c.geojson", other))


def test_an_empty_slide_is_a_valid_collection(tmp_path):
    assert write_geojson(source_of_labels(np.zeros((30, 30), int), YX(1, 1)), tmp_path / "a.geojson") == 0
    assert read(tmp_path / "a.geojson") == {"type": "FeatureCollection", "features": []}


def test_a_nucleus_on_a_block_border_is_written_once_and_whole(tmp_path):
    labels = np.zeros((2100, 2100), np.int32)
    labels[2040:2060, 2040:2060] = 4
    assert write_geojson(source_of_labels(labels, YX(1, 1)), tmp_path / "a.geojson") == 1
    (feature,) = read(tmp_path / "a.geojson")["features"]
    np.testing.assert_array_equal(rasterised(feature, labels.shape), labels == 4)


def test_unwritable_files_and_unknown_types_are_refused_and_leave_nothing(source, tmp_path):
    with pytest.raises(ExportError, match="cannot be written: No such file"):
        write_geojson(source, tmp_path / "nowhere" / "a.geojson")
    with pytest.raises(ExportError, match="no object type blob; choose one of detection, annotation"):
        write_geojson(source, tmp_path / "a.geojson", object_type="blob")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_keeps_the_old_file(source, tmp_path):
    (tmp_path / "a.geojson").write_text("old")

    def stop(_done, _total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_geojson(source, tmp_path / "a.geojson", on_progress=stop)
    assert (tmp_path / "a.geojson").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


class Repeated:
    """A huge label image that exists nowhere: the same field again and again."""

    def __init__(self, field, times):
        self._field, self.shape = field, (field.shape[0] * times, field.shape[1] * times)

    def __getitem__(self, key):
        rows, columns = (
            np.arange(part.start, part.stop) % side for part, side in zip(key, self._field.shape, strict=True)
        )
        return self._field[np.ix_(rows, columns)]


def peak_bytes(times, tmp_path):
    field = np.zeros((2048, 2048), np.int32)
    field[100:120, 100:120] = 1
    one = source_of_labels(field, YX(1, 1))
    table = one.nuclei_in(one.region)

    def nuclei_in(region):
        # All of a row of fields.
        columns = np.arange(region.width // len(field))[:, None] * len(field)
        corner = np.concatenate([np.full_like(columns, region.y), columns], axis=1)
        many = rows_of(table, np.zeros(len(columns), int))
        return replace(many, centroids=many.centroids + corner, boxes=many.boxes + np.tile(corner, 2))

    source = LabelSource((Repeated(field, times),), YX(1, 1), nuclei_in)
    tracemalloc.start()
    count = write_geojson(source, tmp_path / "a.geojson")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return count, peak


def test_memory_does_not_grow_with_the_slide(tmp_path):
    small_count, small = peak_bytes(2, tmp_path)
    large_count, large = peak_bytes(24, tmp_path)
    assert (small_count, large_count) == (4, 576)
    assert large < small + 300_000
