"""Slides that only OpenSlide reads, made here: a Leica SCN with bounds and a Hamamatsu VMS."""

import ctypes
import sys
import threading

import cv2
import numpy as np
import pytest
from slide_files import smaller, tissue, write_generic, write_scn, write_vms

from napari_nucleiseg.core.errors import MissingDependencyError, SlideError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides import dicom, tiff
from napari_nucleiseg.core.slides import openslide as reader
from napari_nucleiseg.core.slides.registry import can_open, open_slide
from napari_nucleiseg.core.slides.samples import over_white
from slide_factory import tissue_picture, write_dicom_slide

library = pytest.importorskip("openslide")


@pytest.fixture
def scn(tmp_path):
    write_scn(tmp_path / "a.scn")
    return tmp_path / "a.scn"


@pytest.fixture
def vms(tmp_path):
    write_vms(tmp_path / "a.vms")
    return tmp_path / "a.vms"


def test_scn_keeps_openslides_level_0_and_says_what_was_scanned(scn):
    slide = open_slide(scn)
    assert (slide.reader, slide.vendor, slide.objective_power) == ("openslide", "leica", 20.0)
    assert slide.shape == (4096, 6144)
    assert slide.bounds == slide.content == Region(1024, 1536, 1024, 1536)
    assert slide.mpp_um == pytest.approx((0.5, 0.5))
    inside = slide.read_region(slide.bounds)
    assert np.abs(inside.astype(int) - tissue(1024, 1536)).mean() < 5
    assert (slide.levels[0][:1024] == 255).all()
    assert (slide.levels[0][2048:, 5000:] == 255).all()


def test_scn_levels_that_the_file_lacks_are_means(scn):
    slide = open_slide(scn)
    assert [factor.y for factor in slide.downsamples] == [1, 2, 4, 8]
    ours = slide.levels[1][512:1024, 768:1536].astype(int)
    assert np.abs(ours - smaller(slide.levels[0][1024:2048, 1536:3072], 2)).max() <= 1


def test_vms_is_pixel_for_pixel_what_openslide_gives(vms):
    slide = open_slide(vms)
    other = library.OpenSlide(str(vms))
    assert (slide.vendor, slide.objective_power, slide.mpp_um) == ("hamamatsu", 40.0, (0.25, 0.25))
    assert len(slide.levels) == other.level_count
    for index, (width, height) in enumerate(other.level_dimensions):
        theirs = np.asarray(other.read_region((0, 0), index, (width, height)).convert("RGB"))
        assert np.array_equal(np.asarray(slide.levels[index]), theirs)
    assert slide.associated["macro"]().shape == (64, 128, 3)


