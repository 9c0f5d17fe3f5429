"""The encoders that come with the program load, belong together, are small, and may be used by everyone."""

import numpy as np
import pytest

from napari_nucleiseg.core.attention.forward import EncoderForward
from napari_nucleiseg.core.attention.look import must_fit
from napari_nucleiseg.core.models.encoders import FOLDER, load_encoder
from napari_nucleiseg.core.models.weights import SHIPPED_FOLDER

NAMES = "tissue-patches", "tissue-regions"
MOST_BYTES = 16_000_000


@pytest.fixture
def shipped():
    return [load_encoder(str(SHIPPED_FOLDER / FOLDER / f"{name}.safetensors")) for name in NAMES]


def test_they_belong_together_and_say_where_they_come_from(shipped):
    patches, regions = shipped
    must_fit(patches, regions)
    assert regions.card.features_of == patches.version
    for encoder, name in zip(shipped, NAMES, strict=True):
        assert encoder.card.name == name
        assert encoder.card.commercial_use
        assert "NC" not in encoder.card.licence
        assert encoder.card.training_data
        assert (SHIPPED_FOLDER / FOLDER / f"{name}.safetensors").stat().st_size < MOST_BYTES


def test_patches_tell_pictures_apart_and_heads_differ(shipped):
    patches, regions = shipped
    rng = np.random.default_rng(0)
    side = patches.spec.input_px
    plain = np.full((side, side, 3), (225, 180, 210), np.uint8)
    dotted = plain.copy()
    for y, x in rng.integers(8, side - 8, (20, 2)):
        dotted[y - 5 : y + 6, x - 5 : x + 6] = (90, 60, 130)
    said = EncoderForward(patches, "cpu", exact=True).patches(np.stack([plain, dotted]))
    assert not np.allclose(said[0].features, said[1].features, atol=0.1)
    last = said[1].attention[-1].astype(np.float32)
    for one in range(1, len(last)):
        assert not np.allclose(last[0], last[one], rtol=0.1)
    region = EncoderForward(regions, "cpu", exact=True).region(np.stack([one.features for one in said])[None])
    assert region.attention.shape == (regions.spec.depth, regions.spec.heads, 1, 2)
    assert np.isfinite(region.features).all()
