"""Nuclei found where the network runs: the same project, whether asked for by the environment or not."""

import threading

import numpy as np
import pytest
import torch
from darkness import Darkness, darkness_model, darkness_spec

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.evaluation import scores
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference import device_decode as module
from napari_nucleiseg.core.inference.device import Forward
from napari_nucleiseg.core.inference.device_decode import LABELS, DeviceDecode, device_decode, device_decode_wanted
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.predict import predict
from napari_nucleiseg.core.inference.segment import find_in_tiles, segment, segment_picture
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.slides.synthetic import synthetic_slide
from napari_nucleiseg.core.store.project import Project

VARIABLE = "NUCLEISEG_DEVICE_DECODE"
OPTIONS = DecodeOptions(0.5, 4.0)


@pytest.fixture(scope="module")
def slide():
    return synthetic_slide(400, 520, 0.5, seed=2, glass=False)


@pytest.fixture
def model():
    return darkness_model(tile_px=128, halo_px=40)


@pytest.fixture
def on_device(monkeypatch):
    """Set the variable and count what is decoded on the device."""
    monkeypatch.setenv(VARIABLE, "1")
    pictures, original = [], module.label_offsets

    def counted(nuclei, *rest):
        pictures.append(len(nuclei))
        return original(nuclei, *rest)

    monkeypatch.setattr(module, "label_offsets", counted)
    return pictures


def tiles_of(found):
    """Nuclei by tile, in an order that does not depend on how they are numbered."""
    tiles = {}
    for one in found:
        nuclei, order = one.nuclei, np.lexsort(one.nuclei.centroids.T)
        measures = np.column_stack([nuclei.centroids, nuclei.areas_um2, nuclei.boxes, nuclei.scores])[order]
        tiles[one.tile.index] = measures, nuclei.labels > 0, nuclei.box
    return tiles


def project_content(path, slide, model):
    """Segment into a new project; return its labels at full resolution and the centroids of its nuclei, sorted."""
    plan = plan_inference(slide, model.spec)
    with Project.create(path, slide) as project:
        done = list(segment(slide, model, project, plan, device="cpu"))
        assert not any(one.skipped for one in done)
        centroids = project.centroids_in(slide.region)
        return project.labels.read(slide.region), centroids[np.lexsort(centroids.T)]


@pytest.mark.parametrize(("value", "wanted"), [("", False), ("0", False), ("1", True)])
def test_it_is_asked_for_by_the_environment(monkeypatch, value, wanted):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not device_decode_wanted()
    monkeypatch.setenv(VARIABLE, value)
    assert device_decode_wanted() is wanted
    assert (device_decode(darkness_spec(), 0.5, OPTIONS, None) is not None) is wanted


def test_only_one_decoder_can_and_maps_alone_need_none(on_device):
    assert device_decode(darkness_spec(), 0.5, None, None) is None
    other = darkness_spec()
    object.__setattr__(other, "decoder", "watershed")
    assert device_decode(other, 0.5, OPTIONS, None) is None
    assert device_decode(darkness_spec(), 0.5, OPTIONS, None).kept == {"nuclei"}
    assert device_decode(darkness_spec(), 0.5, OPTIONS, ("nuclei", "offsets")).kept == {"nuclei", "offsets"}


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("mpp_um", [0.5, 0.25])
def test_tiles_hold_the_same_nuclei(monkeypatch, on_device, mpp_um, batch_size):
    """Also at the slide's edges, where nothing votes from beyond, and on slides finer than the model."""
    slide = synthetic_slide(360, 460, mpp_um, seed=3, glass=False)
    model = darkness_model(tile_px=128, halo_px=40)
    plan = plan_inference(slide, model.spec)
    found = tiles_of(find_in_tiles(slide, model, plan, device="cpu", batch_size=batch_size))
    assert sum(on_device) == len(plan.tiles)
    monkeypatch.delenv(VARIABLE)
    expected = tiles_of(find_in_tiles(slide, model, plan, device="cpu", batch_size=batch_size))
    assert sum(on_device) == len(plan.tiles)
    assert found.keys() == expected.keys()
    assert sum(len(measures) for measures, _, _ in found.values()) > 20
    for index, (measures, foreground, box) in expected.items():
        np.testing.assert_allclose(found[index][0], measures, rtol=1e-5)
        np.testing.assert_array_equal(found[index][1], foreground)
        assert found[index][2] == box


