"""What is measured of each nucleus: shape and stain in micrometres and optical densities, and its neighbours; kept."""
