"""napari without Qt: layers, visible region, jobs, controller."""
