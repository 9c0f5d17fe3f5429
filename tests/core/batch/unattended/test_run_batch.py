import csv
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from browned import browned_discs
from dark_model import disc_centres, disc_picture
from napari_nucleiseg.core.batch.engines.base import Ending, Outcome
from napari_nucleiseg.core.batch.engines.here import LocalEngine
from napari_nucleiseg.core.batch.job import (
    LOOKS_BROWN,
    SegmentJob,
    SlideAdvanced,
    SlideFailed,
    SlideFinished,
    SlideNoted,
)
from napari_nucleiseg.core.batch.segmentation import segment_slides
from napari_nucleiseg.core.batch.unattended import course, segmenting, work
from napari_nucleiseg.core.batch.unattended.database import read_run_database
from napari_nucleiseg.core.batch.unattended.job import BatchFinished, SlideDone
from napari_nucleiseg.core.batch.unattended.run import run_batch
from napari_nucleiseg.core.batch.unattended.tiling import Heap, Pace
from napari_nucleiseg.core.errors import ExportError, ModelError, SlideError, StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference import predict
from napari_nucleiseg.core.slides.fingerprint import former
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.lock import WriterLock
from napari_nucleiseg.core.store.project import DATABASE, LOCK, Project
from project_content import assert_same, content_of
from slide_factory import tissue_picture, write_dicom_slide

pytestmark = pytest.mark.usefixtures("dark")


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_labels_are_bit_for_bit_those_of_the_plain_loop(write_slide, job_for, run_here, undisturbed, tmp_path):
    path = write_slide()
    events = run_here(job_for(path))
    (done,) = of_kind(events, SlideDone)
    assert done.nuclei > 100
    assert_same(tmp_path / "out" / "a.nucleiseg", undisturbed(path))
    assert of_kind(events, BatchFinished)[0].done == 1
    assert not (tmp_path / "out" / "a.nucleiseg" / "parcels").exists()


def test_a_batch_that_ignores_brown_does_as_the_plain_loop_and_again_what_was_done_with_brown(
    write_slide, job_for, run_here, tmp_path
):
    path, shape = write_slide(), (300, 400)
    facts = f"Aperio Image Library v1\r\n{shape[1]}x{shape[0]} |AppMag = 20|MPP = 0.5"
    tifffile.imwrite(path, browned_discs(shape), tile=(256, 256), photometric="rgb", description=facts, metadata=None)
    events = run_here(job_for(path))
    (seen,) = of_kind(events, SlideDone)
    assert LOOKS_BROWN in [event.sentence for event in of_kind(events, SlideNoted)]
    events = run_here(job_for(path, ignore_brown=True))
    (done,) = of_kind(events, SlideDone)
    assert LOOKS_BROWN not in [event.sentence for event in of_kind(events, SlideNoted)]
    assert done.nuclei == len(disc_centres(shape)) != seen.nuclei
    list(segment_slides(SegmentJob((str(path),), str(tmp_path / "plain"), ignore_brown=True, device="cpu")))
    with Project.open(tmp_path / "out" / "a.nucleiseg", writable=False) as batch:
        with Project.open(tmp_path / "plain" / "a.nucleiseg", writable=False) as plain:
            whole = Region(0, 0, *shape)
            np.testing.assert_array_equal(batch.labels.read(whole) > 0, plain.labels.read(whole) > 0)
            (version,) = plain.ledger.reader.execute("SELECT model_version FROM runs").fetchone()
        versions = [row[0] for row in batch.ledger.reader.execute("SELECT model_version FROM runs ORDER BY run")]
    assert versions == [version.removesuffix("+nobrown"), version]


def test_tables_hold_measurements_and_pandas_reads_them(write_slide, job_for, run_here, tmp_path):
    pandas = pytest.importorskip("pandas")
    run_here(job_for(write_slide(), formats=("parquet", "csv", "geojson"), measure=True))
    table = pandas.read_parquet(tmp_path / "out" / "a.parquet")
    assert len(table) == len(pandas.read_csv(tmp_path / "out" / "a.csv")) > 100
    assert {"perimeter_um", "solidity"} <= set(table.columns)
    assert table["solidity"].between(0.8, 1.0).all()
    features = json.loads((tmp_path / "out" / "a.geojson").read_text())
    assert len(features.get("features", features)) == len(table)


