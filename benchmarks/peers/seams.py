"""InstanSeg's joining of tiles on labels that are known; runs in its environment.

``python seams.py LABELS.npy TILE_PX HALO_PX`` cuts the labels into tiles of their own numbers, which agree where they
overlap, and joins them as `eval_whole_slide_image` does. Prints a JSON list: yardsticks (times scipy.ndimage.label on
the labels' mask), CPU per wall second, and how many nuclei came out.
"""

import json
import sys
from itertools import product

import numpy as np
import torch
from instanseg.utils.pytorch_utils import match_labels, torch_fastremap
from instanseg.utils.tiling import _remove_edge_labels
from scipy import ndimage

from postprocessing import cheapest

THRESHOLD = 0.1  # share of two nuclei that is one, as the engine has it


def cut(labels, tile_px, halo_px):
    """Tiles with halos: corner, numbers of its own, and sides that are no seams."""
    height, width = labels.shape
    tiles = []
    for y, x in product(range(0, height, tile_px), range(0, width, tile_px)):
        top, left = max(y - halo_px, 0), max(x - halo_px, 0)
        bottom, right = min(y + tile_px + halo_px, height), min(x + tile_px + halo_px, width)
        part = labels[top:bottom, left:right]
        _, own = np.unique(np.append(0, part), return_inverse=True)
        ends = {"top": top == 0, "left": left == 0, "bottom": bottom == height, "right": right == width}
        own = own[1:].reshape(part.shape).astype(np.int32)
        tiles.append((top, left, own, [side for side, is_end in ends.items() if is_end]))
    return tiles


def joined(tiles, shape):
    """Labels of the whole, int32 (y, x)."""
    whole, most = np.zeros(shape, np.int32), 0
    for y, x, own, ends in tiles:
        place = whole[y : y + own.shape[0], x : x + own.shape[1]]
        before = torch.tensor(place)
        new = torch_fastremap(_remove_edge_labels(torch.tensor(own), ignore=ends))
        new[new > 0] += most
        new = match_labels(before, new, threshold=THRESHOLD)[1]
        before[new > 0] = new[new > 0].int()
        most = max(most, int(before.max()))
        place[:] = before.numpy()
    return whole


if __name__ == "__main__":
    torch.set_num_threads(1)
    truth = np.load(sys.argv[1])
    tiles = cut(truth, int(sys.argv[2]), int(sys.argv[3]))
    mask = truth > 0
    yard = cheapest(lambda: ndimage.label(mask), 9)[0]
    seconds, share, found = cheapest(lambda: joined(tiles, truth.shape), 2)
    print(json.dumps([seconds / yard, share, len(np.unique(found)) - 1]))
