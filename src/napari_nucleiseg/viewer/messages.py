"""What the controller tells those who show it: frozen values, complete in themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_nucleiseg.core.slides.pyramid import Slide

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the running segmentation is.

    Parameters
    ----------
    title : str
        What is being done.
    done, total : int
        Tiles; a total of 0 means that it is not known yet.
    left_s : float or None
        Seconds that the rest will take at the present pace; None where that is not known yet.
    """

    title: str
    done: int = 0
    total: int = 0
    left_s: float | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Nuclei in view (or in a shape).

    Parameters
    ----------
    where : str
        ``view`` or ``shape``.
    nuclei : int
        Nuclei whose centroid lies there.
    tissue_mm2 : float
        Tissue there in which nuclei were looked for, square millimetres.
    segmented : float
        Share of the tissue there that has been segmented, 0..1: with the present settings, if anything has.
    knows_tissue : bool
        Whether glass was left out; otherwise all counts as tissue.
    """

    where: str
    nuclei: int
    tissue_mm2: float
    segmented: float
    knows_tissue: bool = True

    @property
    def per_mm2(self) -> float | None:
        """Nuclei per square millimetre of segmented tissue; None where there is next to none."""
        return self.nuclei / self.tissue_mm2 if self.tissue_mm2 > 1e-6 else None


@dataclass(frozen=True, slots=True)
class Hint:
    """A sentence for the user; an empty one clears the last.

    Parameters
    ----------
    text : str
        One or two sentences.
    is_warning : bool
        Whether something is wrong, rather than just so.
    """

    text: str = ""
    is_warning: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class PixelSizeQuestion:
    """Asks how large the pixels of this slide are."""

    slide: Slide


@dataclass(frozen=True, slots=True, eq=False)
class FolderQuestion:
    """Asks where the results of this slide may be kept."""

    slide: Slide
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class LicenceQuestion:
    """Asks whether the licence of these weights is accepted."""

    card: ModelCard


@dataclass(frozen=True, slots=True)
class InUseQuestion:
    """Says who writes to the results of this slide, and offers to take over."""

    sentence: str


Question = PixelSizeQuestion | FolderQuestion | LicenceQuestion | InUseQuestion
