"""A click on the slide means one thing: asking a token, marking what is like or unlike, or a tool of correcting."""

from __future__ import annotations

from napari_nucleiseg.state import HeadWishes, Session
from napari_nucleiseg.viewer.like_pointing import MOVE
from napari_nucleiseg.viewer.like_wishes import OFF, LikeWishes


class OneClick:
    """Ends one meaning of a click when another begins.

    Parameters
    ----------
    session : Session
        Says which tool corrects; a hand of `LikeWishes` puts it aside by itself.
    heads : HeadWishes
        Say whether a click asks a token.
    like : LikeWishes
        Say what a click marks.
    """

    def __init__(self, session: Session, heads: HeadWishes, like: LikeWishes) -> None:
        self._session, self._heads, self._like = session, heads, like
        self._is_turning = False
        heads.events.asking.connect(self._on_asking_changed)
        like.events.hand.connect(self._on_hand_changed)
        session.events.tool.connect(self._on_tool_changed)

    def _on_asking_changed(self, on: bool) -> None:
        if not on:
            return
        # A hand that is put aside gives the tool back that it had taken: nobody chose that one now.
        self._is_turning = True
        try:
            self._like.hand = OFF
            self._session.tool = MOVE
        finally:
            self._is_turning = False

    def _on_hand_changed(self, hand: str) -> None:
        if hand != OFF:
            self._heads.asking = False

    def _on_tool_changed(self, tool: str) -> None:
        if tool != MOVE and not self._is_turning:
            self._heads.asking = False
