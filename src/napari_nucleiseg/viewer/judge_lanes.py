"""Lanes in which nuclei are compared with a reference: a project is closed after them."""

LANE, WRITE_LANE = LANES = ("judging", "writing mistakes")
