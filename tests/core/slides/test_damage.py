"""Bad files: each gives a sentence, or white tiles and the rest of the slide."""

import io
import re
import shutil

import numpy as np
import pytest
import tifffile
from slide_files import HEIGHT, WIDTH, tissue, write_generic, write_svs

from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.bytesource import ByteSource
from napari_nucleiseg.core.slides.registry import open_slide


def place_of_tile(path, index, page=0):
    with tifffile.TiffFile(path) as file:
        return file.pages[page].dataoffsets[index], file.pages[page].databytecounts[index]


def overwrite(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.fixture
def path(tmp_path):
    write_svs(tmp_path / "slide.svs")
    return tmp_path / "slide.svs"


def damaged(size, how):
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, size, np.uint8).tobytes()
    return {"zeros": bytes(size), "noise": noise, "second half zeros": bytes(size // 2)}[how]


@pytest.mark.parametrize("how", ["zeros", "noise", "second half zeros"])
def test_a_corrupt_jpeg_tile_is_white_and_recorded_and_the_rest_is_read(path, how):
    whole = np.asarray(open_slide(path).levels[0])
    offset, size = place_of_tile(path, 6)  # second row, second column of five
    data = damaged(size, how)
    overwrite(path, offset + size - len(data), data)
    slide = open_slide(path)
    pixels = np.asarray(slide.levels[0])
    assert [tile.region for tile in slide.damage] == [Region(256, 256, 256, 256)]
    assert slide.damage[0].reason
    assert (pixels[256:512, 256:512] == 255).all()
    pixels[256:512, 256:512] = whole[256:512, 256:512]
    assert np.array_equal(pixels, whole)


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd"])
def test_a_corrupt_tile_of_another_codec_is_white_and_recorded(tmp_path, compression):
    path = tmp_path / "slide.tif"
    write_generic(path, compression=compression, compressionargs={}, subsampling=None)
    offset, size = place_of_tile(path, 6)
    overwrite(path, offset, damaged(size, "noise"))
    slide = open_slide(path)
    assert (np.asarray(slide.levels[0])[256:512, 256:512] == 255).all()
    assert [tile.region for tile in slide.damage] == [Region(256, 256, 256, 256)]


def test_a_damaged_tile_of_a_coarse_level_is_placed_in_level_0(path):
    offset, size = place_of_tile(path, 0, page=2)
    overwrite(path, offset, bytes(size))
    slide = open_slide(path)
    level = slide.downsamples.index((4.0, 4.0))
    slide.levels[level][:]
    assert [tile.region for tile in slide.damage] == [Region(0, 0, 700, 1024)]


def test_damage_is_that_of_the_stored_level_that_is_read(path):
    """Levels that the file lacks are made of the finer one it holds: 2 of 1, and 8 of 4."""
    for page, index in ((0, 6), (2, 0)):
        offset, size = place_of_tile(path, index, page=page)
        overwrite(path, offset, bytes(size))
    slide = open_slide(path)
    for level in slide.levels:
        level[:]
    fine, coarse = Region(256, 256, 256, 256), Region(0, 0, 700, 1024)
    assert {tile.region for tile in slide.damage} == {fine, coarse}
    for downsample, region in ((0.5, fine), (1.0, fine), (2.0, fine), (3.9, fine), (4.0, coarse), (9.0, coarse)):
        shape = int(region.height / downsample), int(region.width / downsample)
        assert (slide.read_region(region, shape) == 255).mean() > 0.9
        assert [tile.region for tile in slide.damage_at(YX(downsample, downsample))] == [region]


def test_a_file_cut_after_its_index_gives_white_tiles(tmp_path):
    write_generic(tmp_path / "whole.tif", levels=(1,))
    offset, _ = place_of_tile(tmp_path / "whole.tif", 12)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "whole.tif").read_bytes()[: offset + 10])
    slide = open_slide(tmp_path / "cut.tif")
    pixels = np.asarray(slide.levels[0])
    assert len(slide.damage) == 3
    assert all("truncated" in tile.reason for tile in slide.damage)
    assert (pixels[512:, 512:] == 255).all()
    assert np.abs(pixels[:512].astype(int) - tissue()[:512]).mean() < 2


@pytest.fixture
def path_of_index_last(tmp_path):
    """Return a slide whose lists of images come behind their tiles, as scanners write them."""

    def copy(keep):
        (tmp_path / "cut.svs").write_bytes(data[:keep])
        return tmp_path / "cut.svs"

    write_svs(tmp_path / "whole.svs")
    data = bytearray((tmp_path / "whole.svs").read_bytes())
    with tifffile.TiffFile(tmp_path / "whole.svs") as file:
        first = file.pages[0]
        start, size = first.offset, 2 + 12 * len(first.tags) + 4
        following = file.pages[1].offset
    data[4:8] = len(data).to_bytes(4, "little")
    data += data[start : start + size]
    return copy, len(data), following


