"""labels.zarr: a valid OME-Zarr 0.5 label image of any size, made in no time, whose levels napari takes."""

import json
import time
from itertools import pairwise

import numpy as np
import pytest
from fields import blank_slide
from hypothesis import given
from hypothesis import strategies as st

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.labels import LabelStore, halve, pyramid_shapes


def create(folder, shape=(1300, 1701), mpp=YX(0.25, 0.5)):
    (folder / "s").mkdir(exist_ok=True)
    return LabelStore.create(folder / "labels.zarr", shape, mpp, folder / "s")


def test_metadata_are_ome_zarr_05(tmp_path):
    create(tmp_path)
    root = json.loads((tmp_path / "labels.zarr" / "zarr.json").read_text())
    assert root["zarr_format"] == 3
    ome = root["attributes"]["ome"]
    assert ome["version"] == "0.5"
    assert "image-label" in ome
    (image,) = ome["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["y", "x"]
    assert {axis["unit"] for axis in image["axes"]} == {"micrometer"}
    assert [entry["path"] for entry in image["datasets"]] == ["0", "1", "2"]
    transforms = image["datasets"][2]["coordinateTransformations"]
    assert transforms[0] == {"type": "scale", "scale": [1.0, 2.0]}
    assert transforms[1] == {"type": "translation", "translation": [0.375, 0.75]}
    level = json.loads((tmp_path / "labels.zarr" / "0" / "zarr.json").read_text())
    assert level["shape"] == [1300, 1701]
    assert level["data_type"] == "uint32"
    assert level["dimension_names"] == ["y", "x"]
    assert level["chunk_grid"]["configuration"]["chunk_shape"] == [2048, 2048]
    (sharding,) = level["codecs"]
    assert sharding["configuration"]["chunk_shape"] == [512, 512]
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "zstd"]


def test_metadata_are_those_that_zarr_writes(tmp_path):
    zarr = pytest.importorskip("zarr")
    store = create(tmp_path)
    theirs = zarr.create_group(tmp_path / "theirs.zarr", attributes=dict(zarr.open_group(store.root, mode="r").attrs))
    for level, shape in enumerate(store.shapes):
        theirs.create_array(
            str(level),
            shape=shape,
            chunks=(512, 512),
            shards=(2048, 2048),
            dtype="uint32",
            compressors=zarr.codecs.ZstdCodec(level=1),
            dimension_names=("y", "x"),
        )
    stated = [
        {path.relative_to(root): json.loads(path.read_text()) for path in root.rglob("zarr.json")}
        for root in (store.root, theirs.store.root)
    ]
    assert len(stated[0]) == 1 + len(store.shapes)
    assert stated[0] == stated[1]


def test_a_slide_of_100000_px_is_made_in_no_time(tmp_path):
    start = time.process_time()
    store = create(tmp_path, (100_000, 100_000))
    assert time.process_time() - start < 0.5
    assert len(store.levels) == 9
    assert sum(1 for _ in (tmp_path / "labels.zarr").rglob("*")) < 30


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_pyramid_ends_when_it_fits_a_chunk(height, width):
    shapes = pyramid_shapes(height, width)
    assert max(shapes[-1]) <= 512
    assert all(max(shape) > 512 for shape in shapes[:-1])
    for below, above in pairwise(shapes):
        assert above == (-(-below[0] // 2), -(-below[1] // 2))


def test_no_nucleus_vanishes_before_it_must(tmp_path):
    store = create(tmp_path, (2048, 2048))
    ids = np.zeros((2048, 2048), np.uint32)
    ids[5::32, 5::32] = np.arange(1, 64**2 + 1).reshape(64, 64)
    store.apply(store.whole, ids, 1)
    for level in store.levels:
        assert set(np.unique(np.asarray(level))) == {0, *range(1, 64**2 + 1)}


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (5, 7), (6, 6)])
def test_halving_keeps_the_highest_of_each_block(shape):
    image = np.random.default_rng(0).integers(0, 99, shape, dtype=np.uint32)
    small = halve(image)
    for y in range(small.shape[0]):
        for x in range(small.shape[1]):
            assert small[y, x] == image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max()


@given(st.integers(0, 700), st.integers(0, 700), st.integers(1, 300), st.integers(1, 300))
def test_aligned_regions_contain_what_they_grew_from(tmp_path_factory, y, x, height, width):
    store = LabelStore.__new__(LabelStore)
    store.shape = (1001, 1003)
    region = Region(y, x, height, width)
    grown = store.aligned(region)
    assert grown.contains(region.intersect(store.whole))
    assert grown.y % 16 == grown.x % 16 == 0
    assert grown.y1 % 16 == 0 or grown.y1 == 1001


def test_any_change_keeps_every_level_in_step(tmp_path):
    store = create(tmp_path, (1301, 1703))
    rng = np.random.default_rng(1)
    for entry in range(25):
        y, x = int(rng.integers(0, 1300)), int(rng.integers(0, 1702))
        region = Region(y, x, int(rng.integers(1, 400)), int(rng.integers(1, 400))).intersect(store.whole)
        if rng.random() < 0.5:
            region = store.aligned(region)
        values = rng.integers(0, 3, (region.height, region.width), dtype=np.uint32) * np.uint32(2**31 + entry)
        store.apply(region, values, entry)
    levels = [np.asarray(level) for level in store.levels]
    for below, above in pairwise(levels):
        np.testing.assert_array_equal(above, halve(below))


def test_napari_shows_the_levels_and_picks_ids_from_them(tmp_path):
    layers = pytest.importorskip("napari.layers")
    store = create(tmp_path, (1300, 1700))
    ids = np.zeros((200, 200), np.uint32)
    ids[50:150, 50:150] = 2**31 + 7
    store.apply(Region(600, 600, 200, 200), ids, 1)
    layer = layers.Labels(list(store.levels), multiscale=True, scale=(0.25, 0.25))
    assert layer.data[0].shape == (1300, 1700)
    assert layer.extent.data[1].tolist() == [1299, 1699]
    assert layer.get_value((700 * 0.25, 700 * 0.25), world=True) is not None


def grid_of(side):
    return {"name": "regular", "configuration": {"chunk_shape": [side, side]}}


@pytest.mark.parametrize("harm", ["other size", "not json", "missing", "other numbers", "other chunks"])
def test_a_foreign_or_damaged_image_is_refused_with_a_sentence(tmp_path, harm):
    create(tmp_path)
    path = tmp_path / "labels.zarr" / "1" / "zarr.json"
    if harm == "missing":
        path.unlink()
    elif harm == "not json":
        path.write_text("{")
    elif harm == "other numbers":
        path.write_text(path.read_text().replace('"uint32"', '"int64"'))
    elif harm == "other chunks":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chunk_grid": grid_of(100)}))
    shape = (1400, 1701) if harm == "other size" else (1300, 1701)
    words = "belongs to another slide" if harm == "other size" else "move it away and segment the slide again"
    with pytest.raises(StoreError, match=words):
        LabelStore(tmp_path / "labels.zarr", shape, tmp_path / "s", YX(0.25, 0.25))


def test_levels_are_lazy(tmp_path):
    store = create(tmp_path, blank_slide(100_000, 100_000).shape)
    level = store.levels[0]
    assert level.shape == (100_000, 100_000)
    assert level.chunks == (512, 512)
    assert level.dtype == np.uint32
    assert level[99_999, 99_999] == 0
    assert level[50_000:50_010, ::20_000].shape == (10, 5)
