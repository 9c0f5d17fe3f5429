"""What describing slides by encoders is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass

from napari_nucleiseg.core.batch.job import SlideAdvanced, SlideFailed, SlideNoted, SlideStarted


@dataclass(frozen=True, slots=True)
class FeatureJob:
    """Describe slides by the features of encoders; every parameter is declared here once.

    Parameters
    ----------
    paths : tuple of str
        Slides, pictures, or folders of them.
    out : str
        Folder for the files of features, one a slide; made if need be.
    encoder : str
        Name or file of an encoder of patches.
    region_encoder : str
        Name or file of an encoder of regions made of these patches; empty describes each patch by itself.
    accept_licence : bool
        Accept a restrictive licence for this run.
    mpp_um : float or None
        Micrometres per pixel; needed where the files do not say, overrides what they say.
    patch_tissue : float
        Share of a patch that must be tissue, 0..1.
    region_tissue : float
        Share of a full region's patches that must show tissue, 0..1. A slide none of whose regions does is described
        by smaller ones.
    tissue_mask : bool
        Look for tissue; else all of a slide is described.
    device : str
        ``auto``, ``cuda``, ``mps`` or ``cpu``.
    readers : int
        Threads that read ahead.
    """

    paths: tuple[str, ...]
    out: str
    encoder: str
    region_encoder: str = ""
    accept_licence: bool = False
    mpp_um: float | None = None
    patch_tissue: float = 0.5
    region_tissue: float = 0.25
    tissue_mask: bool = True
    device: str = "auto"
    readers: int = 2

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        if not self.paths:
            return "name at least one slide, picture or folder to describe"
        if not self.encoder:
            return "name an encoder of patches (encoder)"
        for name in ("patch_tissue", "region_tissue"):
            if not 0 <= getattr(self, name) <= 1:
                return f"{name} must be between 0 and 1, not {getattr(self, name)}"
        if self.readers < 1:
            return "at least one thread must read"
        return None


@dataclass(frozen=True, slots=True)
class FeaturesFinished:
    """A slide is described.

    Parameters
    ----------
    path : str
        Of the slide.
    output : str
        File of features.
    count : int
        Regions or patches in it.
    level : {"region", "patch"}
        What they are.
    seconds : float
        Wall clock.
    from_before : bool
        Whether an earlier run with the same encoders and settings had done it already.
    """

    path: str
    output: str
    count: int
    level: str
    seconds: float = 0.0
    from_before: bool = False


FeatureEvent = SlideStarted | SlideAdvanced | SlideNoted | FeaturesFinished | SlideFailed
