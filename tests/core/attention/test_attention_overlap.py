"""Maps of shifted inputs averaged, against a definition pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.attention.overlap import averaged, shifted
from napari_nucleiseg.core.errors import DataError


def slow(maps, shifts, token):
    """Mean and number of the maps that cover each pixel, pixel by pixel."""
    height, width = (side * token for side in maps[0].shape)
    total, coverage = np.zeros((height, width)), np.zeros((height, width), int)
    for one, shift in zip(maps, shifts, strict=True):
        for y in range(height):
            for x in range(width):
                if y < shift or x < shift:
                    continue
                value = one[(y - shift) // token, (x - shift) // token]
                if not np.isnan(value):
                    total[y, x] += value
                    coverage[y, x] += 1
    with np.errstate(invalid="ignore"):
        return total / coverage, coverage


def brightness(image, token):
    """An encoder that looks at what is bright: the mean of each token."""
    rows, columns = (side // token for side in image.shape[:2])
    return image[..., 0].reshape(rows, token, columns, token).mean(axis=(1, 3)) / 255


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 6),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.tuples(st.integers(1, 3), st.integers(1, 4)),
    st.integers(0, 2**32 - 1),
)
def test_average_and_coverage_are_those_of_every_pixel(token, shifts, shape, seed):
    rng = np.random.default_rng(seed)
    maps = [np.where(rng.random(shape) < 0.1, np.nan, rng.random(shape)) for _ in shifts]
    found = averaged(maps, shifts, token)
    step = found.step_px
    assert all(shift % step == 0 for shift in shifts)
    want, coverage = slow(maps, shifts, token)
    pixels = np.kron(found.scores, np.ones((step, step)))
    assert pixels == pytest.approx(want, abs=1e-6, nan_ok=True)
    assert np.array_equal(np.kron(found.coverage, np.ones((step, step), int)), coverage)
    assert found.scores.dtype == np.float32


def test_published_shifts_of_a_region_give_cells_of_half_a_patch():
    maps = [np.full((4, 4), k / 4) for k in range(4)]
    found = averaged(maps, (0, 128, 256, 384), 256)
    assert found.step_px == 128
    assert found.scores.shape == (8, 8)
    assert found.coverage[0].tolist() == [1] * 8
    assert found.coverage[-1].tolist() == [1, 2, 3, 4, 4, 4, 4, 4]
    assert found.scores[-1, -1] == pytest.approx((0 + 1 + 2 + 3) / 16)


def test_maps_of_shifted_inputs_lie_on_what_they_show():
    image = np.zeros((64, 64, 3), np.uint8)
    image[32:48, 32:48] = 255
    maps = [brightness(shifted(image, k, fill=0), 16) for k in (0, 8, 16)]
    scores = averaged(maps, (0, 8, 16), 16).scores
    assert np.unravel_index(scores.argmax(), scores.shape) == (4, 4)
    weights = np.nan_to_num(scores)
    centre = [(weights.sum(axis=1 - axis) * (np.arange(8) + 0.5)).sum() / weights.sum() * 8 for axis in (0, 1)]
    assert centre == pytest.approx([40, 40])
    # The same input given several times, its maps moved all the same: what must not be.
    blurred = averaged([maps[0]] * 3, (0, 8, 16), 16).scores
    assert blurred[4, 4] < scores[4, 4]


def test_heads_are_averaged_together():
    maps = np.random.default_rng(0).random((2, 6, 3, 3))
    found = averaged(list(maps), (0, 4), 8)
    assert all(np.array_equal(found.scores[i], averaged(list(maps[:, i]), (0, 4), 8).scores) for i in range(6))


def test_a_shifted_input_has_glass_where_nothing_was():
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    moved = shifted(image, 3)
    assert np.array_equal(moved[:1, :2], image[3:, 3:])
    assert (moved[1:] == 255).all()
    assert (moved[:, 2:] == 255).all()
    assert (shifted(image, 9) == 255).all()


@pytest.mark.parametrize(
    ("maps", "shifts", "token"),
    [([], [], 16), ([np.ones((2, 2))], [0, 16], 16), ([np.ones((2, 2)), np.ones((3, 3))], [0, 16], 16)],
)
def test_maps_must_be_as_many_as_shifts_and_of_one_shape(maps, shifts, token):
    with pytest.raises(DataError, match="one map of the same shape a shift"):
        averaged(maps, shifts, token)


def test_shifts_are_not_negative():
    with pytest.raises(DataError, match="0 or more"):
        averaged([np.ones((2, 2))], [-8], 16)
    with pytest.raises(DataError, match="0 pixels or more"):
        shifted(np.ones((2, 2, 3), np.uint8), -1)
