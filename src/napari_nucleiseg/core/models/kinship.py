"""Encoders that were taught from one another: whether the features of one still serve who reads those of another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from napari_nucleiseg.core.models.weights import ModelCard

# How far the features of an encoder may be from its ancestor's for a reader of the latter: mean of 1 less the cosine,
# and squared distance as a share of the ancestor's variance from patch to patch.
MOST_DRIFT, MOST_CHANGE = 0.02, 0.1
FEATURES, DRIFT, CHANGE = "features", "drift", "change"


def features_within(parent: ModelCard, drift: float, change: float) -> dict[str, dict[str, float]]:
    """Return how far a taught encoder's features are from those of each of its ancestors, at most.

    Both measures are mean squared distances, the roots of which obey the triangle inequality over the same patches
    (1 less the cosine is half the squared distance on the unit sphere). So what is said of a grandparent is a bound.

    Parameters
    ----------
    parent : ModelCard
        Of the encoder that was taught.
    drift : float
        Mean of 1 less the cosine of new to former features.
    change : float
        Squared distance of new to former features, as a share of the former's variance from patch to patch.

    Returns
    -------
    dict
        By version: ``drift`` and ``change``. For ``ModelCard.taught["features"]``.
    """
    found = {parent.version: {DRIFT: drift, CHANGE: change}}
    for version, far in _known(parent).items():
        found[version] = {DRIFT: _further(far, DRIFT, drift), CHANGE: _further(far, CHANGE, change)}
    return found


def reads_features_of(region: ModelCard, encoder: ModelCard) -> bool:
    """Tell whether a transformer of regions can read the features of an encoder of patches.

    It can where it was trained on them, where it does not say what it was trained on, and where the encoder was taught
    from the one that it was trained on (or a descendant of it), was adopted, and its features stayed within
    `MOST_DRIFT` and `MOST_CHANGE`: then it reads nearly what it knows.

    Parameters
    ----------
    region : ModelCard
        Of the reader; its ``features_of`` is the version it was trained on.
    encoder : ModelCard
        Of the encoder whose features it would read.
    """
    if region.features_of in {"", encoder.version}:
        return True
    far = _known(encoder).get(region.features_of)
    if far is None or encoder.metrics.get("adopted") is not True:
        return False
    return _number(far, DRIFT) <= MOST_DRIFT and _number(far, CHANGE) <= MOST_CHANGE


def _known(card: ModelCard) -> Mapping[str, Mapping[str, Any]]:
    found = card.taught.get(FEATURES, {})
    return found if isinstance(found, Mapping) else {}


def _further(far: Mapping[str, Any], name: str, more: float) -> float:
    return (math.sqrt(_number(far, name)) + math.sqrt(more)) ** 2


def _number(far: Mapping[str, Any], name: str) -> float:
    value = far.get(name) if isinstance(far, Mapping) else None
    return float(value) if isinstance(value, int | float) and value >= 0 else math.inf
