"""See, explain, correct and teach nucleus segmentation on whole-slide images."""

__version__ = "0.1.0"
