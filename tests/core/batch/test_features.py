"""Slides described by encoders: on one grid, tissue only, nothing done twice, broken slides told."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from broken_levels import broken_above
from napari_nucleiseg.core.batch import features
from napari_nucleiseg.core.batch.blocks import Block, regions_of, single_patches, tissue_patches
from napari_nucleiseg.core.batch.feature_job import FeatureJob, FeaturesFinished
from napari_nucleiseg.core.batch.features import extract_features
from napari_nucleiseg.core.batch.inputs import Input
from napari_nucleiseg.core.batch.job import SlideAdvanced, SlideFailed, SlideNoted, SlideStarted
from napari_nucleiseg.core.errors import ModelError, StoreError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.inference.plan import TileGrid
from napari_nucleiseg.core.models.encoders import build_encoder, load_encoder
from napari_nucleiseg.core.models.weights import ModelCard, save_model
from napari_nucleiseg.core.slides.fingerprint import former
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.synthetic import synthetic_slide
from napari_nucleiseg.core.slides.tissue import TissueMask
from napari_nucleiseg.core.training.cohort.bags import ENDING, read_bag, write_bag
from slide_factory import write_ome_zarr

SIDE = 32  # of a patch: small, so that a small scan holds regions
TESTS = Path(__file__).parents[2]


def save_encoder(path, network, seed, *, features_of="", **params):
    torch.manual_seed(seed)
    spec, built = build_encoder(network, {"depth": 1, "heads": 2, "grid": 2, "input_px": SIDE, **params})
    card = ModelCard(path.stem, network, licence="CC0-1.0", commercial_use=True, features_of=features_of)
    return save_model(path, built, spec, card)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def encoders(tmp_path):
    """Files of a tiny encoder of patches and of one of regions that reads its features."""
    patches, regions = tmp_path / "patches.safetensors", tmp_path / "regions.safetensors"
    card = save_encoder(patches, "hipt-256", 0, embed=24)
    save_encoder(regions, "hipt-4k", 1, embed=12, features=24, features_of=card.version)
    return patches, regions


@pytest.fixture(scope="session")
def picture():
    """Tissue in the upper left and glass elsewhere, 0.5 um: 2 x 1 full regions of patches of 32 px."""
    image = np.full((1100, 1200, 3), 243, np.uint8)
    image[:1024, :520] = synthetic_slide(1024, 520, mpp_um=0.5, seed=3, glass=False).levels[0][...]
    return image


@pytest.fixture
def scan(tmp_path, write_scan, picture):
    write_scan(tmp_path / "scan.svs", picture)
    return tmp_path / "scan.svs"


def run(*paths, out, encoders, cancelled=lambda: False, **changes):
    encoder, region = (*map(str, encoders), "")[:2]
    facts = {"encoder": encoder, "region_encoder": region, "device": "cpu", **changes}
    return list(extract_features(FeatureJob(tuple(map(str, paths)), str(out), **facts), cancelled=cancelled))


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def described(image, encoder):
    """Features of one patch, by the network itself."""
    spec = encoder.spec
    scaled = (image / 255 - np.array(spec.mean)) / np.array(spec.std)
    with torch.inference_mode():
        return encoder.network(torch.from_numpy(scaled.astype(np.float32)).permute(2, 0, 1)[None])[0].numpy()


def near(one, other):
    """Whether features are the same but for the precision of a device that multiplies bfloat16."""
    return float(np.abs(one - other).max()) < 0.06 * float(np.abs(other).max())


def test_patches_are_described_where_there_is_tissue(scan, tmp_path, encoders, picture):
    (finished,) = of(run(scan, out=tmp_path / "out", encoders=encoders[:1]), FeaturesFinished)
    bag = read_bag(finished.output)
    assert (finished.level, finished.count) == ("patch", len(bag.features))
    assert bag.features.shape[1] == 24
    assert (bag.boxes % SIDE == 0).all()
    assert (bag.boxes[:, 2:] - bag.boxes[:, :2] == SIDE).all()
    assert {tuple(box) for box in bag.boxes.tolist()} >= {
        (y, x, y + SIDE, x + SIDE) for y in range(0, 1024, SIDE) for x in range(0, 512, SIDE)
    }
    assert bag.boxes[:, 2].max() <= 1024 + 2 * SIDE  # the mask has a margin
    assert bag.boxes[:, 3].max() <= 520 + 3 * SIDE
    encoder = load_encoder(str(encoders[0]))
    slide = open_slide(scan)
    for place in (0, 17, len(bag.boxes) - 1):
        y0, x0, y1, x1 = bag.boxes[place]
        patch = slide.read_region(Region.from_bounds(y0, x0, y1, x1))
        assert near(bag.features[place], described(patch, encoder))
    assert not near(bag.features[0], bag.features[17])


def test_only_damage_of_the_level_that_is_read_is_told(scan, tmp_path, encoders, monkeypatch):
    monkeypatch.setattr(features, "open_slide", lambda *given, **facts: broken_above(open_slide(*given, **facts)))
    events = run(scan, out=tmp_path / "out", encoders=encoders[:1], tissue_mask=False)
    assert len(of(events, FeaturesFinished)) == 1
    assert of(events, SlideNoted) == []


def test_regions_are_described_from_their_patches(scan, tmp_path, encoders):
    (alone,) = of(run(scan, out=tmp_path / "alone", encoders=encoders[:1], tissue_mask=False), FeaturesFinished)
    events = run(scan, out=tmp_path / "out", encoders=encoders)
    (finished,) = of(events, FeaturesFinished)
    bag = read_bag(finished.output)
    assert (finished.level, finished.count) == ("region", 2)
    assert bag.boxes.tolist() == [[0, 0, 512, 512], [512, 0, 1024, 512]]
    assert of(events, SlideAdvanced)[-1].done == 2 * 16 * 16
    patches, regions = (load_encoder(str(path)) for path in encoders)
    single = read_bag(alone.output)
    each = {tuple(box): own for box, own in zip(single.boxes.tolist(), single.features, strict=True)}
    for number, (top, left, _, _) in enumerate(bag.boxes.tolist()):
        grid = np.stack(
            [
                [each[y, x, y + SIDE, x + SIDE] for x in range(left, left + 512, SIDE)]
                for y in range(top, top + 512, SIDE)
            ]
        )
        with torch.inference_mode():
            expected = regions.network(torch.from_numpy(grid).permute(2, 0, 1)[None])[0].numpy()
        assert near(bag.features[number], expected)
    assert bag.card.encoders == (patches.version, regions.version)
    assert (bag.card.slide, bag.card.licence, bag.card.commercial_use) == ("scan.svs", "CC0-1.0", True)


def test_a_slide_of_twice_the_resolution_is_described_at_the_encoders_own(tmp_path, write_scan, picture, encoders):
    write_scan(tmp_path / "fine.svs", np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1), mpp_um=0.25)
    write_scan(tmp_path / "scan.svs", picture)
    events = run(tmp_path / "fine.svs", tmp_path / "scan.svs", out=tmp_path / "out", encoders=encoders)
    fine, usual = (read_bag(event.output) for event in of(events, FeaturesFinished))
    np.testing.assert_array_equal(fine.boxes, 2 * usual.boxes)
    np.testing.assert_array_equal(fine.features, usual.features)


def test_little_tissue_is_described_by_smaller_regions(tmp_path, write_scan, picture, encoders):
    image = np.full_like(picture, 243)
    image[96:192, 160:288] = picture[:96, :128]
    write_scan(tmp_path / "biopsy.svs", image)
    (finished,) = of(run(tmp_path / "biopsy.svs", out=tmp_path / "out", encoders=encoders), FeaturesFinished)
    ((y0, x0, y1, x1),) = read_bag(finished.output).boxes.tolist()
    assert 0 <= 96 - y0 <= 2 * SIDE >= y1 - 192 >= 0
    assert 0 <= 160 - x0 <= 2 * SIDE >= x1 - 288 >= 0


def test_features_of_a_former_version_are_taken_and_told_from_those_of_other_pictures(scan, tmp_path, encoders):
    def once():
        (finished,) = of(run(scan, out=tmp_path / "out", encoders=encoders[:1]), FeaturesFinished)
        return finished.from_before, Path(finished.output)

    _, output = once()
    before = output.read_bytes()
    bag = read_bag(output)
    assert len(bag.card.fingerprint) == 48
    write_bag(output, replace(bag, card=replace(bag.card, fingerprint=former(bag.card.fingerprint))))
    assert output.read_bytes() != before
    assert once() == (True, output)
    assert output.read_bytes() == before


def test_features_of_a_folder_in_which_strays_counted_in_former_versions_are_taken(tmp_path, encoders, picture):
    folder = tmp_path / "scan.ome.zarr"
    write_ome_zarr(folder, picture, mpp_um=0.5)
    (folder / ".DS_Store").write_text("x")
    ends = hashlib.sha256()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(parent) / name for name in sorted(names)):
            ends.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode() + path.read_bytes())

    def once():
        (finished,) = of(run(folder, out=tmp_path / "out", encoders=encoders[:1]), FeaturesFinished)
        return finished.from_before, Path(finished.output)

    _, output = once()
    bag = read_bag(output)
    before = replace(bag.card, fingerprint=ends.hexdigest()[:32])
    assert before != bag.card
    write_bag(output, replace(bag, card=before))
    assert once() == (True, output)
    assert read_bag(output).card == bag.card
    write_bag(output, replace(bag, card=replace(bag.card, fingerprint="0" * 32)))
    assert once() == (False, output)


def test_what_is_done_is_not_done_again_unless_encoder_settings_or_slide_change(scan, tmp_path, encoders, picture):
    def again(**changes):
        (finished,) = of(run(scan, out=tmp_path / "out", encoders=encoders, **changes), FeaturesFinished)
        return finished.from_before, Path(finished.output).read_bytes()

    before, content = again()
    assert not before
    assert again() == (True, content)
    assert not again(region_tissue=0.3)[0]
    assert not again()[0]
    save_encoder(encoders[1], "hipt-4k", 2, embed=12, features=24)
    before, other = again()
    assert not before
    assert other != content
    Path(tmp_path / "out" / f"scan{ENDING}").write_bytes(other[:100])
    before, mended = again()
    assert (before, mended) == (False, other)


def test_a_file_goes_by_the_name_that_is_given_for_a_slide(scan, tmp_path, encoders):
    job = FeatureJob((str(scan),), str(tmp_path / "out"), str(encoders[0]), device="cpu")
    (finished,) = of(list(extract_features(job, inputs=[Input(str(scan), "17.32")])), FeaturesFinished)
    assert Path(finished.output).name == f"17.32{ENDING}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"17.32{ENDING}"]
    assert read_bag(finished.output).card.slide == "scan.svs"


def test_a_broken_slide_is_told_and_the_others_go_on(scan, tmp_path, encoders, picture, write_scan):
    (tmp_path / "broken.svs").write_text("no slide")
    write_scan(tmp_path / "glass.svs", np.full((300, 300, 3), 243, np.uint8))
    (tmp_path / "size.png").write_bytes(_png(picture[:200, :200]))
    paths = [tmp_path / name for name in ("broken.svs", "glass.svs", "size.png", "scan.svs")]
    events = run(*paths, out=tmp_path / "out", encoders=encoders)
    assert len(of(events, SlideStarted)) == 4
    broken, glass, size = of(events, SlideFailed)
    assert "broken.svs" in broken.reason
    assert "shows no patch of 32 px with at least 50% tissue" in glass.reason
    assert size.kind == "MissingPixelSizeError"
    assert [Path(event.output).name for event in of(events, FeaturesFinished)] == [f"scan{ENDING}"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"scan{ENDING}"]
    (told,) = of(run(tmp_path / "size.png", out=tmp_path / "out", encoders=encoders, mpp_um=0.5), FeaturesFinished)
    assert told.count == 1


def _png(image):
    import imagecodecs

    return imagecodecs.png_encode(np.ascontiguousarray(image))


def test_cancelled_between_batches_leaves_no_file(scan, tmp_path, encoders):
    asked = iter([False, False, True, True, True])
    events = run(scan, out=tmp_path / "out", encoders=encoders, cancelled=lambda: next(asked))
    assert len(of(events, SlideAdvanced)) == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_ends_the_run(scan, tmp_path, encoders, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_nucleiseg.core.training.cohort.bags.write_over", full)
    with pytest.raises(StoreError, match="free some space"):
        run(scan, out=tmp_path / "out", encoders=encoders)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": ""}, "name an encoder"),
        ({"patch_tissue": 1.5}, "patch_tissue must be between 0 and 1"),
        ({"readers": 0}, "at least one thread"),
        ({"encoder": "regions"}, "looks at regions, not at pixels"),
        ({"region_encoder": "patches"}, "looks at pixels, not at the features"),
        ({"region_encoder": "foreign"}, "foreign reads the features of someone@1, not those of patches@"),
        ({"region_encoder": "wide"}, "wide reads 30 features of patches of 32 px at 0.5 µm, patches gives 24 of 32 px"),
    ],
)
def test_what_does_not_go_together_is_told_before_work_starts(tmp_path, encoders, changes, said):
    save_encoder(tmp_path / "foreign.safetensors", "hipt-4k", 1, embed=12, features=24, features_of="someone@1")
    save_encoder(tmp_path / "wide.safetensors", "hipt-4k", 1, embed=12, features=30)
    named = {
        key: str(tmp_path / f"{value}.safetensors") for key, value in changes.items() if "encoder" in key and value
    }
    with pytest.raises(ModelError, match=said):
        run("none.svs", out=tmp_path / "out", encoders=encoders, **{**changes, **named})


def test_kill_and_rerun_repeats_at_most_one_slide(tmp_path, write_scan, picture, encoders):
    for number in range(4):
        write_scan(tmp_path / f"s{number}.svs", picture + np.uint8(number))
    paths, out = [tmp_path / f"s{number}.svs" for number in range(4)], tmp_path / "out"
    code = (
        "import sys, torch\ntorch.set_num_threads(1)\n"
        "from napari_nucleiseg.core.batch.feature_job import FeatureJob\n"
        "from napari_nucleiseg.core.batch.features import extract_features\n"
        f"job = FeatureJob({tuple(map(str, paths))!r}, {str(out)!r}, *{tuple(map(str, encoders))!r}, device='cpu')\n"
        "for event in extract_features(job): print(type(event).__name__, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    finished = 0
    for line in child.stdout:
        finished += line.strip() == "FeaturesFinished"
        if finished == 1 and line.strip() == "SlideAdvanced":
            child.send_signal(signal.SIGKILL)
            break
    child.wait()
    child.stdout.close()
    left = {path.name: path.stat().st_mtime_ns for path in out.glob(f"*{ENDING}")}
    assert 1 <= len(left) < 4
    events = of(run(*paths, out=out, encoders=encoders), FeaturesFinished)
    assert [event.from_before for event in events] == [f"s{number}{ENDING}" in left for number in range(4)]
    assert all((out / name).stat().st_mtime_ns == moment for name, moment in left.items())
    fresh = of(run(*paths, out=tmp_path / "fresh", encoders=encoders), FeaturesFinished)
    for one, other in zip(events, fresh, strict=True):
        assert Path(one.output).read_bytes() == Path(other.output).read_bytes()


def test_what_a_killed_run_left_half_written_goes_in_time(scan, tmp_path, encoders):
    out = tmp_path / "out"
    out.mkdir()
    old, new = out / f"scan{ENDING}.aa.part", out / f"scan{ENDING}.bb.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    run(scan, out=out, encoders=encoders)
    assert sorted(path.name for path in out.iterdir()) == [f"scan{ENDING}", f"scan{ENDING}.bb.part"]


def test_patches_at_the_edge_count_if_half_of_them_is_there():
    for height, rows in ((100, 3), (111, 3), (112, 4), (128, 4), (5, 1)):
        grid = TileGrid((height, 64), YX(1.0, 1.0), 32, 0, 32, 0)
        assert tissue_patches(grid, None, 0.5).shape == (rows, 2)


def test_a_patch_counts_by_its_share_of_tissue():
    grid = TileGrid((64, 96), YX(2.0, 2.0), 16, 0, 16, 0)
    mask = np.zeros((8, 12), np.bool_)
    mask[:4, :4], mask[:2, 4:8], mask[0, 8] = True, True, True
    tissue = TissueMask(mask, YX(8.0, 8.0))
    assert tissue_patches(grid, tissue, 0.5).tolist() == [[True, True, False], [False, False, False]]
    assert tissue_patches(grid, tissue, 0.0).tolist() == [[True, True, True], [False, False, False]]
    assert single_patches(tissue_patches(grid, tissue, 0.5)) == (Block(0, 0, 1, 1), Block(0, 1, 1, 1))


def test_regions_lie_on_one_grid_and_are_cut_only_where_none_is_enough():
    shown = np.zeros((10, 9), np.bool_)
    shown[0:4, 0:2] = True  # half of the first region
    shown[5, 6:8] = True
    assert regions_of(shown, 4, 0.5) == (Block(0, 0, 4, 4),)
    assert regions_of(shown, 4, 0.1) == (Block(0, 0, 4, 4), Block(4, 4, 4, 4))
    assert regions_of(shown, 4, 0.9) == (Block(0, 0, 4, 2), Block(5, 6, 1, 2))
    assert regions_of(np.ones((10, 9), np.bool_), 4, 0.5)[-1] == Block(8, 4, 2, 4)
    assert regions_of(np.zeros((3, 3), np.bool_), 4, 0.0) == ()
    grid = TileGrid((333, 300), YX(1.0, 1.0), 32, 0, 32, 0)
    assert Block(8, 4, 3, 4).region(grid) == Region.from_bounds(256, 128, 333, 256)
    assert list(Block(1, 2, 2, 2).patches(grid)) == [12, 13, 22, 23]
