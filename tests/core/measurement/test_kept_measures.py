"""What was measured is read again until something in or around the block changes; a damaged file is none."""

import errno
import itertools
import os
import threading
import time

import numpy as np
import pytest
from measured_parts import slide_of, tile_of_labels

from napari_nucleiseg.core.errors import SlideError, StoreError
from napari_nucleiseg.core.exchange.source import rows_of, source_of_project
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.measurement.columns import COLUMNS, NAMES
from napari_nucleiseg.core.measurement.grid import blocks_of
from napari_nucleiseg.core.measurement.kept import FOLDER, KeptMeasures, source_for_export, source_with_measures
from napari_nucleiseg.core.measurement.loading import BlockLoader
from napari_nucleiseg.core.measurement.measure import measure
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.project import Project

WHOLE = Region(0, 0, 300, 400)


class Unreadable:
    """Pixels that nobody may look at."""

    shape, dtype, ndim = (300, 400, 3), np.dtype(np.uint8), 3

    def __getitem__(self, _key):
        raise SlideError("this slide must not be read")


@pytest.fixture
def slide(picture):
    return slide_of(picture)


@pytest.fixture
def project(project_of, slide, field):
    return project_of(slide, field)


@pytest.fixture
def unread():
    return Slide("/slides/a.svs", (Unreadable(),), (YX(1, 1),), YX(0.5, 0.25), fingerprint="slide")


def measured(project, slide):
    return [(block.table, block.values) for block in measure(project, slide)]


def file_of(project):
    (path,) = (project.folder / FOLDER).glob("*.bin")
    return path


def test_what_was_measured_is_read_again(project, slide, unread):
    ((_, first),) = measured(project, slide)
    ((_, second),) = measured(project, unread)
    for name in NAMES:
        np.testing.assert_array_equal(first[name], second[name])
    with pytest.raises(SlideError, match="must not be read"):
        list(measure(project, unread, keep=False))


def test_measures_of_a_former_version_stay(project_of, picture, field):
    former, full = (slide_of(picture, fingerprint=known) for known in ("e" * 32, "a" * 16 + "e" * 32))
    project = project_of(former, field)
    list(measure(project, full))
    assert KeptMeasures(project).complete()
    project.close()
    with Project.open(project.folder, full) as found:
        assert found.fingerprint == full.fingerprint
        assert KeptMeasures(found).complete()


def test_keeping_nothing_leaves_nothing(project, slide):
    list(measure(project, slide, keep=False))
    assert not (project.folder / FOLDER).exists()
    assert not KeptMeasures(project).complete()


def test_rows_of_any_table_are_found(project, slide):
    ((table, values),) = measured(project, slide)
    kept = KeptMeasures(project)
    assert kept.columns == COLUMNS
    rows = np.random.default_rng(0).permutation(len(table))[:20]
    found = kept.of(rows_of(table, rows))
    for name in NAMES:
        np.testing.assert_array_equal(found[name], values[name][rows])
    assert {len(column) for column in kept.of(rows_of(table, [])).values()} == {0}


def test_what_was_not_measured_has_no_values(project):
    table = project.nuclei_in(WHOLE)
    assert all(
        np.isnan(values).all() and len(values) == len(table) for values in KeptMeasures(project).of(table).values()
    )


def test_several_blocks_are_put_together(project, slide, monkeypatch):
    monkeypatch.setattr("napari_nucleiseg.core.measurement.grid.BLOCK_PX", 64)
    blocks = blocks_of(project)
    for _ in measure(project, slide, blocks=blocks[::2]):
        pass
    table = project.nuclei_in(WHOLE)
    found = KeptMeasures(project).of(table)["perimeter_um"]
    y, x = table.centroids.T
    there = np.zeros(len(table), bool)
    for block in blocks[::2]:
        there |= (y >= block.y) & (y < block.y1) & (x >= block.x) & (x < block.x1)
    np.testing.assert_array_equal(np.isfinite(found), there)
    kept = KeptMeasures(project)
    assert not kept.complete()
    assert kept.complete(blocks[0])
    assert not kept.complete(blocks[1])


def test_an_edit_makes_its_block_stale(project, slide, unread):
    before = measured(project, slide)[0]
    line = np.asarray(project.labels.levels[0][WHOLE.slices]).copy()
    line[250, 50] = 0
    project.editor.paint(WHOLE, line)
    kept = KeptMeasures(project)
    assert not kept.complete()
    assert np.isnan(kept.of(project.nuclei_in(WHOLE))["solidity"]).all()
    with pytest.raises(SlideError, match="must not be read"):
        list(measure(project, unread))
    after = measured(project, slide)[0]
    assert kept.complete()
    assert len(after[0]) == len(before[0])
    assert (after[1]["perimeter_um"] != before[1]["perimeter_um"]).sum() == 1


def test_approval_and_class_do_not(project, slide, unread):
    measured(project, slide)
    project.approve(project.nuclei_in(WHOLE).ids[:5].tolist())
    assert KeptMeasures(project).complete()
    measured(project, unread)


def test_a_new_neighbour_beyond_the_border_makes_a_block_stale(project, slide, monkeypatch):
    """Its nuclei are the same, but not their neighbours."""
    monkeypatch.setattr("napari_nucleiseg.core.measurement.grid.BLOCK_PX", 150)
    list(measure(project, slide))
    kept, first = KeptMeasures(project), blocks_of(project)[0]
    pixels = np.asarray(project.labels.levels[0][WHOLE.slices]).copy()
    free = np.argwhere(pixels[:, 151:160] == 0)[0]
    pixels[free[0], 151 + free[1]] = pixels.max() + 1
    project.editor.paint(WHOLE, pixels)
    assert not kept.complete(first)