def test_offsets_stay_on_the_device_unless_wanted(on_device, slide, model):
    plan = plan_inference(slide, model.spec)
    for heads, there in ((None, {"nuclei"}), (("nuclei", "offsets"), {"nuclei", "offsets"})):
        for one in predict(plan, slide, model, device="cpu", heads=heads, options=OPTIONS):
            assert set(one.maps) == there
            assert one.labels.dtype == np.int32
            assert one.labels.shape == one.maps["nuclei"].shape[1:]
    assert all(one.labels is None for one in predict(plan, slide, model, device="cpu"))


def test_without_the_variable_maps_come_as_ever(monkeypatch, slide, model):
    monkeypatch.delenv(VARIABLE, raising=False)
    for one in predict(plan_inference(slide, model.spec), slide, model, device="cpu", options=OPTIONS):
        assert set(one.maps) == {"nuclei", "offsets"}
        assert one.labels is None


@pytest.mark.parametrize("options", [DecodeOptions(0.3, 4.0), DecodeOptions(0.5, 30.0)])
def test_threshold_and_smallest_area_reach_it(monkeypatch, on_device, slide, model, options):
    found = segment_picture(slide, model, options, "cpu")
    usual = segment_picture(slide, model, DecodeOptions(0.5, 4.0), "cpu")
    assert on_device
    monkeypatch.delenv(VARIABLE)
    expected = segment_picture(slide, model, options, "cpu")
    assert found.max() == expected.max()
    assert np.array_equal(found > 0, expected > 0)
    assert not np.array_equal(found > 0, usual > 0)


def test_two_runs_are_equal_to_the_byte(on_device, slide, model):
    one, other = (segment_picture(slide, model, device="cpu", batch_size=3) for _ in range(2))
    assert one.max() > 50
    np.testing.assert_array_equal(one, other)


def test_a_project_holds_the_same(monkeypatch, on_device, tmp_path, slide, model):
    found, centroids = project_content(tmp_path / "device.nucleiseg", slide, model)
    assert on_device
    monkeypatch.delenv(VARIABLE)
    expected, others = project_content(tmp_path / "host.nucleiseg", slide, model)
    assert len(centroids) > 50
    np.testing.assert_allclose(centroids, others, atol=1e-3)
    agreement = scores(expected, found, distances=False)
    assert agreement.f1 >= 0.995
    assert agreement.pq >= 0.995


def test_kept_maps_come_too_and_are_decoded_again_with_other_options(on_device, tmp_path, slide, model):
    plan = plan_inference(slide, model.spec)
    with Project.create(tmp_path / "kept.nucleiseg", slide) as project:
        list(segment(slide, model, project, plan, device="cpu", keep_maps=True))
        decoded = sum(on_device)
        assert decoded == len(plan.tiles)
        maps = project.maps.get(model.version, plan.tiles[0].index)
        assert set(maps) == {"nuclei", "offsets"}
        again = list(segment(slide, model, project, plan, DecodeOptions(0.6, 4.0), device="cpu", keep_maps=True))
    assert sum(one.n_nuclei for one in again) > 50
    assert sum(on_device) == decoded  # of kept maps, which lie here, the host finds the nuclei


class TooMany(Darkness):
    """`Darkness` that has no memory for more than one picture."""

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        if len(x) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(x)


def test_a_batch_cut_for_want_of_memory_keeps_each_picture_beside_its_window(on_device):
    model = LoadedModel(darkness_spec(), ModelCard("darkness", "darkness", sha256="d" * 64), TooMany().eval())
    picture = synthetic_slide(96, 96, 0.5, seed=1, density_per_mm2=4000, glass=False).read_region(Region(0, 0, 96, 96))
    windows = [Region(0, 0, 96, 96), Region(32, 0, 64, 96), Region(0, 16, 96, 80)]
    decode = DeviceDecode(0.5, 0.5, frozenset({"nuclei"}))
    told = []
    forward = Forward(model, "cpu", heads=("nuclei", "offsets"), decode=decode, on_message=told.append)
    labels = forward.start([picture] * 3, windows)()[LABELS]
    assert len(told) == 1
    assert labels.shape == (3, 1, 96, 96)
    for one, window in zip(labels[:, 0], windows, strict=True):
        assert one[window.slices].any()
        outside = np.ones_like(one, bool)
        outside[window.slices] = False
        assert not one[outside].any()


def test_no_thread_is_left(on_device, slide, model):
    segment_picture(slide, model, device="cpu")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nucleiseg")]