def test_encoders_add_features_maps_and_columns_of_attention(write_slide, job_for, run_here, tmp_path):
    job = job_for(
        write_slide(shape=(500, 600)),
        formats=("csv",),
        measure=True,
        encoder="tissue-patches",
        region_encoder="tissue-regions",
        attention_maps=True,
    )
    events = run_here(job)
    assert of_kind(events, SlideFailed) == []
    (done,) = of_kind(events, SlideDone)
    names = {Path(output).name for output in done.outputs}
    assert names == {"a.nucleiseg", "a.csv", "a.features.safetensors", "a.tif", "a.npz"}
    with (tmp_path / "out" / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"solidity", "attention_head_1", "attention_head_6", "attention_rollout"} <= set(rows[0])
    seen = [float(row["attention_head_1"]) for row in rows if row["attention_head_1"]]
    assert len(seen) > len(rows) / 2
    assert 0 <= min(seen) < max(seen) <= 1
    best = read_run_database(tmp_path / "out")[0]["a"].told["best_head"]
    assert re.fullmatch(r"layer \d, head \d: AUROC [01]\.\d\d", best)
    (again,) = of_kind(run_here(job), SlideDone)
    assert again.from_before


def test_where_no_nucleus_is_found_heads_are_not_ranked_which_fails_nobody(write_slide, job_for, run_here, tmp_path):
    job = job_for(
        write_slide(shape=(300, 300)),
        formats=("csv",),
        encoder="tissue-patches",
        attention_maps=True,
        min_area_um2=5000.0,
    )
    events = run_here(job)
    assert of_kind(events, SlideFailed) == []
    (done,) = of_kind(events, SlideDone)
    assert {"a.tif", "a.npz"} <= {Path(output).name for output in done.outputs}
    assert read_run_database(tmp_path / "out")[0]["a"].told["best_head"] == ""


def write_rgb(path, shape=(300, 400)):
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, disc_picture(shape), photometric="rgb", metadata=None)
    return path


def test_a_slide_is_never_replaced_by_its_own_labels(write_slide, job_for, run_here, tmp_path, dark):
    path = write_rgb(tmp_path / "slides" / "x.ome.tif")
    before = path.read_bytes()
    job = job_for(path, write_slide(), formats=("tif",), mpp_um=0.5)
    events = run_here(replace(job, out=str(path.parent)))
    (failed,) = of_kind(events, SlideFailed)
    assert failed.reason.startswith(f"{path} would be replaced by its own results")
    assert "choose another folder for the results (--out)" in failed.reason
    (done,) = of_kind(events, SlideDone)
    assert Path(done.path).name == "a.svs"
    assert path.read_bytes() == before
    assert not (path.parent / "x.nucleiseg").exists()
    (finished,) = of_kind(events, BatchFinished)
    assert (finished.done, finished.failed, finished.left) == (1, 1, 0)
    row = read_run_database(path.parent)[0]["x"]
    assert (row.state, row.sentence, row.kind) == ("failed", failed.reason, "ExportError")


def test_a_worker_does_not_replace_the_slide_either(write_slide, job_for, run_here, tmp_path, monkeypatch):
    from napari_nucleiseg.core.batch.unattended import run

    path = write_rgb(tmp_path / "slides" / "x.ome.tif")
    before = path.read_bytes()
    monkeypatch.setattr(run, "require_own", lambda *_: None)
    events = run_here(replace(job_for(path, formats=("tif",), mpp_um=0.5), out=str(path.parent)))
    assert "would be replaced by its own results" in of_kind(events, SlideFailed)[0].reason
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a.ome.tif", "a.geojson", "a.labels.zarr", "pictures/a.jpg"])
def test_what_is_no_result_of_ours_is_not_replaced(write_slide, job_for, run_here, tmp_path, dark, name):
    stranger = tmp_path / "out" / name
    stranger.parent.mkdir(parents=True)
    if name.endswith(".zarr"):
        stranger.mkdir()
    elif name.endswith(".tif"):
        write_rgb(stranger)
    else:
        stranger.write_text("mine")
    before = None if stranger.is_dir() else stranger.read_bytes()
    job = job_for(write_slide(), formats=("tif", "geojson", "zarr"))
    for _ in range(2):  # a refusal is no claim
        (failed,) = of_kind(run_here(job), SlideFailed)
        assert failed.reason.startswith(f"{stranger} is there already and is no result of an earlier run")
    assert dark.log.tiles == 0
    assert (None if stranger.is_dir() else stranger.read_bytes()) == before
    stranger.rmdir() if stranger.is_dir() else stranger.unlink()
    assert of_kind(run_here(job), SlideDone)


