"""A network that learns from the shape of nuclei, from the slides in the viewer to a version, without a window."""

import numpy as np
import pytest
from test_training_without_labels import desk, two

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.weights import available_models
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.teaching.versions import all_versions
from napari_nucleiseg.core.training.scales.samples import ScaleSource
from napari_nucleiseg.state import BY_SHAPE, BY_SHAPE_FINE, METHODS, NETWORKS, SIZES, UnlabelledWishes
from napari_nucleiseg.viewer.unlabelled_engine import Trained
from napari_nucleiseg.viewer.unlabelled_run import config_of, fit_of, run_folder
from unlabelled_parts import tissue_picture, write_slide

__all__ = ("desk",)


@pytest.fixture
def by_shape(desk):
    """It learns from shapes, and everything that was told is kept."""
    desk.told = []
    desk.work.progress_changed.connect(lambda told: desk.told.append(told and told.title))
    desk.work.wishes.network = BY_SHAPE
    desk.work.wishes.steps, desk.work.wishes.measure_every = 4, 2
    return desk


def test_it_labels_learns_measures_and_shows_the_tile(by_shape):
    by_shape.open(*two())
    trained = by_shape.train()
    assert isinstance(trained, Trained)
    assert by_shape.begun[0].powers == ()
    assert "Finding shapes" in by_shape.told
    assert [one.step for one in by_shape.seen] == [1, 2, 3, 4]
    measured = [one for one in by_shape.seen if one.accuracy is not None]
    assert [one.step for one in measured] == [2, 4]
    assert all(0 <= one.attention.min() <= one.attention.max() <= 1 for one in measured)
    assert np.array_equal(measured[0].picture, measured[1].picture)
    assert (trained.steps, trained.powers) == (4, 0)
    assert 0 <= trained.scores["f1"] <= 1


def test_used_it_is_a_version_of_its_own_that_can_be_taught(by_shape):
    by_shape.open(*two())
    by_shape.work.wishes.licence = "CC0-1.0"
    by_shape.train()
    by_shape.work.use()
    by_shape.pump.run_until(lambda: by_shape.session.model == "by-shape", 10)
    (card,) = [card for card in available_models() if card.name == "by-shape"]
    assert card.title == "Nuclei by shape, learned from 2 slides"
    assert (card.network, card.licence, card.commercial_use) == ("nuclei", "CC0-1.0", True)
    assert card.training_data == ("s0.tif, s1.tif, no labels: nuclei by their shape (CC0-1.0)",)
    # It is no model of attention: there is nothing to fit.
    assert not by_shape.work.can_fit
    (kept,) = [version for version in all_versions() if version.name == "by-shape"]
    assert kept.kind == "own"


def test_stopped_it_is_kept_and_the_same_goes_on(by_shape):
    by_shape.open(*two())
    by_shape.work.wishes.steps = 400
    by_shape.work.train()
    by_shape.pump.run_until(lambda: len(by_shape.seen) >= 3, 30)
    by_shape.work.stop()
    stopped = by_shape.until_ended()
    assert 3 <= stopped.steps < 400
    by_shape.work.wishes.steps = stopped.steps + 2
    by_shape.seen.clear()
    by_shape.told.clear()
    went_on = by_shape.train()
    assert [one.step for one in by_shape.seen] == [stopped.steps + 1, stopped.steps + 2]
    assert went_on.path == stopped.path
    assert "Finding shapes" not in by_shape.told
    assert [step for step, _ in by_shape.begun[1].measured] == list(range(2, stopped.steps + 1, 2))


def test_another_pixel_size_or_another_part_of_a_slide_is_another_run_and_their_order_is_not(by_shape):
    folder, config = by_shape.folder, config_of(by_shape.work.wishes, "cpu")
    paths = [write_slide(folder / f"{number}.tif", tissue_picture(number)) for number in range(2)]

    def folder_of(*mpps, regions=()):
        slides = [open_slide(path, mpp_um=mpp_um) for path, mpp_um in zip(paths, mpps, strict=True)]
        sources = [ScaleSource("s", slide, regions) for slide in slides]
        return run_folder(folder, config, sources, None), run_folder(folder, config, sources[::-1], None)

    first, turned = folder_of(0.25, 0.25)
    assert first == turned
    others = [folder_of(0.25, 0.5)[0], folder_of(0.25, 0.25, regions=(Region(0, 0, 160, 160),))[0]]
    assert len({first, *others}) == 3


