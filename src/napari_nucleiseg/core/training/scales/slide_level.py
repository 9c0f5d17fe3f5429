"""The level of attention that suits a slide, by Otsu's threshold: found window by window, the same for whoever asks.

What a model of attention takes for a nucleus is decided by its level. The one it was trained with does badly on slides
that differ from those it was trained on, so that each slide gets its own unless somebody says otherwise.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError, SlideError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.scale_attention import (
    ScaleAttention,
    at_level,
    confidences,
    has_level,
    level_in,
    otsu_level,
)
from napari_nucleiseg.core.models.spec import SLIDE_LEVEL, ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.tissue import TissueMask, tissue_mask
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.training.scales.samples import ScaleSource, find_places

WINDOW_PX = 512
WINDOWS = 24
# The published network takes longer for each: about as much work as three of its tiles.
FULL_WINDOWS = 12
OWN_LEVEL = "No tissue was found on this slide to take the level of attention from, so it is the model's own."
LEAST_TISSUE = 0.5
_SEED = 0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Squares of tissue to look at.

    Parameters
    ----------
    corners : ndarray of int64, shape (n, 2)
        Top-left corners ``(y, x)``, level-0 pixels.
    side : int
        Model pixels.
    step : YX
        Level-0 pixels per model pixel.
    """

    corners: NDArray[np.int64]
    side: int
    step: YX

    def __len__(self) -> int:
        return len(self.corners)

    def read(self, slide: Slide, number: int, finer: int = 1) -> NDArray[np.uint8]:
        """Read one, ``(side, side, 3)`` RGB at the model's pixel size; with `finer` times as many pixels a side."""
        y, x = self.corners[number].tolist()
        side = self.side * finer
        return slide.read_box(y, x, self.step.y / finer, self.step.x / finer, (side, side))

    def box(self, number: int) -> Region:
        """Return where one lies, level-0 pixels."""
        y, x = self.corners[number].tolist()
        return Region(y, x, math.ceil(self.side * self.step.y), math.ceil(self.side * self.step.x))


