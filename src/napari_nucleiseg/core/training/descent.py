"""One step down a loss, as warm starts and masked autoencoders take it, and what makes a step repeat itself."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from napari_nucleiseg.core.training.dino.processes import Processes


def parted(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Part what learns into matrices, which decay, and biases and scales of normalisations, which do not."""
    learned = list(parameters)
    return [
        {"params": [item for item in learned if item.ndim > 1], "weight_decay": weight_decay},
        {"params": [item for item in learned if item.ndim <= 1], "weight_decay": 0.0},
    ]


def seed_step(seed: int, number: int, processes: Processes) -> None:
    """Make masks and what is dropped a function of the step, so that a run goes on as if it had never stopped."""
    key = np.random.SeedSequence((seed, number, processes.rank))
    torch.manual_seed(int(key.generate_state(1, np.uint64)[0]))


def descend(loss: Tensor, optimiser: torch.optim.Optimizer, processes: Processes, *, rate: float, clip: float) -> float:
    """Take a step of the optimiser; return the loss of all processes.

    Parameters
    ----------
    loss : Tensor
        Of this process, with its graph.
    optimiser : Optimizer
        Holds what learns.
    processes : Processes
        That learn together.
    rate : float
        Learning rate.
    clip : float
        Largest norm of all gradients; 0 for no limit.
    """
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    learned = [item for group in optimiser.param_groups for item in group["params"]]
    processes.average_gradients(learned)
    if clip:
        nn.utils.clip_grad_norm_(learned, clip)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    return float(processes.mean(loss.detach()))
