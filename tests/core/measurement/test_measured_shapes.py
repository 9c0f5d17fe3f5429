"""Shapes are those of scikit-image, nucleus by nucleus, in micrometres."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import regionprops_table

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.measurement.runs import runs_of
from napari_nucleiseg.core.measurement.shape import measure_shapes, pixel_neighbours

PROPERTIES = ("label", "area", "axis_major_length", "axis_minor_length", "eccentricity", "orientation")


def shapes(labels, mpp_um=YX(1, 1), ids=None):
    ids = np.unique(labels[labels > 0]) if ids is None else ids
    runs = runs_of(labels, ids)
    return {"area": runs.areas, **measure_shapes(runs, pixel_neighbours(runs, mpp_um), mpp_um)}


def assert_as_scikit_image(labels, mpp_um=YX(1, 1)):
    """Perimeter and solidity of scikit-image know no spacing, all else does."""
    found = shapes(labels, mpp_um)
    there = regionprops_table(labels, properties=PROPERTIES, spacing=tuple(mpp_um))
    plain = regionprops_table(labels, properties=("perimeter", "solidity"))
    np.testing.assert_allclose(found["area"] * mpp_um.y * mpp_um.x, there["area"], rtol=1e-12)
    np.testing.assert_allclose(found["major_axis_um"], there["axis_major_length"], rtol=1e-9, atol=1e-9)
    # The square root of what should be nothing.
    np.testing.assert_allclose(found["minor_axis_um"], there["axis_minor_length"], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(found["eccentricity"], there["eccentricity"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["solidity"], plain["solidity"], rtol=1e-12)
    # A circle points nowhere.
    longish = there["axis_major_length"] - there["axis_minor_length"] > 1e-3
    apart = (found["orientation_deg"] - np.degrees(there["orientation"]))[longish]
    np.testing.assert_allclose((apart + 90) % 180 - 90, 0, atol=1e-4)
    assert np.abs(found["orientation_deg"]).max() <= 90
    if mpp_um.y == mpp_um.x:
        np.testing.assert_allclose(found["perimeter_um"], plain["perimeter"] * mpp_um.y, rtol=1e-12)


@pytest.mark.parametrize("mpp_um", [YX(1, 1), YX(0.25, 0.25), YX(0.5, 0.25), YX(0.2, 0.7)])
def test_shapes_of_a_field_agree(field, mpp_um):
    assert_as_scikit_image(field, mpp_um)


@pytest.mark.parametrize("name", ["kumar_train30", "tnbc_dev"])
def test_shapes_of_real_nuclei_agree(shared_data, name):
    labels = tifffile.imread(min((shared_data / name / "labels").glob("*.tif"))).astype(np.int32)
    assert len(np.unique(labels)) > 20
    assert_as_scikit_image(labels, YX(0.25, 0.25))


@settings(max_examples=150, deadline=None)
@given(arrays(np.int32, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 3)))
def test_shapes_of_any_pixels_agree(labels):
    """Noise: holes, parts, lines, corners that touch."""
    if labels.any():
        assert_as_scikit_image(labels)


def test_a_nucleus_that_touches_others_is_measured_as_if_alone(field):
    every = shapes(field)
    ids = np.unique(field[field > 0])
    for row in (3, 40, len(ids) - 2):
        alone = shapes(np.where(field == ids[row], field, 0))
        for name, values in alone.items():
            assert values[0] == every[name][row], name


def test_others_are_left_out_and_gaps_are_allowed(field):
    ids = np.array([7, 33, 200, 204])
    found, every = shapes(field, ids=ids), shapes(field)
    rows = np.searchsorted(np.unique(field[field > 0]), ids)
    for name, values in found.items():
        np.testing.assert_array_equal(values, every[name][rows], name)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int64])
def test_ids_of_any_size_are_measured(dtype):
    labels = np.zeros((9, 9), dtype)
    labels[2:6, 3:6] = np.iinfo(dtype).max if dtype != np.int64 else 2**31 + 5
    assert shapes(labels)["area"].tolist() == [12]


def test_the_perimeter_of_a_rectangle_has_the_sides_of_its_pixels():
    labels = np.zeros((30, 40), np.int32)
    labels[4:14, 5:30] = 1
    # Through the centres of the border pixels: nine steps down, 24 across, both twice.
    assert shapes(labels, YX(0.5, 0.2))["perimeter_um"][0] == pytest.approx(2 * (9 * 0.5 + 24 * 0.2))


def test_an_oblong_pixel_changes_the_perimeter_as_the_ellipse_changes():
    y, x = np.mgrid[-60:61, -60:61]
    tall = ((y / 25) ** 2 + (x / 50) ** 2 < 1).astype(np.int32)
    circle = ((y / 50) ** 2 + (x / 50) ** 2 < 1).astype(np.int32)
    oblong = shapes(tall, YX(0.5, 0.25))
    square = shapes(circle, YX(0.25, 0.25))
    # The same circle of 25 um, seen with pixels twice as tall: stairs are counted a little longer than the circle.
    assert square["perimeter_um"][0] == pytest.approx(np.pi * 25, rel=0.04)
    assert oblong["perimeter_um"][0] == pytest.approx(square["perimeter_um"][0], rel=0.03)
    assert oblong["major_axis_um"][0] == pytest.approx(25, rel=0.01)
    assert oblong["minor_axis_um"][0] == pytest.approx(25, rel=0.01)
    assert oblong["equivalent_diameter_um"][0] == pytest.approx(25, rel=0.01)
    assert square["circularity"][0] == pytest.approx(0.95, abs=0.06)


def test_orientation_is_counted_from_the_y_axis_anticlockwise():
    labels = np.zeros((60, 60), np.int32)
    labels[5:25, 5:8] = 1  # upright
    labels[30:33, 5:25] = 2  # lying
    for step in range(20):
        labels[54 - step, 30 + step : 32 + step] = 3  # rises to the right
        labels[5 + step, 30 + step : 32 + step] = 4  # falls to the right
    upright, lying, rising, falling = shapes(labels)["orientation_deg"]
    assert upright == pytest.approx(0)
    assert abs(lying) == pytest.approx(90)
    assert rising == pytest.approx(-45, abs=3)
    assert falling == pytest.approx(45, abs=3)


def test_what_has_no_pixels_is_not_measured():
    labels = np.zeros((5, 5), np.int32)
    labels[1:3, 1:3] = 2
    found = shapes(labels, ids=np.array([1, 2, 9]))
    assert found.pop("area").tolist() == [0, 4, 0]
    for name, values in found.items():
        assert np.isnan(values).tolist() == [True, False, True], name


def test_a_single_pixel_has_an_area_and_no_outline():
    labels = np.zeros((3, 3), np.int32)
    labels[0, 2] = 1
    found = {name: values[0] for name, values in shapes(labels, YX(0.5, 0.25)).items()}
    assert found["perimeter_um"] == found["major_axis_um"] == found["eccentricity"] == 0
    assert np.isnan(found["circularity"])
    assert found["solidity"] == 1
    assert found["equivalent_diameter_um"] == pytest.approx(np.sqrt(4 * 0.125 / np.pi))


def test_no_nuclei_at_all_are_measured_as_none():
    assert all(len(values) == 0 for values in shapes(np.zeros((4, 4), np.int32)).values())
