"""Painted attention gets from the project into a model, and nothing of it where it is held out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tissue import example, painted, painted_slide

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.store.attention import DO_NOT_LOOK, LOOK_HERE, paint_attention
from napari_nucleiseg.core.store.regions import AnnotatedRegion, put_region
from napari_nucleiseg.core.teaching.advice import LONGEST, advise
from napari_nucleiseg.core.teaching.collect import LOOSE, Lesson, lesson_of
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.division import divide
from napari_nucleiseg.core.teaching.doubts import doubts
from napari_nucleiseg.core.teaching.examples import fingerprint_of
from napari_nucleiseg.core.teaching.finetune import finetune
from napari_nucleiseg.core.training.config import AugmentConfig
from napari_nucleiseg.core.training.validation import picture_maps

SPEC = network_spec("scale-attention-fast", {"width": 8})  # 0.25 um/px, as the slide


def put(project, y0, x0, y1, x1, role="teach", **more):
    vertices = ((y0, x0), (y0, x1), (y1, x1), (y1, x0))
    put_region(project, AnnotatedRegion(0, "", role, tuple((float(y), float(x)) for y, x in vertices), **more))


def paint(project, y, x, height, width, value=LOOK_HERE):
    paint_attention(project, Region(y, x, height, width), np.full((height, width), value, np.uint8))


def painted_pixels(lesson):
    """Level-0 pixels with their meaning, over all examples."""
    found = {}
    for one in lesson.examples:
        if one.attention is not None:
            for y, x in np.argwhere(one.attention >= 0):
                place = one.box.y + int(y), one.box.x + int(x)
                assert place not in found
                found[place] = int(one.attention[y, x])
    return found


def rectangle(y, x, height, width, meaning):
    return {(row, column): meaning for row in range(y, y + height) for column in range(x, x + width)}


def unknown(**more):
    one = example(**more)
    attention = np.full(one.labels.shape, -1, np.int8)
    attention[20:40, 20:40] = 1
    return replace(one, labels=np.full_like(one.labels, -1), attention=attention, classes=())


def test_paint_comes_with_the_nuclei_of_its_region(slide_and_project):
    slide, project = slide_and_project
    put(project, 100, 100, 300, 260, done=True)
    paint(project, 150, 120, 20, 30)
    paint(project, 200, 120, 10, 10, DO_NOT_LOOK)
    lesson = lesson_of(project, slide, SPEC)
    (one,) = lesson.examples
    assert one.ids.size
    assert painted_pixels(lesson) == rectangle(150, 120, 20, 30, 1) | rectangle(200, 120, 10, 10, 0)
    without = replace(one, attention=None)
    assert fingerprint_of([one]) != fingerprint_of([without])


def test_a_model_that_does_not_say_where_it_looks_is_not_told(slide_and_project):
    slide, project = slide_and_project
    paint(project, 150, 120, 20, 30)
    assert lesson_of(project, slide, network_spec("nuclei")).examples == ()


def test_a_painted_region_in_which_no_nucleus_was_corrected_counts(slide_and_project):
    slide, project = slide_and_project
    put(project, 100, 100, 300, 260)
    paint(project, 90, 120, 20, 30)
    lesson = lesson_of(project, slide, SPEC)
    assert lesson.left_out == ()
    inside, outside = sorted(lesson.examples, key=lambda one: -one.number)
    assert (inside.number, outside.region) == (1, LOOSE)
    assert not inside.known.any()
    assert painted_pixels(lesson) == rectangle(90, 120, 20, 30, 1)
    assert all(doubts(one, lambda: pytest.fail("nobody knows anything here")) == [] for one in lesson.examples)
    # Tissue on which the model is to say what it said before is somewhere else.
    assert not lesson.elsewhere


def test_what_was_painted_in_a_region_that_is_held_out_is_not_learnt(slide_and_project):
    slide, project = slide_and_project
    put(project, 100, 100, 300, 260, role="hold out", done=True)
    put(project, 310, 100, 400, 260, role="hold out")
    put(project, 200, 200, 400, 400)
    paint(project, 90, 90, 400, 400)
    found = painted_pixels(lesson_of(project, slide, SPEC))
    held = rectangle(100, 100, 200, 160, 1) | rectangle(310, 100, 90, 160, 1)
    assert not found.keys() & held.keys()
    # The pixels along an outline may belong to it.
    beside = rectangle(99, 99, 202, 162, 1) | rectangle(309, 99, 92, 162, 1)
    beside |= {place: 1 for place in rectangle(199, 199, 203, 203, 1) if not {*place}.isdisjoint({199, 200, 400, 401})}
    assert found.keys() >= rectangle(90, 90, 400, 400, 1).keys() - beside.keys()


def test_the_paint_of_a_coarser_model_lies_where_it_was_painted(tmp_path):
    slide, _ = painted_slide()
    from napari_nucleiseg.core.store.project import Project

    with Project.create(tmp_path / "p", slide) as project:
        paint(project, 100, 200, 40, 60)
        (one,) = lesson_of(project, slide, replace(SPEC, mpp_um=0.5)).examples
    rows, columns = np.nonzero(one.attention == 1)
    assert (rows.min() * 2 + one.box.y, rows.max() * 2 + 2 + one.box.y) == (100, 140)
    assert (columns.min() * 2 + one.box.x, columns.max() * 2 + 2 + one.box.x) == (200, 260)


def test_where_nothing_is_known_nothing_is_measured():
    regions = [example(number) for number in range(1, 7)]
    painted = unknown(number=9)
    division = divide([*regions, painted], 3, 0)
    assert all(one.known.any() for one in division.held)
    assert all(any(one is painted for one in run.teach) for run in division.runs)


def test_paint_on_a_held_out_part_of_one_region_is_not_learnt_with_it():
    one = example(1)
    everywhere = np.ones(one.labels.shape, np.int8)
    division = divide([replace(one, attention=everywhere)], 3, 0)
    for run in division.runs[:-1]:
        held = np.any([part.known for part in run.held], axis=0)
        taught = np.any([part.attention >= 0 for part in run.teach if part.attention is not None], axis=0)
        assert taught.any()
        assert not (held & taught).any()


def test_pieces_of_one_region_are_not_both_painted_and_held_out():
    regions = [example(number) for number in (1, 2)]
    piece = unknown(number=1, seed=5)
    division = divide([*regions, piece], 3, 0)
    for run in division.runs:
        held = {one.key for one in run.held}
        assert not any(one.key in held for one in run.teach)
    assert any(one is piece for one in division.runs[-1].teach)


def test_paint_that_takes_attention_from_corrected_nuclei_is_doubted():
    one = large_nuclei(1)
    attention = np.full(one.labels.shape, -1, np.int8)
    attention[one.labels > 0] = 0
    (said,) = doubts(replace(one, attention=attention), lambda: pytest.fail("nothing else is suspicious"))
    assert "painted “do not look here”" in said
    attention[one.labels > 0] = 1
    attention[one.labels == 0] = 0
    assert doubts(replace(one, attention=attention), lambda: pytest.fail("nothing is suspicious")) == []


def test_advice_speaks_of_paint():
    advice = advise(Lesson((unknown(),)), {})
    assert not advice.ready
    assert advice.sentences == (
        "Attention is painted in 1 place: the model learns to look there, or not to.",
        "To judge a new model, correct nuclei in a region, too: 15 or more.",
    )
    assert all(len(said) <= LONGEST for said in advise(Lesson((unknown(), example(2))), {}).sentences)


STILL = AugmentConfig(scale=1.0, elastic_um=0.0, stain=0.0, stain_transfer=0.0, colour=0.0, blur_px=0.0)
CONFIG = FinetuneConfig(
    steps=24, validate_every=12, crop_px=64, batch_size=2, warmup=2, threads=1, device="cpu", learning_rate=2e-2,
    anchor=0.0, memory=0.0, ema=0.5, augment=STILL,
)  # fmt: skip


def small_model():
    torch.manual_seed(0)
    card = ModelCard("look", SPEC.name, dict(SPEC.params), licence="CC0-1.0", sha256="0" * 64)
    return LoadedModel(SPEC, card, build_network(SPEC).eval())


def attention_of(model, one):
    return picture_maps(model.network, model.spec, one.image, torch.device("cpu"))["attention"][0]


def large_nuclei(number, role="teach"):
    image, labels = painted(160, step=32, radius=10, seed=number)
    return example(number, role, image=image, labels=labels, mpp_um=0.25)


@pytest.fixture
def stained():
    """A lesson without a corrected nucleus: four nuclei are painted as worth a look, and what lies between as not."""
    one = large_nuclei(1)
    attention = np.full(one.labels.shape, -1, np.int8)
    attention[:64, :64] = (one.labels > 0)[:64, :64]
    return replace(one, labels=np.full_like(one.labels, -1), attention=attention)


def test_paint_alone_moves_attention_where_it_was_painted_and_the_guard_holds(stained):
    model = small_model()
    first, *_, last = finetune(model, Lesson((stained,)), CONFIG)
    assert first.measured is None
    before, after = (attention_of(one, stained) for one in (model, last.outcome.model))
    gained = after - before
    look, do_not = stained.attention == 1, stained.attention == 0
    assert gained[look].mean() - gained[do_not].mean() > 0.2
    assert after[look].mean() - after[do_not].mean() > before[look].mean() - before[do_not].mean() + 0.2
    # Nobody said how nuclei should come out: the former model stays.
    assert not last.outcome.adopted
    assert "no corrected nuclei to judge by" in last.outcome.reason
    assert last.outcome.model.card.taught["nuclei"] == 0
    assert "painted attention" in last.outcome.model.card.training_data[-1]


def test_paint_is_judged_by_nuclei_that_are_held_out(stained):
    held = large_nuclei(2, "hold out")
    *_, last = finetune(small_model(), Lesson((stained, held)), replace(CONFIG, trust_labels=True))
    outcome = last.outcome
    assert outcome.after.nuclei == len(held.ids) >= 15
    assert outcome.adopted == (outcome.gain.choice > 0 and outcome.gain.not_worse >= CONFIG.certainty)
    assert outcome.gain.choice > 0
