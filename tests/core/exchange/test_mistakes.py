"""The file of mistakes is never written over the slide, the reference or a project, whoever asks for it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.evaluation.kinds import Kind
from napari_nucleiseg.core.exchange.mistakes import write_mistakes
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project, default_folder


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("s.tif", "s.tif is the slide itself"),
        ("s.nucleiseg/project.sqlite", "lies in the folder of a project"),
        ("right.geojson", "right.geojson is what is read here"),
    ],
)
def test_mistakes_are_not_written_over_what_was_judged(tmp_path, name, sentence):
    path = tmp_path / "s.tif"
    size = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", **size)
    with Project.create(default_folder(path), open_slide(path)) as project:
        reference = SimpleNamespace(path=tmp_path / "right.geojson")
        reference.path.write_text("{}")
        before = path.read_bytes()
        with pytest.raises(ExportError, match=sentence):
            write_mistakes(project, reference, None, tmp_path / name)  # refused before anything is looked at
    assert path.read_bytes() == before
    assert reference.path.read_text() == "{}"


def test_mistakes_lie_where_qupath_shows_them(tmp_path):
    white = np.broadcast_to(np.uint8(255), (60, 80, 3))
    projects = []
    # The reference was made without the slide, and does not know where its pixels begin.
    for name, bounds in (("found", Region(10, 20, 40, 40)), ("right", None)):
        slide = Slide("s.mrxs", (white,), (YX(1, 1),), YX(0.5, 0.5), bounds=bounds, fingerprint="f")
        project = Project.create(tmp_path / f"{name}.nucleiseg", slide)
        project.editor.paint(Region(30, 50, 6, 6), np.full((6, 6), 1, np.uint32))
        project.flush()
        projects.append(project)
    found, right = projects
    judged = {
        side: SimpleNamespace(ids=np.array([1], np.uint32), kinds=np.array([kind], np.uint8))
        for side, kind in (("pred", Kind.ADDED), ("truth", Kind.MISSED))
    }
    reference = SimpleNamespace(path=tmp_path / "right", project=right)
    assert write_mistakes(found, reference, SimpleNamespace(**judged), tmp_path / "m.geojson") == 2
    document = json.loads((tmp_path / "m.geojson").read_text(encoding="utf-8"))
    assert document["napari-nucleiseg"] == {"origin": [20, 10]}
    for feature in document["features"]:
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert (ring.min(0).tolist(), ring.max(0).tolist()) == ([30, 20], [36, 26])
    for project in projects:
        project.close()
