"""How unsure a model is of a picture, by several scores, and what the picture shows, as numbers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions, Maps, decoder
from napari_nucleiseg.core.decoders.measure import smooth_probability
from napari_nucleiseg.core.evaluation.agreement import panoptic_quality
from napari_nucleiseg.core.evaluation.overlaps import Overlaps, overlaps
from napari_nucleiseg.core.inference.segment import default_options
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.training.augment import jitter_stains, lab_statistics
from napari_nucleiseg.core.training.validation import picture_maps

# Between these probabilities a pixel is in doubt.
DOUBT = (0.3, 0.7)
# Part of a window that counts as outlines even where there are fewer: an almost empty window has little to teach.
LEAST_OUTLINES = 0.05
# Disagreement about this many nuclei counts half of that about very many: one stray nucleus is no reason to go there.
FEW_NUCLEI = 4
# Quarter turns and whether it is mirrored first; what differs most comes first.
TURNS = ((1, False), (2, True), (3, True), (0, True), (2, False), (3, False), (1, True))


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What a model makes of one window.

    Parameters
    ----------
    doubt : float
        Entropy of the probability of nucleus over the pixels in doubt, per pixel of outlines, bits.
    disagreement : float
        How much the nuclei change when the picture is turned, mirrored and stained a little differently, 0..1.
    instability : float
        How much they change with the threshold, 0..1.
    unsure : int
        Nuclei that come or go in one of these trials.
    nuclei : int
        Nuclei that the model finds.
    features : tuple of ndarray of float64
        Stain, density and size of nuclei, and means of the network's own maps: what makes windows alike.
    """

    doubt: float
    disagreement: float
    instability: float
    unsure: int
    nuclei: int
    features: tuple[NDArray[np.float64], ...]

    @property
    def scores(self) -> tuple[float, float, float]:
        """All scores; the higher, the less sure."""
        return self.doubt, self.disagreement, self.instability


class Onlooker:
    """Looks at windows with one model.

    Parameters
    ----------
    model : LoadedModel
        The model; not changed.
    device : str
        Where to run.
    views : int
        Turned and restained views of each window.
    stain : float
        Standard deviation of the log gain of each stain.
    change : float
        How far the threshold is moved down and up.
    """

    def __init__(self, model: LoadedModel, device: str, views: int, stain: float, change: float) -> None:
        self.spec, self.device = model.spec, choose_device(device)
        self.views, self.stain, self.change = views, stain, change
        self.options = default_options(model)
        self._network = copy.deepcopy(model.network).to(self.device).eval()
        sigmoid = [head.name for head in self.spec.heads if head.activation == "sigmoid"]
        self._foreground = "nuclei" if "nuclei" in sigmoid else sigmoid[0]

    def look(self, image: NDArray[np.uint8], inside: tuple[slice, slice], rng: np.random.Generator) -> Look:
        """Look at one window.

        Parameters
        ----------
        image : ndarray of uint8, shape (y, x, 3)
            RGB at the model's pixel size, with context.
        inside : tuple of slice
            The window in the picture.
        rng : Generator
            Of the stains of the views.
        """
        maps = self._maps(image)
        nuclei = self._nuclei(maps, self.options)[inside]
        turned = [overlaps(nuclei, self._view(image, turn, rng)[inside]) for turn in TURNS[: self.views]]
        moved = [overlaps(nuclei, self._nuclei(maps, options)[inside]) for options in self._thresholds()]
        ends = overlaps(*(self._nuclei(maps, options)[inside] for options in self._thresholds()))
        own = {name: values[:, inside[0], inside[1]] for name, values in maps.items()}
        areas = np.bincount(nuclei.ravel())[1:]
        areas = areas[areas > 0]
        return Look(
            _doubt(own[self._foreground][0], self.options.threshold, self.spec.mpp_um),
            float(np.mean([_apart(table) for table in turned])) if turned else 0.0,
            _apart(ends),
            _unsure([*turned, *moved]),
            len(areas),
            self._features(image[inside], own, areas),
        )

    def _maps(self, image: NDArray[np.uint8]) -> Maps:
        return picture_maps(self._network, self.spec, image, self.device)

    def _nuclei(self, maps: Maps, options: DecodeOptions) -> NDArray[np.int32]:
        return decoder(self.spec.decoder).decode(maps, self.spec.mpp_um, options).labels

    def _thresholds(self) -> Sequence[DecodeOptions]:
        return [
            replace(self.options, threshold=min(max(self.options.threshold + change, 0.02), 0.98))
            for change in (-self.change, self.change)
        ]

    def _view(self, image: NDArray[np.uint8], turn: tuple[int, bool], rng: np.random.Generator) -> NDArray[np.int32]:
        """Return the nuclei of the picture in another position and stain, turned back."""
        quarters, mirrored = turn
        seen = np.rot90(image[:, ::-1] if mirrored else image, quarters)
        if self.stain:
            seen = jitter_stains(np.ascontiguousarray(seen), self.stain, rng)
        labels = np.rot90(self._nuclei(self._maps(np.ascontiguousarray(seen)), self.options), -quarters)
        return np.ascontiguousarray(labels[:, ::-1] if mirrored else labels)

    def _features(
        self, image: NDArray[np.uint8], maps: Maps, areas: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], ...]:
        pixel_um2 = self.spec.mpp_um**2
        density = len(areas) / (image.shape[0] * image.shape[1] * pixel_um2) * 1e4
        size = np.log(max(float(areas.mean()) * pixel_um2, 1.0)) if len(areas) else 0.0
        means = [np.abs(values).mean(axis=(1, 2)) for values in maps.values()]
        return (
            lab_statistics(np.ascontiguousarray(image)).astype(np.float64).ravel(),
            np.array([np.sqrt(density), size]),
            np.concatenate(means).astype(np.float64),
        )


def _doubt(probability: NDArray[np.float32], threshold: float, mpp_um: float) -> float:
    """Return the entropy over the pixels in doubt, per pixel of outlines: every nucleus has a rim in doubt."""
    smooth = smooth_probability(probability, mpp_um)
    doubtful = smooth[(smooth > DOUBT[0]) & (smooth < DOUBT[1])].astype(np.float64)
    entropy = -(doubtful * np.log2(doubtful) + (1 - doubtful) * np.log2(1 - doubtful)).sum()
    inside = (smooth > threshold).astype(np.uint8)
    outlines = np.count_nonzero(cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)))
    return float(entropy / max(outlines, LEAST_OUTLINES * smooth.size))


def _apart(table: Overlaps) -> float:
    """Return one minus the panoptic quality, less where it is about few nuclei."""
    count = max(table.truth_count, table.pred_count)
    return (1 - panoptic_quality(table).pq) * count / (count + FEW_NUCLEI)


def _unsure(tables: Sequence[Overlaps]) -> int:
    """Return how many nuclei one of the trials does not find, or finds beyond the former ones."""
    if not tables:
        return 0
    lost = np.zeros(tables[0].truth_count, np.bool_)
    new = 0
    for table in tables:
        good = table.ious > 0.5
        lost |= ~np.isin(np.arange(table.truth_count), table.truth_index[good])
        new = max(new, table.pred_count - int(np.count_nonzero(good)))
    return max(int(lost.sum()), new)
