"""A network's work recorded once for each shape of a batch and replayed at one call (CUDA graphs)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

VARIABLE = "NUCLEISEG_CUDA_GRAPHS"
MOST_SHAPES = 4  # each recorded shape keeps the memory of its forward
Compute = Callable[[Tensor], dict[str, Tensor]]


def graphs_wanted() -> bool:
    """Whether the environment asks for graphs: ``NUCLEISEG_CUDA_GRAPHS=1``."""
    return os.environ.get(VARIABLE, "") == "1"


def record_cuda(compute: Compute, pixels: Tensor) -> Compute:
    """Record what `compute` does with pixels of one shape; return what replays it on others of that shape.

    Parameters
    ----------
    compute : callable
        From pixels to maps; must keep nothing that a later call changes.
    pixels : Tensor
        On a CUDA device.

    Raises
    ------
    RuntimeError
        If something in it cannot be recorded, or the memory is full.
    """
    with torch.cuda.device(pixels.device):
        return _record(compute, pixels)


def _record(compute: Compute, pixels: Tensor) -> Compute:
    given = pixels.clone()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        compute(given)  # libraries choose their kernels before anything is recorded
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        said = compute(given)

    def replay(pixels: Tensor) -> dict[str, Tensor]:
        given.copy_(pixels)
        graph.replay()
        # Copies, for the next replay writes into the same memory.
        return {name: value.clone() for name, value in said.items()}

    return replay


class Graphs:
    """Calls a function as it is for a new shape, and from a recording for a shape that comes again.

    So the first tile and a last, smaller batch never pay for a recording. Where recording fails that is said in a
    sentence, and the function is called as it is from then on.

    Parameters
    ----------
    compute : callable
        From pixels ``(n, y, x, 3)`` to maps.
    tell : callable
        Told in a sentence if it does not work.
    record : callable
        See `record_cuda`.
    """

    def __init__(
        self, compute: Compute, tell: Callable[[str], None], record: Callable[[Compute, Tensor], Compute] = record_cuda
    ) -> None:
        self.seconds = 0.0
        self._compute, self._tell, self._record = compute, tell, record
        self._seen: set[tuple[int, ...]] = set()
        self._replays: dict[tuple[int, ...], Compute] = {}
        self._works = True

    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the maps of a batch."""
        shape = tuple(pixels.shape)
        if shape in self._seen and shape not in self._replays and len(self._replays) < MOST_SHAPES and self._works:
            self._try_to_record(pixels)
        self._seen.add(shape)
        return self._replays.get(shape, self._compute)(pixels)

    @property
    def recorded(self) -> tuple[tuple[int, ...], ...]:
        """Shapes that are replayed."""
        return tuple(self._replays)

    def _try_to_record(self, pixels: Tensor) -> None:
        start = time.perf_counter()
        try:
            self._replays[tuple(pixels.shape)] = self._record(self._compute, pixels)
        except RuntimeError as error:
            self._works = False
            why = str(error).strip().splitlines()
            self._tell(
                f"This network cannot be recorded as a CUDA graph ({why[0] if why else type(error).__name__}): "
                f"going on without; unset {VARIABLE} to try no more."
            )
        self.seconds += time.perf_counter() - start