def test_tiles_meet_at_the_right_place_when_they_do_not_divide_the_level(vms):
    slide = open_slide(vms)
    jpeg = cv2.imread(str(vms.parent / "pixels.jpg"), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(slide.levels[0][:], jpeg)
    assert np.array_equal(slide.levels[0][500:512, 505:530], jpeg[500:512, 505:530])


def test_threads_read_one_slide_at_a_time_without_mixing_it_up(vms):
    slide = open_slide(vms)
    jpeg = cv2.imread(str(vms.parent / "pixels.jpg"), cv2.IMREAD_COLOR_RGB)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(20):
            slide.levels[0].forget()
            y, x = rng.integers(0, 400), rng.integers(0, 900)
            if not np.array_equal(slide.levels[0][y : y + 100, x : x + 100], jpeg[y : y + 100, x : x + 100]):
                wrong.append((y, x))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_after_a_damaged_tile_the_rest_is_still_read(tmp_path):
    # OpenSlide itself refuses every further read of a slide once one tile failed.
    path = tmp_path / "a.tif"
    write_generic(path, levels=(1,), subsampling=(2, 2))
    whole = np.asarray(reader.read(str(path)).levels[0])
    import tifffile

    with tifffile.TiffFile(path) as file:
        offset, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
    slide = reader.read(str(path))
    pixels = np.asarray(slide.levels[0])
    assert [tile.region for tile in slide.damage] == [Region(0, 0, 256, 256)]
    assert (pixels[:256, :256] == 255).all()
    assert np.array_equal(pixels[256:], whole[256:])
    assert np.array_equal(pixels[:256, 256:], whole[:256, 256:])


def test_both_readers_agree_on_a_file_that_both_know(tmp_path):
    path = tmp_path / "a.tif"
    write_generic(path, subsampling=(2, 2))
    ours, theirs = tiff.read(str(path)), reader.read(str(path))
    assert ours.downsamples == theirs.downsamples
    assert ours.mpp_um == theirs.mpp_um
    for mine, other in zip(ours.levels, theirs.levels, strict=True):
        assert np.abs(mine[:].astype(int) - other[:]).max() <= 3


def test_without_openslide_the_message_names_what_to_install(vms, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    assert can_open(vms)
    with pytest.raises(MissingDependencyError, match=r'pip install "napari-nucleiseg\[slides\]"'):
        open_slide(vms)


def test_a_slide_whose_companion_is_missing_is_refused_with_a_sentence(vms):
    (vms.parent / "pixels.jpg").unlink()
    with pytest.raises(SlideError, match="what belongs to it are complete"):
        open_slide(vms)


def test_an_mrxs_without_its_folder_is_not_taken_for_the_thumbnail_that_it_is(tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.jpg"), tissue(64, 64))
    (tmp_path / "a.jpg").rename(tmp_path / "a.mrxs")
    with pytest.raises(SlideError, match="what belongs to it are complete"):
        open_slide(tmp_path / "a.mrxs")


def test_a_remote_slide_of_such_a_format_is_refused_with_a_sentence(vms):
    with pytest.raises(SlideError, match="download it first"):
        reader.read(str(vms), None, lambda path: open(path, "rb"))  # noqa: PTH123, SIM115


def test_a_closed_slide_says_so(vms):
    slide = open_slide(vms)
    slide.close()
    with pytest.raises(SlideError, match="open it again"):
        slide.levels[0][:5, :5]


def filled_with(pixels):
    """Stand in for what OpenSlide fills memory with: premultiplied BGRA at the place that is read."""

    def fill(_slide, memory, x, y, _level, width, height):
        out = np.ctypeslib.as_array(ctypes.cast(memory, ctypes.POINTER(ctypes.c_uint8)), (height, width, 4))
        out[:] = pixels[y : y + height, x : x + width]

    return fill


def any_opacity(rng, height, width):
    """Premultiplied BGRA of all opacities, and the RGBA that openslide-python makes of it."""
    opacity = rng.choice([0, 0, 1, 77, 128, 254, 255, 255], (height, width, 1))
    bgr = rng.integers(0, 256, (height, width, 3)) * opacity // 255
    rgb = bgr[..., ::-1] * 255 // np.maximum(opacity, 1)
    return np.concatenate([bgr, opacity], 2).astype(np.uint8), np.concatenate([rgb, opacity], 2).astype(np.uint8)


def test_transparent_pixels_become_white(monkeypatch, vms):
    slide = reader.read(str(vms))
    bgra = np.zeros((1024, 1024, 4), np.uint8)
    bgra[:, 256:] = (30, 20, 10, 255)
    bgra[:, 200:256] = (50, 50, 50, 128)
    monkeypatch.setattr(library.lowlevel, "_read_region", filled_with(bgra))
    pixels = slide.levels[0][:512, :512]
    assert (pixels[:, :200] == 255).all()
    assert (pixels[:, 256:] == (10, 20, 30)).all()
    assert np.abs(pixels[:, 200:256].astype(int) - 177).max() <= 1


def test_any_opacity_gives_the_same_pixels_whether_read_at_once_or_through_a_picture(monkeypatch, vms):
    bgra, rgba = any_opacity(np.random.default_rng(3), 1024, 1024)
    monkeypatch.setattr(library.lowlevel, "_read_region", filled_with(bgra))
    at_once = reader.read(str(vms)).levels[0][:300, :520]
    monkeypatch.delattr(library.lowlevel, "_read_region")

    def read_region(_slide, place, _level, size):
        return rgba[place[1] : place[1] + size[1], place[0] : place[0] + size[0]]

    monkeypatch.setattr(library.OpenSlide, "read_region", read_region)
    assert np.array_equal(at_once, reader.read(str(vms)).levels[0][:300, :520])
    weight = rgba[:300, :520, 3:].astype(float) / 255
    assert np.abs(at_once - (rgba[:300, :520, :3] * weight + 255 * (1 - weight))).max() <= 1


def test_what_openslide_fills_is_what_its_picture_shows(scn):
    # The slide is opaque here, transparent there, and scanned in part.
    opened = library.OpenSlide(str(scn))
    level = reader.read(str(scn)).levels[0]
    box = (slice(960, 1500), slice(1400, 2100))
    rgba = np.asarray(opened.read_region((1400, 960), 0, (700, 540)))
    assert set(np.unique(rgba[..., 3])) >= {0, 255}
    assert np.array_equal(level[box], over_white(rgba, premultiplied=False))


@pytest.mark.parametrize(
    ("stated", "side"), [("256", 256), ("240", 240), ("128", 256), ("512", 512), ("8", 256), ("4096", 256), (None, 256)]
)
def test_tiles_are_whole_ones_of_the_file_where_they_are_of_a_size_to_read_at_once(monkeypatch, vms, stated, side):
    properties = {"openslide.level[0].tile-height": stated, "openslide.level[0].tile-width": "512"}
    monkeypatch.setattr(library.OpenSlide, "properties", {k: v for k, v in properties.items() if v is not None})
    assert reader.read(str(vms)).levels[0].tile_shape == (side, 512)


def test_dicom_is_the_same_slide_whichever_file_and_library_opens_it(tmp_path, monkeypatch):
    pytest.importorskip("wsidicom", reason="the extra `dicom` is not installed")
    written = write_dicom_slide(tmp_path, tissue_picture(301, 213))
    known = dicom.read(str(tmp_path)).fingerprint
    monkeypatch.setitem(sys.modules, "wsidicom", None)
    for name in ("level-0.dcm", "level-1.dcm", "label.dcm"):
        slide = open_slide(tmp_path / name)
        assert (slide.reader, slide.vendor, slide.notes) == ("openslide", "dicom", ())
        assert slide.fingerprint == known
        assert np.array_equal(slide.levels[0], written[0])
    (tmp_path / "level-0.dcm").write_bytes(b"")
    slide = open_slide(tmp_path / "level-1.dcm")
    assert slide.shape == written[1].shape[:2]
    assert len(slide.notes) == 1
    assert "made from a finer one that is missing" in slide.notes[0]
