"""What is measured on was never learnt from."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tissue import example, painted

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.teaching.collect import LOOSE
from napari_nucleiseg.core.teaching.division import MOST_HELD, divide
from napari_nucleiseg.core.teaching.examples import UNKNOWN, Example, count_nuclei

REGIONS = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from(("a.svs", "b.svs")), st.sampled_from((0, 1, 2)), st.booleans()),
    min_size=1,
    max_size=12,
)


def examples_of(regions, *, holding):
    return [
        example(number, "hold out" if held and holding else "teach", slide, classes=(kind,), side=32)
        for number, slide, kind, held in regions
    ]


def pixels(example):
    """Where an example vouches for pixels: region and places."""
    return {(example.key, place) for place in np.flatnonzero(example.known).tolist()}


@settings(max_examples=40, deadline=None)
@given(REGIONS, st.booleans(), st.integers(2, 4), st.integers(0, 100))
def test_no_pixel_is_both_learnt_from_and_measured_on(regions, holding, folds, seed):
    # One role for all pieces of a region, as people give it.
    roles = {(number, slide): held for number, slide, _, held in regions}
    examples = examples_of([(n, s, k, roles[n, s]) for n, s, k, _ in regions], holding=holding)
    division = divide(examples, folds, seed)
    for run in division.runs:
        learnt = set().union(*map(pixels, run.teach)) if run.teach else set()
        assert not any(learnt & pixels(one) for one in run.held)
    assert division.held
    marked = [one.key for one in examples if one.role == "hold out"]
    if marked:
        measured = [one.key for one in division.held]
        # Of many pieces some say enough.
        assert measured == marked if len(marked) <= MOST_HELD else len(measured) == MOST_HELD
        assert set(measured) <= set(marked)
    if len({one.key for one in examples}) > 1 and not holding:
        learnt = {one.key for one in division.runs[0].teach}
        assert not learnt & {one.key for one in division.runs[0].held}


def overlapping(places, *, held=(), side=64):
    """Pieces of one painted slide at twice the model's pixels, each with its known part in the middle."""
    image, labels = painted(512)
    found = []
    for number, (y, x) in enumerate(places, 1):
        known = np.full((side, side), UNKNOWN, np.int32)
        inner = slice(8, side - 8)
        part = labels[y : y + side, x : x + side]
        known[inner, inner] = part[inner, inner]
        # As a nucleus that reaches beyond its region is looked at as a whole.
        known[np.isin(part, known[known > 0])] = part[np.isin(part, known[known > 0])]
        found.append(
            example(
                number,
                "hold out" if number in held else "teach",
                image=image[y : y + side, x : x + side],
                labels=known,
                box=Region(2 * y, 2 * x, 2 * side, 2 * side),
            )
        )
    return found


def on_slide(one, mask):
    """Places on the slide of the pixels of a mask, in the model's pixels."""
    ys, xs = np.nonzero(mask)
    return set(zip((ys + one.box.y // 2).tolist(), (xs + one.box.x // 2).tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 160), st.integers(0, 160)), min_size=2, max_size=7),
    st.booleans(),
    st.integers(2, 3),
    st.integers(0, 50),
)
def test_regions_that_overlap_share_neither_pixels_nor_nuclei(places, holding, folds, seed):
    examples = overlapping(places, held=(1,) if holding else ())
    for run in divide(examples, folds, seed).runs:
        measured = set().union(*(on_slide(one, one.known) for one in run.held))
        nuclei = {nucleus for one in run.held for nucleus in one.ids.tolist()}
        for one in run.teach:
            assert not on_slide(one, one.known) & measured
            assert not nuclei & {*one.ids.tolist()}


def test_a_region_drawn_twice_is_not_learnt_from_where_it_is_held_out():
    once, twice = overlapping([(40, 40), (40, 40)], held=(2,))
    assert once.box == twice.box
    assert len(twice.ids)
    (run,) = divide([once, twice], 2, 0).runs
    assert run.held == (twice,)
    assert not any(one.known.any() for one in run.teach)


def test_what_does_not_overlap_is_learnt_from_as_it_is():
    examples = overlapping([(0, 0), (0, 200), (200, 0)], held=(2,))
    (run,) = divide(examples, 2, 0).runs
    assert [one is other for one, other in zip(run.teach, (examples[0], examples[2]), strict=True)] == [True, True]


def test_of_many_regions_a_quarter_is_kept_aside_and_shows_every_slide_and_class():
    examples = [example(number, slide="a.svs", classes=(0,)) for number in range(1, 7)]
    examples += [example(7, slide="b.svs", classes=(0,)), example(8, slide="b.svs", classes=(3,))]
    for seed in range(8):
        (run,) = divide(examples, 2, seed).runs
        assert len({one.key for one in run.held}) == 2
        assert {one.slide for one in run.held} == {"a.svs", "b.svs"} or 3 in {
            c for one in run.held for c in one.classes
        }
        assert len(run.teach) == 6


def test_few_regions_are_judged_in_turn_and_all_are_learnt_from():
    examples = [example(number) for number in (1, 2, 3)]
    division = divide(examples, 2, 0)
    assert [len(run.teach) for run in division.runs] == [1, 2, 3]
    assert sorted(one.number for one in division.held) == [1, 2, 3]
    assert division.runs[-1].held == ()
    assert "not seen it" in division.told


def test_one_region_is_cut_and_its_nuclei_are_whole():
    whole = example(1)
    division = divide([whole], 2, 0)
    assert [len(run.held) for run in division.runs] == [1, 1, 0]
    assert count_nuclei(division.held) == count_nuclei([whole])
    for part in division.held:
        for nucleus in part.ids:
            assert np.sum(part.labels == nucleus) == np.sum(whole.labels == nucleus)
    assert "one region only" in division.told


def test_nuclei_outside_of_regions_are_learnt_from_and_never_held_out():
    loose = Example("a.svs", "print of a.svs", LOOSE, 0, "teach", example().image, example().labels, 0.5)
    division = divide([example(1), example(2), loose], 2, 0)
    assert all(one.region != LOOSE for one in division.held)
    assert all(loose in run.teach for run in division.runs)


def test_nuclei_outside_of_regions_alone_are_cut_and_no_part_is_learnt_from_where_it_is_held_out():
    loose = [
        Example("a.svs", "print of a.svs", LOOSE, 0, "teach", example(seed).image, example(seed).labels, 0.5)
        for seed in (1, 2)
    ]
    division = divide(loose, 2, 0)
    whole = count_nuclei(loose)
    assert count_nuclei(division.held) == whole
    for run in division.runs[:-1]:
        assert count_nuclei(run.teach) + count_nuclei(run.held) == whole
    assert count_nuclei(division.runs[-1].teach) == whole
