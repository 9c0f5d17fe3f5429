"""The network's average answers for pixels that nobody annotated, where it is sure."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from napari_nucleiseg.core.training.self_training import with_own_answers


class Says(nn.Module):
    """Sure of a nucleus on the left, of none on the right, of nothing in between."""

    def forward(self, x):
        logits = torch.zeros(len(x), 1, 4, 6)
        logits[..., :2], logits[..., 4:] = 5.0, -5.0
        return {"nuclei": logits, "offsets": torch.full((len(x), 2, 4, 6), 3.0), "distance": logits}


def batch():
    known = torch.ones(2, 1, 4, 6)
    known[1] = 0
    zeros = torch.zeros(2, 1, 4, 6)
    return {"known": known, "nuclei": zeros, "offsets": zeros.repeat(1, 2, 1, 1), "distance": zeros, "clean": zeros}


def filled():
    network = Says().train()
    found = with_own_answers(batch(), network, 0.5, contextlib.nullcontext())
    assert network.training
    return found


def test_it_answers_where_it_is_sure_and_counts_less():
    found = filled()
    assert found["known"][1, 0, 0].tolist() == [0.5, 0.5, 0, 0, 0.5, 0.5]
    assert found["nuclei"][1, 0, 0].tolist() == [1, 1, 0, 0, 0, 0]
    assert found["offsets"][1, 0, 0].tolist() == [3, 3, 0, 0, 3, 3]
    assert 0.99 < found["distance"][1, 0, 0, 0] < 1


def test_what_people_annotated_stays():
    found = filled()
    for key, value in batch().items():
        assert torch.equal(found[key][0], value[0])


def test_nothing_is_asked_where_all_is_annotated():
    whole = batch() | {"known": torch.ones(2, 1, 4, 6)}
    found = with_own_answers(whole, nn.Module(), 0.5, contextlib.nullcontext())
    assert all(torch.equal(found[key], whole[key]) for key in whole)
