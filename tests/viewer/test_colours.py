"""What lies on a slide at the same time is told apart, by the colour-blind as well."""

from itertools import combinations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_nucleiseg.state import DO_NOT, LOOK
from napari_nucleiseg.viewer import attention_layer, region_layer, shapes
from napari_nucleiseg.viewer.by_text_layer import words_colour
from napari_nucleiseg.viewer.cluster_layer import colour_of
from napari_nucleiseg.viewer.outlines import OUTLINE

# What is seen of linear RGB: by most people, and without one of the three kinds of cones (Machado et al. 2009).
SIGHTS = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# Of CIEDE2000: two patches side by side differ at a glance.
APART = 11
NUCLEUS, EOSIN, STROMA = "#5a3d8c", "#e8a5c8", "#e6e0e6"
# The heatmap where it is brightest, over eosin.
HEAT = "#f8cf60"


def rgb(colour):
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255


def seen(colour, sight):
    """CIELAB of an RGB colour as somebody sees it."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    left = np.clip(np.array(SIGHTS[sight]) @ linear, 0, 1)
    return rgb2lab(np.where(left <= 0.0031308, left * 12.92, 1.055 * left ** (1 / 2.4) - 0.055))


def difference(one, other, sight):
    return float(deltaE_ciede2000(seen(one, sight), seen(other, sight)))


@pytest.mark.parametrize("sight", SIGHTS)
def test_the_first_clusters_differ_from_outlines_and_shapes_and_from_each_other(sight):
    clusters = [rgb(colour_of(place)) for place in range(5)]
    for line in (OUTLINE, shapes.COLOUR):
        assert all(difference(cluster, rgb(line), sight) > APART for cluster in clusters)
    assert all(difference(*pair, sight) > APART for pair in combinations(clusters, 2))
    assert all(difference(clusters[0], rgb(stain), sight) > APART for stain in (NUCLEUS, EOSIN))


@pytest.mark.parametrize("sight", SIGHTS)
def test_thin_lines_of_the_first_words_differ_from_other_outlines_and_from_nuclei(sight):
    words = [rgb(words_colour(place)) for place in range(4)]
    assert all(difference(word, rgb(OUTLINE), sight) > APART for word in words)
    assert all(difference(word, rgb(NUCLEUS), sight) > 2 * APART for word in words)
    assert all(difference(*pair, sight) > APART for pair in combinations(words, 2))
    assert len({words_colour(place) for place in range(256)}) == 256


@pytest.mark.parametrize("sight", SIGHTS)
def test_painted_attention_differs_from_all_lines_and_from_what_is_below(sight):
    paint = {kind: rgb(colour) for kind, colour in attention_layer.COLOURS.items()}
    assert difference(*paint.values(), sight) > APART
    for line in (OUTLINE, shapes.COLOUR, *region_layer.COLOURS.values()):
        assert all(difference(colour, rgb(line), sight) > APART for colour in paint.values())
    share = attention_layer.OPACITY
    on = ((LOOK, NUCLEUS), (LOOK, EOSIN), (LOOK, STROMA), (DO_NOT, NUCLEUS), (DO_NOT, EOSIN), (DO_NOT, HEAT))
    for kind, below in on:
        painted = share * paint[kind] + (1 - share) * rgb(below)
        assert difference(painted, rgb(below), sight) > APART
