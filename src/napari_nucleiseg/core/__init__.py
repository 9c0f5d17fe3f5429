"""Headless part: slides, models, inference, store and training; no napari, no Qt."""
