"""Projects: made, opened, refused and protected with sentences that say what to do; a full disk costs nothing."""

import errno
import json
import os
import sqlite3
import subprocess
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
from fields import Grid, assert_pyramid, assert_same_table, blank_slide, expected_image, random_tiles, whole

from napari_nucleiseg.core.errors import MissingPixelSizeError, StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store import ledger
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.ledger import database_uri
from napari_nucleiseg.core.store.project import Project, default_folder, holder, pixel_size_of

SHAPE = (600, 600)
GRID = Grid(SHAPE, 200)


def fill(project, seed=1):
    tiles = random_tiles(seed, GRID)
    for tile in tiles:
        project.write_tile(tile, "m@1", "t0.5")
    return tiles


@pytest.mark.parametrize(
    ("slide", "folder"),
    [
        ("/a/b/case 1.svs", "/a/b/case 1.nucleiseg"),
        ("/a/scan.ome.tif", "/a/scan.ome.nucleiseg"),
        ("/a/dicom", "/a/dicom.nucleiseg"),
    ],
)
def test_the_usual_folder_lies_beside_the_slide(slide, folder):
    assert default_folder(slide) == Path(folder)


def test_what_was_written_is_there_after_reopening(tmp_path):
    slide = blank_slide()
    with Project.create(tmp_path / "p", slide) as project:
        fill(project)
        before = whole(project)
    with Project.open(tmp_path / "p", slide) as again:
        after = whole(again)
        np.testing.assert_array_equal(after[0], before[0])
        assert_same_table(after[1], before[1])
        assert again.tiles_done("m@1", "t0.5") == set(range(9))
        assert again.tiles_done("m@1", "t0.6") == set()
        assert (again.shape, again.mpp_um) == (SHAPE, (0.25, 0.25))
        assert_pyramid(again)
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["labels.zarr", "project.sqlite", "unfinished"]


def test_changes_are_seen_before_they_are_in_the_files(fresh_project):
    project = fresh_project()
    tiles = fill(project)
    assert project.labels.chunks.waiting_bytes > 0
    np.testing.assert_array_equal(whole(project)[0], expected_image(tiles, SHAPE)[0])


def test_open_or_create_does_either(tmp_path):
    slide = blank_slide()
    with Project.open_or_create(tmp_path / "x" / "p", slide) as project:
        fill(project)
    with Project.open_or_create(tmp_path / "x" / "p", slide) as project:
        assert len(project.tiles_done("m@1", "t0.5")) == 9


def test_a_project_is_not_made_twice(tmp_path):
    Project.create(tmp_path / "p", blank_slide()).close()
    with pytest.raises(StoreError, match="holds a project already"):
        Project.create(tmp_path / "p", blank_slide())


def test_no_project_there(tmp_path):
    with pytest.raises(StoreError, match=r"There is no project in .*nowhere"):
        Project.open(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="There is no project"):
        Project.open_or_create(tmp_path / "nowhere", blank_slide(), writable=False)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (blank_slide(fingerprint="f2", path="/x/b.svs"), r"belongs to another slide \(a.svs, 600 x 600 px\).*b.svs"),
        (blank_slide(600, 601, fingerprint=""), "belongs to another slide"),
        (blank_slide(mpp=0.5), r"made with 0.25 µm per pixel.*now opened with 0.5"),
    ],
)
def test_another_slide_is_refused(tmp_path, other, words):
    Project.create(tmp_path / "p", blank_slide()).close()
    with pytest.raises(StoreError, match=words):
        Project.open(tmp_path / "p", other)
    assert holder(tmp_path / "p") is None


def test_a_moved_slide_is_still_the_same(tmp_path):
    Project.create(tmp_path / "p", blank_slide()).close()
    Project.open(tmp_path / "p", blank_slide(path="/elsewhere/renamed.svs")).close()


FORMER, FULL, TWIN = "e" * 32, "a" * 16 + "e" * 32, "b" * 16 + "e" * 32


def test_a_project_of_a_former_version_is_opened_and_told_from_other_pictures_from_then_on(tmp_path):
    Project.create(tmp_path / "p", blank_slide(fingerprint=FORMER)).close()
    slide = blank_slide(fingerprint=FULL)
    assert pixel_size_of(tmp_path / "p", slide) == slide.mpp_um
    with Project.open(tmp_path / "p", slide, writable=False) as project:
        assert project.fingerprint == FULL
    with Project.open(tmp_path / "p") as project:
        assert project.fingerprint == FORMER
    with Project.open(tmp_path / "p", slide) as project:
        assert project.fingerprint == FULL
        fill(project)
    with Project.open(tmp_path / "p") as project:
        assert project.fingerprint == FULL
    with pytest.raises(StoreError, match="belongs to another slide"):
        Project.open(tmp_path / "p", blank_slide(fingerprint=TWIN))


