"""AnnData: one observation a nucleus, the same values as in the other tables, places in micrometres."""

import csv
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from napari_nucleiseg.core.errors import ExportError, MissingDependencyError
from napari_nucleiseg.core.exchange.annotated_table import AREA, annotated_table, write_anndata
from napari_nucleiseg.core.exchange.source import (
    Column,
    LabelSource,
    NamedClass,
    block_regions,
    owned_by,
    source_of_labels,
    source_of_project,
)
from napari_nucleiseg.core.exchange.table import write_csv
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.nuclei import NucleiTable

anndata = pytest.importorskip("anndata", reason="anndata, which .h5ad needs, is not installed")


class SomeMeasures:
    """Two values of each nucleus that its id tells; of every fifth the second is not measured."""

    columns = (
        Column("solidity", "Solidity", "Pixels of the nucleus / pixels of its convex hull, 0 to 1."),
        Column("perimeter_um", "Perimeter, µm", "Length along the border pixels."),
    )

    def of(self, table):
        perimeters = np.where(table.ids % 5 == 0, np.nan, table.ids % 97)
        return {"perimeter_um": perimeters.astype(np.float32), "solidity": (table.ids % 7 / 7).astype(np.float32)}


@pytest.fixture
def rich(source):
    """Nuclei of three classes and none, two origins, some approved, with scores and measures."""

    def nuclei_in(region):
        table = source.nuclei_in(region)
        numbers = table.ids >> 14
        return replace(
            table,
            classes=(numbers % 4).astype(np.int32),
            scores=(numbers % 101 / 100).astype(np.float32),
            origins=np.where(numbers % 3 == 0, "nuclei@2", "Ada").astype(object),
            approved=numbers % 2 == 0,
        )

    classes = {1: NamedClass("Tumour", "#e6194b"), 2: NamedClass("Lymphocyte"), 9: NamedClass("Mitosis", "#0000ff")}
    return replace(source, nuclei_in=nuclei_in, classes=classes, fingerprint="abc", measures=SomeMeasures())


def written(source, path):
    count = write_anndata(source, path)
    table = anndata.read_h5ad(path)
    assert count == table.n_obs
    return table


def test_every_value_is_that_of_the_csv(monkeypatch, rich, tmp_path):
    monkeypatch.setattr(block_regions, "__defaults__", (256,))
    write_csv(rich, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = written(rich, tmp_path / "a.h5ad")
    assert table.obs["id"].tolist() == [int(row["id"]) for row in rows]
    assert table.obs_names.tolist() == [row["id"] for row in rows]
    assert table.obs["class"].tolist() == [row["class_name"] or "no class" for row in rows]
    assert table.obs["class_number"].tolist() == [int(row["class"]) for row in rows]
    assert table.obs["origin"].tolist() == [row["origin"] for row in rows]
    assert set(table.obs["approved"]) == {False, True}
    assert table.obs["approved"].tolist() == [row["approved"] == "1" for row in rows]
    np.testing.assert_allclose(table.obs["score"], [float(row["score"]) for row in rows], atol=5e-5)
    np.testing.assert_allclose(
        table.obsm["spatial"], [(float(row["x_um"]), float(row["y_um"])) for row in rows], atol=5e-4
    )
    assert table.var_names.tolist() == ["area_um2", "solidity", "perimeter_um"]
    for number, name in enumerate(table.var_names):
        expected = [float(row[name]) if row[name] else np.nan for row in rows]
        np.testing.assert_allclose(table.X[:, number], expected, rtol=1e-5, atol=5e-4)


def test_numbers_have_their_types_and_columns_their_titles(rich, tmp_path):
    table = written(rich, tmp_path / "a.h5ad")
    assert table.X.dtype == np.float32
    types = {name: str(kind) for name, kind in table.obs.dtypes.items()}
    assert types == {
        "id": "uint32",
        "class": "category",
        "class_number": "int32",
        "origin": "category",
        "approved": "bool",
        "score": "float32",
    }
    assert table.var["title"].tolist() == ["Area, µm²", "Solidity", "Perimeter, µm"]
    assert table.var.loc["solidity", "about"].startswith("Pixels of the nucleus / pixels")


def test_no_class_is_lost_and_each_has_its_colour(rich, tmp_path):
    table = written(rich, tmp_path / "a.h5ad")
    categories = table.obs["class"].cat.categories.tolist()
    # 3 is a number that the project does not name, 9 a class that no nucleus has.
    assert categories == ["no class", "Tumour", "Lymphocyte", "Class 3", "Mitosis"]
    assert table.uns["class_colors"].tolist() == ["#808080", "#e6194b", "#808080", "#808080", "#0000ff"]
    assert set(table.obs["origin"].cat.categories) == {"Ada", "nuclei@2"}


def test_where_all_have_a_class_there_is_no_other(source, tmp_path):
    classed = replace(
        source,
        nuclei_in=lambda region: replace(
            source.nuclei_in(region), classes=np.ones(len(source.nuclei_in(region)), np.int32)
        ),
        classes={1: NamedClass("no class", "#123456")},
    )
    table = annotated_table(classed)
    assert table.obs["class"].cat.categories.tolist() == ["no class"]
    mixed = annotated_table(replace(source, classes={1: NamedClass("no class", "#123456")}))
    assert mixed.obs["class"].cat.categories.tolist() == ["no class", "no class (1)"]


def test_places_are_x_and_y_in_micrometres_and_said_to_be(rich, labels, tmp_path):
    table = written(rich, tmp_path / "a.h5ad")
    # The single pixel in the corner: half a pixel of 0.25 x 0.5 um from it.
    assert table.obsm["spatial"][table.obs_names == "11"].tolist() == [[0.125, 0.25]]
    y, x = np.nonzero(labels == 2**31 + 7)
    expected = [(x.mean() + 0.5) * 0.25, (y.mean() + 0.5) * 0.5]
    np.testing.assert_allclose(table.obsm["spatial"][table.obs_names == str(2**31 + 7)], [expected])
    facts = table.uns["nucleiseg"]
    assert (facts["slide"], facts["fingerprint"], facts["unit"]) == ("field", "abc", "micrometer")
    assert (facts["mpp_um"]["y"], facts["mpp_um"]["x"]) == (0.5, 0.25)
    assert "micrometres" in facts["about"]


def test_squidpy_finds_its_library(rich, tmp_path):
    table = written(rich, tmp_path / "a.h5ad")
    ((name, library),) = table.uns["spatial"].items()
    assert name == "field"
    assert library["scalefactors"]["tissue_hires_scalef"] == 1.0
    mean_area = table[:, AREA.name].X.mean()
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(2 * np.sqrt(mean_area / np.pi), rel=1e-5)
    slashed = written(replace(rich, name="a/b"), tmp_path / "b.h5ad")
    assert list(slashed.uns["spatial"]) == ["a_b"]


def test_a_project_without_nuclei_is_a_table_without_rows(project, tmp_path):
    table = written(replace(source_of_project(project), measures=SomeMeasures()), tmp_path / "a.h5ad")
    assert table.shape == (0, 3)
    assert table.obsm["spatial"].shape == (0, 2)
    assert table.uns["nucleiseg"]["fingerprint"] == "slide"


@settings(max_examples=30, deadline=None)
@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 5)),
    st.floats(0.1, 2),
    st.floats(0.1, 2),
)
def test_areas_and_places_are_those_of_the_pixels(image, mpp_y, mpp_x):
    table = annotated_table(source_of_labels(image.astype(np.int64), YX(mpp_y, mpp_x)))
    assert sorted(table.obs["id"]) == sorted(set(np.unique(image)) - {0})
    for row, nucleus in enumerate(table.obs["id"]):
        y, x = np.nonzero(image == nucleus)
        assert table.X[row, 0] == pytest.approx(len(y) * mpp_y * mpp_x, rel=1e-5)
        expected = ((x + 0.5).mean() * mpp_x, (y + 0.5).mean() * mpp_y)
        np.testing.assert_allclose(table.obsm["spatial"][row], expected, rtol=1e-4)


