"""Nuclei for other programs: QuPath GeoJSON, OME-Zarr, label TIFF and tables; one format a file."""
