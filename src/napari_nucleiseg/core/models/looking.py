"""How a model looks at its tiles: without brown, in eight positions, or as it is."""

from __future__ import annotations

from napari_nucleiseg.core.models.turned import SUFFIX as TURNED
from napari_nucleiseg.core.models.turned import turned
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.models.without_brown import SUFFIX as NO_BROWN
from napari_nucleiseg.core.models.without_brown import without_brown


def looking(model: LoadedModel, *, ignore_brown: bool = False, thorough: bool = False) -> LoadedModel:
    """Return a model that looks as it is wished to.

    Parameters
    ----------
    model : LoadedModel
        As it was loaded, or at a level of attention.
    ignore_brown : bool
        Take DAB out of the colours first; see `without_brown`.
    thorough : bool
        Look at every tile in eight positions; see `turned`.
    """
    seeing = without_brown(model) if ignore_brown else model
    return turned(seeing) if thorough else seeing


def looks(*, ignore_brown: bool, thorough: bool) -> str:
    """Return what `looking` adds to a model's version."""
    return (NO_BROWN if ignore_brown else "") + (TURNED if thorough else "")
