import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from napari_nucleiseg.core.errors import MissingDependencyError, SlideError, UnsupportedImageError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides import dicom as reader
from napari_nucleiseg.core.slides.dicomfiles import fingerprint_of
from napari_nucleiseg.core.slides.fingerprint import is_same
from napari_nucleiseg.core.slides.registry import can_open, open_slide
from napari_nucleiseg.core.slides.tilecache import TileCache
from napari_nucleiseg.core.store.project import Project
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


def edit(path, change):
    """Rewrite a DICOM file after `change` has changed its dataset."""
    from pydicom import dcmread

    facts = dcmread(path)
    change(facts)
    facts.save_as(path)


def frames_of(facts):
    return np.frombuffer(facts.PixelData, np.uint8).reshape(-1, facts.Rows, facts.Columns, 3)


def encode(facts, syntax, colours, encoder, *, has_offsets=True):
    """Encode each frame by `encoder`; without offsets the file must be searched for them."""
    from pydicom.encaps import encapsulate

    facts.PixelData = encapsulate([encoder(frame) for frame in frames_of(facts)], has_bot=has_offsets)
    facts["PixelData"].is_undefined_length, facts["PixelData"].VR = True, "OB"
    facts.file_meta.TransferSyntaxUID, facts.PhotometricInterpretation = syntax, colours


def by_plane(facts):
    frames = np.ascontiguousarray(frames_of(facts).transpose(0, 3, 1, 2))
    facts.PixelData, facts.PlanarConfiguration = frames.tobytes(), 1


@pytest.mark.parametrize("bytes_left", [0, 150, 400, 700, None], ids=["empty", "150", "400", "700", "kind"])
@pytest.mark.parametrize("name", ["", "level-1.dcm", "label.dcm"])
def test_a_series_whose_finest_level_cannot_be_read_does_not_open_at_half_resolution(tmp_path, bytes_left, name):
    write_dicom_slide(tmp_path, tissue_picture(301, 213))
    finest = tmp_path / "level-0.dcm"
    if bytes_left is None:
        edit(finest, by_plane)  # which wsidicom does not read
    else:
        finest.write_bytes(finest.read_bytes()[:bytes_left])
    with pytest.raises(SlideError, match=r"finest level.*level-0\.dcm.*copy the whole series again"):
        open_slide(tmp_path / name)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_wherever_the_header_of_the_finest_level_is_cut_that_is_a_sentence(tmp_path):
    write_dicom_slide(tmp_path, tissue_picture(70, 90), levels=2, label=False)
    finest = tmp_path / "level-0.dcm"
    whole = finest.read_bytes()
    end = whole.index(b"\xe0\x7f\x10\x00")  # the tag of the pixels
    for size in range(0, end + 12, 3):
        finest.write_bytes(whole[:size])
        with pytest.raises(SlideError):
            reader.read(str(tmp_path / "level-1.dcm"))


def test_a_damaged_file_beside_a_slide_is_told_and_those_of_the_system_are_not(tmp_path):
    write_dicom_slide(tmp_path, tissue_picture(301, 213))
    (tmp_path / "level-2.dcm").write_bytes(b"")
    (tmp_path / "._level-0.dcm").write_bytes(b"of the system")
    slide = reader.read(str(tmp_path / "level-1.dcm"))
    assert slide.shape == (301, 213)
    assert slide.notes == ("level-2.dcm beside it is empty or cut off: if it belongs to this slide, copy it again.",)


def test_a_cut_file_of_another_series_is_none_of_the_slide(tmp_path):
    write_dicom_slide(tmp_path, tissue_picture(301, 213), levels=2, label=False)
    finest = (tmp_path / "level-0.dcm").read_bytes()
    (tmp_path / "level-0.dcm").unlink()
    write_dicom_slide(tmp_path / "other", tissue_picture(130, 130), levels=1, label=False, uid="1.2.4")
    other = (tmp_path / "other" / "level-0.dcm").read_bytes()
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(other[: other.index(b"\x28\x00\x02\x00US")])  # what it is of is there, what it holds is not
    for name in ("", "level-1.dcm"):
        slide = reader.read(str(tmp_path / name))
        assert (slide.shape, slide.notes) == ((151, 107), ())
    cut.write_bytes(finest[: finest.index(b"1.2.3.2000") + 7])  # amid the UID that it shares with the slide
    with pytest.raises(SlideError, match=r"lacks its finest level: cut\.dcm is empty or cut off"):
        reader.read(str(tmp_path / "level-1.dcm"))


