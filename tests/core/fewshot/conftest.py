"""Planted views: discs of two textures on a third, whose like is known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Planted:
    """A view at 0.5 um/px; ids from 1 on, the first `dark` of them blue, the others brown."""

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    blue: NDArray[np.int32]
    brown: NDArray[np.int32]

    def point(self, number):
        places = np.argwhere(self.labels == number)
        return tuple(float(part) for part in places[len(places) // 2])


def planted(seed=0, side=200, noise=8.0):
    """Discs of 12 px, 20 px apart, every second one brown, on noisy pink."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    image = np.full((side, side, 3), (226, 160, 196), np.float64)
    ys, xs = np.mgrid[:side, :side]
    kinds = []
    for number, (y, x) in enumerate(
        ((y, x) for y in range(12, side - 8, 20) for x in range(12, side - 8, 20)), start=1
    ):
        disc = (ys - y) ** 2 + (xs - x) ** 2 <= 36
        labels[disc] = number
        kinds.append(number % 2)
        image[disc] = (92, 66, 140) if number % 2 else (140, 90, 50)
    pixels = (image + rng.normal(0, noise, image.shape)).clip(0, 255).astype(np.uint8)
    ids, kind = np.arange(1, len(kinds) + 1, dtype=np.int32), np.array(kinds)
    return Planted(pixels, labels, ids[kind == 1], ids[kind == 0])


@pytest.fixture(scope="session")
def two_kinds():
    return planted()


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Threads that wait for each other take longer than these small pictures."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
