"""The whole path into a real project: on disk is what was found, whatever the order, the views and the kills."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from darkness import darkness_model

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.segment import default_options, options_key, segment, segment_picture
from napari_nucleiseg.core.slides.synthetic import synthetic_slide
from napari_nucleiseg.core.store.project import Project

SIZE, MPP, SEED, TILE, HALO = 700, 0.5, 6, 128, 40


@pytest.fixture(scope="module")
def slide():
    return synthetic_slide(SIZE, SIZE, MPP, seed=SEED, glass=False)


@pytest.fixture(scope="module")
def expected(slide):
    return segment_picture(slide, darkness_model(tile_px=TILE, halo_px=HALO), device="cpu")


@pytest.fixture
def model():
    return darkness_model(tile_px=TILE, halo_px=HALO)


def assert_holds(project, slide, labels):
    """The project's image and table show the nuclei of `labels`, and those of the truth."""
    image = project.labels.read(slide.region)
    pairs = np.unique(np.stack([image.ravel(), labels.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1] == len(np.unique(pairs[1]))
    assert project.count_in(slide.region) == labels.max() == len(slide.truth_ids(slide.region))
    table = project.nuclei_in(slide.region)
    assert set(np.unique(image)) - {0} == set(table.ids.tolist())


def test_the_project_holds_what_segmenting_in_memory_finds(slide, model, expected, tmp_path):
    with Project.create(tmp_path / "p", slide) as project:
        plan = plan_inference(slide, model.spec)
        events = list(segment(slide, model, project, plan, device="cpu"))
        assert sum(event.n_nuclei for event in events) >= expected.max()
        assert_holds(project, slide, expected)
        assert project.tiles_done(model.version, options_key(plan, model, default_options(model))) == set(range(36))
        image = project.labels.read(slide.region)
    with Project.open(tmp_path / "p", slide, writable=False) as again:
        np.testing.assert_array_equal(again.labels.read(slide.region), image)


@pytest.mark.parametrize("seed", [0, 1])
def test_views_in_any_order_end_in_the_same_image(slide, model, expected, tmp_path, seed):
    rng = np.random.default_rng(seed)
    with Project.create(tmp_path / "p", slide) as project:
        for _ in range(6):
            region = Region(*rng.integers(0, SIZE - 200, 2).tolist(), 200, 250)
            list(segment(slide, model, project, plan_inference(slide, model.spec, region), device="cpu"))
        list(segment(slide, model, project, plan_inference(slide, model.spec), device="cpu"))
        assert_holds(project, slide, expected)


def test_other_options_replace_the_nuclei_without_a_forward(slide, model, tmp_path):
    strict = DecodeOptions(0.95, 4.0)
    plan = plan_inference(slide, model.spec)
    with Project.create(tmp_path / "p", slide) as project:
        list(segment(slide, model, project, plan, device="cpu", keep_maps=True))
        before = project.nuclei_in(slide.region)
        list(segment(slide, darkness_model(Refuses(), tile_px=TILE, halo_px=HALO), project, plan, strict, device="cpu"))
        after = project.nuclei_in(slide.region)
        assert after.areas_um2.sum() < 0.98 * before.areas_um2.sum()
        in_memory = segment_picture(slide, model, strict, device="cpu")
        image = project.labels.read(slide.region)
        np.testing.assert_array_equal(image > 0, in_memory > 0)
        assert len(after) == in_memory.max()


class Refuses(darkness_model().network.__class__):
    """A network that must not be run."""

    def forward(self, x):
        raise AssertionError("a forward although the maps were kept")


RUN = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
torch.set_num_threads(1)
from darkness import darkness_model
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.segment import segment
from napari_nucleiseg.core.slides.synthetic import synthetic_slide
from napari_nucleiseg.core.store.project import Project
slide = synthetic_slide({SIZE}, {SIZE}, {MPP}, seed={SEED}, glass=False)
model = darkness_model(tile_px={TILE}, halo_px={HALO})
with Project.open_or_create(sys.argv[1], slide) as project:
    for event in segment(slide, model, project, plan_inference(slide, model.spec), device="cpu"):
        print(event.tile.index, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_killed_again_and_again_it_ends_where_an_undisturbed_run_ends(slide, expected, tmp_path):
    folder, finished, rng = tmp_path / "p", [], np.random.default_rng(0)
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", RUN, str(folder)], stdout=subprocess.PIPE, text=True) as process:
            finished.extend(int(process.stdout.readline()) for _ in range(int(rng.integers(4, 10))))
            time.sleep(float(rng.uniform(0, 0.03)))
            process.send_signal(signal.SIGKILL)
            # What was told before the kill arrived is done as well.
            finished.extend(int(line) for line in process.stdout.read().split())
    result = subprocess.run([sys.executable, "-c", RUN, str(folder)], capture_output=True, text=True, check=True)
    finished += [int(line) for line in result.stdout.split()]
    assert len(set(finished)) >= 36 - 2  # a tile may be written but die before it is told
    assert len(finished) == len(set(finished)), "a tile that was told to be done was done again"
    with Project.open(folder, slide) as project:
        assert_holds(project, slide, expected)
