"""The stash: all nuclei of a square together, in the order they came, whether they fit into memory or not."""

import numpy as np
import pytest

from napari_nucleiseg.core.exchange.rasterise import Spans
from napari_nucleiseg.core.exchange.stash import ATTRIBUTES, CELL_PX, Stash


@pytest.mark.parametrize("memory_bytes", [1 << 30, 20_000, 0])
def test_nuclei_come_back_by_square(memory_bytes):
    rng = np.random.default_rng(2)
    put = {}
    with Stash(5 * CELL_PX, memory_bytes) as stash:
        for first in range(0, 600, 50):
            attributes = np.zeros(50, ATTRIBUTES)
            attributes["id"] = np.arange(first, first + 50) + 1
            counts = rng.integers(1, 5, 50)
            owners = np.repeat(np.arange(50), counts).astype(np.int32)
            corners = rng.integers(0, 5 * CELL_PX - 10, (50, 2))
            rows = corners[owners, 0] + np.concatenate([np.arange(count) for count in counts])
            starts = corners[owners, 1]
            table = Spans(owners, rows.astype(np.int32), starts.astype(np.int32), (starts + 3).astype(np.int32))
            stash.put(table, attributes)
            for k in range(50):
                mine = table.taken(owners == k)
                put[first + k + 1] = (mine.rows.tolist(), mine.starts.tolist(), mine.stops.tolist())
        cells = []
        back = {}
        squares = len(stash)
        for spans, attributes in stash.take():
            assert np.unique(spans.owners).tolist() == list(range(len(attributes)))
            assert (np.diff(spans.owners) >= 0).all()
            assert (np.diff(attributes["id"]) > 0).all()
            for k, name in enumerate(attributes["id"].tolist()):
                mine = spans.taken(spans.owners == k)
                back[name] = (mine.rows.tolist(), mine.starts.tolist(), mine.stops.tolist())
                cells.append((mine.rows[0] // CELL_PX, mine.starts[0] // CELL_PX))
        assert back == put
        assert cells == sorted(cells)
        assert squares == len(set(cells))
        assert len(stash) == 0
