import json
import shutil

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.errors import SlideError, UnsupportedImageError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides import zarr as reader
from napari_nucleiseg.core.slides.pyramid import LevelArray
from napari_nucleiseg.core.slides.registry import can_open, open_slide
from napari_nucleiseg.core.slides.tilecache import shared_cache
from slide_factory import tissue_picture, write_ome_zarr

HEIGHT, WIDTH = 301, 213


@pytest.fixture(scope="module")
def picture():
    return tissue_picture(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def opened(tmp_path_factory, picture):
    path = tmp_path_factory.mktemp("zarr") / "slide.ome.zarr"
    levels = write_ome_zarr(path, picture, shard=128)
    return reader.read(str(path)), levels


@pytest.mark.parametrize(
    ("version", "axes", "shard"),
    [
        ("0.4", "cyx", None),
        ("0.4", "tczyx", None),
        ("0.5", "cyx", None),
        ("0.5", "cyx", 128),
        ("0.5", "tczyx", 128),
        ("0.5", "yxc", None),
        ("0.4", "zcyx", None),
    ],
)
def test_every_layout_is_seen_channel_last(tmp_path, picture, version, axes, shard):
    path = tmp_path / "slide.zarr"
    written = write_ome_zarr(path, picture, version=version, axes=axes, shard=shard)
    assert reader.matches(str(path))
    slide = reader.read(str(path))
    assert slide.mpp_um == YX(0.25, 0.25)
    assert slide.downsamples == (YX(1, 1), YX(2, 2), YX(4, 4))
    assert slide.vendor == f"OME-Zarr {version}"
    for level, truth in zip(slide.levels, written, strict=True):
        assert isinstance(level, LevelArray)
        assert np.array_equal(level, truth)


def index(size):
    bound = st.none() | st.integers(-size - 3, size + 3)
    step = st.none() | st.integers(-9, 9).filter(bool)
    return st.integers(-size, size - 1) | st.builds(slice, bound, bound, step)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), level=st.integers(0, 2))
def test_indexing_a_level_is_indexing_an_array(opened, data, level):
    slide, written = opened
    truth = written[level]
    key = data.draw(
        st.tuples(*(index(size) for size in truth.shape))
        | st.tuples(index(truth.shape[0]))
        | st.tuples(index(truth.shape[0]), index(truth.shape[1]))
        | st.tuples(st.just(...), index(3))
        | index(truth.shape[0])
        | st.just(...)
    )
    got = slide.levels[level][key]
    assert np.shape(got) == truth[key].shape
    assert np.array_equal(got, truth[key])


def test_the_registry_opens_it_and_adds_no_pixel_size(tmp_path, picture):
    path = tmp_path / "anything"
    write_ome_zarr(path, picture, unit=None)
    assert can_open(path)
    slide = open_slide(path)
    assert slide.reader == "zarr"
    assert slide.mpp_um is None
    assert "without a unit" in slide.properties["nucleiseg.pixel-size"]
    assert open_slide(path, mpp_um=0.5).mpp_um == YX(0.5, 0.5)


def test_units_are_converted(tmp_path, picture):
    path = tmp_path / "nm.zarr"
    write_ome_zarr(path, picture, unit="nanometer", mpp_um=250.0)
    assert reader.read(str(path)).mpp_um == pytest.approx((0.25, 0.25))


def test_scales_that_are_no_powers_of_two_are_kept_exactly(tmp_path, picture):
    path = tmp_path / "odd.zarr"
    write_ome_zarr(path, picture, levels=1)
    group = zarr.open_group(path, mode="a")
    third = picture[:300:3, :213:3]
    group.create_array("third", data=np.ascontiguousarray(third.transpose(2, 0, 1)), chunks=(3, 64, 64))
    ome = group.attrs["ome"]
    ome["multiscales"][0]["datasets"].append(
        {"path": "third", "coordinateTransformations": [{"type": "scale", "scale": [1, 0.75, 0.75]}]}
    )
    group.attrs["ome"] = ome
    slide = reader.read(str(path))
    assert slide.downsamples[1] == pytest.approx((3, 3))
    assert np.array_equal(slide.levels[1], third)


def test_scales_that_contradict_the_sizes_are_not_believed(tmp_path, picture):
    path = tmp_path / "wrong.zarr"
    write_ome_zarr(path, picture)
    metadata = json.loads((path / "zarr.json").read_text())
    for dataset in metadata["attributes"]["ome"]["multiscales"][0]["datasets"]:
        dataset["coordinateTransformations"][0]["scale"] = [1.0, 0.25, 0.25]
    (path / "zarr.json").write_text(json.dumps(metadata))
    assert reader.read(str(path)).downsamples == (YX(1, 1), YX(2, 2), YX(4, 4))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_collection_opens_its_first_image(tmp_path, picture, version):
    path = tmp_path / "collection.zarr"
    written = write_ome_zarr(path, picture, version=version, group="0")
    write_ome_zarr(path, picture[:50, :50], version=version, group="1")
    root = zarr.open_group(path, mode="a")
    layout = {"bioformats2raw.layout": 3}
    root.attrs.update({"ome": {"version": "0.5", **layout}} if version == "0.5" else layout)
    assert np.array_equal(reader.read(str(path)).levels[0], written[0])


def test_regions_are_read_like_from_any_slide(opened):
    slide, written = opened
    assert np.array_equal(slide.read_region(Region(10, 20, 100, 90)), written[0][10:110, 20:110])
    assert (slide.read_region(Region(-10, -10, 5, 5)) == 255).all()


