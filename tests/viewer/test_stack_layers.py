"""Stacks become layers with a z axis and micrometres, and layers say which stack they show."""

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_nucleiseg.viewer.reader import get_reader
from napari_nucleiseg.viewer.stack_layers import HOW, add_layers, labels_layer, shows_stack, volume_of, voxel_of
from stack_parts import balls, write_stack


def opened(path):
    return [Layer.create(*data) for data in get_reader(str(path))(str(path))]


def test_a_stack_opens_in_micrometres_with_its_z_axis(tmp_path):
    image, _ = balls(4)
    (layer,) = opened(write_stack(tmp_path / "cells.ome.tif", image))
    assert layer.name == "cells"
    assert (layer.ndim, layer.rgb, layer.multiscale) == (3, False, False)
    assert layer.scale == pytest.approx((1.0, 0.5, 0.5))
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    assert not layer.metadata["needs_voxel"]
    assert 0 <= layer.contrast_limits[0] < 20
    assert layer.contrast_limits[1] > 150
    assert shows_stack(layer)
    assert voxel_of(layer) == (1.0, 0.5, 0.5)
    assert np.array_equal(np.asarray(volume_of(layer)), image)


def test_channels_are_layers_of_their_own_colour(tmp_path):
    path = tmp_path / "two.ome.tif"
    image, _ = balls(4)
    both = np.stack([image, image // 2])
    tifffile.imwrite(path, both, metadata={"axes": "CZYX", "Channel": {"Name": ["DAPI", "Actin"]}})
    first, second = opened(path)
    assert (first.name, second.name) == ("two DAPI", "two Actin")
    assert (first.colormap.name, second.colormap.name) == ("blue", "green")
    assert second.blending == "additive"
    assert voxel_of(first) is None
    assert first.metadata["needs_voxel"]


def test_who_opens_one_is_told_what_can_be_done(tmp_path):
    image, _ = balls(4)
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, image)
    viewer = ViewerModel()
    read = get_reader(str(plain))
    assert add_layers(viewer, read(str(plain))) == f"This file does not say how large its voxels are. {HOW}"
    assert viewer.dims.ndim == 3
    flat = tmp_path / "flat.tif"
    tifffile.imwrite(flat, np.zeros((64, 64, 3), np.uint8))
    assert add_layers(viewer, get_reader(str(flat))(str(flat))) == ""


def test_only_images_of_three_dimensions_are_stacks():
    assert not shows_stack(Image(np.zeros((8, 8))))
    assert not shows_stack(Image(np.zeros((2, 3, 8, 8))))
    assert not shows_stack(Image(np.zeros((1, 8, 8))))
    assert not shows_stack(Image(np.zeros((8, 8, 3), np.uint8), rgb=True))
    levels = Image([np.zeros((8, 64, 64)), np.zeros((8, 32, 32))], multiscale=True)
    assert shows_stack(levels)
    assert volume_of(levels).shape == (8, 64, 64)


def test_units_of_length_are_converted():
    layer = Image(np.zeros((4, 8, 8)), scale=(2000, 500, 250), units=("nm", "nm", "nm"))
    assert voxel_of(layer) == pytest.approx((2.0, 0.5, 0.25))
    labels = labels_layer(layer, np.zeros((4, 8, 8), np.int32))
    assert labels.scale == pytest.approx(layer.scale)
    assert labels.units == layer.units
