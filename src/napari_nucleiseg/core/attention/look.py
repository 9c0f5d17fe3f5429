"""From a view to what every head attends to there: patches one after the other, kept, then the region made of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.attention.forward import EncoderForward
from napari_nucleiseg.core.attention.patches import PatchPlan
from napari_nucleiseg.core.errors import ModelError, SlideError, StoreError
from napari_nucleiseg.core.inference.ahead import map_ahead
from napari_nucleiseg.core.inference.predict import Cancelled, never
from napari_nucleiseg.core.models.encoders import REGION, EncoderSpec, LoadedEncoder
from napari_nucleiseg.core.models.kinship import reads_features_of
from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.tokens import PatchTokens, TokenLayout, TokenStore

logger = logging.getLogger(__name__)
READERS, DEPTH = 2, 8
DAMAGED = "Part of the slide cannot be read; it is looked at as glass, and what is said of it is not kept:"


@dataclass(eq=False)
class Looked:
    """What was said of the patches of a plan so far; filled while it is looked at.

    Parameters
    ----------
    plan : PatchPlan
        Which patches.
    patches : dict of int to PatchTokens
        By their number on the slide's grid.
    region : PatchTokens or None
        What the region encoder said of all of them together, attention ``(layers, heads, rows, columns)``; None as long
        as patches are missing, or without such an encoder.
    """

    plan: PatchPlan
    patches: dict[int, PatchTokens] = field(default_factory=dict)
    region: PatchTokens | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return len(self.patches) == self.plan.rows * self.plan.columns

    def attention(self, layer: int = -1, head: int | None = None) -> NDArray[np.float32]:
        """Return raw attention of the class token patch by patch; NaN where nothing is known yet.

        Parameters
        ----------
        layer : int
            Which layer; -1 is the last.
        head : int, optional
            Which head; all of them if it is not given.

        Returns
        -------
        ndarray of float32, shape ([heads,] rows, columns, side, side)
            Patches by their place in the rectangle, then tokens in each.
        """
        spec = self.plan.spec
        which = slice(None) if head is None else slice(head, head + 1)
        count = spec.heads if head is None else 1
        out = np.full((count, self.plan.rows, self.plan.columns, spec.side, spec.side), np.nan, np.float32)
        for tile, tokens in self.patches.items():
            row, column = self.plan.place_of(tile)
            out[:, row, column] = tokens.attention[layer, which]
        return out if head is None else out[0]

    def all_attention(self) -> NDArray[np.float32]:
        """Return raw attention of every head of every layer as maps, ``(layers, heads, y, x)`` tokens, float32."""
        spec, plan = self.plan.spec, self.plan
        shape = spec.depth, spec.heads, plan.rows, spec.side, plan.columns, spec.side
        out = np.full(shape, np.nan, np.float32)
        for tile, tokens in self.patches.items():
            row, column = plan.place_of(tile)
            out[:, :, row, :, column, :] = tokens.attention
        return out.reshape(spec.depth, spec.heads, plan.rows * spec.side, plan.columns * spec.side)

    def rollout(self) -> NDArray[np.float32]:
        """Return attention rollout patch by patch, ``(rows, columns, side, side)``; NaN where nothing is known yet."""
        side = self.plan.spec.side
        out = np.full((self.plan.rows, self.plan.columns, side, side), np.nan, np.float32)
        for tile, tokens in self.patches.items():
            out[self.plan.place_of(tile)] = tokens.rollout
        return out

    def features(self) -> NDArray[np.float32]:
        """Return the features of the patches, ``(rows, columns, embed)`` float32; 0 where nothing is known yet."""
        out = np.zeros((self.plan.rows, self.plan.columns, self.plan.spec.embed), np.float32)
        for tile, tokens in self.patches.items():
            out[self.plan.place_of(tile)] = tokens.features
        return out


@dataclass(frozen=True, slots=True)
class LookStep:
    """One more patch, or the region, is known.

    Parameters
    ----------
    looked : Looked
        All that is known; the same object in every step.
    done, total : int
        Patches known, and wanted.
    forwarded : int
        Of those known, how many were computed now; the others were kept.
    """

    looked: Looked
    done: int
    total: int
    forwarded: int


def token_store(root: Path, plan: PatchPlan, version: str) -> TokenStore:
    """Return where the answers of an encoder on a plan's grid are kept, below a ``maps.zarr`` folder."""
    spec, grid = plan.spec, plan.grid
    key = f"{grid.key}+{plan.shift_px}" if plan.shift_px else grid.key
    return TokenStore(root, TokenLayout(version, key, len(grid), spec.embed, spec.depth, spec.heads, spec.side))


