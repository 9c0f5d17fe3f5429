"""The list of nuclei holds what a plain search of all rows finds, in the order that plain sorting gives."""

import numpy as np
import pytest
from fields import blank_slide
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.listing import (
    ORDERS,
    Listing,
    Query,
    entries_of,
    list_nuclei,
)
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.core.store.project import Project

SIDE = 20_000
MODELS = {1: "zebra@1", 2: "ant@2"}


def random_rows(n, seed=0):
    """Rows of the nuclei table without their cell."""
    random = np.random.default_rng(seed)
    by_person = random.random(n) < 0.05
    drawn = by_person & (random.random(n) < 0.5)
    ids = np.where(drawn, PERSON_ID_START, 1 << 14) + np.arange(n)
    y, x = random.uniform(10, SIDE - 10, (2, n))
    rejected = ~drawn & (random.random(n) < 0.02)
    covered = ~rejected & (random.random(n) < 0.02)
    return [
        (
            int(ids[i]),
            None if drawn[i] else int(random.integers(1, 3)),
            str(random.choice(["Ada", "Zoe", "bob"])) if by_person[i] or rejected[i] else None,
            float(y[i]),
            float(x[i]),
            int(y[i]) - 5,
            int(x[i]) - 5,
            int(y[i]) + 5,
            int(x[i]) + 5,
            float(random.integers(80, 4000)) / 16,
            int(random.integers(0, 4)),
            float(np.float32(random.uniform(0.5, 1))),
            3 if rejected[i] else int(covered[i]),
            2 if rejected[i] else int(random.random() < 0.3),
        )
        for i in range(n)
    ]


def put(project, rows):
    cells = project.census.cells(np.array([row[3:5] for row in rows])).tolist()
    with project.ledger.transaction() as database:
        database.executemany("INSERT INTO runs VALUES (?, ?, 'k')", MODELS.items())
        whole = [(*row[:3], cell, *row[3:]) for row, cell in zip(rows, cells, strict=True)]
        database.executemany(f"INSERT INTO nuclei VALUES ({','.join('?' * 15)})", whole)


@pytest.fixture(scope="module")
def rows():
    return random_rows(3000)


@pytest.fixture(scope="module")
def project(tmp_path_factory, rows):
    with Project.create(tmp_path_factory.mktemp("listing") / "p.nucleiseg", blank_slide(SIDE, SIDE)) as made:
        put(made, rows)
        yield made


def origin_of(row):
    return row[2] if row[2] is not None else MODELS[row[1]]


def is_wanted(row, query):
    shown, approved = row[12] == 0, row[13] == 1
    status = {
        "shown": shown,
        "open": shown and not approved,
        "approved": shown and approved,
        "rejected": row[12] == 3 and row[13] == 2,
    }
    return (
        status[query.status]
        and (query.class_number is None or row[10] == query.class_number)
        and (not query.origin or origin_of(row) == query.origin)
        and (query.least_um2 is None or row[9] >= query.least_um2)
        and (query.most_um2 is None or row[9] <= query.most_um2)
        and (query.region is None or query.region.contains_point(row[3], row[4]))
    )


KEYS = {
    "id": lambda row: row[0],
    "class": lambda row: row[10],
    "area": lambda row: row[9],
    "score": lambda row: int(row[11] * 1e6),
    "approved": lambda row: row[13] == 1,
    "y": lambda row: int(row[3] * 1000),
    "x": lambda row: int(row[4] * 1000),
    "origin": lambda row: origin_of(row).casefold(),
}


def plainly(rows, query):
    """Ids by Python's own sorting, which is stable: equal ones stay ascending by id."""
    found = sorted((row for row in rows if is_wanted(row, query)), key=lambda row: row[0])
    return [row[0] for row in sorted(found, key=KEYS[query.order], reverse=query.descending)]


regions = st.builds(
    Region, st.integers(-200, SIDE), st.integers(-200, SIDE), st.integers(0, SIDE), st.integers(0, SIDE)
)
queries = st.builds(
    Query,
    order=st.sampled_from(ORDERS),
    descending=st.booleans(),
    status=st.sampled_from(["shown", "open", "approved", "rejected"]),
    class_number=st.none() | st.integers(0, 4),
    origin=st.sampled_from(["", "", "zebra@1", "ant@2", "Ada", "nobody"]),
    least_um2=st.none() | st.floats(0, 250),
    most_um2=st.none() | st.floats(0, 250),
    region=st.none() | regions,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=queries)
def test_the_list_is_what_a_plain_search_finds(project, rows, query):
    found = list_nuclei(project.ledger.reader, project.census, query)
    assert found.ids.tolist() == plainly(rows, query)


def test_origins_are_the_models_and_then_the_people(project):
    found = list_nuclei(project.ledger.reader, project.census, Query())
    assert found.origins == ("zebra@1", "ant@2", "Ada", "bob", "Zoe")


def test_entries_say_what_the_rows_hold(project, rows):
    found = entries_of(project.ledger.reader, [row[0] for row in rows] + [7])
    assert len(found) == len(rows)
    for row in rows:
        entry = found[row[0]]
        assert (entry.class_number, entry.area_um2, entry.origin) == (row[10], row[9], origin_of(row))
        assert (*entry.centroid, entry.box) == (row[3], row[4], Region.from_bounds(*row[5:9]))
        assert entry.score == (None if row[1] is None else row[11])
        assert entry.status == ("rejected" if row[12] == 3 else "approved" if row[13] == 1 else "open")


def test_rows_of_nuclei_are_found(project, rows):
    listing = list_nuclei(project.ledger.reader, project.census, Query("area", descending=True))
    for row in (0, 17, len(listing) - 1):
        assert listing.row_of(int(listing.ids[row])) == row
    assert listing.row_of(5) is None
    assert listing.rows_of({int(listing.ids[40]), int(listing.ids[3]), 5}).tolist() == [3, 40]


def test_an_empty_slide_has_an_empty_list(fresh_project):
    project = fresh_project()
    for order in ORDERS:
        listing = list_nuclei(project.ledger.reader, project.census, Query(order, region=Region(0, 0, 50, 50)))
        assert (len(listing), listing.origins) == (0, ())
    assert len(Listing()) == 0


def test_a_hundred_thousand_are_listed_without_rows_in_python(tmp_path):
    with Project.create(tmp_path / "p.nucleiseg", blank_slide(SIDE, SIDE)) as project:
        rows = random_rows(100_000, seed=1)
        put(project, rows)
        query = Query("area", descending=True, status="open")
        found = list_nuclei(project.ledger.reader, project.census, query)
        assert found.ids.tolist() == plainly(rows, query)
        assert found.ids.nbytes == 4 * len(found)
