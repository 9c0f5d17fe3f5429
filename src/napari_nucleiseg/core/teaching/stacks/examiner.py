"""Measures a network for stacks on the planes that are held out, and how much of the former one's view it has kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from napari_nucleiseg.core.evaluation.scores import scores
from napari_nucleiseg.core.inference.stacks import StackOptions, model_step, segment_stack
from napari_nucleiseg.core.models.registry import build_network
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.slides.voxels import grey_levels
from napari_nucleiseg.core.store.regions import HOLD_OUT
from napari_nucleiseg.core.teaching.agreement import Agreement, measure
from napari_nucleiseg.core.teaching.examples import Example
from napari_nucleiseg.core.teaching.stacks.lesson import Box, StackDivision, StackLesson
from napari_nucleiseg.core.teaching.verdict import LEAST_NUCLEI
from napari_nucleiseg.core.training.weightmap import numbered

# So many planes and nuclei say enough; measuring takes no longer the more was corrected.
MOST_PLANES, ENOUGH_NUCLEI = 4, 2 * LEAST_NUCLEI
# Sides of what is measured, voxels of the network: the first that shows enough nuclei.
SIDES = (192, 288, 384, 576)
# Side of a block where nobody corrected anything.
_BLOCK = 64

Part = tuple[slice, slice, slice]


@dataclass(eq=False)
class StackExaminer:
    """Examines the networks of one lesson.

    Parameters
    ----------
    model : LoadedModel
        Whose spec and decode options count for all networks that are examined.
    lesson : StackLesson
        Planes that a person vouches for.
    division : StackDivision
        Which part of them is held out.
    device : str
        Where networks run.
    """

    model: LoadedModel
    lesson: StackLesson
    division: StackDivision
    device: str = "auto"

    @cached_property
    def levels(self) -> tuple[float, float]:
        """Grey values of the whole stack that become 0 and 1."""
        return grey_levels(self.lesson.volume)

    @cached_property
    def _planes(self) -> tuple[int, ...]:
        planes = self.lesson.planes
        places = np.linspace(0, len(planes) - 1, min(len(planes), MOST_PLANES)).round().astype(int)
        return tuple(planes[place] for place in sorted(set(places.tolist())))

    @cached_property
    def _box(self) -> Box:
        """What is measured: of a large held-out side the middle, as much of it as shows enough nuclei."""
        found = [self._middle(side) for side in SIDES]
        return next((box for box in found if len(self._ids(box)) >= ENOUGH_NUCLEI), found[-1])

    def _middle(self, most: int) -> Box:
        step, sides = model_step(self.model, self.lesson.voxel_um), self.lesson.labels.shape[1:]
        found = []
        for part, factor, side in zip(self.division.held, step[1:], sides, strict=True):
            start, stop, _ = part.indices(side)
            spare = max(0, stop - start - round(most * factor)) // 2
            found.append(slice(start + spare, stop - spare))
        return found[0], found[1]

    def _ids(self, box: Box) -> NDArray[np.int64]:
        """Return the ids of the nuclei that are measured in a part of the planes."""
        found = np.unique(np.stack([np.asarray(self.lesson.labels[z][box]) for z in self._planes]))
        return found[found > 0].astype(np.int64)

    def measure(self, weights: Mapping[str, Tensor] | None = None) -> Agreement:
        """Measure a network with these weights; None measures the model as it is.

        Places of all planes that lie above each other count as one: they show the same nuclei.
        """
        model = self.model if weights is None else self.with_weights(weights)
        box = self._box
        parts = []
        for planes, part in self._slabs():
            seen = self._segmented(model, part)
            for z in planes:
                truth = numbered(np.asarray(self.lesson.labels[z][box]))
                offset = z - part[0].start, box[0].start - part[1].start, box[1].start - part[2].start
                found = seen[offset[0]][offset[1] : offset[1] + truth.shape[0], offset[2] : offset[2] + truth.shape[1]]
                one = measure(self._example(truth), np.ascontiguousarray(found))
                parts.append(one.sums)
        return Agreement(np.sum(parts, axis=0), len(self._ids(box)), 1)

    def kept_view(self, weights: Mapping[str, Tensor]) -> float | None:
        """Return the panoptic quality between the nuclei of both models where nobody corrected; None if nowhere."""
        part = self._elsewhere()
        if part is None:
            return None
        former, new = self._segmented(self.model, part), self._segmented(self.with_weights(weights), part)
        if not former.any():
            return None
        width = former.shape[-1]
        return scores(former.reshape(-1, width), new.reshape(-1, width), distances=False).pq

    def with_weights(self, weights: Mapping[str, Tensor]) -> LoadedModel:
        """Return the model with other weights."""
        network = build_network(self.model.spec)
        network.load_state_dict(dict(weights))
        return LoadedModel(self.model.spec, self.model.card, network.eval())

    def _example(self, truth: NDArray[np.int32]) -> Example:
        blank = np.zeros((0, 0, 3), np.uint8)
        return Example(self.lesson.name, "", "planes", 0, HOLD_OUT, blank, truth, self.lesson.voxel_um.x)

    def _reach(self) -> tuple[int, int, int]:
        """Return how many voxels of the stack a network sees around a place."""
        step = model_step(self.model, self.lesson.voxel_um)
        z, y, x = (int(np.ceil(self.model.spec.halo_px * factor)) for factor in step)
        return z, y, x

    def _slabs(self) -> list[tuple[list[int], Part]]:
        """Return planes that lie near each other with what is to be seen for them."""
        reach, shape = self._reach(), self.lesson.labels.shape
        groups: list[list[int]] = []
        for z in self._planes:
            if groups and z - groups[-1][-1] <= 2 * reach[0]:
                groups[-1].append(z)
            else:
                groups.append([z])
        rows, columns = (
            slice(max(0, part.start - around), min(side, part.stop + around))
            for part, around, side in zip(self._box, reach[1:], shape[1:], strict=True)
        )
        return [
            (planes, (slice(max(0, planes[0] - reach[0]), min(shape[0], planes[-1] + reach[0] + 1)), rows, columns))
            for planes in groups
        ]

    def _elsewhere(self) -> Part | None:
        """Return a block in the middle of the planes that lie farthest from those that were corrected."""
        shape, step = self.lesson.labels.shape, model_step(self.model, self.lesson.voxel_um)
        sides = [min(side, max(1, round(_BLOCK * factor))) for side, factor in zip(shape, step, strict=True)]
        known = np.asarray(self.lesson.planes)
        away = [int(np.abs(known - z).min()) for z in range(shape[0])]
        middle = int(np.argmax(away))
        if away[middle] == 0:
            return None
        start = min(max(0, middle - sides[0] // 2), shape[0] - sides[0])
        rows, columns = ((side - one) // 2 for side, one in zip(shape[1:], sides[1:], strict=True))
        return (
            slice(start, start + sides[0]),
            slice(rows, rows + sides[1]),
            slice(columns, columns + sides[2]),
        )

    def _segmented(self, model: LoadedModel, part: Part) -> NDArray[np.int32]:
        piece = np.asarray(self.lesson.volume[part])
        options = StackOptions(device=self.device)
        return segment_stack(piece, model, self.lesson.voxel_um, options, levels=self.levels)
