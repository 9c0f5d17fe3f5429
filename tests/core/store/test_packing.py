"""Rows of the journal as columns: what comes out is what went in, and journals of before are read as well."""

import json

import imagecodecs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.store.packing import pack, unpack
from napari_nucleiseg.core.store.records import MANY, NUCLEI, REGIONS, Records

INTEGERS = st.integers(-(1 << 63), (1 << 63) - 1)
REALS = st.floats(allow_nan=False)
ROWS = st.tuples(
    st.one_of(st.none(), st.integers(1, 1 << 40)),
    st.one_of(st.none(), st.text(max_size=4)),
    INTEGERS,
    REALS,
    REALS,
    *[INTEGERS] * 4,
    REALS,
    INTEGERS,
    REALS,
    st.integers(0, 3),
    st.integers(0, 3),
)
SIDES = st.dictionaries(st.integers(1, (1 << 32) - 1), st.one_of(st.none(), ROWS), max_size=5).map(
    lambda rows: {key: None if row is None else (key, *row) for key, row in rows.items()}
)


# Drawing dozens of columns takes long where other work shares the machine, which says nothing of the program.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(SIDES, SIDES)
def test_rows_come_back_as_they_were(before, after):
    assert unpack(pack([before, after]), 2) == [before, after]


def test_other_bytes_are_refused():
    whole = pack([{1: None}, {1: (1, None, "me", 0, 0.5, 0.5, 0, 0, 1, 1, 0.25, 0, 1.0, 0, 1)}])
    with pytest.raises(ValueError, match=r"buffer|columns|Expecting"):
        unpack(whole[:-3], 2)
    with pytest.raises(ValueError, match="columns are missing"):
        unpack(whole, 3)


@pytest.mark.parametrize("n", [1, MANY - 1, MANY, 1000])
def test_records_of_few_and_of_many_come_back(n):
    records = Records()
    rows = {key: (key, None, "me", 7, key / 3, 0.1, 1, 2, 3, 4, 0.0625, 2, 0.9, 0, 1) for key in range(1, n + 1)}
    records.note(NUCLEI, {1: rows[1]}, {key: row for key, row in rows.items() if key != 1})
    records.note(REGIONS, {}, {1: (1, "a\0b", "teach", "[]", 1, 0, "me", 1.5)})
    assert Records.decoded(records.encoded()) == records


def test_records_of_format_2_are_read():
    row = (5, 1, None, 7, 0.1, 0.2, 1, 2, 3, 4, 0.0625, 2, 0.9, 0, 1)
    text = json.dumps([{NUCLEI: [[5, row], [6, None]]}, {NUCLEI: [[5, None], [6, row]]}])
    records = Records.decoded(imagecodecs.zstd_encode(text.encode(), 1))
    assert records == Records({NUCLEI: {5: row, 6: None}}, {NUCLEI: {5: None, 6: row}})
