"""A click means one thing: asking a token, marking what is like, or a tool of correcting."""

import pytest
from napari.components import ViewerModel

from napari_nucleiseg.state import HeadWishes, Session
from napari_nucleiseg.viewer.like_pointing import LikePointing
from napari_nucleiseg.viewer.like_wishes import HANDS, LIKE, OFF, LikeWishes
from napari_nucleiseg.viewer.one_click import OneClick


@pytest.fixture
def session():
    return Session(editing=True, tool="brush")


@pytest.fixture
def heads():
    return HeadWishes()


@pytest.fixture
def like():
    return LikeWishes()


@pytest.fixture(autouse=True)
def _tied(session, heads, like):
    pointing = LikePointing(ViewerModel(), None, session, like)
    one_click = OneClick(session, heads, like)
    yield
    pointing.close()
    del one_click


def test_asking_puts_the_hand_and_the_tool_aside(session, heads, like):
    like.hand = LIKE
    heads.asking = True
    assert (heads.asking, like.hand, session.tool) == (True, OFF, "move")


@pytest.mark.parametrize("hand", [hand for hand in HANDS if hand != OFF])
def test_a_hand_ends_asking(session, heads, like, hand):
    heads.asking = True
    like.hand = hand
    assert (heads.asking, like.hand, session.tool) == (False, hand, "move")


def test_a_tool_ends_asking(session, heads):
    heads.asking = True
    session.tool = "erase"
    assert (heads.asking, session.tool) == (False, "erase")


def test_what_ends_takes_nothing_with_it(heads, like):
    like.hand = LIKE
    heads.asking = False
    assert like.hand == LIKE
    like.hand = OFF
    heads.asking = True
    like.hand = OFF
    assert heads.asking
