"""A network of nuclei learns from what has their shape, without a single label."""
