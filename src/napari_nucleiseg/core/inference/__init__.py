"""Planning and running a model over a region of a slide."""
