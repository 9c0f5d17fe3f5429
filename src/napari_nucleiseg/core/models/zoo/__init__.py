"""Networks of the literature on one contract, one family a file: add a file, and it is everywhere."""
