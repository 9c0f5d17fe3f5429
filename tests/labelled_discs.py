"""Pictures of dark discs with their labels, in folders as a training takes them."""

import cv2
import imagecodecs
import numpy as np
import tifffile

TISSUE, NUCLEUS = (220, 180, 210), (70, 50, 120)


def disc_labels(side=96, radius=8, gap=8):
    """Return discs on a grid, `gap` pixels of background between them; ids from 1, uint16."""
    labels = np.zeros((side, side), np.uint16)
    step = 2 * radius + 1 + gap
    number = 0
    for y in range(radius + 2, side - radius - 2, step):
        for x in range(radius + 2, side - radius - 2, step):
            number += 1
            cv2.circle(labels, (x, y), radius, number, -1)
    return labels


def disc_image(labels, tissue=TISSUE, nucleus=NUCLEUS):
    """Return what labels would look like, uint8 RGB."""
    return np.where(labels[..., None] > 0, np.array(nucleus), np.array(tissue)).astype(np.uint8)


def write_discs(folder, labels, stem="p", **colours):
    """Add one picture with its labels to a data set and return the set's folder."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "images" / f"{stem}.png").write_bytes(imagecodecs.png_encode(disc_image(labels, **colours)))
    tifffile.imwrite(folder / "labels" / f"{stem}.tif", labels)
    return folder
