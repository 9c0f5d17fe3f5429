"""Warm starts: networks of segmentation learn from slides without labels before they learn from labels."""
