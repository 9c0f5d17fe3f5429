"""The chunk cache: readers see every change at once, files are plain zarr, memory is bounded, threads do not mix."""

import importlib
import os
import threading
import tracemalloc

import numpy as np
import pytest
import zarr
from fields import blank_slide
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store import files
from napari_nucleiseg.core.store.chunks import ChunkPyramid
from napari_nucleiseg.core.store.files import decode_chunk, encode_chunk, write_file
from napari_nucleiseg.core.store.labels import LabelStore
from napari_nucleiseg.core.store.shards import ChunkFiles

SHAPE = (150, 210)
SIDE = 32


@pytest.fixture
def fresh_chunks(tmp_path, per_side):
    def make(**bounds):
        import shutil

        shutil.rmtree(tmp_path / "g", ignore_errors=True)
        (tmp_path / "s").mkdir(exist_ok=True)
        return ChunkPyramid(tmp_path / "g", (SHAPE,), SIDE, tmp_path / "s", per_side=per_side, **bounds)

    return make


@pytest.fixture(params=[1, 4])
def per_side(request):
    """Files that are chunks, as older projects have them, and files that hold sixteen."""
    return request.param


boxes = st.tuples(st.integers(0, 149), st.integers(0, 209), st.integers(1, 80), st.integers(1, 80))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), boxes, st.sampled_from([0, 1, 2])),
        st.tuples(st.just("trim")),
        st.tuples(st.just("flush"), st.integers(0, 40)),
        st.tuples(st.just("read"), boxes),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, seed=st.integers(0, 1000))
