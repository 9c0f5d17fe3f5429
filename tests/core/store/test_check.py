"""Checking finds what is wrong between files and table, and repairs it."""

from pathlib import Path

import numpy as np
import pytest
from fields import Grid, assert_pyramid, blank_slide, expected_image, random_tiles, whole

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.labels import PER_SIDE
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.shards import ChunkFiles

SHAPE = (1200, 1200)
GRID = Grid(SHAPE, 300)


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "p", blank_slide(*SHAPE)) as project:
        for tile in random_tiles(1, GRID, n=300):
            project.write_tile(tile, "m", "a")
        project.flush()
        project.labels.chunks.forget()
        yield project


def mended(project):
    """Repair, do again what counts as undone, and compare with what must come out."""
    report = check(project, repair=True)
    assert report.repaired
    assert check(project).is_sound
    tiles = random_tiles(1, GRID, n=300)
    for tile in tiles:
        if tile.tile_index not in project.tiles_done("m", "a"):
            project.write_tile(tile, "m", "a")
    np.testing.assert_array_equal(whole(project)[0], expected_image(tiles, SHAPE)[0])
    assert_pyramid(project)
    assert project.count_in(Region(0, 0, *SHAPE)) == len(whole(project)[1])
    return report


def test_a_sound_project_is_found_sound(project):
    report = check(project)
    assert report.is_sound
    assert report.nuclei == project.count_in(Region(0, 0, *SHAPE))
    with Project.open(project.folder, writable=False) as reader:
        assert check(reader) == report


def test_a_wrong_pyramid_is_found_and_rebuilt(project):
    chunks = project.labels.chunks
    chunks.discard((1, 1, 1))
    chunks.write(2, 0, 0, np.full((300, 300), 77, np.uint32), 0)
    chunks.flush()
    chunks.forget()
    before = project.tiles_done("m", "a")
    assert set(check(project).wrong_chunks) == {(1, 1, 1), (2, 0, 0)}
    report = mended(project)
    assert set(report.wrong_chunks) == {(1, 1, 1), (2, 0, 0)}
    assert project.tiles_done("m", "a") == before


def test_ids_that_no_table_knows_are_cleared(project):
    project.labels.apply(Region(0, 0, 3, 3), np.full((3, 3), 2**31 + 5, np.uint32), 0)
    assert check(project).unknown_ids == (2**31 + 5,)
    check(project, repair=True)
    assert check(project).is_sound


def test_nuclei_without_a_pixel_go_and_their_tiles_are_undone(project):
    table = whole(project)[1]
    gone = int(table.ids[5])
    image = whole(project)[0]
    project.labels.apply(project.labels.whole, np.where(image == gone, 0, image).astype(np.uint32), 0)
    assert check(project).unseen_ids == (gone,)
    assert mended(project).unseen_ids == (gone,)


def test_a_damaged_file_costs_only_its_tiles(project):
    path = Path(project.labels.chunks.path((0, 1, 1)))
    path.write_bytes(path.read_bytes()[:100])
    report = mended(project)
    assert report.damaged_files == (str(Path("labels.zarr", "0", "c", "0", "0")),)


def test_a_damaged_part_of_a_file_costs_only_its_tiles(project):
    path = Path(project.labels.chunks.path((0, 1, 1)))
    files = ChunkFiles(project.labels.root, PER_SIDE, path.parent)
    part, whole_file = files.load((0, 1, 1)), path.read_bytes()
    at = whole_file.index(part)
    path.write_bytes(whole_file[:at] + bytes(len(part)) + whole_file[at + len(part) :])
    done = project.tiles_done("m", "a")
    report = check(project, repair=True)
    assert report.damaged_files == (str(Path("labels.zarr", "0", "c", "0", "0")),)
    assert 0 < len(done - project.tiles_done("m", "a")) < len(GRID)
    assert mended(project).is_sound


def test_a_lost_part_of_a_file_is_noticed_by_its_nuclei(project):
    project.labels.chunks.discard((0, 1, 0))
    report = check(project, repair=True)
    assert len(report.unseen_ids) > 10
    assert len(project.tiles_done("m", "a")) < len(GRID)
    assert check(project).is_sound