def test_a_slide_cut_before_the_list_of_its_images_says_so_in_words(path_of_index_last, capfd):
    copy, size, _ = path_of_index_last
    for keep in (100, size // 2, size - 10):
        with pytest.raises(
            SlideError, match=r"cut\.svs is no whole TIFF: it is cut off before the list.* Copy it again"
        ):
            open_slide(copy(keep))
    assert capfd.readouterr().err == ""


def test_a_slide_cut_between_its_images_opens_with_a_note(path_of_index_last, tmp_path, capfd):
    _, _, following = path_of_index_last
    (tmp_path / "part.svs").write_bytes((tmp_path / "whole.svs").read_bytes()[: following + 1])
    slide = open_slide(tmp_path / "part.svs")
    assert [note.split(":")[0] for note in slide.notes] == ["This file is cut off"]
    assert slide.stored_levels == 1
    assert capfd.readouterr().err == ""
    assert open_slide(tmp_path / "whole.svs").notes == ()


def test_only_the_first_damaged_tile_is_logged_as_a_warning(path, caplog):
    for index in (1, 6, 7):
        offset, size = place_of_tile(path, index)
        overwrite(path, offset, bytes(size))
    slide = open_slide(path)
    slide.levels[0][:]
    assert len(slide.damage) == 3
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.match(r"rows \d+ to \d+, columns \d+ to \d+ of a slide cannot be read and are shown white: its", warning)


@pytest.mark.parametrize("kept", [0, 3, 8, 40, 150])
def test_a_file_cut_before_its_index_is_refused_with_a_sentence(path, tmp_path, kept):
    (tmp_path / "cut.svs").write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SlideError, match=r"cut\.svs (is no|cannot be used)"):
        open_slide(tmp_path / "cut.svs")


def test_a_codec_that_nobody_knows_is_refused_with_a_sentence(tmp_path):
    write_generic(tmp_path / "a.tif", levels=(1,))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(50013)
    with pytest.raises(SlideError, match=r"a\.tif is damaged, or in an unknown variant of TIFF: its first tile"):
        open_slide(tmp_path / "a.tif")


def test_a_file_that_is_no_slide_is_refused_with_a_sentence(tmp_path):
    for name, data in {"a.svs": b"hello " * 50, "b.tif": b"", "c.png": b"II no", "d.doc": b"\xd0\xcf\x11"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SlideError, match=f"{name} is no slide or picture of a kind that can be read"):
            open_slide(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SlideError, match=r"gone\.svs does not exist; check the name, and that its drive"):
        open_slide(tmp_path / "gone.svs")


def test_a_file_that_vanishes_from_its_drive_is_an_error_and_no_damage(path, monkeypatch):
    slide = open_slide(path)
    monkeypatch.setattr("os.pread", lambda *_: (_ for _ in ()).throw(OSError(116, "Stale file handle")))
    with pytest.raises(SlideError, match=r"slide\.svs can no longer be read .*Stale.* its drive is connected"):
        slide.levels[0][:10, :10]
    assert slide.damage == []
    monkeypatch.undo()
    assert slide.levels[0][:10, :10].shape == (10, 10, 3)


def test_a_deleted_file_is_still_read_while_it_is_open(path):
    slide = open_slide(path)
    path.unlink()
    assert np.abs(slide.levels[0][:].astype(int) - tissue()).mean() < 5


def test_a_closed_slide_says_so(path):
    slide = open_slide(path)
    slide.close()
    with pytest.raises(SlideError, match="open it again"):
        slide.levels[0][:10, :10]


def test_an_unreadable_label_does_not_keep_the_slide_from_opening(path):
    offset, size = place_of_tile(path, 0, page=3)
    overwrite(path, offset, b"\xff" * size)
    slide = open_slide(path)
    assert slide.levels[0][:5, :5].shape == (5, 5, 3)
    with pytest.raises(SlideError, match="label image of this slide is damaged"):
        slide.associated["label"]()


@pytest.mark.parametrize("pread", [True, False])
def test_a_source_reads_the_same_with_and_without_pread(tmp_path, monkeypatch, pread):
    if not pread:
        monkeypatch.delattr("os.pread")
    data = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    (tmp_path / "a.bin").write_bytes(data)
    source = ByteSource(str(tmp_path / "a.bin"))
    assert source.read(100, 50) == data[100:150]
    assert source.read(4990, 50) == data[4990:]
    assert source.read(9999, 5) == b""
    source.close()
    with pytest.raises(SlideError, match="closed"):
        source.read(0, 1)


class Remote(io.BytesIO):
    """A file that is read over a network: in small pieces."""

    def read(self, size=-1):
        return super().read(min(size, 1000) if size > 0 else size)


def test_an_opener_stands_for_files_elsewhere(path):
    data, opened = path.read_bytes(), []

    def opener(address):
        opened.append(address)
        return Remote(data)

    slide = open_slide("https://example.org/slide.svs", opener=opener)
    assert set(opened) == {"https://example.org/slide.svs"}
    local = open_slide(path)
    assert slide.shape == (HEIGHT, WIDTH)
    assert slide.fingerprint == local.fingerprint
    for mine, theirs in zip(slide.levels, local.levels, strict=True):
        assert np.array_equal(mine[:], theirs[:])


def test_what_fsspec_returns_is_opened(path):
    class OpenFile:
        def open(self):
            return io.BytesIO(path.read_bytes())

    assert open_slide("memory://slide.svs", opener=lambda _: OpenFile()).shape == (HEIGHT, WIDTH)


def test_the_fingerprint_follows_the_content_and_not_the_place(path, tmp_path):
    first = open_slide(path).fingerprint
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "renamed.svs"
    shutil.copy(path, copy)
    assert open_slide(copy).fingerprint == first
    write_svs(copy, levels=(1, 3))
    assert open_slide(copy).fingerprint != first
