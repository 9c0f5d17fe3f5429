"""Stacks become nuclei block by block: as if in one, in bounded memory, until it is cancelled."""

from dataclasses import replace

import numpy as np
import pytest

from napari_nucleiseg.core.errors import ModelError, VoxelSizeError
from napari_nucleiseg.core.inference.stacks import StackOptions, plan_blocks, segment_blocks, segment_stack
from napari_nucleiseg.core.models.registry import network_spec
from small_models import small_model
from stack_parts import SHAPE, VOXEL_UM, Bright, balls, bright_model, stack_scores

CPU = StackOptions(device="cpu")


@pytest.fixture(scope="module")
def stack():
    return balls(12, shape=(32, 72, 80))


class Watched:
    """A volume that remembers how much of it was read at once."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.most = values, values.shape, values.dtype, 0

    def __getitem__(self, key):
        part = self.values[key]
        self.most = max(self.most, part.size)
        return part


@pytest.mark.parametrize("voxel_um", [VOXEL_UM, (0.5, 0.25, 0.25), (1.0, 1.0, 1.0)])
def test_all_balls_are_found_at_any_voxel_size(voxel_um):
    shape = tuple(round(32 / side) for side in voxel_um)
    image, labels = balls(10, shape=shape, voxel_um=voxel_um, seed=3)
    found = segment_stack(image, bright_model(), voxel_um, CPU)
    assert found.dtype == np.int32
    assert found.shape == shape
    scores = stack_scores(labels, found)
    assert scores.pred_count == found.max() == 10
    assert scores.f1 == 1.0
    assert scores.aji > 0.75


def test_blocks_say_the_same_as_the_whole_and_cut_no_nucleus(stack):
    image, labels = stack
    whole = segment_stack(image, bright_model(), VOXEL_UM, CPU)
    steps = []
    parts = segment_stack(image, bright_model(tile_px=32), VOXEL_UM, CPU, on_progress=steps.append)
    assert stack_scores(whole, parts).pq > 0.98
    assert stack_scores(labels, parts).f1 == 1.0
    assert [step.done for step in steps] == list(range(1, 19))
    assert steps[-1].total == 18
    assert steps[-1].nuclei == parts.max() == 12


def test_nuclei_on_the_border_of_blocks_are_there_once():
    image, labels = np.full((32, 64, 64), 20, np.uint8), np.zeros((32, 64, 64), np.int32)
    z, y, x = np.mgrid[:32, :64, :64]
    for number, (cz, cy, cx) in enumerate(((16, 32, 32), (16, 32, 8), (16, 8, 31.5), (16, 55.5, 32.5)), start=1):
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= 49] = number
    image[labels > 0] = 200
    found = segment_stack(image, bright_model(tile_px=32), (0.5, 0.5, 0.5), CPU)
    scores = stack_scores(labels, found)
    assert (scores.f1, scores.pred_count) == (1.0, 4)


def test_a_large_stack_is_read_in_parts():
    image, _ = balls(6, shape=(16, 280, 64), seed=1)
    volume = Watched(image)
    found = segment_stack(volume, bright_model(tile_px=64), VOXEL_UM, CPU)
    assert found.max() == 6
    assert volume.most < image.size / 2


def test_cancelled_it_keeps_what_is_done(stack):
    image, _ = stack
    done = []
    found = segment_stack(
        image, bright_model(tile_px=32), VOXEL_UM, CPU, on_progress=done.append, cancelled=lambda: len(done) >= 6
    )
    assert len(done) == 6
    assert 0 < found.max() < 12


def test_labels_may_lie_in_a_file_and_what_is_there_stays(stack, tmp_path):
    image, labels = stack
    out = np.memmap(tmp_path / "labels", np.int32, "w+", shape=image.shape)
    kept = labels == 5
    out[kept] = 77
    found = segment_stack(image, bright_model(), VOXEL_UM, CPU, out=out)
    assert found is out
    assert (out[kept] == 77).all()
    assert len(np.unique(out)) == 1 + 12
    assert out.max() == 77 + 11


def test_a_stack_in_colour_has_dark_nuclei():
    image, labels = balls(6, seed=2)
    colour = np.stack([255 - image] * 3, axis=-1)
    assert stack_scores(labels, segment_stack(colour, bright_model(), VOXEL_UM, CPU)).f1 == 1.0


def test_threshold_and_size_are_those_of_the_card_unless_chosen(stack):
    image, _ = stack
    assert segment_stack(image, bright_model(min_area_um2=200.0), VOXEL_UM, CPU).max() == 0
    chosen = StackOptions(min_area_um2=8.0, device="cpu")
    assert segment_stack(image, bright_model(min_area_um2=200.0), VOXEL_UM, chosen).max() == 12
    with pytest.raises(ModelError, match="threshold must lie between 0 and 1"):
        segment_stack(image, bright_model(), VOXEL_UM, StackOptions(threshold=2.0))


def test_what_does_not_fit_is_refused_in_a_sentence():
    image = np.zeros(SHAPE, np.uint8)
    with pytest.raises(ModelError, match=r"small-nuclei is for slides and pictures, not for stacks\. Train one"):
        segment_stack(image, small_model(), VOXEL_UM)
    with pytest.raises(VoxelSizeError, match=r"sees voxels of 0\.5 µm, and those of this stack measure 20 x 1 x 1 µm"):
        segment_stack(image, bright_model(), (20, 1, 1))
    with pytest.raises(ModelError, match="the labels have the shape"):
        list(segment_blocks(image, bright_model(), VOXEL_UM, np.zeros((1, 2, 3), np.int32)))


@pytest.mark.parametrize("head", ["nuclei", "distance"])
def test_what_is_no_number_is_refused_in_a_sentence(stack, head):
    class Wild(Bright):
        def forward(self, x):
            heads = super().forward(x)
            heads[head] = heads[head].clone()
            heads[head][..., 3, 4, 5] = np.nan
            return heads

    model = replace(bright_model(), network=Wild())
    with pytest.raises(ModelError, match=rf"unet-3d says what is no number .* for {head}: .* choose another model"):
        segment_stack(stack[0], model, VOXEL_UM, CPU)


def test_blocks_cover_the_stack_once_and_fit_the_network():
    spec = network_spec("v-net")
    sides = (20, 200, 97)
    count = np.zeros(sides, np.uint8)
    for block in plan_blocks(sides, spec):
        count[block.core] += 1
        assert all(side % spec.size_multiple == 0 for side in block.shape)
        for core, start, side, whole in zip(block.core, block.start, block.shape, sides, strict=True):
            assert start <= core.start - min(spec.halo_px, 4)
            assert start + side >= min(core.stop + spec.halo_px, whole)
    assert (count == 1).all()
