"""The doors to what transformers attend to; heavy imports happen behind them, in the thread that calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.pyramid import Slide

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.look import Looked, LookStep
    from napari_nucleiseg.core.attention.patches import PatchPlan
    from napari_nucleiseg.core.attention.per_nucleus import NucleiAttention
    from napari_nucleiseg.core.attention.ranking import HeadScore
    from napari_nucleiseg.core.attention.shown import ShownMap
    from napari_nucleiseg.core.attention.slide_map import SlideAttention
    from napari_nucleiseg.core.models.encoders import EncoderSpec, LoadedEncoder
    from napari_nucleiseg.core.models.weights import ModelCard
    from napari_nucleiseg.core.slides.tissue import TissueMask
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.core.store.tokens import PatchTokens
    from napari_nucleiseg.core.teaching.heads.painted import PaintedPatch
    from napari_nucleiseg.core.teaching.heads.teach import HeadStep
    from napari_nucleiseg.core.teaching.heads.verdict import HeadOutcome
    from napari_nucleiseg.core.teaching.versions import Version
    from napari_nucleiseg.viewer.opened import OpenedSlide

MAPS = "maps.zarr"
PATCH, REGION = "patch", "region"
# Patches that are kept in memory, too, for slides whose folder cannot be written.
IN_MEMORY = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Looking:
    """What is to be looked at, with the networks that do it.

    Parameters
    ----------
    plans : tuple of PatchPlan
        One rectangle of patches, on the slide's grid and on shifted ones.
    encoder : LoadedEncoder
        Of patches.
    region_encoder : LoadedEncoder or None
        Of the region that they make.
    tissue : TissueMask or None
        Where tissue is, if glass is to be left out.
    """

    plans: tuple[PatchPlan, ...]
    encoder: LoadedEncoder
    region_encoder: LoadedEncoder | None
    tissue: TissueMask | None

    @property
    def key(self) -> tuple[object, ...]:
        """What is the same where nothing new is to be looked at."""
        other = "" if self.region_encoder is None else self.region_encoder.version
        return self.plans, self.encoder.version, other


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """What was said so far.

    Parameters
    ----------
    looking : Looking
        What was wanted.
    looks : tuple of Looked
        One for each plan that was begun.
    done, total : int
        Patches, of all plans.
    """

    looking: Looking
    looks: tuple[Looked, ...]
    done: int
    total: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        whole = len(self.looks) == len(self.looking.plans) and all(looked.is_whole for looked in self.looks)
        return whole and (
            self.looking.region_encoder is None or all(looked.region is not None for looked in self.looks)
        )


class HeadsEngine:
    """Encoders and what they say, as the window needs it; replaceable in tests."""

    def __init__(self) -> None:
        self._loaded: dict[str, LoadedEncoder] = {}
        self._known: OrderedDict[tuple[str, str, int, int], PatchTokens] = OrderedDict()

    def encoders(self) -> dict[str, tuple[ModelCard, EncoderSpec]]:
        """Return card and spec of all encoders that can be used, by name; those of unknown networks are left out."""
        from napari_nucleiseg.core.errors import ModelError
        from napari_nucleiseg.core.models.encoders import available_encoders, encoder_spec

        found = {}
        for card in available_encoders():
            with suppress(ModelError):
                found[card.name] = card, encoder_spec(card.network, card.params)
        return found

    def load(self, name: str) -> LoadedEncoder:
        """Return an encoder, from memory if it was loaded before.

        Raises
        ------
        LicenceNotAcceptedError
            If its licence must be accepted first.
        ModelError
            If it cannot be loaded.
        """
        from napari_nucleiseg.core.inference.device import set_torch_threads
        from napari_nucleiseg.core.models.encoders import load_encoder

        if name not in self._loaded:
            set_torch_threads(beside_gui=True)
            self._loaded[name] = load_encoder(name)
        return self._loaded[name]

    def forget(self, name: str) -> None:
        """Load an encoder anew when it is next used."""
        self._loaded.pop(name, None)

    def published(self) -> tuple[ModelCard, ...]:
        """Return the cards of the encoders that can be downloaded, those of patches first."""
        from napari_nucleiseg.core.models.published import PUBLISHED

        return tuple(one.card() for one in PUBLISHED.values())

    def get_published(self, name: str, progress: Callable[[int, int], None]) -> ModelCard:
        """Download a published encoder whose licence was accepted; see `core.models.published`."""
        from napari_nucleiseg.core.models.published import get_published

        return get_published(name, progress=progress)

    def accept_licence(self, card: ModelCard) -> None:
        """Remember that the user accepted the licence of these weights."""
        from napari_nucleiseg.core.models.weights import remember_acceptance

        remember_acceptance(card)

    def prepare(
        self,
        slide: Slide,
        region: Region,
        names: tuple[str, str],
        *,
        averaged: int = 1,
        coarse: bool = False,
        tissue: Callable[[], TissueMask] | None = None,
    ) -> Looking:
        """Plan what a region needs.

        Parameters
        ----------
        slide : Slide
            The slide.
        region : Region
            Level-0 pixels.
        names : tuple of str
            Of the encoders of patches and of regions; the latter may be empty.
        averaged : int
            How many shifted grids are averaged.
        coarse : bool
            Whether they are shifted by parts of a patch, for maps of the region, rather than of a token.
        tissue : callable, optional
            Finds the tissue, if glass is to be left out.

        Raises
        ------
        NucleiSegError
            If that cannot be done; says why.
        """
        from napari_nucleiseg.core.attention.look import must_fit
        from napari_nucleiseg.core.attention.patches import plan_patches

        encoder = self.load(names[0])
        other = self.load(names[1]) if names[1] else None
        must_fit(encoder, other)
        plan = plan_patches(slide, encoder.spec, region)
        return Looking(plan.grids(averaged, coarse=coarse), encoder, other, None if tissue is None else tissue())

    def look(
        self,
        slide: Slide,
        looking: Looking,
        folder: Path | None,
        *,
        device: str,
        cancelled: Callable[[], bool],
        on_message: Callable[[str], None],
    ) -> Iterator[Looks]:
        """Look at all patches; what was looked at before is taken from memory or from the project's folder."""
        from napari_nucleiseg.core.attention.look import look, token_store

        looks: list[Looked] = []
        total = sum(plan.rows * plan.columns for plan in looking.plans)
        version = looking.encoder.version
        for plan in looking.plans:
            key = version, plan.slide, plan.shift_px
            known = {tile: self._known[(*key, tile)] for tile in plan.tiles if (*key, tile) in self._known}
            store = None if folder is None else token_store(folder / MAPS, plan, version)
            steps = look(
                slide, plan, looking.encoder, looking.region_encoder,
                store=store, known=known, device=device, cancelled=cancelled, on_message=on_message,
            )  # fmt: skip
            before = sum(len(looked.patches) for looked in looks)
            step: LookStep | None = None
            for step in steps:
                # A copy: what is drawn must not grow while it is drawn, in another thread.
                now = replace(step.looked, patches=dict(step.looked.patches))
                yield Looks(looking, (*looks, now), before + step.done, total)
            if step is None or cancelled():
                return
            looks.append(step.looked)
            self._remember(key, step.looked)

    def _remember(self, key: tuple[str, str, int], looked: Looked) -> None:
        for tile, tokens in looked.patches.items():
            self._known[(*key, tile)] = tokens
            self._known.move_to_end((*key, tile))
        while len(self._known) > IN_MEMORY:
            self._known.popitem(last=False)

    def ask(self, slide: Slide, looks: Looks, tile: int, token: int, *, device: str) -> NDArray[np.float32]:
        """Return what one token of a patch attends to, ``(layers, heads, side, side)``.

        Raises
        ------
        SlideError, ModelError
            If the patch cannot be read or looked at.
        """
        from napari_nucleiseg.core.attention.forward import EncoderForward

        pixels = looks.looking.plans[0].read(slide, tile)
        return EncoderForward(looks.looking.encoder, device).query(pixels, token)

    def ask_region(self, looks: Looks, token: int, *, device: str) -> PatchTokens:
        """Return what one patch attends to in the region; ``token`` is counted row by row from 1."""
        from napari_nucleiseg.core.attention.forward import EncoderForward
        from napari_nucleiseg.core.errors import DataError

        other = looks.looking.region_encoder
        if other is None or not looks.looks[0].is_whole:
            raise DataError("The region is asked once all of its patches were looked at, by an encoder of regions.")
        return EncoderForward(other, device).region(looks.looks[0].features(), token)

    # ------------------------------------------------------------------ nuclei

    def rank(self, project: Project, looks: Looks, *, region: bool) -> tuple[HeadScore, ...]:
        """Rank the heads of patches, or of the region, against nuclei; see `core.attention.nuclei`."""
        from napari_nucleiseg.core.attention.nuclei import rank_looked, rank_region

        rank = rank_region if region else rank_looked
        return rank(project, looks.looks[0], looks.looking.tissue)

    def measure(self, project: Project, looks: Looks, shown: ShownMap) -> NucleiAttention:
        """Return how much a map lies on each nucleus; see `core.attention.nuclei`."""
        from napari_nucleiseg.core.attention.nuclei import attention_of_nuclei

        return attention_of_nuclei(project, looks.looks[0], shown)

    def paint(self, project: Project, looks: Looks, measured: NucleiAttention) -> ShownMap:
        """Return a picture of the nuclei, each in the rank of its attention, 0..1."""
        from napari_nucleiseg.core.attention.nuclei import painted_nuclei
        from napari_nucleiseg.core.attention.shown import ShownMap

        region = looks.looks[0].plan.region
        picture, grid = painted_nuclei(project, region, measured.ids, measured.percentiles)
        return ShownMap(picture, grid, (0.0, 1.0))

    def seeds(self, shown: ShownMap, slide: Slide, percentile: float) -> NDArray[np.float64]:
        """Return where a map is highest, ``(n, 2)`` level-0 pixels, at least 4 um apart."""
        from napari_nucleiseg.core.attention.seeds import seeds_of

        return seeds_of(shown.values, shown.grid, slide.require_mpp(), percentile=percentile)

    # ------------------------------------------------------------------ whole slides

    def slide_map(self, path: str, slide: Slide) -> tuple[SlideAttention, ShownMap]:
        """Return what a model of whole slides said of a slide, and the map of where it looked.

        Raises
        ------
        DataError
            If the file is none, or of another slide.
        """
        from napari_nucleiseg.core.attention.slide_map import read_slide_attention, slide_map

        said = read_slide_attention(path)
        return said, slide_map(said, slide)

    # ------------------------------------------------------------------ teaching

    def teach(
        self, slides: Sequence[OpenedSlide], name: str, *, layer: int, head: int, device: str
    ) -> Iterator[HeadStep]:
        """Teach a head with what is painted on slides; see `core.teaching.heads.teach`.

        Raises
        ------
        TeachingError
            If nothing is painted, or too little.
        """
        from napari_nucleiseg.core.models.hardware import give_back_memory
        from napari_nucleiseg.core.teaching.heads.config import HeadTeachConfig
        from napari_nucleiseg.core.teaching.heads.painted import collect_painted, collect_unpainted
        from napari_nucleiseg.core.teaching.heads.teach import teach_head

        encoder = self.load(name)
        patches: list[PaintedPatch] = []
        others: list[NDArray[np.uint8]] = []
        for opened in slides:
            found = () if opened.project is None else collect_painted(opened.project, opened.slide, encoder.spec)
            if found and opened.project is not None:
                patches += found
                others.append(collect_unpainted(opened.project, opened.slide, encoder.spec))
        config = HeadTeachConfig(layer=layer, head=head, device=device)
        try:
            yield from teach_head(encoder, patches, np.concatenate(others) if others else None, config)
        finally:
            give_back_memory()

    def keep_head(self, outcome: HeadOutcome) -> Version:
        """Keep what teaching a head has come to as a version of its own."""
        from napari_nucleiseg.core.teaching.heads.versions import keep_head

        return keep_head(outcome)

    def take_head(self, version: Version) -> Version:
        """Make an encoder usable that was refused."""
        from napari_nucleiseg.core.teaching.heads.versions import take_head_anyway

        return take_head_anyway(version)
