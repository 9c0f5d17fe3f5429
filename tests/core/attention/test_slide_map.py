"""Where a model of whole slides looked: the file is read or refused, and each box has its rank in its place."""

import json
import re

import numpy as np
import pytest

from napari_nucleiseg.core.attention.slide_map import MOST_PX, SlideAttention, read_slide_attention, slide_map
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.pyramid import Slide


def slide_of(height=640, width=960, path="/slides/a.svs"):
    return Slide(path, (np.zeros((height, width, 3), np.uint8),), (YX(1, 1),), YX(0.5, 0.5), fingerprint="f")


def said_of(boxes, attention, slide="a.svs"):
    return SlideAttention(slide, "mil@1", "", np.array(boxes, np.int64), np.array(attention, np.float32))


def write(path, **more):
    told = {
        "slide": "a.svs", "aggregator": "mil@1", "prediction": "tumour", "scores": {"tumour": 0.75},
        "boxes": [[0, 0, 64, 64]], "attention": [1.0],
    }  # fmt: skip
    path.write_text(json.dumps(told | more))
    return path


def at(shown, y, x):
    """Value at a level-0 place."""
    token = shown.grid.tokens_at(np.array(float(y)), np.array(float(x)))
    return shown.values.ravel()[token]


def test_a_file_is_read_as_it_was_written(tmp_path):
    said = read_slide_attention(write(tmp_path / "a.attention.json"))
    assert (said.slide, said.aggregator, said.prediction) == ("a.svs", "mil@1", "tumour")
    assert said.scores == {"tumour": 0.75}
    np.testing.assert_array_equal(said.boxes, [[0, 0, 64, 64]])
    assert (said.boxes.dtype, said.attention.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize(
    "more",
    [
        {"boxes": [[0, 0, 64]]},
        {"boxes": [[0, 0, 64, 64], [0, 64, 64, 128]]},
        {"attention": [], "boxes": []},
        {"attention": [float("nan")]},
        {"attention": ["much"]},
        {"attention": [[1.0]]},
        {"attention": 1.0},
        {"boxes": None},
        {"boxes": [[0, 0, 10**30, 64]]},
        {"scores": [1, 2]},
    ],
)
def test_what_says_something_else_is_refused_with_a_sentence(tmp_path, more):
    with pytest.raises(DataError, match=re.escape("cohort predict` wrote")):
        read_slide_attention(write(tmp_path / "a.attention.json", **more))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe\x00"])
def test_garbage_is_refused_with_a_sentence(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match="does not say where a model of slides looked"):
        read_slide_attention(tmp_path / "a.json")


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        read_slide_attention(tmp_path / "none.json")


def test_each_box_has_its_rank_in_its_place_and_the_rest_is_unknown():
    boxes = [[0, 0, 256, 256], [0, 256, 256, 512], [256, 512, 512, 768]]
    shown = slide_map(said_of(boxes, [0.7, 0.1, 0.2]), slide_of())
    assert [at(shown, y, x) for y, x in ((3, 3), (250, 300), (300, 760))] == pytest.approx([1, 1 / 3, 2 / 3])
    assert np.isnan(at(shown, 300, 3))
    assert np.isnan(at(shown, 600, 900))
    assert shown.limits == (0.0, 1.0)
    assert shown.values.dtype == np.float32
    known = ~np.isnan(shown.values)
    assert known.sum() * shown.grid.token_px.y * shown.grid.token_px.x == 3 * 256 * 256


def test_equal_shares_have_equal_ranks():
    shown = slide_map(said_of([[0, 0, 64, 64], [0, 64, 64, 128]], [0.5, 0.5]), slide_of())
    assert at(shown, 1, 1) == at(shown, 1, 100) == pytest.approx(0.75)


def test_boxes_that_are_cut_at_the_edge_reach_it():
    shown = slide_map(said_of([[600, 900, 640, 960], [0, 0, 640, 900]], [0.9, 0.1]), slide_of())
    assert at(shown, 639.5, 959.5) == 1.0
    assert at(shown, 639.5, 850) == 0.5


def test_a_huge_slide_has_a_small_map_in_which_no_box_is_lost():
    side = 200_000
    huge = Slide("/slides/a.svs", (np.broadcast_to(np.uint8(0), (side, side, 3)),), (YX(1, 1),), YX(0.25, 0.25))
    boxes = [[90_000, 90_000, 90_064, 90_064], [150_000, 10, 150_064, 74]]
    shown = slide_map(said_of(boxes, [0.1, 0.9]), huge)
    assert max(shown.values.shape) <= MOST_PX + 1
    assert sorted(shown.values[~np.isnan(shown.values)].tolist()) == [0.5, 1.0]


def test_a_file_of_another_slide_is_refused():
    with pytest.raises(DataError, match=r"of b\.svs, not of a\.svs"):
        slide_map(said_of([[0, 0, 64, 64]], [1.0], "b.svs"), slide_of())
    with pytest.raises(DataError, match="beside this slide"):
        slide_map(said_of([[0, 0, 64, 1000]], [1.0]), slide_of())
    with pytest.raises(DataError, match="beside this slide"):
        slide_map(said_of([[-64, 0, 64, 64]], [1.0]), slide_of())
    slide_map(said_of([[0, 0, 64, 64]], [1.0], ""), slide_of())


@pytest.mark.parametrize("box", [[0, 0, 0, 64], [64, 64, 0, 0]])
def test_boxes_without_an_extent_are_refused(tmp_path, box):
    with pytest.raises(DataError, match="does not say where"):
        read_slide_attention(write(tmp_path / "a.json", boxes=[box]))
