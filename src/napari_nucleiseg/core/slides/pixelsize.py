"""Micrometres per pixel: what files state, in which units, and what can be true."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_nucleiseg.core.errors import PixelSizeError
from napari_nucleiseg.core.geometry import YX

SMALLEST_MPP_UM = 0.02
LARGEST_MPP_UM = 20.0
# A resolution tag is as often a printing default (72, 96, 300 dpi: 353, 265, 85 um) as a scan's;
# no slide scanner samples coarser than this.
LARGEST_TAG_MPP_UM = 12.0

_UM_PER_UNIT = {
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "\\u00b5m": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "in": 25400.0,
    "inch": 25400.0,
    "pm": 1e-6,
    "å": 1e-4,
    "angstrom": 1e-4,
}


@dataclass(frozen=True, slots=True)
class StatedPixelSize:
    """What a file says about its pixels, and what of it was believed.

    Parameters
    ----------
    mpp_um : YX or None
        Micrometres per pixel; None where nothing believable is stated.
    reason : str
        A sentence about it, for the properties and the log; empty if nothing is stated.
    """

    mpp_um: YX | None = None
    reason: str = ""


def is_plausible(mpp_um: float) -> bool:
    """Whether a microscope can have such pixels."""
    return math.isfinite(mpp_um) and SMALLEST_MPP_UM <= mpp_um <= LARGEST_MPP_UM


def given_mpp(mpp_um: float | tuple[float, float]) -> YX:
    """Return a pixel size that a person gave.

    Parameters
    ----------
    mpp_um : float or tuple of float
        Micrometres per pixel, one number or ``(y, x)``.

    Raises
    ------
    PixelSizeError
        If it cannot be true.
    """
    y, x = (mpp_um, mpp_um) if isinstance(mpp_um, int | float) else mpp_um
    for value in (y, x):
        if not is_plausible(float(value)):
            raise PixelSizeError(
                f"{value} micrometres per pixel cannot be right: it must lie between {SMALLEST_MPP_UM} and "
                f"{LARGEST_MPP_UM:g} (0.25 for most 40x scans, 0.5 for 20x)."
            )
    return YX(float(y), float(x))


def stated_mpp(y_um: float, x_um: float, origin: str, largest_um: float = LARGEST_MPP_UM) -> StatedPixelSize:
    """Judge a pixel size that a file states.

    Parameters
    ----------
    y_um, x_um : float
        Micrometres per pixel.
    origin : str
        Where it stands, for the sentence.
    largest_um : float
        Coarsest value to believe.
    """
    if is_plausible(y_um) and is_plausible(x_um) and max(y_um, x_um) <= largest_um and 0.2 <= y_um / x_um <= 5:
        return StatedPixelSize(YX(y_um, x_um), f"{y_um:.5g} x {x_um:.5g} µm, from {origin}")
    return StatedPixelSize(None, f"ignored: {origin} says {y_um:.5g} x {x_um:.5g} µm, which no slide has")


def um_per(unit: str) -> float | None:
    """Return the micrometres in a unit of length by its usual names; None if it is unknown (``pixel``)."""
    return _UM_PER_UNIT.get(unit.strip().lower())


def to_number(text: object) -> float | None:
    """Return a number from the text of a tag (decimal commas occur), or None."""
    try:
        value = float(str(text).strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
