"""A head is taught without a window: what is missing, a lesson that is adopted or refused, stopped, and gone back."""

import threading

import numpy as np
import pytest

from heads_parts import write_discs
from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.encoders import encoder_files, load_encoder
from napari_nucleiseg.core.store.attention import DO_NOT_LOOK, LOOK_HERE, paint_attention
from napari_nucleiseg.core.teaching.heads.measure import Drift, HeadGain, HeadScores
from napari_nucleiseg.core.teaching.heads.teach import HeadStep
from napari_nucleiseg.core.teaching.heads.verdict import HeadOutcome
from napari_nucleiseg.state import REGION_LEVEL
from napari_nucleiseg.viewer.heads_teaching import LOOK_FIRST, ONE_HEAD, PATCHES_ONLY
from napari_nucleiseg.viewer.segmentation import open_project
from taught_parts import Lesson, outcome_of


@pytest.fixture
def taught(seen):
    """What was looked at, with what the lessons have said."""
    seen.teaching, seen.steps, seen.ends, seen.runs = seen.parts.teaching, [], [], []
    seen.teaching.stepped.connect(seen.steps.append)
    seen.teaching.ended.connect(seen.ends.append)
    seen.teaching.running_changed.connect(seen.runs.append)
    return seen


def test_what_is_missing_is_a_sentence(taught):
    taught.teaching.teach()
    taught.settle()
    assert taught.said[-1].startswith("Nothing is painted")
    assert taught.runs == [True, False]
    assert taught.ends == [None]
    taught.wishes.head = "mean"
    taught.teaching.teach()
    assert taught.said[-1] == ONE_HEAD
    taught.wishes.region_encoder = "tiny-region"
    taught.settle()
    taught.wishes.level = REGION_LEVEL
    taught.teaching.teach()
    assert taught.said[-1] == PATCHES_ONLY
    taught.viewer.layers.clear()
    taught.settle()
    taught.teaching.teach()
    assert taught.said[-1] == LOOK_FIRST
    assert taught.runs == [True, False]


def test_what_is_painted_on_all_open_slides_is_learnt_from(taught, tmp_path):
    """The real lesson, which is too small to be judged: it is refused, and kept apart."""
    other = taught.open(write_discs(tmp_path / "other.tif"))
    for one in taught.controller.display.shelf.opened:
        project = open_project(one, taught.controller._engine, "", create=True)
        for kind, x in ((LOOK_HERE, 0), (DO_NOT_LOOK, 128)):
            paint_attention(project, Region(0, x, 64, 64), np.full((64, 64), kind, np.uint8))
    assert taught.controller.display.shelf.now is other
    heads = []
    real = taught.engine.teach

    def teach(slides, name, **options):
        heads.append((len(slides), name, options["layer"], options["head"]))
        yield from real(slides, name, **options)

    taught.engine.teach = teach
    taught.wishes.head = "1"
    taught.teaching.teach()
    taught.settle()
    assert heads == [(2, "tiny", -1, 1)]
    (ended,) = taught.ends
    assert taught.steps, taught.said
    assert not ended.outcome.adopted
    assert ended.outcome.patches == 4
    assert taught.wishes.encoder == "tiny"
    assert ended.version.path.parent.name == "refused"


def test_a_lesson_that_is_adopted_is_used_at_once_and_one_can_go_back(taught, computed):
    taught.engine.lesson = Lesson(adopted=True)
    taught.wishes.head, taught.wishes.layer = "2", 0
    taught.settle()
    taught.teaching.teach()
    taught.settle()
    assert [step.step for step in taught.steps] == [0, 1, 2]
    assert taught.wishes.encoder == "tiny-2"
    assert taught.teaching.former == "tiny"
    assert taught.heads.looks.looking.encoder.card.name == "tiny-2"
    assert (taught.wishes.head, taught.wishes.layer) == ("2", 0)
    before = sum(computed)
    taught.teaching.go_back()
    taught.settle()
    assert taught.wishes.encoder == "tiny"
    assert taught.heads.looks.looking.encoder.card.name == "tiny"
    assert sum(computed) == before
    assert taught.teaching.former == ""
    assert "tiny-2" in encoder_files()  # nothing is thrown away


