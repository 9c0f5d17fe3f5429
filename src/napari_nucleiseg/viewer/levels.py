"""Models of attention at the level of the slide in hand: found beside the window, and once."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from napari_nucleiseg.viewer.messages import Progress

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import LoadedModel
    from napari_nucleiseg.core.training.scales.slide_level import SlideLevel
    from napari_nucleiseg.viewer.opened import OpenedSlide

LOOKING = "Finding the level"
# Each holds a network.
MOST = 32


class SlideLevels:
    """What is known of the levels of slides; a search that was stopped goes on where it was."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], SlideLevel] = {}

    def model_for(
        self, model: LoadedModel, opened: OpenedSlide, level: str
    ) -> Generator[Progress, None, tuple[LoadedModel, str]]:
        """Return the model to use on a slide, and what there is to say of it.

        Parameters
        ----------
        model : LoadedModel
            As it was loaded.
        opened : OpenedSlide
            The slide, with a pixel size, and its results if there are any.
        level : str
            One of `LEVELS` of `core.models.spec`.

        Yields
        ------
        Progress
            While the level is looked for; whoever does not go on has stopped it.
        """
        from napari_nucleiseg.core.training.scales.slide_level import takes_slide_level

        if not takes_slide_level(model, level):
            return model, ""
        found = yield from self._found(model, opened)
        return found.model, found.note

    def model_for_all(
        self, model: LoadedModel, slides: Sequence[OpenedSlide], level: str
    ) -> Generator[Progress, None, LoadedModel]:
        """Return the model to teach with what slides hold: at the mean of their levels; see `model_for`."""
        from napari_nucleiseg.core.training.scales.slide_level import model_between, takes_slide_level

        if not takes_slide_level(model, level):
            return model
        taus = []
        for opened in slides:
            found = yield from self._found(model, opened)
            taus += [] if found.tau is None else [found.tau]
        return model_between(model, taus)

    def _found(self, model: LoadedModel, opened: OpenedSlide) -> Generator[Progress, None, SlideLevel]:
        from napari_nucleiseg.core.training.scales.slide_level import SlideLevel, recorded_level

        slide = opened.slide
        key = (slide.fingerprint or slide.path, slide.mpp_um, model.version)
        recorded = recorded_level(opened.project, model)
        found = self._known.get(key)
        if found is None or recorded not in {None, found.tau}:
            found = SlideLevel(model, recorded)
        self._keep(key, found)
        for done, total in found.look(slide, opened.tissue):
            if not found.is_known:
                yield Progress(LOOKING, done, total)
        if not found.is_whole:
            self._known.pop(key, None)
        return found

    def _keep(self, key: tuple[object, ...], found: SlideLevel) -> None:
        self._known.pop(key, None)
        self._known[key] = found
        for old in list(self._known)[:-MOST]:
            self._known.pop(old, None)
