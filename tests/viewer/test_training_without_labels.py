"""Training without labels, its fit to a slide and what is kept of both, without a window."""

from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from psygnal import Signal

from gui_parts import Pump
from napari_nucleiseg.core.models.weights import available_models, read_card
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.teaching.versions import all_versions
from napari_nucleiseg.core.training.scales.examination import Glance
from napari_nucleiseg.state import NETWORKS, Session
from napari_nucleiseg.viewer.catalogue import Catalogue
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.layers import slide_layer
from napari_nucleiseg.viewer.shelf import Shelf
from napari_nucleiseg.viewer.teaching import Teaching
from napari_nucleiseg.viewer.unlabelled import Unlabelled
from napari_nucleiseg.viewer.unlabelled_engine import Begun, Fitted, Trained
from napari_nucleiseg.viewer.unlabelled_run import seen_on
from unlabelled_parts import FolderEngine, TinyEngine, tissue_picture, write_model, write_slide


class Editing:
    edited = Signal()


class Desk:
    """A viewer without a window, and everything that was said in it."""

    def __init__(self, folder):
        self.folder, self.pump = folder, Pump()
        self.viewer, self.session = ViewerModel(), Session()
        shelf = Shelf(self.viewer)
        engine = FolderEngine(folder)
        display = Display(self.viewer, self.session, shelf, self.pump.jobs, self.fail)
        teaching = Teaching(engine, Editing(), display)
        self.catalogue = Catalogue(engine, self.pump.jobs, self.session, self.fail)
        self.work = Unlabelled(teaching, self.catalogue, display, TinyEngine(engine))
        teaching.adopted.connect(self.catalogue.take)
        shelf.start()
        self.seen, self.begun, self.ended, self.said, self.errors = [], [], [], [], []
        self.work.stepped.connect(self.seen.append)
        self.work.begun.connect(self.begun.append)
        self.work.ended.connect(self.ended.append)
        self.work.said.connect(lambda hint: self.said.append(hint.text))
        self.work.wishes.network = NETWORKS[0]
        self.work.wishes.steps, self.work.wishes.measure_every = 4, 2

    def fail(self, error):
        self.errors.append(error)

    def open(self, *pictures, mpp_um=0.25):
        for number, picture in enumerate(pictures):
            slide = open_slide(write_slide(self.folder / f"s{number}.tif", picture, mpp_um))
            data, told, _ = slide_layer(slide)
            self.viewer.layers.append(Image(data, **told))

    def until_ended(self):
        count = len(self.ended)
        self.pump.run_until(lambda: len(self.ended) > count, 30)
        self.pump.run_for(0.05)
        return self.ended[-1]

    def train(self):
        self.work.train()
        return self.until_ended()


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda _name: str(tmp_path / "data"))
    made = Desk(tmp_path)
    yield made
    made.work.close()
    made.pump.jobs.close()
    made.pump.jobs.join()
    assert made.errors == []


@pytest.fixture
def look(desk):
    """A tiny model of attention at hand."""
    write_model()
    desk.catalogue.list("look")
    desk.pump.run_until(lambda: desk.session.model == "look")
    return desk


def two(side=320):
    return tissue_picture(1, side), tissue_picture(2, side)


def test_a_run_tells_every_step_and_leaves_something_to_use(desk):
    desk.open(*two())
    trained = desk.train()
    assert isinstance(trained, Trained)
    assert isinstance(desk.begun[0], Begun)
    assert desk.begun[0].powers == (10.0, 20.0, 40.0)
    assert [one.step for one in desk.seen] == [1, 2, 3, 4]
    measured = [one for one in desk.seen if one.accuracy is not None]
    assert [one.step for one in measured] == [2, 4]
    assert all(one.picture.shape == (32, 32, 3) for one in measured)
    assert all(0 <= one.attention.min() <= one.attention.max() <= 1 for one in measured)
    assert np.array_equal(measured[0].picture, measured[1].picture)
    assert (trained.steps, trained.total) == (4, 4)
    assert 0 <= trained.scores["accuracy"] <= 1
    assert [name for name, _ in trained.origin.slides] == ["s0.tif", "s1.tif"]


