"""SpatialData: label image, circles and table agree on ids and places, and the store is read by its own library."""

import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import zarr

from napari_nucleiseg.core.errors import ExportError, MissingDependencyError
from napari_nucleiseg.core.exchange import spatial_data
from napari_nucleiseg.core.exchange.source import Column, LabelSource, NamedClass, source_of_labels, source_of_project
from napari_nucleiseg.core.exchange.spatial_data import is_export, write_spatialdata
from napari_nucleiseg.core.geometry import YX

NEEDS = "spatialdata, which is too heavy for the tests' own environment, is not installed"
# A package that it imports decorates a class of its own as deprecated and then uses it.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler:DeprecationWarning")


def test_without_spatialdata_it_says_how_to_get_it(monkeypatch, source, tmp_path):
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'napari-nucleiseg\[spatial\]'"):
        write_spatialdata(source, tmp_path / "a.spatial.zarr")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def library():
    return pytest.importorskip("spatialdata", reason=NEEDS)


class Solidity:
    """One value of each nucleus that its id tells."""

    columns = (Column("solidity", "Solidity"),)

    def of(self, table):
        return {"solidity": (table.ids % 7 / 7).astype(np.float32)}


@pytest.fixture
def rich(source):
    def nuclei_in(region):
        table = source.nuclei_in(region)
        return replace(table, classes=((table.ids >> 14) % 3).astype(np.int32))

    classes = {1: NamedClass("Tumour", "#e6194b"), 2: NamedClass("Lymphocyte")}
    return replace(source, nuclei_in=nuclei_in, classes=classes, fingerprint="abc", measures=Solidity())


@pytest.fixture
def store(library, rich, tmp_path):
    write_spatialdata(rich, tmp_path / "a.spatial.zarr")
    return library.read_zarr(tmp_path / "a.spatial.zarr")


def test_the_pixels_of_all_levels_are_the_same(store, labels):
    levels = [store["nuclei"][f"scale{number}"]["image"] for number in range(2)]
    assert [level.dtype for level in levels] == [np.uint32] * 2
    np.testing.assert_array_equal(levels[0].data, labels)
    np.testing.assert_array_equal(levels[1].data, labels[::2, ::2])


def test_every_row_and_every_circle_is_a_nucleus_of_the_label_image(store, labels):
    ids = set(np.unique(labels)) - {0}
    table = store["table"]
    assert set(table.obs["id"]) == ids
    assert len(table) == len(ids)
    assert set(store["nuclei_circles"].index) == ids


def test_the_table_annotates_the_label_image(library, store):
    table = store["table"]
    assert table.uns["spatialdata_attrs"] == {"region": "nuclei", "region_key": "region", "instance_key": "id"}
    assert set(table.obs["region"]) == {"nuclei"}
    assert table.var_names.tolist() == ["area_um2", "solidity"]
    np.testing.assert_allclose(table[:, "solidity"].X.ravel(), table.obs["id"] % 7 / 7, rtol=1e-6)
    assert table.obs["class"].cat.categories.tolist() == ["no class", "Tumour", "Lymphocyte"]
    values = library.get_values("solidity", sdata=store, element_name="nuclei", table_name="table")
    assert set(values.index) == set(table.obs["id"])


def test_all_meet_in_micrometres_though_pixels_are_not_square(library, store, labels):
    from spatialdata.transformations import get_transformation

    assert store.coordinate_systems == ["global"]
    to_um = get_transformation(store["nuclei"], "global").to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(to_um, np.diag([0.25, 0.5, 1]))
    circles, table = store["nuclei_circles"], store["table"]
    for nucleus in (11, 2**31 + 7, 9):
        y, x = np.nonzero(labels == nucleus)
        place_um = (x.mean() + 0.5) * 0.25, (y.mean() + 0.5) * 0.5
        point = circles.loc[nucleus]
        np.testing.assert_allclose((point.geometry.x, point.geometry.y), place_um)
        np.testing.assert_allclose(table.obsm["spatial"][table.obs_names == str(nucleus)], [place_um])
        assert np.pi * point.radius**2 == pytest.approx(len(y) * 0.25 * 0.5, rel=1e-5)
    extent = library.get_extent(store["nuclei"])
    assert (extent["x"], extent["y"]) == ((0, 900 * 0.25), (0, 700 * 0.5))


def test_it_says_of_which_slide_it_is(store):
    assert store.attrs["nucleiseg"] == {
        "slide": "field",
        "fingerprint": "abc",
        "mpp_um": {"y": 0.5, "x": 0.25},
        "unit": "micrometer",
    }


