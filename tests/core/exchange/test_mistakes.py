"""The file of mistakes is never written over the slide, the reference or a project, whoever asks for it."""

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.mistakes import write_mistakes
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