def test_used_it_is_a_version_in_the_list_that_needs_no_licence_question(desk):
    desk.open(*two())
    desk.train()
    desk.work.use()
    desk.pump.run_until(lambda: desk.session.model == "attention", 10)
    (card,) = [card for card in available_models() if card.name == "attention"]
    assert not card.commercial_use
    assert card.title == "Attention, learned from 2 slides"
    assert card.training_data == ("s0.tif, no labels (licence not stated)", "s1.tif, no labels (licence not stated)")
    assert desk.work.can_fit
    assert desk.work.engine.engine.load("attention").card.sha256 == card.sha256
    (kept,) = [version for version in all_versions() if version.name == "attention"]
    assert kept.kind == "own"


def test_the_licence_of_the_slides_is_that_of_the_model(desk):
    desk.open(*two())
    desk.work.wishes.licence = "CC0-1.0"
    desk.train()
    desk.work.use()
    desk.pump.run_until(lambda: desk.session.model == "attention", 10)
    card = next(card for card in available_models() if card.name == "attention")
    assert (card.licence, card.commercial_use) == ("CC0-1.0", True)


def test_stopped_it_is_kept_and_the_same_goes_on(desk):
    desk.open(*two())
    desk.work.wishes.steps = 400
    desk.work.train()
    desk.pump.run_until(lambda: len(desk.seen) >= 3, 20)
    desk.work.stop()
    stopped = desk.until_ended()
    assert 3 <= stopped.steps < 400
    assert read_card(stopped.path).notes
    # More steps are the same run.
    desk.work.wishes.steps = stopped.steps + 2
    desk.seen.clear()
    went_on = desk.train()
    assert [one.step for one in desk.seen] == [stopped.steps + 1, stopped.steps + 2]
    assert went_on.path == stopped.path
    assert [step for step, _ in desk.begun[1].measured] == list(range(2, stopped.steps + 1, 2))
    desk.seen.clear()
    again = desk.train()
    assert desk.seen == []
    assert again.steps == stopped.steps + 2
    # Another setting is another run.
    desk.work.wishes.sparsity, desk.work.wishes.steps = 0.2, 1
    desk.work.wishes.by_shape = False
    assert desk.train().path != stopped.path


def test_beginning_from_a_model_gives_a_child_of_it(look):
    look.open(*two())
    look.work.wishes.start = "look"
    look.train()
    look.work.use()
    look.pump.run_until(lambda: look.session.model == "look-2", 10)
    card = next(card for card in available_models() if card.name == "look-2")
    assert card.parent.startswith("look@")
    assert card.taught["family"] == "look"
    assert not card.commercial_use or card.licence == "CC0-1.0"


def test_files_count_besides_and_no_slide_counts_twice(desk):
    desk.open(tissue_picture(1))
    folder = desk.folder / "more"
    folder.mkdir()
    write_slide(folder / "other.tif", tissue_picture(5))
    write_slide(folder / "same.tif", tissue_picture(1))
    desk.work.sources.add([str(folder), str(folder)])
    assert [one.title for one in desk.work.sources.offered] == ["s0.tif", "more"]
    trained = desk.train()
    names = [name for name, _ in trained.origin.slides]
    assert names[:2] == ["s0.tif", "other"]
    desk.work.sources.tick(str(folder), on=False)
    assert [name for name, _ in desk.train().origin.slides] == ["s0.tif"]


def test_of_one_slide_it_says_that_nothing_is_held_out(desk):
    desk.open(tissue_picture(1))
    # So what is seen on the tile has to do.
    assert set(desk.train().scores) == {"covered", "haematoxylin"}
    assert any("Nothing is held out" in text for text in desk.said)
    assert [one.step for one in desk.seen if one.accuracy is not None] == [2, 4]


def test_on_the_tile_it_is_seen_what_is_looked_at():
    picture = np.full((32, 32, 3), (225, 170, 205), np.uint8)
    picture[8:16, 8:16] = (95, 55, 140)
    nucleus = np.zeros((32, 32), np.float32)
    nucleus[8:16, 8:16] = 1
    found = seen_on(Glance(picture, nucleus))
    assert found["covered"] == 64 / 1024
    assert found["haematoxylin"] > 2
    assert seen_on(Glance(picture, 1 - nucleus))["haematoxylin"] < 0.5
    assert seen_on(Glance(picture, 0 * nucleus))["covered"] == 0


