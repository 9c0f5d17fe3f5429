"""What the window segments with a model of attention: the level of the slide, found once, beside the window."""

from types import SimpleNamespace

import numpy as np
import pytest

from dark_attention import dark_attention, keep
from napari_nucleiseg.core.batch.job import SegmentJob
from napari_nucleiseg.core.batch.segmentation import segment_slides
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.segment import segment
from napari_nucleiseg.core.models.scale_attention import with_tau
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.training.scales.slide_level import OWN_LEVEL, Windows, model_for_slide
from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.levels import LOOKING
from napari_nucleiseg.viewer.messages import Progress
from napari_nucleiseg.viewer.opened import OpenedSlide
from napari_nucleiseg.viewer.segmentation import Planned, Told, run, wish_of
from unlabelled_parts import FolderEngine, tissue_picture, write_slide

# All that the slide of these tests has.
PLACES = 9


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_: str(tmp_path / "data"))


@pytest.fixture
def model():
    made = dark_attention()
    keep(made)
    return made


@pytest.fixture
def path(tmp_path):
    return write_slide(tmp_path / "a.tif", tissue_picture(1, 768))


@pytest.fixture
def engine(tmp_path):
    return FolderEngine(tmp_path / "window")


@pytest.fixture
def opened(path):
    made = OpenedSlide(open_slide(path), SimpleNamespace())
    yield made
    made.close()
    made.slide.close()


@pytest.fixture
def reads(monkeypatch):
    """Numbers of the windows that were read."""
    found, read = [], Windows.read

    def counted(windows, slide, number):
        found.append(number)
        return read(windows, slide, number)

    monkeypatch.setattr(Windows, "read", counted)
    return found


def wish(opened, region=None, **wishes):
    session = Session(model="look", threshold=0.5, min_area_um2=8.0, device="cpu", **wishes)
    return wish_of(session, opened, region)


def steps_of(opened, engine, region=None, **wishes):
    return list(run(wish(opened, region, **wishes), engine, lambda: False))


def version_in(steps):
    (planned,) = [step for step in steps if isinstance(step, Planned)]
    return planned.model.version


def nuclei_of(project, slide):
    table = project.nuclei_in(slide.region)
    return list(zip(table.ids.tolist(), table.centroids.tolist(), table.areas_um2.tolist(), strict=True))


def drained(generator):
    """What a generator yields, and what it returns."""
    returned = []

    def whole():
        returned.append((yield from generator))

    return list(whole()), returned[0]


def test_window_command_and_script_find_the_same_nuclei_under_the_same_version(model, path, opened, engine, tmp_path):
    version = version_in(steps_of(opened, engine))
    seen = nuclei_of(opened.project, opened.slide)
    assert len(seen) > 20
    job = SegmentJob((str(path),), str(tmp_path / "out"), formats=("csv",), model="look", device="cpu")
    assert list(segment_slides(job))[-1].nuclei == len(seen)
    with Project.open(tmp_path / "out" / "a.nucleiseg", writable=False) as project:
        assert [row[0] for row in project.ledger.reader.execute("SELECT model_version FROM runs")] == [version]
        assert nuclei_of(project, opened.slide) == seen
    fitting = model_for_slide(model, opened.slide)
    assert fitting.version == version
    plan = plan_inference(opened.slide, fitting.spec)
    with Project.create(tmp_path / "script.nucleiseg", opened.slide) as project:
        list(segment(opened.slide, fitting, project, plan, device="cpu"))
        assert nuclei_of(project, opened.slide) == seen


def test_the_models_own_level_is_used_where_that_is_wished(model, opened, engine, reads):
    assert version_in(steps_of(opened, engine, attention_level="model")) == model.version
    assert reads == []
    assert nuclei_of(opened.project, opened.slide) == []


def test_a_level_that_was_set_is_kept(model, opened, engine, reads):
    explicit = with_tau(model, 3.2)
    keep(explicit)
    assert version_in(steps_of(opened, engine)) == explicit.version
    assert reads == []


def test_it_is_told_how_far_it_is_and_found_once_a_slide(model, opened, engine, reads):
    steps = steps_of(opened, engine, Region(0, 0, 300, 300))
    told = [step for step in steps if isinstance(step, Progress)]
    assert told == [Progress(LOOKING, done, PLACES) for done in range(PLACES)]
    assert len(reads) == PLACES
    again = steps_of(opened, engine, Region(300, 300, 300, 300))
    assert not any(isinstance(step, Progress) for step in again)
    assert len(reads) == PLACES
    # The very same network: its copy on the device is there already.
    first, second = ([step.model for step in some if isinstance(step, Planned)] for some in (steps, again))
    assert first[0] is second[0]
    thorough = steps_of(opened, engine, thorough=True)
    assert version_in(thorough) == f"{version_in(again)}+turned"
    assert len(reads) == PLACES


def test_stopped_by_a_move_of_the_view_it_goes_on_where_it_was(model, opened, engine, reads):
    begun = run(wish(opened), engine, lambda: False)
    assert next(begun) == Progress(LOOKING, 0, PLACES)
    assert next(begun) == Progress(LOOKING, 1, PLACES)
    begun.close()
    assert opened.project is None
    steps_of(opened, engine)
    assert reads == list(range(PLACES))


def test_after_a_restart_the_results_say_the_level(model, opened, engine, reads, path, tmp_path):
    version = version_in(steps_of(opened, engine, Region(0, 0, 300, 300)))
    opened.close()
    reads.clear()
    later = OpenedSlide(open_slide(path), SimpleNamespace())
    assert version_in(steps_of(later, FolderEngine(tmp_path / "window"))) == version
    assert reads == []
    later.close()
    later.slide.close()


def test_without_tissue_it_is_the_models_own_and_said_after_the_plan(model, engine, tmp_path):

    glass = np.full((400, 400, 3), 244, np.uint8)
    opened = OpenedSlide(open_slide(write_slide(tmp_path / "glass.tif", glass)), SimpleNamespace())
    steps = steps_of(opened, engine, tissue_only=False)
    assert version_in(steps) == model.version
    kinds = [type(step) for step in steps]
    assert kinds.index(Told) > kinds.index(Planned)
    assert [step.sentence for step in steps if isinstance(step, Told)] == [OWN_LEVEL]
    opened.close()
    opened.slide.close()


def test_another_level_is_another_wish(opened):
    assert wish(opened).is_like(wish(opened, Region(0, 0, 9, 9)))
    assert not wish(opened).is_like(wish(opened, attention_level="model"))


def test_it_is_taught_at_the_mean_level_of_the_slides(model, opened, engine, tmp_path):
    darker = (tissue_picture(2, 512) * 0.8).astype("uint8")
    other = OpenedSlide(open_slide(write_slide(tmp_path / "b.tif", darker)), SimpleNamespace())
    taus = [float(model_for_slide(model, one.slide).network.tau) for one in (opened, other)]
    assert abs(taus[0] - taus[1]) > 0.1
    told, found = drained(engine.levels.model_for_all(engine.load("look"), [opened, other], "slide"))
    assert {one.title for one in told} == {LOOKING}
    assert float(found.network.tau) == pytest.approx(sum(taus) / 2, abs=0.0011)
    other.slide.close()
