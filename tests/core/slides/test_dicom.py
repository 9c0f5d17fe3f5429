import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from napari_nucleiseg.core.errors import MissingDependencyError, SlideError, UnsupportedImageError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides import dicom as reader
from napari_nucleiseg.core.slides.registry import can_open, open_slide
from napari_nucleiseg.core.slides.tilecache import TileCache
from slide_factory import tissue_picture, write_dicom_slide

pytest.importorskip("wsidicom", reason="the extra `dicom` is not installed")


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dicom") / "slide"
    return folder, write_dicom_slide(folder, tissue_picture(301, 213))


def test_a_folder_opens_with_all_levels(series):
    folder, written = series
    assert can_open(folder)
    slide = reader.read(str(folder))
    assert slide.mpp_um == pytest.approx((0.25, 0.25))
    assert slide.objective_power == 40
    assert slide.vendor == "Maker (DICOM)"
    assert slide.downsamples == (YX(1, 1), YX(2, 2), YX(4, 4))
    for level, truth in zip(slide.levels, written, strict=True):
        assert np.array_equal(level, truth)
    assert np.array_equal(slide.levels[0][37:201, 11:150], written[0][37:201, 11:150])
    slide.close()


def test_any_file_of_the_series_opens_the_same_slide(series):
    folder, written = series
    by_folder = reader.read(str(folder))
    for name in ("level-0.dcm", "level-2.dcm", "label.dcm"):
        slide = reader.read(str(folder / name))
        assert len(slide.levels) == 3
        assert slide.fingerprint == by_folder.fingerprint
        assert slide.levels[0].shape == written[0].shape
        slide.close()


@pytest.mark.parametrize("name", ["{number}", "1.2.840.{number}"])
def test_files_need_no_suffix(tmp_path, name):
    write_dicom_slide(tmp_path, tissue_picture(301, 213))
    for number, file in enumerate(sorted(tmp_path.iterdir())):
        file.rename(tmp_path / name.format(number=number))
    for path in (tmp_path, tmp_path / name.format(number=1)):
        assert can_open(path)
        slide = reader.read(str(path))
        assert len(slide.levels) == 3
        assert list(slide.associated) == ["label"]
        slide.close()


def test_a_single_level_gets_the_others_made(tmp_path):
    written = write_dicom_slide(tmp_path / "one", tissue_picture(2100, 300), levels=1, tile=256)
    slide = open_slide(tmp_path / "one")
    assert slide.reader == "dicom"
    assert [level.shape[0] for level in slide.levels] == [2100, 1050, 525]
    assert np.array_equal(slide.levels[0], written[0])


def test_the_label_is_read_when_asked_for(series):
    slide = reader.read(str(series[0]))
    assert list(slide.associated) == ["label"]
    assert slide.associated["label"]().shape == (40, 50, 3)


def test_threads_read_the_same_pixels(series):
    folder, written = series
    slide = reader.read(str(folder))
    slide.levels[0]._cache = TileCache(0)
    boxes = [(y, x) for y in range(0, 240, 30) for x in range(0, 150, 30)] * 4
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda at: slide.levels[0][at[0] : at[0] + 60, at[1] : at[1] + 60], boxes)
        for (y, x), pixels in zip(boxes, read, strict=True):
            assert np.array_equal(pixels, written[0][y : y + 60, x : x + 60])
    assert not slide.damage


