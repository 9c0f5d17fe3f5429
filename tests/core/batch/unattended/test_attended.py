import numpy as np
import pytest

from napari_nucleiseg.core.batch.unattended.attended import AttentionMeasures, JoinedMeasures
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.exchange.source import Column
from napari_nucleiseg.core.store.nuclei import NucleiTable


def table(centroids, side=4):
    places, count = np.array(centroids, np.float64), len(centroids)
    corners = np.rint(places).astype(np.int64)
    return NucleiTable(
        ids=np.arange(1, count + 1, dtype=np.uint32),
        centroids=places,
        boxes=np.concatenate([corners - side // 2, corners + side // 2], axis=1),
        areas_um2=np.ones(count, np.float32),
        classes=np.zeros(count, np.int32),
        scores=np.ones(count, np.float32),
        origins=np.full(count, "m", object),
        approved=np.zeros(count, bool),
    )


@pytest.fixture
def maps(tmp_path):
    path = tmp_path / "a.npz"
    values = np.zeros((3, 2, 2), np.float32)
    values[0] = [[0.1, 0.2], [0.3, 0.4]]
    values[1] = 1 - values[0]
    values[2, 0, 0] = np.nan
    np.savez(
        path, maps=values, names=np.array(["0", "1", "mean"]), origin_px=np.array([100.0, 200.0]),
        token_px=np.array([16.0, 16.0]), mpp_um=np.array([0.5, 0.5]),
    )  # fmt: skip
    return path


def test_each_head_is_a_column_measured_where_it_looked(maps):
    found = AttentionMeasures(maps)
    assert [column.name for column in found.columns] == [
        "attention_head_1", "attention_head_2", "attention_mean",
    ]  # fmt: skip
    assert found.columns[0].title == "Attention, head 1"
    # As `scaling.scaled` ranks them.
    assert "among the places of its patch" in found.columns[0].about
    values = found.of(table([(108, 208), (108, 224), (124, 208), (500, 500)]))
    np.testing.assert_allclose(values["attention_head_1"][:3], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(values["attention_head_2"][:3], [0.9, 0.8, 0.7])
    assert np.isnan(values["attention_head_1"][3])
    assert np.isnan(values["attention_mean"][0])


def test_a_nucleus_on_two_tokens_gets_the_mean(maps):
    values = AttentionMeasures(maps).of(table([(108, 215.5)], side=8))
    assert 0.12 < values["attention_head_1"][0] < 0.18


def test_columns_stand_side_by_side(maps):
    class Ones:
        columns = (Column("one", "One"),)

        def of(self, nuclei):
            return {"one": np.ones(len(nuclei), np.float32)}

    joined = JoinedMeasures(Ones(), AttentionMeasures(maps))
    values = joined.of(table([(108, 208)]))
    assert list(values) == [column.name for column in joined.columns]
    assert values["one"] == [1]


def test_a_file_that_holds_no_maps_is_told(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="holds no maps of attention"):
        AttentionMeasures(tmp_path / "a.npz")
    with pytest.raises(DataError, match="holds no maps of attention"):
        AttentionMeasures(tmp_path / "none.npz")
