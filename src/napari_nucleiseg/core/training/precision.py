"""The number format that a step of training computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def in_bfloat16(device: torch.device, *, wanted: bool) -> Iterator[None]:
    """Compute in bfloat16 for the length of the block if that is wanted.

    Parameters
    ----------
    device : torch.device
        Where it is computed.
    wanted : bool
        Whether to; see `has_fast_bfloat16`.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=wanted))
        if wanted and device.type == "cpu":
            # The fused attention of CPUs is slow in bfloat16 backwards: a third of the time of a step.
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
