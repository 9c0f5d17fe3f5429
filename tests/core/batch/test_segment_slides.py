"""Many slides in one run: exact results, failures told, nothing done twice."""

import csv
import json
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from browned import browned_discs
from dark_model import disc_centres, disc_picture
from napari_nucleiseg.core.batch.job import (
    LOOKS_BROWN,
    SegmentJob,
    SlideFailed,
    SlideFinished,
    SlideNoted,
    SlideStarted,
)
from napari_nucleiseg.core.batch.record import Record
from napari_nucleiseg.core.batch.segmentation import segment_slides
from napari_nucleiseg.core.errors import ModelError, StoreError
from napari_nucleiseg.core.exchange.annotated_table import FACTS
from napari_nucleiseg.core.exchange.formats import FORMATS
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.project import Project

pytestmark = pytest.mark.usefixtures("_dark_model")


@pytest.fixture
def pictures(tmp_path, picture):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(imagecodecs.png_encode(picture))
    return folder


def run(*paths, out, cancelled=lambda: False, **changes):
    job = SegmentJob(tuple(map(str, paths)), str(out), **{"mpp_um": 0.5, "threshold": 0.5, **changes})
    return list(segment_slides(job, cancelled=cancelled))


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def assert_holds_the_discs(labels, shape):
    centres = disc_centres(shape)
    found = labels[centres[:, 0], centres[:, 1]]
    assert len(set(found.tolist())) == len(centres)
    assert set(np.unique(labels).tolist()) == {0, *found.tolist()}


def test_a_folder_of_pictures_becomes_label_tiffs_named_by_stem(pictures, picture, tmp_path):
    events = run(pictures, out=tmp_path / "out")
    assert [(event.number, event.total) for event in of(events, SlideStarted)] == [(1, 2), (2, 2)]
    for name, finished in zip("ab", of(events, SlideFinished), strict=True):
        assert finished.outputs == (str(tmp_path / "out" / f"{name}.tif"),)
        labels = tifffile.imread(tmp_path / "out" / f"{name}.tif")
        assert labels.dtype == np.uint32
        assert_holds_the_discs(labels, picture.shape[:2])
        assert finished.nuclei == len(disc_centres(picture.shape[:2]))


