"""The loss of self-distillation, the centre of the teacher's outputs, and whether all outputs have become alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class DinoLoss(nn.Module):
    """Cross-entropy of what the student says of one view by what the teacher says of another (Caron et al. 2021).

    Parameters
    ----------
    prototypes : int
        Width of the outputs.
    student_temperature : float
        By which the student's outputs are divided.
    momentum : float
        Share of the centre that stays at each update.
    """

    centre: Tensor

    def __init__(self, prototypes: int, student_temperature: float = 0.1, momentum: float = 0.9) -> None:
        super().__init__()
        self.student_temperature, self.momentum = student_temperature, momentum
        self.register_buffer("centre", torch.zeros(prototypes))

    def targets(self, teacher: Tensor, temperature: float) -> Tensor:
        """Return the teacher's outputs as probabilities, centred and sharpened.

        Parameters
        ----------
        teacher : Tensor, shape (views, batch, prototypes)
            Its outputs.
        temperature : float
            By which they are divided.
        """
        return torch.softmax((teacher.float() - self.centre) / temperature, dim=-1)

    def forward(self, student: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over all pairs of a view of the teacher and another of the student.

        Parameters
        ----------
        student : Tensor, shape (views, batch, prototypes)
            Outputs for all views, those that the teacher saw first.
        targets : Tensor, shape (global views, batch, prototypes)
            Probabilities; see `targets`.

        Returns
        -------
        Tensor, shape ()
            In nats.
        """
        said = torch.log_softmax(student.float() / self.student_temperature, dim=-1)
        views, seen = len(student), len(targets)
        # Every view but the teacher's own, without a sum for each pair.
        others = said.sum(dim=0) - said[:seen]
        return -(targets * others).sum(dim=-1).mean(dim=1).sum() / (seen * (views - 1))

    @torch.no_grad()
    def move_centre(self, teacher: Tensor, mean: Callable[[Tensor], Tensor] | None = None) -> None:
        """Move the centre towards the mean of a batch.

        Parameters
        ----------
        teacher : Tensor, shape (views, batch, prototypes)
            The teacher's outputs.
        mean : callable, optional
            Takes the mean of a tensor over all processes.
        """
        found = teacher.float().mean(dim=(0, 1))
        if mean is not None:
            found = mean(found)
        self.centre.mul_(self.momentum).add_(found, alpha=1 - self.momentum)


@torch.no_grad()
def effective_rank(features: Tensor) -> float:
    """Return over how many directions features spread, from 1 to their width.

    The exponential of the entropy of their singular values about their mean (Roy and Vetterli 2007).

    Parameters
    ----------
    features : Tensor, shape (n, embed)
        Of any length.
    """
    values = torch.linalg.svdvals(features.float() - features.float().mean(dim=0))
    return float(torch.special.entr(values / values.sum().clamp_min(1e-12)).sum().exp())


@torch.no_grad()
def collapse_watch(targets: Tensor, features: Tensor) -> dict[str, float]:
    """Say how far from collapse a batch is.

    Parameters
    ----------
    targets : Tensor, shape (views, batch, prototypes)
        The teacher's probabilities.
    features : Tensor, shape (n, embed)
        The teacher's features of the same views.

    Returns
    -------
    dict
        ``entropy`` of one view in nats (that of all prototypes alike: the log of their number), ``used`` the entropy of
        the mean over the batch (0: all views choose one prototype), ``feature_std`` of features of length 1 across the
        batch, mean over channels and in units of what it is for random directions (0: all alike).
    """
    entropy = torch.special.entr(targets).sum(dim=-1).mean()
    used = torch.special.entr(targets.mean(dim=(0, 1))).sum()
    directions = torch.nn.functional.normalize(features.float(), dim=-1)
    std = directions.std(dim=0).mean() * features.shape[-1] ** 0.5
    values = torch.stack((entropy, used, std)).tolist()
    return dict(zip(("entropy", "used", "feature_std"), values, strict=True))
