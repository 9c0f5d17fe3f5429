"""Clusters of a region become nuclei of the project: those of the region, whole, and nothing else changes."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from dark_model import RADIUS_PX, disc_centres, disc_picture
from napari_nucleiseg.core.batch.clustered import LARGEST_PX, MARGIN_PX, origin_of, read_picture, write_nuclei
from napari_nucleiseg.core.errors import DataError, MissingPixelSizeError, SlideError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project

SHAPE = (400, 640)
# Across the borders of discs and of the grid's tiles.
VIEW = Region(100, 250, 200, 330)
PALE, DARK = 3, 5


def save(path: Path, picture, mpp_um):
    per_cm = 1e4 / mpp_um
    tifffile.imwrite(path, picture, tile=(256, 256), resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")
    return path


@pytest.fixture(params=[0.5, 0.4], ids=str)
def slide(request, tmp_path):
    """The discs at three pixel sizes."""
    with_pixels = open_slide(str(save(tmp_path / "discs.tif", disc_picture(SHAPE), request.param)))
    yield with_pixels
    with_pixels.close()


@pytest.fixture
def project(tmp_path, slide):
    with Project.create(tmp_path / "project", slide) as made:
        yield made


def clusters(picture):
    """Dark pixels are one cluster, the others another."""
    return np.where(picture.image.mean(axis=2) < 128, DARK, PALE).astype(np.int16)


def made(project, picture, chosen=(DARK,)):
    parts = list(write_nuclei(project, picture, clusters(picture), chosen))
    assert [(part.done, part.total) for part in parts] == [(n + 1, len(parts)) for n in range(len(parts))]
    return sum(part.nuclei for part in parts)


def discs_in(region):
    return [centre for centre in disc_centres(SHAPE) if region.contains_point(*centre)]


def test_a_picture_has_a_margin_and_says_where_it_lies(slide):
    picture = read_picture(slide, VIEW)
    step = picture.plan.grid.downsample
    assert picture.region.contains(VIEW)
    assert picture.region.height <= VIEW.height + 2 * step.y
    assert picture.core_px.expand(MARGIN_PX) == picture.box_px
    assert picture.image.shape[:2] == (picture.box_px.height, picture.box_px.width)
    y, x = discs_in(VIEW)[0]
    at = round((y + 0.5) / step.y - 0.5) - picture.box_px.y, round((x + 0.5) / step.x - 0.5) - picture.box_px.x
    assert picture.image[at].mean() < 100


def test_every_disc_of_the_view_becomes_one_nucleus_and_none_elsewhere(slide, project):
    picture = read_picture(slide, VIEW)
    wanted = discs_in(picture.region)
    assert abs(made(project, picture) - len(wanted)) <= 2  # centres on the border
    nuclei = project.nuclei_in(slide.region)
    for y, x in discs_in(picture.region.expand(-RADIUS_PX)):
        assert np.hypot(*(nuclei.centroids - (y, x)).T).min() < 1
    area = np.pi * RADIUS_PX**2 * slide.require_mpp().y ** 2
    # Those on the border are whole too.
    assert np.abs(nuclei.areas_um2 / area - 1).max() < 0.35
    assert set(nuclei.origins) == {origin_of(clusters(picture), (DARK,))}


def test_the_same_again_changes_nothing_and_other_clusters_replace_it(slide, project):
    picture = read_picture(slide, VIEW)
    count = made(project, picture)
    before = project.labels.read(slide.region)
    assert made(project, picture) == count
    np.testing.assert_array_equal(project.labels.read(slide.region), before)
    made(project, picture, (PALE,))
    after = project.nuclei_in(slide.region)
    assert set(after.origins) == {origin_of(clusters(picture), (PALE,))}


def test_what_lies_outside_and_what_a_person_made_stays(slide, project):
    everywhere = read_picture(slide, slide.region)
    made(project, everywhere)
    outside = project.nuclei_in(slide.region)
    y, x = (int(value) for value in discs_in(VIEW.expand(-40))[0])
    drawn = project.editor.new_id()
    image = project.labels.read(Region(y - 6, x - 6, 12, 12))
    image[2:10, 2:10] = drawn
    project.editor.paint(Region(y - 6, x - 6, 12, 12), image)
    picture = read_picture(slide, VIEW)
    made(project, picture)
    now = project.nuclei_in(slide.region)
    assert drawn in now.ids
    np.testing.assert_array_equal(project.labels.read(Region(y - 4, x - 4, 8, 8)), drawn)
    beyond = picture.region.expand(2 * RADIUS_PX)
    left = {
        key for key, centre in zip(outside.ids, outside.centroids, strict=True) if not beyond.contains_point(*centre)
    }
    assert left <= set(now.ids)
    assert len(set(now.origins)) == 3  # the person, the whole, and the view
    project.editor.delete([drawn])
    project.editor.undo()
    assert drawn in project.nuclei_in(slide.region).ids


def test_what_is_too_large_says_how_far_to_zoom_in(slide):
    with pytest.raises(DataError, match=r"Zoom in \d+\.\d times"):
        read_picture(slide, slide.region, most_px=200 * 200)
    assert LARGEST_PX > 1024 * 1024


def test_what_lies_beside_the_slide_is_refused(slide):
    with pytest.raises(SlideError, match="beside the slide"):
        read_picture(slide, Region(5000, 5000, 100, 100))


def test_without_a_pixel_size_nothing_is_guessed(tmp_path):
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, disc_picture((128, 128)))
    slide = open_slide(str(path))
    with pytest.raises(MissingPixelSizeError):
        read_picture(slide, slide.region)
    slide.close()


def test_labels_of_another_size_are_refused(slide, project):
    picture = read_picture(slide, VIEW)
    with pytest.raises(DataError, match="do not fit"):
        next(write_nuclei(project, picture, np.zeros((3, 3), np.int16), (0,)))
