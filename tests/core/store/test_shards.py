"""Files of several chunks: zarr reads them, what is in them stays when one changes, damage costs what it must."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from fields import blank_slide, whole
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store import labels as labels_module
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.labels import LabelStore
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.shards import ChunkFiles

keys = st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(0, 6))
steps = st.lists(st.tuples(keys, st.one_of(st.none(), st.binary(min_size=1, max_size=9))), max_size=30)


@pytest.fixture
def fresh_files(tmp_path):
    (tmp_path / "s").mkdir()
    made = iter(range(10_000))
    return lambda per_side=4: ChunkFiles(tmp_path / str(next(made)), per_side, tmp_path / "s")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, per_side=st.sampled_from([1, 2, 4]))
def test_any_sequence_of_changes_equals_the_same_on_a_dictionary(fresh_files, steps, per_side):
    files, expected = fresh_files(per_side), {}
    for key, data in steps:
        path = files.save({key: data})
        expected[key] = data
        assert path == files.path(key)
        assert files.load(key) == data
    full = {key: data for key, data in expected.items() if data is not None}
    assert {key: files.load(key) for key in expected} == expected
    assert {key for level in (0, 1) for key in files.present(level)} == set(full)
    # A file is there only if something is in it.
    there = {str(path) for path in files.root.rglob("*") if path.is_file()}
    assert there == {files.path(key) for key in full}


def test_equal_chunks_are_equal_files_whatever_came_first(fresh_files):
    one, other = fresh_files(), fresh_files()
    one.save({(0, 0, 0): b"a", (0, 1, 1): b"bb"})
    path = one.save({(0, 0, 2): b"ccc"})
    other.save({(0, 0, 2): b"ccc", (0, 1, 1): b"old"})
    assert Path(path).read_bytes() == Path(other.save({(0, 1, 1): b"bb", (0, 0, 0): b"a"})).read_bytes()


def test_chunks_of_a_file_are_found_together(fresh_files):
    files = fresh_files()
    every = [(0, 0, 0), (0, 3, 3), (0, 4, 0), (1, 0, 0), (0, 0, 4)]
    assert files.together((0, 1, 2), iter(every)) == [(0, 0, 0), (0, 3, 3)]


@pytest.mark.parametrize("left", [0, 3, 100, -1])
def test_a_truncated_file_counts_as_damaged_and_the_next_change_replaces_it(fresh_files, left):
    files = fresh_files()
    path = Path(files.save({(0, 0, 0): b"one" * 40, (0, 3, 1): b"two" * 40}))
    path.write_bytes(path.read_bytes()[:left])
    for key in ((0, 0, 0), (0, 3, 1), (0, 2, 2)):
        with pytest.raises(ValueError, match="index of its chunks"):
            files.load(key)
    assert len(list(files.present(0))) == 16  # any of them may have been there
    files.save({(0, 2, 2): b"new"})
    assert list(files.present(0)) == [(0, 2, 2)]
    assert files.load((0, 0, 0)) is None


def test_a_change_is_one_file_that_zarr_reads_and_zarr_may_change_it(tmp_path):
    (tmp_path / "s").mkdir()
    store = LabelStore.create(tmp_path / "labels.zarr", (2500, 2100), YX(0.25, 0.25), tmp_path / "s")
    ids = np.random.default_rng(0).integers(0, 2**32, (2500, 2100), dtype=np.uint32)
    store.apply(Region(0, 0, 2500, 2100), ids, 1)
    store.chunks.flush()
    assert sum(path.is_file() for path in (store.root / "0" / "c").rglob("*")) == 4
    level = zarr.open_group(store.root, mode="r+")["0"]
    np.testing.assert_array_equal(level[:], ids)
    level[500:530, 500:530] = 7
    store.chunks.forget()
    ids[500:530, 500:530] = 7
    np.testing.assert_array_equal(store.read(Region(0, 0, 2500, 2100)), ids)
    store.apply(Region(520, 520, 20, 20), np.full((20, 20), 9, np.uint32), 2)
    store.chunks.flush()
    ids[520:540, 520:540] = 9
    np.testing.assert_array_equal(level[:], ids)


def test_an_older_project_keeps_its_files_and_is_edited_as_any_other(tmp_path, monkeypatch):
    plain = {
        **labels_module._ARRAY,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [512, 512]}},
        "codecs": labels_module._ARRAY["codecs"][0]["configuration"]["codecs"],
    }
    monkeypatch.setattr(labels_module, "_ARRAY", plain)
    Project.create(tmp_path / "p", blank_slide(1200, 1200)).close()
    monkeypatch.undo()
    with Project.open(tmp_path / "p") as project:
        ids = np.zeros((900, 900), np.uint32)
        project.labels.apply(Region(100, 100, 900, 900), ids + 5, 1)
        project.labels.chunks.flush()
        assert (tmp_path / "p" / "labels.zarr" / "0" / "c" / "1" / "1").is_file()
    with Project.open(tmp_path / "p", writable=False) as project:
        assert (whole(project)[0][100:1000, 100:1000] == 5).all()
        assert check(project).damaged_files == ()
    level = zarr.open_group(tmp_path / "p" / "labels.zarr", mode="r")["0"]
    assert level.chunks == (512, 512)
    assert int((level[:] == 5).sum()) == 900 * 900


def test_levels_with_files_of_different_sizes_are_no_label_image_of_ours(tmp_path):
    (tmp_path / "s").mkdir()
    store = LabelStore.create(tmp_path / "labels.zarr", (1200, 1200), YX(0.25, 0.25), tmp_path / "s")
    path = store.root / "1" / "zarr.json"
    path.write_text(path.read_text().replace("2048", "1024"))
    with pytest.raises(StoreError, match="no label image of this program"):
        LabelStore(store.root, (1200, 1200), tmp_path / "s", YX(0.25, 0.25))