def test_own_results_are_replaced_also_after_a_run_that_was_cut_off(write_slide, job_for, run_here, monkeypatch):
    path = write_slide()
    formats = ("tif", "geojson", "zarr", "csv")
    run_here(job_for(path, formats=formats))

    def killed(*_):
        raise KeyboardInterrupt

    for stage in ("_prepared", "_written"):
        with monkeypatch.context() as patch:
            patch.setattr(course.Course, stage, killed)
            with pytest.raises(KeyboardInterrupt):
                run_here(job_for(path, formats=(*formats, "coco"), min_area_um2=30.0))
    (done,) = of_kind(run_here(job_for(path, formats=(*formats, "coco"), min_area_um2=40.0)), SlideDone)
    assert not done.from_before


def test_a_folder_that_holds_its_own_results_is_done_already(write_slide, job_for, run_here):
    folder = write_slide().parent
    job = replace(job_for(folder, formats=("tif", "zarr")), out=str(folder))
    run_here(job)
    events = run_here(job)
    assert not of_kind(events, SlideFailed)
    assert [event.from_before for event in of_kind(events, SlideDone)] == [True]


def test_what_is_done_is_not_done_again(write_slide, job_for, run_here, dark):
    job = job_for(write_slide("a.svs"), write_slide("b.svs", (400, 500)), formats=("csv",))
    first = run_here(job)
    forwards = dark.log.tiles
    again = run_here(job)
    assert [event.from_before for event in of_kind(again, SlideDone)] == [True, True]
    assert of_kind(again, BatchFinished)[0].nuclei == of_kind(first, BatchFinished)[0].nuclei
    assert dark.log.tiles == forwards


def test_dicom_that_is_done_is_not_done_again(job_for, run_here, tmp_path):
    pytest.importorskip("wsidicom", reason="the extra `dicom` is not installed")
    write_dicom_slide(tmp_path / "slides" / "a", tissue_picture(301, 213))
    job = job_for(tmp_path / "slides" / "a")
    assert [event.from_before for event in of_kind(run_here(job), SlideDone)] == [False]
    assert [event.from_before for event in of_kind(run_here(job), SlideDone)] == [True]


def test_what_a_former_version_has_done_is_not_done_again_but_another_picture_is(
    write_slide, job_for, run_here, tmp_path
):
    def fingerprint_kept():
        return read_run_database(tmp_path / "out")[0]["a"].fingerprint

    job = job_for(write_slide())
    run_here(job)
    full = fingerprint_kept()
    with closing(sqlite3.connect(tmp_path / "out" / "batch.sqlite")) as database, database:
        database.execute("UPDATE slides SET fingerprint = ?", (former(full),))
    (done,) = of_kind(run_here(job), SlideDone)
    assert done.from_before
    assert fingerprint_kept() == full != former(full)
    with write_slide().open("r+b") as file:
        file.seek(500_000)
        file.write(bytes(600_000))
    (failed,) = of_kind(run_here(job), SlideFailed)
    assert "belongs to another slide" in failed.reason


def test_looking_at_what_a_former_version_has_done_does_not_have_it_done_again(
    write_slide, job_for, run_here, tmp_path
):
    path = write_slide()
    job = job_for(path)
    run_here(job)
    project = tmp_path / "out" / "a.nucleiseg"
    with closing(sqlite3.connect(project / "project.sqlite")) as database, database:
        (full,) = database.execute("SELECT value FROM meta WHERE key = 'fingerprint'").fetchone()
        database.execute("UPDATE meta SET value = ? WHERE key = 'fingerprint'", (former(full),))
    os.utime(project / "project.sqlite", (1e9, 1e9))
    with closing(open_slide(str(path))) as slide, Project.open(project, slide) as looked_at:
        assert looked_at.fingerprint == full != former(full)
        ids = looked_at.nuclei_in(Region(0, 0, 700, 900)).ids
    (done,) = of_kind(run_here(job), SlideDone)
    assert done.from_before
    with closing(open_slide(str(path))) as slide, Project.open(project, slide) as edited:
        edited.editor.classify(ids[:1].tolist(), 2)
    (done,) = of_kind(run_here(job), SlideDone)
    assert not done.from_before
    with Project.open(project, writable=False) as again:
        assert again.fingerprint == full


