"""The whole path: exact counts, independence of order, batch, workers and view, resuming, cancelling, full disks."""

import threading

import numpy as np
import pytest
import torch
from blank import blank_slide
from darkness import Darkness, darkness_model

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.decoders.measure import centroids_of
from napari_nucleiseg.core.errors import ModelError, SlideError, StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.segment import default_options, options_key, segment, segment_picture
from napari_nucleiseg.core.inference.stitch import join_tiles
from napari_nucleiseg.core.slides.pyramid import DamagedTile
from napari_nucleiseg.core.slides.synthetic import synthetic_slide


class MemoryMaps:
    def __init__(self):
        self.kept = {}

    def declare(self, version, layout):
        self.layout = layout

    def tiles(self, version):
        return {index for known, index in self.kept if known == version}

    def get(self, version, index):
        return self.kept.get((version, index))

    def put(self, version, index, maps):
        self.kept[version, index] = {name: values.copy() for name, values in maps.items()}


class MemoryProject:
    """What `segment` needs of a project, without a disk; `room` is how many tiles fit."""

    def __init__(self, room=10**9):
        self.maps, self.written, self.room, self.flushed = MemoryMaps(), {}, room, 0

    def tiles_done(self, version, key):
        return set(self.written.get((version, key), {}))

    def write_tile(self, nuclei, version, key):
        if sum(map(len, self.written.values())) >= self.room:
            raise StoreError("the disk is full")
        self.written.setdefault((version, key), {})[nuclei.tile_index] = nuclei

    def flush(self):
        self.flushed += 1

    def tiles(self):
        (tiles,) = self.written.values()
        return tiles


class Counts(Darkness):
    """`Darkness` that counts the tiles it sees."""

    def __init__(self):
        super().__init__()
        self.tiles = 0

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        self.tiles += len(x)
        return super().forward(x)


def engine_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("nucleiseg")]


def panoptic_quality(found, truth):
    """PQ at IoU 0.5 of two label images."""
    width = int(truth.max()) + 1
    pairs, shared = np.unique(found.astype(np.int64) * width + truth, return_counts=True)
    one, other = np.divmod(pairs, width)
    areas, true_areas = np.bincount(found.ravel()), np.bincount(truth.ravel())
    iou = shared / (areas[one] + true_areas[other] - shared)
    matched = iou[(one > 0) & (other > 0) & (iou > 0.5)]
    n_found, n_true = (areas[1:] > 0).sum(), (true_areas[1:] > 0).sum()
    return matched.sum() / (len(matched) + (n_found - len(matched)) / 2 + (n_true - len(matched)) / 2)


def assert_each_truth_is_found_once(found, truth):
    width = int(truth.max()) + 1
    pairs, shared = np.unique(found.astype(np.int64) * width + truth, return_counts=True)
    one, other = np.divmod(pairs, width)
    areas, true_areas = np.bincount(found.ravel()), np.bincount(truth.ravel())
    good = (one > 0) & (other > 0) & (shared / (areas[one] + true_areas[other] - shared) > 0.5)
    assert sorted(other[good]) == sorted(set(np.unique(truth)) - {0})
    assert found.max() == good.sum()


@pytest.fixture(scope="module")
def slide():
    return synthetic_slide(700, 800, 0.5, seed=2, glass=False)


@pytest.fixture(scope="module")
def truth(slide):
    return slide.truth_labels(slide.region)


@pytest.fixture
def model():
    return darkness_model(tile_px=128, halo_px=40)