def test_without_wsidicom_one_is_told_what_to_install(series, monkeypatch):
    monkeypatch.setitem(sys.modules, "wsidicom", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "napari-nucleiseg\[dicom\]"'):
        reader.read(str(series[0]))


def test_two_slides_in_a_folder_are_told_apart(tmp_path):
    for number in (1, 2):
        folder = tmp_path / f"{number}"
        write_dicom_slide(folder, tissue_picture(80, 80), levels=1, uid=f"1.2.{number}", label=False)
        (folder / "level-0.dcm").rename(tmp_path / f"slide-{number}.dcm")
    with pytest.raises(SlideError, match=r"holds 2 DICOM slides; open one file of the wanted one: slide-1\.dcm, slide"):
        reader.read(str(tmp_path))
    assert reader.read(str(tmp_path / "slide-2.dcm")).shape == (80, 80)


def test_grey_channels_are_refused_with_their_name(tmp_path):
    write_dicom_slide(tmp_path / "grey", tissue_picture(80, 80), colours="MONOCHROME2", label=False)
    with pytest.raises(UnsupportedImageError, match=r"has 1 grey channel \(DAPI\), as in fluorescence"):
        reader.read(str(tmp_path / "grey"))


def test_a_label_alone_is_no_slide(tmp_path):
    write_dicom_slide(tmp_path / "label", tissue_picture(80, 80), levels=1)
    (tmp_path / "label" / "level-0.dcm").unlink()
    with pytest.raises(SlideError, match=r"holds no level .* \(only label\); put all files of the series"):
        reader.read(str(tmp_path / "label"))


def test_dicom_of_another_kind_is_refused(tmp_path):
    from pydicom import dcmread

    write_dicom_slide(tmp_path, tissue_picture(80, 80), levels=1, label=False)
    scan = dcmread(tmp_path / "level-0.dcm")
    scan.SOPClassUID = scan.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    scan.save_as(tmp_path / "ct.dcm")
    with pytest.raises(UnsupportedImageError, match="is DICOM, but no whole-slide image"):
        reader.read(str(tmp_path / "ct.dcm"))


def test_a_cut_file_loses_tiles_but_not_the_slide(tmp_path):
    written = write_dicom_slide(tmp_path, tissue_picture(300, 300), levels=1, label=False)
    file = tmp_path / "level-0.dcm"
    slide = reader.read(str(tmp_path))
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 200_000)
    pixels = slide.levels[0][...]
    assert slide.damage
    assert np.array_equal(pixels[:64, :64], written[0][:64, :64])
    assert (pixels[-30:, -30:] == 255).all()


def test_a_broken_file_is_a_sentence(tmp_path):
    write_dicom_slide(tmp_path, tissue_picture(300, 300), levels=1, label=False)
    file = tmp_path / "level-0.dcm"
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(SlideError, match=r"put all files of the series|copy the whole series again"):
        reader.read(str(tmp_path))


def test_an_address_is_refused():
    with pytest.raises(SlideError, match="only be read from a local disk"):
        reader.read("s3://bucket/slide", opener=open)


@pytest.mark.parametrize("path", ["", "nowhere", "/dev/null", "a\0b", "https://example.org/slide.dcm"])
def test_matching_never_raises(path):
    assert not reader.matches(path)


def test_a_folder_of_pictures_is_no_dicom(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "README").write_text("nothing")
    assert not reader.matches(str(tmp_path))


def test_the_scan_in_dicom_shows_what_the_svs_shows(shared_data):
    folder = shared_data / "wsi" / "cmu_small_region_dicom"
    slide, svs = open_slide(folder), open_slide(shared_data / "wsi" / "cmu-1-small-region.svs")
    assert slide.reader == "dicom"
    assert slide.shape == svs.shape == (2967, 2220)
    assert slide.mpp_um == pytest.approx(svs.mpp_um)
    apart = np.abs(slide.levels[0][...].astype(int) - svs.levels[0][...])
    # The DICOM file was compressed once more, with colour at half the width.
    assert apart.mean() < 4
    shifted = np.abs(slide.levels[0][1:].astype(int) - svs.levels[0][:-1])
    assert apart.mean() < 0.5 * shifted.mean()
    assert sorted(slide.associated) == ["label", "macro", "thumbnail"]
    assert slide.associated["label"]().shape == svs.associated["label"]().shape
    assert slide.icc_profile[36:40] == b"acsp"
    assert (slide.read_region(Region(-5, -5, 5, 5)) == 255).all()
    for opened in (slide, svs):
        opened.close()