def choose_windows(
    spec: ModelSpec,
    slide: Slide,
    regions: Sequence[Region] = (),
    *,
    most: int = WINDOWS,
    seed: int = _SEED,
    tissue: TissueMask | None = None,
    least_tissue: float = LEAST_TISSUE,
) -> Windows:
    """Choose windows of tissue, the same ones each time.

    Parameters
    ----------
    spec : ModelSpec
        States the pixel size.
    slide : Slide
        With a stated pixel size.
    regions : sequence of Region
        Level-0 pixels to look at; empty means all tissue.
    most : int
        Windows at most.
    seed : int
        Of the choice where there are more.
    tissue : TissueMask, optional
        Of the slide, if it is known.
    least_tissue : float
        Share of a window that is tissue.

    Raises
    ------
    DataError
        If there is no tissue in the regions, or they are too small.
    """
    mpp = slide.require_mpp()
    step = YX(spec.mpp_um / mpp.y, spec.mpp_um / mpp.x)
    areas = [region.intersect(slide.content) for region in regions] or [slide.content]
    narrowest = min((min(area.height / step.y, area.width / step.x) for area in areas), default=0)
    multiple = spec.size_multiple
    side = min(WINDOW_PX, int(narrowest) // multiple * multiple)
    if side < multiple:
        raise DataError("the regions are too small to look at; draw larger ones")
    # Places are counted in whole pixels of level 0; a window may be a little smaller than what is set aside for it.
    set_aside = math.ceil(side * max(step) - 1e-6)
    source = ScaleSource("", slide, tuple(areas))
    set_aside = min(set_aside, *(min(area.height, area.width) for area in areas))
    places = find_places(source, 1, set_aside, tissue or tissue_mask(slide), least_tissue)
    if places is None:
        raise DataError("there is no tissue in the regions to look at; choose others")
    chosen = np.random.default_rng(seed).permutation(len(places.corners))[:most]
    return Windows(places.corners[chosen], side, step)


class SlideLevel:
    """What is known of the level that one slide asks of one model; several threads may look at once.

    Parameters
    ----------
    model : LoadedModel
        Of a network of scale attention, at its own level.
    tau : float, optional
        The level, where it is known already.
    """

    def __init__(self, model: LoadedModel, tau: float | None = None) -> None:
        self._own = model
        self._network = cast("ScaleAttention", model.network)
        self._lock = threading.Lock()
        self._windows: Windows | None = None
        self._values: list[NDArray[np.float32]] = []
        self._looked, self._unreadable, self._reason = 0, 0, ""
        self.tau = tau
        self.is_known = tau is not None
        self.note = ""
        """Why it is the model's own level, as a sentence; empty where it is the slide's."""
        self._model = model if tau is None else at_level(model, tau)

    @property
    def is_whole(self) -> bool:
        """Whether all was seen that was to be seen: what could not be read may be there next time."""
        return not self._unreadable

    @property
    def model(self) -> LoadedModel:
        """The model at the slide's level once that is known, before that and without tissue at its own."""
        return self._model

    def look(self, slide: Slide, tissue: TissueMask | None = None) -> Iterator[tuple[int, int]]:
        """Go on looking until the level is known; what was looked at once is not looked at again.

        Parameters
        ----------
        slide : Slide
            The slide, with a stated pixel size.
        tissue : TissueMask, optional
            Of the slide, if it is known.

        Yields
        ------
        tuple of int
            How many windows were looked at, and of how many.

        Raises
        ------
        SlideError
            If none can be read.
        """
        while not self.is_known:
            with self._lock:
                if not self.is_known:
                    self._look_once(slide, tissue)
                done, total = self._looked, len(self._windows or ())
            yield done, total

    def _look_once(self, slide: Slide, tissue: TissueMask | None) -> None:
        if self._windows is None:
            most = FULL_WINDOWS if self._network.stride == 1 else WINDOWS
            try:
                self._windows = choose_windows(self._own.spec, slide, most=most, tissue=tissue)
            except DataError:
                self._settle()
            return
        if self._looked < len(self._windows):
            self._see(slide, self._windows, self._looked)
            self._looked += 1
        if self._looked == len(self._windows):
            self._settle()

    def _see(self, slide: Slide, windows: Windows, number: int) -> None:
        try:
            picture = windows.read(slide, number)
        except (SlideError, OSError) as error:
            self._unreadable, self._reason = self._unreadable + 1, str(error)
            return
        # Damage is shown as background, which would count as tissue that is not worth a look.
        if not any(damage.region.overlaps(windows.box(number)) for damage in slide.damage_at(windows.step)):
            self._values.append(confidences(self._network, self._own.spec, picture))

    def _settle(self) -> None:
        if not self._values and self._unreadable:
            self._windows, self._looked, self._unreadable = None, 0, 0
            raise SlideError(
                f"The slide cannot be read to find its level of attention ({self._reason}). Check that its drive is "
                "connected and try again."
            )
        if self._values:
            self._model = at_level(self._own, otsu_level(np.concatenate(self._values)))
            self.tau = level_in(self._model.version, self._own.card)
        else:
            self.note = OWN_LEVEL
        self._values = []
        self.is_known = True


def takes_slide_level(model: LoadedModel, level: str = SLIDE_LEVEL) -> bool:
    """Whether a model is to be used at the level of each slide.

    Parameters
    ----------
    model : LoadedModel
        Any.
    level : str
        One of `LEVELS` of `core.models.spec`.
    """
    return level == SLIDE_LEVEL and has_level(model) and not model.card.level_is_set and not model.suffix


def recorded_level(project: Project | None, model: LoadedModel) -> float | None:
    """Return the level at which a model has segmented a project last; None if it has not.

    Whoever goes on with a project takes it from here, so that a rounding error of another processor changes nothing.
    """
    if project is None:
        return None
    runs = project.ledger.reader.execute("SELECT model_version FROM runs ORDER BY run DESC").fetchall()
    found = (level_in(version, model.card) for (version,) in runs)
    return next((tau for tau in found if tau is not None), None)


def model_for_slide(
    model: LoadedModel,
    slide: Slide,
    level: str = SLIDE_LEVEL,
    *,
    project: Project | None = None,
    on_message: Callable[[str], None] | None = None,
) -> LoadedModel:
    """Return the model to segment a slide with: at the slide's own level, if it is one of attention.

    Models of other networks, and those whose level a person or labels have settled, are returned as they are.

    Parameters
    ----------
    model : LoadedModel
        Any.
    slide : Slide
        With a stated pixel size.
    level : str
        ``slide``, or ``model`` for the level that the model was trained with.
    project : Project, optional
        Results that are gone on with: the level they were made with counts.
    on_message : callable, optional
        Told in a sentence where the slide holds no tissue to go by; default the log.

    Raises
    ------
    SlideError
        If the slide cannot be read.
    """
    if not takes_slide_level(model, level):
        return model
    found = _found(model, slide, project)
    if found.note:
        (on_message or logger.warning)(found.note)
    return found.model


def level_of_slide(
    model: LoadedModel, slide: Slide, level: str = SLIDE_LEVEL, project: Project | None = None
) -> float | None:
    """Return the level that `model_for_slide` gives a model; None where it is the model's own."""
    return _found(model, slide, project).tau if takes_slide_level(model, level) else None


def _found(model: LoadedModel, slide: Slide, project: Project | None) -> SlideLevel:
    found = SlideLevel(model, recorded_level(project, model))
    # What was said of the pixels when the results were made counts more than what the file says.
    for _ in found.look(slide if project is None else replace(slide, mpp_um=project.mpp_um)):
        pass
    return found


def model_between(model: LoadedModel, taus: Sequence[float]) -> LoadedModel:
    """Return a model at the mean of the levels of some slides, as it is where there are none."""
    return at_level(model, sum(taus) / len(taus)) if taus else model
