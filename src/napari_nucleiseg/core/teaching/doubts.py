"""Regions whose labels cannot be right: shifted against the tissue, too wide, nuclei left out, in pieces.

A model taught with such labels agrees with them, on what is held out too, so that no measurement there can tell.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import measure

from napari_nucleiseg.core.decoders.distance import interior_of
from napari_nucleiseg.core.slides.stains import stain_densities
from napari_nucleiseg.core.teaching.examples import Example

# Micrometres.
FARTHEST_SHIFT_UM = 6.0
LEAST_SHIFT_UM = 1.5
# How much better labels must fit the tissue elsewhere to be called shifted (correlation, -1..1).
CLEARLY = 0.05
LARGEST_NUCLEUS_UM2 = 700.0
SMALLEST_NUCLEUS_UM2 = 4.0
MISSED_NUCLEI = 8
FEW = 0.25  # of the nuclei that the model is sure of
# With more than a nucleus on so many square micrometres a region is not empty, whatever the model says.
DENSE_UM2 = 500.0
SHARE = 0.3
INK_SHARE = 0.3
# From an outline inwards its rim, and from where on its core is; and how far around it tissue is looked at.
RIM_UM, CORE_UM, AROUND_UM = 0.75, 1.5, 2.0
# How much darker than what is around it a rim must be, of what the core is: rims of correct outlines on which this was
# chosen are above .38 (of all pictures but one above .6), rims of outlines two micrometres too wide are about .14, and
# below .35 in nine of ten regions. Said only where cores stand out.
LEAST_RIM = 0.36
STANDS_OUT = 0.5
FEWEST_PX = 50
# A pixel is as dark as a nucleus from here on, of the way from what is around the outlined nuclei to these themselves.
AS_DARK = 0.6
# What is smaller than this many micrometres is no nucleus.
SPECK_UM = 2.0
# Of the outlined pixels, as many so dark beside all outlines: at most .16 in correct regions, at least .19 where every
# second nucleus was left out. Of the outlined nuclei, as many that the model is sure of beside them: with one exception
# at most .14 there, and at least .31 in nineteen of twenty of these.
DARK_BESIDE = 0.15
LEFT_OUT = 0.3
FEWEST_LEFT_OUT = 4
# Of a nucleus that the model sees: outlined at most, known at least, dark at least.
BARELY, NEARLY, MOSTLY = 0.1, 0.9, 0.5

Plane = NDArray[np.float32]
Look = Callable[[], tuple[Plane, NDArray[np.int32]]]


def doubts(example: Example, look: Look) -> list[str]:
    """Return what looks wrong about an example, each a sentence that says what to do; nothing if all is well.

    Parameters
    ----------
    example : Example
        Labels made by people.
    look : callable
        Returns what the former model says of the example, shape (y, x) each: probability of nucleus of each pixel,
        0..1, and an instance map of the nuclei in the known part of which it is sure. Called only where something is
        suspicious.
    """
    haematoxylin = stain_densities(example.image)[..., 0]
    # What is shifted has rims of the wrong stain, too.
    outlines = _shifted(example, haematoxylin, look) or _widened(example, haematoxylin)
    left_out = _emptied(example, look) or _thinned(example, haematoxylin, look)
    checks = (outlines, left_out, _broken(example), _swollen(example), _inky(example), _contradicted(example))
    return [f"{example.title} {said}" for said in checks if said]


def _shifted(example: Example, haematoxylin: Plane, look: Look) -> str:
    """Compare how labels fit the dark of the tissue and the model's own view here and some micrometres away."""
    known = example.known
    if not (example.labels > 0).any() or not known.any():
        return ""
    evidence = _standardised(haematoxylin, known)
    if not any(_best_shift(example, evidence, CLEARLY / 2)):
        return ""
    dy, dx = _best_shift(example, evidence + _standardised(look()[0], known), CLEARLY)
    if not (dy or dx):
        return ""
    far = float(np.hypot(dy, dx)) * example.mpp_um
    return f"seems to be shifted: its outlines would fit the nuclei better {far:.1f} µm further {_towards(dy, dx)}."


def _best_shift(example: Example, evidence: NDArray[np.float64], clearly: float) -> tuple[int, int]:
    """Return by how many pixels ``(y, x)`` the labels would have to move to fit clearly better; zeros for none."""
    known = example.known
    reach = max(1, round(FARTHEST_SHIFT_UM / example.mpp_um))
    truth = np.where(known, (example.labels > 0) - (example.labels[known] > 0).mean(), 0).astype(np.float32)
    # The fit at every shift at once: a template match of the evidence around the known part.
    padded = cv2.copyMakeBorder(evidence.astype(np.float32), reach, reach, reach, reach, cv2.BORDER_REFLECT_101)
    fit = cv2.matchTemplate(padded, truth, cv2.TM_CCORR) / max(float(np.sqrt((truth**2).sum() * known.sum())), 1e-6)
    best = np.unravel_index(int(fit.argmax()), fit.shape)
    dy, dx = (int(place) - reach for place in best)
    near = float(np.hypot(dy, dx)) * example.mpp_um < LEAST_SHIFT_UM
    return (0, 0) if near or fit[best] < fit[reach, reach] + clearly else (dy, dx)


def _towards(dy: int, dx: int) -> str:
    words = [word for word, there in (("up", dy < 0), ("down", dy > 0), ("left", dx < 0), ("right", dx > 0)) if there]
    if min(abs(dy), abs(dx)) * 2 < max(abs(dy), abs(dx)):
        words = words[:1] if abs(dy) > abs(dx) else words[-1:]
    return " and ".join(words)


