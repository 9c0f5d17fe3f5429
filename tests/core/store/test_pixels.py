"""Pixels as bytes come back as they were, in each of the three ways, and damage is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nucleiseg.core.store.files import encode_chunk
from napari_nucleiseg.core.store.pixels import decode_pixels, encode_pixels, encode_runs
from napari_nucleiseg.core.store.retouch import runs_of

IMAGES = arrays(np.uint32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 5, 2**32 - 1]))


def as_runs(image, order=slice(None)):
    ys, xs, lengths, ids = runs_of(image, image > 0)
    return encode_runs((ys * image.shape[1] + xs)[order], lengths[order], ids[order])


@given(IMAGES)
def test_pixels_come_back(image):
    for data in (encode_pixels(image), encode_chunk(image), as_runs(image), as_runs(image, slice(None, None, -1))):
        np.testing.assert_array_equal(decode_pixels(data, image.shape), image)


def test_few_runs_are_kept_as_such_and_take_fewer_bytes():
    image = np.zeros((200, 300), np.uint32)
    image[20:60, 30:80], image[100:140, 200:300], image[140:150, :40] = 2**32 - 1, 70_000, 5
    data = encode_pixels(image)
    assert data[:1] == b"R"
    assert len(data) < len(encode_chunk(image))
    np.testing.assert_array_equal(decode_pixels(data, image.shape), image)
    view = np.zeros((300, 400), np.uint32)[50:250, 20:320]
    view[...] = image
    assert encode_pixels(view) == data


def test_background_takes_no_bytes():
    assert encode_pixels(np.zeros((4, 5), np.uint32)) == b""
    assert not decode_pixels(b"", (4, 5)).any()


def test_damage_is_told():
    image = np.full((4, 5), 7, np.uint32)
    for data in (as_runs(image)[:-2], b"Rxy", b"xy", encode_chunk(image)[:-2], encode_chunk(image[:3])):
        with pytest.raises(ValueError, match=r"no runs|not a zstd|reshape"):
            decode_pixels(data, image.shape)
    with pytest.raises(ValueError, match="runs leave the image"):
        decode_pixels(as_runs(image), (4, 4))