@pytest.mark.parametrize("missing", ["a.csv", "a.nucleiseg/project.sqlite"])
def test_results_that_are_gone_are_made_again(missing, write_slide, job_for, run_here, tmp_path):
    job = job_for(write_slide(), formats=("csv",))
    run_here(job)
    before = (tmp_path / "out" / "a.csv").read_text()
    if "sqlite" in missing:
        for file in sorted((tmp_path / "out" / "a.nucleiseg").rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
    else:
        (tmp_path / "out" / missing).unlink()
    (done,) = of_kind(run_here(job), SlideDone)
    assert not done.from_before
    assert (tmp_path / "out" / "a.csv").read_text() == before


@pytest.mark.parametrize("before", ["<html><title>mine</title></html>", None])
def test_a_summary_that_is_not_ours_is_not_replaced(before, write_slide, job_for, run_here, tmp_path, dark):
    stranger = tmp_path / "out" / "summary.html"
    stranger.parent.mkdir()
    stranger.mkdir() if before is None else stranger.write_text(before)
    job = job_for(write_slide())
    with pytest.raises(ExportError, match=f"{stranger} is there already and is no summary of an earlier run.*--out"):
        run_here(job)
    assert dark.log.tiles == 0
    assert list(stranger.parent.iterdir()) == [stranger]
    assert before is None or stranger.read_text() == before
    stranger.rmdir() if before is None else stranger.unlink()
    assert of_kind(run_here(job), SlideDone)
    former = stranger.read_text().replace('<meta name="generator" content="napari-nucleiseg">', "")
    for ours in (stranger.read_text(), former):
        stranger.write_text(ours)
        assert of_kind(run_here(job), SlideDone)[0].from_before
        assert "napari-nucleiseg" in stranger.read_text()


def test_other_settings_make_results_stale_and_other_formats_cost_no_forward(write_slide, job_for, run_here, dark):
    path = write_slide()
    run_here(job_for(path))
    forwards = dark.log.tiles
    run_here(job_for(path, formats=("csv",)))
    assert dark.log.tiles == forwards
    (done,) = of_kind(run_here(job_for(path, min_area_um2=30.0)), SlideDone)
    assert not done.from_before
    assert dark.log.tiles > forwards


def test_a_slide_that_was_replaced_is_told_and_the_others_go_on(write_slide, job_for, run_here):
    path, other = write_slide("a.svs"), write_slide("b.svs", (400, 500))
    run_here(job_for(path, other))
    write_slide("a.svs", (500, 500))
    events = run_here(job_for(path, other))
    (failed,) = of_kind(events, SlideFailed)
    assert "belongs to another slide" in failed.reason
    assert of_kind(events, SlideDone)[0].from_before


def test_one_bad_slide_never_stops_a_cohort(write_slide, job_for, run_here, tmp_path):
    good = write_slide("a.svs"), write_slide("c.svs", (400, 500))
    bad = tmp_path / "slides" / "b.svs"
    bad.write_bytes(b"II*\0 no slide at all")
    events = run_here(job_for(tmp_path / "slides"))
    assert {event.path for event in of_kind(events, SlideDone)} == set(map(str, good))
    (failed,) = of_kind(events, SlideFailed)
    finished = of_kind(events, BatchFinished)[0]
    assert (failed.path, failed.reason) == finished.failures[0]
    slides, _ = read_run_database(tmp_path / "out")
    assert [slides[name].state for name in "abc"] == ["done", "failed", "done"]
    page = (tmp_path / "out" / "summary.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert failed.reason.split("'")[0][:30] in page


def test_a_slide_removed_in_mid_run_fails_alone(write_slide, job_for, tmp_path):
    first, second = write_slide("a.svs", (1500, 1500)), write_slide("b.svs", (1500, 1500))
    events, removed = [], False
    for event in run_batch(job_for(first, second), engine=LocalEngine(in_process=True)):
        events.append(event)
        if isinstance(event, SlideAdvanced) and event.path == str(first) and not removed and event.done > 2:
            second.unlink()
            removed = True
    (failed,) = of_kind(events, SlideFailed)
    assert failed.path == str(second)
    assert [event.path for event in of_kind(events, SlideDone)] == [str(first)]


def test_cancelled_runs_go_on_where_they_were(write_slide, job_for, run_here, undisturbed, dark, tmp_path):
    path = write_slide(shape=(1500, 1500))
    job, advanced = job_for(path), []
    for event in run_batch(job, engine=LocalEngine(in_process=True), cancelled=lambda: len(advanced) > 5):
        if isinstance(event, SlideAdvanced) and event.stage == "segmenting":
            advanced.append(event)
    assert isinstance(event, BatchFinished)
    assert event.left == 1
    assert read_run_database(tmp_path / "out")[0]["a"].state == "stopped"
    (done,) = of_kind(run_here(job), SlideDone)
    assert done.nuclei > 500
    assert dark.log.tiles == 36, "a tile was forwarded twice, or not at all"
    assert_same(tmp_path / "out" / "a.nucleiseg", undisturbed(path))


def test_while_paused_nothing_is_given_out(write_slide, job_for):
    polls = []

    def paused():
        polls.append(0)
        return len(polls) < 4

    events = run_batch(job_for(write_slide()), engine=LocalEngine(in_process=True), paused=paused)
    assert isinstance(list(events)[-1], BatchFinished)
    assert len(polls) >= 4


def test_corrections_make_the_tables_stale(write_slide, job_for, run_here, tmp_path):
    job = job_for(write_slide(), formats=("csv",))
    run_here(job)
    with Project.open(tmp_path / "out" / "a.nucleiseg") as project:
        project.approve(project.nuclei_in(Region(0, 0, *project.shape)).ids[:1])
    (done,) = of_kind(run_here(job), SlideDone)
    assert not done.from_before
    assert ",1\n" in (tmp_path / "out" / "a.csv").read_text().replace("\r", "")


def test_corrections_of_a_window_that_crashed_make_the_tables_stale_too(write_slide, job_for, run_here, tmp_path):
    job = job_for(write_slide(), formats=("csv",))
    run_here(job)
    folder, left = tmp_path / "out" / "a.nucleiseg", tmp_path / "left"
    with Project.open(folder) as project:
        project.approve(project.nuclei_in(Region(0, 0, *project.shape)).ids[:1])
        shutil.copytree(folder, left)  # as a crash at this moment would leave it
    (left / LOCK).unlink()
    shutil.rmtree(folder)
    left.rename(folder)
    assert (folder / f"{DATABASE}-wal").stat().st_size > 0
    (done,) = of_kind(run_here(job), SlideDone)
    assert not done.from_before
    assert ",1\n" in (tmp_path / "out" / "a.csv").read_text().replace("\r", "")
    (done,) = of_kind(run_here(job), SlideDone)
    assert done.from_before


def test_results_that_a_batch_run_has_replaced_are_made_anew_by_the_plain_loop(
    write_slide, job_for, run_here, tmp_path, later
):
    path, table = write_slide(), tmp_path / "out" / "a.csv"
    plain = SegmentJob((str(path),), str(tmp_path / "out"), formats=("csv",), device="cpu")
    list(segment_slides(plain))
    before = table.read_bytes()
    run_here(job_for(path, formats=("csv",), min_area_um2=1e5))
    later(table)
    assert table.read_bytes() != before
    (finished,) = of_kind(list(segment_slides(plain)), SlideFinished)
    assert not finished.from_before
    assert table.read_bytes() == before


def test_a_name_that_is_no_utf_8_is_done_like_any_other(write_slide, job_for, run_here, tmp_path):
    write_slide("b.svs")
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / "slides" / "b.svs").rename(tmp_path / "slides" / f"{name}.svs")
    job = job_for(write_slide("a.svs").parent, formats=("csv",))
    events = run_here(job)
    assert of_kind(events, SlideFailed) == []
    assert sorted(read_run_database(tmp_path / "out")[0]) == ["a", name]
    assert (tmp_path / "out" / f"{name}.csv").is_file()
    page = (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")
    assert 'href="caf%E9.csv"' in page
    assert [event.from_before for event in of_kind(run_here(job), SlideDone)] == [True, True]


def test_a_project_in_use_is_told_and_done_by_the_next_run(write_slide, job_for, run_here, tmp_path):
    job = job_for(write_slide())
    run_here(replace(job, min_area_um2=20.0))
    lock = WriterLock(tmp_path / "out" / "a.nucleiseg" / "project.lock")
    (failed,) = of_kind(run_here(job), SlideFailed)
    assert "in use by" in failed.reason
    lock.release()
    assert of_kind(run_here(job), SlideDone)


def test_two_runs_in_one_folder_are_refused(write_slide, job_for, run_here, tmp_path):
    (tmp_path / "out").mkdir()
    lock = WriterLock(tmp_path / "out" / "batch.lock")
    with pytest.raises(StoreError, match="in use by"):
        run_here(job_for(write_slide()))
    lock.release()


def test_a_full_disk_ends_the_run_and_keeps_what_is_done(write_slide, job_for, run_here, monkeypatch, tmp_path):
    job = job_for(write_slide("a.svs"), write_slide("b.svs"))
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("napari_nucleiseg.core.batch.unattended.run.shutil.disk_usage", lambda _: usage)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_nucleiseg.core.batch.unattended.parcels.write_over", full)
        with pytest.raises(StoreError, match="is full"):
            run_here(job)
    assert len(of_kind(run_here(job), SlideDone)) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"formats": ("xlsx",)}, "no format"),
        ({"engine": "spark"}, "no engine spark"),
        ({"scheduler": "tcp://a:1"}, "for the engine dask"),
        ({"attention_maps": True}, "name an encoder"),
        ({"threads": 0}, "one thread"),
        ({"unit_s": 0.0}, "more than 0 seconds"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_in_words(changes, sentence, write_slide, job_for, run_here):
    with pytest.raises(ModelError, match=sentence):
        run_here(job_for(write_slide(), **changes))


def test_a_slide_without_pixel_size_says_so_and_a_manifest_gives_it(write_slide, job_for, run_here, tmp_path):
    plain = tmp_path / "slides" / "plain.tif"
    plain.parent.mkdir()
    tifffile.imwrite(plain, disc_picture((400, 500)), tile=(256, 256), photometric="rgb", metadata=None)
    (failed,) = of_kind(run_here(job_for(plain)), SlideFailed)
    assert failed.kind == "MissingPixelSizeError"
    manifest = tmp_path / "cohort.csv"
    manifest.write_text("Path,mpp,case\nslides/plain.tif,0.5,C-7\n")
    (done,) = of_kind(run_here(job_for(manifest)), SlideDone)
    assert done.nuclei > 50
    assert "C-7" in (tmp_path / "out" / "summary.html").read_text()


def test_the_database_remembers_runs_versions_and_seconds(write_slide, job_for, run_here, tmp_path):
    run_here(job_for(write_slide()))
    slides, runs = read_run_database(tmp_path / "out")
    assert runs[-1].state == "done"
    assert runs[-1].versions["model"].startswith("nuclei")
    assert slides["a"].seconds["segment"] > 0
    assert slides["a"].told["tissue_mm2"] > 0
    with sqlite3.connect(tmp_path / "out" / "batch.sqlite") as connection:
        assert connection.execute("SELECT value FROM meta").fetchone() == ("1",)
    assert len(content_of(tmp_path / "out" / "a.nucleiseg")[1]) == slides["a"].nuclei


def test_damaged_tiles_are_left_out_told_and_tried_again(write_slide, job_for, run_here, monkeypatch):
    path = write_slide(shape=(1000, 1000))
    read = predict.read_tile

    def broken(slide, grid, tile):
        if tile.index == 5:
            raise SlideError("its bytes are no picture")
        return read(slide, grid, tile)

    with monkeypatch.context() as patch:
        patch.setattr(predict, "read_tile", broken)
        events = run_here(job_for(path))
    assert of_kind(events, SlideDone)[0].skipped_tiles == 1
    assert "its bytes are no picture" in of_kind(events, SlideNoted)[0].sentence
    (again,) = of_kind(run_here(job_for(path)), SlideDone)
    assert (again.skipped_tiles, again.from_before) == (0, False)


def test_a_drive_that_is_gone_fails_the_slide_and_keeps_what_is_done(write_slide, job_for, run_here, monkeypatch, dark):
    path, done = write_slide(shape=(1500, 1500)), []
    read = predict.read_tile

    def gone(slide, grid, tile):
        if len(done) >= 10:
            raise OSError(5, "Input/output error")
        done.append(tile)
        return read(slide, grid, tile)

    with monkeypatch.context() as patch:
        patch.setattr(predict, "read_tile", gone)
        (failed,) = of_kind(run_here(job_for(path)), SlideFailed)
    assert "the slide or its drive seems to be gone" in failed.reason
    assert of_kind(run_here(job_for(path)), SlideDone)
    assert dark.log.tiles == 36


class Wild(LocalEngine):
    """An engine that answers in any order, loses workers before and after their work, and tears parcels."""

    def __init__(self, seed):
        super().__init__(in_process=True)
        self._random = np.random.default_rng(seed)
        self._held = []

    @property
    def workers(self):
        return 3

    @property
    def waiting(self):
        return super().waiting + len(self._held)

    def collect(self, timeout_s):
        self._held += super().collect(timeout_s)
        if len(self._held) < 3 and super().waiting:
            return []
        self._random.shuffle(self._held)
        out, self._held = self._held[:2], self._held[2:]
        return [self._spoilt(outcome) for outcome in out]

    def _spoilt(self, outcome):
        is_tiles = "segment" in outcome.task.name
        fate = self._random.random()
        if fate < 0.2 and is_tiles:
            return Outcome(outcome.task, Ending.DIED, None, "killed", "BrokenProcessPool")
        if fate < 0.3 and is_tiles and outcome.value.parcel:
            Path(outcome.value.parcel).write_bytes(b"torn")
        if fate < 0.4 and is_tiles and outcome.value.parcel:
            Path(outcome.value.parcel).unlink(missing_ok=True)
        return outcome


@pytest.mark.parametrize("seed", range(8))
def test_labels_do_not_depend_on_order_deaths_or_lost_parcels(
    seed, write_slide, job_for, run_here, undisturbed, monkeypatch, tmp_path
):
    # Nobody dies three times at one tile here, so that nothing is given up.
    monkeypatch.setattr("napari_nucleiseg.core.batch.unattended.tiling.PATIENCE", 100)
    path = write_slide(shape=(1500, 1100))
    events = run_here(job_for(path, unit_s=1.0), engine=Wild(seed))
    assert of_kind(events, SlideDone)[0].skipped_tiles == 0
    assert_same(tmp_path / "out" / "a.nucleiseg", undisturbed(path))


def test_a_task_that_finds_no_memory_is_halved_until_a_tile_is_given_up(write_slide, job_for, run_here, monkeypatch):
    find, sizes = work.find_in_tiles, []

    def hungry(*args, tiles, **more):
        sizes.append(len(tiles))
        if len(tiles) > 2 or 3 in tiles.indices:
            raise MemoryError
        return find(*args, tiles=tiles, **more)

    monkeypatch.setattr(work, "find_in_tiles", hungry)
    monkeypatch.setattr(Pace, "at_once", 8)
    monkeypatch.setattr(Heap, "cut", lambda heap, most, workers, cut=Heap.cut: cut(heap, most, 0.1))
    events = run_here(job_for(write_slide(shape=(1000, 1000))))
    assert {8, 4, 2, 1} <= set(sizes)
    (done,) = of_kind(events, SlideDone)
    assert done.skipped_tiles == 1
    assert "three times" in of_kind(events, SlideNoted)[0].sentence


def test_parcels_that_a_killed_run_left_are_joined_and_cost_no_forward(
    write_slide, job_for, run_here, undisturbed, monkeypatch, dark, tmp_path
):
    path = write_slide(shape=(1000, 1000))

    def killed(*_):
        raise KeyboardInterrupt  # workers have put parcels down, nobody takes them up

    with monkeypatch.context() as patch:
        patch.setattr(segmenting.Segmenting, "_join", killed)
        with pytest.raises(KeyboardInterrupt):
            run_here(job_for(path))
    left = list((tmp_path / "out" / "a.nucleiseg" / "parcels").glob("*.parcel"))
    assert left
    assert of_kind(run_here(job_for(path)), SlideDone)
    assert dark.log.tiles == 16
    assert_same(tmp_path / "out" / "a.nucleiseg", undisturbed(path))


def test_a_full_disk_while_left_parcels_are_joined_lets_the_project_go(
    write_slide, job_for, run_here, monkeypatch, tmp_path
):
    path = write_slide(shape=(1000, 1000))
    with monkeypatch.context() as patch:
        patch.setattr(segmenting.Segmenting, "_join", lambda *_: (_ for _ in ()).throw(StoreError("no room")))
        assert of_kind(run_here(job_for(path)), SlideFailed)
        (failed,) = of_kind(run_here(job_for(path)), SlideFailed)
    assert failed.reason == "no room"
    with Project.open(tmp_path / "out" / "a.nucleiseg"):
        pass  # nobody holds it
    assert of_kind(run_here(job_for(path)), SlideDone)