def test_a_scan_becomes_a_project_and_whatever_is_asked_for(tmp_path, write_scan):
    image = disc_picture((400, 640))
    write_scan(tmp_path / "scan.svs", image)
    out = tmp_path / "out"
    (finished,) = of(
        run(tmp_path / "scan.svs", out=out, mpp_um=None, formats=("tif", "geojson", "csv", "zarr")), SlideFinished
    )
    count = len(disc_centres(image.shape[:2]))
    names = ["scan.nucleiseg", "scan.ome.tif", "scan.geojson", "scan.csv", "scan.labels.zarr"]
    assert finished.outputs == tuple(str(out / name) for name in names)
    assert finished.nuclei == count
    labels = tifffile.imread(out / "scan.ome.tif")
    assert_holds_the_discs(labels, image.shape[:2])
    assert len(json.loads((out / "scan.geojson").read_text(encoding="utf-8"))["features"]) == count
    with (out / "scan.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {int(row["id"]) for row in rows} == set(np.unique(labels).tolist()) - {0}
    assert all(float(row["score"]) > 0.5 for row in rows)
    with Project.open(out / "scan.nucleiseg", writable=False) as project:
        np.testing.assert_array_equal(np.asarray(project.labels.levels[0][:, :]), labels)


def test_a_region_is_all_that_is_done(tmp_path, write_scan):
    image = disc_picture((700, 900))
    write_scan(tmp_path / "scan.svs", image)
    region = Region(300, 300, 64, 64)
    (finished,) = of(run(tmp_path / "scan.svs", out=tmp_path / "out", region=region, formats=("csv",)), SlideFinished)
    inside = [centre for centre in disc_centres(image.shape[:2]).tolist() if region.contains_point(*centre)]
    assert finished.nuclei == len(inside)
    with (tmp_path / "out" / "scan.csv").open(newline="") as file:
        written = [(round(float(row["y_px"])), round(float(row["x_px"]))) for row in csv.DictReader(file)]
    assert len(written) == len(inside)
    assert all(min(abs(y - a) + abs(x - b) for a, b in inside) <= 2 for y, x in written)
    with Project.open(tmp_path / "out" / "scan.nucleiseg", writable=False) as project:
        assert project.count_in(Region(600, 0, 100, 900)) == 0


@pytest.mark.parametrize("region", [Region(700, 0, 64, 64), Region(0, 5000, 10, 10), Region(-64, -64, 64, 64)])
def test_a_region_beside_the_slide_is_refused_and_nothing_is_written(tmp_path, write_scan, region):
    write_scan(tmp_path / "scan.svs", disc_picture((700, 900)))
    (failed,) = of(run(tmp_path / "scan.svs", out=tmp_path / "out", region=region, formats=("tif",)), SlideFailed)
    place = f"{region.y},{region.x},{region.height},{region.width} (y, x, height, width)"
    assert f"is 700 pixels high and 900 wide; the region {place} lies beside that. Give one on" in failed.reason
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["segmented.jsonl"]


def test_a_region_beside_what_was_scanned_is_told_where_that_is(tmp_path, monkeypatch, write_scan):
    from napari_nucleiseg.core.batch import segmentation

    write_scan(tmp_path / "scan.svs", disc_picture((700, 900)))
    opened = segmentation.open_slide
    bounds = Region(400, 500, 64, 64)
    monkeypatch.setattr(segmentation, "open_slide", lambda *a, **k: replace(opened(*a, **k), bounds=bounds))
    region = Region(0, 0, 64, 64)
    (failed,) = of(run(tmp_path / "scan.svs", out=tmp_path / "out", region=region), SlideFailed)
    assert "of which 400,500,64,64 (y, x, height, width) are scanned; the region 0,0,64,64" in failed.reason


def test_the_plane_of_a_stack_that_was_chosen_is_said(tmp_path, picture):
    stack = np.stack([picture] * 3)
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "ZYXS"}, photometric="rgb")
    (noted,) = of(run(tmp_path / "a.ome.tif", out=tmp_path / "out"), SlideNoted)
    assert noted.sentence.startswith("This file is a stack of 3 focal planes; only number 2, the middle one, is used.")


def test_an_address_is_told_as_it_was_given(tmp_path):
    addresses = "https://example.org/a.zarr", "s3://bucket/b.svs"
    failed = of(run(*addresses, out=tmp_path / "out"), SlideFailed)
    assert [event.path for event in failed] == list(addresses)
    for event in failed:
        assert event.reason.startswith(f"{event.path} is an address, and remote stores are not supported yet; copy it")


def test_what_is_done_is_not_done_again_unless_the_settings_change(pictures, network, tmp_path):
    first = run(pictures, out=tmp_path / "out")
    forwards = network.log.tiles
    again = of(run(pictures, out=tmp_path / "out"), SlideFinished)
    assert network.log.tiles == forwards
    assert [event.from_before for event in again] == [True, True]
    assert [event.nuclei for event in again] == [event.nuclei for event in of(first, SlideFinished)]

    run(pictures, out=tmp_path / "out", threshold=0.7)
    assert network.log.tiles == 2 * forwards
    back = of(run(pictures, out=tmp_path / "out"), SlideFinished)
    assert [event.from_before for event in back] == [False, False]


