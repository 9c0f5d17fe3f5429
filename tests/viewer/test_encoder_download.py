"""Published encoders are downloaded in the window: licences come first, progress is told, stopping keeps nothing."""

import threading

import pytest

from heads_parts import write_encoder
from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.viewer.encoder_download import ALL_HERE, STOPPED
from napari_nucleiseg.viewer.messages import LicenceQuestion

NAMES = "hipt-256", "hipt-4k"


@pytest.fixture
def getting(seen, monkeypatch):
    """Heads whose engine gets tiny encoders in place of the published ones."""
    seen.got, seen.gate, seen.begun = [], threading.Event(), threading.Event()
    seen.gate.set()

    def get(name, progress):
        for done in range(3):
            progress(done << 20, 2 << 20)
            seen.begun.set()
            assert seen.gate.wait(30)
        progress(2 << 20, 2 << 20)
        seen.got.append(name)
        write_encoder(name)

    cards = tuple(ModelCard(name, name, licence="Apache-2.0 WITH Commons-Clause") for name in NAMES)
    monkeypatch.setattr(seen.engine, "published", lambda: cards)
    monkeypatch.setattr(seen.engine, "get_published", get)
    seen.told = []
    seen.parts.download.progress_changed.connect(seen.told.append)
    return seen


def test_both_licences_are_asked_before_anything_is_downloaded(getting):
    getting.parts.download.begin()
    getting.settle()
    assert [type(one) for one in getting.questions] == [LicenceQuestion]
    assert not getting.got
    getting.controller.accept_licence(getting.questions[0])
    assert [one.card.name for one in getting.questions] == list(NAMES)
    assert not getting.got
    getting.controller.accept_licence(getting.questions[1])
    getting.settle()
    assert getting.got == list(NAMES)
    assert set(NAMES) <= getting.heads.encoders.cards.keys()
    assert getting.told[-1] is None
    assert {one.title for one in getting.told if one} <= set(NAMES)
    getting.parts.download.begin()
    getting.settle()
    assert getting.said[-1] == ALL_HERE


def test_a_licence_that_is_not_accepted_downloads_nothing(getting):
    getting.parts.download.begin()
    getting.settle()
    assert len(getting.questions) == 1
    assert not getting.got
    assert not getting.parts.download.is_running


def test_stopping_ends_it_in_the_middle_of_a_file(getting):
    getting.gate.clear()
    getting.parts.download.begin()
    getting.settle()
    for place in range(2):
        getting.controller.accept_licence(getting.questions[place])
    assert getting.begun.wait(30)
    getting.parts.download.stop()
    getting.gate.set()
    getting.settle()
    assert not getting.got
    assert getting.said[-1] == STOPPED
    assert getting.told[-1] is None


def test_what_goes_wrong_is_said(getting, monkeypatch):
    def fails(_name, _progress):
        raise WeightsError("the weights of HIPT cannot be downloaded. Check the connection")

    monkeypatch.setattr(getting.engine, "get_published", fails)
    getting.parts.download.begin()
    getting.settle()
    for place in range(2):
        getting.controller.accept_licence(getting.questions[place])
    getting.settle()
    assert getting.said[-1].startswith("The weights of HIPT cannot be downloaded")
    assert getting.told[-1] is None