def test_a_coarse_slide_is_told_apart_at_what_it_has(desk):
    desk.open(*two(), mpp_um=0.5)
    assert desk.train() is not None
    assert desk.begun[0].powers == (10.0, 20.0)
    assert any("10× and 20× are told apart" in text for text in desk.said)


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda _desk: None, "Open a slide or add files first"),
        (lambda desk: desk.open(*two(), mpp_um=None), "s0.tif does not say how large its pixels are"),
        (lambda desk: desk.open(np.full((400, 400, 3), 255, np.uint8)), "no place for crops of 10x"),
        (lambda desk: desk.open(tissue_picture(1, 64)), "no place for crops of 10x"),
        (lambda desk: desk.open(*two(), mpp_um=1.0), "These slides are too coarse"),
        (lambda desk: desk.work.sources.add([str(desk.folder / "nowhere.tif")]), "nowhere.tif"),
    ],
    ids=["no slide", "no pixel size", "glass", "too small", "too coarse", "no file"],
)
def test_what_cannot_be_learned_from_is_a_sentence(desk, prepare, sentence):
    prepare(desk)
    desk.work.train()
    desk.pump.run_until(lambda: any(desk.said) and not desk.work.is_running, 20)
    assert sentence in desk.said[-1]


def test_nothing_ticked_is_a_sentence(desk):
    desk.open(tissue_picture(1))
    desk.work.sources.tick(desk.work.sources.offered[0].key, on=False)
    desk.work.train()
    assert desk.said == ["Tick at least one slide to learn from."]


def test_a_full_disk_is_said_before_anything_is_learned(desk, monkeypatch):
    desk.open(*two())
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=5_000_000))
    assert desk.train() is None
    assert "has 5 MB left; a run needs 700 MB" in desk.said[-1]
    assert desk.seen == []


def test_a_disk_that_fails_meanwhile_is_a_sentence(desk, monkeypatch):
    desk.open(*two())

    def full(*_):
        raise OSError(28, "No space left on device", "log.jsonl")

    monkeypatch.setattr("napari_nucleiseg.core.training.scales.checkpoint.ScaleCheckpoint._draw", full)
    assert desk.train() is None
    assert "log.jsonl could not be read or written (No space left on device)" in desk.said[-1]


def test_a_fit_without_annotated_regions_says_so_and_waits_to_be_used(look):
    look.open(*two())
    look.work.wishes.fit_steps = 2
    look.work.fit(view=False)
    fitted = look.until_ended()
    assert isinstance(fitted, Fitted)
    assert fitted.outcome.reason.startswith("Not judged: there is no annotated region")
    assert look.session.model == "look"
    assert fitted.version.title == "Look, fitted to s1.tif"
    assert fitted.version.card.parent.startswith("look@")
    look.work.use()
    look.pump.run_until(lambda: look.session.model == fitted.version.card.name, 10)


def test_the_level_alone_takes_no_steps(look):
    look.open(*two())
    look.work.set_level()
    fitted = look.until_ended()
    assert look.seen == []
    assert fitted.version.title == "Look, level of s1.tif"
    new, old = (look.work.engine.engine.load(name).network.state_dict() for name in (fitted.version.name, "look"))
    assert float(new["tau"]) != float(old["tau"])
    assert all(bool((new[key] == old[key]).all()) for key in old if key not in {"tau", "first"})


def test_a_stopped_fit_leaves_the_model_as_it_is(look):
    look.open(*two())
    look.work.wishes.fit_steps = 500
    look.work.fit(view=False)
    look.pump.run_until(lambda: bool(look.seen), 20)
    look.work.stop()
    assert look.until_ended() is None
    names = [version.name for version in all_versions() if version.card.network.startswith("scale")]
    assert sorted(names) == ["look", "nuclei-label-free"]


def test_another_network_takes_its_sizes_unless_somebody_chose_them(desk):
    wishes = desk.work.wishes
    wishes.steps = 2_000
    wishes.batch_size = 7
    wishes.network = "scale-attention"
    assert (wishes.steps, wishes.crop_px, wishes.batch_size) == (20_000, 160, 7)
    wishes.network = "scale-attention-fast"
    assert (wishes.steps, wishes.crop_px, wishes.batch_size) == (2_000, 128, 7)


def test_a_deleted_model_is_no_start_any_more(look):
    look.work.wishes.start = "look"
    assert look.work.models["look"] == "Look"
    (look.folder / "data" / "models" / "look.safetensors").unlink()
    look.catalogue.list()
    look.pump.run_until(lambda: "look" not in look.work.models)
    assert look.work.wishes.start == ""
    assert not look.work.can_fit
