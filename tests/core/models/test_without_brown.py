"""DAB is taken out before a network looks: haematoxylin stays, and the version says so."""

import numpy as np
import pytest
import torch
from skimage.color import combine_stains, rgb_from_hdx
from torch import nn

from browned import browned_discs
from dark_model import CARD, SPEC, Dark, disc_picture
from napari_nucleiseg.core.inference.device import Forward
from napari_nucleiseg.core.models.looking import looking, looks
from napari_nucleiseg.core.models.weights import LoadedModel, load_model
from napari_nucleiseg.core.models.without_brown import WithoutBrown, picture_without_brown, without_brown


def mixed(haematoxylin, dab):
    """A picture of one colour, ``(4, 4, 3)`` uint8; amounts as scikit-image counts them."""
    stains = np.broadcast_to([haematoxylin, dab, 0.0], (4, 4, 3))
    return np.rint(combine_stains(stains, rgb_from_hdx) * 255).astype(np.uint8)


@pytest.mark.parametrize("haematoxylin", [0.0, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("dab", [0.0, 0.02, 0.06])
def test_haematoxylin_is_what_is_left(haematoxylin, dab):
    seen = picture_without_brown(mixed(haematoxylin, dab)).astype(int)
    np.testing.assert_allclose(seen, mixed(haematoxylin, 0), atol=4)


def test_black_and_white_are_colours_too():
    assert (picture_without_brown(np.full((2, 2, 3), 255, np.uint8)) == 255).all()
    assert picture_without_brown(np.zeros((2, 2, 3), np.uint8)).max() < 40


class Looked(nn.Module):
    """Gives back what it was shown."""

    def forward(self, x):
        return {"seen": x}


def test_the_network_sees_what_the_picture_shows_as_it_is_used_to_it():
    mean, std = (0.7, 0.55, 0.7), (0.2, 0.22, 0.18)
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    column = [torch.tensor(values)[:, None, None] for values in (mean, std)]
    x = (torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 - column[0]) / column[1]
    seen = WithoutBrown(Looked(), mean, std)(x)["seen"] * column[1] + column[0]
    np.testing.assert_allclose(seen[0].permute(1, 2, 0).numpy() * 255, picture_without_brown(picture), atol=0.51)


def test_discs_under_brown_are_found():
    shape = (256, 256)
    model = LoadedModel(SPEC, CARD, Dark().eval())
    discs = disc_picture(shape)[..., 0] == 70
    found = {}
    for used in (model, without_brown(model)):
        maps = Forward(used, "cpu", heads=["separated"])(browned_discs(shape)[None])["separated"][0, 0]
        found[used.version] = maps > 127
    assert found[model.version].all()
    np.testing.assert_array_equal(found[f"{model.version}+nobrown"], discs)


@pytest.mark.parametrize("ignore_brown", [False, True])
@pytest.mark.parametrize("thorough", [False, True])
def test_a_version_tells_how_the_model_looks(ignore_brown, thorough):
    model = load_model("nuclei")
    used = looking(model, ignore_brown=ignore_brown, thorough=thorough)
    told = ("+nobrown" if ignore_brown else "") + ("+turned" if thorough else "")
    assert used.version == model.version + told == model.version + looks(ignore_brown=ignore_brown, thorough=thorough)
    assert (used.card, used.spec) == (model.card, model.spec)
    assert (used is model) == (not told)
