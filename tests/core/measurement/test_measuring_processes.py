"""A process that is killed while it measures leaves whole files; two of them share the work."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from measured_parts import blobs, tile_of_labels

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.measurement.columns import NAMES
from napari_nucleiseg.core.measurement.kept import FOLDER, KeptMeasures
from napari_nucleiseg.core.measurement.measure import measure
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project, default_folder

SIDE = 40


@pytest.fixture
def slide_path(tmp_path):
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(2).integers(0, 256, (600, 700, 3)).astype(np.uint8)
    tifffile.imwrite(
        path, pixels, photometric="rgb", tile=(64, 64), resolution=(40_000, 40_000), resolutionunit="CENTIMETER"
    )
    with Project.create(default_folder(path), open_slide(str(path))) as project:
        project.write_tile(tile_of_labels(blobs((600, 700), 600), YX(0.25, 0.25)), "nuclei@1", "")
    return path


def process(path):
    script = Path(__file__).with_name("measuring_process.py")
    words = [sys.executable, str(script), str(default_folder(path)), str(path), str(SIDE)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def assert_whole(path, monkeypatch):
    """All that is kept is what would be measured now."""
    monkeypatch.setattr("napari_nucleiseg.core.measurement.grid.BLOCK_PX", SIDE)
    slide = open_slide(str(path))
    with Project.open(default_folder(path), slide, writable=False) as project:
        kept = 0
        for block in measure(project, slide, keep=False):
            found = KeptMeasures(project).of(block.table)
            if np.isfinite(found["perimeter_um"]).any():
                kept += 1
                for name in NAMES:
                    np.testing.assert_array_equal(found[name], block.values[name])
        assert len(list((project.folder / FOLDER).glob("*.bin"))) == kept
        return kept, block.total


def test_a_killed_process_leaves_whole_files(slide_path, monkeypatch):
    with process(slide_path) as measuring:
        for _ in range(20):
            assert measuring.stdout.readline().strip() != ""
        measuring.kill()
    kept, total = assert_whole(slide_path, monkeypatch)
    assert 20 <= kept <= total


def test_two_processes_measure_one_project(slide_path, monkeypatch):
    with process(slide_path) as one, process(slide_path) as other:
        assert [running.communicate(timeout=120)[0].splitlines()[-1] for running in (one, other)] == ["done", "done"]
    kept, total = assert_whole(slide_path, monkeypatch)
    assert kept == total > 100
    assert not list((default_folder(slide_path) / FOLDER).glob("*.part"))
