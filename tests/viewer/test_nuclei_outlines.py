import numpy as np
import pytest

from napari_nucleiseg.viewer.layers import nuclei_layer, outline_opacity, outline_width
from napari_nucleiseg.viewer.outlines import NO_CLASSES, Labels, colours_of, is_outline


def blobs(seed, shape=(97, 131)):
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    for number in range(1, 60):
        y, x, h, w = rng.integers(0, 90), rng.integers(0, 120), rng.integers(1, 20), rng.integers(1, 20)
        labels[y : y + h, x : x + w] = number * 70_001
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_outlines_are_those_of_napari(seed):
    from napari.layers.labels._labels_utils import get_contours

    labels = blobs(seed)
    np.testing.assert_array_equal(is_outline(labels), get_contours(labels, 1, 0) > 0)


def test_touching_nuclei_are_both_outlined():
    labels = np.repeat(np.uint32([[0, 1, 1, 1, 2, 2, 2, 0]]), 5, axis=0)
    assert is_outline(labels)[2].tolist() == [0, 1, 0, 1, 1, 0, 1, 0]


def test_the_layer_is_an_ordinary_labels_layer():
    from napari.layers import Labels as NapariLabels

    layer = Labels(blobs(0))
    assert isinstance(layer, NapariLabels)
    assert layer.as_layer_data_tuple()[2] == "labels"


@pytest.mark.parametrize("colours", [None, ["transparent", "green"], ["transparent", "red", "blue"]])
@pytest.mark.parametrize("contour", [0, 1, 3])
def test_what_is_shown_is_what_napari_shows(contour, colours):
    from napari.layers import Labels as NapariLabels
    from napari.utils.colormaps import CyclicLabelColormap

    ours, theirs = Labels(blobs(1)), NapariLabels(blobs(1))
    for layer in (ours, theirs):
        layer.contour = contour
        layer.colormap = theirs.colormap if colours is None else CyclicLabelColormap(colors=colours)
    np.testing.assert_array_equal(ours._slice.image.view, theirs._slice.image.view)
    assert ours._slice.image.view.dtype == theirs._slice.image.view.dtype


def test_nuclei_layer_cannot_be_painted_on(engine, disc_slide):
    from napari_nucleiseg.core.slides.registry import open_slide

    slide = open_slide(disc_slide)
    levels = [np.zeros((768, 1024), np.uint32), np.zeros((384, 512), np.uint32)]
    layer = nuclei_layer(levels, slide)
    assert not layer.editable
    assert layer.contour == 1
    assert layer.scale == pytest.approx([0.5, 0.5])


def test_thick_outlines_are_twice_as_deep():
    labels = np.zeros((20, 20), np.uint32)
    labels[2:18, 2:18] = 7
    shown = is_outline(labels, 2)
    assert shown[2:4, 2:18].all()
    assert not shown[4:16, 4:16].any()
    assert shown[16:18, 2:18].all()
    assert not shown[labels == 0].any()


def test_outlines_are_never_a_hair_from_near():
    assert outline_width(0.5, 0.5) == 2
    assert outline_width(0.998, 0.5) == 2  # one pixel of the slide on one of the screen: would be drawn with gaps
    assert outline_width(1.0, 0.25) == 2
    assert outline_width(2.0, 0.25) == 1
    assert outline_width(8.0, 0.03) == 1


def test_outlines_are_thin_from_far_away():
    assert outline_width(0.5, 2.0) == 1


def test_tissue_shows_through_from_far_and_from_very_near():
    assert outline_opacity(1.0, 0.5) == 1.0
    assert outline_opacity(0.6, 8.0) < 0.7
    assert outline_opacity(8.0, 0.06) < 0.8


def shown(layer):
    return np.asarray(layer._slice.image.view)


@pytest.mark.parametrize("contour", [1, 2])
def test_what_is_approved_is_dotted_and_all_else_is_solid(contour):
    labels = blobs(3)
    layer = Labels(labels, colormap=colours_of(NO_CLASSES))
    layer.contour = contour
    solid = shown(layer).copy()
    approved = np.unique(labels)[[3, 8, 20]]
    layer.show_approved(approved)
    dotted = shown(layer)
    marked = np.isin(labels, approved)
    np.testing.assert_array_equal(dotted[~marked], solid[~marked])
    assert (dotted[marked] <= solid[marked]).all()
    for number in approved:
        seen, all_of_it = (np.count_nonzero(image[labels == number]) for image in (dotted, solid))
        assert 0.25 < seen / all_of_it < 0.75
    layer.show_approved(np.zeros(0, np.uint32))
    np.testing.assert_array_equal(shown(layer), solid)


@pytest.mark.parametrize("contour", [1, 2])
def test_a_part_that_is_drawn_anew_has_the_same_dots(contour):
    labels = blobs(4)
    layer = Labels(labels, colormap=colours_of(NO_CLASSES))
    layer.contour = contour
    layer.show_approved(np.unique(labels)[1::2])
    everything = layer._raw_to_displayed(labels)
    for part in ((slice(0, 50), slice(13, 60)), (slice(31, 97), slice(90, 131)), (slice(40, 41), slice(7, 8))):
        np.testing.assert_array_equal(layer._raw_to_displayed(labels, part), everything[part])


def test_dots_are_seen_along_lines_of_all_directions():
    turns = np.linspace(0, np.pi, 60, endpoint=False)
    for turn in turns:
        labels = np.zeros((120, 120), np.uint32)
        steps = np.linspace(-50, 50, 400)
        ys, xs = np.rint(60 + steps * np.sin(turn)).astype(int), np.rint(60 + steps * np.cos(turn)).astype(int)
        labels[ys, xs] = 5
        layer = Labels(labels)

        layer.colormap, layer.contour = colours_of(NO_CLASSES), 1
        layer.show_approved(np.uint32([5]))
        share = np.count_nonzero(shown(layer)) / np.count_nonzero(labels)
        assert 0.3 < share < 0.7, f"{np.degrees(turn):.0f} degrees"
