"""The door to slides: what is offered to readers, pixel sizes that can and cannot be, and what is no slide."""

import math
import subprocess
import sys
from fnmatch import fnmatch

import numpy as np
import pytest
import tifffile
from slide_files import APERIO, CASES, tissue, write_generic, write_ome, write_svs

from napari_nucleiseg.core.errors import MissingPixelSizeError, SlideError
from napari_nucleiseg.core.slides import registry
from napari_nucleiseg.core.slides.bytesource import is_address
from napari_nucleiseg.core.slides.registry import FILENAME_PATTERNS, can_open, open_slide


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_kind_of_file_is_recognised_and_matches_a_pattern(case, tmp_path):
    case.write(str(tmp_path / case.name))
    assert can_open(tmp_path / case.name)
    assert any(fnmatch(case.name, pattern) for pattern in FILENAME_PATTERNS)


def test_the_patterns_are_the_suffixes_of_the_readers():
    suffixes = [suffix for reader in registry._readers() for suffix in reader.SUFFIXES]
    assert sorted(f"*{suffix}" for suffix in suffixes) == sorted(FILENAME_PATTERNS)


@pytest.mark.parametrize("address", ["https://example.org/a.svs", "s3://bucket/b.zarr", "HTTP://x.org/c.png"])
def test_an_address_without_an_opener_is_refused_with_a_sentence(address):
    with pytest.raises(SlideError, match="is an address, and remote stores are not supported yet; copy it to a disk"):
        open_slide(address)


@pytest.mark.parametrize("path", ["C://slides/a.svs", "C:\\slides\\a.svs", "/slides/a://b.svs", "a.svs", ""])
def test_paths_are_no_addresses(path):
    assert not is_address(path)


def test_what_is_no_slide_is_not_recognised_and_never_raises(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "empty.svs").touch()
    (tmp_path / "folder").mkdir()
    for name in ("a.txt", "empty.svs", "folder", "missing.doc", "\0"):
        assert not can_open(f"{tmp_path}/{name}"), name


def test_a_folder_without_a_slide_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(SlideError, match="is a folder without a slide in it; OME-Zarr and DICOM folders"):
        open_slide(tmp_path)


@pytest.mark.parametrize("mpp_um", [0.5, (0.5, 0.5)])
def test_a_given_pixel_size_overrides_the_files(tmp_path, mpp_um):
    write_svs(tmp_path / "a.svs")
    assert open_slide(tmp_path / "a.svs", mpp_um=mpp_um).mpp_um == (0.5, 0.5)


def test_pixels_need_not_be_square(tmp_path):
    write_generic(tmp_path / "a.tif", resolution=(40000, 20000))
    assert open_slide(tmp_path / "a.tif").mpp_um == pytest.approx((0.5, 0.25))


@pytest.mark.parametrize("mpp_um", [0, -0.25, 0.001, 21, math.nan, math.inf, (0.25, 0), (0.25, math.nan)])
def test_a_given_pixel_size_that_cannot_be_is_refused(tmp_path, mpp_um):
    write_svs(tmp_path / "a.svs")
    with pytest.raises(SlideError, match=r"micrometres per pixel cannot be right: it must lie between 0\.02 and 20"):
        open_slide(tmp_path / "a.svs", mpp_um=mpp_um)


@pytest.mark.parametrize("stated", ["0", "-0.25", "25000", "0.0000001", "nan", "unknown", ""])
def test_an_absurd_pixel_size_in_a_file_is_ignored_and_asked_for(tmp_path, stated):
    write_svs(tmp_path / "a.svs", description=APERIO.replace("0.2520", stated))
    slide = open_slide(tmp_path / "a.svs")
    assert slide.mpp_um is None
    with pytest.raises(MissingPixelSizeError, match="does not say how large its pixels are"):
        slide.require_mpp()


def test_ignoring_an_absurd_pixel_size_is_said(tmp_path, caplog):
    write_ome(tmp_path / "a.ome.tif", mpp=250.0)
    slide = open_slide(tmp_path / "a.ome.tif")
    assert slide.mpp_um is None
    assert "ignored: the OME PhysicalSize says 250 x 250 µm" in slide.properties["nucleiseg.pixel-size"]
    assert "the OME PhysicalSize says 250 x 250 µm" in caplog.text


def test_a_decimal_comma_is_understood(tmp_path):
    write_svs(tmp_path / "a.svs", description=APERIO.replace("0.2520", "0,2520"))
    assert open_slide(tmp_path / "a.svs").mpp_um == (0.252, 0.252)


def test_the_reader_that_fails_gives_way_to_the_next(tmp_path, monkeypatch):
    pytest.importorskip("openslide")
    write_generic(tmp_path / "a.tif", subsampling=(2, 2))
    tiff = registry.importlib.import_module("napari_nucleiseg.core.slides.tiff")

    def fail(*_):
        raise SlideError("not today")

    monkeypatch.setattr(tiff, "read", fail)
    assert open_slide(tmp_path / "a.tif").reader == "openslide"


def test_importing_the_registry_imports_no_reader():
    code = (
        "import sys, napari_nucleiseg.core.slides.registry as r;"
        "bad = {'openslide', 'wsidicom', 'zarr', 'imagecodecs', 'torch', 'napari'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_opening_an_svs_imports_no_other_reader(tmp_path):
    write_svs(tmp_path / "a.svs")
    code = (
        "import sys; from napari_nucleiseg.core.slides.registry import can_open, open_slide;"
        f"assert can_open({str(tmp_path / 'a.svs')!r}); open_slide({str(tmp_path / 'a.svs')!r});"
        "bad = {'openslide', 'wsidicom', 'zarr', 'torch', 'napari'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_real_files_all_open(shared_data):
    names = [
        "wsi/cmu-1-small-region.svs",
        "wsi/tcga-cr-7395-01a-01-ts1.svs",
        "wsi/OS-1-detail.ome.tif",
        "wsi_mosaic_dev/tnbc_dev_mosaic_40x.tiff",
        "wsi_mosaic_dev/tnbc_dev_mosaic_40x.ome.tif",
    ]
    for name in names:
        slide = open_slide(shared_data / name)
        assert max(slide.levels[-1].shape[:2]) <= 1024
        thumbnail = np.asarray(slide.levels[-1])
        assert 50 < thumbnail.mean() < 254
        assert slide.damage == []
        assert len(slide.fingerprint) == 48


def test_the_same_tissue_in_two_formats_reads_the_same(shared_data):
    first = open_slide(shared_data / "wsi_mosaic_dev/tnbc_dev_mosaic_40x.tiff")
    second = open_slide(shared_data / "wsi_mosaic_dev/tnbc_dev_mosaic_40x.ome.tif")
    assert first.mpp_um == second.mpp_um
    for mine, other in zip(first.levels, second.levels, strict=True):
        assert np.array_equal(mine[:], other[:])


def test_a_grey_microscope_picture_in_inches_and_a_strip_tiff_open_alike(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", tissue(300, 400), photometric="rgb", resolution=(72, 72), resolutionunit="INCH"
    )
    slide = open_slide(tmp_path / "a.tif", mpp_um=0.5)
    assert slide.shape == (300, 400)
    assert slide.mpp_um == (0.5, 0.5)
