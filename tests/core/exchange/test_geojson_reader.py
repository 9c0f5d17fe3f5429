"""Features one by one: all forms of the file, cut at any sign of the buffer, and what is said of broken files."""

import json
import tracemalloc

import pytest

from napari_nucleiseg.core.errors import ImportFileError
from napari_nucleiseg.core.exchange import geojson_reader
from napari_nucleiseg.core.exchange.digits import Digits
from napari_nucleiseg.core.exchange.geojson_reader import FeatureReader

FEATURES = [
    {"type": "Feature", "id": f"f{n}", "geometry": {"type": "Polygon", "coordinates": [[[n, 1.5], [2, -3e2], [4, 5]]]}}
    for n in range(5)
]


def written(tmp_path, text, **options):
    path = tmp_path / "a.geojson"
    path.write_text(text, encoding="utf-8")
    return FeatureReader(path, **options)


def read(reader):
    """All features, with lists for digits."""
    found = list(reader)
    for feature in found:
        for geometry in (feature.get("geometry"), feature.get("nucleusGeometry")):
            if geometry and isinstance(geometry["coordinates"], Digits):
                geometry["coordinates"] = geometry["coordinates"].read()
    return found


@pytest.mark.parametrize("keep_digits", [False, True])
@pytest.mark.parametrize("chars", [1, 2, 7, 50, 300, 10_000])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "document",
    [
        {"type": "FeatureCollection", "features": FEATURES},
        {"features": FEATURES, "name": 'größe \\ "é"', "crs": {"a": [1, {}]}, "type": "FeatureCollection"},
        FEATURES,
    ],
)
def test_features_come_one_by_one_however_little_is_read_at_once(
    monkeypatch, tmp_path, document, indent, chars, keep_digits
):
    monkeypatch.setattr(geojson_reader, "READ_CHARS", chars)
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    reader = written(tmp_path, text, keep_digits=keep_digits)
    assert read(reader) == FEATURES
    assert reader.damage == ""
    assert reader.done_bytes == reader.total_bytes


def test_a_single_feature_and_a_bare_geometry_are_one_feature(tmp_path):
    assert list(written(tmp_path, json.dumps(FEATURES[0]))) == [FEATURES[0]]
    (found,) = written(tmp_path, json.dumps(FEATURES[0]["geometry"]))
    assert found["geometry"] == FEATURES[0]["geometry"]


@pytest.mark.parametrize(
    "coordinates", ["[[[1,NaN]]]", '[[["1",2]]]', '[[[1,2],{"a":[3]}]]', "7", "[]", '"[1]"', "[[[1,2],[null,3]]]"]
)
@pytest.mark.parametrize("place", ["geometry", "nucleusGeometry"])
def test_coordinates_of_any_kind_come_as_they_are(tmp_path, coordinates, place):
    plain = '{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[1,2],[3,4]]]}}'
    odd = f'{{"type":"Feature","{place}":{{"type":"Polygon","coordinates" : {coordinates} , "a":"}}"}}}}'
    text = f"[{plain},{odd},{plain}]"
    assert repr(read(written(tmp_path, text, keep_digits=True))) == repr(json.loads(text))


def test_words_like_coordinates_elsewhere_stay_as_they_are(tmp_path):
    odd = {
        "type": "Feature",
        "geometry": None,
        "properties": {"coordinates": "coordinates", "a": [[1, 2]], 'b "coordinates":[1]': '"coordinates":[2]'},
    }
    assert read(written(tmp_path, json.dumps([odd, *FEATURES]), keep_digits=True)) == [odd, *FEATURES]


def test_an_empty_collection_has_no_features(tmp_path):
    assert list(written(tmp_path, '{"type":"FeatureCollection","features":[]}')) == []
    assert list(written(tmp_path, "\ufeff[]")) == []


@pytest.mark.parametrize("keep_digits", [False, True])
@pytest.mark.parametrize("document", [FEATURES, {"type": "FeatureCollection", "features": FEATURES}])
def test_a_file_cut_anywhere_gives_its_whole_features_and_says_so(tmp_path, document, keep_digits):
    text = json.dumps(document)
    for end in range(text.index("}}") + 3, len(text) - 2, 7):
        reader = written(tmp_path, text[:end], keep_digits=keep_digits)
        found = read(reader)
        assert found == FEATURES[: len(found)]
        assert len(found) >= 1
        assert "ends too early" in reader.damage


@pytest.mark.parametrize("keep_digits", [False, True])
def test_damage_in_the_middle_is_placed(tmp_path, keep_digits):
    text = json.dumps(FEATURES).replace('"id": "f3"', '"id"; "f3"')
    reader = written(tmp_path, text, keep_digits=keep_digits)
    assert read(reader) == FEATURES[:3]
    assert f"damaged at character {text.index(';'):,}" in reader.damage


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not GeoJSON: it begins with neither"),
        (b"id,x,y\n1,2,3\n", "is not GeoJSON: it begins with neither"),
        (b"\x89PNG\r\n\xff\xfe", "is no text"),
        (b'{"images": [], "annotations": []}', "holds no GeoJSON features. Export it from QuPath"),
        (b'{"images"', r"holds no GeoJSON features \(the file is damaged at character 9"),
    ],
)
def test_what_is_no_geojson_is_said(tmp_path, content, sentence):
    (tmp_path / "a.geojson").write_bytes(content)
    with pytest.raises(ImportFileError, match=sentence):
        list(FeatureReader(tmp_path / "a.geojson"))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ImportFileError, match=r"b\.geojson cannot be read: No such file"):
        FeatureReader(tmp_path / "b.geojson")


def test_nesting_without_end_is_damage(tmp_path):
    reader = written(tmp_path, "[" + "[" * 200_000)
    assert list(reader) == []
    assert "nested too deeply" in reader.damage


@pytest.mark.parametrize("keep_digits", [False, True])
def test_memory_is_that_of_a_part_of_the_file(tmp_path, keep_digits):
    path = tmp_path / "a.geojson"
    line = json.dumps(FEATURES[0]) + ",\n"
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for _ in range(100_000):
            file.write(line)
        file.write("0]")
    tracemalloc.start()
    count = sum(1 for _ in FeatureReader(path, keep_digits=keep_digits))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 100_001
    assert path.stat().st_size > 11_000_000
    assert peak < 6_000_000
