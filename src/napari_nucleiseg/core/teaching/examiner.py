"""Measures weights on examples: for the curve, for the choice of what is kept, and for what was forgotten."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions, Instances, Maps, decoder
from napari_nucleiseg.core.inference.segment import default_options
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.teaching.agreement import Agreement, measure, together
from napari_nucleiseg.core.teaching.division import Division, Run
from napari_nucleiseg.core.teaching.examples import Example
from napari_nucleiseg.core.teaching.learner import Tensors
from napari_nucleiseg.core.training.validation import picture_maps

# Held-out pieces that the curve looks at; the verdict looks at all.
MOST_ON_CURVE = 4
# Pieces without labels on which both models are compared.
MOST_ELSEWHERE = 8
SURE_SCORE = 0.75


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """One held-out example as people, the former and the new network see it.

    Parameters
    ----------
    example : Example
        With the picture and people's labels.
    former, now : ndarray of int32, shape (y, x)
        Instance maps, 0 is background.
    """

    example: Example
    former: NDArray[np.int32]
    now: NDArray[np.int32]


class Examiner:
    """Runs networks over examples and compares what they say with people.

    Parameters
    ----------
    model : LoadedModel
        The former model.
    division : Division
        Which examples are held out.
    device : str
        Where to run.

    Attributes
    ----------
    former : dict of str to Tensor
        Weights of the former model, on the CPU.
    before : list of Agreement
        Of the former model with each held-out example.
    """

    def __init__(self, model: LoadedModel, division: Division, device: str) -> None:
        self.model, self.division = model, division
        self.device = choose_device(device)
        self.options = default_options(model)
        # The model itself stays where it is: others use it meanwhile.
        self.former = {key: value.detach().cpu() for key, value in model.network.state_dict().items()}
        self._network = copy.deepcopy(model.network).to(self.device).eval()
        self._former = self.decoded(self._network, division.held, self.options)
        self.before = [measure(*pair) for pair in zip(division.held, self._former, strict=True)]

    def maps(self, network: torch.nn.Module, example: Example) -> Maps:
        """Return the activated maps of an example, each ``(channels, y, x)`` float32."""
        return picture_maps(network, self.model.spec, example.image, self.device)

    def nuclei(self, maps: Maps, options: DecodeOptions) -> Instances:
        """Return the nuclei that maps show."""
        return decoder(self.model.spec.decoder).decode(maps, self.model.spec.mpp_um, options)

    def decoded(
        self, network: torch.nn.Module, examples: Sequence[Example], options: DecodeOptions
    ) -> list[NDArray[np.int32]]:
        """Return the instance map of each example."""
        return [self.nuclei(self.maps(network, example), options).labels for example in examples]

    def with_weights(self, weights: Tensors) -> torch.nn.Module:
        """Return the one network that measurements use, with other weights."""
        self._network.load_state_dict(weights)
        return self._network

    def preview_of_former(self) -> Preview | None:
        """Return a held-out example as the former model sees it."""
        held = self.division.held
        return Preview(held[0], self._former[0], self._former[0]) if held else None

    def look(self, weights: Tensors, run: Run) -> tuple[Agreement, Preview]:
        """Measure weights on some of what a run holds out, for its curve."""
        some = run.held[:MOST_ON_CURVE]
        seen = self.decoded(self.with_weights(weights), some, self.options)
        former = self._former[self._place(run)]
        measured = together(measure(*pair) for pair in zip(some, seen, strict=True))
        return measured, Preview(some[0], former, seen[0])

    def former_on_curve(self, run: Run) -> Agreement:
        """Return what `look` would say of the former model."""
        start = self._place(run)
        return together(self.before[start : start + min(len(run.held), MOST_ON_CURVE)])

    def _place(self, run: Run) -> int:
        """Position of the first example of a run among all that are held out."""
        place = 0
        for other in self.division.runs:
            if other is run:
                break
            place += len(other.held)
        return min(place, max(len(self._former) - 1, 0))

    def kept_view(self, weights: Tensors, elsewhere: Sequence[Example]) -> Agreement | None:
        """Compare new with former nuclei on tissue without labels; None if there is no such tissue or no nucleus."""
        elsewhere = elsewhere[:: max(1, -(-len(elsewhere) // MOST_ELSEWHERE))]
        former = self.decoded(self.with_weights(self.former), elsewhere, self.options)
        now = self.decoded(self.with_weights(weights), elsewhere, self.options)
        parts = [
            measure(replace(example, labels=then), seen)
            for example, then, seen in zip(elsewhere, former, now, strict=True)
        ]
        found = together(parts)
        return found if found.nuclei else None

    def first_look(self, example: Example) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return the former model's probability of nucleus, and the nuclei in the known part of which it is sure."""
        maps = self.maps(self.with_weights(self.former), example)
        seen = self.nuclei(maps, self.options)
        inside = [example.known[round(float(y)), round(float(x))] for y, x in seen.centroids]
        kept = np.flatnonzero((seen.scores >= SURE_SCORE) & np.array(inside, np.bool_)) + 1
        return maps["nuclei"][0], np.where(np.isin(seen.labels, kept), seen.labels, 0).astype(np.int32)
