"""Kept maps come back bit for bit, show as lazy pyramids, and never take more disk than they may."""

from dataclasses import replace

import numpy as np
import pytest
import zarr
from fields import blank_slide

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.store.layout import MapLayout
from napari_nucleiseg.core.store.maps import MapStore
from napari_nucleiseg.core.store.project import Project

LAYOUT = MapLayout(height=1000, width=1300, tile_px=256, halo_px=32, size_multiple=16, grid_key="256+32@2x2")


@pytest.fixture
def store(tmp_path):
    (tmp_path / "s").mkdir()
    store = MapStore(tmp_path / "maps.zarr", tmp_path / "s", writable=True)
    store.declare("m@1", LAYOUT)
    return store


def world(channel=0):
    """A smooth map of the whole slide, so that tiles agree where they overlap."""
    yy, xx = np.mgrid[: LAYOUT.height, : LAYOUT.width]
    return ((np.sin(yy / 40 + channel) + np.cos(xx / 60)) * 60 + 128).astype(np.uint8)


def maps_of(tile, layout=LAYOUT):
    inside = layout.inside(tile)
    probability = world()[inside.slices][None]
    offsets = np.stack([world(1)[inside.slices], world(2)[inside.slices]]).astype(np.float16) / 8 - 16
    return {"nuclei": probability, "offsets": offsets}


def fill(store, version="m@1"):
    for tile in range(LAYOUT.rows * LAYOUT.columns):
        store.put(version, tile, maps_of(tile))


def reopened(store):
    return MapStore(store.root, store._scratch, writable=True, budget_bytes=store.budget_bytes)


@pytest.mark.parametrize("shape", [(1000, 1300), (256, 256), (255, 257), (100, 90), (1, 5000), (700, 513)])
@pytest.mark.parametrize(("tile", "halo", "multiple", "margin"), [(256, 56, 16, 0), (388, 92, 16, 92), (128, 40, 8, 0)])
@pytest.mark.parametrize("downsample", [1.0, 2.0, 1.9])
def test_the_layout_is_the_engines(shape, tile, halo, multiple, margin, downsample):
    from napari_nucleiseg.core.inference.plan import TileGrid

    grid = TileGrid(shape, YX(downsample, downsample), tile, halo, multiple, margin)
    layout = MapLayout(grid.extent.height, grid.extent.width, tile, halo, multiple, grid.key)
    assert (layout.rows, layout.columns) == (grid.rows, grid.columns)
    for index in range(len(grid)):
        assert layout.core(index) == grid.tile(index).core_px
        assert layout.inside(index) == grid.tile(index).inside_px


def test_maps_come_back_bit_for_bit_also_after_reopening(store):
    fill(store)
    for known in (store, reopened(store)):
        assert known.tiles("m@1") == set(range(LAYOUT.rows * LAYOUT.columns))
        assert set(known.heads("m@1")) == {"nuclei", "offsets"}
        for tile in known.tiles("m@1"):
            found = known.get("m@1", tile)
            for head, values in maps_of(tile).items():
                assert found[head].dtype == values.dtype
                np.testing.assert_array_equal(found[head], values)


def test_what_is_not_kept_is_none(store):
    assert store.get("m@1", 3) is None
    assert store.get("other", 3) is None
    assert store.tiles("other") == set()
    assert store.levels("m@1", "nuclei") is None
    assert store.levels("other", "nuclei") is None


def test_levels_show_the_whole_slide(store):
    fill(store)
    levels = store.levels("m@1", "nuclei")
    assert [level.shape for level in levels] == [(1000, 1300), (500, 650), (250, 325)]
    np.testing.assert_array_equal(np.asarray(levels[0]), world())
    np.testing.assert_array_equal(levels[0][300:700:3, 90:1290], world()[300:700:3, 90:1290])
    np.testing.assert_array_equal(np.asarray(levels[1]), world()[::2, ::2])
    assert levels[0].chunks == (256, 256)
    assert levels[0].dtype == np.uint8


def test_coarse_levels_are_means_and_need_no_full_tile(tmp_path):
    (tmp_path / "s").mkdir()
    store = MapStore(tmp_path / "maps.zarr", tmp_path / "s", writable=True)
    layout = MapLayout(4096 + 100, 4096, 256, 32, 16, "k")
    store.declare("m", layout)
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (layout.height, layout.width), dtype=np.uint8)
    for tile in range(layout.rows * layout.columns):
        store.put("m", tile, {"nuclei": whole[layout.inside(tile).slices][None]})
    levels = store.levels("m", "nuclei")
    assert [level.shape[1] for level in levels] == [4096, 2048, 1024, 512, 256]
    coarse = np.asarray(levels[3])
    expected = whole[:4192].reshape(524, 8, 512, 8).mean((1, 3))
    assert np.abs(coarse[:524] - expected).max() <= 1
    np.testing.assert_array_equal(np.asarray(levels[4]), coarse[::2, ::2])
    for path in (tmp_path / "maps.zarr").glob("*/nuclei/c.*"):
        path.unlink()
    store._memory.clear()
    np.testing.assert_array_equal(np.asarray(levels[3]), coarse)
    assert not levels[0][:10, :10].any()


