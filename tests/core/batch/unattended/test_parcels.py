import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nucleiseg.core.batch.unattended.parcels import Parcel, left_parcels, read_parcel, write_parcel
from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.nuclei import TileNuclei


def tile(index, count, seed=0, kind=np.uint16):
    random = np.random.default_rng(seed)
    box = Region(index, 3, 20, 30)
    return TileNuclei(
        tile_index=index,
        core=Region(index, 0, 16, 16),
        box=box,
        labels=random.integers(0, count + 1, (box.height, box.width)).astype(kind),
        centroids=random.random((count, 2)),
        areas_um2=random.random(count).astype(np.float32),
        boxes=random.integers(0, 99, (count, 4)),
        scores=random.random(count).astype(np.float32),
    )


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=4), seed=st.integers(0, 99), wide=st.booleans())
def test_what_was_put_in_comes_out(tmp_path_factory, counts, seed, wide):
    folder = tmp_path_factory.mktemp("project") / "parcels"
    tiles = tuple(tile(n, count, seed, np.int32 if wide else np.uint16) for n, count in enumerate(counts))
    found = read_parcel(write_parcel(folder, Parcel("key", tiles)))
    assert found.key == "key"
    for one, other in zip(found.tiles, tiles, strict=True):
        assert (one.tile_index, one.core, one.box) == (other.tile_index, other.core, other.box)
        for name in ("labels", "centroids", "areas_um2", "boxes", "scores"):
            there, expected = getattr(one, name), getattr(other, name)
            assert there.dtype == expected.dtype
            np.testing.assert_array_equal(there, expected)


@given(cut=st.floats(0, 0.999))
def test_a_parcel_that_was_cut_off_is_none(tmp_path_factory, cut):
    path = write_parcel(tmp_path_factory.mktemp("project") / "parcels", Parcel("key", (tile(1, 3),)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * cut)])
    assert read_parcel(path) is None


def test_only_parcels_of_the_key_are_left(tmp_path):
    folder = tmp_path / "parcels"
    kept = write_parcel(folder, Parcel("key", (tile(1, 3),)))
    write_parcel(folder, Parcel("other", (tile(2, 3),)))
    (folder / "torn.parcel").write_bytes(b"x")
    (folder / "half.1234.part").write_bytes(b"x")
    assert list(left_parcels(folder, "key")) == [kept]
    assert list(folder.iterdir()) == [kept]
    assert list(left_parcels(tmp_path / "none", "key")) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="is full"):
        write_parcel(tmp_path / "parcels", Parcel("key", (tile(1, 3),)))
    assert list((tmp_path / "parcels").iterdir()) == []
