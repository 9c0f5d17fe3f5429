"""The nuclei of a project are measured once each, whole, whatever the blocks; what cannot be is said."""

import numpy as np
import pytest
from measured_parts import blobs, slide_of
from skimage.measure import regionprops_table

from broken_levels import broken_above
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.measurement.columns import COLUMNS, NAMES, STAIN
from napari_nucleiseg.core.measurement.grid import blocks_of, place_of
from napari_nucleiseg.core.measurement.kept import FOLDER, KeptMeasures
from napari_nucleiseg.core.measurement.measure import measure
from napari_nucleiseg.core.slides.pyramid import DamagedTile
from napari_nucleiseg.core.store.project import Project


def by_id(blocks):
    """Return the values of each nucleus, and check that each came once."""
    ids = np.concatenate([block.table.ids for block in blocks])
    values = np.concatenate([np.stack([block.values[name] for name in NAMES], axis=1) for block in blocks])
    assert len(np.unique(ids)) == len(ids)
    return dict(zip(ids.tolist(), values, strict=True))


@pytest.fixture
def slide(picture):
    return slide_of(picture)


@pytest.fixture
def project(project_of, slide, field):
    return project_of(slide, field)


def test_every_nucleus_is_measured_with_its_own_pixels(project, slide, field):
    found = by_id(list(measure(project, slide)))
    labels = np.asarray(project.labels.levels[0][0:300, 0:400])
    ids = np.unique(labels[labels > 0])
    assert sorted(found) == ids.tolist()
    assert len(ids) == len(np.unique(field[field > 0]))
    dense = (np.searchsorted(ids, labels) + 1) * (labels > 0)
    there = regionprops_table(dense, properties=("eccentricity", "solidity", "axis_major_length"), spacing=(0.5, 0.25))
    columns = dict(zip(NAMES, np.stack([found[number] for number in ids.tolist()]).T, strict=True))
    np.testing.assert_allclose(columns["major_axis_um"], there["axis_major_length"], rtol=1e-5)
    np.testing.assert_allclose(columns["eccentricity"], there["eccentricity"], atol=1e-5)
    np.testing.assert_allclose(columns["solidity"], there["solidity"], rtol=1e-6)


@pytest.mark.parametrize("side", [37, 100, 301])
def test_blocks_of_any_size_give_the_same(project, slide, side, monkeypatch):
    whole = by_id(list(measure(project, slide, keep=False)))
    monkeypatch.setattr("napari_nucleiseg.core.measurement.grid.BLOCK_PX", side)
    blocks = list(measure(project, slide, keep=False))
    assert len(blocks) > 1 or side > 300
    parted = by_id(blocks)
    assert parted.keys() == whole.keys()
    for number, values in whole.items():
        np.testing.assert_array_equal(parted[number], values)


def test_a_nucleus_across_a_border_of_blocks_is_measured_once(project_of):
    labels = np.zeros((2100, 2100), np.int32)
    labels[2040:2060, 2040:2061], labels[10:20, 10:20] = 1, 2
    slide = slide_of(np.full((2100, 2100, 3), 120, np.uint8), YX(0.25, 0.25))
    project = project_of(slide, labels)
    assert blocks_of(project) == (Region(0, 0, 2048, 2048), Region(2048, 2048, 52, 52))
    found = list(measure(project, slide))
    assert [len(block.table) for block in found] == [1, 1]
    assert [(block.done, block.total) for block in found] == [(1, 2), (2, 2)]
    assert found[1].values["perimeter_um"][0] == pytest.approx(2 * (19 + 20) * 0.25)
    assert found[1].values["solidity"][0] == 1


def test_the_order_of_blocks_does_not_matter(project, slide, monkeypatch):
    monkeypatch.setattr("napari_nucleiseg.core.measurement.grid.BLOCK_PX", 100)
    whole = by_id(list(measure(project, slide, keep=False)))
    backwards = list(measure(project, slide, blocks=blocks_of(project)[::-1]))
    assert by_id(backwards).keys() == whole.keys()
    assert backwards[0].region.y > backwards[-1].region.y
    found = by_id(backwards)
    for number, values in whole.items():
        np.testing.assert_array_equal(found[number], values)


