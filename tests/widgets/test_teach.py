"""Teaching in the window: advice, the button, the curve, the verdict, and that closing asks."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QMessageBox

from dark_model import CARD, SPEC, DarkEngine, disc_picture
from gui_parts import WAIT_MS, click, open_and_settle, until_idle
from napari_nucleiseg.core.errors import DoubtfulLabelsError, TeachingError, WeightsError
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.store.regions import AnnotatedRegion
from napari_nucleiseg.core.teaching.agreement import Agreement, Gain
from napari_nucleiseg.core.teaching.examiner import Preview
from napari_nucleiseg.core.teaching.examples import Example
from napari_nucleiseg.core.teaching.finetune import Step
from napari_nucleiseg.core.teaching.verdict import Outcome
from napari_nucleiseg.core.teaching.versions import REFUSED, TAUGHT, Version
from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.controller import Controller
from napari_nucleiseg.widgets.curve import CurveView
from napari_nucleiseg.widgets.teach import SEEN_PX, picture_of

NEW = replace(CARD, name="nuclei-2", title="Nuclei, taught", parent=CARD.version, sha256="f" * 64)
STEPS = 6


def agreement(found):
    return Agreement(np.array([[found * 100, 100, found * 10, 10, 4.0]]), 40, 1)


class TeachingEngine(DarkEngine):
    """Teaches as it is told by the test: nothing is learnt, everything is said."""

    def __init__(self, folder):
        super().__init__(folder)
        self.adopted = True
        self.error = None
        self.gate = threading.Event()
        self.gate.set()
        self.trusted, self.ignoring = [], []
        self.lessons = []
        self.taken = []
        self.made = False

    def models(self):
        return (*super().models(), *((NEW,) if self.made else ()))

    def load(self, name):
        return LoadedModel(SPEC, NEW, self.network) if name == NEW.name else super().load(name)

    def finetune(self, model, lesson, *, device, trust, ignore_brown=False):
        self.lessons.append(lesson)
        self.trusted.append(trust)
        self.ignoring.append(ignore_brown)
        if self.error is not None and not trust:
            raise self.error
        before = agreement(0.5)
        picture = disc_picture((96, 96))
        labels = np.zeros((96, 96), np.int32)
        labels[20:40, 20:40] = 1
        one = Example("discs", "print", "Region 3", 3, "hold out", picture, labels, 0.5)
        yield Step("", 0, STEPS, measured=before, note="Judged on one region that you held out (40 nuclei).")
        for step in range(1, STEPS + 1):
            assert self.gate.wait(60)
            due = step % 3 == 0
            yield Step(
                "with your regions", step, STEPS, loss=1 / step,
                measured=agreement(0.5 + step / 60) if due else None, former=before.choice if due else None,
                preview=Preview(one, labels, np.roll(labels, 3, 0)) if due else None,
            )  # fmt: skip
        gain = Gain(0.1, 0.1, 0.1, 0.1, 0.05, 0.15, 0.99)
        reason = "Better where it was judged." if self.adopted else "Only 12 nuclei in two regions: correct more."
        new = LoadedModel(SPEC, NEW, self.network)
        told = "Judged on one region that you held out (40 nuclei)."
        yield Step("", STEPS, STEPS, outcome=Outcome(
            new, before, agreement(0.6), gain, 0.9, self.adopted, reason, told, STEPS))  # fmt: skip

    def keep(self, outcome):
        self.made = outcome.adopted
        return Version(NEW, self.folder / "nuclei-2.safetensors", TAUGHT if outcome.adopted else REFUSED, NEW.title)

    def versions(self):
        kinds = ((CARD, "shipped"), (NEW, TAUGHT))
        return tuple(Version(card, self.folder / card.name, kind, card.title) for card, kind in kinds)

    def take(self, version):
        self.taken.append(version.card.name)
        self.made = True
        return replace(version, kind=TAUGHT) if version.kind == REFUSED else version


@pytest.fixture
def engine(tmp_path):
    return TeachingEngine(tmp_path)


@pytest.fixture
def teach(viewer, panel, disc_slide, qtbot):
    """The dock, on a segmented slide with two finished regions."""
    open_and_settle(viewer, panel, disc_slide, qtbot)
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    panel.session.editing = True
    until_idle(qtbot, panel)
    for box, role in (((100, 100, 300, 400), "teach"), ((400, 500, 600, 800), "hold out")):
        y0, x0, y1, x1 = map(float, box)
        corners = ((y0, x0), (y0, x1), (y1, x1), (y1, x0))
        panel.docks.regions.put(AnnotatedRegion(0, "", role, corners, done=True))
        until_idle(qtbot, panel)
    click(qtbot, panel.panel.correct.teach_button)
    made = panel.docks.widget("Teach")
    qtbot.waitUntil(made.teach_button.isEnabled, timeout=WAIT_MS)
    return made


def taught(qtbot, panel, teach):
    click(qtbot, teach.teach_button)
    qtbot.waitUntil(lambda: not panel.controller.teaching.is_running, timeout=WAIT_MS)
    until_idle(qtbot, panel)


def test_the_advice_says_what_there_is(teach):
    assert "nuclei in 1 region" in teach.advice.text()
    assert "held out" in teach.advice.text()


def test_without_results_there_is_nothing_to_teach_with(viewer, panel, disc_slide, qtbot):
    open_and_settle(viewer, panel, disc_slide, qtbot)
    panel.docks.show_teach()
    made = panel.docks.widget("Teach")
    qtbot.wait(300)
    assert "segment a part of it first" in made.advice.text()
    assert not made.teach_button.isEnabled()


def test_taught_and_adopted_the_new_model_is_used_at_once(viewer, panel, teach, engine, qtbot):
    forwards = engine.log.tiles
    taught(qtbot, panel, teach)
    (lesson,) = engine.lessons
    assert {one.role for one in lesson.examples} == {"teach", "hold out"}
    assert "The new model is in use" in teach.verdict.text()
    assert "Better where it was judged." in teach.verdict.text()
    assert teach.back_button.isVisible()
    assert not teach.take_button.isVisible()
    assert panel.session.model == "nuclei-2"
    assert panel.panel.model.currentText() == "Nuclei, taught (nuclei-2)"
    assert engine.log.tiles > forwards
    assert engine.taken == ["nuclei-2"]


def test_of_a_view_that_is_too_wide_nothing_is_segmented_at_once(panel, teach, engine, qtbot):
    panel.session.follow_limit = 1
    forwards = engine.log.tiles
    taught(qtbot, panel, teach)
    assert panel.session.model == "nuclei-2"
    assert engine.log.tiles == forwards
    assert "“View” or “Whole slide” computes the rest" in panel.panel.hint.text()


def test_one_click_goes_back(panel, teach, engine, qtbot):
    taught(qtbot, panel, teach)
    click(qtbot, teach.back_button)
    qtbot.waitUntil(lambda: panel.session.model == "nuclei", timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert engine.taken == ["nuclei-2", "nuclei"]
    # What is said and what can be done follow.
    assert "The new model is not in use" in teach.verdict.text()
    assert not teach.back_button.isVisible()
    assert (teach.take_button.isVisible(), teach.take_button.text()) == (True, "Use it")
    click(qtbot, teach.take_button)
    qtbot.waitUntil(lambda: panel.session.model == "nuclei-2", timeout=WAIT_MS)
    assert "The new model is in use" in teach.verdict.text()
    assert teach.back_button.isVisible()
    assert not teach.take_button.isVisible()
    panel.session.model = "nuclei"  # chosen in the panel
    assert "The new model is not in use" in teach.verdict.text()
    assert teach.take_button.isVisible()
    until_idle(qtbot, panel)


def test_refused_the_former_model_stays_and_the_reason_is_said(panel, teach, engine, qtbot):
    engine.adopted = False
    taught(qtbot, panel, teach)
    assert "The former model stays" in teach.verdict.text()
    assert "Only 12 nuclei in two regions" in teach.verdict.text()
    assert panel.session.model == "nuclei"
    assert engine.taken == []
    assert teach.take_button.text() == "Use it anyway"
    assert not teach.back_button.isVisible()
    click(qtbot, teach.take_button)
    qtbot.waitUntil(lambda: panel.session.model == "nuclei-2", timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert "The new model is in use" in teach.verdict.text()
    assert teach.back_button.isVisible()
    assert not teach.take_button.isVisible()
    # Its file has been moved: it is not one that was refused any more.
    assert panel.controller.teaching.last.version.kind == TAUGHT


def test_a_model_that_cannot_be_used_anyway_is_not_said_to_be_in_use(panel, teach, engine, qtbot, monkeypatch):
    def gone(_version):
        raise WeightsError("nuclei-2.safetensors is not there any more")

    engine.adopted = False
    taught(qtbot, panel, teach)
    monkeypatch.setattr(engine, "take", gone)
    click(qtbot, teach.take_button)
    until_idle(qtbot, panel)
    assert "not there any more" in teach.advice.text()
    assert "The former model stays" in teach.verdict.text()
    assert teach.take_button.isVisible()
    assert not teach.back_button.isVisible()


def test_a_model_that_does_not_see_brown_is_taught_without_it(panel, teach, engine, qtbot):
    engine.adopted = False
    for ignored in (False, True):
        panel.session.ignore_brown = ignored
        until_idle(qtbot, panel)
        taught(qtbot, panel, teach)
    assert engine.ignoring == [False, True]


def test_doubtful_regions_are_named_and_can_be_trusted(panel, teach, engine, qtbot):
    engine.error = DoubtfulLabelsError("Region 1 of discs seems to be shifted.")
    taught(qtbot, panel, teach)
    assert "seems to be shifted" in teach.advice.text()
    assert panel.session.model == "nuclei"
    engine.adopted = False
    click(qtbot, teach.trust_button)
    qtbot.waitUntil(lambda: not panel.controller.teaching.is_running, timeout=WAIT_MS)
    assert engine.trusted == [False, True]
    assert "The former model stays" in teach.verdict.text()


def test_what_cannot_be_taught_is_a_sentence(panel, teach, engine, qtbot):
    engine.error = TeachingError("There are only 3 corrected nuclei to learn from.")
    taught(qtbot, panel, teach)
    assert "only 3 corrected nuclei" in teach.advice.text()
    assert not teach.trust_button.isVisible()


def test_stopped_within_a_step_and_nothing_has_changed(panel, teach, engine, qtbot):
    engine.gate.clear()
    click(qtbot, teach.teach_button)
    qtbot.waitUntil(teach.stop_button.isVisible, timeout=WAIT_MS)
    click(qtbot, teach.stop_button)
    engine.gate.set()
    until_idle(qtbot, panel)
    assert "The model is as it was" in teach.advice.text()
    assert panel.session.model == "nuclei"
    assert teach.teach_button.isVisible()
    assert teach.verdict.text() == ""


def test_stopped_while_it_is_judged_no_version_is_kept(panel, teach, engine, qtbot, monkeypatch):
    judging, gate, kept = threading.Event(), threading.Event(), []
    real = engine.finetune

    def judged(*what, **options):
        for step in real(*what, **options):
            if step.outcome is not None:
                judging.set()
                assert gate.wait(60)
            yield step

    monkeypatch.setattr(engine, "finetune", judged)
    monkeypatch.setattr(engine, "keep", kept.append)
    click(qtbot, teach.teach_button)
    qtbot.waitUntil(judging.is_set, timeout=WAIT_MS)
    click(qtbot, teach.stop_button)
    gate.set()
    until_idle(qtbot, panel)
    assert kept == []
    assert teach.verdict.text() == ""


def test_what_fails_after_it_was_stopped_is_said_and_leaves_the_next_fine_tune_alone(
    panel, teach, engine, qtbot, monkeypatch
):
    begun, gate, real, said = threading.Event(), threading.Event(), engine.finetune, []
    panel.controller.teaching.said.connect(lambda hint: said.append(hint.text))

    def doubtful(*_what, **_options):
        begun.set()
        assert gate.wait(60)
        raise DoubtfulLabelsError("Region 1 of discs seems to be shifted.")
        yield

    monkeypatch.setattr(engine, "finetune", doubtful)
    click(qtbot, teach.teach_button)
    qtbot.waitUntil(begun.is_set, timeout=WAIT_MS)
    click(qtbot, teach.stop_button)
    monkeypatch.setattr(engine, "finetune", real)
    engine.adopted = False
    engine.gate.clear()
    click(qtbot, teach.teach_button)
    gate.set()
    qtbot.waitUntil(lambda: "Region 1 of discs seems to be shifted." in said, timeout=WAIT_MS)
    assert panel.controller.teaching.is_running
    assert teach.stop_button.isVisible()
    assert not teach.teach_button.isVisible()
    assert not teach.trust_button.isVisible()
    engine.gate.set()
    until_idle(qtbot, panel)
    assert "The former model stays" in teach.verdict.text()


def test_the_curve_shows_what_was_measured(panel, teach, qtbot):
    taught(qtbot, panel, teach)
    run = teach.curve.runs[-1]
    assert run.name == "with your regions"
    assert [step for step, _ in run.scores] == [3, 6]
    assert [step for step, _ in run.losses] == [1, 2, 3, 4, 5, 6]
    assert run.former == pytest.approx(agreement(0.5).choice)
    assert not teach.preview.pixmap().isNull()


@pytest.mark.parametrize("leaves", [False, True])
def test_closing_while_a_model_is_taught_asks(viewer, panel, teach, engine, qtbot, monkeypatch, leaves):
    said = []

    def answer(box):
        said.append(box.windowTitle())
        wanted = "Stop and close" if leaves else "Keep open"
        button = next(one for one in box.buttons() if one.text() == wanted)
        monkeypatch.setattr(box, "clickedButton", lambda: button)

    monkeypatch.setattr(QMessageBox, "exec", answer)
    engine.gate.clear()
    click(qtbot, teach.teach_button)
    qtbot.waitUntil(lambda: panel.controller.teaching.is_running, timeout=WAIT_MS)
    window, event = panel.window(), QCloseEvent()
    # What the window asks before it closes; the test's viewer has to close by itself.
    assert panel.eventFilter(window, event) is not leaves
    assert event.isAccepted() is leaves
    assert said == ["A model is learning"]
    assert panel.controller.teaching.is_running is not leaves
    engine.gate.set()
    if not leaves:
        qtbot.waitUntil(lambda: not panel.controller.teaching.is_running, timeout=WAIT_MS)
        until_idle(qtbot, panel)


def test_the_version_that_was_taken_last_is_the_one_that_opens(viewer, tmp_path, qtbot):
    engine = TeachingEngine(tmp_path)
    engine.made, engine.preferred = True, lambda _family: "nuclei-2"
    controller = Controller(viewer, Session(), engine)
    controller.start()
    qtbot.waitUntil(lambda: controller.session.model == "nuclei-2", timeout=WAIT_MS)
    controller.close()
    controller.join()


def test_an_empty_curve_says_what_comes(qtbot):
    view = CurveView()
    qtbot.addWidget(view)
    view.show()
    view.begin(10, 0.5)
    assert not view.grab().isNull()
    view.add("a", 1, 1.0, None, None)
    view.add("a", 2, 0.5, 0.6, 0.5)
    assert not view.grab().isNull()
    assert view.runs[-1].scores == [(2, 0.6)]


def test_the_preview_shows_where_the_nuclei_are():
    labels = np.full((400, 300), -1, np.int32)
    labels[10:390, 10:290] = 0
    labels[300:330, 200:240] = 1
    labels[340:380, 230:280] = 2
    image = np.zeros((400, 300, 3), np.uint8)
    image[labels > 0] = 200
    shown = np.maximum(labels, 0)
    one = Example("discs", "print", "Region 3", 3, "hold out", image, labels, 0.5)
    picture = picture_of(Preview(one, shown, shown))
    side = round(440 / SEEN_PX) * SEEN_PX
    assert picture.shape == (side, side, 3)
    # Both nuclei, whole: inside and outline make up their area.
    scale = side // SEEN_PX
    assert np.count_nonzero(picture.any(axis=2)) >= (30 * 40 + 40 * 50) * scale**2 * 0.98
    nothing = Example("glass", "print", "Region 4", 4, "hold out", image, np.minimum(labels, 0), 0.5)
    assert picture_of(Preview(nothing, shown, shown)).shape == (side, side, 3)


def test_the_preview_shows_three_outlines_of_what_is_known():
    labels = np.full((96, 96), -1, np.int32)
    labels[16:80, 16:80] = 0
    labels[30:50, 30:50] = 1
    one = Example("discs", "print", "Region 3", 3, "hold out", disc_picture((96, 96)), labels, 0.5)
    shown = np.maximum(labels, 0)
    picture = picture_of(Preview(one, np.roll(shown, 3, 0), np.roll(shown, -3, 0)))
    assert picture.shape[0] == picture.shape[1] == 64 * round(440 / 64)
    for colour in ((255, 255, 255), (240, 150, 40), (60, 220, 180)):
        assert (picture == colour).all(axis=2).sum() > 100
