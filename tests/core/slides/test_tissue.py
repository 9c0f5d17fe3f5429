import numpy as np
import pytest
import tifffile
from skimage.measure import regionprops

from broken_levels import broken_above
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import DamagedTile, Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.sample import tissue_slide
from napari_nucleiseg.core.slides.synthetic import synthetic_slide
from napari_nucleiseg.core.slides.tissue import TissueMask, find_tissue, tissue_mask

PIXEL = YX(8.0, 8.0)
PINK, GLASS, BLUE = (225, 170, 205), (243, 242, 244), (120, 100, 170)


def picture_slide(picture, **facts):
    facts = {"mpp_um": YX(0.5, 0.5), **facts}
    return Slide(path="picture", levels=(picture,), downsamples=(YX(1, 1),), **facts)


def plain(shape, colour, noise=0):
    values = np.full((*shape, 3), colour, float)
    values += np.random.default_rng(0).normal(0, noise, values.shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def test_glass_alone_is_no_tissue():
    assert not find_tissue(plain((300, 400), GLASS, noise=2), PIXEL).any()
    assert not find_tissue(plain((300, 400), (218, 219, 217), noise=1), PIXEL).any()


@pytest.mark.parametrize("colour", [PINK, (235, 212, 226), (216, 196, 208), BLUE, (90, 60, 40)])
def test_a_picture_full_of_tissue_is_tissue_everywhere(colour):
    picture = plain((200, 200), colour, noise=6)
    picture[40:44, 40:44] = BLUE
    picture[10:16, 100:120] = 245
    assert find_tissue(picture, PIXEL).all()


def test_tissue_on_glass_is_found_with_a_margin_and_without_its_small_holes():
    picture = plain((200, 200), GLASS, noise=1)
    picture[50:100, 60:140] = PINK
    picture[70:76, 80:86] = GLASS
    mask = find_tissue(picture, PIXEL)
    assert mask[47:103, 60:140].all()
    assert mask[50:100, 57:143].all()
    assert not mask[:40].any()
    assert not mask[:, 155:].any()
    picture[55:95, 65:135] = GLASS
    assert not find_tissue(picture, PIXEL)[75, 100]


def test_a_lone_nucleus_stays_and_grey_dust_goes():
    picture = plain((200, 200), GLASS, noise=1)
    picture[50, 50] = (190, 180, 215)
    picture[150, 150] = (150, 150, 150)
    mask = find_tissue(picture, PIXEL)
    assert mask[50, 50]
    assert not mask[150, 150]


def test_white_padding_beside_the_scan_does_not_hide_what_glass_looks_like():
    picture = plain((200, 200), (226, 225, 228), noise=1)
    picture[:, :120] = 255
    picture[60:90, 140:170] = PINK
    mask = find_tissue(picture, PIXEL)
    assert mask[60:90, 140:170].all()
    assert mask.mean() < 0.06


def test_parts_that_were_painted_black_are_no_tissue():
    picture = plain((200, 200), GLASS, noise=1)
    picture[:100, :100] = 0
    assert find_tissue(picture, PIXEL)[:90, :90].mean() < 0.01


def test_regions_are_looked_up_in_level_0_pixels():
    mask = np.zeros((10, 20), bool)
    mask[2, 3] = True
    tissue = TissueMask(mask, YX(16.0, 16.0))
    assert tissue.covers(Region(47, 63, 1, 1))
    assert not tissue.covers(Region(0, 0, 32, 400))
    assert tissue.covers(Region(0, 0, 33, 400))
    assert tissue.fraction(Region(32, 48, 16, 32)) == 0.5
    assert not tissue.covers(Region(1000, 1000, 50, 50))
    assert tissue.fraction(Region(0, 0, 0, 9)) == 0.0
    assert tissue.tissue_fraction == 1 / 200


def test_no_known_nucleus_of_a_synthetic_slide_lies_outside():
    slide = synthetic_slide(9000, 7000, 0.5, seed=4)
    tissue = tissue_mask(slide)
    centroids = np.rint(slide.truth_centroids(slide.region)).astype(int)
    assert len(centroids) > 20_000
    at = (centroids / tissue.downsample).astype(int)
    assert tissue.mask[at[:, 0], at[:, 1]].all()
    assert 0.4 < tissue.tissue_fraction < 0.8
    assert not tissue.covers(Region(0, 0, 500, 500))


def test_a_huge_slide_is_read_coarsely():
    tissue = tissue_mask(synthetic_slide())
    assert tissue.mask.size <= 8_000_000
    assert tissue.covers(Region(50_000, 50_000, 512, 512))
    assert not tissue.covers(Region(0, 0, 2048, 2048))


def test_without_a_pixel_size_it_works_all_the_same():
    picture = plain((2048, 2048), GLASS, noise=1)
    picture[500:1500, 500:1500] = PINK
    tissue = tissue_mask(picture_slide(picture, mpp_um=None))
    assert tissue.covers(Region(600, 600, 800, 800))
    assert not tissue.covers(Region(0, 0, 200, 200))


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (512, 512)])
def test_pictures_of_any_size_work(shape):
    tissue = tissue_mask(picture_slide(plain(shape, PINK, noise=3)))
    assert tissue.mask.all()
    assert tissue.covers(Region(0, 0, *shape))


