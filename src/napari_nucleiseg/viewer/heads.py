"""What every attention head looks at in the view: looked at once, then shown, switched, composed and pinned at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, MissingPixelSizeError, NucleiSegError
from napari_nucleiseg.state import BOTH, LAST_LAYER, MEAN, NO_ENCODER, PATCHES, HeadWishes
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.encoder_list import EncoderList
from napari_nucleiseg.viewer.head_titles import title_of, wish_of
from napari_nucleiseg.viewer.heads_engine import HeadsEngine, Looks
from napari_nucleiseg.viewer.heads_lanes import GALLERY
from napari_nucleiseg.viewer.heads_lanes import LOOK as LANE
from napari_nucleiseg.viewer.heads_layer import HeadsLayer
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.messages import Hint, LicenceQuestion, PixelSizeQuestion, Progress
from napari_nucleiseg.viewer.sentences import OUT_OF_SIGHT, sentence_of
from napari_nucleiseg.viewer.visible import visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.patches import PatchPlan
    from napari_nucleiseg.core.attention.shown import MapWish, ShownMap
    from napari_nucleiseg.core.geometry import Region
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.viewer.opened import OpenedSlide

SETTLED_S, SHOWN_S = 0.25, 0.1
WISHED, MOVED = "wish for heads", "heads view"
NO_SLIDE = "Open a slide first: the heads show what they look at in the view."
NOT_FLAT = "Switch to the two-dimensional view (Ctrl+Y) to look at heads."
NO_ENCODERS = "There is no transformer to look with. Get one with: napari-nucleiseg models get hipt-256"
IS_CUT = "The view is larger than what is looked at in one piece: its middle is shown. Zoom in to see all of it."
# Slide pixels this much larger than the transformer's are worth a word.
COARSE = 1.2
NO_REGION = "Choose a transformer of regions to see which patches it looks at."


@dataclass(frozen=True, slots=True, eq=False)
class Pin:
    """A map that stays.

    Parameters
    ----------
    title : str
        Which head of what.
    shown : ShownMap
        The map.
    layer : napari.layers.Image
        Shows it on the slide, when it is switched on.
    """

    title: str
    shown: ShownMap
    layer: Any


class Heads:
    """The heads of one viewer; all methods are for the main thread.

    Parameters
    ----------
    controller : Controller
        Knows the viewer, the slide in hand, the jobs and the folder of results.
    engine : HeadsEngine, optional
        The headless part.
    """

    progress_changed = Signal(object)
    """`Progress`, or None when nothing runs."""
    looked = Signal()
    """Something new is known of the view, or nothing any more."""
    shown_changed = Signal()
    """Another map is shown, or none."""
    gallery_made = Signal(object)
    """Maps of all heads, by name."""
    pins_changed = Signal()
    said = Signal(Hint)

    def __init__(self, controller: Controller, engine: HeadsEngine | None = None) -> None:
        display = controller.display
        self.engine = engine or HeadsEngine()
        self.controller, self.display, self.viewer = controller, display, display.viewer
        self.jobs, self.shelf, self.session = display.jobs, display.shelf, display.session
        self.wishes = HeadWishes()
        self.layer = HeadsLayer(self.viewer)
        self.encoders = EncoderList(self.engine, self.jobs, self.wishes, self.on_failed)
        self.looks: Looks | None = None
        """What is known of the view that was looked at last."""
        self.shown: ShownMap | None = None
        self.pins: list[Pin] = []
        self.asked: Callable[[MapWish], ShownMap] | None = None
        """Makes the map of a token that was asked, in place of the class token's."""
        self.asked_title = ""
        self._opened: OpenedSlide | None = None
        self._slide: Any = None
        self._is_open = False
        events, camera = self.wishes.events, self.viewer.scene.camera.events
        self._connections = Connections(
            *((signal, self._on_map_wished) for signal in (
                events.layer, events.region_layer, events.level, events.weight, events.values,
            )),
            # The gallery shows all heads, whichever is meant.
            (events.head, self.show),
            (events.region_head, self.show),
            (events.opacity, self._on_style_wished),
            (events.colours, self._on_style_wished),
            (events.encoder, self._on_encoder_wished),
            (events.region_encoder, self._on_encoder_wished),
            (events.averaged, self._on_look_wished),
            (events.level, self._on_level_wished),
            (events.tissue_only, self._on_look_wished),
            (events.follow, self._on_view_moved),
            (camera.center, self._on_view_moved),
            (camera.zoom, self._on_view_moved),
            (controller.slide_changed, self._on_slide_changed),
        )  # fmt: skip

    # ------------------------------------------------------------------ life

    def open(self) -> None:
        """Begin to follow wishes and camera; list the encoders, also those that came since the last time."""
        if not self._is_open:
            self._is_open = True
            self._connections.open()
        self.encoders.list()

    def close(self) -> None:
        """Take everything away."""
        if self._is_open:
            self._is_open = False
            self._connections.close()
        self.drop()
        self.layer.close()

    # ------------------------------------------------------------------ looking

    @property
    def is_running(self) -> bool:
        """Whether something is being looked at."""
        return self.jobs.is_running(LANE)

    @property
    def opened(self) -> OpenedSlide | None:
        """The slide that was looked at, as long as it is the one in hand and its pixels are what they were."""
        now = self.shelf.now
        return now if now is not None and now is self._opened and now.slide is self._slide else None

    def look(self) -> None:
        """Look at what the canvas shows."""
        opened = self.shelf.now
        if opened is None:
            self._warn(NO_SLIDE)
            return
        if not self.wishes.encoder:
            self._warn(NO_ENCODERS)
            return
        region = visible_region(self.viewer, opened.layer)
        if region is None:
            self._warn(NOT_FLAT)
        elif region.is_empty:
            self._warn(OUT_OF_SIGHT)
        else:
            self._begin(opened, region)

    def _begin(self, opened: OpenedSlide, region: Region) -> None:
        slide, wishes, results = opened.slide, self.wishes, self.session.results_folder
        names, averaged, device = (wishes.encoder, wishes.region_encoder), wishes.averaged, self.session.device
        kept, only_tissue = self.looks if self.opened is opened else None, wishes.tissue_only
        coarse = wishes.level != PATCHES

        def tissue() -> Any:
            if opened.tissue is None:
                opened.tissue = self.controller.teaching.engine.tissue(slide)
            return opened.tissue

        messages: list[str] = []

        def work(cancelled: Cancelled) -> Iterator[Any]:
            looking = self.engine.prepare(
                slide, region, names, averaged=averaged, coarse=coarse, tissue=tissue if only_tissue else None
            )
            same = kept is not None and kept.is_whole and kept.looking.key == looking.key
            if same and (kept.looking.tissue is None) == (looking.tissue is None):  # type: ignore[union-attr]
                return
            folder = opened.folder or self.controller.teaching.engine.project_folder(slide, results)
            for looks in self.engine.look(
                slide, looking, folder, device=device, cancelled=cancelled, on_message=messages.append
            ):
                yield looks
                while messages:
                    yield Hint(messages.pop(0), is_warning=True)

        self._opened, self._slide = opened, slide
        self.jobs.start(
            LANE,
            work,
            title="Looking",
            on_value=self._on_value,
            on_end=self._on_ended,
            on_error=lambda error: self.on_failed(error, lambda: self._begin(opened, region)),
            on_late_error=lambda error: self._warn(sentence_of(error)),
        )
        self.progress_changed.emit(Progress("Looking"))

    def stop(self) -> None:
        """Stop looking; what is known stays."""
        self.wishes.follow = False
        if self.jobs.cancel(LANE):
            self._on_ended()

    def _on_value(self, value: Looks | Hint) -> None:
        if isinstance(value, Hint):
            self.said.emit(value)
            return
        if self.looks is None or self.looks.looking is not value.looking:
            self.asked = None
            self.said.emit(Hint(" ".join(notes_of(value.looking.plans[0]))))
        self.looks = value
        self.progress_changed.emit(Progress("Looking", value.done, value.total))
        self.jobs.soon(LANE, SHOWN_S, self.show)

    def _on_ended(self) -> None:
        self.progress_changed.emit(None)
        self.jobs.forget(LANE)
        self.show()
        self.looked.emit()
        self.make_gallery()

    def on_failed(self, error: BaseException, again: Callable[[], None] | None = None) -> None:
        """Say what went wrong, and ask what has to be known to go on."""
        self.wishes.follow = False
        self.progress_changed.emit(None)
        if not isinstance(error, NucleiSegError):
            raise error
        opened = self.shelf.now
        if isinstance(error, MissingPixelSizeError) and opened is not None and again is not None:
            self.controller.ask(PixelSizeQuestion(opened.slide), self.look)
        if isinstance(error, LicenceNotAcceptedError) and again is not None:
            card = self.encoders.card_in(str(error))
            if card is not None:
                self.controller.ask(LicenceQuestion(card), again)
        self._warn(sentence_of(error))

    # ------------------------------------------------------------------ showing

    @property
    def wish(self) -> MapWish:
        """Which map is wished for."""
        return wish_of(self.wishes)

    @property
    def title(self) -> str:
        """What the map that is wished for is called."""
        return title_of(self.wish) if self.asked is None else f"{self.asked_title}: {title_of(self.wish)}"

    def show(self) -> None:
        """Show the map that is wished for, of what is known."""
        from napari_nucleiseg.core.attention.shown import shown_map

        looks, opened = self.looks, self.opened
        if looks is None or opened is None or not looks.looks:
            return
        if self.wishes.level != PATCHES and not looks.is_whole:
            if not self.is_running:
                self._warn(NO_REGION)
            return
        try:
            if self.asked is not None:
                self.shown = self.asked(self.wish)
            else:
                self.shown = shown_map(looks.looks, self.wish, looks.looking.tissue)
        except NucleiSegError as error:
            self._warn(sentence_of(error))
            return
        wishes = self.wishes
        self.layer.show(opened, self.shown, self.title, opacity=wishes.opacity, colours_name=wishes.colours)
        self.shown_changed.emit()

    def make_gallery(self) -> None:
        """Make the maps of all heads of the level and layer, off the main thread."""
        from napari_nucleiseg.core.attention.shown import all_heads

        looks, wish = self.looks, self.wish
        if looks is None or not looks.looks or (wish.level != PATCHES and not looks.is_whole):
            return
        if wish.level != PATCHES and looks.looks[0].region is None:
            return

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield all_heads(looks.looks, wish, looks.looking.tissue)

        self.jobs.start(GALLERY, work, on_value=self.gallery_made.emit, on_error=self.on_failed)

    def pick(self, name: str) -> None:
        """Show the head that was picked in the gallery; of both levels a pair ``head,region head``."""
        if self.wishes.level == BOTH:
            self.wishes.head, self.wishes.region_head = name.split(",")
        elif self.wishes.level == PATCHES:
            self.wishes.head = name
        else:
            self.wishes.region_head = name

    def pin(self) -> None:
        """Keep the map that is shown, beside those that are shown later."""
        opened = self.opened
        if self.shown is None or opened is None:
            return
        wishes = self.wishes
        layer = self.layer.pin(opened, self.shown, self.title, opacity=wishes.opacity, colours_name=wishes.colours)
        self.pins.append(Pin(self.title, self.shown, layer))
        self.pins_changed.emit()

    def unpin(self, pin: Pin) -> None:
        """Let go of a map that was kept."""
        self.pins.remove(pin)
        self.layer.unpin(pin.layer)
        self.pins_changed.emit()

    def drop(self) -> None:
        """Forget what was looked at, and what was pinned of it."""
        # What is still on its way would be of what is gone.
        for lane in (LANE, GALLERY):
            self.jobs.cancel(lane)
        for key in (LANE, WISHED, MOVED):
            self.jobs.forget(key)
        self.looks = self.shown = self.asked = None
        self._opened = self._slide = None
        self.layer.hide()
        for pin in list(self.pins):
            self.unpin(pin)
        self.looked.emit()
        self.shown_changed.emit()

    # ------------------------------------------------------------------ wishes and what happens elsewhere

    def _on_map_wished(self, _value: Any = None) -> None:
        self.show()
        self.make_gallery()

    def _on_style_wished(self, _value: Any = None) -> None:
        self.layer.restyle(opacity=self.wishes.opacity, colours_name=self.wishes.colours)

    def _on_encoder_wished(self, _name: Any = None) -> None:
        """Another transformer has other heads and layers."""
        wishes, specs = self.wishes, self.encoders.specs
        if wishes.region_encoder and wishes.region_encoder not in self.encoders.regions():
            wishes.region_encoder = NO_ENCODER
        if not wishes.region_encoder and wishes.level != PATCHES:
            wishes.level = PATCHES
        for name, head, layer, first in (
            (wishes.encoder, "head", "layer", "0"), (wishes.region_encoder, "region_head", "region_layer", MEAN),
        ):  # fmt: skip
            spec, wished = specs.get(name), getattr(wishes, head)
            if spec is not None and wished.isdecimal() and int(wished) >= spec.heads:
                setattr(wishes, head, first)
            if spec is not None and getattr(wishes, layer) >= spec.depth:
                setattr(wishes, layer, LAST_LAYER)
        self._on_look_wished()

    def _on_level_wished(self, _level: Any = None) -> None:
        """The grids that are averaged for a region are others than those for patches."""
        if self.wishes.averaged > 1:
            self._on_look_wished()

    def _on_look_wished(self, _value: Any = None) -> None:
        if self.looks is not None or self.is_running or self.wishes.follow:
            self.jobs.later(WISHED, SHOWN_S, self.look)

    def _on_view_moved(self, _event: Any = None) -> None:
        if self.wishes.follow:
            self.jobs.later(MOVED, SETTLED_S, self.look)

    def _on_slide_changed(self, _slide: Any) -> None:
        """Another slide is in hand, or its pixels have another size."""
        if self._opened is not None and self.opened is None:
            self.progress_changed.emit(None)
            self.drop()
            self.said.emit(Hint())
        self._on_view_moved()

    def _warn(self, sentence: str) -> None:
        self.said.emit(Hint(sentence, is_warning=True))


def notes_of(plan: PatchPlan) -> list[str]:
    """Return what a person should know of what is looked at."""
    found = [IS_CUT] if plan.is_cut else []
    coarse = 1 / min(plan.grid.downsample)
    if coarse > COARSE:
        found.append(
            f"The slide's pixels are {coarse:.1f} times larger than those the transformer was made for "
            f"({plan.spec.mpp_um:g} µm): it is enlarged, and heads may look elsewhere."
        )
    return found
