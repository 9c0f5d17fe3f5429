"""Maps without any background, or without any nucleus, and of a single pixel: no decoder stumbles."""

import numpy as np
import pytest

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder

SIDE = 96


def maps_of(one, value, shape):
    """What a network that says the same everywhere would say."""
    return {head.name: np.full((head.channels, *shape), value, np.float32) for head in one.heads}


@pytest.mark.parametrize("name", ["offsets", "distance", "border", "watershed", "hover"])
@pytest.mark.parametrize("shape", [(SIDE, SIDE), (1, 1), (1, SIDE)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_same_everywhere(name, shape, value):
    one = decoder(name)
    found = one.decode(maps_of(one, value, shape), 0.5, DecodeOptions(threshold=0.5, min_area_um2=0.0))
    assert found.labels.shape == shape
    assert len(found) == len(found.scores) == found.labels.max()
    if value == 0:
        assert len(found) == 0
