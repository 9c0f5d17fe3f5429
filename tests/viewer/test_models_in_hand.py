"""What a model in hand brings along: settings that are best for it, and how it was taught to look."""

from dataclasses import replace

import pytest

from dark_model import CARD
from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.catalogue import Catalogue


def recommended(session, **facts):
    """Take a model with such a card in hand."""
    catalogue = Catalogue(None, None, session, pytest.fail)
    catalogue._cards = {session.model: replace(CARD, name=session.model, **facts)}
    catalogue.recommend()


def test_threshold_and_smallest_area_are_those_of_the_card():
    session = Session()
    recommended(session, threshold=0.35, min_area_um2=6.0)
    assert (session.threshold, session.min_area_um2) == (0.35, 6.0)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("taught", [False, True])
def test_a_taught_model_looks_as_it_was_taught(before, taught):
    session = Session(ignore_brown=before)
    recommended(session, taught={"settings": {"ignore_brown": taught, "steps": 60}})
    assert session.ignore_brown == taught


def test_listing_anew_leaves_brown_as_the_user_has_it():
    session = Session(ignore_brown=True)
    catalogue = Catalogue(None, None, session, pytest.fail)
    taught = {"settings": {"ignore_brown": False}}
    catalogue._on_listed((replace(CARD, name=session.model, taught=taught, threshold=0.35),), "")
    assert session.threshold == 0.35
    assert session.ignore_brown


@pytest.mark.parametrize("taught", [{}, {"settings": {}}, {"settings": None}, {"settings": {"ignore_brown": "yes"}}])
def test_other_models_leave_brown_as_it_is(taught):
    session = Session(ignore_brown=True)
    recommended(session, taught=taught)
    assert session.ignore_brown