def write_in_two_files(folder):
    """Cut the file of the finest level into two, a concatenation."""
    from pydicom import dcmread

    whole = dcmread(folder / "level-0.dcm")
    frames, half = frames_of(whole), whole.NumberOfFrames // 2
    for number, part in enumerate((frames[:half], frames[half:])):
        facts = copy.deepcopy(whole)
        facts.PixelData, facts.NumberOfFrames = part.tobytes(), len(part)
        facts.ConcatenationUID, facts.SOPInstanceUIDOfConcatenationSource = "1.2.7", "1.2.8"
        facts.InConcatenationNumber, facts.InConcatenationTotalNumber = number + 1, 2
        facts.ConcatenationFrameOffsetNumber = half * number
        facts.SOPInstanceUID = facts.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{number}"
        facts.save_as(folder / f"part-{number}.dcm")
    (folder / "level-0.dcm").unlink()


def test_a_level_in_two_files_is_the_same_slide_whichever_is_opened(tmp_path):
    written = write_dicom_slide(tmp_path, tissue_picture(301, 213), levels=2)
    write_in_two_files(tmp_path)
    slides = [reader.read(str(tmp_path / name)) for name in ("", "part-0.dcm", "part-1.dcm", "level-1.dcm")]
    assert len({slide.fingerprint for slide in slides}) == 1
    assert all(np.array_equal(slide.levels[0], written[0]) for slide in slides)
    (tmp_path / "part-1.dcm").unlink()
    with pytest.raises(SlideError, match="lacks 1 of the files that hold its finest level; copy the whole"):
        reader.read(str(tmp_path))


def test_results_that_a_former_version_named_by_any_file_of_the_finest_level_are_known(tmp_path):
    write_dicom_slide(tmp_path, tissue_picture(301, 213), levels=2)
    write_in_two_files(tmp_path)
    slide = reader.read(str(tmp_path))
    of_files = [fingerprint_of(uid) for uid in ("1.2.9.0", "1.2.9.1", "1.2.3.2", "1.2.3.99")]  # parts, level-1, label
    assert [is_same(former, slide.fingerprint) for former in of_files] == [True, True, False, False]
    Project.create(tmp_path / "p", replace(slide, fingerprint=of_files[1])).close()
    Project.open(tmp_path / "p", slide).close()


def write_plane(folder, level, number, *, uid):
    """Copy the file of a level as a focal plane of one colour."""
    from pydicom import dcmread

    facts = dcmread(folder / f"level-{level}.dcm")
    facts.PixelData = np.full_like(frames_of(facts), 50 * number).tobytes()
    facts.SOPInstanceUID = facts.file_meta.MediaStorageSOPInstanceUID = uid
    facts.TotalPixelMatrixOriginSequence[0].ZOffsetInSlideCoordinateSystem = float(number)
    facts.save_as(folder / f"plane-{number}-of-{level}.dcm")


def test_of_focal_planes_in_files_of_their_own_one_is_shown_whichever_is_opened(tmp_path):
    write_dicom_slide(tmp_path, tissue_picture(130, 130), levels=2, label=False)
    for level in (0, 1):
        for number in (1, 2, 3):
            # The order of the UIDs of one level is that of the other turned round.
            write_plane(tmp_path, level, number, uid=f"1.2.9.{level}.{number if level else 4 - number}")
        (tmp_path / f"level-{level}.dcm").unlink()
    names = [file.name for file in sorted(tmp_path.iterdir())]
    assert len(names) == 6
    slides = [reader.read(str(tmp_path / name)) for name in ["", *names]]
    assert len({slide.fingerprint for slide in slides}) == 1
    for slide in slides:
        assert slide.notes == ("It was scanned in 3 focal planes; the one at 3 µm is shown.",)
        assert all((level[...] == 150).all() for level in slide.levels)


