"""Which nuclei are scored by words: the ones that the panel counts there, with what is seen of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.fewshot.clip import load_clip
from napari_nucleiseg.core.fewshot.crops import Crops
from napari_nucleiseg.core.fewshot.text_options import TextOptions
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.nuclei import TileNuclei
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.viewer.by_text_engine import NO_NUCLEI, ByTextEngine
from napari_nucleiseg.viewer.counting import count_polygon
from tiny_clip import write_clip
from unlabelled_parts import tissue_picture, write_slide

SIDE = 512
# The second lies mostly under the first; what is seen of it is all beyond 200, its centroid is not.
FIRST, COVERED, FAR = (150, 180), (150, 197), (400, 400)


def disc(centre, radius):
    """Pixels of a disc, ``(n, 2)``."""
    yy, xx = np.mgrid[:SIDE, :SIDE]
    return np.argwhere((yy - centre[0]) ** 2 + (xx - centre[1]) ** 2 <= radius**2)


def found(tile, *nuclei):
    """Nuclei of one tile that covers all of the slide; each its pixels, ``(n, 2)``."""
    labels = np.zeros((SIDE, SIDE), np.int32)
    for number, pixels in enumerate(nuclei, start=1):
        labels[tuple(pixels.T)] = number
    return TileNuclei(
        tile_index=tile,
        core=Region(0, 0, SIDE, SIDE),
        box=Region(0, 0, SIDE, SIDE),
        labels=labels,
        centroids=np.array([pixels.mean(0) for pixels in nuclei]),
        areas_um2=np.array([len(pixels) / 4 for pixels in nuclei], np.float32),
        boxes=np.array([(*pixels.min(0), *(pixels.max(0) + 1)) for pixels in nuclei], np.int64),
        scores=np.full(len(nuclei), 0.9, np.float32),
    )


@pytest.fixture
def opened(tmp_path):
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_picture(1, SIDE)))
    with Project.create(tmp_path / "a.nucleiseg", slide) as project:
        project.write_tile(found(0, disc(FIRST, 20)), "m@1", "key")
        project.write_tile(found(1, disc(COVERED, 12), disc(FAR, 9)), "m@1", "key")
        yield SimpleNamespace(slide=slide, project=project)
    slide.close()


def corners(region):
    return np.array([[region.y, region.x], [region.y, region.x1], [region.y1, region.x1], [region.y1, region.x]], float)


@pytest.mark.parametrize(("right", "count"), [(180, 0), (181, 1), (200, 2), (SIDE, 3)])
def test_the_nuclei_that_the_panel_counts_are_scored(opened, right, count):
    polygon = corners(Region(0, 0, SIDE, right))
    assert count_polygon(opened.project, opened.slide, polygon).nuclei == count
    if not count:
        with pytest.raises(DataError, match=NO_NUCLEI):
            ByTextEngine.look(opened, polygon)
        return
    look = ByTextEngine.look(opened, polygon)
    table = opened.project.nuclei_in(Region(0, 0, SIDE, right))
    assert look.ids.tolist() == [0, *table.ids.tolist()]
    shown = opened.project.labels.read(look.region)
    np.testing.assert_array_equal(look.ids[look.labels], np.where(np.isin(shown, table.ids), shown, 0))


def test_what_is_seen_of_a_covered_nucleus_lies_elsewhere(opened):
    covered = int(opened.project.nuclei_in(opened.slide.region).ids[1])
    _ys, xs = np.nonzero(opened.project.labels.read(opened.slide.region) == covered)
    assert len(xs) > 0
    assert xs.mean() > 200


def test_nuclei_are_seen_in_their_shape_where_pixels_are_not_square(tmp_path, monkeypatch):
    slide = replace(open_slide(write_slide(tmp_path / "a.tif", tissue_picture(1, SIDE))), mpp_um=YX(0.5, 0.25))
    # Round by micrometres: twice as many columns as rows.
    yy, xx = np.mgrid[:SIDE, :SIDE]
    nucleus = np.argwhere((2 * (yy - 200)) ** 2 + (xx - 200) ** 2 <= 30**2)
    seen, alone = [], Crops.alone
    monkeypatch.setattr(Crops, "alone", lambda *a: seen.append(alone(*a)) or seen[-1])
    with Project.create(tmp_path / "a.nucleiseg", slide) as project:
        project.write_tile(found(0, nucleus), "m@1", "key")
        look = ByTextEngine.look(SimpleNamespace(slide=slide, project=project), corners(slide.region))
        clip = load_clip(write_clip(tmp_path / "tiny"))
        prompts = {"dark": ["dark"], "pale": ["pale"]}
        *_, last = ByTextEngine.score(look, prompts, clip, TextOptions(), "cpu")
    slide.close()
    assert len(last.scores) == 1
    (crop,) = seen
    assert np.mean((crop == crop[0, 0]).all(axis=2)) == pytest.approx(1 - np.pi / 4, abs=0.06)
