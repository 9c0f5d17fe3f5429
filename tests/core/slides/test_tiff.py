"""TIFF slides: pixels, levels, sizes and metadata of every kind we can write, and of the real ones."""

import gc
import tracemalloc

import cv2
import numpy as np
import pytest
import skimage.metrics
import tifffile
from slide_files import APERIO, CASES, HEIGHT, WIDTH, smaller, tissue, write_generic, write_ome, write_svs

from napari_nucleiseg.core.errors import SlideError, UnsupportedImageError
from napari_nucleiseg.core.slides import tiff
from napari_nucleiseg.core.slides.registry import open_slide


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def slide(case, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiff") / case.name
    case.write(str(path))
    slide = tiff.read(str(path))
    yield slide
    slide.close()


def test_levels_have_the_sizes_and_exact_downsamples_that_were_written(case, slide):
    assert [level.shape for level in slide.levels] == [(HEIGHT // f, WIDTH // f, 3) for f in case.factors]
    assert [tuple(factor) for factor in slide.downsamples] == [(f, f) for f in case.factors]


def test_every_level_holds_the_pixels_that_were_written(case, slide):
    for level, factor in zip(slide.levels, case.factors, strict=True):
        difference = np.abs(np.asarray(level).astype(int) - smaller(tissue(), factor))
        assert difference.mean() <= case.tolerance


def test_a_tile_that_only_passes_through_is_the_one_that_would_be_kept(slide):
    for level in slide.levels:
        level.forget()
        rows, cols = (-(-size // side) for size, side in zip(level.shape, level.tile_shape, strict=False))
        for row, col in np.ndindex(rows, cols):
            passing = level.passing_tile(row, col).copy()
            assert np.array_equal(passing, level.tile(row, col))


def test_a_damaged_tile_that_passes_through_is_white_and_recorded_once(tmp_path):
    write_svs(tmp_path / "a.svs")
    with tifffile.TiffFile(tmp_path / "a.svs") as file:
        offset, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    with (tmp_path / "a.svs").open("r+b") as file:
        file.seek(offset + size // 2)
        file.write(bytes(range(256)) * (size // 2 // 256))
    slide = tiff.read(str(tmp_path / "a.svs"))
    assert (slide.levels[0].passing_tile(0, 0) == 255).all()
    assert (slide.levels[0].tile(0, 0) == 255).all()
    assert len(slide.damage) == 1
    assert slide.levels[0].passing_tile(0, 1).std() > 5


def test_pixel_size_objective_and_maker_are_what_the_file_says(case, slide):
    if case.mpp_um is None:
        assert slide.mpp_um is None
    else:
        assert slide.mpp_um == pytest.approx((case.mpp_um, case.mpp_um), rel=1e-6)
    assert slide.objective_power == case.objective
    assert slide.vendor == case.vendor


def test_label_macro_and_thumbnail_are_no_levels(case, slide):
    assert set(slide.associated) == case.associated
    for load in slide.associated.values():
        image = load()
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert image.std() > 5


def test_associated_images_hold_what_was_written(tmp_path):
    write_svs(tmp_path / "a.svs")
    slide = tiff.read(str(tmp_path / "a.svs"))
    assert np.array_equal(slide.associated["label"](), tissue(60, 50))
    assert np.abs(slide.associated["macro"]().astype(int) - tissue(40, 120)).mean() < 4
    assert slide.associated["thumbnail"]().shape == (HEIGHT // 7, WIDTH // 7, 3)


def test_an_svs_without_a_thumbnail_keeps_its_second_level(tmp_path):
    # Readers that take the second page for the thumbnail whatever it is lose a level here.
    text = APERIO.format(height=HEIGHT, width=WIDTH)
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:
        for image in (tissue(), smaller(tissue(), 2), smaller(tissue(), 4)):
            file.write(image, tile=(128, 128), description=text, metadata=None, photometric="rgb")
    slide = tiff.read(str(tmp_path / "a.svs"))
    assert [factor.y for factor in slide.downsamples] == [1, 2, 4]
    assert dict(slide.associated) == {}


def test_the_reason_for_ignoring_a_printing_resolution_is_kept(tmp_path):
    write_generic(tmp_path / "a.tif", resolution=(72, 72), unit="INCH")
    slide = open_slide(tmp_path / "a.tif")
    assert slide.mpp_um is None
    assert "resolution tag says 352.78 x 352.78 µm, which no slide has" in slide.properties["nucleiseg.pixel-size"]


def test_a_profile_is_kept_as_it_is(tmp_path):
    write_generic(tmp_path / "a.tif", iccprofile=b"not a real profile, kept all the same")
    assert tiff.read(str(tmp_path / "a.tif")).icc_profile == b"not a real profile, kept all the same"


def _write_plain(path, image, **options):
    tifffile.imwrite(path, image, metadata=None, **options)
    return tiff.read(str(path))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 16},
        {"rowsperstrip": 1, "compression": "lzw"},
        {"rowsperstrip": 33, "compression": "deflate", "predictor": True},
        {"compression": "zstd"},
        {"byteorder": ">"},
    ],
    ids=str,
)
def test_pictures_in_strips_are_read_exactly(tmp_path, options):
    slide = _write_plain(tmp_path / "a.tif", tissue(), photometric="rgb", **options)
    assert np.array_equal(np.asarray(slide.levels[0]), tissue())
    assert np.array_equal(slide.levels[0][300:301, 517:900:3], tissue()[300:301, 517:900:3])


def test_full_width_strips_are_not_offered_as_chunks(tmp_path):
    strips = _write_plain(tmp_path / "a.tif", tissue(), photometric="rgb", rowsperstrip=16, compression="lzw")
    assert not hasattr(strips.levels[0], "chunks")
    for level in open_slide(tmp_path / "a.tif").levels:
        assert not hasattr(level, "chunks")
    tiles = _write_plain(tmp_path / "b.tif", tissue(), photometric="rgb", tile=(128, 128))
    assert tiles.levels[0].chunks == (128, 128, 3)


def test_colours_stored_apart_are_put_together(tmp_path):
    planes = np.moveaxis(tissue(), -1, 0)
    for number, options in enumerate(({}, {"tile": (256, 256)}, {"tile": (256, 256), "compression": "lzw"})):
        slide = _write_plain(tmp_path / f"{number}.tif", planes, photometric="rgb", planarconfig="separate", **options)
        assert np.array_equal(np.asarray(slide.levels[0]), tissue())


def test_grey_becomes_three_equal_colours(tmp_path):
    grey = np.ascontiguousarray(tissue()[..., 0])
    slide = _write_plain(tmp_path / "a.tif", grey, photometric="minisblack", tile=(256, 256))
    assert np.array_equal(np.asarray(slide.levels[0]), np.repeat(grey[..., None], 3, -1))
    slide = _write_plain(tmp_path / "b.tif", grey, photometric="miniswhite")
    assert np.array_equal(np.asarray(slide.levels[0])[..., 1], 255 - grey)


def test_a_palette_is_looked_up(tmp_path):
    index = np.arange(256, dtype=np.uint8).reshape(16, 16)
    palette = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 7)]).astype(np.uint16) * 257
    slide = _write_plain(tmp_path / "a.tif", index, photometric="palette", colormap=palette)
    assert np.array_equal(np.asarray(slide.levels[0]), (palette >> 8).T.astype(np.uint8)[index])


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_transparency_is_laid_over_white(tmp_path, kind):
    alpha = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    alpha[:, 300:600] = 128
    alpha[:, 600:] = 255
    colour = tissue() if kind == "unassalpha" else (tissue().astype(float) * alpha / 255).round().astype(np.uint8)
    slide = _write_plain(
        tmp_path / "a.tif", np.concatenate([colour, alpha], -1), photometric="rgb", extrasamples=[kind], tile=(256, 256)
    )
    expected = tissue() * (alpha / 255) + 255 * (1 - alpha / 255)
    assert np.abs(np.asarray(slide.levels[0]) - expected).max() <= 1.01


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bit_colour_is_scaled_by_the_bits_in_use(tmp_path, bits):
    full = 2**bits - 1
    deep = (tissue() / 255.0 * full).round().astype(np.uint16)
    slide = _write_plain(tmp_path / "a.tif", deep, photometric="rgb", tile=(256, 256))
    assert np.abs(np.asarray(slide.levels[0]).astype(int) - tissue()).max() <= 1


def test_float_colour_of_nought_to_one_is_scaled(tmp_path):
    slide = _write_plain(tmp_path / "a.tif", (tissue() / 255.0).astype(np.float32), photometric="rgb")
    assert np.array_equal(np.asarray(slide.levels[0]), tissue())


def test_one_pixel_is_a_slide(tmp_path):
    slide = _write_plain(tmp_path / "a.tif", np.full((1, 1, 3), 77, np.uint8), photometric="rgb")
    assert slide.shape == (1, 1)
    assert np.asarray(slide.levels[0]).tolist() == [[[77, 77, 77]]]


def test_an_image_without_pixels_is_refused_with_a_sentence(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", tissue(20, 30), photometric="rgb", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags["ImageLength"].overwrite(0)
    with pytest.raises(UnsupportedImageError, match=r"a\.tif cannot be used: it .*without"):
        open_slide(tmp_path / "a.tif")


def test_an_image_that_says_two_sizes_is_refused_with_a_sentence(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", tissue(20, 30), photometric="rgb")  # its description states the shape too
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags["ImageWidth"].overwrite(0)
    with pytest.raises(SlideError, match=r"a\.tif is no readable TIFF: the list of its images is damaged"):
        open_slide(tmp_path / "a.tif")


def test_fluorescence_is_refused_by_the_names_of_its_channels(tmp_path):
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3", "CD20", "PanCK"]}}
    image = np.zeros((4, 300, 300), np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", image, ome=True, metadata=metadata, photometric="minisblack")
    with pytest.raises(UnsupportedImageError, match=r"4 .*channels \(DAPI, CD3, CD20, PanCK\).* grey picture"):
        open_slide(tmp_path / "a.ome.tif")


def test_three_channels_named_for_colours_are_a_picture(tmp_path):
    metadata = {"axes": "CYX", "Channel": {"Name": ["Red", "Green", "Blue"]}}
    planes = np.ascontiguousarray(np.moveaxis(tissue(), -1, 0))
    tifffile.imwrite(
        tmp_path / "a.ome.tif", planes, ome=True, metadata=metadata, photometric="minisblack", tile=(256, 256)
    )
    assert np.array_equal(np.asarray(open_slide(tmp_path / "a.ome.tif").levels[0]), tissue())


def test_many_samples_a_pixel_are_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((300, 300, 7), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(UnsupportedImageError, match="7 channels a pixel"):
        open_slide(tmp_path / "a.tif")


def test_a_label_image_is_told_from_a_picture(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((300, 300), np.uint32), tile=(256, 256))
    with pytest.raises(UnsupportedImageError, match="Open labels as labels"):
        open_slide(tmp_path / "a.tif")


def test_the_middle_of_a_focus_stack_is_shown_and_said(tmp_path):
    stack = np.stack([np.full((300, 300, 3), value, np.uint8) for value in (10, 20, 30)])
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, ome=True, metadata={"axes": "ZYXS"}, photometric="rgb")
    slide = open_slide(tmp_path / "a.ome.tif")
    assert slide.levels[0][0, 0].tolist() == [20, 20, 20]
    assert slide.properties["nucleiseg.plane.Z"] == "1 of 3"


def test_slide_next_to_its_label_in_ome_is_the_larger_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(tissue(60, 50), photometric="rgb", metadata={"axes": "YXS", "Name": "label"})
        file.write(
            tissue(),
            photometric="rgb",
            tile=(256, 256),
            metadata={"axes": "YXS", "Name": "scan", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        )
    slide = open_slide(tmp_path / "a.ome.tif")
    assert slide.shape == (HEIGHT, WIDTH)
    assert slide.mpp_um == (0.5, 0.5)
    assert np.array_equal(slide.associated["label"](), tissue(60, 50))


def test_ome_states_the_objective(tmp_path):
    write_ome(tmp_path / "a.ome.tif")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        text = file.ome_metadata
    instrument = '<Instrument ID="Instrument:0"><Objective ID="Objective:0" NominalMagnification="40.0"/></Instrument>'
    text = text.replace("<Image ", instrument + "<Image ", 1)
    tifffile.tiffcomment(tmp_path / "a.ome.tif", text.encode())
    assert open_slide(tmp_path / "a.ome.tif").objective_power == 40.0


def test_imagej_states_micrometres(tmp_path):
    options = {"imagej": True, "resolution": (4, 2), "metadata": {"unit": "um"}, "photometric": "rgb"}
    tifffile.imwrite(tmp_path / "a.tif", tissue(300, 300), **options)
    slide = open_slide(tmp_path / "a.tif")
    assert (slide.vendor, slide.mpp_um) == ("imagej", (0.5, 0.25))


def test_a_label_that_cannot_be_shown_does_not_keep_the_slide_from_opening(tmp_path, caplog):
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:
        text = APERIO.format(height=HEIGHT, width=WIDTH)
        file.write(tissue(), tile=(256, 256), description=text, metadata=None, photometric="rgb")
        file.write(np.zeros((40, 50, 4), np.uint8), photometric="separated", metadata=None)
    slide = open_slide(tmp_path / "a.svs")
    assert dict(slide.associated) == {}
    assert "its thumbnail image is left out" in caplog.text


def test_a_picture_compressed_in_one_piece_is_decoded_once(tmp_path, monkeypatch):
    from napari_nucleiseg.core.slides import tiffpage, tilecache, virtual

    asked, read = [], tiffpage.PageTiles.read_tile
    monkeypatch.setattr(tiffpage.PageTiles, "read_tile", lambda *args: asked.append(args[1:]) or read(*args))
    monkeypatch.setattr(tilecache.shared_cache(), "_max_bytes", 1000)
    for module in (tiff, virtual):
        monkeypatch.setattr(module, "LARGEST_STRIP_BYTES", 1000)
    tifffile.imwrite(tmp_path / "a.tif", tissue(1500, 1400), compression="deflate", rowsperstrip=1500, metadata=None)
    slide = open_slide(tmp_path / "a.tif")
    for level in reversed(slide.levels):
        level[10:20, 10:20]
    assert asked == [(0, 0)]
    assert max(slide.levels[1].chunks) <= 1024


def test_a_picture_in_one_piece_larger_than_memory_is_refused(tmp_path, monkeypatch):
    from napari_nucleiseg.core.slides import capacity

    monkeypatch.setattr(tiff, "LARGEST_STRIP_BYTES", 1000)
    monkeypatch.setattr(capacity, "memory_bytes", lambda: 1_000_000)
    tifffile.imwrite(tmp_path / "a.tif", tissue(), compression="deflate", rowsperstrip=HEIGHT, metadata=None)
    with pytest.raises(SlideError, match="too much for the 0 GiB of this computer; save it as a tiled pyramid"):
        open_slide(tmp_path / "a.tif")


REAL = {
    "wsi/cmu-1-small-region.svs": ((2967, 2220), 1, 0.499, 20.0),
    "wsi/tcga-cr-7395-01a-01-ts1.svs": ((3567, 4443), 2, None, None),
    "wsi/OS-1-detail.ome.tif": ((1101, 1101), 1, 0.2271, None),
    "wsi_mosaic_dev/tnbc_dev_mosaic_40x.tiff": ((3328, 4096), 4, 0.25, None),
    "wsi_mosaic_dev/tnbc_dev_mosaic_40x.ome.tif": ((3328, 4096), 4, 0.25, None),
}


@pytest.mark.parametrize("name", REAL)
def test_real_slides_agree_with_openslide(shared_data, name):
    openslide = pytest.importorskip("openslide")
    shape, levels, mpp_um, objective = REAL[name]
    slide = tiff.read(str(shared_data / name))
    assert (slide.shape, len(slide.levels), slide.objective_power) == (shape, levels, objective)
    assert slide.mpp_um is None if mpp_um is None else slide.mpp_um == pytest.approx((mpp_um, mpp_um), rel=1e-3)
    if openslide.OpenSlide.detect_format(str(shared_data / name)) is None:
        assert name == "wsi/OS-1-detail.ome.tif"
        return
    other = openslide.OpenSlide(str(shared_data / name))
    for index, (width, height) in enumerate(other.level_dimensions):
        theirs = np.asarray(other.read_region((0, 0), index, (width, height)).convert("RGB"))
        ours = np.asarray(slide.levels[index])
        assert ours.shape == theirs.shape
        assert cv2.absdiff(ours, np.ascontiguousarray(theirs)).max() <= 3
    for key, image in other.associated_images.items():
        mine = slide.associated[key]()
        assert skimage.metrics.normalized_root_mse(np.asarray(image.convert("RGB")), mine) < 0.02


def test_the_index_of_an_open_slide_takes_a_few_bytes_a_tile(tmp_path):
    path = str(tmp_path / "many.tif")
    tifffile.imwrite(path, np.zeros((2048, 2048), np.uint8), tile=(16, 16))
    tiff.read(path).close()
    gc.collect()
    gc.disable()  # it comes by when it likes: what it alone would free counts as held
    tracemalloc.start()
    try:
        slide = open_slide(path)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()
    slide.close()
    assert held / 128**2 < 32
