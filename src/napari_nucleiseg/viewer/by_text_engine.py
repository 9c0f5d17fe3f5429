"""The doors to scoring by words; heavy imports happen behind them, in the thread that calls."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.viewer.counting import inside_polygon
from napari_nucleiseg.viewer.shapes import bounds_of

if TYPE_CHECKING:
    from napari_nucleiseg.core.fewshot.clip import LoadedClip
    from napari_nucleiseg.core.fewshot.text_options import TextOptions, TextScores, TextStep
    from napari_nucleiseg.core.models.weights import ModelCard
    from napari_nucleiseg.viewer.opened import OpenedSlide

LIBRARY = "transformers"
MISSING = (
    "Scoring by text needs transformers, which is not installed. In the environment of napari: "
    'pip install "napari-nucleiseg[zoo]", then start napari again.'
)
NO_NUCLEI = "There are no nuclei here to score. Find nuclei first, then score them by words."
TOO_LARGE = "This part of the slide is too large to look at each nucleus. Zoom in, or choose a smaller shape."
# Around what is scored, so that nuclei at its border are whole and have surroundings.
AROUND_UM = 32.0
MOST_PX = 4096 * 4096
Polygon = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TextLook:
    """The nuclei of a part of a slide, and what they look like.

    Parameters
    ----------
    region : Region
        What is covered, level-0 pixels.
    image : ndarray of uint8, shape (y, x, 3)
        RGB of it.
    labels : ndarray of int32, shape (y, x)
        Numbers from 1 on without gaps; 0 is none, or a nucleus whose centroid lies outside what was asked for.
    ids : ndarray of uint32, shape (n + 1,)
        Of each number the nucleus that it is; the first is 0.
    mpp_um : YX
        Micrometres per pixel.
    """

    region: Region
    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    ids: NDArray[np.uint32]
    mpp_um: YX

    def __len__(self) -> int:
        return len(self.ids) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """How well the nuclei of a part of a slide fit words; row *i* of the scores is number *i + 1* of `look`."""

    look: TextLook
    scores: TextScores


class ByTextEngine:
    """Gets weights, reads nuclei and scores them; replaceable in tests."""

    def __init__(self) -> None:
        self._loaded: tuple[str, LoadedClip] | None = None

    # ------------------------------------------------------------------ weights

    @staticmethod
    def missing() -> str:
        """Return what to install first, as a sentence; empty where all is there."""
        return "" if importlib.util.find_spec(LIBRARY) is not None else MISSING

    @staticmethod
    def clips() -> dict[str, str]:
        """Return the folders of weights that were downloaded, with titles."""
        from napari_nucleiseg.core.fewshot.clip_download import downloaded_clips

        return {path: f"{card.name.replace('--', '/')} ({card.licence})" for path, card in downloaded_clips().items()}

    @staticmethod
    def get(where: str, sha256: str, progress: Callable[[int, int], None]) -> str:
        """Download weights once and return their folder; see `core.fewshot.clip_download.get_clip`."""
        from napari_nucleiseg.core.fewshot.clip_download import get_clip

        return str(get_clip(where, sha256=sha256, progress=progress))

    @staticmethod
    def digest(where: str) -> str:
        """Return the checksum that was kept when weights were downloaded; empty where none was."""
        from napari_nucleiseg.core.fewshot.clip_source import read_source

        source = read_source(Path(where))
        return "" if source is None else source.digests.get(source.url.rsplit("/", 1)[-1], "")

    @staticmethod
    def card(where: str) -> ModelCard:
        """Return the card of weights, whose licence may have to be accepted."""
        from napari_nucleiseg.core.fewshot.clip_download import folder_of
        from napari_nucleiseg.core.fewshot.clip_source import clip_card, licence_in

        path = folder_of(where)
        folder = path.parent if path.is_file() else path
        return clip_card(folder, licence_in(folder))

    def load(self, where: str) -> LoadedClip:
        """Return weights, from memory where they were the last ones.

        Raises
        ------
        NucleiSegError
            If they cannot be loaded, or their licence must be accepted first.
        """
        from napari_nucleiseg.core.fewshot.clip import load_clip

        if self._loaded is None or self._loaded[0] != where:
            self._loaded = None  # two at once may be more than fits
            self._loaded = where, load_clip(where)
        return self._loaded[1]

    def forget(self) -> None:
        """Let go of the weights."""
        self._loaded = None

    # ------------------------------------------------------------------ scoring

    @staticmethod
    def look(opened: OpenedSlide, polygon: Polygon) -> TextLook:
        """Read the nuclei whose centroid lies in a polygon, and the picture around them.

        Parameters
        ----------
        opened : OpenedSlide
            The slide with its results.
        polygon : ndarray of float, shape (n, 2)
            Corners ``(y, x)``, level-0 pixels.

        Raises
        ------
        DataError
            If there are no nuclei, or the part is too large.
        MissingPixelSizeError
            If the slide does not state its pixel size.
        """
        mpp, slide, project = opened.slide.require_mpp(), opened.slide, opened.project
        region = bounds_of(polygon).expand(round(AROUND_UM / min(mpp))).intersect(Region(0, 0, *slide.shape))
        if region.area > MOST_PX:
            raise DataError(TOO_LARGE)
        if project is None or region.is_empty:
            raise DataError(NO_NUCLEI)
        # The nuclei that the panel counts there.
        table = project.nuclei_in(bounds_of(polygon))
        wanted = table.ids[inside_polygon(table.centroids, polygon)]
        ids, labels = _numbered(project.labels.read(region), wanted)
        if len(ids) == 1:
            raise DataError(NO_NUCLEI)
        image = slide.read_box(region.y, region.x, 1.0, 1.0, (region.height, region.width))
        return TextLook(region, image, labels, ids, mpp)

    @staticmethod
    def score(
        look: TextLook, prompts: Mapping[str, Sequence[str]], clip: LoadedClip, options: TextOptions, device: str
    ) -> Iterator[TextStep]:
        """Score nuclei by words, batch by batch; see `core.fewshot.by_text.score_steps`."""
        from napari_nucleiseg.core.fewshot.by_text import score_steps

        return score_steps(look.image, look.mpp_um, look.labels, prompts, clip, options=options, device=device)


def _numbered(known: NDArray[np.uint32], wanted: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """Return the wanted ids (ascending) that have pixels, 0 first, and labels that number them from 1 on."""
    labels = np.zeros(known.shape, np.int32)
    ys, xs = np.nonzero(np.isin(known, wanted))
    places = np.searchsorted(wanted, known[ys, xs])
    has_pixels = np.bincount(places, minlength=len(wanted)) > 0
    labels[ys, xs] = np.cumsum(has_pixels)[places]
    return np.concatenate(([0], wanted[has_pixels])).astype(np.uint32), labels
