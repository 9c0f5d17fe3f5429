"""Slides: lazy pyramids, one reader a file, tissue mask."""