@pytest.mark.parametrize("harm", ["emptied", "cut", "a bit", "longer", "another's key"])
def test_a_damaged_file_is_measured_again(project, slide, harm):
    before = measured(project, slide)[0][1]
    path = file_of(project)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 4
    path.write_bytes(
        {
            "emptied": b"",
            "cut": whole[:-7],
            "a bit": bytes(flipped),
            "longer": whole + b"x",
            "another's key": whole[:16] + bytes(16) + whole[32:],
        }[harm]
    )
    assert not KeptMeasures(project).complete()
    after = measured(project, slide)[0][1]
    assert path.read_bytes() == whole
    for name in NAMES:
        np.testing.assert_array_equal(after[name], before[name])


def test_other_formulas_make_it_stale(project, slide, monkeypatch):
    measured(project, slide)
    monkeypatch.setattr("napari_nucleiseg.core.measurement.grid.VERSION", 0)
    assert not KeptMeasures(project).complete()


def test_another_pixel_size_makes_it_stale(project_of, slide, field, picture):
    one = project_of(slide, field)
    other = project_of(slide_of(picture, YX(0.5, 0.2501)), field, "other")
    measured(one, slide)
    (other.folder / FOLDER).mkdir()
    (other.folder / FOLDER / file_of(one).name).write_bytes(file_of(one).read_bytes())
    assert not KeptMeasures(other).complete()


def test_a_full_disk_is_said_and_leaves_no_half_file(project, slide, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("napari_nucleiseg.core.store.files.os.write", full)
    with pytest.raises(StoreError, match=r"is full\. Everything finished so far is kept"):
        list(measure(project, slide))
    assert list((project.folder / FOLDER).iterdir()) == []
    monkeypatch.undo()
    measured(project, slide)
    assert KeptMeasures(project).complete()


def test_a_folder_that_cannot_be_written_is_said(project, slide):
    (project.folder / FOLDER).write_text("no folder")
    with pytest.raises(StoreError, match="cannot be used"):
        list(measure(project, slide))


def test_what_a_killed_process_left_goes_and_what_others_write_stays(project, slide):
    folder = project.folder / FOLDER
    folder.mkdir()
    for name, age_s in (("1-1.part", 7200), ("2-2.part", 10)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    measured(project, slide)
    assert sorted(path.name for path in folder.iterdir()) == ["0-0.bin", "2-2.part"]


def test_a_source_for_tables_has_what_is_measured(project, slide):
    assert source_of_project(project).measures is None
    assert source_with_measures(project).measured_columns == COLUMNS
    assert source_for_export(project, "csv").measured_columns == ()
    measured(project, slide)
    assert source_for_export(project, "csv").measured_columns == COLUMNS
    assert source_for_export(project, "tif").measured_columns == ()
    part = source_with_measures(project).only_in(Region(0, 0, 100, 100))
    table = part.nuclei_in(WHOLE)
    assert 0 < len(table) < 90
    assert tuple(part.measured(table)) == NAMES
    assert np.isfinite(part.measured(table)["perimeter_um"]).all()


def test_nuclei_of_a_table_that_is_older_than_the_project_have_no_values(project, slide, field):
    old = project.nuclei_in(WHOLE)
    project.editor.paint(WHOLE, np.where(field == 200, field, 0).astype(np.uint32))
    measured(project, slide)
    found = KeptMeasures(project).of(old)["solidity"]
    assert np.isfinite(found).sum() <= 1


def test_two_projects_of_one_slide_do_not_share(project, slide, tmp_path, field):
    measured(project, slide)
    with Project.create(tmp_path / "b.nucleiseg", slide) as other:
        other.write_tile(tile_of_labels(field, slide.mpp_um), "nuclei@1", "")
        assert not KeptMeasures(other).complete()


def recoloured(project):
    """The nuclei, one of them a row of pixels smaller."""
    pixels = np.asarray(project.labels.levels[0][WHOLE.slices]).copy()
    number = pixels[101, 101]
    pixels[109][pixels[109] == number] = 0
    return pixels


def test_whoever_looks_on_measures_what_the_writer_has_changed(project, slide):
    with Project.open(project.folder, slide, writable=False) as looked_at:
        measured(looked_at, slide)
        project.editor.paint(WHOLE, recoloured(project))
        kept = dict(measured(looked_at, slide)[0][1])
    true = next(measure(project, slide, keep=False)).values
    for name in NAMES:
        np.testing.assert_array_equal(kept[name], true[name])
    assert KeptMeasures(project).complete()


def test_a_block_is_not_read_in_the_middle_of_a_change(project, slide, monkeypatch):
    """The table is changed before the image is."""
    begun, apply = threading.Event(), project.labels.apply

    def slowly(*arguments):
        begun.set()
        time.sleep(0.3)
        apply(*arguments)

    monkeypatch.setattr(project.labels, "apply", slowly)
    painter = threading.Thread(target=project.editor.paint, args=(WHOLE, recoloured(project)))
    painter.start()
    assert begun.wait(10)
    kept = measured(project, slide)[0][1]
    painter.join()
    true = next(measure(project, slide, keep=False)).values
    for name in NAMES:
        np.testing.assert_array_equal(kept[name], true[name])


def test_what_another_process_changes_all_the_time_is_measured_and_not_kept(project, slide, monkeypatch):
    with Project.open(project.folder, slide, writable=False) as looked_at:
        versions = itertools.count()
        monkeypatch.setattr(BlockLoader, "_written", lambda _self: next(versions))
        ((table, values),) = measured(looked_at, slide)
    assert len(values["solidity"]) == len(table) > 50
    assert not KeptMeasures(project).complete()
