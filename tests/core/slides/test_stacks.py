"""Stacks open with their z axis and voxel size; what is no stack stays with the other readers."""

import copy

import numpy as np
import pytest
import tifffile
import zarr

from napari_nucleiseg.core.errors import SlideError, UnsupportedImageError
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.stacks import is_stack, open_image, open_stack
from stack_parts import write_stack

GREY = np.random.default_rng(0).integers(0, 60000, (6, 40, 50)).astype(np.uint16)


def write_zarr(path, array, axes, scale, unit="micrometer"):
    """An OME-Zarr 0.5 image of one level."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    level = group.create_array("0", shape=array.shape, dtype=array.dtype, chunks=(1,) * (array.ndim - 2) + (32, 32))
    level[:] = array
    space = {"type": "space", "unit": unit}
    facts = [{"name": axis, **(space if axis in "zyx" else {"type": "channel"})} for axis in axes]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": facts, "datasets": datasets}]}
    return path


def plain(path):
    tifffile.imwrite(path, GREY)


def pages(path):
    with tifffile.TiffWriter(path) as tiff:
        for plane in GREY:
            tiff.write(plane, contiguous=False, metadata=None)


@pytest.mark.parametrize("name", ["a.ome.tif", "a.tif"])
def test_voxel_size_comes_from_ome_and_imagej(name, tmp_path):
    path = write_stack(tmp_path / name, GREY, (2.0, 0.5, 0.5))
    assert is_stack(path)
    stack = open_image(path)
    assert stack.voxel_um == pytest.approx((2.0, 0.5, 0.5))
    assert stack.notes == ()
    volume = stack.channel(0)
    assert np.array_equal(np.asarray(volume), GREY)
    assert copy.deepcopy(volume) is volume  # as napari copies a layer


@pytest.mark.parametrize("write", [plain, pages])
def test_many_planes_without_a_name_are_a_stack_of_unknown_voxels(write, tmp_path):
    path = tmp_path / "planes.tif"
    write(path)
    stack = open_image(path)
    assert stack.channel(0).shape == GREY.shape
    assert stack.voxel_um is None
    assert stack.notes == ("This file does not say how large its voxels are.",)


def test_a_few_planes_without_a_name_may_be_channels(tmp_path):
    path = tmp_path / "channels.tif"
    tifffile.imwrite(path, GREY[:3], photometric="minisblack")
    assert not is_stack(path)
    with pytest.raises(UnsupportedImageError, match=r"channels of fluorescence.*segment-stack"):
        open_image(path)


def test_each_channel_is_a_volume_of_its_own(tmp_path):
    path = tmp_path / "two.ome.tif"
    both = GREY.reshape(2, 3, 40, 50)
    tifffile.imwrite(path, both, metadata={"axes": "CZYX", "Channel": {"Name": ["DAPI", "Actin"]}})
    stack = open_stack(path)
    assert stack.channels == ("DAPI", "Actin")
    for number in (0, 1):
        volume = stack.channel(number)
        assert (volume.ndim, volume.size, len(volume)) == (3, 6000, 3)
        assert np.array_equal(volume[1, ..., 4:9], both[number, 1, :, 4:9])
        assert np.array_equal(volume[..., 7], both[number, ..., 7])
    with pytest.raises(UnsupportedImageError, match=r"has no channel 2; its channels are 0 DAPI, 1 Actin"):
        stack.channel(2)


def test_zarr_stacks_open_with_their_scale(tmp_path):
    path = write_zarr(tmp_path / "a.zarr", GREY[None], "czyx", [1.0, 1500.0, 250.0, 300.0], "nanometer")
    assert is_stack(path)
    stack = open_image(path)
    assert stack.voxel_um == pytest.approx((1.5, 0.25, 0.3))
    assert np.array_equal(np.asarray(stack.channel(0)), GREY)
    with pytest.raises(UnsupportedImageError, match=r"stack of 6 images along z; .* napari-nucleiseg segment-stack"):
        open_slide(write_zarr(tmp_path / "b.zarr", np.stack([GREY] * 3), "czyx", [1.0] * 4))


def test_the_first_point_in_time_is_shown_and_said(tmp_path):
    path = tmp_path / "movie.ome.tif"
    tifffile.imwrite(path, GREY.reshape(2, 3, 40, 50), metadata={"axes": "TZYX"})
    stack = open_stack(path)
    assert "2 points in time; the first is shown" in stack.notes[0]
    assert np.array_equal(np.asarray(stack.channel(0)), GREY[:3])


def test_focal_planes_of_a_slide_in_colour_stay_a_slide_and_its_note_names_the_way(tmp_path):
    path = tmp_path / "focus.ome.tif"
    colour = np.zeros((3, 64, 64, 3), np.uint8)
    tifffile.imwrite(path, colour, metadata={"axes": "ZYXS"}, photometric="rgb")
    assert not is_stack(path)
    slide = open_image(path)
    assert "To use all planes: napari-nucleiseg segment-stack." in slide.notes[0]
    slide.close()
    assert open_stack(path).channel(0).shape == (3, 64, 64, 3)


def test_what_is_no_stack_is_refused_in_a_sentence(tmp_path):
    flat = tmp_path / "flat.tif"
    tifffile.imwrite(flat, GREY[0])
    assert not is_stack(flat)
    with pytest.raises(UnsupportedImageError, match=r"flat\.tif cannot be used as a stack: it has no planes along z"):
        open_stack(flat)
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0" + b"\xff" * 50)
    assert not is_stack(broken)
    with pytest.raises(SlideError, match=r"broken\.tif cannot be used as a stack: it is a TIFF without"):
        open_stack(broken)
    with pytest.raises(SlideError, match="does not exist"):
        open_stack(tmp_path / "missing.tif")
    assert not is_stack(tmp_path)
    assert not is_stack("https://example.org/a.tif")


def test_a_voxel_size_that_cannot_be_is_not_believed(tmp_path):
    assert open_stack(write_stack(tmp_path / "a.ome.tif", GREY, (0.0, 0.5, 0.5))).voxel_um is None
    assert open_stack(write_stack(tmp_path / "b.ome.tif", GREY, (5000.0, 0.5, 0.5))).voxel_um is None