def test_any_sequence_equals_the_same_on_a_plain_array(fresh_chunks, steps, seed):
    chunks = fresh_chunks(waiting_bytes=5 * SIDE * SIDE * 4, kept_bytes=5 * SIDE * SIDE * 4)
    model = np.zeros(SHAPE, np.uint32)
    rng = np.random.default_rng(seed)
    for entry, step in enumerate(steps):
        if step[0] == "trim":
            chunks.trim()
        elif step[0] == "flush":
            chunks.flush(before=step[1])
        else:
            y, x, height, width = step[1]
            part = (slice(y, min(y + height, SHAPE[0])), slice(x, min(x + width, SHAPE[1])))
            if step[0] == "write":
                model[part] = rng.integers(0, 9, model[part].shape) * step[2]
                chunks.write(0, y, x, model[part], entry)
            np.testing.assert_array_equal(chunks.read(0, y, x, part[0].stop, part[1].stop), model[part])
    chunks.flush()
    chunks.forget()
    np.testing.assert_array_equal(chunks.read(0, 0, 0, *SHAPE), model)
    filled = {
        (0, y // SIDE, x // SIDE)
        for y in range(0, SHAPE[0], SIDE)
        for x in range(0, SHAPE[1], SIDE)
        if model[y : y + SIDE, x : x + SIDE].any()
    }
    assert set(chunks.present(0)) == filled


def test_zarr_reads_what_was_written(tmp_path):
    (tmp_path / "s").mkdir()
    store = LabelStore.create(tmp_path / "labels.zarr", (1300, 1700), YX(0.25, 0.5), tmp_path / "s")
    ids = np.random.default_rng(0).integers(0, 2**32, (700, 900), dtype=np.uint32)
    store.apply(Region(400, 600, 700, 900), ids, 1)
    store.chunks.flush()
    group = zarr.open_group(tmp_path / "labels.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][400:1100, 600:1500], ids)
    for level, plane in enumerate(store.levels):
        np.testing.assert_array_equal(group[str(level)][:], np.asarray(plane))
        squares = {(row // 4, column // 4) for _, row, column in store.chunks.present(level)}
        folder = tmp_path / "labels.zarr" / str(level) / "c"
        assert {tuple(map(int, file.relative_to(folder).parts)) for file in folder.rglob("*/*")} == squares


def test_we_read_what_zarr_wrote(tmp_path):
    (tmp_path / "s").mkdir()
    store = LabelStore.create(tmp_path / "labels.zarr", (1300, 1700), YX(0.25, 0.25), tmp_path / "s")
    ids = np.random.default_rng(0).integers(0, 2**32, (600, 600), dtype=np.uint32)
    zarr.open_group(tmp_path / "labels.zarr", mode="r+")["0"][300:900, 300:900] = ids
    np.testing.assert_array_equal(store.read(Region(300, 300, 600, 600)), ids)
    assert not store.read(Region(0, 0, 300, 1700)).any()


def test_memory_stays_within_its_bounds_while_a_large_area_is_written(tmp_path):
    slide = blank_slide(8192, 8192)
    (tmp_path / "s").mkdir()
    store = LabelStore.create(tmp_path / "labels.zarr", slide.shape, YX(0.25, 0.25), tmp_path / "s")
    store.chunks = ChunkPyramid(
        store.root, store.shapes, 512, tmp_path / "s", waiting_bytes=12 << 20, kept_bytes=8 << 20
    )
    ids = np.ones((1024, 1024), np.uint32)
    tracemalloc.start()
    try:
        for y in range(0, 8192, 1024):
            for x in range(0, 8192, 1024):
                store.apply(Region(y, x, 1024, 1024), ids, 1)
                store.chunks.trim()
                assert store.chunks.waiting_bytes <= 12 << 20
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Bounds, what one write adds before it is trimmed (4 + 1 chunks and a margin), and the arrays in flight.
    assert peak < (12 + 8 + 10 + 12) << 20
    store.chunks.flush()
    assert np.asarray(store.levels[-1]).all()


def test_a_thread_that_reads_meanwhile_never_keeps_what_is_old(tmp_path):
    (tmp_path / "s").mkdir()
    chunks = ChunkPyramid(tmp_path / "g", ((512, 512),), 64, tmp_path / "s", waiting_bytes=1, kept_bytes=1)
    stop = threading.Event()
    wrong = []

    def look():
        last = 0
        while not stop.is_set():
            seen = chunks.read(0, 0, 0, 512, 512)
            values = np.unique(seen)
            # A chunk is written as a whole, so within one there is one value, and values only grow.
            if any(len(np.unique(seen[y : y + 64, x : x + 64])) > 1 for y in (0, 448) for x in (0, 448)):
                wrong.append("torn")
            if values.min() < last - 1:
                wrong.append(f"{values.min()} after {last}")
            last = int(values.max())

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for value in range(1, 60):
        chunks.write(0, 0, 0, np.full((512, 512), value, np.uint32), value)
        chunks.trim()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert (chunks.read(0, 0, 0, 512, 512) == 59).all()


@pytest.mark.parametrize("data", [b"", b"no zstd at all", encode_chunk(np.ones((9, 9), np.uint32))])
def test_a_damaged_chunk_reads_as_empty_and_is_remembered(fresh_chunks, tmp_path, per_side, data):
    chunks = fresh_chunks()
    chunks.write(0, 0, 0, np.ones((64, 64), np.uint32), 1)
    chunks.flush()
    chunks.forget()
    ChunkFiles(tmp_path / "g", per_side, tmp_path / "s").save({(0, 0, 1): data})
    seen = chunks.read(0, 0, 0, 64, 64)
    assert seen[:, :32].all()
    assert not seen[:32, 32:].any()
    assert chunks.damaged == {(0, 0, 1)}
    chunks.write(0, 0, 32, np.ones((32, 32), np.uint32), 2)
    chunks.flush()
    assert chunks.damaged == set()
    assert chunks.read(0, 0, 0, 64, 64).all()


def test_half_a_file_is_never_seen(tmp_path, monkeypatch):
    import os

    (tmp_path / "s").mkdir()
    path = str(tmp_path / "c" / "0")
    write_file(path, b"old", str(tmp_path / "s"))
    real = os.write

    def full_after_two(handle, data):
        if len(data) <= 2:
            raise OSError(28, "No space left on device")
        return real(handle, data[:2])

    monkeypatch.setattr(os, "write", full_after_two)
    with pytest.raises(OSError, match="No space"):
        write_file(path, b"newer", str(tmp_path / "s"))
    monkeypatch.undo()
    assert (tmp_path / "c" / "0").read_bytes() == b"old"
    assert list((tmp_path / "s").iterdir()) == []


def test_a_file_that_is_being_read_is_replaced_a_moment_later(tmp_path, monkeypatch):
    import os

    real, refused = os.replace, []

    def busy(source, target):
        if len(refused) < 2:
            refused.append(target)
            raise PermissionError(13, "in use")
        real(source, target)

    monkeypatch.setattr(os, "replace", busy)
    write_file(str(tmp_path / "0"), b"new", str(tmp_path))
    assert (tmp_path / "0").read_bytes() == b"new"
    assert len(refused) == 2


def test_chunks_of_any_type_come_back():
    for dtype in (np.uint8, np.float16, np.uint32):
        chunk = np.random.default_rng(0).integers(0, 99, (3, 5)).astype(dtype)
        np.testing.assert_array_equal(decode_chunk(encode_chunk(chunk), chunk.shape, chunk.dtype), chunk)


def test_files_are_binary_on_windows(monkeypatch):
    monkeypatch.setattr(os, "O_BINARY", 0x8000, raising=False)
    try:
        assert importlib.reload(files).BINARY == 0x8000
    finally:
        monkeypatch.undo()
        importlib.reload(files)
