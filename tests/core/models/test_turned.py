"""A network in eight positions: the same as itself where it does not care how a tile lies, and said to be another."""

import torch
from torch import nn

from napari_nucleiseg.core.models.turned import Turned, turned
from napari_nucleiseg.core.models.weights import load_model


class Slopes(nn.Module):
    """Says the brightness and, as vectors, which way it rises: turns with the picture."""

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        padded = nn.functional.pad(mean, (1, 1, 1, 1), mode="replicate")
        down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
        right = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
        vectors = torch.cat([down, 3 * right - 2 * right], 1)
        return {"nuclei": mean, "offsets": vectors, "hover": torch.tanh(vectors)}


class Leaning(nn.Module):
    """Says more on the left than on the right, wherever the tissue is."""

    def forward(self, x):
        lean = torch.linspace(1, 0, x.shape[-1]).expand(x.shape[0], 1, x.shape[-2], -1)
        return {"nuclei": lean}


def test_what_turns_with_the_picture_stays_the_same():
    picture = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain, eight = Slopes()(picture), Turned(Slopes())(picture)
    for name, values in plain.items():
        torch.testing.assert_close(eight[name], values, atol=1e-5, rtol=0)


def test_what_depends_on_the_position_is_evened_out():
    eight = Turned(Leaning())(torch.zeros(1, 3, 8, 8))["nuclei"]
    torch.testing.assert_close(eight, torch.full_like(eight, 0.5), atol=1e-6, rtol=0)


def test_its_version_is_another_and_its_card_the_same():
    model = load_model("nuclei")
    eight = turned(model)
    assert eight.version == f"{model.version}+turned"
    assert (eight.card.name, eight.card.licence, eight.spec) == (model.card.name, model.card.licence, model.spec)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        one, other = model.network(picture), eight.network(picture)
    assert one.keys() == other.keys()
    assert all(one[name].shape == other[name].shape for name in one)
    assert not torch.allclose(one["nuclei"], other["nuclei"])
