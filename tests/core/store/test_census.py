"""Tables and counts of regions agree with looking at every nucleus."""

import numpy as np
import pytest
from fields import Grid, blank_slide, disc, nuclei_of, random_tiles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.project import Project

SHAPE = (2300, 1900)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    grid = Grid(SHAPE, 400)
    with Project.create(tmp_path_factory.mktemp("census") / "p", blank_slide(*SHAPE)) as project:
        for tile in random_tiles(1, grid, n=800, largest=15):
            project.write_tile(tile, "m@1", "a")
        yield project


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(y=st.integers(-50, 2300), x=st.integers(-50, 1950), height=st.integers(0, 2500), width=st.integers(0, 2100))
def test_regions_hold_the_centroids_inside_them(project, y, x, height, width):
    region = Region(y, x, height, width)
    everything = project.nuclei_in(Region(0, 0, *SHAPE))
    inside = np.array([region.contains_point(*centroid) for centroid in everything.centroids])
    found = project.nuclei_in(region)
    np.testing.assert_array_equal(found.ids, everything.ids[inside])
    np.testing.assert_array_equal(found.boxes, everything.boxes[inside])
    assert project.count_in(region) == inside.sum()
    np.testing.assert_array_equal(np.unique(project.centroids_in(region), axis=0), np.unique(found.centroids, axis=0))
    assert len(project.centroids_in(region)) == len(found)


def test_columns_have_the_stated_shapes_and_types(project):
    table = project.nuclei_in(Region(0, 0, *SHAPE))
    n = len(table)
    assert n > 500
    assert (table.ids.dtype, table.centroids.shape, table.boxes.shape) == (np.uint32, (n, 2), (n, 4))
    assert (table.areas_um2.dtype, table.scores.dtype, table.classes.dtype) == (np.float32, np.float32, np.int32)
    assert set(table.origins) == {"m@1"}
    assert not table.approved.any()
    assert (np.diff(table.ids.astype(np.int64)) > 0).all()
    empty = project.nuclei_in(Region(5000, 5000, 10, 10))
    assert len(empty) == 0
    assert (empty.centroids.shape, empty.boxes.shape) == ((0, 2), (0, 4))


def test_counts_follow_every_change(fresh_project):
    project = fresh_project()
    grid, everything = Grid((600, 600), 200), Region(0, 0, 600, 600)
    for options in ("a", "b"):
        for tile in random_tiles(ord(options), grid):
            project.write_tile(tile, "m", options)
            assert project.count_in(everything) == len(project.nuclei_in(everything))
    project.write_tile(nuclei_of(4, grid.core(4), [disc(300, 300, 40)], (600, 600)), "m", "c")
    assert project.count_in(everything) == len(project.nuclei_in(everything))
    assert project.count_in(Region(300, 300, 1, 1)) == 1
    assert project.census.total() == project.count_in(everything)


def test_any_thread_may_ask_and_connections_do_not_pile_up(project):
    from threading import Thread

    region, found = Region(100, 100, 900, 900), []
    for _ in range(30):
        thread = Thread(target=lambda: found.append((project.count_in(region), len(project.nuclei_in(region)))))
        thread.start()
        thread.join()
    assert set(found) == {(project.count_in(region), project.count_in(region))}
    assert len(project.ledger._all) < 10
