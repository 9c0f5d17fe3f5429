"""Slides described by encoders within a batch: each has a file of its own, whatever the slides' files are called."""

import pytest

from napari_nucleiseg.core.batch.job import SlideFailed
from napari_nucleiseg.core.batch.unattended.job import SlideDone
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.cohort.bags import ENDING, read_bag_card
from tiny_encoders import write_encoders

pytestmark = pytest.mark.usefixtures("dark")
NAMES = ("A-001", "B-001")


@pytest.fixture
def slides(write_slide, tmp_path):
    """Two slides of one file name, and of different sizes."""
    paths = []
    for folder, shape in (("hospA", (200, 300)), ("hospB", (200, 400))):
        (tmp_path / "slides" / folder).mkdir(parents=True)
        paths.append(write_slide(f"{folder}/001.svs", shape))
    return paths


@pytest.fixture
def job(slides, job_for, tmp_path):
    """Describe both by patches, under the names that a manifest gives them."""
    rows = [f"{path},{name}\n" for path, name in zip(slides, NAMES, strict=True)]
    (tmp_path / "m.csv").write_text("".join(("path,name\n", *rows)))
    patches, _ = write_encoders(tmp_path / "encoders")
    return job_for(tmp_path / "m.csv", encoder=str(patches), tissue_mask=False)


def test_slides_of_one_file_name_have_files_of_features_by_the_names_of_their_results(slides, job, run_here, tmp_path):
    events = run_here(job)
    assert [event for event in events if isinstance(event, SlideFailed)] == []
    done = [event for event in events if isinstance(event, SlideDone)]
    folder = tmp_path / "out" / "features"
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}{ENDING}" for name in NAMES]
    for path, name in zip(slides, NAMES, strict=True):
        output = folder / f"{name}{ENDING}"
        (own,) = (event for event in done if event.path == str(path))
        assert str(output) in own.outputs
        assert read_bag_card(output).fingerprint == open_slide(path).fingerprint
    assert [event.from_before for event in run_here(job) if isinstance(event, SlideDone)] == [True, True]
