"""ICC profiles: converted when they say something, left alone when they do not, refused when broken."""

import numpy as np
import pytest
from PIL import Image, ImageCms
from slide_files import tissue, write_generic

from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.slides.colour import icc_to_srgb
from napari_nucleiseg.core.slides.registry import open_slide

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile():
    """A valid profile that is not sRGB: its red and blue primaries are exchanged."""
    data = bytearray(SRGB)
    count = int.from_bytes(data[128:132], "big")
    for number in range(count):
        at = 132 + 12 * number
        name = bytes(data[at : at + 4])
        data[at : at + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(name, name)
    return bytes(data)


@pytest.fixture
def path(tmp_path):
    def write(profile):
        write_generic(tmp_path / "a.tif", iccprofile=profile)
        return tmp_path / "a.tif"

    return write


def test_a_slide_without_a_profile_is_left_alone(tmp_path):
    write_generic(tmp_path / "a.tif")
    slide = open_slide(tmp_path / "a.tif")
    assert icc_to_srgb(slide) is slide


def test_a_slide_in_srgb_is_left_alone(path):
    slide = open_slide(path(SRGB))
    assert slide.icc_profile == SRGB
    assert icc_to_srgb(slide) is slide


def test_colours_become_what_the_profile_means(path):
    slide = open_slide(path(swapped_profile()))
    converted = icc_to_srgb(slide)
    assert [level.shape for level in converted.levels] == [level.shape for level in slide.levels]
    assert (converted.downsamples, converted.mpp_um) == (slide.downsamples, slide.mpp_um)
    for before, after in zip(slide.levels, converted.levels, strict=True):
        # Exchanged primaries: what is stored as red is meant as blue.
        assert np.abs(after[:].astype(int) - before[:][..., ::-1]).mean() < 1.5
    assert np.array_equal(converted.levels[0][100:300, 250:270], converted.levels[0][:][100:300, 250:270])


def test_it_agrees_with_a_conversion_of_the_whole_image(path):
    slide = open_slide(path(swapped_profile()))
    image = Image.fromarray(slide.levels[0][:])
    whole = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(_file(slide.icc_profile)), _srgb())
    assert np.array_equal(icc_to_srgb(slide).levels[0][:], np.asarray(whole))


def _file(data):
    import io

    return io.BytesIO(data)


def _srgb():
    return ImageCms.createProfile("sRGB")


@pytest.mark.parametrize("profile", [b"no profile at all", SRGB[:200]])
def test_a_broken_profile_is_refused_with_a_sentence(path, profile):
    with pytest.raises(SlideError, match=r"colour profile of this slide cannot be used .* without colour correction"):
        icc_to_srgb(open_slide(path(profile)))


def test_a_real_profile_changes_colours_a_little_and_tissue_stays_tissue(shared_data):
    slide = open_slide(shared_data / "wsi/tcga-cr-7395-01a-01-ts1.svs")
    converted = icc_to_srgb(slide)
    before, after = slide.levels[-1][:], converted.levels[-1][:]
    assert np.abs(before.astype(int) - after).mean() < 30
    assert before.shape == after.shape


def test_reading_the_original_is_not_changed_by_converting(path):
    slide = open_slide(path(swapped_profile()))
    before = slide.levels[0][:]
    icc_to_srgb(slide).levels[0][:]
    assert np.array_equal(slide.levels[0][:], before)
    assert np.abs(before.astype(int) - tissue()).mean() < 2
