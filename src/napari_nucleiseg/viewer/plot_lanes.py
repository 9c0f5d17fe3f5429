"""Lanes in which plots work: a project is closed after those of `LANES`."""

MEASURING, PAINTING, POINTING, WRITING = LANES = "plots", "plot layers", "plot click", "plot export"
# This one looks at values that are in memory only; what was drawn is never superseded.
SELECTING = "plot selection"
