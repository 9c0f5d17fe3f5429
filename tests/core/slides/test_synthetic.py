import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label, regionprops_table

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.phantom import Phantom, pitch_for_density
from napari_nucleiseg.core.slides.pyramid import LevelArray
from napari_nucleiseg.core.slides.synthetic import synthetic_slide

MIDDLE = Region(49_000, 51_000, 1100, 900)


@pytest.fixture(scope="module")
def slide():
    return synthetic_slide()


@pytest.fixture(scope="module")
def small():
    return synthetic_slide(1100, 800, seed=3, glass=False)


@pytest.fixture(scope="module")
def small_pixels(small):
    return np.asarray(small.levels[0])


def test_levels_halve_exactly_down_to_a_small_one(slide):
    assert [level.shape for level in slide.levels[:3]] == [
        (100_000, 100_000, 3),
        (50_000, 50_000, 3),
        (25_000, 25_000, 3),
    ]
    assert max(slide.levels[-1].shape) <= 1024
    assert [factor.y for factor in slide.downsamples] == [2.0**k for k in range(len(slide.levels))]
    assert all(isinstance(level, LevelArray) for level in slide.levels)
    assert slide.objective_power == 20


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_pixels_do_not_depend_on_what_is_read_together(small_pixels, data):
    height, width = small_pixels.shape[:2]
    y0, y1 = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    x0, x1 = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    fresh = synthetic_slide(1100, 800, seed=3, glass=False)
    assert np.array_equal(fresh.levels[0][y0:y1, x0:x1], small_pixels[y0:y1, x0:x1])
    fresh.close()


@settings(max_examples=15, deadline=None)
@given(y=st.integers(-40, 1000), x=st.integers(-40, 800), height=st.integers(1, 600), width=st.integers(1, 600))
def test_labels_do_not_depend_on_what_is_asked_together(small, y, x, height, width):
    whole = np.zeros((1700, 1500), np.int32)
    whole[50:1150, 50:850] = small.truth_labels(small.region)
    region = Region(y, x, height, width)
    assert np.array_equal(small.truth_labels(region), whole[y + 50 : y + 50 + height, x + 50 : x + 50 + width])


def test_ids_are_unique_and_every_nucleus_is_one_piece_apart_from_all_others(slide):
    labels = slide.truth_labels(MIDDLE)
    pieces, count = label(labels > 0, return_num=True, connectivity=2)
    assert count == len(np.unique(labels)) - 1 > 500
    pairs = np.unique(np.stack([labels.ravel(), pieces.ravel()]), axis=1)
    assert pairs.shape[1] == count + 1


@pytest.mark.parametrize("touching", [0.0, 0.3])
def test_centroids_and_areas_are_those_of_the_drawn_labels(touching):
    slide = synthetic_slide(1600, 1600, 0.25, seed=5, touching=touching, glass=False)
    drawn = regionprops_table(slide.truth_labels(slide.region), properties=("label", "centroid", "area"))
    nuclei = slide.truth_nuclei(slide.region)
    assert np.array_equal(drawn["label"], slide.truth_ids(slide.region))
    apart = np.hypot(*(np.stack([drawn["centroid-0"], drawn["centroid-1"]], 1) - slide.truth_centroids(slide.region)).T)
    assert apart.max() < 0.25
    assert np.abs(drawn["area"] * 0.25**2 / nuclei.area_um2 - 1).mean() < 0.01


def test_every_centroid_of_a_partition_is_counted_once(slide):
    halves = [Region(49_000, 51_000, 1100, 401), Region(49_000, 51_401, 1100, 499)]
    parts = np.concatenate([slide.truth_ids(half) for half in halves])
    assert np.array_equal(np.sort(parts), slide.truth_ids(MIDDLE))


def test_a_20x_and_a_40x_scan_show_the_same_nuclei():
    coarse, fine = synthetic_slide(2000, 1800, 0.5), synthetic_slide(4000, 3600, 0.25)
    assert np.array_equal(coarse.truth_ids(coarse.region), fine.truth_ids(fine.region))
    assert np.allclose(
        (coarse.truth_centroids(coarse.region) + 0.5) * 0.5, (fine.truth_centroids(fine.region) + 0.5) * 0.25
    )
    box = Region(800, 700, 300, 300)
    halved = fine.read_region(Region(1600, 1400, 600, 600), (300, 300)).astype(float)
    assert np.abs(halved - coarse.read_region(box)).mean() < 8


def test_coarse_levels_show_what_the_fine_ones_do(slide):
    box = Region(49_152, 49_152, 4096, 4096)
    fine = slide.levels[0][box.slices].reshape(16, 256, 16, 256, 3).mean((1, 3))
    for index, factor in list(enumerate(slide.downsamples))[1:]:
        step = int(factor.y)
        if step > 256:
            break
        level = slide.levels[index][box.y // step : box.y1 // step, box.x // step : box.x1 // step].astype(float)
        edge = 256 // step
        means = level.reshape(16, edge, 16, edge, 3).mean((1, 3))
        assert np.abs(means - fine).mean() < 7, f"level {index}"


def test_nuclei_are_blue_on_pink_tissue_and_glass_is_white(slide):
    labels, pixels = slide.truth_labels(MIDDLE), slide.read_region(MIDDLE).astype(float)
    nuclear, other = pixels[labels > 0].mean(0), pixels[labels == 0].mean(0)
    assert nuclear[2] > nuclear[0] > nuclear[1]
    assert other[0] > other[2] > other[1]
    assert nuclear[0] < other[0] - 60
    corner = slide.levels[0][:64, :64]
    assert corner.min() > 230
    assert not slide.truth_labels(Region(0, 0, 64, 64)).any()


@pytest.mark.parametrize("density", [500, 4000, 8000])
def test_density_is_what_was_asked_for(density):
    pitch = pitch_for_density(float(density))
    counts = [len(Phantom(4000, 4000, pitch, seed, glass=False).nuclei(0, 0, 4000, 4000)) / 16 for seed in range(8)]
    assert np.mean(counts) == pytest.approx(density, rel=0.06)


def test_touching_nuclei_touch_and_keep_their_own_pixels():
    slide = synthetic_slide(1000, 1000, 0.5, touching=0.5, glass=False)
    labels = slide.truth_labels(slide.region)
    _, pieces = label(labels > 0, return_num=True, connectivity=2)
    ids = np.unique(labels)[1:]
    pairs = np.intersect1d(ids[ids % 2 == 1] + 1, ids)
    assert pairs.size > 50
    assert pieces == ids.size - pairs.size


def test_another_seed_is_another_tissue():
    assert not np.array_equal(
        synthetic_slide(300, 300, seed=1).levels[0][...], synthetic_slide(300, 300, seed=2).levels[0][...]
    )
    assert synthetic_slide(300, 300, seed=1).fingerprint != synthetic_slide(300, 300, seed=2).fingerprint


def test_only_what_is_read_is_drawn():
    huge = synthetic_slide(400_000, 400_000, 0.25)
    assert huge.levels[0][399_000:399_010, 200_000:200_010].shape == (10, 10, 3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"height": 0}, "cannot make a slide of 0 x 100000 px"),
        ({"density_per_mm2": 90_000}, "between 50 and 8,000, not 90000"),
        ({"touching": 2.0}, "between 0 and 1, not 2"),
        ({"density_per_mm2": 8000, "touching": 1.0}, "do not fit"),
        ({"height": 1_000_000, "width": 1_000_000, "mpp_um": 1.0}, "make it smaller"),
    ],
)
def test_what_cannot_be_made_is_refused_with_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        synthetic_slide(**arguments)
