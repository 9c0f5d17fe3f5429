"""Puts known tokens into a store again and again until it is killed; says which patches are kept."""

import sys
from pathlib import Path

import numpy as np

from napari_nucleiseg.core.store.tokens import PatchTokens, TokenLayout, TokenStore

LAYOUT = TokenLayout("tiny@1", "32+0", patches=40, embed=12, layers=2, heads=3, side=4)


def tokens_of(patch, layout=LAYOUT):
    """What an encoder would say of a patch: some numbers."""
    rng = np.random.default_rng(patch)
    side = (layout.side, layout.side)
    return PatchTokens(
        rng.normal(size=layout.embed).astype(np.float16),
        rng.random((layout.layers, layout.heads, *side)).astype(np.float16),
        rng.random(side).astype(np.float16),
    )


def main():
    store = TokenStore(Path(sys.argv[1]), LAYOUT)
    rng = np.random.default_rng(int(sys.argv[2]))
    while True:
        patch = int(rng.integers(LAYOUT.patches))
        store.put(patch, tokens_of(patch))
        sys.stdout.write(f"{patch}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
