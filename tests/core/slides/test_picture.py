"""Plain pictures: every kind is shown as RGB, with a pyramid, or refused with a sentence."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image
from slide_files import smaller, tissue

from napari_nucleiseg.core.errors import SlideError, UnsupportedImageError
from napari_nucleiseg.core.slides import capacity, picture
from napari_nucleiseg.core.slides.registry import can_open, open_slide

IMAGE = tissue(130, 170)


def saved(path, image, **options):
    image.save(path, **options)
    return open_slide(path)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.jp2", "a.webp"])
def test_lossless_pictures_are_read_exactly(tmp_path, name):
    options = {"a.webp": {"lossless": True}, "a.jp2": {"irreversible": False}}.get(name, {})
    slide = saved(tmp_path / name, Image.fromarray(IMAGE), **options)
    assert np.array_equal(np.asarray(slide.levels[0]), IMAGE)
    assert (slide.reader, slide.mpp_um) == ("picture", None)


def test_jpeg_is_read_by_its_content_whatever_its_name(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.jpg", quality=97, subsampling=0)
    (tmp_path / "a.jpg").rename(tmp_path / "picture.dat")
    assert can_open(tmp_path / "picture.dat")
    assert np.abs(open_slide(tmp_path / "picture.dat").levels[0][:].astype(int) - IMAGE).mean() < 2


def test_grey_palette_bilevel_and_transparent_pictures_become_rgb(tmp_path):
    image = Image.fromarray(IMAGE)
    for mode in ("L", "P", "1"):
        converted = image.convert(mode)
        slide = saved(tmp_path / f"{mode}.png", converted)
        assert np.array_equal(slide.levels[0][:], np.asarray(converted.convert("RGB")))
    rgba = np.dstack([IMAGE, np.full(IMAGE.shape[:2], 255, np.uint8)])
    rgba[:60, :, 3] = 0
    slide = saved(tmp_path / "RGBA.png", Image.fromarray(rgba))
    assert (slide.levels[0][:60] == 255).all()
    assert np.array_equal(slide.levels[0][60:], IMAGE[60:])


@pytest.mark.parametrize("bits", [12, 16])
def test_sixteen_bit_png_is_scaled_by_the_bits_in_use(tmp_path, bits):
    import imagecodecs

    deep = (IMAGE / 255.0 * (2**bits - 1)).round().astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    assert np.abs(open_slide(tmp_path / "a.png").levels[0][:].astype(int) - IMAGE).max() <= 1


@pytest.mark.parametrize("samples", [slice(3), slice(1)], ids=["colour", "grey"])
def test_a_sixteen_bit_png_with_opacity_is_as_bright_as_without(tmp_path, samples):
    import imagecodecs

    image = np.concatenate([IMAGE[..., samples] * 16.0, np.full((*IMAGE.shape[:2], 1), 65535)], -1).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image))
    assert np.abs(open_slide(tmp_path / "a.png").levels[0][:].astype(int) - IMAGE[..., samples]).max() <= 1


def test_cmyk_is_refused_with_a_sentence(tmp_path):
    Image.fromarray(IMAGE).convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(UnsupportedImageError, match="CMYK colours; save it as RGB"):
        open_slide(tmp_path / "a.jpg")
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([IMAGE, IMAGE[..., :1]]), photometric="separated")
    with pytest.raises(UnsupportedImageError, match="CMYK or Lab colours; save it as RGB"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.jp2"])
def test_a_cut_picture_is_refused_with_a_sentence(tmp_path, name):
    Image.fromarray(IMAGE).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for kept in (20, 60, len(data) // 2):
        (tmp_path / name).write_bytes(data[:kept])
        with pytest.raises(SlideError, match=rf"{name} is a damaged"):
            open_slide(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "shape"), {"a.png": (60, 90), "a.jpg": (61, 93), "a.bmp": (7, 9), "a.jp2": (64, 96)}.items()
)
def test_the_size_is_known_before_decoding(name, shape):
    buffer = io.BytesIO()
    Image.fromarray(tissue(*shape)).save(buffer, {"jpg": "JPEG", "jp2": "JPEG2000"}.get(name[2:], name[2:]))
    assert picture._stated_shape(buffer.getvalue()) == shape


def test_a_picture_larger_than_memory_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    monkeypatch.setattr(capacity, "memory_bytes", lambda: 100_000)
    monkeypatch.setattr("imagecodecs.png_decode", lambda _: pytest.fail("decoded"))
    with pytest.raises(SlideError, match=r"130 x 170 px, .* once decoded, too much .* save it as a tiled pyramid"):
        open_slide(tmp_path / "a.png")


def test_a_large_picture_has_a_pyramid_of_means(tmp_path):
    image = tissue(1500, 2300)
    slide = saved(tmp_path / "a.png", Image.fromarray(image))
    assert [level.shape for level in slide.levels] == [(1500, 2300, 3), (750, 1150, 3), (375, 575, 3)]
    assert np.abs(slide.levels[1][:].astype(int) - smaller(image, 2)).max() <= 1
    assert np.abs(slide.levels[2][:].astype(int) - smaller(image, 4)).max() <= 1


def test_reading_gives_a_copy_that_may_be_changed(tmp_path):
    slide = saved(tmp_path / "a.png", Image.fromarray(IMAGE))
    slide.read_region(slide.region)[:] = 0
    assert np.array_equal(slide.levels[0], IMAGE)


def test_one_pixel_is_a_picture(tmp_path):
    slide = saved(tmp_path / "a.png", Image.fromarray(np.full((1, 1, 3), 9, np.uint8)))
    assert slide.shape == (1, 1)
    assert slide.read_box(-1, -1, 0.5, 0.5, (6, 6)).shape == (6, 6, 3)
