"""Samples of unusual kinds in a TIFF become the colours that were meant."""

import cv2
import numpy as np
import pytest
import tifffile
from slide_files import tissue

from napari_nucleiseg.core.errors import UnsupportedImageError
from napari_nucleiseg.core.slides.registry import open_slide

IMAGE = tissue(130, 170)


def as_ycbcr(image):
    return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]])


def shown(path, image, **options):
    """Level 0 of a TIFF as it is shown, signed."""
    tifffile.imwrite(path, image, metadata=None, **options)
    return np.asarray(open_slide(path).levels[0]).astype(int)


def write_four_bits(path, image, **options):
    """A grey TIFF of values 0 to 15, two in a byte, which tifffile does not write."""
    tifffile.imwrite(path, image[:, ::2] << 4 | image[:, 1::2], metadata=None, **options)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["BitsPerSample"].overwrite(4)
        file.pages.first.tags["ImageWidth"].overwrite(image.shape[1])
    return path


@pytest.mark.parametrize("codec", [None, "lzw", "deflate", "packbits", "zstd", "lzma"])
def test_ycbcr_under_any_lossless_codec_becomes_rgb(tmp_path, codec):
    options = {"photometric": "ycbcr", "compression": codec}
    assert np.abs(shown(tmp_path / "a.tif", as_ycbcr(IMAGE), **options) - IMAGE).max() <= 3
    tiled = shown(tmp_path / "b.tif", as_ycbcr(IMAGE), tile=(64, 64), **options)
    assert np.abs(tiled - IMAGE).max() <= 3


@pytest.mark.parametrize("codec", [None, "lzw"])
def test_ycbcr_of_halved_chroma_is_refused_with_a_sentence(tmp_path, codec):
    tifffile.imwrite(tmp_path / "a.tif", as_ycbcr(IMAGE), photometric="ycbcr", compression=codec, metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags["YCbCrSubSampling"].overwrite((2, 2))
    with pytest.raises(UnsupportedImageError, match=r"chroma subsampling\), without JPEG; save it as RGB"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_opacity_of_sixteen_bits_does_not_darken_colours_of_fewer(tmp_path, bits, kind):
    opacity = np.full((*IMAGE.shape[:2], 1), 65535)
    opacity[:, 40:80] = 32768
    opacity[:, 80:100] = 0
    part = opacity / 65535
    colour = IMAGE / 255 * (2**bits - 1) * (part if kind == "assocalpha" else 1)
    image = np.concatenate([colour.round(), opacity], -1).astype(np.uint16)
    result = shown(tmp_path / "a.tif", image, photometric="rgb", extrasamples=[kind])
    assert np.abs(result - (IMAGE * part + 255 * (1 - part))).max() <= 2


def test_opacity_of_the_bits_of_the_colours_stays_whole(tmp_path):
    image = np.concatenate([IMAGE * 16.0, np.full((*IMAGE.shape[:2], 1), 4095)], -1).astype(np.uint16)
    assert np.abs(shown(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unassalpha"]) - IMAGE).max() <= 1


def test_a_fourth_sample_of_no_stated_meaning_does_not_darken_colours(tmp_path):
    image = np.concatenate([IMAGE * 16.0, np.full((*IMAGE.shape[:2], 1), 65535)], -1).astype(np.uint16)
    result = shown(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unspecified"])
    assert np.abs(result - IMAGE).max() <= 1


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey_of_four_bits_is_as_bright_as_meant(tmp_path, photometric):
    grey = IMAGE[..., 0] >> 4
    stored = 15 - grey if photometric == "miniswhite" else grey
    slide = open_slide(write_four_bits(tmp_path / "a.tif", stored, photometric=photometric))
    assert np.array_equal(np.asarray(slide.levels[0]), np.repeat(grey[..., None] * 17, 3, -1))


def test_colours_of_four_bits_are_as_bright_as_meant(tmp_path):
    colours = IMAGE >> 4
    flat = colours.reshape(len(colours), -1)
    tifffile.imwrite(tmp_path / "a.tif", (flat[:, ::2] << 4 | flat[:, 1::2]).reshape(130, 85, 3), metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags["BitsPerSample"].overwrite((4, 4, 4))
        file.pages.first.tags["ImageWidth"].overwrite(170)
    assert np.array_equal(np.asarray(open_slide(tmp_path / "a.tif").levels[0]), colours * 17)
