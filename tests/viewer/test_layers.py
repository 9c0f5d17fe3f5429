import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.viewer.layers import heatmap_layer, placement, slide_layer, slide_of
from napari_nucleiseg.viewer.opened import OpenedSlide
from napari_nucleiseg.viewer.reader import read_slides


@pytest.fixture
def slide():
    levels = tuple(np.full((960 // f, 1280 // f, 3), 255 // f, np.uint8) for f in (1, 2, 4))
    return Slide(
        path="/somewhere/a slide.svs",
        levels=levels,
        downsamples=(YX(1, 1), YX(2, 2), YX(4, 4)),
        mpp_um=YX(0.25, 0.26),
        objective_power=40,
        vendor="aperio",
        bounds=Region(10, 20, 30, 40),
        fingerprint="f" * 32,
    )


def added(viewer_model, data):
    from napari.layers import Layer

    return viewer_model.add_layer(Layer.create(*data))


@pytest.fixture
def model():
    from napari.components import ViewerModel

    return ViewerModel()


def test_slides_are_in_micrometres(model, slide):
    layer = added(model, slide_layer(slide))
    assert layer.name == "a slide"
    assert layer.multiscale
    assert layer.rgb
    assert layer.scale == pytest.approx([0.25, 0.26])
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
    assert layer.axis_labels == ("y", "x")
    assert slide_of(layer) is slide
    assert layer.metadata["bounds"] == (10, 20, 30, 40)
    assert layer.metadata["mpp_um"] == (0.25, 0.26)
    assert not layer.metadata["needs_mpp"]


def test_a_layer_is_called_as_its_slide_without_endings(slide):
    assert slide_layer(replace(slide, path="/somewhere/a slide.ome.tif"))[1]["name"] == "a slide"


def test_napari_gets_the_lazy_levels_themselves(slide):
    data, _, kind = slide_layer(slide)
    assert kind == "image"
    assert all(given is level for given, level in zip(data, slide.levels, strict=True))


def test_a_slide_without_pixel_size_stays_in_pixels(model, slide):
    layer = added(model, slide_layer(replace(slide, mpp_um=None)))
    assert layer.scale == pytest.approx([1, 1])
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]
    assert layer.metadata["needs_mpp"]


def test_a_pixel_size_given_later_moves_all_layers(model, slide):
    layer = added(model, slide_layer(replace(slide, mpp_um=None)))
    opened = OpenedSlide(layer.metadata["slide"], layer)
    opened.set_pixel_size(YX(0.5, 0.5))
    assert slide_of(layer).mpp_um == YX(0.5, 0.5)
    assert layer.scale == pytest.approx([0.5, 0.5])
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]


@pytest.mark.parametrize("step", [1.0, 2.0, 2.5, 4.0])
def test_pixels_of_a_heatmap_lie_over_what_they_were_made_of(model, slide, step):
    shape = (int(960 / step), int(1280 / step))
    image = added(model, slide_layer(slide))
    heat = heatmap_layer([np.zeros(shape, np.uint8)], slide, "probability", YX(step, step))
    # Corners of the first pixel: half a pixel before its centre, in both layers.
    assert heat.data_to_world((-0.5, -0.5)) == pytest.approx(image.data_to_world((-0.5, -0.5)))
    last = np.array(shape) - 0.5
    assert heat.data_to_world(last) == pytest.approx(image.data_to_world(last * step + (step - 1) / 2 + 0.0))


def test_a_heatmap_is_see_through_where_it_says_nothing(slide):
    heat = heatmap_layer([np.zeros((96, 128), np.uint8)], slide, "probability", YX(10, 10))
    nothing, everything = heat.colormap.map(np.array([0.0, 1.0]))
    assert nothing[3] == 0
    assert everything[3] > 0.5
    assert heat.contrast_limits == [0, 255]


def test_placement_without_pixel_size_is_in_pixels():
    assert placement(None)["units"] == ("pixel", "pixel")
    assert placement(None)["scale"] == (1, 1)


def test_a_heatmap_shown_again_stays_the_same_layer(model, slide):
    opened = OpenedSlide(slide, added(model, slide_layer(slide)))
    first, second = ([np.full((96, 128), value, np.uint8)] for value in (10, 20))
    opened.show_heatmap(model, first, "probability", YX(10, 10))
    shown = opened.heatmap
    opened.show_heatmap(model, second, "probability", YX(10, 10))
    assert opened.heatmap is shown
    assert shown.data[0][0, 0] == 20
    opened.show_heatmap(model, second, "edges", YX(10, 10))
    assert opened.heatmap is not shown
    assert [layer.name for layer in model.layers[1:]] == [opened.heatmap.name]


def test_nuclei_whose_layer_is_gone_are_shown_anew(model, slide):
    def project():
        return SimpleNamespace(labels=SimpleNamespace(levels=[np.zeros((960, 1280), np.uint32)]))

    opened = OpenedSlide(slide, added(model, slide_layer(slide)), project=project())
    assert opened.show_nuclei(model, visible=True)
    model.layers.remove(opened.nuclei)
    opened.project = project()
    assert opened.show_nuclei(model, visible=True)
    assert list(model.layers) == [opened.layer, opened.nuclei]
    gone = opened.nuclei
    model.layers.remove(gone)
    above = added(model, (np.zeros((960, 1280), np.uint32), {}, "labels"))
    model.layers.remove(above)
    opened.insert_above(model, above, gone)
    assert list(model.layers) == [opened.layer, above]


def test_napari_makes_a_copy_of_a_slide(model, disc_slide):
    from napari.layers import _layer_actions

    (data,) = read_slides(str(disc_slide))
    layer = added(model, data)
    model.layers.selection.active = layer
    _layer_actions._duplicate_layer(model.layers)
    copied = model.layers[1]
    assert copied.name == f"{layer.name} copy"
    assert slide_of(copied) is copy.deepcopy(slide_of(layer)) is slide_of(layer)
    np.testing.assert_array_equal(copied.data[0][100:110, 100:110], layer.data[0][100:110, 100:110])
    slide_of(layer).close()