def test_signed_heads_are_shown_around_128(store):
    fill(store)
    shown = np.asarray(store.levels("m@1", "offsets", 1)[0])
    values = world(2).astype(np.float32) / 8 - 16
    assert np.abs(shown - np.clip(128 + 4 * values, 0, 255)).max() <= 1


def test_tiles_without_maps_show_as_zero(store):
    store.put("m@1", 7, maps_of(7))
    shown = np.asarray(store.levels("m@1", "nuclei")[0])
    core = LAYOUT.core(7)
    np.testing.assert_array_equal(shown[core.slices], world()[core.slices])
    shown[core.slices] = 0
    assert not shown.any()


def test_the_budget_holds_and_the_oldest_go_first(store):
    store.put("m@1", 0, maps_of(0))
    store.budget_bytes = store.bytes_on_disk() * 5
    fill(store)
    assert store.bytes_on_disk() <= store.budget_bytes
    last = LAYOUT.rows * LAYOUT.columns - 1
    kept = store.tiles("m@1")
    assert last in kept
    assert 0 not in kept
    assert kept == set(range(min(kept), last + 1))
    on_disk = sum(path.stat().st_size for path in store.root.rglob("c.*"))
    assert on_disk == store.bytes_on_disk()
    assert reopened(store).tiles("m@1") == kept
    assert store.get("m@1", 0) is None


def test_putting_a_tile_again_replaces_it(store):
    store.put("m@1", 4, maps_of(4))
    size = store.bytes_on_disk()
    other = {head: np.roll(values, 5, axis=1) for head, values in maps_of(4).items()}
    store.put("m@1", 4, other)
    np.testing.assert_array_equal(store.get("m@1", 4)["nuclei"], other["nuclei"])
    assert store.bytes_on_disk() < 2 * size


def test_versions_do_not_mix_and_another_grid_starts_anew(store):
    store.declare("n@2/odd name", LAYOUT)
    store.put("m@1", 4, maps_of(4))
    store.put("n@2/odd name", 5, maps_of(5))
    assert (store.tiles("m@1"), store.tiles("n@2/odd name")) == ({4}, {5})
    store.declare("m@1", LAYOUT)
    assert store.tiles("m@1") == {4}
    store.declare("m@1", replace(LAYOUT, height=900, grid_key="other"))
    assert store.tiles("m@1") == set()
    assert reopened(store).tiles("n@2/odd name") == {5}
    store.clear()
    assert store.tiles("n@2/odd name") == set()


def test_half_written_maps_do_not_count(store):
    store.put("m@1", 4, maps_of(4))
    store.put("m@1", 5, maps_of(5))
    next(store.root.glob("*/offsets/c.4.*")).unlink()
    damaged = next(store.root.glob("*/nuclei/c.5.*"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    again = reopened(store)
    assert again.tiles("m@1") == {5}
    assert again.get("m@1", 5) is None


def test_zarr_reads_the_maps(store):
    store.put("m@1", 7, maps_of(7))
    (folder,) = (path.parent for path in store.root.glob("*/nuclei"))
    array = zarr.open_array(folder / "offsets", mode="r")
    values = maps_of(7)["offsets"]
    np.testing.assert_array_equal(array[7, :, : values.shape[1], : values.shape[2]], values)
    assert zarr.open_group(folder, mode="r").attrs["model_version"] == "m@1"


def test_misuse_is_told(store, tmp_path):
    with pytest.raises(StoreError, match="grid was not declared"):
        store.put("x", 0, maps_of(0))
    with pytest.raises(ValueError, match="should cover"):
        store.put("m@1", 0, {"nuclei": np.zeros((1, 5, 5), np.uint8)})
    Project.create(tmp_path / "p", blank_slide()).close()
    with Project.open(tmp_path / "p", writable=False) as reader, pytest.raises(StoreError, match="reading only"):
        reader.maps.declare("m", LAYOUT)


def test_a_full_disk_is_told(store, monkeypatch):
    from napari_nucleiseg.core.store import maps as maps_module

    def full(path, data, scratch):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(maps_module, "write_file", full)
    with pytest.raises(StoreError, match="is full"):
        store.put("m@1", 0, maps_of(0))
    assert store.tiles("m@1") == set()


def test_a_damaged_description_costs_the_maps_of_that_model_and_nothing_else(tmp_path):
    folder = tmp_path / "p.nucleiseg"
    with Project.create(folder, blank_slide(1000, 1300)) as project:
        project.maps.declare("m@1", LAYOUT)
        project.maps.put("m@1", 0, maps_of(0))
    (described,) = (folder / "maps.zarr").glob("*/offsets/zarr.json")
    described.write_bytes(b"")
    with Project.open(folder) as project:
        project.maps.declare("m@1", LAYOUT)
        project.maps.put("m@1", 0, maps_of(0))
        found = project.maps.get("m@1", 0)
    for head, expected in maps_of(0).items():
        np.testing.assert_array_equal(found[head], expected)
