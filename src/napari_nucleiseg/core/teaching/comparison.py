"""Two models on one part of a slide: what either sees, what differs, and which agrees better with people's labels."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.inference.segment import default_options
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.teaching.agreement import Agreement, measure, together
from napari_nucleiseg.core.teaching.collect import labelled_parts
from napari_nucleiseg.core.teaching.differences import Differences, compare_maps
from napari_nucleiseg.core.teaching.examples import Example
from napari_nucleiseg.core.training.validation import picture_maps

# Side of the part that is looked at, at most, and of the pieces that a network sees at once; pixels of the finer model.
MOST_PX = 1024
PIECE_PX = 512
# Surroundings of a piece, in halos of the model: pieces are smaller than its tiles, and a seam is no difference.
HALOS = 2

Labels = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What two models see of one part of a slide.

    Parameters
    ----------
    region : Region
        The part, level-0 pixels.
    step : YX
        Level-0 pixels per pixel of both maps: those of the model that sees more finely.
    former, now : ndarray of int32, shape (y, x)
        Instance maps, 0 is background.
    differences : Differences
        Between the two.
    agreement : tuple of Agreement or None
        Of the former and the new model with people's labels there; None where nothing was corrected.
    """

    region: Region
    step: YX
    former: Labels
    now: Labels
    differences: Differences
    agreement: tuple[Agreement, Agreement] | None


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """How far a comparison is.

    Parameters
    ----------
    done, total : int
        Pieces that a model has looked at.
    comparison : Comparison or None
        With the last piece.
    """

    done: int
    total: int
    comparison: Comparison | None = None


def part_to_compare(view: Region, slide: Slide, models: Sequence[LoadedModel]) -> Region:
    """Return the middle of a view, level-0 pixels, that is at most `MOST_PX` wide for the model that sees most finely.

    Raises
    ------
    MissingPixelSizeError
        If the slide does not state its pixel size.
    """
    step = _step(slide, min(model.spec.mpp_um for model in models))
    height, width = min(view.height, round(MOST_PX * step.y)), min(view.width, round(MOST_PX * step.x))
    return Region(view.y + (view.height - height) // 2, view.x + (view.width - width) // 2, height, width)


def compare_models(
    former: LoadedModel,
    now: LoadedModel,
    slide: Slide,
    region: Region,
    *,
    project: Project | None = None,
    device: str = "auto",
) -> Iterator[Stage]:
    """Let two models look at a part of a slide, each at its own pixel size and with its own threshold.

    Parameters
    ----------
    former, now : LoadedModel
        The models.
    slide : Slide
        With a pixel size.
    region : Region
        Level-0 pixels inside the slide, see `part_to_compare`.
    project : Project, optional
        Where people's labels of the slide are, if there are any.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Yields
    ------
    Stage
        One before, and one after each piece; the last has the comparison. Closing the generator stops.
    """
    looks = [_Look(model, slide, region, project, device) for model in (former, now)]
    total, done = sum(look.pieces for look in looks), 0
    yield Stage(0, total)
    for look in looks:
        for _ in look.run():
            done += 1
            if done < total:
                yield Stage(done, total)
    finer = min(looks, key=lambda look: look.step)
    before, after = (_on_grid(look, finer) for look in looks)
    scores = [look.agreement for look in looks]
    agreement = (scores[0], scores[1]) if scores[0].nuclei and scores[1].nuclei else None
    comparison = Comparison(region, finer.step, before, after, compare_maps(before, after), agreement)
    yield Stage(total, total, comparison)


def _step(slide: Slide, mpp_um: float) -> YX:
    pixel = slide.require_mpp()
    return YX(mpp_um / pixel.y, mpp_um / pixel.x)


class _Look:
    """One model that looks at a part of a slide."""

    def __init__(self, model: LoadedModel, slide: Slide, region: Region, project: Project | None, device: str) -> None:
        self.spec, self.slide, self.region = model.spec, slide, region
        self.step = _step(slide, model.spec.mpp_um)
        self.shape = max(1, round(region.height / self.step.y)), max(1, round(region.width / self.step.x))
        self.device = choose_device(device)
        self.network = copy.deepcopy(model.network).to(self.device).eval()
        self.options = default_options(model)
        self.labels: Labels = np.zeros(self.shape, np.int32)
        self.agreement = together(())
        self._examples: list[Example] = [] if project is None else labelled_parts(project, slide, self.spec, region)

    @property
    def pieces(self) -> int:
        """How many times the network is run."""
        return len(self._cores()) + len(self._examples)

    def run(self) -> Iterator[None]:
        """Find the nuclei and measure them, piece by piece."""
        maps: dict[str, NDArray[np.float32]] = {}
        cores = self._cores()
        for core in cores:
            for name, values in self._maps(core).items():
                whole = maps.setdefault(name, np.zeros((len(values), *self.shape), np.float32))
                whole[(slice(None), *core.slices)] = values
            if core is cores[-1]:
                self.labels = self._decode(maps)
            yield
        parts = []
        for example in self._examples:
            seen = self._decode(picture_maps(self.network, self.spec, example.image, self.device))
            parts.append(measure(example, seen))
            self.agreement = together(parts, len({one.key for one in self._examples}))
            yield

    def _decode(self, maps: dict[str, NDArray[np.float32]]) -> Labels:
        return decoder(self.spec.decoder).decode(maps, self.spec.mpp_um, self.options).labels

    def _cores(self) -> list[Region]:
        """Divide the part into pieces, in pixels of this model."""
        height, width = self.shape
        return [
            Region.from_bounds(y, x, min(y + PIECE_PX, height), min(x + PIECE_PX, width))
            for y in range(0, height, PIECE_PX)
            for x in range(0, width, PIECE_PX)
        ]

    def _maps(self, core: Region) -> dict[str, NDArray[np.float32]]:
        """Run the network over a piece with its surroundings, as far as the slide goes; return maps of the piece."""
        whole, halo = self.slide.region, HALOS * self.spec.halo_px
        above, left = int(self.region.y / self.step.y), int(self.region.x / self.step.x)
        below, right = int((whole.y1 - self.region.y) / self.step.y), int((whole.x1 - self.region.x) / self.step.x)
        y0, x0 = max(core.y - halo, -above), max(core.x - halo, -left)
        y1, x1 = max(core.y1, min(core.y1 + halo, below)), max(core.x1, min(core.x1 + halo, right))
        corner = YX(self.region.y + y0 * self.step.y, self.region.x + x0 * self.step.x)
        image = self.slide.read_box(*corner, *self.step, (y1 - y0, x1 - x0))
        inside = core.translate(-y0, -x0).slices
        maps = picture_maps(self.network, self.spec, image, self.device)
        return {name: values[(slice(None), *inside)] for name, values in maps.items()}


def _on_grid(look: _Look, finer: _Look) -> Labels:
    """Return the labels of one look at the pixels of another, by the nucleus at their centres."""
    places = (
        np.clip(((np.arange(count) + 0.5) * fine / own).astype(np.int64), 0, most - 1)
        for count, fine, own, most in zip(finer.shape, finer.step, look.step, look.shape, strict=True)
    )
    return np.ascontiguousarray(look.labels[np.ix_(*places)])
