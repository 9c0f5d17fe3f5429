"""Keeps labels of a stack again and again, each time all different, until it is killed; says each one that is kept."""

import itertools
import sys
from pathlib import Path

import numpy as np

from napari_nucleiseg.core.store.kept_stack import KeptStack

SHAPE = (40, 300, 300)


def labels_of(number):
    """All voxels of a ball over several chunks bear the number; the background stays."""
    z, y, x = np.ogrid[tuple(slice(side) for side in SHAPE)]
    inside = ((z - 18) * 6) ** 2 + (y - 140) ** 2 + (x - 140) ** 2 < 110**2
    return np.where(inside, np.int32(number), np.int32(0))


def main():
    path = Path(sys.argv[1])
    kept = KeptStack.open(path) if path.exists() else KeptStack.create(path, SHAPE)
    first = kept.facts.get("number", 0) + 1
    for number in itertools.count(first):
        kept.write(labels_of(number), number=number)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
