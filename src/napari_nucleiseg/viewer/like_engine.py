"""The doors to finding the like; heavy imports happen behind them, in the thread that calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.viewer.like_candidates import Candidates, bold_nuclei, candidates_in, seen_at
from napari_nucleiseg.viewer.like_marks import SlideMark, mark_in, mask_of
from napari_nucleiseg.viewer.like_wishes import COLOUR, ENCODER, IN_HAND, MODEL, LikeWishes
from napari_nucleiseg.viewer.messages import Progress

if TYPE_CHECKING:
    from napari_nucleiseg.core.fewshot.field import FeatureField
    from napari_nucleiseg.core.fewshot.kept import KeptMark
    from napari_nucleiseg.core.fewshot.options import LikeOptions, Mark, Proposals
    from napari_nucleiseg.core.models.encoders import LoadedEncoder
    from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
    from napari_nucleiseg.core.slides.pyramid import Slide
    from napari_nucleiseg.viewer.engine import Engine
    from napari_nucleiseg.viewer.heads_engine import HeadsEngine
    from napari_nucleiseg.viewer.segmentation import Wish

TITLE = "Reading features"
# Around what is seen, so that nuclei at its border are whole.
AROUND_UM = 16.0
# Views begin and end on this grid, so that a small move of the camera needs nothing new.
GRID_PX = 64
# Of colour, which belongs to no network.
COLOUR_UM = 0.5
# Larger views are said to be too large: pixels of the network.
MOST_PX = 4_000_000
# Views that are kept, newest last.
KEPT_VIEWS = 6
Names = dict[str, str]


@dataclass(frozen=True, slots=True)
class Frame:
    """The part of a slide that is looked at, and its pixels.

    Parameters
    ----------
    region : Region
        Level-0 pixels.
    step : YX
        Level-0 pixels per pixel of the view.
    origin : YX
        Upper left corner, level-0 pixels.
    shape : tuple of int
        Rows and columns of the view.
    mpp_um : float
        Micrometres per pixel of the view.
    slide_um : YX
        Micrometres per level-0 pixel.
    """

    region: Region
    step: YX
    origin: YX
    shape: tuple[int, int]
    mpp_um: float
    slide_um: YX

    @property
    def area_px(self) -> int:
        """Number of pixels of the view."""
        return self.shape[0] * self.shape[1]

    @property
    def origin_um(self) -> YX:
        """Upper left corner, micrometres of the slide."""
        return YX(self.origin.y * self.slide_um.y, self.origin.x * self.slide_um.x)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What is known of a view before anything is marked.

    Parameters
    ----------
    frame : Frame
        Which part of the slide.
    source : str
        Whose features: name and version.
    model : str
        Version of the model that looked for candidates.
    field : FeatureField
        Of the view.
    bold : ndarray of int32, shape (y, x)
        Over ``frame.region``, see `bold_nuclei`.
    """

    frame: Frame
    source: str
    model: str
    field: FeatureField
    bold: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What is like the marks in a view.

    Parameters
    ----------
    look : Look
        The view.
    candidates : Candidates
        What could be proposed.
    proposals : Proposals
        What is, by numbers of `candidates`.
    kept : dict of int to KeptMark
        Of each mark of the view, by number: what to keep of it for other views.
    """

    look: Look
    candidates: Candidates
    proposals: Proposals
    kept: dict[int, KeptMark]


def frame_of(slide: Slide, view: Region, mpp_um: float) -> Frame:
    """Return what to look at so that a view is covered.

    Parameters
    ----------
    slide : Slide
        With a pixel size.
    view : Region
        What is seen, level-0 pixels.
    mpp_um : float
        Micrometres per pixel that the network sees.
    """
    slide_um = slide.require_mpp()
    step = YX(mpp_um / slide_um.y, mpp_um / slide_um.x)
    starts, shape, bounds = [], [], []
    margin = AROUND_UM / mpp_um
    for low, high, side, length in zip((view.y, view.x), (view.y1, view.x1), step, slide.shape, strict=True):
        first = max(0, int(np.floor((low / side - margin) / GRID_PX)) * GRID_PX)
        # Even, so that steps of two pixels fit.
        most = max(2, int(length / side) // 2 * 2)
        last = min(most, int(np.ceil((high / side + margin) / GRID_PX)) * GRID_PX)
        first = min(first, last - 2)
        starts.append(first)
        shape.append(last - first)
        bounds.append((int(np.floor(first * side)), min(length, int(np.ceil(last * side)))))
    region = Region.from_bounds(bounds[0][0], bounds[1][0], bounds[0][1], bounds[1][1])
    origin = YX(starts[0] * step.y, starts[1] * step.x)
    return Frame(region, step, origin, (shape[0], shape[1]), mpp_um, slide_um)


class LikeEngine:
    """Looks at views and finds the like in them; replaceable in tests.

    Parameters
    ----------
    engine : Engine
        Has the models.
    encoders : HeadsEngine
        Has the transformers.
    """

    def __init__(self, engine: Engine, encoders: HeadsEngine) -> None:
        self._engine, self._encoders = engine, encoders
        self._fields: OrderedDict[tuple[object, ...], FeatureField] = OrderedDict()
        self._bold: OrderedDict[tuple[object, ...], tuple[str, NDArray[np.int32]]] = OrderedDict()

    # ------------------------------------------------------------------ what can be compared

    def sources(self) -> Names:
        """Return what can be compared by, with titles: the model in hand first, then what is installed."""
        from napari_nucleiseg.viewer.heads_engine import PATCH

        models = {f"{MODEL}{card.name}": card.title or card.name for card in self._engine.models()}
        encoders = {
            f"{ENCODER}{name}": card.title or name
            for name, (card, spec) in self._encoders.encoders().items()
            if spec.kind == PATCH
        }
        return {IN_HAND: "The model in hand", **encoders, **models, COLOUR: "Colour alone"}

    def load(self, source: str, in_hand: str) -> LoadedModel | LoadedEncoder | None:
        """Return the network of a source; None for colour.

        Raises
        ------
        LicenceNotAcceptedError
            If its licence must be accepted first.
        ModelError
            If it cannot be loaded.
        """
        if source == COLOUR:
            return None
        if source.startswith(ENCODER):
            return self._encoders.load(source.removeprefix(ENCODER))
        return self._engine.load(source.removeprefix(MODEL) or in_hand)

    def card(self, source: str, in_hand: str) -> ModelCard | None:
        """Return the card of a source, whose licence may have to be accepted; None if it is not known."""
        name = source.removeprefix(ENCODER).removeprefix(MODEL) or in_hand
        if source.startswith(ENCODER):
            found = self._encoders.encoders().get(name)
            return None if found is None else found[0]
        return next((card for card in self._engine.models() if card.name == name), None)

    # ------------------------------------------------------------------ looking

    def look(
        self, wish: Wish, source: str, view: Region, cancelled: Callable[[], bool]
    ) -> Generator[Progress, None, Look]:
        """Look at a view: its features and its candidates, from memory where it was looked at before.

        Parameters
        ----------
        wish : Wish
            Slide, model and settings; its region does not matter.
        source : str
            Whose features, see `LikeWishes`.
        view : Region
            What is seen, level-0 pixels.
        cancelled : callable
            Polled between parts.

        Yields
        ------
        Progress
            After each part.

        Raises
        ------
        DataError
            If the view is too large.
        NucleiSegError
            If slide or models fail.
        """
        from napari_nucleiseg.core.errors import DataError

        slide = wish.opened.slide
        slide.require_mpp()
        network = self.load(source, wish.model)
        frame = frame_of(slide, view, COLOUR_UM if network is None else network.spec.mpp_um)
        if frame.area_px > MOST_PX:
            raise DataError("This view is too large to compare nuclei in. Zoom in until nuclei are seen.")
        name = COLOUR if network is None else f"{source or wish.model}@{network.card.version}"
        where = (slide.fingerprint or slide.path, frame)
        field = self._fields.get((*where, name))
        if field is None:
            field = yield from self._field(network, slide, frame, wish.device)
            self._remember(self._fields, (*where, name), field)
        key = (*where, wish.model, wish.options, wish.attention_level)
        bold = self._bold.get(key)
        if bold is None:
            bold = yield from bold_nuclei(replace(wish, region=frame.region), self._engine, cancelled)
            if not cancelled():
                self._remember(self._bold, key, bold)
        return Look(frame, name, bold[0], field, bold[1])

    def _field(
        self, network: LoadedModel | LoadedEncoder | None, slide: Slide, frame: Frame, device: str
    ) -> Generator[Progress, None, FeatureField]:
        from napari_nucleiseg.core.errors import DataError
        from napari_nucleiseg.core.fewshot.search import colour_field, field_steps

        picture = slide.read_box(frame.origin.y, frame.origin.x, frame.step.y, frame.step.x, frame.shape)
        if network is None:
            return colour_field(picture, frame.mpp_um, origin=frame.origin)
        for part in field_steps(network, picture, frame.mpp_um, origin=frame.origin, device=device):
            if part.field is not None:
                return part.field
            yield Progress(TITLE, part.done, part.total)
        raise DataError("The features of this view could not be computed. Choose another view.")

    @staticmethod
    def _remember(kept: OrderedDict[tuple[object, ...], Any], key: tuple[object, ...], value: Any) -> None:
        kept[key] = value
        while len(kept) > KEPT_VIEWS:
            kept.popitem(last=False)

    def candidates(self, wish: Wish, look: Look) -> Candidates:
        """Return what can be proposed in a view now; nuclei may have come and gone since it was looked at."""
        opened = wish.opened
        return candidates_in(look.frame.region, look.bold, opened.project, opened.slide.shape)

    # ------------------------------------------------------------------ finding

    def find(
        self,
        look: Look,
        candidates: Candidates,
        marks: Sequence[SlideMark],
        kept: Sequence[KeptMark],
        options: LikeOptions,
    ) -> Found:
        """Find what is like marks.

        Parameters
        ----------
        look, candidates
            The view.
        marks : sequence of SlideMark
            That lie in it.
        kept : sequence of KeptMark
            Of marks that lie elsewhere, made with the same source.
        options : LikeOptions
            Method and settings.

        Raises
        ------
        DataError
            If nothing is marked as like.
        """
        from napari_nucleiseg.core.fewshot.kept import find_across

        small = self._small(look.frame, candidates)
        pairs = [(mark, self._seen(mark, look.frame)) for mark in marks]
        seen = [view_mark for _mark, view_mark in pairs if view_mark is not None]
        proposals = find_across(look.field, small, seen, kept, options)
        return Found(look, candidates, proposals, self.keep(look, candidates, marks, options))

    def keep(
        self, look: Look, candidates: Candidates, marks: Sequence[SlideMark], options: LikeOptions
    ) -> dict[int, KeptMark]:
        """Return what to keep of the marks of a view for others, by their numbers."""
        from napari_nucleiseg.core.fewshot.kept import keep

        small, found = self._small(look.frame, candidates), {}
        for mark in marks:
            seen = self._seen(mark, look.frame)
            if seen is not None:
                mask = mask_of(seen, small, options.disc_um / look.frame.mpp_um)
                one = keep(look.field, mask, is_like=mark.is_like)
                if one is not None:
                    found[mark.number] = one
        return found

    @staticmethod
    def _small(frame: Frame, candidates: Candidates) -> NDArray[np.int32]:
        return seen_at(candidates.labels, frame.region, frame.origin, frame.step, frame.shape)

    @staticmethod
    def _seen(mark: SlideMark, frame: Frame) -> Mark | None:
        return mark_in(mark, frame.origin_um, frame.mpp_um, frame.shape)


def lies_in(mark: SlideMark, frame: Frame) -> bool:
    """Whether a mark lies wholly in what was looked at."""
    return mark_in(mark, frame.origin_um, frame.mpp_um, frame.shape) is not None


def options_of(wishes: LikeWishes) -> LikeOptions:
    """Return the settings as the search takes them; the threshold is found, and moved without a search."""
    from napari_nucleiseg.core.fewshot.options import LikeOptions

    return LikeOptions(
        method=wishes.method,
        background=wishes.background,
        distractors=wishes.distractors,
        kernels=wishes.kernels,
        whole=wishes.whole,
    )
