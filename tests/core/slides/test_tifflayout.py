"""Which pages of a TIFF become the levels, whatever their order."""

import numpy as np
import pytest
import tifffile
from slide_files import smaller, tissue

from napari_nucleiseg.core.slides.registry import open_slide

TILED = {"photometric": "rgb", "tile": (128, 128), "metadata": None}


def written(path, *pages):
    """A file of pages as `(image, options of tifffile)`, opened."""
    with tifffile.TiffWriter(path) as file:
        for image, options in pages:
            file.write(image, **{"photometric": "rgb", "metadata": None, **options})
    return open_slide(path)


@pytest.mark.parametrize(
    ("thumbnail", "options"),
    [(smaller(tissue(), 8), {}), (smaller(tissue(), 8)[:60], {"tile": (64, 64)})],
    ids=["strips", "tiles of another aspect"],
)
def test_a_thumbnail_before_the_slide_is_no_slide(tmp_path, thumbnail, options):
    slide = written(tmp_path / "a.tif", (thumbnail, options), (tissue(), TILED))
    assert np.array_equal(np.asarray(slide.levels[0]), tissue())
    assert np.array_equal(slide.associated["thumbnail"](), thumbnail)


def test_levels_that_come_coarsest_first_are_all_kept(tmp_path):
    slide = written(tmp_path / "a.tif", *[(smaller(tissue(), factor), TILED) for factor in (4, 2, 1)])
    assert [factor.y for factor in slide.downsamples] == [1, 2, 4]
    assert np.array_equal(np.asarray(slide.levels[0]), tissue())


def test_a_tiled_macro_that_is_larger_than_the_slide_is_not_taken_for_it(tmp_path):
    slide = written(
        tmp_path / "a.tif",
        (tissue(400, 500), {**TILED, "description": "macro 500x400"}),
        (tissue(300, 350), TILED),
        (smaller(tissue(300, 350), 2), TILED),
    )
    assert [level.shape[:2] for level in slide.levels] == [(300, 350), (150, 175)]
    assert np.array_equal(slide.associated["macro"](), tissue(400, 500))
