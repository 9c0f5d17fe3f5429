"""Names of the lanes in which the like is found, and nuclei are scored by words."""

LOOK = "like look"
FIND = "like find"
SOURCES = "like sources"
TEXT = "by text"
CLIPS = "clips"
CLIP_DOWNLOAD = "clip download"
LANES = LOOK, FIND, TEXT