def test_only_the_nuclei_of_a_region_come_out_with_all_their_neighbours(project, slide):
    whole, region = by_id(list(measure(project, slide))), Region(50, 50, 100, 120)
    found = by_id(list(measure(project, slide, region)))
    assert sorted(found) == project.nuclei_in(region).ids.tolist()
    assert 0 < len(found) < len(whole)
    for number, values in found.items():
        np.testing.assert_array_equal(whole[number], values)
    assert blocks_of(project, Region(5000, 0, 10, 10)) == ()
    assert list(measure(project, slide, Region(5000, 0, 10, 10))) == []


def test_a_slide_without_nuclei_has_no_blocks(project_of, slide):
    project = project_of(slide, np.zeros((300, 400), np.int32))
    assert blocks_of(project) == ()
    assert list(measure(project, slide)) == []
    assert KeptMeasures(project).complete()


def test_a_block_that_has_become_empty_has_no_rows(project, slide):
    block = blocks_of(project)[0]
    project.editor.paint(Region(0, 0, 300, 400), np.zeros((300, 400), np.uint32))
    (found,) = measure(project, slide, blocks=[block])
    assert len(found.table) == 0
    assert all(len(found.values[name]) == 0 for name in NAMES)


def test_a_project_that_another_process_writes_can_be_measured(project, slide):
    with Project.open(project.folder, slide, writable=False) as looked_at:
        found = by_id(list(measure(looked_at, slide)))
    assert found.keys() == by_id(list(measure(project, slide))).keys()
    assert KeptMeasures(project).complete()


def test_whoever_cancels_keeps_what_was_measured(project, slide, monkeypatch):
    monkeypatch.setattr("napari_nucleiseg.core.measurement.grid.BLOCK_PX", 100)
    seen = []
    seen.extend(measure(project, slide, cancelled=lambda: len(list((project.folder / FOLDER).glob("*.bin"))) == 2))
    assert len(seen) == 2
    assert seen[0].total > 2
    assert len(list((project.folder / FOLDER).glob("*.bin"))) == 2


def test_another_slide_is_refused(project, picture):
    with pytest.raises(DataError, match=r"is not the slide of .*Open that slide to measure its nuclei"):
        next(measure(project, slide_of(picture, fingerprint="another")))
    with pytest.raises(DataError, match="is not the slide"):
        next(measure(project, slide_of(picture[:200], fingerprint="")))


def test_stain_of_what_cannot_be_decoded_is_not_measured(project, slide):
    slide.damage.append(DamagedTile(Region(0, 0, 60, 60), "broken"))
    (found,) = measure(project, slide)
    boxes = found.table.boxes
    touched = (boxes[:, 0] < 60) & (boxes[:, 1] < 60)
    assert 0 < touched.sum() < len(touched)
    for column in COLUMNS:
        if column in STAIN and column.name != "haematoxylin_gradient_per_um":
            np.testing.assert_array_equal(np.isnan(found.values[column.name]), touched, column.name)
    assert np.isfinite(found.values["perimeter_um"]).all()


def test_stain_is_measured_where_only_a_coarser_level_cannot_be_decoded(project, slide):
    whole = by_id(list(measure(project, slide, keep=False)))
    found = by_id(list(measure(project, broken_above(slide), keep=False)))
    assert found.keys() == whole.keys()
    for number, values in whole.items():
        np.testing.assert_array_equal(found[number], values)


def test_blocks_must_be_those_of_the_grid():
    assert place_of(Region(2048, 4096, 2048, 100)) == (1, 2)
    for wrong in (Region(5, 0, 100, 100), Region(0, 0, 4096, 2048)):
        with pytest.raises(ValueError, match="no block of the grid"):
            place_of(wrong)


def test_blobs_of_the_tests_touch():
    labels = blobs((300, 400), 90)
    below = (labels[1:] != labels[:-1]) & (labels[1:] > 0) & (labels[:-1] > 0)
    assert below.sum() > 50
