"""What is measured stands in tables behind what was there before; what is not measured is left out."""

import csv
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from napari_nucleiseg.core.exchange.formats import FORMATS, export
from napari_nucleiseg.core.exchange.source import Column
from napari_nucleiseg.core.exchange.table import COLUMNS


@dataclass(frozen=True)
class Invented:
    """Three times the id's last digits; every fifth nucleus is not measured."""

    columns: tuple[Column, ...] = (
        Column("height_um", "Height, µm", "Invented."),
        Column("colour", "Colour"),
    )

    def of(self, table):
        numbers = (table.ids % 1000).astype(np.float32)
        height = np.where(table.ids % 5 == 0, np.nan, numbers * 3 + 0.125).astype(np.float32)
        return {"colour": -numbers, "height_um": height}


@pytest.fixture
def measured(source):
    return replace(source, measures=Invented())


def truth(source):
    table = source.nuclei_in(source.region)
    values = Invented().of(table)
    rows = zip(values["height_um"].tolist(), values["colour"].tolist(), strict=True)
    return dict(zip(table.ids.tolist(), rows, strict=True))


def test_a_csv_has_more_columns_and_empty_cells(measured, source, tmp_path):
    export(measured, tmp_path / "a.csv", "csv")
    with (tmp_path / "a.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == (*COLUMNS, "height_um", "colour")
    expected = truth(source)
    assert len(rows) == len(expected)
    for row in rows:
        height, colour = expected[int(row["id"])]
        assert float(row["colour"]) == colour
        assert (
            row["height_um"] == "" if np.isnan(height) else float(row["height_um"]) == pytest.approx(height, rel=1e-5)
        )


def test_a_parquet_file_has_them_with_their_formulas(measured, source, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, which Parquet needs, is not installed")
    export(measured, tmp_path / "a.parquet", "parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert tuple(table.schema.names) == (*COLUMNS, "height_um", "colour")
    assert table.schema.field("height_um").metadata == {b"title": "Height, µm".encode(), b"about": b"Invented."}
    assert str(table.schema.field("colour").type) == "float"
    expected = truth(source)
    columns = (table[name].to_pylist() for name in ("id", "height_um", "colour"))
    for number, height, colour in zip(*columns, strict=True):
        assert colour == expected[number][1]
        assert height is None if np.isnan(expected[number][0]) else height == expected[number][0]


def test_qupath_reads_them_as_measurements(measured, source, tmp_path):
    export(measured, tmp_path / "a.geojson", "geojson")
    expected = truth(source)
    features = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))["features"]
    assert len(features) == len(expected)
    for feature in features:
        found = feature["properties"]["measurements"]
        height, colour = expected[found["Label"]]
        assert found["Colour"] == colour
        assert found.get("Height µm") == (None if np.isnan(height) else height)
        assert "Area µm^2" in found


@pytest.mark.parametrize("name", ["csv", "parquet", "geojson"])
def test_without_measures_files_are_as_they_were(source, tmp_path, name):
    pytest.importorskip("pyarrow", reason="pyarrow, which Parquet needs, is not installed")
    export(source, tmp_path / "a", name)
    export(replace(source, measures=None), tmp_path / "b", name)
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert b"height_um" not in content
    assert b"Height" not in content


def test_formats_with_room_for_measures_write_them(measured, tmp_path):
    """Whichever are added."""
    pytest.importorskip("pyarrow", reason="pyarrow, which Parquet needs, is not installed")
    assert {"csv", "parquet", "geojson"} <= {name for name, form in FORMATS.items() if form.measures}
    for name in ("csv", "parquet", "geojson"):
        export(measured, tmp_path / name, name)
        content = (tmp_path / name).read_bytes().lower()
        assert b"colour" in content, name