def many_nuclei(count, side):
    """A slide of `side` pixels with `count` nuclei that are made where they are asked for."""
    rng = np.random.default_rng(1)
    centroids = rng.uniform(0, side, (count, 2))
    centroids = centroids[np.argsort(centroids[:, 0])]
    everything = NucleiTable(
        ids=np.arange(1, count + 1, dtype=np.uint32),
        centroids=centroids,
        boxes=np.repeat(np.floor(centroids).astype(np.int64), 2, axis=1)[:, [0, 2, 1, 3]] + (0, 0, 4, 4),
        areas_um2=np.full(count, 4, np.float32),
        classes=np.zeros(count, np.int32),
        scores=np.ones(count, np.float32),
        origins=np.full(count, "nuclei@1", object),
        approved=np.zeros(count, bool),
    )

    class Nothing:
        shape = (side, side)

        def __getitem__(self, key):
            return np.zeros([part.stop - part.start for part in key], np.uint32)

    return LabelSource((Nothing(),), YX(0.5, 0.5), lambda region: owned_by(everything, region), measures=ThirtyMeasures)


class ThirtyMeasures:
    """As many columns as a slide may well have."""

    columns = tuple(Column(f"measure_{number}", f"Measure {number}") for number in range(30))

    @staticmethod
    def of(table):
        return {f"measure_{number}": np.full(len(table), number, np.float32) for number in range(30)}


def test_a_hundred_thousand_nuclei_take_little_more_memory_than_their_table(tmp_path):
    source = many_nuclei(100_000, 40_000)
    write_anndata(many_nuclei(10, 100), tmp_path / "first.h5ad")  # what is imported late is not the table's
    tracemalloc.start()
    try:
        assert write_anndata(source, tmp_path / "a.h5ad") == 100_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    table_bytes = 100_000 * 31 * 4
    # The columns twice while their parts are joined, and the texts of ids, a hundred bytes each.
    assert peak < 3 * table_bytes + 100_000 * 200
    back = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert back.shape == (100_000, 31)
    back.file.close()


def test_an_earlier_table_stays_until_the_new_one_is_complete(rich, tmp_path):
    write_anndata(rich, tmp_path / "a.h5ad")
    before = (tmp_path / "a.h5ad").read_bytes()

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_anndata(rich, tmp_path / "a.h5ad", on_progress=stop)
    assert (tmp_path / "a.h5ad").read_bytes() == before
    assert write_anndata(rich.only_in(Region(0, 0, 1, 1)), tmp_path / "a.h5ad") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5ad"]


def test_a_place_that_is_no_folder_is_named(source, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="cannot be written"):
        write_anndata(source, tmp_path / "file" / "a.h5ad")


def test_without_anndata_it_says_how_to_get_it(monkeypatch, source, tmp_path):
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'napari-nucleiseg\[spatial\]'"):
        write_anndata(source, tmp_path / "a.h5ad")
    assert not list(tmp_path.iterdir())
