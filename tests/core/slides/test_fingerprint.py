"""A fingerprint tells pictures apart, follows a slide wherever it lies, and holds the one of former versions."""

import hashlib
import shutil

import numpy as np
import pytest
import tifffile
import zarr

from napari_nucleiseg.core.slides.fingerprint import fingerprint, former, is_same


def core(seed, side=1000):
    """A tissue core with nuclei on plain white."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - side / 2
    picture = np.full((side, side, 3), 255, np.uint8)
    picture[y**2 + x**2 < (side / 2 - 60) ** 2] = (235, 200, 220)
    for nucleus in rng.uniform(-0.3 * side, 0.3 * side, (60, 2)):
        picture[(y - nucleus[0]) ** 2 + (x - nucleus[1]) ** 2 < 200] = (90, 60, 140)
    return picture


def write_tiff(path, picture):
    tifffile.imwrite(path, picture, photometric="rgb", resolution=(40000, 40000), resolutionunit=3, metadata=None)


def write_zarr(path, picture):
    array = zarr.create_array(path, shape=picture.shape, chunks=(256, 256, 3), dtype="uint8", compressors=None)
    array[...] = picture


WRITERS = pytest.mark.parametrize("write", [write_tiff, write_zarr])


@WRITERS
def test_pictures_that_differ_in_the_middle_alone_are_told_apart(tmp_path, write):
    for seed in range(3):
        write(tmp_path / f"{seed}", core(seed))
    assert len({fingerprint(str(tmp_path / f"{seed}")) for seed in range(3)}) == 3


@WRITERS
def test_a_copy_has_the_same_fingerprint(tmp_path, write):
    write(tmp_path / "a", core(1))
    copy = shutil.copytree if (tmp_path / "a").is_dir() else shutil.copy
    copy(tmp_path / "a", tmp_path / "b")
    assert fingerprint(str(tmp_path / "a")) == fingerprint(str(tmp_path / "b"))


def test_a_column_of_tissue_is_not_missed_where_steps_are_whole_rows(tmp_path):
    for shade in (80, 90):
        rows = np.full((136, 16384), 255, np.uint8)
        rows[16:-16, 2048:10240] = shade
        # With this header, 32 even steps from one end to the other are four rows each, and all on the margin.
        (tmp_path / f"{shade}").write_bytes(bytes(4096) + rows.tobytes())
    assert fingerprint(str(tmp_path / "80")) != fingerprint(str(tmp_path / "90"))


def test_every_large_file_of_a_small_folder_counts(tmp_path):
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    for number in range(32):
        (folder / f"{number:02}").write_bytes(bytes(70_000))
    seen = {fingerprint(str(folder))}
    for number in range(32):
        (folder / f"{number:02}").write_bytes(b"\1" * 70_000)
        seen.add(fingerprint(str(folder)))
    assert len(seen) == 33


@pytest.mark.parametrize("size", [0, 10, 100_000, 131_072, 131_073, 140_000, 3_000_000])
def test_a_file_keeps_what_former_versions_gave_at_the_end(tmp_path, size):
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "a").write_bytes(content)
    ends = content[: 64 << 10] + content[max(0, size - (64 << 10)) :]
    before = hashlib.sha256(str(size).encode() + ends).hexdigest()[:32]
    found = fingerprint(str(tmp_path / "a"))
    assert (former(found), len(found)) == (before, 48 if size > 131_072 else 32)
    assert is_same(found, before)
    assert is_same(before, found)


def test_a_folder_keeps_what_former_versions_gave_at_the_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "zarr.json").write_text("{}")
    assert fingerprint(str(tmp_path / "a")) == hashlib.sha256(b"zarr.json 2\n{}").hexdigest()[:32]
    (tmp_path / "a" / "0").write_bytes(bytes(70_000))
    found = fingerprint(str(tmp_path / "a"))
    assert len(found) == 48
    assert former(found) == hashlib.sha256(b"0 70000\nzarr.json 2\n{}").hexdigest()[:32]


STRAYS = [".DS_Store", "0/.DS_Store", "._zarr.json", "Thumbs.db", "0/desktop.ini", "labels/zarr.json", "tables/a/0"]


def image(folder):
    """A folder as an OME-Zarr image has it."""
    (folder / "0" / "c").mkdir(parents=True)
    (folder / "zarr.json").write_text('{"node_type": "group"}')
    (folder / "0" / "zarr.json").write_text('{"node_type": "array"}')
    (folder / "0" / "c" / "0").write_bytes(np.random.default_rng(1).bytes(70_000))
    return folder


def put_in(folder, name, content="x"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)


@pytest.mark.parametrize("name", STRAYS)
def test_what_others_leave_in_a_folder_does_not_count(tmp_path, name):
    folder = image(tmp_path / "a.zarr")
    before = fingerprint(str(folder))
    put_in(folder, name)
    assert fingerprint(str(folder)) == before


def test_labels_in_an_image_of_an_older_version_and_of_a_collection_do_not_count(tmp_path):
    folder = image(tmp_path / "a.zarr" / "0").parent
    (folder / ".zgroup").write_text("{}")
    before = fingerprint(str(folder))
    put_in(folder, "labels/.zgroup")
    put_in(folder, "0/labels/nuclei/zarr.json")
    assert fingerprint(str(folder)) == before


def test_an_array_of_such_a_name_and_folders_of_other_kinds_count(tmp_path):
    seen = {fingerprint(str(image(tmp_path / "a.zarr")))}
    put_in(tmp_path / "a.zarr", "labels/zarr.json", '{"node_type": "array"}')
    seen.add(fingerprint(str(tmp_path / "a.zarr")))
    put_in(tmp_path / "a.zarr", "points/.zarray")
    seen.add(fingerprint(str(tmp_path / "a.zarr")))
    put_in(tmp_path / "a.zarr", "0/labels/c")
    seen.add(fingerprint(str(tmp_path / "a.zarr")))
    assert len(seen) == 4


def test_a_slide_whose_labels_counted_in_former_versions_is_known(tmp_path):
    folder = image(tmp_path / "a.zarr")
    clean = fingerprint(str(folder))
    put_in(folder, "labels/zarr.json", "labels")
    files = {"zarr.json": folder / "zarr.json", "0/zarr.json": folder / "0" / "zarr.json"}
    files["labels/zarr.json"] = folder / "labels" / "zarr.json"
    ends = hashlib.sha256(f"zarr.json 22\n{files['zarr.json'].read_text()}".encode())
    ends.update(f"0/zarr.json 22\n{files['0/zarr.json'].read_text()}0/c/0 70000\n".encode())
    ends.update(b"labels/zarr.json 6\nlabels")
    before = ends.hexdigest()[:32]
    found = fingerprint(str(folder))
    assert found == clean
    assert is_same(before, found)
    assert is_same(found, clean[:16] + before)
    assert not is_same(found, "a" * 16 + before)


def test_only_known_fingerprints_of_one_slide_are_the_same():
    ends, middle, other = "e" * 32, "a" * 16, "b" * 16
    assert is_same(ends, ends)
    assert is_same(middle + ends, middle + ends)
    assert not is_same(middle + ends, other + ends)
    assert not is_same(ends, "f" * 32)
    assert not is_same("", "")
    assert not is_same("", middle + ends)
    assert not is_same("e" * 8, ends)
