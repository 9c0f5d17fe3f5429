"""Which region to annotate next: where the model is unsure, and what is unlike all that was annotated before.

Several scores of uncertainty are joined by their ranks, because none of them is best everywhere; among the most
uncertain windows those are taken that are far from each other (greedy k-centre, Sener & Savarese, ICLR 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from napari_nucleiseg.core.errors import SlideError, TeachingError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.teaching.uncertainty import TURNS, Look, Onlooker
from napari_nucleiseg.core.teaching.windows import PictureWindows, SlideWindows, Window, Windows
from napari_nucleiseg.core.training.fields import settings_problem

# A window shows tissue if this part of its pixels is darker than glass (L of L*a*b*, as 8 bits).
GLASS_LIGHTNESS = 225
LEAST_TISSUE = 0.25
# Distance from all that is annotated from which a window looks unlike it; two windows taken at random are about 2.4
# apart, because each of three groups of features has a spread of one.
UNLIKE = 2.0
_RANGES = {
    "side_um": (1.0, 10_000.0),
    "candidates": (1, 100_000),
    "regions": (1, 1000),
    "upper": (0.0, 1.0),
    "views": (0, len(TURNS)),
    "stain": (0.0, 1.0),
    "change": (0.0, 0.5),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """How the next regions are looked for.

    Parameters
    ----------
    side_um : float
        Side of a region, micrometres.
    candidates : int
        Windows that are looked at, by chance where there are more: the time does not grow with the slide.
    regions : int
        Regions that are proposed.
    upper : float
        Part of the ranking, from the most uncertain on, among which unlike ones are chosen, 0..1; 0 takes the most
        uncertain ones whatever they look like.
    views : int
        Turned and restained views of each window, 0 to 7.
    stain : float
        How differently they are stained: standard deviation of the log gain of each stain.
    change : float
        How far the threshold is moved to see what comes and goes.
    seed : int
        Seeds the choice of windows and the stains.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    side_um: float = 64.0
    candidates: int = 64
    regions: int = 5
    upper: float = 0.4
    views: int = 2
    stain: float = 0.15
    change: float = 0.1
    seed: int = 0
    device: str = "auto"

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        return settings_problem(self, _RANGES)


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """One window that was looked at.

    Parameters
    ----------
    window : Window
        Where.
    look : Look
        How unsure the model is of it, and what it shows.
    annotated : bool
        Whether it is annotated already: it is only there to be compared with.
    done, total : int
        Windows looked at so far, and at most.
    """

    window: Window
    look: Look
    annotated: bool
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """A region to annotate next.

    Parameters
    ----------
    region : Region
        Level-0 pixels of the slide, or pixels of the picture.
    score : float
        Mean rank among all that was looked at, 0..1; 1 is the least sure by every score.
    reason : str
        Why, for people.
    picture : int
        Number of the picture; 0 for a slide.
    """

    region: Region
    score: float
    reason: str
    picture: int = 0


def rank(model: LoadedModel, slide: Slide, project: Project, config: QueueConfig | None = None) -> Iterator[Ranked]:
    """Look at windows of a slide; hand what comes out to `next_regions`. Closing the generator stops.

    Candidates lie in tiles that are done, hold tissue and do not overlap regions that are taught or held out.

    Parameters
    ----------
    model : LoadedModel
        Whose uncertainty counts.
    slide, project
        Of one slide.
    config : QueueConfig, optional
        Settings.

    Yields
    ------
    Ranked
        One a window, what is annotated already first.

    Raises
    ------
    TeachingError
        If settings make no sense, nothing was segmented, or all of it is glass or annotated.
    """
    wanted = _checked(config)
    windows = SlideWindows(slide, project, model.spec, side_um=wanted.side_um, most=wanted.candidates, seed=wanted.seed)
    yield from _look_at(model, windows, wanted)


def rank_pictures(
    model: LoadedModel,
    pictures: Sequence[NDArray[np.uint8]],
    candidates: Sequence[Window],
    annotated: Sequence[Window] = (),
    config: QueueConfig | None = None,
) -> Iterator[Ranked]:
    """Look at windows of plain pictures; see `rank`.

    Parameters
    ----------
    model : LoadedModel
        Whose uncertainty counts.
    pictures : sequence of ndarray of uint8, shape (y, x, 3)
        RGB at the model's pixel size.
    candidates, annotated : sequence of Window
        What could be annotated, and what is so already; those of the former that overlap the latter are left out.
    config : QueueConfig, optional
        Settings; `side_um` is not used.

    Yields
    ------
    Ranked
        One a window, what is annotated already first.

    Raises
    ------
    TeachingError
        If settings make no sense, or there is no candidate that shows tissue.
    """
    wanted = _checked(config)
    windows = PictureWindows(pictures, candidates, annotated, most=wanted.candidates, seed=wanted.seed)
    yield from _look_at(model, windows, wanted)