def look(
    slide: Slide,
    plan: PatchPlan,
    encoder: LoadedEncoder,
    region_encoder: LoadedEncoder | None = None,
    *,
    store: TokenStore | None = None,
    known: Mapping[int, PatchTokens] | None = None,
    device: str = "auto",
    exact: bool = False,
    cancelled: Cancelled = never,
    on_message: Callable[[str], None] | None = None,
) -> Iterator[LookStep]:
    """Let an encoder look at the patches of a plan, and another one at the region that they make.

    Parameters
    ----------
    slide, plan, encoder
        The plan is of this slide and of ``encoder.spec``.
    region_encoder : LoadedEncoder, optional
        Reads the features of the patches, once all are known.
    store : TokenStore, optional
        What is kept there is not computed again; what is computed is kept. If it cannot be written, that is said and
        the work goes on.
    known : mapping of int to PatchTokens, optional
        Patches that are known already.
    device, exact, on_message
        See `EncoderForward`.
    cancelled : callable
        Polled between batches.

    Yields
    ------
    LookStep
        First what was kept, then after each batch, at last with the region.

    Raises
    ------
    SlideError
        If a patch cannot be read; what lies in a damaged part of the file is looked at as glass, and that is said.
    ModelError
        If a network cannot run, or the two do not fit together.
    """
    must_fit(encoder, region_encoder)
    looked = _recalled(plan, store, known or {})
    total, before = plan.rows * plan.columns, len(looked.patches)
    yield LookStep(looked, before, total, 0)
    missing = [tile for tile in plan.centre_first if tile not in looked.patches]
    if missing:
        forward = EncoderForward(encoder, device, exact=exact, on_message=on_message)
        keeper = _Keeper(slide, plan, store, on_message)
        for tiles, said in _answers(slide, plan, forward, missing, cancelled):
            looked.patches.update(zip(tiles, said, strict=True))
            keeper.keep(tiles, said)
            yield LookStep(looked, len(looked.patches), total, len(looked.patches) - before)
    if region_encoder is not None and looked.is_whole and not cancelled():
        forward = EncoderForward(region_encoder, device, exact=exact, on_message=on_message)
        looked.region = forward.region(looked.features())
        yield LookStep(looked, total, total, total - before)


def _recalled(plan: PatchPlan, store: TokenStore | None, known: Mapping[int, PatchTokens]) -> Looked:
    """Return what is known of a plan before anything is computed."""
    looked = Looked(plan)
    for tile in plan.tiles:
        tokens = known.get(tile) or (None if store is None else store.get(tile))
        if tokens is not None:
            looked.patches[tile] = tokens
    return looked


def must_fit(encoder: LoadedEncoder, region_encoder: LoadedEncoder | None) -> None:
    """Refuse a region encoder that reads other features than those of an encoder of patches.

    Raises
    ------
    ModelError
        With what would fit.
    """
    if region_encoder is None:
        return
    if region_encoder.spec.kind != REGION:
        raise ModelError(f"{region_encoder.card.name} looks at pixels; choose an encoder of regions to go with it")
    if not fits(encoder.card, encoder.spec, region_encoder.card, region_encoder.spec):
        wanted = region_encoder.card.features_of or f"{region_encoder.spec.features} numbers a patch"
        raise ModelError(
            f"{region_encoder.card.name} was trained on the features of {wanted}, not on those of {encoder.version}: "
            "choose the two that belong together"
        )


def fits(card: ModelCard, spec: EncoderSpec, region_card: ModelCard, region_spec: EncoderSpec) -> bool:
    """Whether a region encoder reads the features of an encoder of patches, or of one that it was taught from."""
    return region_spec.features == spec.embed and reads_features_of(region_card, card)


def _answers(
    slide: Slide, plan: PatchPlan, forward: EncoderForward, tiles: list[int], cancelled: Cancelled
) -> Iterator[tuple[list[int], list[PatchTokens]]]:
    """Iterate over batches of patches and what was said of them; reading runs ahead. The first patch goes alone."""

    def read(tile: int) -> tuple[int, NDArray[np.uint8]]:
        try:
            return tile, plan.read(slide, tile)
        except OSError as error:
            raise SlideError(
                f"{slide.path} cannot be read any more ({error}). Check that the drive is connected, and look again."
            ) from error

    size = 1
    batch: list[tuple[int, NDArray[np.uint8]]] = []
    with closing(map_ahead(read, tiles, workers=READERS, depth=DEPTH, name="nucleiseg-look")) as ahead:
        for entry in ahead:
            if cancelled():
                return
            batch.append(entry)
            if len(batch) >= size:
                yield _said(forward, batch)
                batch, size = [], forward.batch_size
        if batch and not cancelled():
            yield _said(forward, batch)


def _said(forward: EncoderForward, batch: list[tuple[int, NDArray[np.uint8]]]) -> tuple[list[int], list[PatchTokens]]:
    tiles = [tile for tile, _ in batch]
    return tiles, forward.patches(np.stack([pixels for _, pixels in batch]))


class _Keeper:
    """Keeps answers as long as that is possible, and says once what is not kept and why."""

    def __init__(
        self, slide: Slide, plan: PatchPlan, store: TokenStore | None, on_message: Callable[[str], None] | None
    ) -> None:
        self._slide, self._plan, self._store = slide, plan, store
        self._tell = on_message or logger.warning
        self._told_of_damage = False

    def keep(self, tiles: list[int], said: list[PatchTokens]) -> None:
        """Keep what was said of those patches that could be read."""
        damage = self._slide.damage_at(self._plan.grid.downsample)
        for tile, tokens in zip(tiles, said, strict=True):
            hurt = [each for each in damage if each.region.overlaps(self._plan.box_of(tile))]
            if hurt and not self._told_of_damage:
                self._told_of_damage = True
                self._tell(f"{DAMAGED} {hurt[0].reason}")
            if not hurt and self._store is not None:
                self._put(self._store, tile, tokens)

    def _put(self, store: TokenStore, tile: int, tokens: PatchTokens) -> None:
        try:
            store.put(tile, tokens)
        except StoreError as error:
            self._store = None
            self._tell(f"What the heads attend to is not kept: {error}")