@pytest.mark.parametrize("has_offsets", [True, False])
@pytest.mark.parametrize("name", ["", "level-0.dcm"])
def test_a_cut_file_whose_index_of_tiles_is_lost_is_refused(tmp_path, has_offsets, name):
    write_dicom_slide(tmp_path, tissue_picture(301, 213), levels=2, label=False)
    finest = tmp_path / "level-0.dcm"

    def to_jpeg(facts):
        jpeg = imagecodecs.jpeg8_encode
        encode(facts, "1.2.840.10008.1.2.4.50", "YBR_FULL_422", jpeg, has_offsets=has_offsets)
        facts.LossyImageCompression, facts.LossyImageCompressionRatio = "01", 10
        facts.LossyImageCompressionMethod = "ISO_10918_1"

    edit(finest, to_jpeg)
    assert not open_slide(tmp_path / name).damage
    finest.write_bytes(finest.read_bytes()[: -finest.stat().st_size // 5])
    with pytest.raises(SlideError, match=r"finest level of .* is damaged, no tile of it can be read"):
        open_slide(tmp_path / name)


def test_a_slide_whose_middle_alone_is_damaged_opens(tmp_path):
    from pydicom.uid import JPEG2000Lossless

    written = write_dicom_slide(tmp_path, tissue_picture(301, 213), levels=1, label=False)
    finest = tmp_path / "level-0.dcm"

    def to_jpeg_2000(facts):
        frames = [imagecodecs.jpeg2k_encode(frame, codecformat="j2k", level=0) for frame in frames_of(facts)]
        middle = 2 * 4 + 1
        frames[middle] = bytes(len(frames[middle]))
        left = iter(frames)
        encode(facts, JPEG2000Lossless, "YBR_RCT", lambda _: next(left))

    edit(finest, to_jpeg_2000)
    slide = reader.read(str(tmp_path))
    assert [tile.region for tile in slide.damage] == [Region(128, 64, 64, 64)]
    assert np.array_equal(slide.levels[0][:64], written[0][:64])


def test_jpeg_2000_without_a_colour_transform_of_its_own_is_turned_into_rgb(tmp_path):
    from pydicom.uid import JPEG2000Lossless

    written = write_dicom_slide(tmp_path, tissue_picture(301, 213), levels=1)

    def to_ycbcr(frame):
        ycbcr = np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]])
        return imagecodecs.jpeg2k_encode(ycbcr, codecformat="j2k", level=0, reversible=True, mct=False)

    for name in ("level-0.dcm", "label.dcm"):
        edit(tmp_path / name, lambda facts: encode(facts, JPEG2000Lossless, "YBR_FULL", to_ycbcr))
    slide = reader.read(str(tmp_path))
    assert np.abs(slide.levels[0][...].astype(int) - written[0]).max() <= 3
    assert np.abs(slide.associated["label"]().astype(int) - written[0][:40, :50]).max() <= 3
    assert (reader._as_rgb(Image.new("RGB", (2, 2), "white"), is_ycbcr=True) == 255).all()


def test_a_level_that_is_filled_up_to_whole_tiles_keeps_its_factor(tmp_path):
    # 1100 x 1300 pixels at a quarter are 275 x 325, of which the first and last are filled up.
    for level, (height, width), pixel in ((0, (1100, 1300), 0.25), (1, (320, 384), 1.0)):
        write_dicom_slide(tmp_path / f"{level}", tissue_picture(height, width), levels=1, mpp_um=pixel, label=False)
        (tmp_path / f"{level}" / "level-0.dcm").rename(tmp_path / f"level-{level}.dcm")
    edit(tmp_path / "level-1.dcm", lambda facts: facts.update(uids("1.2.9")))
    assert reader.read(str(tmp_path)).downsamples == (YX(1, 1), YX(4, 4))
    edit(tmp_path / "level-1.dcm", lambda facts: pixel_spacing(facts, 0.002))  # that is not so
    assert reader.read(str(tmp_path)).downsamples == (YX(1, 1), YX(1100 / 320, 1300 / 384))


def uids(uid):
    from pydicom.dataset import Dataset

    facts = Dataset()
    facts.SOPInstanceUID = uid
    return facts


def pixel_spacing(facts, millimetres):
    facts.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [millimetres, millimetres]


def test_of_two_scans_of_a_series_the_larger_is_shown_and_that_is_told(tmp_path):
    # The smaller one is the wider one.
    for name, uid, shape, place in (("a", "1.2.8", (130, 260), 20.0), ("b", "1.2.9", (300, 200), 0.0)):
        write_dicom_slide(tmp_path / name, tissue_picture(*shape), levels=1, label=False)
        file = (tmp_path / name / "level-0.dcm").rename(tmp_path / f"{name}.dcm")

        def change(facts, uid=uid, place=place):
            facts.update(uids(uid))
            facts.TotalPixelMatrixOriginSequence[0].XOffsetInSlideCoordinateSystem = place

        edit(file, change)
    for name in ("", "a.dcm", "b.dcm"):
        slide = reader.read(str(tmp_path / name))
        assert slide.notes == ("The series holds 2 scans; that of 300 x 200 pixels is shown, not 130 x 260.",)
        assert np.array_equal(slide.levels[0], tissue_picture(300, 200))


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
