"""What the moving average of a network says of pixels that nobody annotated, as targets of the network itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.models.spec import VECTORS

# Above and below which probability of a nucleus a pixel counts as settled.
SURE = (0.1, 0.9)


def with_own_answers(
    batch: Mapping[str, Tensor], average: nn.Module, weight: float, autocast: torch.autocast
) -> dict[str, Tensor]:
    """Return a batch in which unannotated pixels have the average's answer where that is sure.

    Parameters
    ----------
    batch : mapping of str to Tensor
        Of a batch maker, with ``clean``: the crops before their colours were changed.
    average : nn.Module
        Moving average of the network that is trained.
    weight : float
        Of such a pixel; an annotated one counts 1.
    autocast : torch.autocast
        Precision of the forward pass.

    Returns
    -------
    dict of Tensor
        The batch; ``known`` is `weight` where the average answered.

    References
    ----------
    Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017; Sohn et al., FixMatch, NeurIPS 2020.
    """
    known = batch["known"]
    open_ = known == 0
    if not bool(open_.any()):
        return dict(batch)
    rows = open_.flatten(1).any(1)
    was_training = average.training
    average.eval()
    with torch.no_grad(), autocast:
        maps = average(batch["clean"][rows].contiguous(memory_format=torch.channels_last))
    average.train(was_training)
    probability = torch.sigmoid(maps["nuclei"].float())
    low, high = SURE
    sure = open_[rows] & ((probability < low) | (probability > high))
    filled = dict(batch)
    for name in batch.keys() & maps.keys():
        answer = maps[name].float()
        if name not in VECTORS:
            answer = torch.sigmoid(answer)
        if name in ("nuclei", "separated"):
            answer = (answer > 0.5).float()
        former = batch[name].clone()
        former[rows] = torch.where(sure, answer, former[rows])
        filled[name] = former
    filled["known"] = known.clone()
    filled["known"][rows] = torch.where(sure, weight, known[rows])
    return filled
