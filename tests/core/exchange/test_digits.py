"""Numbers of many outlines at once: the same as one by one, and nothing that is no list of points passes for one."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nucleiseg.core.exchange.digits import Digits, numbers_of

NUMBERS = st.one_of(
    st.integers(-(10**9), 10**9),
    st.integers(0, 10**18),
    st.decimals(-100_000, 100_000, places=4),
    st.floats(allow_nan=False, allow_infinity=False),
).map(str)
SPACES = st.sampled_from(["", " ", "\n  "])


@given(st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5), min_size=1, max_size=4), SPACES)
def test_numbers_are_those_that_python_reads(outlines, space):
    texts = []
    for points in outlines:
        pairs = (f"[{space}{x},{space}{y}{space}]" for x, y in points)
        texts.append(f"[[{space}{f',{space}'.join(pairs)}]]")
        assert Digits(texts[-1]).points == len(points)
    wanted = [float(number) for points in outlines for point in points for number in point]
    np.testing.assert_array_equal(numbers_of(texts), wanted)


@pytest.mark.parametrize(
    "text",
    ["1,2]3,[4,5", "1 2,3],[4,5", "1,],[4,5", ".5,1", "1.,1", "1.2.3,1", "1-2,1", "--2,1", "-,1", "+1,2", "1e,2", ","],
)
def test_what_is_no_number_is_not_read_as_one(text):
    assert numbers_of([f"[[[{text}]]]"]) is None
    assert numbers_of(["[[[1,2],[3,4.5]]]", f"[[[{text}]]]"]) is None


@pytest.mark.parametrize(
    "text", ["[]", "[[]]", "[[[1,2,3]]]", "[[[1,2]],[[3,4]]]", "[[1,2]]", "[[[1,2],[3,4],]]", "[[[1]]]"]
)
def test_other_lists_are_no_polygon_of_one_ring(text):
    assert Digits(text).points == 0


def test_lists_are_read_when_asked_for():
    assert Digits("[[[1,2.5]]]").read() == json.loads("[[[1,2.5]]]")
    assert Digits("[[1,2],3;]").read() == [None]
