"""What the names of an image's channels give away: fluorescence, which models of stained tissue cannot use."""

from __future__ import annotations

import re
from collections.abc import Iterable

_DYES = re.compile(
    r"dapi|hoechst|draq|sytox|fluor|fitc|tritc|rhodamine|texas|alexa|mcherry|tdtomato|[cgry]fp|"
    r"(?<![a-z])cy[ -]?[2357](?!\d)|(?<![a-z])opal[ -]?\d",
    re.IGNORECASE,
)


def names_a_dye(names: Iterable[str]) -> bool:
    """Whether any of the names of an image's channels is that of a fluorescent dye or protein."""
    return any(_DYES.search(name) for name in names)
