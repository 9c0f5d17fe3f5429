import numpy as np
import pytest
import tifffile

from alias_svs import alias_svs
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.registry import open_slide


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("alias") / "small.svs"
    return alias_svs(path, 5000, 6300, block=1024, mpp_um=0.5)


def test_tifffile_and_openslide_agree_on_it(small):
    openslide = pytest.importorskip("openslide")
    with tifffile.TiffFile(small.path) as file:
        assert file.is_svs
        assert [level.shape for level in file.series[0].levels] == [(5000, 6300, 3), (1250, 1575, 3)]
        pixels = file.series[0].levels[1].asarray()
    with openslide.OpenSlide(small.path) as slide:
        assert slide.level_dimensions == ((6300, 5000), (1575, 1250))
        assert slide.properties["openslide.mpp-x"] == "0.5"
        assert set(slide.associated_images) == {"label", "macro", "thumbnail"}
        other = np.asarray(slide.read_region((0, 0), 1, (1575, 1250)))[..., :3]
    assert np.abs(pixels.astype(int) - other).max() <= 2


def test_it_shows_the_tissue_that_its_truth_describes(small):
    slide = open_slide(small.path)
    assert slide.mpp_um == pytest.approx((0.5, 0.5))
    region = Region(900, 1900, 1300, 1500)
    pixels, labels = slide.read_region(region).astype(float), small.labels(region)
    assert pixels[labels > 0].mean() < pixels[labels == 0].mean() - 40
    blocks = small.tissue.repeat(1024, 0).repeat(1024, 1)
    glass = slide.levels[0][: blocks.shape[0], : blocks.shape[1]][~blocks]
    assert glass.min() > 235
    assert (slide.levels[0][4200:4300, :100] > 235).all()
    slide.close()


def test_every_nucleus_is_counted_once(small):
    whole = small.centroids(Region(0, 0, *small.shape))
    assert len(whole) == small.count > 5000
    parts = [small.centroids(Region(y, x, 777, 901)) for y in range(0, 5000, 777) for x in range(0, 6300, 901)]
    assert sum(map(len, parts)) == small.count
    assert np.allclose(np.sort(np.concatenate(parts), axis=0), np.sort(whole, axis=0))
    region = Region(1000, 1000, 1200, 1200)
    labels = small.labels(region)
    at = np.rint(small.centroids(region) - (region.y, region.x)).astype(int)
    at = at[((at >= 0) & (at < 1200)).all(axis=1)]
    own = labels[at[:, 0], at[:, 1]]
    assert (own > 0).all()
    assert np.unique(own).size == own.size


def test_a_huge_slide_is_a_small_file(tmp_path):
    huge = alias_svs(tmp_path / "huge.svs", 100_000, 100_000, block=1024, full=True)
    assert huge.path.stat().st_size < 6e6
    assert huge.count == 97 * 97 * huge.block.truth_ids(huge.block.region).size
    slide = open_slide(huge.path)
    assert slide.shape == (100_000, 100_000)
    last = slide.levels[0][97 * 1024 - 300 : 97 * 1024, 97 * 1024 - 300 : 97 * 1024]
    assert last.mean() < 225
    slide.close()


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be a multiple of 1024"):
        alias_svs(tmp_path / "x.svs", 5000, 5000, block=1000)
