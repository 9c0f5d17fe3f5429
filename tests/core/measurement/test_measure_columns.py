"""The list of columns is what is measured, and the page explains each."""

from pathlib import Path

import numpy as np

from napari_nucleiseg.core.exchange.table import COLUMNS as OF_TABLE
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.measurement.block import measure_nuclei
from napari_nucleiseg.core.measurement.columns import COLUMNS, ENTROPY_BINS, ENTROPY_TOP, NAMES

PAGE = Path(__file__).parents[3] / "docs" / "measurements.md"


def test_what_is_measured_is_the_list_in_its_order(field, picture):
    ids = np.unique(field[field > 0]).astype(np.uint32)
    centroids = np.zeros((len(ids), 2))
    values = measure_nuclei(field, picture, ids, centroids, centroids, mpp_um=YX(1, 1))
    assert tuple(values) == NAMES
    assert {(column.dtype, column.shape) for column in values.values()} == {(np.dtype(np.float32), (len(ids),))}


def test_names_and_titles_are_told_apart():
    assert len({*NAMES, *OF_TABLE}) == len(NAMES) + len(OF_TABLE)
    assert len({column.title.replace(",", "") for column in COLUMNS}) == len(COLUMNS)
    assert all(column.about.endswith(".") for column in COLUMNS)


def test_the_page_explains_every_column():
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in page] == []
    assert f"in {ENTROPY_BINS} steps of {ENTROPY_TOP / ENTROPY_BINS:g}" in page
