"""Segment every slide of the development data, whole, through the same function as the command line.

    python benchmarks/slides.py [--model nuclei] [--keep FOLDER]

Data: ``$NUCLEISEG_DATA`` (default ``../shared/data``): ``wsi/`` (Aperio with JPEG and JPEG 2000, OME-TIFF, DICOM) and
``wsi_mosaic_dev/`` (the TNBC pictures as a tiled pyramid, in two formats, with all their nuclei known). On the mosaics
the nuclei are also scored against the truth, over the pictures of patients 04-05 that the models were not trained on.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from measuring import one_thread, record, table
from napari_nucleiseg.core.batch.job import SegmentJob, SlideFailed, SlideFinished, SlideNoted
from napari_nucleiseg.core.batch.segmentation import segment_slides
from napari_nucleiseg.core.evaluation import mean_scores, scores
from napari_nucleiseg.core.slides.registry import open_slide

DATA = Path(os.environ.get("NUCLEISEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
# Its file does not say; lymphocytes are 7 to 8 pixels wide, so a pixel is about a micrometre.
UNSTATED_MPP_UM = {"tcga-cr-7395-01a-01-ts1": 1.0}
MOSAIC = DATA / "wsi_mosaic_dev" / "tnbc_dev_mosaic_40x"
HELD_OUT = ("04", "05")


def slides():
    """Every slide: files, and the folder that is one DICOM slide."""
    for path in (*sorted((DATA / "wsi").iterdir()), MOSAIC.with_suffix(".tiff"), MOSAIC.with_suffix(".ome.tif")):
        if path.is_dir() or path.suffix in {".svs", ".tif", ".tiff"}:
            yield path


def segmented(path, model, out, *, accept):
    """Segment one slide; return the event that ended it, its notes, seconds and the facts of the slide."""
    mpp_um = UNSTATED_MPP_UM.get(path.stem)
    slide = open_slide(path, mpp_um=mpp_um)
    facts = (slide.reader, slide.shape, slide.require_mpp().x)
    slide.close()
    job = SegmentJob(
        paths=(str(path),), out=str(out), model=model, mpp_um=mpp_um, formats=("tif", "geojson"), accept_licence=accept
    )
    start = time.perf_counter()
    ended, notes = None, []
    for event in segment_slides(job):
        if isinstance(event, SlideNoted):
            notes.append(event.sentence)
        elif isinstance(event, SlideFinished | SlideFailed):
            ended = event
    return ended, notes, time.perf_counter() - start, facts


def agreement(labels):
    """Scores over the pictures of the mosaic that no weights were trained on."""
    truth = tifffile.imread(f"{MOSAIC}_labels.tif")
    with Path(f"{MOSAIC}_layout.csv").open() as file:
        places = [row for row in csv.DictReader(file) if row["stem"].startswith(HELD_OUT)]
    found = []
    for row in places:
        y, x, height, width = (int(row[key]) for key in "yxhw")
        window = np.s_[y : y + height, x : x + width]
        found.append(scores(truth[window].astype(np.int64), labels[window].astype(np.int64), distances=False))
    return mean_scores(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--keep", type=Path, help="where to keep what is written (default: nowhere)")
    parser.add_argument("--accept-licence", action="store_true")
    wanted = parser.parse_args()
    one_thread()
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        for number, path in enumerate(slides()):
            out = (wanted.keep or Path(scratch)) / f"{number}-{path.name}"
            ended, notes, seconds, (reader, (height, width), mpp_um) = segmented(
                path, wanted.model, out, accept=wanted.accept_licence
            )
            for note in notes:
                print(f"{path.name}: {note}")
            if isinstance(ended, SlideFailed):
                print(f"{path.name}: FAILED: {ended.reason}")
                failed += 1
                continue
            score = "-"
            if path.name.startswith(MOSAIC.name):
                (labels,) = out.glob("*.tif*")
                mean = agreement(tifffile.imread(labels))
                score = f"{mean.aji:.3f} / {mean.pq:.3f}"
            mm2 = height * width * mpp_um**2 / 1e6
            rows.append(
                (path.name, reader, f"{width} x {height}", f"{mpp_um:.4g}", f"{ended.nuclei:,}",
                 f"{ended.nuclei / mm2:,.0f}", f"{seconds:.1f}", score)
            )  # fmt: skip
    table(("slide", "reader", "pixels", "um/px", "nuclei", "per mm2 of slide", "s", "AJI / PQ, patients 04-05"), rows)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    record(main)