def test_corrections_make_the_results_stale_and_looking_does_not(tmp_path, write_scan):
    write_scan(tmp_path / "scan.svs", disc_picture((400, 640)))
    out = tmp_path / "out"

    def is_done_before():
        (finished,) = of(run(tmp_path / "scan.svs", out=out, mpp_um=None, formats=("csv",)), SlideFinished)
        return finished.from_before

    assert [is_done_before(), is_done_before()] == [False, True]
    with Project.open(out / "scan.nucleiseg") as looked_at:
        ids = looked_at.nuclei_in(Region(0, 0, 400, 640)).ids
    assert is_done_before()
    with Project.open(out / "scan.nucleiseg") as edited:
        edited.editor.delete(ids[:3].tolist())
    assert [is_done_before(), is_done_before()] == [False, True]
    with (out / "scan.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(ids) - 3


def test_another_core_under_the_same_name_is_done_anew(tmp_path, network, picture):
    def write(left):
        core = np.full((400, 400, 3), 255, np.uint8)
        core[100:292, left : left + 256] = picture
        tifffile.imwrite(tmp_path / "core.tif", core, photometric="rgb", metadata=None)
        return of(run(tmp_path / "core.tif", out=tmp_path / "out"), SlideFinished)[0].from_before

    assert [write(100), write(100), write(120)] == [False, True, False]


def test_nuclei_under_brown_are_found_where_brown_is_ignored(tmp_path, picture):
    shape = picture.shape[:2]
    path = tmp_path / "brown.png"
    path.write_bytes(imagecodecs.png_encode(browned_discs(shape)))
    (seen,) = of(run(path, out=tmp_path / "out"), SlideFinished)
    (ignored,) = of(run(path, out=tmp_path / "out", ignore_brown=True), SlideFinished)
    assert not ignored.from_before
    assert ignored.nuclei == len(disc_centres(shape)) > seen.nuclei
    assert_holds_the_discs(tifffile.imread(ignored.outputs[0]), shape)


def test_a_brown_slide_is_told_of_unless_brown_is_ignored(tmp_path, write_scan, picture):
    scan = tmp_path / "brown.svs"
    write_scan(scan, browned_discs(picture.shape[:2]))
    notes = [event.sentence for event in of(run(scan, out=tmp_path / "out"), SlideNoted)]
    assert [note for note in notes if "--ignore-brown" in note] == [LOOKS_BROWN]
    notes = [event.sentence for event in of(run(scan, out=tmp_path / "out", ignore_brown=True), SlideNoted)]
    assert LOOKS_BROWN not in notes


def test_a_slide_that_fails_does_not_stop_the_others(pictures, tmp_path):
    (pictures / "aa.png").write_bytes((pictures / "a.png").read_bytes()[:2000])
    events = run(pictures, out=tmp_path / "out")
    (failed,) = of(events, SlideFailed)
    assert failed.path.endswith("aa.png")
    assert "damaged" in failed.reason
    assert failed.kind == "SlideError"
    assert len(of(events, SlideFinished)) == 2


def test_a_slide_without_a_pixel_size_says_what_to_give(pictures, tmp_path):
    failed = of(run(pictures, out=tmp_path / "out", mpp_um=None), SlideFailed)
    assert [event.kind for event in failed] == ["MissingPixelSizeError"] * 2
    assert "Give the micrometres per pixel (0.25 for most 40x scans, 0.5 for 20x)" in failed[0].reason


def test_a_cancelled_run_goes_on_where_it_was(tmp_path, network, write_scan):
    image = disc_picture((700, 900))
    write_scan(tmp_path / "scan.svs", image)
    out = tmp_path / "out"
    events = run(tmp_path / "scan.svs", out=out, cancelled=lambda: network.log.tiles >= 3)
    assert not of(events, SlideFinished)
    done_before = network.log.tiles
    (finished,) = of(run(tmp_path / "scan.svs", out=out), SlideFinished)
    assert finished.nuclei == len(disc_centres(image.shape[:2]))
    assert network.log.tiles - done_before < 12  # of 12 tiles in all


def test_a_renamed_slide_goes_on_with_its_project_and_a_copy_does_not(tmp_path, network, write_scan):
    write_scan(tmp_path / "scan.svs", disc_picture((400, 640)))
    out = tmp_path / "out"
    (first,) = of(run(tmp_path / "scan.svs", out=out), SlideFinished)
    done = network.log.tiles
    (tmp_path / "scan.svs").rename(tmp_path / "case 7.svs")
    (again,) = of(run(tmp_path / "case 7.svs", out=out), SlideFinished)
    assert (again.outputs, again.nuclei, network.log.tiles) == (first.outputs, first.nuclei, done)
    (tmp_path / "copy.svs").write_bytes((tmp_path / "case 7.svs").read_bytes())
    (copy,) = of(run(tmp_path / "copy.svs", out=out), SlideFinished)
    assert copy.outputs == (str(out / "copy.nucleiseg"),)


def write_rgb(path, picture):
    tifffile.imwrite(path, picture, photometric="rgb", metadata=None)
    return path


def test_a_picture_is_never_replaced_by_its_own_labels(tmp_path, picture, network):
    path = write_rgb(tmp_path / "a.tif", picture)
    before = path.read_bytes()
    for out in (tmp_path, tmp_path / "link"):
        if not out.exists():
            out.symlink_to(tmp_path, target_is_directory=True)
        for formats in ((), ("tif",), ("geojson", "tif")):
            (failed,) = of(run(path, out=out, formats=formats), SlideFailed)
            assert failed.reason.startswith(f"{path} would be replaced by its own results")
            assert "choose another folder for the results (--out)" in failed.reason
            assert failed.kind == "ExportError"
    assert network.log.tiles == 0
    assert path.read_bytes() == before
    assert not (tmp_path / "a.geojson").exists()
    (finished,) = of(run(path, out=tmp_path / "out"), SlideFinished)
    assert finished.nuclei == len(disc_centres(picture.shape[:2]))


@pytest.mark.parametrize(
    ("format_name", "ending"),
    [(name, ".tif" if name == "tif" else form.ending) for name, form in FORMATS.items()],
)
def test_what_is_no_result_of_ours_is_not_replaced_in_any_format(pictures, tmp_path, network, format_name, ending):
    stranger = tmp_path / "out" / f"a{ending}"
    stranger.parent.mkdir()
    if ending.endswith(".zarr"):
        zarr.create_group(str(stranger), attributes={"mine": 1})
    elif ending == ".tif":
        tifffile.imwrite(stranger, np.full((9, 9), 7, np.uint32))
    else:
        stranger.write_text("mine")
    file = stranger / "zarr.json" if stranger.is_dir() else stranger
    before = file.read_bytes()
    (failed,) = of(run(pictures / "a.png", out=tmp_path / "out", formats=(format_name,)), SlideFailed)
    assert failed.reason.startswith(f"{stranger} is there already and is no result of an earlier run")
    assert "choose another folder for the results (--out), or move that file away" in failed.reason
    assert network.log.tiles == 0
    assert file.read_bytes() == before


def test_a_picture_put_under_the_name_of_an_earlier_result_is_not_replaced(pictures, tmp_path, picture):
    run(pictures / "a.png", out=tmp_path / "out")
    write_rgb(tmp_path / "out" / "a.tif", picture)
    (failed,) = of(run(pictures / "a.png", out=tmp_path / "out", threshold=0.7), SlideFailed)
    assert "is no result of an earlier run" in failed.reason
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "a.tif"), picture)


