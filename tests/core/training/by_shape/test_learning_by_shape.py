"""A network learns from nuclei that were found by their shape: labelled once, held out, resumed, told what is wrong."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from napari_nucleiseg.core.errors import DataError, SlideError, WeightsError
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.models.weights import load_model, read_card
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training import validation
from napari_nucleiseg.core.training.by_shape import labels as labels_module
from napari_nucleiseg.core.training.by_shape import loop
from napari_nucleiseg.core.training.by_shape.config import ByShapeConfig, load_by_shape_config
from napari_nucleiseg.core.training.by_shape.labels import Labelling
from napari_nucleiseg.core.training.by_shape.loop import learn_by_shape
from napari_nucleiseg.core.training.config import AugmentConfig, DataSet, TrainConfig, config_as_json
from napari_nucleiseg.core.training.samples import LabelledImage
from napari_nucleiseg.core.training.scales.config import SlideSet
from napari_nucleiseg.core.training.scales.samples import ScaleSource
from napari_nucleiseg.core.training.validation import Validator
from unlabelled_parts import tissue_picture

CALM = AugmentConfig(scale=1, elastic_um=0, stain=0, stain_transfer=0, colour=0, blur_px=0, noise=0, jpeg=0)


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    """Folder of four pictures."""
    folder = tmp_path_factory.mktemp("tissue")
    for number in range(4):
        tifffile.imwrite(folder / f"p{number}.tif", tissue_picture(number, 288), photometric="rgb")
    return folder


@pytest.fixture
def config(tissue, tmp_path):
    """Six steps of a tiny network on four pictures, one of them held out."""
    return ByShapeConfig(
        out=str(tmp_path / "run"),
        params={"width": 8, "depth": 2, "widest": 16},
        slides=(SlideSet(str(tissue), 0.25, licence="CC0-1.0", name="discs"),),
        steps=6,
        crop_px=64,
        batch_size=2,
        validate_every=3,
        device="cpu",
        threads=1,
    )


def run(config, sources=None):
    """Return what was said of labelling, and the steps."""
    seen = list(learn_by_shape(config, sources))
    labelling = [one for one in seen if isinstance(one, Labelling)]
    return labelling, seen[len(labelling) :]


def windows(config, part):
    (folder,) = (one.parent for one in open_folder(config).glob("windows-*/labels.json"))
    return sorted(path.name for path in (folder / part / "labels").glob("*.tif")) if (folder / part).exists() else []


def open_folder(config):
    return Path(config.out)


def test_it_labels_every_slide_holds_one_out_and_finds_nuclei(config):
    quick = replace(config, steps=60, validate_every=60, learning_rate=1e-2, augment=CALM)
    labelling, steps = run(quick)
    assert {one.name for one in labelling} == {"p0", "p1", "p2", "p3"}
    assert all(one.nuclei >= 3 for one in labelling)
    assert [step.step for step in steps] == list(range(1, 61))
    assert steps[-1].loss < 0.8 * steps[0].loss
    assert steps[-1].validation["dice"] > 0.5
    assert (len(windows(quick, "learned")), len(windows(quick, "held-out"))) == (3, 1)


def test_what_is_seen_of_the_tile_is_told_where_it_is_measured(config):
    _, steps = run(config)
    glances = {step.step: step.glance for step in steps if step.glance is not None}
    assert sorted(glances) == [3, 6]
    for glance in glances.values():
        assert glance.picture.dtype == np.uint8
        assert glance.attention.shape == glance.picture.shape[:2]
        assert 0 <= glance.attention.min() <= glance.attention.max() <= 1
    assert np.array_equal(glances[3].picture, glances[6].picture)
    assert [step.step for step in steps if step.validation] == [3, 6]


def test_the_card_says_that_nobody_labelled_and_whose_licence_it_is(config):
    run(config)
    card = read_card(open_folder(config) / "best.safetensors")
    assert card.training_data == ("discs, no labels: nuclei by their shape (CC0-1.0)",)
    assert (card.licence, card.commercial_use, card.network) == ("CC0-1.0", True, "nuclei")
    silent = replace(config, out=f"{config.out}-silent", slides=(replace(config.slides[0], licence=""),))
    run(silent)
    card = read_card(open_folder(silent) / "best.safetensors")
    assert (card.licence, card.commercial_use) == ("unknown", False)


def test_stopped_it_keeps_its_weights_and_goes_on_to_the_same(config, monkeypatch):
    _, whole = run(config)
    expected = load_model(f"{config.out}/best.safetensors").network.state_dict()
    cut = replace(config, out=f"{config.out}-cut")
    with closing(learn_by_shape(cut)) as steps:
        for step in steps:
            if getattr(step, "step", 0) == 2:
                break
    # Before anything was measured.
    assert read_card(open_folder(cut) / "best.safetensors").notes.startswith("step 2 of 6")

    def again(*_):
        raise AssertionError("labelled twice")

    monkeypatch.setattr(labels_module, "label_windows", again)
    labelling, rest = run(cut)
    assert labelling == []
    assert [step.step for step in rest] == [3, 4, 5, 6]
    assert rest[-1].validation == pytest.approx(whole[-1].validation, abs=1e-4)
    found = load_model(f"{cut.out}/best.safetensors").network.state_dict()
    assert all(torch.allclose(expected[key].float(), found[key].float(), atol=1e-5) for key in expected)


def test_labels_that_were_not_finished_are_made_anew(config):
    with closing(learn_by_shape(config)) as steps:
        next(steps)
    assert not list(open_folder(config).glob("windows-*/labels.json"))
    labelling, _ = run(config)
    assert len(labelling) == 4
    # A file that a crash has left in part says nothing.
    (told,) = open_folder(config).glob("windows-*/labels.json")
    told.write_text(told.read_text()[:10])
    (open_folder(config) / "last.pt").unlink()
    assert len(run(config)[0]) == 4


def test_other_slides_get_labels_of_their_own(config, tissue):
    run(config)
    fewer = replace(config, slides=(SlideSet(str(tissue), 0.25, include=("p[01]",)),), resume=False)
    run(fewer)
    assert len(list(open_folder(config).glob("windows-*"))) == 2


def test_another_pixel_size_gets_labels_of_its_own_and_a_run_of_other_windows_is_not_gone_on_with(config):
    run(config)
    right = replace(config, slides=(replace(config.slides[0], mpp_um=0.5),))
    with pytest.raises(WeightsError, match=r"another output folder or switch resuming off.*pixel sizes"):
        run(right)
    assert len(run(replace(right, resume=False))[1]) == 6
    read = [tifffile.imread(next(folder.glob("*/images/*.tif"))).shape for folder in open_folder(config).glob("win*")]
    assert sorted(read) == [(128, 128, 3), (288, 288, 3)]


def wide_slide(tissue, folder):
    """A slide with room for several windows."""
    pictures = [tifffile.imread(tissue / f"p{number}.tif") for number in range(4)]
    wide = np.concatenate([np.concatenate(pictures, 1)] * 2, 1)
    tifffile.imwrite(folder / "wide [1].tif", wide, photometric="rgb")
    return folder / "wide [1].tif"


def test_of_a_single_slide_some_windows_are_held_out(config, tissue, tmp_path):
    one = replace(config, slides=(SlideSet(str(wide_slide(tissue, tmp_path)), 0.5),), hold_out=0.3)
    labelling, steps = run(one)
    assert len(labelling) >= 4
    assert len(windows(one, "held-out")) == len(labelling) // 3
    assert steps[-1].validation
    # With few windows there is still one to measure on.
    few = replace(one, out=f"{one.out}-few", windows=2, hold_out=0.1)
    _, steps = run(few)
    assert (len(windows(few, "learned")), len(windows(few, "held-out"))) == (1, 1)
    assert steps[-1].validation
    nothing = replace(one, out=f"{one.out}-all", hold_out=0.0)
    _, steps = run(nothing)
    assert windows(nothing, "held-out") == []
    assert all(step.validation is None for step in steps)
    assert steps[2].glance is not None
    assert (open_folder(nothing) / "best.safetensors").exists()


def test_only_regions_are_looked_at_where_some_are_named(config, tissue, tmp_path):
    path = wide_slide(tissue, tmp_path)
    part = replace(config, slides=(SlideSet(str(path), 0.5, regions=("0:0:288:576",)),), hold_out=0.0)
    run(part)
    corners = [int(name.removesuffix(".tif").split("_")[-1]) for name in windows(part, "learned")]
    assert corners
    assert max(corners) <= 288


def test_slides_that_are_open_stay_open(config, tissue):
    slides = [open_slide(tissue / f"p{number}.tif", mpp_um=0.25) for number in range(2)]
    sources = [ScaleSource(f"s{number}", slide) for number, slide in enumerate(slides)]
    run(config, sources)
    assert slides[0].read_box(0, 0, 1, 1, (8, 8)).shape == (8, 8, 3)
    card = read_card(open_folder(config) / "best.safetensors")
    assert card.training_data[0].startswith("s0, s1, no labels")


def test_glass_is_passed_over_and_glass_alone_is_refused(config, tissue, tmp_path):
    glass = tmp_path / "glass.tif"
    tifffile.imwrite(glass, np.full((288, 288, 3), 244, np.uint8), photometric="rgb")
    both = replace(config, slides=(*config.slides, SlideSet(str(glass), 0.25)))
    labelling, _ = run(both)
    (note,) = (one.note for one in labelling if one.note)
    assert note.startswith("glass is passed over: ")
    assert labelling[-1].done <= labelling[-1].total
    with pytest.raises(DataError, match="no nucleus was found by its shape"):
        run(replace(config, out=f"{config.out}-glass", slides=(SlideSet(str(glass), 0.25),)))


def test_a_slide_that_cannot_be_read_is_passed_over(config, tissue, monkeypatch):
    slides = [open_slide(tissue / f"p{number}.tif", mpp_um=0.25) for number in range(3)]

    def broken(*_args, **_more):
        raise SlideError("its drive is gone.")

    monkeypatch.setattr(slides[1], "read_box", broken)
    labelling, steps = run(config, [ScaleSource(f"s{number}", slide) for number, slide in enumerate(slides)])
    (note,) = (one.note for one in labelling if one.note)
    assert note == "s1 is passed over: its drive is gone."
    assert len(steps) == 6


def test_of_many_slides_fewer_windows_are_taken(config, tissue, tmp_path, monkeypatch):
    wide = wide_slide(tissue, tmp_path)
    monkeypatch.setattr(labels_module, "MOST_WINDOWS", 4)
    slides = tuple(SlideSet(str(wide), 0.5, name=str(number)) for number in range(2))
    labelling, _ = run(replace(config, slides=slides, hold_out=0.0))
    assert len(labelling) == 4
    assert labelling[-1].done == labelling[-1].total == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"slides": ()}, "name at least one slide"),
        ({"windows": 0}, "windows"),
        ({"network": "unet-3d", "params": {}}, "is for stacks"),
        ({"augment": AugmentConfig(jpeg=2.0)}, "augmentation"),
        ({"crop_px": 8}, "crop_px"),
    ],
)
def test_what_is_wrong_is_said(config, change, sentence):
    with pytest.raises(DataError, match=sentence):
        run(replace(config, **change))


def test_a_full_disk_is_named(config, monkeypatch):
    def full(path, _content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("napari_nucleiseg.core.training.scales.shape_set.write_over", full)
    with pytest.raises(DataError, match="No space left on device"):
        run(config)


def test_the_configuration_comes_back_from_a_file(config, tmp_path):
    told = json.loads(config_as_json(config))
    path = tmp_path / "run.json"
    path.write_text(json.dumps(told))
    assert replace(load_by_shape_config(str(path)), out=config.out) == config


def test_where_nobody_annotated_nothing_counts_when_it_is_measured(tmp_path):
    """A training with labels of the user's own may leave parts of its validation pictures open, too."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    tifffile.imwrite(tmp_path / "images" / "p.tif", np.full((64, 64, 3), 200, np.uint8))
    labels = np.full((64, 64), -1, np.int32)
    labels[:32] = 0
    labels[4:14, 4:14] = 1
    tifffile.imwrite(tmp_path / "labels" / "p.tif", labels)
    spec = network_spec("nuclei")
    data = (DataSet(str(tmp_path), spec.mpp_um),)
    validator = Validator(TrainConfig(train=data, validate=data), spec)
    found = labels.clip(0)
    found[40:60, 40:60] = 2

    class Seen:
        def decode(self, *_):
            return SimpleNamespace(labels=found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "decoder", lambda _name: Seen())
        patch.setattr(validation, "picture_maps", lambda *_: {})
        scores = validator.scores(nn.Identity(), torch.device("cpu"))
    assert scores["aji"] == scores["pq"] == scores["f1"] == 1


def test_the_tile_that_is_shown_is_where_most_nuclei_are():
    labels = np.zeros((300, 400), np.int32)
    labels[210:290, 300:390] = 1
    image = np.zeros((300, 400, 3), np.uint8)
    image[..., 0] = labels
    tile = loop._densest(LabelledImage("", image, labels, 0.5, np.zeros_like(labels, np.float32)))
    assert tile.shape == (loop.GLANCE_PX, loop.GLANCE_PX, 3)
    assert tile[..., 0].sum() == 80 * 90
    small = LabelledImage("", image[:50, :60], labels[:50, :60], 0.5, np.zeros((50, 60), np.float32))
    assert loop._densest(small).shape == (50, 60, 3)
