"""A run with a model of attention uses the level of each slide, also when it goes on, and says where it cannot."""

import numpy as np
import pytest
import tifffile

from dark_attention import dark_attention, keep
from napari_nucleiseg.core.batch.job import SegmentJob, SlideAdvanced, SlideFinished, SlideNoted
from napari_nucleiseg.core.batch.segmentation import segment_slides
from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.scale_attention import with_tau
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.training.scales import slide_level
from napari_nucleiseg.core.training.scales.slide_level import OWN_LEVEL, model_for_slide
from unlabelled_parts import tissue_picture, write_slide


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_: str(tmp_path / "data"))


@pytest.fixture
def model():
    """At hand, and the published network, whose tiles are smaller."""
    made = dark_attention(network="scale-attention")
    keep(made)
    return made


@pytest.fixture
def picture(tmp_path):
    return write_slide(tmp_path / "a.tif", tissue_picture(1))


@pytest.fixture
def scan(tmp_path):
    """A scan of two by two tiles."""
    path = tmp_path / "scan.svs"
    facts = "Aperio Image Library v1\r\n1000x1000 |AppMag = 40|MPP = 0.25"
    image = tissue_picture(2, 1000)
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", description=facts, metadata=None)
    return path


def run(path, out, cancelled=lambda: False, **changes):
    job = SegmentJob((str(path),), str(out), model="look", device="cpu", **changes)
    return list(segment_slides(job, cancelled=cancelled))


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def stages(events):
    return {event.stage for event in of(events, SlideAdvanced)}


def versions(folder):
    with Project.open(folder, writable=False) as project:
        return [row[0] for row in project.ledger.reader.execute("SELECT model_version FROM runs")]


def test_a_picture_is_segmented_at_its_level_or_at_the_models_own(picture, model, tmp_path):
    events = run(picture, tmp_path / "out")
    assert of(events, SlideFinished)[0].nuclei > 20
    assert "finding the level" in stages(events)
    own = run(picture, tmp_path / "own", attention_level="model")
    assert of(own, SlideFinished)[0].nuclei == 0
    assert "finding the level" not in stages(own)


def test_a_level_that_was_set_is_kept(picture, model, tmp_path):
    keep(with_tau(model, 3.2))
    events = run(picture, tmp_path / "out")
    assert "finding the level" not in stages(events)
    assert of(events, SlideFinished)[0].nuclei > 20


def test_a_project_names_the_level_and_what_is_done_is_not_looked_at_again(scan, model, tmp_path):
    out = tmp_path / "out"
    (finished,) = of(run(scan, out), SlideFinished)
    wanted = model_for_slide(model, open_slide(scan)).version
    assert versions(out / "scan.nucleiseg") == [wanted]
    again = run(scan, out)
    assert of(again, SlideFinished)[0].from_before
    assert stages(again) == set()
    thorough = run(scan, out, thorough=True)
    assert "finding the level" not in stages(thorough)
    assert versions(out / "scan.nucleiseg") == [wanted, f"{wanted}+turned"]
    assert finished.nuclei > 40


def test_stopped_it_goes_on_at_the_very_level_it_began_with(scan, model, tmp_path, monkeypatch):
    out, seen = tmp_path / "out", []
    whole = run(scan, tmp_path / "whole")
    job = SegmentJob((str(scan),), str(out), model="look", device="cpu")
    for event in segment_slides(job, cancelled=lambda: bool(seen)):
        seen.extend([event] if isinstance(event, SlideAdvanced) and event.stage == "segmenting" else [])
    assert seen[-1].done < seen[-1].total
    (began_with,) = versions(out / "scan.nucleiseg")
    # Another processor, another rounding.
    monkeypatch.setattr(slide_level, "otsu_level", lambda _values: 3.999)
    events = run(scan, out)
    assert "finding the level" not in stages(events)
    assert versions(out / "scan.nucleiseg") == [began_with]
    assert of(events, SlideFinished)[0].nuclei == of(whole, SlideFinished)[0].nuclei


def test_it_can_be_stopped_while_it_looks(scan, model, tmp_path):
    out, seen = tmp_path / "out", []
    job = SegmentJob((str(scan),), str(out), model="look", device="cpu")
    for event in segment_slides(job, cancelled=lambda: len(seen) > 1):
        seen.extend([event] if isinstance(event, SlideAdvanced) else [])
    assert {event.stage for event in seen} == {"finding the level"}
    assert versions(out / "scan.nucleiseg") == []


def test_a_slide_without_tissue_is_told(model, tmp_path):
    glass = write_slide(tmp_path / "glass.tif", np.full((400, 400, 3), 244, np.uint8))
    events = run(glass, tmp_path / "out")
    assert [event.sentence for event in of(events, SlideNoted)] == [OWN_LEVEL]
    assert of(events, SlideFinished)[0].nuclei == 0


def test_a_level_that_there_is_not_is_refused(picture, model, tmp_path):
    with pytest.raises(ModelError, match="no level of attention otsu; choose from slide, model"):
        run(picture, tmp_path / "out", attention_level="otsu")