def test_who_only_opens_a_project_of_a_former_version_changes_nothing(tmp_path):
    Project.create(tmp_path / "p", blank_slide(fingerprint=FORMER)).close()
    database = tmp_path / "p" / "project.sqlite"
    before, changed = database.read_bytes(), database.stat().st_mtime_ns
    with Project.open(tmp_path / "p", blank_slide(fingerprint=FULL)) as project:
        project.flush(settle=True)
    assert (database.read_bytes(), database.stat().st_mtime_ns) == (before, changed)
    project = Project.open(tmp_path / "p", blank_slide(fingerprint=FULL))
    with project, pytest.raises(ZeroDivisionError), project.ledger.transaction():
        raise ZeroDivisionError
    with Project.open(tmp_path / "p") as project:
        assert project.fingerprint == FORMER


def test_a_project_of_a_former_version_that_cannot_be_written_is_opened(tmp_path):
    Project.create(tmp_path / "p", blank_slide(fingerprint=FORMER)).close()
    before = (tmp_path / "p" / "project.sqlite").read_bytes()
    (tmp_path / "p").chmod(0o555)
    try:
        with Project.open(tmp_path / "p", blank_slide(fingerprint=FULL), writable=False) as project:
            assert project.fingerprint == FULL
    finally:
        (tmp_path / "p").chmod(0o755)
    assert (tmp_path / "p" / "project.sqlite").read_bytes() == before


def test_a_slide_without_pixel_size_gets_no_project(tmp_path):
    slide = blank_slide()
    slide.mpp_um = None
    with pytest.raises(MissingPixelSizeError, match="Give the micrometres per pixel"):
        Project.create(tmp_path / "p", slide)
    assert not (tmp_path / "p").exists()


def test_a_second_writer_is_told_who_holds_it_and_may_look_on(tmp_path):
    slide = blank_slide()
    with Project.create(tmp_path / "p", slide) as first:
        fill(first)
        with pytest.raises(StoreError, match=rf"in use by .* on .* \(process {os.getpid()}, since \d{{4}}-"):
            Project.open(tmp_path / "p", slide)
        assert holder(tmp_path / "p").pid == os.getpid()
        with Project.open(tmp_path / "p", slide, writable=False) as reader:
            np.testing.assert_array_equal(whole(reader)[0], whole(first)[0])
            assert_same_table(whole(reader)[1], whole(first)[1])
            with pytest.raises(StoreError, match="reading only"):
                reader.write_tile(random_tiles(2, GRID)[0], "m", "a")
            with pytest.raises(StoreError, match="reading only"):
                reader.flush()
            first.write_tile(random_tiles(2, GRID)[4], "m@1", "t0.7")
            reader.refresh()
            np.testing.assert_array_equal(whole(reader)[0], whole(first)[0])
            assert reader.count_in(Region(0, 0, *SHAPE)) == first.count_in(Region(0, 0, *SHAPE))
        count = reader.census.total()
        reader.refresh()  # one that is closed by then has nothing to look at
        assert reader.census.total() == count
    assert holder(tmp_path / "p") is None


def test_after_a_takeover_the_former_holder_writes_no_more(tmp_path):
    slide = blank_slide()
    first = Project.create(tmp_path / "p", slide)
    tiles = fill(first)
    with Project.open(tmp_path / "p", slide, take_over=True) as second:
        with pytest.raises(StoreError, match=r"was taken over by .*open the slide again"):
            first.write_tile(tiles[0], "m@1", "t0.9")
        with pytest.raises(StoreError, match="was taken over"):
            first.close()
        assert holder(tmp_path / "p").token == second._lock.holder.token
        np.testing.assert_array_equal(whole(second)[0], expected_image(tiles, SHAPE)[0])


def test_a_closed_project_says_so(tmp_path):
    project = Project.create(tmp_path / "p", blank_slide())
    project.close()
    project.close()
    with pytest.raises(StoreError, match="has been closed"):
        project.flush()


def test_a_newer_format_is_refused(tmp_path):
    Project.create(tmp_path / "p", blank_slide()).close()
    set_format(tmp_path / "p", ledger.FORMAT + 1)
    with pytest.raises(StoreError, match=r"newer napari-nucleiseg.*Update"):
        Project.open(tmp_path / "p", blank_slide())