def test_the_order_of_slides_makes_no_other_run(by_shape):
    by_shape.open(*two())
    first = by_shape.train()
    by_shape.work.wishes.steps += 2
    by_shape.viewer.layers.reverse()
    by_shape.seen.clear()
    assert by_shape.train().path == first.path
    assert [one.step for one in by_shape.seen] == [5, 6]


def test_stopped_while_it_labels_nothing_comes_of_it(by_shape, monkeypatch):
    by_shape.open(*two())
    by_shape.work.progress_changed.connect(
        lambda told: by_shape.work.stop() if told and told.title == "Finding shapes" else None
    )
    by_shape.work.train()
    assert by_shape.until_ended() is None
    assert by_shape.seen == []


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda desk: desk.open(np.full((400, 400, 3), 255, np.uint8)), "No nucleus was found by its shape"),
        (lambda desk: desk.open(*two(), mpp_um=1.0), "No nucleus was found by its shape"),
        (lambda desk: desk.open(*two(), mpp_um=None), "s0.tif does not say how large its pixels are"),
    ],
    ids=["glass", "too coarse", "no pixel size"],
)
def test_what_cannot_be_learned_from_is_a_sentence(by_shape, prepare, sentence):
    prepare(by_shape)
    by_shape.work.train()
    by_shape.pump.run_until(lambda: any(sentence in text for text in by_shape.said), 20)
    assert by_shape.seen == []


def test_a_slide_that_is_passed_over_is_named(by_shape):
    by_shape.open(*two(), np.full((400, 400, 3), 255, np.uint8))
    assert by_shape.train() is not None
    assert any(text.startswith("s2.tif is passed over: ") for text in by_shape.said)


def test_of_one_slide_it_says_what_the_curve_is_of(by_shape):
    by_shape.open(tissue_picture(1))
    by_shape.train()
    assert any("Of one slide the curve is of places" in text for text in by_shape.said)
    by_shape.work.wishes.hold_out = 0.0
    trained = by_shape.train()
    assert any("Nothing is held out, so there is no curve" in text for text in by_shape.said)
    # What is seen on the tile has to do.
    assert set(trained.scores) == {"covered", "haematoxylin"}


def test_every_method_begins_with_sizes_that_suit_it():
    wishes = UnlabelledWishes()
    assert wishes.network == BY_SHAPE
    assert {name: getattr(wishes, name) for name in SIZES[BY_SHAPE]} == SIZES[BY_SHAPE]
    assert set(SIZES) == set(METHODS)


def test_the_fine_network_learns_from_shapes_as_well(by_shape):
    by_shape.work.wishes.network = BY_SHAPE_FINE
    by_shape.work.wishes.steps, by_shape.work.wishes.measure_every = 4, 2
    assert config_of(by_shape.work.wishes, "cpu").network == BY_SHAPE_FINE
    by_shape.open(*two())
    assert by_shape.train().steps == 4
    by_shape.work.use()
    by_shape.pump.run_until(lambda: by_shape.session.model == "by-shape", 10)
    (card,) = [card for card in available_models() if card.name == "by-shape"]
    assert card.network == BY_SHAPE_FINE


def test_a_model_of_attention_is_fitted_with_its_own_sizes_whatever_would_be_trained():
    wishes = UnlabelledWishes()
    config = fit_of(wishes, NETWORKS[0], "cpu")
    assert (config.crop_px, config.batch_size) == (SIZES[NETWORKS[0]]["crop_px"], SIZES[NETWORKS[0]]["batch_size"])
    assert config.steps == wishes.fit_steps
    # Those that somebody chose for attention count.
    wishes.network = NETWORKS[0]
    wishes.crop_px = 96
    assert fit_of(wishes, NETWORKS[0], "cpu").crop_px == 96
    assert config_of(wishes, "cpu").crop_px == 96
