"""From where the coordinates of imported features count: QuPath shows the part of a slide that holds pixels alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import ImportFileError
from napari_nucleiseg.core.exchange.geojson import ID_DIGITS, ORIGIN, PART, STATED, identities_of, region_identity
from napari_nucleiseg.core.exchange.rasterise import Rings
from napari_nucleiseg.core.exchange.rings import near
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.fingerprint import former
from napari_nucleiseg.core.store.about import NO_CORNER
from napari_nucleiseg.core.store.project import Project

# How far an origin can lie from the slide's corner.
_FARTHEST_PX = 1 << 31
# Up to which number regions of former exports are known.
_MOST_REGIONS = 5000
# What the identities of nuclei of one slide were made of by former exports, behind the slide.
_SIDES = ("", "/reference", "/found")


class Origin:
    """Where the coordinates of a file's features begin.

    The file may say it. Else they are QuPath's, which count from the corner of the part that holds pixels; but features
    of former exports of ours count from the corner of the whole slide, also when QuPath has exported them in its turn.

    Parameters
    ----------
    project : Project
        Into which features are taken.
    """

    def __init__(self, project: Project) -> None:
        self._corner = project.corner
        known = {project.fingerprint, former(project.fingerprint)} - {""}
        self._slides = known or {Path(project.slide_name).stem}
        self._stated: YX | None = None

    def hear(self, members: Mapping[str, Any]) -> None:
        """Take what a collection says of itself."""
        said = members.get(STATED)
        origin = said.get(ORIGIN) if isinstance(said, dict) else None
        if isinstance(origin, list) and len(origin) == 2 and all(map(_is_place, origin)):
            self._stated = YX(origin[1], origin[0])

    def of(self, feature: Mapping[str, Any]) -> YX:
        """Return the level-0 pixel ``(y, x)`` at whose corner the coordinates of a feature begin.

        Raises
        ------
        ImportFileError
            If the feature is an export of ours that counts from a corner which neither file nor project says.
        """
        if self._stated is not None:
            return self._stated
        identity = feature.get("id")
        if self._corner == NO_CORNER and identity in self._of_part:
            raise ImportFileError(
                "The outlines of the file count from the corner of the part of the slide that holds pixels, and "
                "neither the file nor the project says where that lies. Name the slide, not its project folder."
            )
        return NO_CORNER if self._corner == NO_CORNER or identity in self._of_whole else self._corner

    def placed(self, rings: Rings, features: Sequence[Mapping[str, Any]]) -> Rings:
        """Return the rings of features, whose numbers are the owners, in level-0 pixels of the slide; see `of`."""
        rings = replace(rings, points=near(rings.points))
        corners = np.array([self.of(feature) for feature in features], np.float64)[:, ::-1]
        if not corners.any():
            return rings
        shifts: NDArray[np.float64] = np.repeat(corners[rings.owners], np.diff(rings.starts), axis=0)
        return replace(rings, points=rings.points + shifts)

    @cached_property
    def _of_whole(self) -> _Identities:
        return _Identities(self._slides)

    @cached_property
    def _of_part(self) -> _Identities:
        return _Identities(self._slides, PART)


class _Identities:
    """What exports of ours called the objects of a slide; `part` is `PART` if they counted from that part's corner."""

    def __init__(self, slides: Iterable[str], part: str = "") -> None:
        numbers = range(1, _MOST_REGIONS + 1)
        self._nuclei = frozenset(identities_of(f"{slide}{side}{part}") for slide in slides for side in _SIDES)
        self._regions = frozenset(region_identity(f"{slide}{part}", number) for slide in slides for number in numbers)

    def __contains__(self, identity: object) -> bool:
        return isinstance(identity, str) and (identity[:-ID_DIGITS] in self._nuclei or identity in self._regions)


def _is_place(value: Any) -> bool:
    return isinstance(value, int | float) and -_FARTHEST_PX < value < _FARTHEST_PX