def test_an_older_format_is_converted_once_and_whole(tmp_path, monkeypatch):
    """A made-up format 0 that called the review column otherwise."""
    with Project.create(tmp_path / "p", blank_slide()) as project:
        fill(project)
        before = whole(project)
    with sqlite3.connect(tmp_path / "p" / "project.sqlite") as database:
        database.execute("ALTER TABLE nuclei RENAME COLUMN review TO looked_at")
    database.close()
    set_format(tmp_path / "p", 0)
    with pytest.raises(StoreError, match=r"older format 0. Open it for writing once"):
        Project.open(tmp_path / "p", blank_slide(), writable=False)

    def fails_halfway(connection):
        connection.execute("ALTER TABLE nuclei RENAME COLUMN looked_at TO review")
        raise sqlite3.OperationalError("database or disk is full")

    for number in (1, 3):
        monkeypatch.setitem(ledger.MIGRATIONS, number, lambda _connection: None)  # the tables are there already
    monkeypatch.setitem(ledger.MIGRATIONS, 0, fails_halfway)
    with pytest.raises(StoreError, match="full"):
        Project.open(tmp_path / "p", blank_slide())
    monkeypatch.setitem(
        ledger.MIGRATIONS, 0, lambda c: c.execute("ALTER TABLE nuclei RENAME COLUMN looked_at TO review")
    )
    with Project.open(tmp_path / "p", blank_slide()) as project:
        assert_same_table(whole(project)[1], before[1])
        assert project.ledger.meta()["format"] == str(ledger.FORMAT)
    monkeypatch.delitem(ledger.MIGRATIONS, 0)
    Project.open(tmp_path / "p", blank_slide()).close()


def set_format(folder, number):
    with sqlite3.connect(folder / "project.sqlite") as database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(number),))
    database.close()


def test_a_damaged_database_is_told(tmp_path):
    Project.create(tmp_path / "p", blank_slide()).close()
    (tmp_path / "p" / "project.sqlite").write_bytes(b"this is not a database" * 1000)
    with pytest.raises(StoreError, match=r"project.sqlite in .* is damaged.*Restore"):
        Project.open(tmp_path / "p", blank_slide())
    assert holder(tmp_path / "p") is None


def test_a_creation_that_was_broken_off_can_be_made_again(tmp_path):
    Project.create(tmp_path / "p", blank_slide()).close()
    (tmp_path / "p" / "project.sqlite").unlink()
    with Project.create(tmp_path / "p", blank_slide()) as project:
        fill(project)
    (tmp_path / "p" / "project.sqlite").unlink()
    with pytest.raises(StoreError, match=r"holds nuclei.*but not the list"):
        Project.create(tmp_path / "p", blank_slide())
    assert (tmp_path / "p" / "labels.zarr" / "0" / "c").exists()


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "p").write_text("hello")
    for folder in (tmp_path / "p", tmp_path / "p" / "q"):
        with pytest.raises(StoreError, match=r"cannot be written. Choose another folder"):
            Project.create(folder, blank_slide())


def test_a_folder_that_cannot_be_written_is_named(small_disk):
    Project.create(small_disk / "old", blank_slide()).close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreError, match=rf"{small_disk}/p cannot be written. Choose another folder"):
        Project.create(small_disk / "p", blank_slide())
    with pytest.raises(StoreError, match=r"old cannot be written. Choose another folder"):
        Project.open(small_disk / "old", blank_slide())
    with Project.open(small_disk / "old", blank_slide(), writable=False) as project:
        assert project.count_in(Region(0, 0, *SHAPE)) == 0


def test_a_full_disk_stops_cleanly_and_goes_on_when_there_is_room(small_disk):
    slide, grid = blank_slide(2000, 2000), Grid((2000, 2000), 400)
    tiles = random_tiles(3, grid, n=900)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (2 << 20))
    done = set()
    project = Project.create(small_disk / "p", slide)

    def write_all():
        for tile in tiles:
            project.write_tile(tile, "m", "a")
            project.flush()
            done.add(tile.tile_index)

    with pytest.raises(StoreError, match=r"The disk that holds .*/p is full.*make space and start again"):
        write_all()
    assert 0 < len(done) < len(tiles)
    finished = project.tiles_done("m", "a")
    assert finished >= done
    expected = expected_image([tile for tile in tiles if tile.tile_index in finished], slide.shape)[0]
    np.testing.assert_array_equal(whole(project)[0], expected)
    with suppress(StoreError):  # what was given up may have left enough room
        project.close()
    ballast.unlink()
    with Project.open(small_disk / "p", slide) as again:
        assert again.tiles_done("m", "a") == finished
        np.testing.assert_array_equal(whole(again)[0], expected)
        assert_pyramid(again)
        assert check(again).is_sound
        for tile in tiles:
            if tile.tile_index not in finished:
                again.write_tile(tile, "m", "a")
        np.testing.assert_array_equal(whole(again)[0], expected_image(tiles, slide.shape)[0])
        again.flush()