def same_labels(one, other):
    """Whether two label images are equal up to numbering."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == pairs.shape[1] == len(np.unique(pairs[1]))


@pytest.mark.parametrize(("mpp", "tile"), [(0.5, 128), (0.25, 128), (0.25, 96), (0.2, 128)])
def test_counts_are_exact_and_no_nucleus_is_cut_lost_or_doubled(mpp, tile):
    slide = synthetic_slide(round(300 / mpp), round(350 / mpp), mpp, seed=4, glass=False)
    found = segment_picture(slide, darkness_model(tile_px=tile, halo_px=40), device="cpu")
    assert_each_truth_is_found_once(found, slide.truth_labels(slide.region))


def test_tiled_equals_untiled(slide, model):
    tiled = segment_picture(slide, model, device="cpu")
    whole = segment_picture(slide, darkness_model(tile_px=1024, halo_px=40), device="cpu")
    assert panoptic_quality(tiled, whole) >= 0.99
    assert same_labels(tiled, whole)


def test_a_20x_and_a_40x_scan_of_the_same_tissue_have_the_same_nuclei():
    found = {}
    for mpp in (0.5, 0.25):
        slide = synthetic_slide(round(256 / mpp), round(256 / mpp), mpp, seed=5, glass=False)
        labels = segment_picture(slide, darkness_model(tile_px=128, halo_px=40), device="cpu")
        areas = np.bincount(labels.ravel())[1:] * mpp**2
        found[mpp] = (centroids_of(labels)[1:] + 0.5) * mpp, areas
    (coarse, coarse_areas), (fine, fine_areas) = found[0.5], found[0.25]
    assert len(coarse) == len(fine) > 200
    distance = np.linalg.norm(coarse[:, None] - fine[None], axis=2)
    nearest = distance.argmin(1)
    assert sorted(nearest) == list(range(len(fine)))
    assert distance.min(1).max() < 0.3
    assert np.median(np.abs(fine_areas[nearest] / coarse_areas - 1)) < 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_order_of_tiles_changes_nothing(slide, model, truth, seed):
    project = MemoryProject()
    plan = plan_inference(slide, model.spec)
    list(segment(slide, model, project, plan, device="cpu"))
    tiles = list(project.tiles().values())
    expected = join_tiles(tiles, slide.shape)
    assert_each_truth_is_found_once(expected, truth)
    np.random.default_rng(seed).shuffle(tiles)
    np.testing.assert_array_equal(join_tiles(tiles, slide.shape), expected)


@pytest.mark.parametrize("batch_size", [2, 7])
def test_batches_change_nothing(slide, model, batch_size):
    one = segment_picture(slide, model, device="cpu", batch_size=1)
    np.testing.assert_array_equal(segment_picture(slide, model, device="cpu", batch_size=batch_size), one)


def test_wandering_over_the_slide_gives_what_the_whole_slide_gives(slide, model):
    whole, views = MemoryProject(), MemoryProject()
    list(segment(slide, model, whole, plan_inference(slide, model.spec), device="cpu"))
    rng = np.random.default_rng(0)
    for _ in range(12):
        region = Region(*rng.integers(0, 600, 2).tolist(), *rng.integers(50, 300, 2).tolist())
        list(segment(slide, model, views, plan_inference(slide, model.spec, region), device="cpu"))
    assert 10 < len(views.tiles()) <= len(whole.tiles())
    for index, nuclei in views.tiles().items():
        same = whole.tiles()[index]
        assert nuclei.box == same.box
        np.testing.assert_array_equal(nuclei.labels, same.labels)
        np.testing.assert_array_equal(nuclei.centroids, same.centroids)


def test_tiles_are_told_as_they_are_done(slide, model):
    project = MemoryProject()
    plan = plan_inference(slide, model.spec)
    told = list(segment(slide, model, project, plan, device="cpu"))
    assert [event.tile for event in told] == list(plan.tiles)
    assert [event.done for event in told] == list(range(1, len(plan) + 1))
    assert {event.total for event in told} == {len(plan)}
    for event in told:
        assert not event.skipped
        assert event.reason == ""
        assert event.seconds > 0
        assert event.n_nuclei == len(project.tiles()[event.tile.index])
        assert event.region.contains(event.tile.core)
    assert project.flushed == 1
    assert engine_threads() == []


def test_what_is_done_is_not_done_again(slide):
    network = Counts()
    model = darkness_model(network, tile_px=128, halo_px=40)
    project, plan = MemoryProject(), plan_inference(slide, model.spec)
    first = segment(slide, model, project, plan, device="cpu")
    for _ in range(5):
        next(first)
    first.close()
    assert engine_threads() == []
    assert len(project.tiles()) == 5
    network.tiles = 0
    rest = list(segment(slide, model, project, plan, device="cpu"))
    assert network.tiles == len(rest) == len(plan) - 5
    assert rest[0].done == 6
    assert rest[-1].done == rest[-1].total == len(plan)
    network.tiles = 0
    assert list(segment(slide, model, project, plan, device="cpu")) == []
    assert network.tiles == 0


def test_what_the_c_library_keeps_is_bounded_after_each_segmentation(slide, model, monkeypatch):
    ended = []
    monkeypatch.setattr("napari_nucleiseg.core.inference.segment.bound_kept_memory", lambda: ended.append(True))
    run = segment(slide, model, MemoryProject(), plan_inference(slide, model.spec), device="cpu")
    next(run)
    assert ended == []
    run.close()
    assert ended == [True]


def test_kept_maps_are_decoded_with_other_options_without_a_forward(slide):
    network = Counts()
    model = darkness_model(network, tile_px=128, halo_px=40)
    project, plan = MemoryProject(), plan_inference(slide, model.spec)
    list(segment(slide, model, project, plan, DecodeOptions(0.5, 4), device="cpu", keep_maps=True))
    network.tiles = 0
    list(segment(slide, model, project, plan, DecodeOptions(0.9, 4), device="cpu", keep_maps=True))
    assert network.tiles == 0
    fresh = MemoryProject()
    list(segment(slide, model, fresh, plan, DecodeOptions(0.9, 4), device="cpu"))
    strict = project.written[model.version, options_key(plan, model, DecodeOptions(0.9, 4))]
    for index, nuclei in fresh.tiles().items():
        np.testing.assert_array_equal(nuclei.labels, strict[index].labels)
    loose = project.written[model.version, options_key(plan, model, DecodeOptions(0.5, 4))]
    assert sum(n.areas_um2.sum() for n in strict.values()) < sum(n.areas_um2.sum() for n in loose.values())


def test_kept_maps_of_another_pixel_size_are_not_used():
    network = Counts()
    model = darkness_model(network, tile_px=128, halo_px=40)
    project = MemoryProject()
    for mpp in (0.5, 0.25):
        slide = synthetic_slide(200, 200, mpp, glass=False)
        network.tiles = 0
        list(segment(slide, model, project, plan_inference(slide, model.spec), device="cpu", keep_maps=True))
        assert network.tiles > 0


def test_options_and_geometry_have_one_stable_name(slide, model):
    plan = plan_inference(slide, model.spec)
    assert options_key(plan, model, default_options(model)) == "offsets2:t0.5:a4:128+40@1x1"


@pytest.mark.parametrize("options", [DecodeOptions(0.0), DecodeOptions(0.5, -1)])
def test_options_that_make_no_sense_are_refused_before_work_starts(slide, model, options):
    with pytest.raises(ModelError, match=r"threshold must lie|cannot be negative"):
        next(segment(slide, model, MemoryProject(), plan_inference(slide, model.spec), options))
    with pytest.raises(ModelError, match=r"threshold must lie|cannot be negative"):
        segment_picture(slide, model, options)


def test_more_tiles_than_can_be_numbered_are_refused(model):
    slide = blank_slide(128 * 400, 128 * 400)
    with pytest.raises(ModelError, match="160,000 tiles"):
        next(segment(slide, model, MemoryProject(), plan_inference(slide, model.spec, Region(0, 0, 10, 10))))


def test_after_cancelling_at_most_one_more_tile_is_written(slide, model):
    stop = threading.Event()
    project = MemoryProject()
    run = segment(slide, model, project, plan_inference(slide, model.spec), device="cpu", cancelled=stop.is_set)
    for _ in range(3):
        next(run)
    stop.set()
    assert len(list(run)) <= 1
    assert len(project.tiles()) <= 4
    assert engine_threads() == []


def test_a_finished_tile_is_told_while_the_next_is_still_computed(slide):
    """The first tile must not wait for the second forward."""
    go_on, calls = threading.Event(), []

    class Blocks(Darkness):
        def __deepcopy__(self, memo):
            return self

        def forward(self, x):
            calls.append(len(x))
            if len(calls) > 1:
                assert go_on.wait(20)
            return super().forward(x)

    model = darkness_model(Blocks(), tile_px=128, halo_px=40)
    run = segment(slide, model, MemoryProject(), plan_inference(slide, model.spec), device="cpu")
    first = next(run)
    assert first.n_nuclei > 0
    assert not go_on.is_set()
    go_on.set()
    run.close()
    assert engine_threads() == []


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(slide, model):
    project = MemoryProject(room=3)
    seen = []
    with pytest.raises(StoreError, match="the disk is full"):
        seen.extend(segment(slide, model, project, plan_inference(slide, model.spec), device="cpu"))
    assert len(seen) == len(project.tiles()) == 3
    assert project.flushed == 1
    assert engine_threads() == []
    project.room = 10**9
    list(segment(slide, model, project, plan_inference(slide, model.spec), device="cpu"))
    assert len(project.tiles()) == len(plan_inference(slide, model.spec))


def test_an_unreadable_tile_is_told_and_tried_again_next_time(model):
    broken = threading.Event()
    broken.set()

    def paint(y, x, height, width):
        if broken.is_set() and Region(y, x, height, width).overlaps(Region(180, 180, 4, 4)):
            raise SlideError("the bytes make no sense")
        return np.full((height, width, 3), 255, np.uint8)

    slide = blank_slide(128 * 3, 128 * 3, paint=paint)
    project, plan = MemoryProject(), plan_inference(slide, model.spec)
    events = list(segment(slide, model, project, plan, device="cpu"))
    assert [event.tile.index for event in events if event.skipped] == [4]
    assert "cannot be read: the bytes make no sense" in events[0].reason
    assert events[-1].done == 9
    broken.clear()
    assert [event.tile.index for event in segment(slide, model, project, plan, device="cpu")] == [4]


def test_a_partly_damaged_tile_is_done_and_told(model):
    slide = blank_slide(128 * 2, 128 * 2)
    slide.damage.append(DamagedTile(Region(10, 10, 20, 20), "cut off"))
    events = list(segment(slide, model, MemoryProject(), plan_inference(slide, model.spec), device="cpu"))
    assert [(event.tile.index, event.skipped) for event in events if event.reason] == [(0, False)]


def test_a_tile_of_noise_with_absurdly_many_nuclei_is_left_out_with_a_sentence():
    dots = np.full((1024, 1024, 3), 255, np.uint8)
    dots[::7, ::7] = 0
    dots[1::7, ::7] = dots[::7, 1::7] = dots[1::7, 1::7] = 0
    slide = blank_slide(1024, 1024, 1.0, paint=lambda y, x, h, w: dots[y : y + h, x : x + w])
    model = darkness_model(tile_px=1024, halo_px=40, mpp_um=1.0)
    (event,) = segment(slide, model, MemoryProject(), plan_inference(slide, model.spec), DecodeOptions(0.5, 0))
    assert event.skipped
    assert "which no tissue has" in event.reason


def test_lost_memory_is_told_and_costs_no_nucleus(slide, truth):
    class Small(Darkness):
        def forward(self, x):
            if len(x) > 1:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(x)

    told = []
    model = darkness_model(Small(), tile_px=128, halo_px=40)
    project = MemoryProject()
    plan = plan_inference(slide, model.spec)
    list(segment(slide, model, project, plan, device="cpu", batch_size=4, on_message=told.append))
    assert len(told) == 2
    assert_each_truth_is_found_once(join_tiles(project.tiles().values(), slide.shape), truth)


def test_the_next_forward_runs_while_a_tile_is_written(slide):
    second_forward = threading.Event()

    class Tells(Darkness):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def __deepcopy__(self, memo):
            return self

        def forward(self, x):
            self.calls += 1
            if self.calls == 2:
                second_forward.set()
            return super().forward(x)

    class Waits(MemoryProject):
        def write_tile(self, *arguments):
            assert second_forward.wait(20), "the forward waited for the disk"
            super().write_tile(*arguments)

    model = darkness_model(Tells(), tile_px=128, halo_px=40)
    project, plan = Waits(), plan_inference(slide, model.spec)
    list(segment(slide, model, project, plan, device="cpu"))
    assert len(project.tiles()) == len(plan)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (7, 9)])
def test_tiny_pictures_give_label_images_of_their_size(model, shape):
    for paint in (None, lambda _y, _x, h, w: np.zeros((h, w, 3), np.uint8)):
        labels = segment_picture(blank_slide(*shape, paint=paint), model, device="cpu")
        assert labels.shape == shape
        assert labels.dtype == np.int32
