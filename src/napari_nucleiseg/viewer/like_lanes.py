"""Names of the lanes in which the like is found."""

LOOK = "like look"
FIND = "like find"
SOURCES = "like sources"
LANES = LOOK, FIND
