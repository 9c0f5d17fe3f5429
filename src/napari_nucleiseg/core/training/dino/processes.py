"""Several processes that learn together, one a device, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from napari_nucleiseg.core.errors import DataError

# One process may read slides for hours while the others wait.
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Processes:
    """All processes of a run, seen from one of them.

    Parameters
    ----------
    rank, count : int
        Number of this process, and of all.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def part_of(self, size: int) -> range:
        """Return which samples of a batch are this process's.

        Raises
        ------
        DataError
            If they cannot be parted evenly.
        """
        if size % self.count:
            raise DataError(
                f"a batch of {size} cannot be parted among {self.count} processes; choose a multiple of "
                f"{self.count} (batch_size)"
            )
        part = size // self.count
        return range(self.rank * part, (self.rank + 1) * part)

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes, which take part in the same order."""
        if self.count == 1:
            return tensor
        distributed.all_reduce(tensor)
        return tensor / self.count

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace gradients by their mean over all processes."""
        if self.count == 1:
            return
        gradients = [item.grad for item in parameters if item.grad is not None]
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, flat.split([item.numel() for item in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """Give the processes that ``torchrun`` started (else this one alone), and the device of this one.

    Parameters
    ----------
    device : str
        As the configuration names it; ``auto`` and ``cuda`` become the GPU of this process.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(), device
        return
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(distributed.get_rank(), count), device
    finally:
        distributed.destroy_process_group()
