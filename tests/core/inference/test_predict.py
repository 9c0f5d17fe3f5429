"""Prediction: the same maps whatever the batch, the threads and the neighbours; errors, damage and cancelling."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from blank import blank_slide
from darkness import Darkness, darkness_model, darkness_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from broken_levels import broken_above
from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.device import Forward
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.predict import MAX_UNREADABLE, predict, read_tile
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.slides.pyramid import DamagedTile
from napari_nucleiseg.core.slides.synthetic import synthetic_slide


def engine_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("nucleiseg")]


@pytest.fixture(scope="module")
def slide():
    return synthetic_slide(400, 500, 0.5, seed=1, glass=False)


@pytest.fixture
def model():
    return darkness_model(tile_px=128, halo_px=40)


def maps_of(predictions):
    return {prediction.tile.index: prediction.maps for prediction in predictions}


def assert_same_maps(one, other):
    assert one.keys() == other.keys()
    for index, maps in one.items():
        for name, values in maps.items():
            np.testing.assert_array_equal(values, other[index][name])


@pytest.mark.parametrize(("batch_size", "readers"), [(1, 3), (3, 1), (8, 4)])
def test_maps_do_not_depend_on_batch_or_threads(slide, model, batch_size, readers):
    plan = plan_inference(slide, model.spec)
    expected = maps_of(predict(plan, slide, model, device="cpu", batch_size=1, readers=1))
    found = maps_of(predict(plan, slide, model, device="cpu", batch_size=batch_size, readers=readers))
    assert len(expected) == len(plan) == 16
    assert_same_maps(found, expected)


def test_maps_do_not_depend_on_the_view(slide, model):
    whole = maps_of(predict(plan_inference(slide, model.spec), slide, model, device="cpu"))
    view = plan_inference(slide, model.spec, Region(130, 90, 100, 200))
    part = maps_of(predict(view, slide, model, device="cpu"))
    assert 0 < len(part) < len(whole)
    assert_same_maps(part, {index: whole[index] for index in part})


def test_a_trained_network_gives_the_same_maps_in_any_batch(slide):
    torch.manual_seed(0)
    spec = network_spec("nuclei", {"width": 16, "depth": 2})
    model = LoadedModel(spec, ModelCard("nuclei", "nuclei"), build_network(spec).eval())
    model.spec = replace(spec, tile_px=128, halo_px=32)
    plan = plan_inference(slide, model.spec)
    expected = maps_of(predict(plan, slide, model, device="cpu", batch_size=1))
    found = maps_of(predict(plan, slide, model, device="cpu", batch_size=5))
    for index, maps in expected.items():
        assert np.abs(maps["nuclei"].astype(int) - found[index]["nuclei"]).max() <= 1
        np.testing.assert_allclose(maps["offsets"], found[index]["offsets"], atol=0.02)


@given(
    st.integers(1, 80), st.integers(1, 80), st.sampled_from([1.0, 2.0, 0.5]), st.sampled_from([0, 12]), st.integers()
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_beyond_the_edge_the_picture_is_mirrored(height, width, factor, margin, seed):
    picture = np.random.default_rng(abs(seed)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    slide = blank_slide(height, width, 0.5 / factor, paint=lambda y, x, h, w: picture[y : y + h, x : x + w])
    spec = darkness_spec(tile_px=32, halo_px=8, output_margin_px=margin)
    plan = plan_inference(slide, spec)
    extent = plan.grid.extent
    whole = slide.read_box(0, 0, factor, factor, (extent.height, extent.width))
    room = 32 + 2 * (8 + 12)
    mirrored = np.pad(whole, ((room, room), (room, room), (0, 0)), mode="reflect")
    for tile in plan.tiles:
        pixels = read_tile(slide, plan.grid, tile)
        box = tile.box_px.expand(margin).translate(room, room)
        assert pixels.shape[:2] == (box.height, box.width)
        if factor == 1.0:
            np.testing.assert_array_equal(pixels, mirrored[box.slices])
        else:
            # Resampling may round differently where it starts elsewhere.
            assert np.abs(pixels.astype(int) - mirrored[box.slices]).max() <= 1


def test_valid_convolutions_get_their_margin_and_maps_cover_the_slide(slide):
    class Valid(nn.Module):
        def forward(self, x):
            assert x.shape[2] == x.shape[3] == 128 + 2 * 16 + 2 * 20
            inner = x[:, :, 20:-20, 20:-20]
            return Darkness()(inner)

    padded, valid = (
        maps_of(predict(plan_inference(slide, model.spec, Region(130, 130, 100, 100)), slide, model, device="cpu"))
        for model in (
            darkness_model(tile_px=128, halo_px=16),
            darkness_model(Valid(), tile_px=128, halo_px=16, output_margin_px=20),
        )
    )
    assert_same_maps(padded, valid)


def test_the_first_tile_goes_alone(slide, model):
    sizes = []

    class Counts(Darkness):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    model = darkness_model(Counts(), tile_px=128, halo_px=40)
    list(predict(plan_inference(slide, model.spec, Region(0, 0, 300, 384)), slide, model, device="cpu", batch_size=4))
    assert sizes[0] == 1
    assert sum(sizes) == 9
    assert max(sizes) == 4


def test_after_cancelling_at_most_one_more_tile_comes(slide, model):
    plan = plan_inference(slide, model.spec)
    for batch_size in (1, 4):
        stop = threading.Event()
        predictions = predict(plan, slide, model, device="cpu", batch_size=batch_size, cancelled=stop.is_set)
        next(predictions)
        next(predictions)
        stop.set()
        assert len(list(predictions)) <= 1
        assert engine_threads() == []


class Notes:
    """Replaces `Forward.start` and notes when batches are started and when their maps are waited for."""

    def __init__(self, monkeypatch, ahead):
        self.log, original = [], Forward.start
        monkeypatch.setattr(Forward, "ahead", ahead)

        def start(forward, pixels, windows):
            number = sum(word == "start" for word, _ in self.log)
            self.log.append(("start", number))
            wait = original(forward, pixels, windows)

            def waited():
                self.log.append(("wait", number))
                return wait()

            return waited

        monkeypatch.setattr(Forward, "start", start)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_device_that_computes_by_itself_has_the_next_batch_before_the_last_is_waited_for(
    monkeypatch, slide, model, batch_size
):
    plan = plan_inference(slide, model.spec)
    expected = list(predict(plan, slide, model, device="cpu", batch_size=batch_size))
    notes = Notes(monkeypatch, ahead=1)
    found = list(predict(plan, slide, model, device="cpu", batch_size=batch_size))
    assert [one.tile.index for one in found] == [one.tile.index for one in expected]
    assert_same_maps(maps_of(found), maps_of(expected))
    assert all(one.seconds > 0 for one in found)
    last = max(number for _, number in notes.log)
    # The first tile goes alone and is waited for at once; then one batch is always ahead.
    pairs = [step for number in range(2, last + 1) for step in (("start", number), ("wait", number - 1))]
    assert notes.log == [("start", 0), ("wait", 0), ("start", 1), *pairs, ("wait", last)]


def test_a_cpu_finishes_each_batch_before_the_next(monkeypatch, slide, model):
    notes = Notes(monkeypatch, ahead=Forward.ahead)
    list(predict(plan_inference(slide, model.spec), slide, model, device="cpu"))
    assert notes.log == [step for number in range(16) for step in (("start", number), ("wait", number))]


def test_after_cancelling_what_a_gpu_has_in_work_is_not_waited_for(monkeypatch, slide, model):
    notes = Notes(monkeypatch, ahead=1)
    stop = threading.Event()
    predictions = predict(
        plan_inference(slide, model.spec), slide, model, device="cpu", batch_size=2, cancelled=stop.is_set
    )
    next(predictions)
    next(predictions)
    stop.set()
    assert list(predictions) == []
    assert notes.log == [("start", 0), ("wait", 0), ("start", 1), ("start", 2), ("wait", 1)]
    assert engine_threads() == []


def test_unreadable_tiles_keep_their_place_when_a_batch_is_ahead(monkeypatch, model):
    Notes(monkeypatch, ahead=1)
    spot = Region(128 + 50, 128 + 50, 10, 10)
    slide = blank_slide(128 * 3, 128 * 3, paint=unreadable_where(spot.overlaps))
    plan = plan_inference(slide, model.spec)
    predictions = list(predict(plan, slide, model, device="cpu", batch_size=3))
    assert [one.tile.index for one in predictions] == [tile.index for tile in plan.tiles]
    assert [one.tile.index for one in predictions if not one.maps] == [4]


def test_closing_leaves_no_thread(slide, model):
    predictions = predict(plan_inference(slide, model.spec), slide, model, device="cpu", readers=3)
    next(predictions)
    assert engine_threads() != []
    predictions.close()
    assert engine_threads() == []


def test_reading_runs_ahead_but_not_far(model):
    slide = blank_slide(128 * 10, 128 * 10)
    predictions = predict(plan_inference(slide, model.spec), slide, model, device="cpu", batch_size=1, readers=2)
    next(predictions)
    end = time.monotonic() + 10
    while slide.levels[0].reads <= 1:
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.2)
    assert slide.levels[0].reads <= 5
    predictions.close()


def unreadable_where(bad):
    def paint(y, x, height, width):
        if bad(Region(y, x, height, width)):
            raise SlideError("the bytes make no sense")
        return np.full((height, width, 3), 255, np.uint8)

    return paint


def test_a_tile_that_cannot_be_read_is_marked_and_the_rest_goes_on(model):
    spot = Region(128 + 50, 128 + 50, 10, 10)
    slide = blank_slide(128 * 3, 128 * 3, paint=unreadable_where(spot.overlaps))
    predictions = list(predict(plan_inference(slide, model.spec), slide, model, device="cpu"))
    assert len(predictions) == 9
    bad = [prediction for prediction in predictions if not prediction.maps]
    assert [prediction.tile.index for prediction in bad] == [4]
    assert bad[0].reason == "tile 4 (row 1, column 1) cannot be read: the bytes make no sense"


def test_a_slide_that_is_gone_ends_the_run_with_a_sentence(model):
    reads = iter(range(1000))
    slide = blank_slide(128 * 6, 128 * 6, paint=unreadable_where(lambda _: next(reads) >= 5))
    seen = []
    with pytest.raises(SlideError, match=f"{MAX_UNREADABLE} tiles in a row cannot be read.*drive seems to be gone"):
        seen.extend(predict(plan_inference(slide, model.spec), slide, model, device="cpu"))
    assert sum(bool(prediction.maps) for prediction in seen) == 5
    assert engine_threads() == []


def test_errors_that_nobody_expects_say_which_tile(model):
    def paint(*_):
        raise LookupError("a bug")

    slide = blank_slide(300, 300, paint=paint)
    with pytest.raises(LookupError, match="a bug") as caught:
        list(predict(plan_inference(slide, model.spec), slide, model, device="cpu"))
    assert "tile 4 (row 1, column 1) of blank" in caught.value.__notes__[0]
    assert engine_threads() == []


def test_damage_in_a_tile_is_told_and_a_wholly_damaged_tile_is_skipped(model):
    slide = blank_slide(128 * 3, 128 * 3)
    slide.damage.append(DamagedTile(Region(130, 130, 20, 20), "cut off"))
    slide.damage.extend(DamagedTile(Region(0, x, 128, 64), "cut off") for x in (0, 64))
    predictions = {p.tile.index: p for p in predict(plan_inference(slide, model.spec), slide, model, device="cpu")}
    assert predictions[4].maps
    assert predictions[4].reason == "part of tile 4 (row 1, column 1) is damaged: cut off"
    assert not predictions[0].maps
    assert predictions[0].reason == "tile 0 (row 0, column 0) is damaged: cut off"
    assert [index for index, prediction in predictions.items() if prediction.reason] == [4, 0]


def test_damage_in_two_pieces_that_overlap_does_not_hide_what_is_whole(model):
    slide = blank_slide(128, 128)
    slide.damage.extend(DamagedTile(Region(0, x, 128, 70), "cut off") for x in (0, 20))
    (prediction,) = predict(plan_inference(slide, model.spec), slide, model, device="cpu")
    assert prediction.maps
    assert prediction.reason == "part of tile 0 (row 0, column 0) is damaged: cut off"
    slide.damage.append(DamagedTile(Region(-9, 80, 200, 100), "cut off"))
    (prediction,) = predict(plan_inference(slide, model.spec), slide, model, device="cpu")
    assert not prediction.maps


def test_damage_of_a_level_that_is_not_read_costs_no_tile(model):
    slide = broken_above(blank_slide(128 * 2, 128 * 2))
    plan = plan_inference(slide, model.spec)
    assert [(bool(p.maps), p.reason) for p in predict(plan, slide, model, device="cpu")] == [(True, "")] * 4
    coarse = darkness_model(tile_px=128, halo_px=40, mpp_um=1.0)
    (prediction,) = predict(plan_inference(slide, coarse.spec), slide, coarse, device="cpu")
    assert prediction.reason == "tile 0 (row 0, column 0) is damaged: its bytes are gone"


def test_the_next_tile_is_read_while_one_is_forwarded():
    third_read, reads, forwards = threading.Event(), [], []

    class Waits(Darkness):
        def forward(self, x):
            forwards.append(len(x))
            if len(forwards) == 2:
                assert third_read.wait(10), "reading waited for the forward"
            return super().forward(x)

    def paint(_y, _x, height, width):
        reads.append(1)
        if len(reads) == 3:
            third_read.set()
        return np.full((height, width, 3), 255, np.uint8)

    slide = blank_slide(128 * 4, 128 * 4, paint=paint)
    model = darkness_model(Waits(), tile_px=128, halo_px=40)
    assert len(list(predict(plan_inference(slide, model.spec), slide, model, device="cpu", readers=1))) == 16


def test_the_valid_u_net_of_2015_covers_the_slide_seamlessly(slide):
    """Tiles of the published network, mirrored at the edges, give what one large tile gives."""
    torch.manual_seed(0)
    spec = network_spec("unet-2015", {"width": 4})
    card, network = ModelCard("unet-2015", "unet-2015"), build_network(spec).eval()
    joined = {}
    for tile_px in (128, 640):
        model = LoadedModel(replace(spec, tile_px=tile_px, halo_px=34 if tile_px == 128 else 50), card, network)
        plan = plan_inference(slide, model.spec)
        canvas = np.full((400, 500), np.nan)
        for prediction in predict(plan, slide, model, device="cpu"):
            tile = prediction.tile
            rows, columns = tile.core_px.translate(-tile.inside_px.y, -tile.inside_px.x).slices
            canvas[tile.core_px.slices] = prediction.maps["separated"][0, rows, columns]
        joined[tile_px] = canvas
    assert np.isfinite(joined[128]).all()
    # The halos begin at the same phase of the pooling (34 and 50 differ by 16): equal but for rounding.
    assert np.abs(joined[128] - joined[640]).max() <= 2
