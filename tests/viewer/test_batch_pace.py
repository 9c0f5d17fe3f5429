"""How far an unattended run is, and how long the rest will take: from made-up runs whose end is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nucleiseg.core.batch.unattended.database import DONE, FAILED, RUNNING
from napari_nucleiseg.core.batch.unattended.manifest import Entry
from napari_nucleiseg.viewer.batch_pace import Pace
from napari_nucleiseg.viewer.batch_queue import MEASURING, SEGMENTING, STAGES, Row


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def row(number, state="waiting", stage="", part=0, parts=0, tiles=0):
    path = f"/s/{number}.svs"
    return Row(Entry(path, str(number)), state, stage, part, parts, tiles)


def watched(**more):
    clock = Clock()
    return clock, Pace(**({"measures": False, "encodes": False} | more), now=clock)


def test_equal_slides_one_after_the_other():
    clock, pace = watched()
    rows = [row(number) for number in range(4)]
    assert pace.overall(rows).share == 0
    for number in range(4):
        rows[number] = row(number, RUNNING, SEGMENTING, 0, 10)
        pace.overall(rows)
        clock.now += 10
        rows[number] = row(number, DONE, tiles=10)
        # After the first two of four, each of ten seconds, twenty are left.
        seen = pace.overall(rows)
        assert (seen.done, seen.slides) == (number + 1, 4)
        assert seen.share == pytest.approx((number + 1) / 4)
        assert seen.left_s == pytest.approx(10 * (3 - number), rel=0.05)


def test_large_slides_count_more():
    _, pace = watched()
    rows = [row(0, DONE, tiles=10), row(1, RUNNING, SEGMENTING, 0, 90)]
    assert pace.overall(rows).share == pytest.approx(0.1, abs=0.03)


def test_what_was_done_before_says_nothing_of_the_pace():
    clock, pace = watched()
    # 80 of 100 tiles were done by a run before.
    pace.overall([row(0, RUNNING, SEGMENTING, 80, 100), row(1, DONE, tiles=100)])
    clock.now += 10
    seen = pace.overall([row(0, RUNNING, SEGMENTING, 90, 100), row(1, DONE, tiles=100)])
    assert seen.left_s == pytest.approx(10 * 1.4, rel=0.1)  # ten tiles, and then it is written


def test_nothing_is_said_before_a_pace_is_known_and_pauses_do_not_count():
    clock, pace = watched()
    pace.overall([row(0, RUNNING, SEGMENTING, 0, 100)])
    clock.now += 1
    assert pace.overall([row(0, RUNNING, SEGMENTING, 10, 100)]).left_s is None
    clock.now += 9
    before = pace.overall([row(0, RUNNING, SEGMENTING, 50, 100)]).left_s
    pace.pause()
    clock.now += 1000
    pace.pause()
    assert pace.overall([row(0, RUNNING, SEGMENTING, 50, 100)]).left_s == pytest.approx(before)
    pace.go_on()
    pace.go_on()
    assert pace.overall([row(0, RUNNING, SEGMENTING, 50, 100)]).left_s == pytest.approx(before)


def test_failed_slides_are_over():
    _, pace = watched()
    seen = pace.overall([row(0, FAILED), row(1, DONE)])
    assert (seen.failed, seen.share) == (1, 1.0)
    assert pace.overall([]).share == 0


def test_stages_that_are_not_asked_for_take_no_time():
    _, short = watched()
    _, long = watched(measures=True)
    rows = [row(0, RUNNING, SEGMENTING, 100, 100)]
    assert short.overall(rows).share > 0.95 > long.overall(rows).share
    assert long.overall([row(0, RUNNING, MEASURING, 1, 2)]).share > long.overall(rows).share


@given(st.lists(st.tuples(st.sampled_from(STAGES), st.floats(0, 1)), min_size=2), st.booleans(), st.booleans())
def test_the_share_never_falls_and_stays_within_bounds(steps, measures, encodes):
    left_out = {*(() if measures else ("measuring",)), *(() if encodes else ("describing",))}
    ordered = sorted((STAGES.index(stage), part) for stage, part in steps if stage not in left_out)
    _, pace = watched(measures=measures, encodes=encodes)
    shares = [
        pace.overall([row(0, RUNNING, STAGES[stage], round(1000 * part), 1000), row(1)]).share
        for stage, part in ordered
    ]
    assert all(0 <= share <= 0.5 + 1e-9 for share in shares)
    assert shares == sorted(shares)
