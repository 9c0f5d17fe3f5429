"""Measuring nuclei against scikit-image's regionprops_table, reading from the slide's file excluded and included.

Run ``python benchmarks/measurements.py [--side 4096] [--rounds 3]``. Synthetic tissue of 4,000 nuclei per mm2 at 0.25
and 0.5 um per pixel, written as a tiled JPEG TIFF, and its true nuclei in a project. scikit-image gets the same blocks
and is asked for the shape, and for mean and spread of both stains of its own colour deconvolution; texture and
neighbours it has none. CPU time of one thread.
"""

import argparse
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import tifffile
from skimage.color import rgb2hed
from skimage.measure import regionprops_table

from measuring import in_turn, note, one_thread, peak_mib, record, table, verdict
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.measurement.block import measure_nuclei
from napari_nucleiseg.core.measurement.columns import COLUMNS
from napari_nucleiseg.core.measurement.grid import blocks_of, nuclei_of_block
from napari_nucleiseg.core.measurement.kept import FOLDER, KeptMeasures
from napari_nucleiseg.core.measurement.measure import measure
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.synthetic import synthetic_slide
from napari_nucleiseg.core.store.nuclei import TileNuclei
from napari_nucleiseg.core.store.project import Project

DENSITY_MM2 = 4000
GOAL = 20_000
TILE_PX = 2048
MARGIN_PX = 96
PROPERTIES = (
    "label", "area", "perimeter", "axis_major_length", "axis_minor_length", "eccentricity", "orientation", "solidity",
    "equivalent_diameter_area", "intensity_mean", "intensity_std",
)  # fmt: skip
SAME = {
    "perimeter_um": ("perimeter", "length"),
    "major_axis_um": ("axis_major_length", "length"),
    "minor_axis_um": ("axis_minor_length", "length"),
    "equivalent_diameter_um": ("equivalent_diameter_area", "length"),
    "eccentricity": ("eccentricity", ""),
    "solidity": ("solidity", ""),
}


def owned_by_tile(tissue, index, core):
    """The true nuclei of a tile, as a model would hand them over."""
    box = core.expand(MARGIN_PX).intersect(tissue.region)
    ids = tissue.truth_ids(core)
    truth = tissue.truth_labels(box)
    places = np.searchsorted(ids, truth)
    places[places == len(ids)] = 0
    labels = np.where(ids[places] == truth, places + 1, 0).astype(np.int32)
    found = regionprops_table(labels, properties=("label", "area", "centroid", "bbox"))
    renumber = np.zeros(len(ids) + 1, np.int32)
    renumber[found["label"]] = np.arange(1, len(found["label"]) + 1)
    corner = (box.y, box.x)
    mpp = tissue.mpp_um
    return TileNuclei(
        index,
        core,
        box,
        renumber[labels],
        np.stack([found["centroid-0"], found["centroid-1"]], axis=1) + corner,
        (found["area"] * mpp.y * mpp.x).astype(np.float32),
        np.stack([found[f"bbox-{side}"] for side in range(4)], axis=1).astype(np.int64) + corner * 2,
        np.ones(len(found["label"]), np.float32),
    )


def prepared(folder, side, mpp_um):
    """A slide's file, and a project with its true nuclei."""
    tissue = synthetic_slide(side, side, mpp_um, density_per_mm2=DENSITY_MM2, touching=0.2, glass=False)
    path = folder / f"tissue-{mpp_um:g}.tif"
    per_cm = 1e4 / mpp_um
    tifffile.imwrite(
        path, tissue.read_region(tissue.region), photometric="rgb", tile=(256, 256), compression="jpeg",
        compressionargs={"level": 85}, resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
    )  # fmt: skip
    slide = open_slide(str(path))
    project = Project.create(folder / f"tissue-{mpp_um:g}.nucleiseg", slide)
    cores = [Region(y, x, TILE_PX, TILE_PX) for y in range(0, side, TILE_PX) for x in range(0, side, TILE_PX)]
    for index, core in enumerate(cores):
        project.write_tile(owned_by_tile(tissue, index, core.intersect(tissue.region)), "truth@1", "")
    project.flush()
    return slide, project