def test_a_disk_that_fills_while_chunks_are_written_loses_nothing(fresh_project, monkeypatch):
    from napari_nucleiseg.core.store import shards

    project = fresh_project()
    tiles = random_tiles(4, GRID)
    real = shards.write_file

    def full(path, data, scratch):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, "write_file", full)
    for tile in tiles:
        project.write_tile(tile, "m", "a")
    with pytest.raises(StoreError, match="is full"):
        project.flush()
    np.testing.assert_array_equal(whole(project)[0], expected_image(tiles, SHAPE)[0])
    monkeypatch.setattr(shards, "write_file", real)
    project.flush()
    project.labels.chunks.forget()
    np.testing.assert_array_equal(whole(project)[0], expected_image(tiles, SHAPE)[0])


def test_other_drive_troubles_are_told(fresh_project, monkeypatch):
    from napari_nucleiseg.core.store import shards

    project = fresh_project()
    fill(project)

    def gone(path, data, scratch):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shards, "write_file", gone)
    with pytest.raises(StoreError, match=r"cannot be used.*Check that the drive is connected"):
        project.flush()
    monkeypatch.undo()


def test_notes_for_a_crash_stay_short(fresh_project, monkeypatch):
    from napari_nucleiseg.core.store import redo as redo_module

    monkeypatch.setattr(redo_module, "REDO_BYTES", 20_000)
    project = fresh_project()
    for seed in range(4):
        for tile in random_tiles(seed, GRID):
            project.write_tile(tile, "m", f"{seed}")
            (size,) = project.ledger.reader.execute("SELECT sum(length(after)) FROM redo").fetchone()
            assert size < 50_000
    folder = project.folder
    project.close()
    with Project.open(folder) as project:
        assert project.ledger.reader.execute("SELECT count(*) FROM redo").fetchone() == (0,)


def test_the_folder_says_what_it_is_to_other_programs(tmp_path):
    Project.create(tmp_path / "p", blank_slide()).close()
    assert "ome" in json.loads((tmp_path / "p" / "labels.zarr" / "zarr.json").read_text())["attributes"]


@pytest.mark.parametrize("failing", [0, 1])
def test_a_change_that_did_not_reach_the_image_is_there_with_the_next(fresh_project, monkeypatch, failing):
    grid = Grid((600, 600), 200)
    tiles = random_tiles(3, grid)
    expected = fresh_project()
    for tile in tiles:
        expected.write_tile(tile, "m@1", "k")
    image, table = whole(expected)
    project = fresh_project()
    project.write_tile(tiles[0], "m@1", "k")
    apply, calls = project.labels.apply, []

    def fails_once(*arguments):
        calls.append(arguments)
        if len(calls) == failing + 1:
            raise OSError(errno.EIO, "Input/output error")
        apply(*arguments)

    monkeypatch.setattr(project.labels, "apply", fails_once)
    refused = 0
    for tile in tiles[1:]:
        try:
            project.write_tile(tile, "m@1", "k")
        except StoreError:
            refused += 1
    assert refused == 1
    folder = project.folder
    project.close()
    with Project.open(folder) as again:
        np.testing.assert_array_equal(whole(again)[0], image)
        assert_same_table(whole(again)[1], table)
        assert check(again).is_sound


def test_a_slide_whose_name_is_no_utf_8_has_a_project(tmp_path):
    slide = blank_slide(path=os.fsdecode(b"/slides/caf\xe9.svs"))
    with Project.create(tmp_path / "p.nucleiseg", slide) as project:
        assert project.slide_name == "caf\ufffd.svs"
    with Project.open(tmp_path / "p.nucleiseg", slide) as again:
        assert again.slide_name == "caf\ufffd.svs"


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (
            PureWindowsPath(r"\\server\share\a b.nucleiseg\project.sqlite"),
            "file:////server/share/a%20b.nucleiseg/project.sqlite?mode=ro",
        ),
        (PureWindowsPath(r"C:\slides\project.sqlite"), "file:///C:/slides/project.sqlite?mode=ro"),
        (PurePosixPath("/slides/a#1/project.sqlite"), "file:///slides/a%231/project.sqlite?mode=ro"),
    ],
)
def test_sqlite_is_told_where_a_database_lies(path, uri):
    assert database_uri(path, "mode=ro") == uri


def test_numbers_of_nuclei_end_with_a_sentence(fresh_project):
    project = fresh_project()
    project.editor._next_id = 2**32 - 1
    assert project.editor.new_id() == 2**32 - 1
    with pytest.raises(StoreError, match="export them and begin a new one"):
        project.editor.new_id()
