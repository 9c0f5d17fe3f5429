"""Which plane of a stack is shown, how many nuclei some show, and what is taken of labels that are painted on."""

from dataclasses import replace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.versions import REFUSED
from napari_nucleiseg.viewer.stack_layers import labels_layer
from napari_nucleiseg.viewer.stack_teaching import StackTask, StackTeaching, count_nuclei, snapshot
from napari_nucleiseg.viewer.stacks import StackEngine
from stack_parts import balls


def never():
    return False


def test_nuclei_on_several_planes_count_once():
    labels = np.zeros((4, 8, 8), np.int32)
    labels[0, :4], labels[1, :4], labels[1, 6], labels[2], labels[3] = 1, 1, 5, 9, -1
    assert count_nuclei(labels, (0, 1, 3), never) == 2
    assert count_nuclei(labels, (0, 1), lambda: True) is None


def test_a_lesson_is_of_the_planes_as_they_were():
    image, labels = balls(6)
    layer = Image(image, name="cells", scale=(1, 0.5, 0.5), units="um")
    nuclei = labels_layer(layer, labels.copy())
    lesson = StackTask(layer, nuclei, (5, 9), ZYX(1, 0.5, 0.5)).lesson()
    nuclei.data[5] = 77
    np.testing.assert_array_equal(lesson.labels[[5, 9]], labels[[5, 9]])
    assert not np.delete(lesson.labels, (5, 9), axis=0).any()
    assert (lesson.name, lesson.planes, len(lesson.fingerprint)) == ("cells", (5, 9), 32)
    lesson.checked()
    assert snapshot(nuclei.data, (5,))[5].min() == 77


class Shown:
    """What `StackTeaching` asks of the stacks to know which plane is shown."""

    def __init__(self, viewer):
        self.viewer, self.jobs = viewer, None


@pytest.mark.parametrize("channels", [0, 1])
def test_the_plane_that_is_shown_is_the_stacks_own(channels):
    viewer = ViewerModel()
    stack = Image(np.zeros((10, 32, 32), np.uint8), scale=(2, 0.5, 0.5), translate=(6, 0, 0))
    viewer.add_layer(stack)
    viewer.add_image(np.zeros(((2,) if channels else ()) + (40, 16, 16), np.uint8))
    teaching = StackTeaching(Shown(viewer))
    axis = viewer.dims.ndim - 3
    for world, plane in ((6, 0), (12, 3), (24, 9), (26, None), (4, None)):
        viewer.dims.set_point(axis, world)
        assert teaching.plane_shown(stack) == plane
    viewer.dims.set_point(axis, 12)
    viewer.dims.ndisplay = 3
    assert teaching.plane_shown(stack) is None
    viewer.dims.ndisplay = 2
    viewer.dims.order = (*range(axis), axis + 1, axis, axis + 2)
    assert teaching.plane_shown(stack) is None


def test_a_first_model_is_kept_listed_and_taught_on_without_a_question(monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_args, **_more: str(tmp_path))
    image, labels = balls(45, shape=(16, 96, 96), radius_um=2.8, seed=4)
    layer = Image(image, name="cells")
    lesson = StackTask(layer, labels_layer(layer, labels), (4, 5, 6, 8, 10), ZYX(1, 0.5, 0.5)).lesson()
    engine = StackEngine()
    engine.settings = FinetuneConfig(steps=2, crop_px=32, batch_size=1, validate_every=2, device="cpu")
    *_, last = engine.teach("", lesson)
    first = engine.keep(last.outcome)
    assert [card.name for card in engine.models()] == [first.name] == ["unet-3d-2"]
    *steps, last = engine.teach(first.name, lesson)
    assert steps[0].measured is not None
    refused = engine.keep(replace(last.outcome, adopted=False))
    assert (refused.kind, refused.card.parent) == (REFUSED, first.card.version)
    assert len(engine.models()) == 1
    assert engine.take(refused).path.parent == first.path.parent
    assert {card.name for card in engine.models()} == {"unet-3d-2", "unet-3d-3"}