def in_memory(project, slide):
    """All that measuring needs of each block; for scikit-image the block's own nuclei from 1 on, without gaps."""
    found = []
    for block in blocks_of(project):
        nuclei = nuclei_of_block(project, block)
        extent = Region.enclosing(nuclei.table.boxes).intersect(slide.region)
        labels = np.asarray(project.labels.levels[0][extent.slices])
        places = np.searchsorted(nuclei.table.ids, labels)
        places[places == len(nuclei.table)] = 0
        own = np.where(nuclei.table.ids[places] == labels, places + 1, 0).astype(np.int32)
        found.append((nuclei, labels, slide.read_region(extent), own))
    return found


def ours(blocks, mpp_um):
    return [
        measure_nuclei(labels, image, nuclei.table.ids, nuclei.table.centroids, nuclei.around, mpp_um=mpp_um)
        for nuclei, labels, image, _ in blocks
    ]


def read_anew(project, path):
    """Measure from the slide's file, opened anew: what was decoded before is kept in memory."""
    with closing(open_slide(path)) as slide:
        return list(measure(project, slide, keep=False))


def kept_anew(project, path):
    shutil.rmtree(project.folder / FOLDER, ignore_errors=True)
    with closing(open_slide(path)) as slide:
        return list(measure(project, slide))


def theirs(blocks):
    return [regionprops_table(own, rgb2hed(image)[..., :2], properties=PROPERTIES) for _, _, image, own in blocks]


def differences(blocks, mpp_um):
    """The largest difference of each measure that both have, in the unit of its column."""
    mine, other = ours(blocks[:1], mpp_um)[0], theirs(blocks[:1])[0]
    for name, (there, kind) in SAME.items():
        unit = mpp_um.y if kind == "length" else 1.0
        yield name, float(np.abs(mine[name] - other[there] * unit).max())
    turned = (mine["orientation_deg"] - np.degrees(other["orientation"]) + 90) % 180 - 90
    longish = other["axis_major_length"] > 1.01 * other["axis_minor_length"]
    yield "orientation_deg", float(np.abs(turned[longish]).max())


def compared(folder, side, mpp_um, rounds):
    """Print one table; return nuclei per second without and with reading."""
    slide, project = prepared(folder, side, mpp_um)
    blocks = in_memory(project, slide)
    nuclei = sum(len(found.table) for found, *_ in blocks)
    pixels = sum(int((labels > 0).sum()) for _, labels, *_ in blocks)
    whole = project.nuclei_in(Region(0, 0, side, side))
    every = in_turn(
        {
            "pixels in memory": lambda: ours(blocks, project.mpp_um),
            "read from the slide": lambda: read_anew(project, slide.path),
            "read from the slide and kept": lambda: kept_anew(project, slide.path),
            "scikit-image, pixels in memory": lambda: theirs(blocks),
        },
        rounds,
    )
    every |= in_turn({"what was kept, for a table": lambda: KeptMeasures(project).of(whole)}, rounds)
    slow = every["scikit-image, pixels in memory"].cpu
    table(
        ("what", "nuclei a CPU second", "times scikit-image", "busy"),
        [
            (name, f"{nuclei / one.cpu:,.0f}", f"{slow / one.cpu:.1f}", f"{one.share:.2f}")
            for name, one in every.items()
        ],
        title=f"{nuclei:,} nuclei, {mpp_um:g} um per pixel, {side:,} px, {pixels / nuclei:.0f} pixels each",
    )
    table(
        ("measure", "largest difference"), [(name, f"{far:.1e}") for name, far in differences(blocks, project.mpp_um)]
    )
    project.close()
    slide.close()
    return nuclei / every["pixels in memory"].cpu, nuclei / every["read from the slide"].cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    one_thread(pinned=True)
    cv2.setNumThreads(1)
    print(f"{len(COLUMNS)} columns\n")
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        for mpp_um in (0.25, 0.5):
            rates[mpp_um] = compared(Path(folder), options.side, mpp_um, options.rounds)
    for mpp_um, (memory, reading) in rates.items():
        verdict(f"nuclei a second, {mpp_um:g} um, pixels in memory", memory, GOAL, at_most=False, form="{:,.0f}")
        note(f"nuclei a second, {mpp_um:g} um, read from the slide: {reading:,.0f}")
    note(f"peak memory {peak_mib():.0f} MiB")


if __name__ == "__main__":
    record(main)