@pytest.mark.parametrize("forgotten", [False, True])
def test_own_results_are_replaced_by_what_the_record_or_the_file_says(pictures, tmp_path, forgotten):
    formats = ("tif", "zarr", "zarr-0.4") + ("geojson", "csv", "coco") * (not forgotten)
    first = of(run(pictures, out=tmp_path / "out", formats=formats), SlideFinished)
    if forgotten:
        (tmp_path / "out" / "segmented.jsonl").unlink()
    again = of(run(pictures, out=tmp_path / "out", formats=formats, threshold=0.7), SlideFinished)
    assert [event.outputs for event in again] == [event.outputs for event in first]
    assert [event.from_before for event in again] == [False, False]


def test_label_images_of_earlier_versions_are_known_by_the_record(pictures, tmp_path):
    run(pictures / "a.png", out=tmp_path / "out")
    labels = tifffile.imread(tmp_path / "out" / "a.tif")
    tifffile.imwrite(tmp_path / "out" / "a.tif", labels, software="")
    assert of(run(pictures / "a.png", out=tmp_path / "out", threshold=0.7), SlideFinished)


@pytest.mark.parametrize(("form", "file"), [("zarr", "zarr.json"), ("zarr-0.4", ".zattrs")])
def test_stores_of_earlier_versions_are_known_by_the_record(pictures, tmp_path, form, file):
    run(pictures / "a.png", out=tmp_path / "out", formats=(form,))
    path = tmp_path / "out" / f"a{FORMATS[form].ending}" / file
    said = json.loads(path.read_text(encoding="utf-8"))
    del said.get("attributes", said)["software"]
    path.write_text(json.dumps(said), encoding="utf-8")
    assert of(run(pictures / "a.png", out=tmp_path / "out", formats=(form,), threshold=0.7), SlideFinished)
    assert "software" in path.read_text(encoding="utf-8")


