"""Names of the lanes in which heads are looked at, ranked and taught."""

LOOK, GALLERY, TOKEN = "heads", "head gallery", "head token"
RANKING, MEASURING, SEEDING = "head ranking", "attention of nuclei", "head seeds"
TEACH = "head teaching"
DOWNLOAD = "encoder download"
# Those that read a project.
LANES = RANKING, MEASURING, TEACH
