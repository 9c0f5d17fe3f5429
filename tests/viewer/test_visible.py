import numpy as np
import pytest

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.visible import visible_region


@pytest.fixture
def model():
    from napari.components import ViewerModel

    made = ViewerModel()
    made.canvas.size = (400, 600)
    return made


def add(model, shape=(2000, 3000), **how):
    levels = [np.zeros((shape[0] // f, shape[1] // f, 3), np.uint8) for f in (1, 2, 4)]
    return model.add_image(levels, multiscale=True, rgb=True, **how)


def look_at(model, y, x, zoom):
    model.scene.camera.center = (0, y, x)
    model.scene.camera.zoom = zoom


def test_view_of_a_plain_layer(model):
    layer = add(model)
    look_at(model, 1000, 1500, 2.0)  # 400 x 600 screen pixels are 200 x 300 of the slide's
    assert visible_region(model, layer) == Region(900, 1350, 201, 301)


@pytest.mark.parametrize("mpp", [0.25, 0.5, (0.25, 0.5)])
def test_scale_in_micrometres_is_taken_out(model, mpp):
    scale = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    layer = add(model, scale=scale, units=("um", "um"))
    look_at(model, 1000 * scale[0], 1500 * scale[1], 4.0)
    seen = visible_region(model, layer)
    assert seen.height == pytest.approx(100 / scale[0], abs=1)
    assert seen.width == pytest.approx(150 / scale[1], abs=1)
    assert seen.centre == pytest.approx((1000.5, 1500.5), abs=1)


def test_translation_is_taken_out(model):
    layer = add(model, translate=(500, -700))
    look_at(model, 1500, 800, 2.0)
    assert visible_region(model, layer) == Region(900, 1350, 201, 301)


def test_rotation_gives_the_box_around_the_view(model):
    layer = add(model, rotate=90)
    centre = layer.data_to_world((1000, 1500))
    look_at(model, *centre, 2.0)
    seen = visible_region(model, layer)
    assert (seen.height, seen.width) == (301, 201)


def test_view_is_clipped_to_the_slide(model):
    layer = add(model)
    look_at(model, 0, 0, 0.01)
    assert visible_region(model, layer) == Region(0, 0, 2000, 3000)


def test_slide_out_of_sight_is_empty(model):
    layer = add(model)
    look_at(model, -5000, -5000, 1.0)
    assert visible_region(model, layer).is_empty


def test_three_dimensions_have_no_region(model):
    layer = add(model)
    model.dims.ndisplay = 3
    assert visible_region(model, layer) is None


def test_further_dimensions_of_other_layers_do_not_matter(model):
    layer = add(model)
    model.add_image(np.zeros((5, 2000, 3000), np.uint8))
    look_at(model, 1000, 1500, 2.0)
    assert visible_region(model, layer) == Region(900, 1350, 201, 301)