def _checked(config: QueueConfig | None) -> QueueConfig:
    wanted = config or QueueConfig()
    if problem := wanted.validation_error():
        raise TeachingError(f"The next region cannot be looked for: {problem}.")
    return wanted


def _look_at(model: LoadedModel, windows: Windows, config: QueueConfig) -> Iterator[Ranked]:
    known = windows.annotated()
    total = len(known) + config.candidates
    onlooker = None
    done = free = 0
    for window, annotated in (*((one, True) for one in known), *((one, False) for one in windows.candidates())):
        try:
            image, inside = windows.read(window)
        except SlideError:
            continue  # a part of the slide that cannot be read cannot be annotated either
        if not annotated and _tissue(image[inside]) < LEAST_TISSUE:
            continue
        onlooker = onlooker or Onlooker(model, config.device, config.views, config.stain, config.change)
        rng = np.random.default_rng((config.seed, window.picture, window.region.y, window.region.x))
        done, free = done + 1, free + (not annotated)
        yield Ranked(window, onlooker.look(image, inside, rng), annotated, done, total)
        if done == total:
            return
    if not free:
        raise TeachingError(
            "There is no tissue left to choose from: what has been segmented is annotated already or is glass. Segment "
            "more of the slide."
        )


def _tissue(image: NDArray[np.uint8]) -> float:
    """Return the part of a picture that is darker than glass."""
    # The lightness follows from grey values closely enough, at a fraction of the time.
    return float(np.mean(image.mean(axis=2) < GLASS_LIGHTNESS))


def next_regions(ranked: Iterable[Ranked], config: QueueConfig | None = None) -> list[Proposal]:
    """Choose the regions to annotate next, best first: uncertain, and unlike those before; so scores may rise again.

    Parameters
    ----------
    ranked : iterable of Ranked
        What `rank` or `rank_pictures` has given, all or, if it was stopped, a part.
    config : QueueConfig, optional
        Settings.

    Raises
    ------
    TeachingError
        If settings make no sense, or nothing was looked at that could be annotated.
    """
    wanted = _checked(config)
    seen = list(ranked)
    free = [one for one in seen if not one.annotated]
    if not free:
        raise TeachingError(
            "No part of the slide was looked at. Look for the next region again and let it go on longer."
        )
    known = [one for one in seen if one.annotated]
    scores = _mean_ranks([one.look for one in free])
    places = _places([one.look for one in (*free, *known)])
    apart = _distances(places[: len(free)], places[len(free) :])
    return [
        Proposal(
            free[place].window.region,
            float(scores[place]),
            _reason(free[place].look, unlike=bool(known) and bool(apart[place] > UNLIKE)),
            free[place].window.picture,
        )
        for place in _chosen(scores, places[: len(free)], apart, wanted)
    ]


def _mean_ranks(looks: Sequence[Look]) -> NDArray[np.float64]:
    """Return the mean over all scores of the rank among the windows, above 0, at most 1."""
    table = np.array([look.scores for look in looks])
    return np.asarray(rankdata(table, axis=0).mean(axis=1) / len(looks), np.float64)


def _places(looks: Sequence[Look]) -> NDArray[np.float64]:
    """Return features of which each group weighs the same, shape (n, k)."""
    groups = []
    for values in zip(*(look.features for look in looks), strict=True):
        table = np.stack(values)
        spread = np.maximum(table.std(axis=0), 1e-6)
        groups.append((table - table.mean(axis=0)) / spread / math.sqrt(table.shape[1]))
    return np.concatenate(groups, axis=1)


def _distances(places: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each place is from the nearest of the others; infinite if there are none."""
    if not len(others):
        return np.full(len(places), np.inf)
    return np.asarray(np.linalg.norm(places[:, None] - others[None], axis=-1).min(axis=1), np.float64)


def _chosen(
    scores: NDArray[np.float64], places: NDArray[np.float64], apart: NDArray[np.float64], config: QueueConfig
) -> list[int]:
    """Choose among the most uncertain: the next is the one that is most uncertain and farthest from all before."""
    order = np.argsort(-scores, kind="stable")
    pool = order[: max(config.regions, math.ceil(config.upper * len(order)))].tolist()
    nearest = apart.copy()
    chosen: list[int] = []
    while pool and len(chosen) < config.regions:
        distance = np.where(np.isfinite(nearest), nearest, 1.0)
        best = max(pool, key=lambda place: float(scores[place] * distance[place])) if config.upper else pool[0]
        pool.remove(best)
        chosen.append(best)
        nearest = np.minimum(nearest, _distances(places, places[best : best + 1]))
    return chosen


def _reason(look: Look, *, unlike: bool) -> str:
    nuclei = "1 nucleus" if look.unsure == 1 else f"{look.unsure} nuclei"
    told = f"The model is not sure of {nuclei} here" if look.unsure else "Some outlines are a little vague here"
    return f"{told}, and it looks unlike what you have annotated." if unlike else f"{told}."
