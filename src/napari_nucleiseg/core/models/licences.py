"""Licences by their SPDX identifiers: which leave commercial use free, and which forbid it."""

from __future__ import annotations

import re

# Terms are what these ask: naming the authors, and the like. None of them forbids commercial use.
FREE = frozenset(
    {
        "0BSD",
        "AFL-3.0",
        "AGPL-3.0-only",
        "AGPL-3.0-or-later",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-SA-4.0",
        "CC0-1.0",
        "GPL-2.0-or-later",
        "GPL-3.0-only",
        "GPL-3.0-or-later",
        "ISC",
        "LGPL-3.0-only",
        "LGPL-3.0-or-later",
        "MIT",
        "MPL-2.0",
        "Unlicense",
        "Zlib",
    }
)
NOT_COMMERCIAL = frozenset({"CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0"})


def allows_commercial_use(licence: str) -> bool:
    """Whether all parts of an SPDX expression of the form ``A AND B`` are known to allow it; what is unknown is not."""
    parts = re.split(r"\s+AND\s+", licence.strip())
    return all(part in FREE for part in parts)


def is_single(licence: str) -> bool:
    """Whether a licence is one SPDX identifier known here, so that other programs understand it."""
    return licence in FREE | NOT_COMMERCIAL
