"""Optical densities are those of scikit-image's colour deconvolution; texture is counted pixel by pixel."""

import numpy as np
import pytest
from skimage.color import hdx_from_rgb, rgb2hed
from skimage.measure import regionprops_table

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.measurement.columns import ENTROPY_BINS, ENTROPY_TOP
from napari_nucleiseg.core.measurement.runs import runs_of
from napari_nucleiseg.core.measurement.shape import pixel_neighbours
from napari_nucleiseg.core.measurement.stain import densities, measure_stains
from napari_nucleiseg.core.slides.stains import STAINS, stain_densities


def stains(labels, image, mpp_um=YX(1, 1), ids=None):
    runs = runs_of(labels, np.unique(labels[labels > 0]) if ids is None else ids)
    return measure_stains(runs, pixel_neighbours(runs, mpp_um), image, mpp_um)


def scikit_densities(image):
    """Densities of haematoxylin and eosin to base 10; scikit-image divides by the logarithm of a millionth.

    Its stain vectors are a hair off the length one: dark pixels of 0 count as 1 of 256.
    """
    lengths = np.linalg.norm([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]], axis=1)
    return rgb2hed((image.astype(np.float64) + 1) / 256)[..., :2] * 6 * lengths


def test_densities_are_those_of_scikit_image(picture):
    found = densities(picture.reshape(-1, 3))[:2].T.reshape(300, 400, 2)
    np.testing.assert_allclose(found, scikit_densities(picture), atol=2e-6)
    np.testing.assert_allclose(stain_densities(picture)[..., :2] / np.log(10), found, atol=2e-6)


def test_a_pure_stain_is_found_as_what_was_put_in():
    amounts = np.array([0.3, 0.8])
    image = np.round(256 * 10 ** -(amounts[:, None] * STAINS[0]) - 1).astype(np.uint8)
    haematoxylin, eosin, _ = densities(image)
    np.testing.assert_allclose(haematoxylin, amounts, atol=0.02)
    assert eosin.max() < 0.02
    assert max(value.item() for value in densities(np.full((1, 3), 255, np.uint8))) == 0


@pytest.mark.parametrize("haematoxylin", [0.0, 0.2, 0.5])
def test_dab_is_found_as_what_was_put_in_whatever_the_counterstain(haematoxylin):
    amounts = np.array([0.0, 0.1, 0.3, 0.6])
    mixed = haematoxylin * STAINS[0] + amounts[:, None] * STAINS[2]
    found = densities(np.round(256 * 10**-mixed - 1).astype(np.uint8))[2]
    np.testing.assert_allclose(found, amounts, atol=0.03)


def test_dab_is_that_of_scikit_images_colours_of_immunostains(field, picture):
    scikit = np.maximum(-np.log10((picture.astype(float) + 1) / 256) @ hdx_from_rgb[:, 1], 0)
    there = regionprops_table(field, scikit, properties=("intensity_mean", "intensity_std"))
    found = stains(field, picture)
    np.testing.assert_allclose(found["dab_mean"], there["intensity_mean"], atol=1e-5)
    np.testing.assert_allclose(found["dab_std"], there["intensity_std"], atol=1e-5)


def test_means_and_spreads_are_those_of_scikit_image(field, picture):
    found = stains(field, picture)
    there = regionprops_table(field, scikit_densities(picture), properties=("intensity_mean", "intensity_std"))
    for channel, name in enumerate(("haematoxylin", "eosin")):
        np.testing.assert_allclose(found[f"{name}_mean"], there[f"intensity_mean-{channel}"], atol=1e-5)
        np.testing.assert_allclose(found[f"{name}_std"], there[f"intensity_std-{channel}"], atol=1e-5)


def test_a_spread_much_smaller_than_its_mean_is_not_lost():
    image = np.full((40, 40, 3), 60, np.uint8)
    image[::2, :, 0] = 61
    truth = densities(image.reshape(-1, 3))[0].astype(np.float64).std()
    assert truth < 0.01
    found = stains(np.ones((40, 40), np.int32), image)["haematoxylin_std"][0]
    assert found == pytest.approx(truth, rel=1e-3)


def test_entropy_counts_steps_of_density(field, picture):
    found = stains(field, picture)["haematoxylin_entropy_bits"]
    stain = densities(picture.reshape(-1, 3))[0].reshape(field.shape)
    for row, number in enumerate(np.unique(field[field > 0])[:20]):
        bins = np.minimum((stain[field == number] * (ENTROPY_BINS / ENTROPY_TOP)).astype(int), ENTROPY_BINS - 1)
        shares = np.unique(bins, return_counts=True)[1] / len(bins)
        assert found[row] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-6)


def test_gradient_is_the_mean_over_all_pairs_of_neighbours_within_the_nucleus(field, picture):
    mpp_um = YX(0.5, 0.2)
    found = stains(field, picture, mpp_um)["haematoxylin_gradient_per_um"]
    stain = densities(picture.reshape(-1, 3))[0].reshape(field.shape).astype(np.float64)
    for row, number in enumerate(np.unique(field[field > 0])):
        inside = field == number
        across, down = inside[:, 1:] & inside[:, :-1], inside[1:] & inside[:-1]
        steps = [*(np.abs(np.diff(stain, axis=1))[across] / 0.2), *(np.abs(np.diff(stain, axis=0))[down] / 0.5)]
        if steps:
            assert found[row] == pytest.approx(np.mean(steps), rel=1e-5)
        else:
            assert np.isnan(found[row])


def test_an_even_nucleus_has_no_texture():
    labels, image = np.ones((8, 8), np.int32), np.full((8, 8, 3), 90, np.uint8)
    found = stains(labels, image)
    for name in (
        "haematoxylin_std",
        "eosin_std",
        "dab_std",
        "haematoxylin_entropy_bits",
        "haematoxylin_gradient_per_um",
    ):
        assert found[name][0] == pytest.approx(0, abs=1e-6)
        assert not np.signbit(found[name][0])


def test_what_has_no_pixels_has_no_stain(picture):
    labels = np.zeros((300, 400), np.int32)
    labels[3:9, 3:9] = 5
    for name, values in stains(labels, picture, ids=np.array([4, 5])).items():
        assert np.isnan(values).tolist() == [True, False], name