def test_outside_the_bounds_of_the_scan_there_is_no_tissue():
    slide = picture_slide(plain((2000, 2000), PINK, noise=3), bounds=Region(0, 0, 1000, 2000))
    assert not tissue_mask(slide).covers(Region(1040, 0, 900, 2000))
    assert tissue_mask(slide).covers(Region(900, 0, 50, 50))


def test_no_labelled_nucleus_of_the_mosaic_lies_outside(shared_data):
    folder = shared_data / "wsi_mosaic_dev"
    labels = tifffile.imread(folder / "tnbc_dev_mosaic_40x_labels.tif")
    for name in ("tnbc_dev_mosaic_40x.tiff", "tnbc_dev_mosaic_40x.ome.tif"):
        slide = open_slide(folder / name)
        tissue = tissue_mask(slide)
        outside = np.setdiff1d(labels, labels[enlarged(tissue, labels.shape)])
        assert outside.size <= 1
        assert outside.sum() == 0
        slide.close()


def test_no_labelled_nucleus_of_a_single_field_lies_outside(shared_data):
    lost = total = 0
    for folder in ("tnbc_dev", "nucls15"):
        for path in sorted((shared_data / folder / "images").glob("*.png")):
            labels = tifffile.imread(shared_data / folder / "labels" / f"{path.stem}.tif")
            slide = open_slide(path, mpp_um=0.25)
            kept = enlarged(tissue_mask(slide), labels.shape)
            centres = [region.coords[len(region.coords) // 2] for region in regionprops(labels.astype(np.int32))]
            total += len(centres)
            lost += sum(not kept[y, x] for y, x in centres)
            slide.close()
    assert total > 2000
    assert lost == 0


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("cmu-1-small-region.svs", 0.35, 0.6),
        ("tcga-cr-7395-01a-01-ts1.svs", 0.6, 0.75),
        ("OS-1-detail.ome.tif", 1.0, 1.0),
    ],
)
def test_real_slides_have_the_tissue_that_one_sees(shared_data, name, least, most):
    slide = open_slide(shared_data / "wsi" / name)
    assert least <= tissue_mask(slide).tissue_fraction <= most
    slide.close()


def enlarged(tissue, shape):
    rows = (np.arange(shape[0]) / tissue.downsample.y).astype(int)
    columns = (np.arange(shape[1]) / tissue.downsample.x).astype(int)
    return tissue.mask[rows[:, None], columns[None, :]]


def test_what_a_coarse_level_cannot_show_counts_as_tissue_and_what_level_0_lacks_does_not():
    picture = plain((400, 400), GLASS, noise=1)
    picture[100:300, 100:300] = (150, 100, 60)
    slide = broken_above(picture_slide(picture))
    assert tissue_mask(slide).mask.all()
    assert tissue_mask(slide).brown == 0
    slide.bounds = Region(0, 0, 400, 200)
    assert tissue_mask(slide).tissue_fraction == pytest.approx(0.5, abs=0.02)
    white = picture_slide(np.full_like(picture, 255))
    white.damage.append(DamagedTile(white.region, "its bytes are gone"))
    assert not tissue_mask(white).mask.any()


def test_brown_tissue_is_told_from_pink_yellow_and_blue():
    for colour, brown in (((150, 100, 60), True), (PINK, False), (BLUE, False), ((225, 190, 195), False)):
        picture = plain((200, 200), GLASS, noise=1)
        picture[40:120, 40:120] = colour
        tissue = tissue_mask(picture_slide(picture))
        assert tissue.looks_immunostained == brown
        assert (tissue.brown > 0) == brown
    assert tissue_mask(picture_slide(plain((300, 400), GLASS, noise=2))).brown == 0


def test_the_sample_of_an_immunostain_is_brown_and_the_synthetic_slide_is_not():
    assert tissue_mask(tissue_slide()).looks_immunostained
    assert tissue_mask(synthetic_slide(4096, 4096)).brown < 0.001
