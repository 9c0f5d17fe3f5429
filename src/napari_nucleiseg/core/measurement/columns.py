"""The one list of what is measured of a nucleus: names, titles and formulas."""

from __future__ import annotations

from napari_nucleiseg.core.exchange.source import Column

SEARCH_UM = 100.0
"""How far other nuclei are looked for; one that is farther away is no neighbour."""
NEAREST = 5
"""Of how many nearest nuclei the mean distance is taken."""
NEIGHBOUR_UM = 25.0
"""A nucleus whose centroid is at most this far away counts as a neighbour."""
DENSITY_RADIUS_UM = 50.0
"""Radius of the disc in which nuclei are counted for their density."""
ENTROPY_BINS = 32
"""Steps of optical density from 0 to `ENTROPY_TOP`, whose entropy is taken; the last holds all above."""
ENTROPY_TOP = 3.2
"""Optical density of haematoxylin at which the last step ends."""

SHAPE = (
    Column("perimeter_um", "Perimeter, µm", "Length along the border pixels, holes included (Benkrid and Crookes)."),
    Column("major_axis_um", "Major axis, µm", "Four times the larger standard deviation of the pixels' places."),
    Column("minor_axis_um", "Minor axis, µm", "Four times the smaller standard deviation of the pixels' places."),
    Column("eccentricity", "Eccentricity", "Square root of 1 - (minor axis / major axis)^2; 0 is a circle."),
    Column(
        "orientation_deg",
        "Orientation, °",
        "Angle from the slide's y axis (downwards) to the major axis, anticlockwise, -90 to 90 degrees.",
    ),
    Column("equivalent_diameter_um", "Equivalent diameter, µm", "Diameter of the circle of the same area."),
    Column("circularity", "Circularity", "4 pi area / perimeter^2; about 1 for a circle, less for all else."),
    Column("solidity", "Solidity", "Pixels of the nucleus / pixels of its convex hull, 0 to 1."),
)
STAIN = (
    Column("haematoxylin_mean", "Haematoxylin, mean", "Mean optical density of haematoxylin over the pixels."),
    Column("haematoxylin_std", "Haematoxylin, spread", "Standard deviation of that density over the pixels."),
    Column("eosin_mean", "Eosin, mean", "Mean optical density of eosin over the pixels."),
    Column("eosin_std", "Eosin, spread", "Standard deviation of that density over the pixels."),
    Column("dab_mean", "DAB, mean", "Mean optical density of DAB over the pixels, of immunostains."),
    Column("dab_std", "DAB, spread", "Standard deviation of that density over the pixels."),
    Column(
        "haematoxylin_entropy_bits",
        "Haematoxylin, entropy in bits",
        "Entropy of the densities of haematoxylin in steps of 0.1: 0 where all pixels are alike, at most 5.",
    ),
    Column(
        "haematoxylin_gradient_per_um",
        "Haematoxylin, gradient per µm",
        "Mean difference in the density of haematoxylin between adjoining pixels of the nucleus / their distance.",
    ),
)
NEIGHBOURS = (
    Column("nearest_um", "Nearest nucleus, µm", "Distance to the nearest centroid of another, up to 100 µm."),
    Column(
        "nearest_5_um", "Five nearest nuclei, µm", "Mean distance to the five nearest centroids, fewer within 100 µm."
    ),
    Column("neighbours_25um", "Neighbours within 25 µm", "Number of other centroids at most 25 µm away."),
    Column(
        "density_per_mm2",
        "Density, nuclei per mm²",
        "Centroids at most 50 µm away, its own included, / area of that disc.",
    ),
)
COLUMNS: tuple[Column, ...] = (*SHAPE, *STAIN, *NEIGHBOURS)
"""All of them in the order of the table; area, class and score are in the table of nuclei already."""
NAMES: tuple[str, ...] = tuple(column.name for column in COLUMNS)