def _standardised(plane: Plane, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    inside = plane[known]
    return np.asarray((plane - inside.mean()) / max(float(inside.std()), 1e-3) / 2, np.float64)


def _widened(example: Example, haematoxylin: Plane) -> str:
    """Tell outlines that take in what is around the nuclei: their rims are stained like that."""
    labels, known = np.maximum(example.labels, 0), example.known
    if not labels.any():
        return ""
    nuclei = labels > 0
    within, beyond = (
        cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3) * example.mpp_um
        for mask in (interior_of(labels), ~nuclei)
    )
    parts = nuclei & (within <= RIM_UM), nuclei & (within > CORE_UM), ~nuclei & (beyond <= AROUND_UM)
    if min(int(np.count_nonzero(part & known)) for part in parts) < FEWEST_PX:
        return ""
    rim, core, around = (float(np.median(haematoxylin[part & known])) for part in parts)
    if core - around < STANDS_OUT * float(haematoxylin[known].std()) or rim - around >= LEAST_RIM * (core - around):
        return ""
    return "has outlines that are too wide: their rims look like what is around the nuclei. Shrink them."


def _emptied(example: Example, look: Look) -> str:
    found = len(example.ids)
    if found * DENSE_UM2 >= int(example.known.sum()) * example.mpp_um**2:
        return ""
    sure = np.count_nonzero(np.unique(look()[1]))
    if sure < MISSED_NUCLEI or found >= FEW * sure:
        return ""
    held = f"only {found} nuclei are" if found else "no nucleus is"
    return (
        f"counts as corrected, but {held} outlined in it, where the model is sure of {sure}. Outline them, or say that "
        "not everything in it was corrected."
    )


def _thinned(example: Example, haematoxylin: Plane, look: Look) -> str:
    """Tell nuclei that are not outlined: as dark as those that are, and the model is sure of them."""
    nuclei, known = example.labels > 0, example.known
    if not nuclei.any() or not (known & ~nuclei).any():
        return ""
    inside, around = float(np.median(haematoxylin[nuclei])), float(np.median(haematoxylin[known & ~nuclei]))
    dark = haematoxylin > around + AS_DARK * (inside - around)
    side = 2 * max(1, round(SPECK_UM / 2 / example.mpp_um)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    whole = cv2.morphologyEx(dark.astype(np.uint8), cv2.MORPH_OPEN, disc) > 0
    beside = whole & known & (cv2.dilate(nuclei.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    if inside <= around or np.count_nonzero(beside) < DARK_BESIDE * np.count_nonzero(nuclei):
        return ""
    sure = look()[1]
    areas, outlined, vouched, so_dark = (
        np.bincount(sure[part], minlength=int(sure.max()) + 1)[1:] for part in (sure >= 0, nuclei, known, dark)
    )
    missed = (areas > 0) & (outlined < BARELY * areas) & (vouched >= NEARLY * areas) & (so_dark >= MOSTLY * areas)
    count = int(np.count_nonzero(missed))
    if count < max(FEWEST_LEFT_OUT, LEFT_OUT * len(example.ids)):
        return ""
    return (
        f"counts as corrected, but {count} nuclei are not outlined in it that are as dark as those that are, and of "
        "which the model is sure. Outline them, or say that not everything in it was corrected."
    )


def _broken(example: Example) -> str:
    ids = example.ids
    if not len(ids):
        return ""
    labels = np.maximum(example.labels, 0)
    areas = np.bincount(labels.ravel())[ids] * example.mpp_um**2
    pieces = measure.label(labels, background=0, connectivity=2)
    owner = np.zeros(int(pieces.max()) + 1, np.int64)
    owner[pieces.ravel()] = labels.ravel()
    counts = np.bincount(owner[1:], minlength=int(ids[-1]) + 1)[ids]
    if np.mean(counts > 1) > SHARE:
        return "has nuclei in pieces: join or delete what is left of them."
    if np.mean(areas < SMALLEST_NUCLEUS_UM2) > SHARE:
        return (
            f"has nuclei far too small to be nuclei (half of them below {np.median(areas):.1f} µm²). Check the slide's "
            "pixel size, and delete what is left of others."
        )
    return ""


def _swollen(example: Example) -> str:
    ids = example.ids
    if not len(ids):
        return ""
    largest = np.bincount(np.maximum(example.labels, 0).ravel())[ids].max() * example.mpp_um**2
    if largest <= LARGEST_NUCLEUS_UM2:
        return ""
    return f"has a nucleus of {largest:.0f} µm². Split it, or delete it."


def _contradicted(example: Example) -> str:
    """Tell paint that takes attention from nuclei which were corrected in the same place."""
    if example.attention is None:
        return ""
    on_nuclei = example.attention[example.labels > 0]
    denied, wanted = (int(np.count_nonzero(on_nuclei == value)) for value in (0, 1))
    if denied < FEWEST_PX or denied <= wanted:
        return ""
    return "has nuclei that are painted “do not look here”: erase that paint, or delete these nuclei."


def _inky(example: Example) -> str:
    """Tell ink or folds under nuclei: pixels too dark in all colours, or of a colour that no stain has."""
    image = example.image.astype(np.int16)
    dark = image.max(axis=2) < 70
    green_or_blue = (image[..., 1] > image[..., 0] + 25) | ((image[..., 2] > image[..., 0] + 90) & (image[..., 0] < 90))
    ink = float(np.mean((dark | green_or_blue)[example.known])) if example.known.any() else 0.0
    if ink <= INK_SHARE or not len(example.ids):
        return ""
    return "shows ink or a fold where nuclei are outlined. Choose another place."