def test_one_that_is_refused_is_used_if_somebody_wants_it(taught):
    taught.engine.lesson = Lesson(adopted=False)
    taught.teaching.teach()
    taught.settle()
    assert taught.wishes.encoder == "tiny"
    assert "tiny-2" not in encoder_files()
    changes = []
    taught.teaching.used_changed.connect(lambda _name: changes.append(taught.teaching.can_take))
    assert taught.teaching.can_take
    taught.teaching.take()
    taught.settle()
    assert taught.wishes.encoder == "tiny-2"
    assert taught.teaching.former == "tiny"
    # Whoever shows it is told: it can be taken but once, and one can go back.
    assert changes == [False]
    taught.teaching.take()
    taught.settle()
    assert not any("not refused" in text or "none is ever" in text for text in taught.said)
    assert load_encoder("tiny-2").card.name == "tiny-2"


def test_stopped_nothing_is_kept_and_another_lesson_can_begin(taught):
    taught.engine.lesson = Lesson(adopted=True)
    taught.engine.lesson.gate = threading.Event()
    taught.teaching.teach()
    taught.pump.run_until(lambda: taught.steps)
    assert taught.teaching.is_running
    taught.teaching.teach()  # one at a time
    taught.teaching.stop()
    assert taught.runs == [True, False]
    assert taught.ends == [None]
    assert taught.said[-1].startswith("Stopped")
    taught.engine.lesson.gate.set()
    taught.settle()
    assert taught.engine.lesson.begun == 1
    assert taught.engine.lesson.closed
    assert "tiny-2" not in encoder_files()
    taught.teaching.teach()
    taught.settle()
    assert taught.wishes.encoder == "tiny-2"


def test_stopped_while_it_is_judged_nothing_is_kept(taught):
    begun, gate = threading.Event(), threading.Event()

    class Judged(Lesson):
        def __call__(self, name, **options):
            for step in super().__call__(name, **options):
                if step.outcome is not None:
                    begun.set()
                    gate.wait(30)
                yield step

    taught.engine.lesson = Judged(adopted=True)
    taught.teaching.teach()
    assert begun.wait(30)
    taught.teaching.stop()
    gate.set()
    taught.settle()
    assert "tiny-2" not in encoder_files()


def test_what_fails_after_it_was_stopped_leaves_the_next_lesson_alone(taught):
    begun, gate, next_lesson = threading.Event(), threading.Event(), Lesson(adopted=True)
    next_lesson.gate = threading.Event()

    def fails(_name, **_options):
        yield HeadStep("", 0, 1)
        begun.set()
        gate.wait(30)
        raise TeachingError("too little is painted")

    taught.engine.lesson = fails
    taught.teaching.teach()
    assert begun.wait(30)
    taught.teaching.stop()
    taught.engine.lesson = next_lesson
    taught.teaching.teach()
    gate.set()
    taught.pump.run_until(lambda: "Too little is painted." in taught.said)
    assert taught.runs == [True, False, True]
    next_lesson.gate.set()
    taught.settle()
    assert taught.runs == [True, False, True, False]
    assert [one is None for one in taught.ends] == [True, False]


def test_what_fails_is_said_and_nothing_runs_any_more(taught):
    def fails(_name, **_options):
        yield HeadStep("", 0, 1)
        raise TeachingError("too little is painted")

    taught.engine.lesson = fails
    taught.teaching.teach()
    taught.settle()
    assert taught.said[-1] == "Too little is painted."
    assert taught.runs == [True, False]
    assert taught.ends == [None]
    assert not taught.teaching.is_running


def test_closed_or_without_its_slide_in_the_middle_it_ends(taught):
    taught.engine.lesson = Lesson(adopted=True)
    taught.engine.lesson.gate = threading.Event()
    taught.teaching.teach()
    taught.pump.run_until(lambda: taught.steps)
    taught.viewer.layers.remove(taught.controller.display.shelf.now.layer)
    taught.parts.close()
    taught.engine.lesson.gate.set()
    taught.settle()
    assert taught.engine.lesson.closed
    assert len(taught.viewer.layers) == 0
    assert "tiny-2" not in encoder_files()


def test_an_outcome_of_a_lesson_is_what_the_guard_would_give():
    """The lessons of these tests are made up; what they say has the fields of a real one."""
    outcome = outcome_of(adopted=True, encoder=None)
    assert isinstance(outcome, HeadOutcome)
    assert isinstance(outcome.before, HeadScores)
    assert isinstance(outcome.gain, HeadGain)
    assert isinstance(outcome.drift, Drift)