def test_a_store_to_which_somebody_added_is_told_before_work_begins(pictures, tmp_path, network):
    store = tmp_path / "out" / f"a{FORMATS['spatialdata'].ending}"
    zarr.create_group(str(store), attributes={FACTS: {}}).create_group("tables/clusters")
    Record(tmp_path / "out").begin([store.name])
    (failed,) = of(run(pictures / "a.png", out=tmp_path / "out", formats=("spatialdata",)), SlideFailed)
    assert "is no unchanged export of this kind, so it is not replaced" in failed.reason
    assert network.log.tiles == 0
    assert (store / "tables" / "clusters").is_dir()


def test_results_of_a_run_that_was_cut_off_are_replaced_by_the_next(pictures, tmp_path, monkeypatch):
    from napari_nucleiseg.core.batch import segmentation

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(segmentation.Record, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            run(pictures / "a.png", out=tmp_path / "out", formats=("csv",))
    assert (tmp_path / "out" / "a.csv").exists()
    assert of(run(pictures / "a.png", out=tmp_path / "out", formats=("csv",)), SlideFinished)


@pytest.mark.parametrize("format_name", ["tif", "zarr", "csv"])
def test_a_folder_that_holds_its_own_results_is_done_already(pictures, network, format_name):
    first = of(run(pictures, out=pictures, formats=(format_name,)), SlideFinished)
    forwards = network.log.tiles
    events = run(pictures, out=pictures, formats=(format_name,))
    assert not of(events, SlideFailed)
    again = of(events, SlideFinished)
    assert [(event.outputs, event.from_before) for event in again] == [(event.outputs, True) for event in first]
    assert network.log.tiles == forwards


def test_empty_and_damaged_slides_of_a_folder_fail_as_if_they_were_named(pictures, tmp_path):
    (pictures / "slide17.svs").touch()
    (pictures / "text.svs").write_text("not a slide")
    events = run(pictures, out=tmp_path / "out")
    assert len(of(events, SlideFinished)) == 2
    named = run(pictures / "slide17.svs", pictures / "text.svs", out=tmp_path / "out")
    assert of(events, SlideFailed) == of(named, SlideFailed)
    assert ["is no slide or picture" in event.reason for event in of(events, SlideFailed)] == [True, True]


def test_a_full_disk_ends_the_run(pictures, monkeypatch, tmp_path):
    from napari_nucleiseg.core.batch import segmentation

    def no_room(*_args, **_kwargs):
        raise StoreError("the disk is full")

    monkeypatch.setattr(segmentation, "write_results", no_room)
    assert len(of(run(pictures, out=tmp_path / "out"), SlideFailed)) == 2
    monkeypatch.setattr(segmentation, "FULL_DISK_BYTES", 2**80)
    with pytest.raises(StoreError, match="the disk is full"):
        run(pictures, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"formats": ("bmp",)}, "there is no format bmp; choose from zarr, zarr-0.4, tif, geojson, csv"),
        ({"region": Region(0, 0, 0, 9)}, "the region is empty"),
        ({"batch_size": 0}, "at least 1"),
        ({"threshold": 1.5}, "must lie between 0 and 1"),
        ({"min_area_um2": -1.0}, "cannot be negative"),
        ({"min_area_um2": float("nan")}, "cannot be negative and must be a finite number"),
        ({"min_area_um2": float("inf")}, "cannot be negative and must be a finite number"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_before_anything_is_written(pictures, tmp_path, changes, sentence):
    with pytest.raises(ModelError, match=sentence):
        run(pictures, out=tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_no_slide_at_all_is_refused(tmp_path):
    with pytest.raises(ModelError, match="name at least one slide"):
        run(out=tmp_path / "out")