def test_a_nucleus_without_an_area_is_a_dot(library, source, tmp_path):
    def nuclei_in(region):
        table = source.nuclei_in(region)
        return replace(table, areas_um2=np.full(len(table), np.nan, np.float32))

    write_spatialdata(replace(source, nuclei_in=nuclei_in), tmp_path / "a.spatial.zarr")
    assert set(library.read_zarr(tmp_path / "a.spatial.zarr")["nuclei_circles"].radius) == {0.125}


def test_a_project_without_nuclei_is_a_store_without_circles(library, project, tmp_path):
    assert write_spatialdata(source_of_project(project), tmp_path / "a.spatial.zarr") == 0
    store = library.read_zarr(tmp_path / "a.spatial.zarr")
    assert (list(store.labels), list(store.shapes), store["table"].n_obs) == (["nuclei"], [], 0)
    assert is_export(tmp_path / "a.spatial.zarr")


class Everywhere:
    """A label image of any size, made where it is asked for: one square nucleus in each 100 pixels."""

    def __init__(self, side):
        self.shape, self.largest = (side, side), 0

    def __getitem__(self, key):
        y, x = (np.arange(part.start, part.stop) for part in key)
        self.largest = max(self.largest, len(y) * len(x))
        return ((y[:, None] % 100 < 10) & (x[None] % 100 < 10)).astype(np.uint32)


def test_a_slide_larger_than_memory_should_be_is_never_whole_in_it(library, tmp_path):
    nothing = source_of_labels(np.zeros((4, 4), int), YX(1, 1))
    write_spatialdata(nothing, tmp_path / "first.spatial.zarr")  # what is imported late is not the slide's
    level = Everywhere(12_000)
    tracemalloc.start()
    try:
        write_spatialdata(LabelSource((level,), YX(0.5, 0.5), nothing.nuclei_in), tmp_path / "a.spatial.zarr")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert level.largest == spatial_data.CHUNK_PX**2
    assert peak < 16 * 4 * spatial_data.CHUNK_PX**2  # of more than half a gigabyte
    store = library.read_zarr(tmp_path / "a.spatial.zarr")
    assert store["nuclei"].data.chunksize == (spatial_data.CHUNK_PX,) * 2
    np.testing.assert_array_equal(store["nuclei"].data[11_950:, 3_000:3_200], level[11_950:12_000, 3_000:3_200])


def test_progress_counts_and_can_stop_it(monkeypatch, library, rich, tmp_path):
    monkeypatch.setattr(spatial_data, "CHUNK_PX", 256)
    path, steps = tmp_path / "a.spatial.zarr", []
    write_spatialdata(rich, path, on_progress=lambda *step: steps.append(step))
    # One band of the table, 3 x 4 chunks of the finest level and 2 x 2 of the other.
    assert steps == [(done, 17) for done in range(1, 18)]

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_spatialdata(rich, path, on_progress=stop)
    assert library.read_zarr(path)["table"].n_obs > 100  # the earlier one
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_only_what_it_wrote_itself_is_replaced(library, rich, tmp_path):
    path = tmp_path / "a.spatial.zarr"
    write_spatialdata(rich, path)
    write_spatialdata(rich, path)
    group = zarr.open_group(path / "images", mode="w")
    group.create_group("slide")
    with pytest.raises(ExportError, match="exists already; choose another name"):
        write_spatialdata(rich, path)
    assert (path / "images" / "slide").is_dir()
    other = tmp_path / "b.spatial.zarr"
    library.SpatialData().write(other)
    with pytest.raises(ExportError, match="exists already"):
        write_spatialdata(rich, other)


@pytest.mark.parametrize("added", ["obs/leiden", "obsm/X_umap", "obsp/distances", "layers/log"])
def test_a_store_with_clusters_in_its_table_is_no_export_any_more(tmp_path, added):
    path = tmp_path / "a.spatial.zarr"
    zarr.open_group(path, mode="w", attributes={"nucleiseg": {"slide": "s"}}).create_group("labels/nuclei")
    table = zarr.open_group(path / "tables" / "table", mode="w")
    zarr.open_group(path / "tables", mode="a")
    for name in ("obs/_index", "obs/id", "obs/class", "obs/region", "obsm/spatial", "X"):
        table.create_array(name, data=np.arange(5))
    assert is_export(path)
    table.create_array(added, data=np.arange(5))
    assert not is_export(path)


def test_a_folder_that_is_no_store_is_no_export(tmp_path):
    (tmp_path / "a.spatial.zarr").mkdir()
    assert not is_export(tmp_path / "a.spatial.zarr")
    (tmp_path / "a.spatial.zarr" / "zarr.json").write_text("{")
    assert not is_export(tmp_path / "a.spatial.zarr")
    assert not is_export(tmp_path / "nothing.spatial.zarr")
