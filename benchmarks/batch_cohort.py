"""A whole cohort through dask while its workers are killed: is everything there, is it the same, is memory flat?

Run ``python benchmarks/batch_cohort.py [--slides 10] [--pieces 2] [--every 10] [--out DIR]``. The cohort: the scans
and mosaics of the development data if they are there, and aliased slides of 100,000 x 100,000 px with some pieces of
tissue (real JPEG, a few megabytes each). Two workers of a LocalCluster; one of them is killed every so many seconds.
Labels are compared bit for bit with those of the plain loop; tables are opened by pandas, AnnData and as GeoJSON.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from measuring import peak_mib, table, verdict

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from alias_svs import alias_svs
from napari_nucleiseg.core.batch.engines.cluster import DaskEngine
from napari_nucleiseg.core.batch.job import SegmentJob
from napari_nucleiseg.core.batch.segmentation import segment_slides
from napari_nucleiseg.core.batch.unattended.database import read_run_database
from napari_nucleiseg.core.batch.unattended.job import BatchJob, SlideDone
from napari_nucleiseg.core.batch.unattended.run import run_batch
from project_content import assert_same

DATA = Path(os.environ.get("NUCLEISEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
# What these files do not say of themselves.
STATED = {"tcga-cr-7395-01a-01-ts1.svs": "0.25"}


def cohort(folder, slides, pieces):
    """Write the aliased slides and the manifest; return it, and what is known of the aliased slides."""
    known = {}
    for number in range(slides):
        path = folder / f"alias-{number:02d}.svs"
        known[path.stem] = alias_svs(path, seed=number, pieces=pieces)
    real = (
        [path for name in ("wsi", "wsi_mosaic_dev") for path in sorted((DATA / name).glob("*"))]
        if DATA.exists()
        else []
    )
    real = [path for path in real if path.suffix not in {".md", ".csv"} and "labels" not in path.name]
    manifest = folder / "cohort.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "mpp", "name", "kind"))
        for path in real:
            # The two mosaics have one stem.
            name = path.name.replace(".ome.tif", "-ome") if path.name.endswith("mosaic_40x.ome.tif") else ""
            writer.writerow((path.absolute(), STATED.get(path.name, ""), name, "real"))
        writer.writerows((slide.path, "", "", "aliased") for slide in known.values())
    return manifest, known


class Killer(threading.Thread):
    """Kills a random worker every so many seconds."""

    def __init__(self, client, every):
        super().__init__(daemon=True)
        self.client, self.every, self.killed, self.over = client, every, 0, threading.Event()

    def run(self):
        chance = random.Random(0)
        while not self.over.wait(self.every * chance.uniform(0.5, 1.5)):
            try:
                pids = list(self.client.run(os.getpid).values())
                os.kill(chance.choice(pids), signal.SIGKILL)
            except (OSError, RuntimeError, IndexError):
                continue  # it is being replaced at this moment
            self.killed += 1


def size_of(folder):
    files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(files), len(files)


def opened(out, rows):
    """Open every table with the programs people use; return how many rows each kind holds."""
    import anndata
    import pandas as pd

    counts = dict.fromkeys(("parquet", "h5ad", "geojson"), 0)
    for row in rows:
        counts["parquet"] += len(pd.read_parquet(out / f"{row.stem}.parquet"))
        counts["h5ad"] += anndata.read_h5ad(out / f"{row.stem}.h5ad").n_obs
        document = json.loads((out / f"{row.stem}.geojson").read_text())
        counts["geojson"] += len(document["features"] if isinstance(document, dict) else document)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=10)
    parser.add_argument("--pieces", type=int, default=2)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between kills")
    parser.add_argument("--out", type=Path, help="keep results here")
    wanted = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    out = wanted.out or scratch / "out"
    try:
        manifest, known = cohort(scratch, wanted.slides, wanted.pieces)
        job = BatchJob((str(manifest),), str(out), formats=("parquet", "anndata", "geojson"), device="cpu", unit_s=1.0)
        engine = DaskEngine.started_here(2)
        killer = Killer(engine.client, wanted.every)
        killer.start()
        start = time.monotonic()
        events = list(run_batch(job, engine=engine))
        killer.over.set()
        wall = time.monotonic() - start
        report((out, scratch), known, events, (killer.killed, wall))
    finally:
        shutil.rmtree(scratch)


def report(folders, known, events, told):
    (out, scratch), (killed, wall) = folders, told
    slides, _ = read_run_database(out)
    rows, good = list(slides.values()), True
    print(f"### A cohort of {len(rows)} slides, two workers of which one is killed now and then\n")
    shown = []
    for row in rows:
        size, files = size_of(out / f"{row.stem}.nucleiseg" / "labels.zarr")
        pixels = row.told.get("tissue_mm2", 0) * 1e6 / row.told["mpp_y_um"] ** 2 if "mpp_y_um" in row.told else 0
        truth = known[row.stem].count if row.stem in known else None
        shown.append((
            row.stem, row.state, row.told.get("width", ""), row.tiles, row.tiles_skipped, f"{row.nuclei:,}",
            "" if truth is None else f"{truth:,}", f"{size / pixels:.3f}" if pixels else "", files,
            f"{row.told.get('worker_bytes', 0) / 2**20:.0f}",
        ))  # fmt: skip
    table(("slide", "state", "width, px", "tiles", "left out", "nuclei", "drawn", "labels, B per tissue px", "files",
           "worker, MiB"), shown)  # fmt: skip
    done = [event for event in events if isinstance(event, SlideDone)]
    nuclei = sum(event.nuclei for event in done)
    print(f"{killed} workers killed, {wall:.0f} s, {nuclei:,} nuclei, this process {peak_mib():.0f} MiB at most")
    good &= verdict("slides done", len(done), len(rows), at_most=False, form="{:.0f}")
    for kind, count in opened(out, rows).items():
        good &= verdict(f"rows of {kind} less nuclei", abs(count - nuclei), 0, form="{:.0f}")
    same = 0
    for row in [row for row in rows if row.stem not in known or row.stem == "alias-00"]:
        mpp = float(STATED[Path(row.path).name]) if Path(row.path).name in STATED else None
        plain = scratch / "plain" / row.stem
        list(segment_slides(SegmentJob((row.path,), str(plain), formats=("csv",), mpp_um=mpp, device="cpu")))
        (folder,) = plain.glob("*.nucleiseg")
        assert_same(out / f"{row.stem}.nucleiseg", folder)
        same += 1
    print(f"{same} slides are bit for bit those of the plain loop")
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
