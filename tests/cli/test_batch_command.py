import json

import numpy as np
import pytest
import tifffile
from skimage import data

from napari_nucleiseg.cli import main
from napari_nucleiseg.cli.batch import job_of


@pytest.fixture
def slides(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    tissue = np.ascontiguousarray(data.immunohistochemistry())
    facts = "Aperio Image Library v1\r\n512x512 |AppMag = 20|MPP = 0.5"
    tifffile.imwrite(folder / "a.svs", tissue, tile=(256, 256), photometric="rgb", description=facts, metadata=None)
    (folder / "b.svs").write_bytes(b"II*\0 no slide at all")
    return folder


def test_a_cohort_with_processes_prints_its_result_and_says_what_failed(slides, tmp_path, capsys):
    words = ["batch", str(slides), "--out", str(tmp_path / "out"), "--format", "csv", "--workers", "1", "--json"]
    assert main([*words, "--device", "cpu"]) == 3
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["done"], found["failed"]) == (1, 1)
    assert found["nuclei"] > 100
    (failure,) = [line for line in captured.err.splitlines() if line.startswith("Error: ")]
    assert failure.count("b.svs") == 1
    header, *rows = (tmp_path / "out" / "a.csv").read_text().splitlines()
    assert "solidity" in header
    assert len(rows) == found["nuclei"]
    assert (tmp_path / "out" / "summary.html").exists()
    assert main([*words, "--device", "cpu"]) == 3
    again = json.loads(capsys.readouterr().out)
    assert [slide.get("done before") for slide in again["slides"] if "nuclei" in slide] == [True]


def test_nothing_done_is_a_failure(slides, tmp_path):
    assert main(["batch", str(slides / "b.svs"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 1


def test_a_slide_that_its_labels_would_replace_is_told_and_kept(tmp_path, capsys):
    path = tmp_path / "x.ome.tif"
    tifffile.imwrite(path, np.ascontiguousarray(data.immunohistochemistry()), photometric="rgb", metadata=None)
    before = path.read_bytes()
    words = ["batch", str(path), "--out", str(tmp_path), "--format", "tif", "--no-measure", "--mpp", ".25"]
    assert main([*words, "--workers", "1", "--device", "cpu"]) == 1
    assert f"Error: {path} would be replaced by its own results" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_scheduler_means_dask(monkeypatch):
    from napari_nucleiseg.cli import batch

    seen = []
    monkeypatch.setattr(batch, "run", lambda options, _: seen.append(job_of(options)) or 0)
    main(["batch", "a", "b.csv", "--out", "c", "--scheduler", "tcp://x:1", "--no-measure", "--format", "csv"])
    main(["batch", "a", "--out", "c", "--devices", "cuda:0", "cuda:1"])
    far, near = seen
    assert (far.engine, far.scheduler, far.paths, far.measure, far.formats) == (
        "dask", "tcp://x:1", ("a", "b.csv"), False, ("csv",),
    )  # fmt: skip
    assert (near.engine, near.devices, near.formats) == ("local", ("cuda:0", "cuda:1"), ("parquet",))


def test_a_job_without_sense_is_told(slides, tmp_path, capsys):
    assert main(["batch", str(slides), "--out", str(tmp_path), "--engine", "local", "--scheduler", "tcp://x:1"]) == 1
    assert "for the engine dask" in capsys.readouterr().err