@pytest.mark.parametrize(
    ("channels", "dtype", "labels", "sentence"),
    [
        (4, np.uint8, ("DAPI", "FITC", "Cy3", "Cy5"), r"has 4 channels \(DAPI, FITC, Cy3, Cy5\), as in fluorescence"),
        (1, np.uint8, (), r"has 1 channel, as in fluorescence; models need 8-bit RGB"),
        (3, np.uint8, ("DAPI", "GFP", "mCherry"), r"has 3 channels \(DAPI, GFP, mCherry\), as in fluorescence"),
        (3, np.uint16, ("R", "G", "B"), r"has uint16 channels \(R, G, B\); models need 8-bit RGB. Save it as 8-bit"),
    ],
)
def test_what_is_not_8_bit_rgb_is_refused_with_its_channels(tmp_path, channels, dtype, labels, sentence):
    path = tmp_path / "other.zarr"
    write_ome_zarr(path, np.zeros((64, 64, channels), dtype), levels=1, labels=labels)
    with pytest.raises(UnsupportedImageError, match=sentence):
        open_slide(path)


def test_stacks_labels_and_plates_are_refused(tmp_path, picture):
    path = tmp_path / "stack.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.create_array("0", shape=(5, 3, 64, 64), dtype="uint8")
    axes = [{"name": name} for name in "zcyx"]
    root.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    with pytest.raises(UnsupportedImageError, match="a stack of 5 images along z; save the one"):
        reader.read(str(path))
    write_ome_zarr(tmp_path / "labels.zarr", picture, attributes={"image-label": {}})
    with pytest.raises(UnsupportedImageError, match="holds labels, not a picture"):
        reader.read(str(tmp_path / "labels.zarr"))
    write_ome_zarr(tmp_path / "plate.zarr", picture, attributes={"plate": {}})
    with pytest.raises(UnsupportedImageError, match="is a plate of many images; open one"):
        reader.read(str(tmp_path / "plate.zarr"))


def damaged(path, change):
    metadata = json.loads((path / "zarr.json").read_text())
    change(metadata["attributes"]["ome"]["multiscales"][0])
    (path / "zarr.json").write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda image: image.pop("datasets"), "lists no resolution levels"),
        (lambda image: image["datasets"].append({"path": "9"}), "lacks its level '9'; copy the whole folder"),
        (lambda image: image["datasets"].append("nonsense"), "in its level ''|lacks its level ''"),
        (lambda image: image.update(axes=["c", "y"]), "an image needs y and x"),
        (lambda image: image.update(axes=[1, 2, 3]), "damaged OME-Zarr metadata"),
        (lambda image: image["axes"].insert(0, {"name": "t"}), "has 3 axes but describes"),
    ],
)
def test_damaged_metadata_are_a_sentence(tmp_path, picture, change, sentence):
    path = tmp_path / "bad.zarr"
    write_ome_zarr(path, picture)
    damaged(path, change)
    with pytest.raises(SlideError, match=sentence):
        reader.read(str(path))


def test_zarr_without_an_image_is_a_sentence(tmp_path):
    zarr.open_group(tmp_path / "empty.zarr", mode="w").create_array("numbers", shape=(3,), dtype="f4")
    with pytest.raises(SlideError, match="has no OME-Zarr image in it"):
        reader.read(str(tmp_path / "empty.zarr"))
    (tmp_path / "empty.zarr" / "zarr.json").write_text("{ half")
    with pytest.raises(SlideError, match="cannot be read as OME-Zarr"):
        reader.read(str(tmp_path / "empty.zarr"))


def test_a_corrupt_chunk_is_marked_and_the_rest_goes_on(tmp_path, picture):
    path = tmp_path / "corrupt.zarr"
    written = write_ome_zarr(path, picture, levels=1)
    chunk = path / "0" / "c" / "0" / "1" / "2"
    chunk.write_bytes(chunk.read_bytes()[:20])
    slide = reader.read(str(path))
    pixels = np.asarray(slide.levels[0])
    assert [found.region for found in slide.damage] == [Region(64, 128, 64, 64)]
    assert (pixels[64:128, 128:192] == 255).all()
    assert np.array_equal(pixels[:64], written[0][:64])


def test_a_store_that_went_away_is_no_black_picture(tmp_path, picture):
    path = tmp_path / "gone.zarr"
    write_ome_zarr(path, picture, levels=1)
    slide = reader.read(str(path))
    shutil.rmtree(path)
    with pytest.raises(SlideError, match="can no longer be read; check that its drive is connected"):
        slide.levels[0][:10, :10]


def test_closing_gives_the_cache_back(tmp_path, picture):
    path = tmp_path / "slide.zarr"
    write_ome_zarr(path, picture)
    before = shared_cache().bytes
    slide = reader.read(str(path))
    slide.levels[0][...]
    assert shared_cache().bytes > before
    slide.close()
    assert shared_cache().bytes == before


def test_a_remote_store_is_a_sentence(tmp_path, picture):
    sentence = r"a\.zarr is OME-Zarr in a remote store, which is not supported yet; copy the whole folder to a disk"
    for opener in (None, open):
        with pytest.raises(SlideError, match=sentence):
            reader.read("https://example.org/a.zarr", opener=opener)
    write_ome_zarr(tmp_path / "a.zarr", picture)
    for path in ("https://example.org/a.zarr/", str(tmp_path / "a.zarr")):
        with pytest.raises(SlideError, match=r"a\.zarr/? is OME-Zarr in a remote store"):
            open_slide(path, opener=open)


@pytest.mark.parametrize("path", ["", "nowhere", "/dev/null", "a\0b", "https://example.org/slide.png"])
def test_matching_never_raises(path):
    assert not reader.matches(path)
