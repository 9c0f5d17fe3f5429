"""The dock "Find the like": marks, how like is like enough, and what becomes of the proposals."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_nucleiseg.viewer.like import Like
from napari_nucleiseg.viewer.like_wishes import CHOOSE, COLOUR, IN_HAND, LIKE, NO_CLASS, OFF, UNLIKE
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.widgets import shortcuts
from napari_nucleiseg.widgets.correct import swatch
from napari_nucleiseg.widgets.form import Choice, NumberBox, NumberSlider, Switch, about
from napari_nucleiseg.widgets.like_marks_list import LikeMarksList
from napari_nucleiseg.widgets.like_words import (
    ABOUT,
    DRAW,
    HOW,
    METHOD_TITLES,
    NO_CLASS_TITLE,
    NO_MARKS,
    count_text,
    known_text,
)
from napari_nucleiseg.widgets.parts import plain_form, tipped_button
from napari_nucleiseg.widgets.wording import model_title, warning_colour

SIZE = QSize(1000, 270)
HANDS = {
    LIKE: ("Like", "Click on a nucleus that is like what you look for", shortcuts.LIKE),
    UNLIKE: ("Unlike", "Click on a nucleus that is not meant", shortcuts.UNLIKE),
    CHOOSE: ("Choose", "Click on proposals to choose some of them", shortcuts.CHOOSE),
}


class LikePanel(QWidget):
    """Shows a `Like`.

    Parameters
    ----------
    like : Like
        What is shown and asked for.
    theme : str
        Of napari, when it is made.
    """

    list_wanted = Signal(object)
    """These nuclei (ids, ascending) are to be shown in the table."""

    def __init__(self, like: Like, theme: str) -> None:
        super().__init__()
        self.setObjectName("nucleiseg like")
        self.like = like
        self._warning_colour = warning_colour(theme)
        self._hint = Hint()
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 6, 8, 6)
        row.setSpacing(16)
        row.addLayout(self._make_hands(), 4)
        row.addWidget(self._make_more(), 3)
        row.addLayout(self._make_marks(), 3)
        row.addLayout(self._make_proposals(), 5)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(200)
        self._connect()
        self._show_marks()
        self._show_proposals()
        self._show_hand()

    # ------------------------------------------------------------------ parts

    def _make_hands(self) -> QVBoxLayout:
        wishes = self.like.wishes
        self.hint = QLabel(ABOUT)
        self.hint.setWordWrap(True)
        self.hint.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.hint.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.hands: dict[str, QPushButton] = {}
        hands = QHBoxLayout()
        for hand, (title, tip, shortcut) in HANDS.items():
            button = self.hands[hand] = tipped_button(title, f"{tip}  ({shortcut.text})")
            button.setCheckable(True)
            button.clicked.connect(lambda on=False, hand=hand: self._on_hand_clicked(hand, on=on))
            hands.addWidget(button, 1)
        self.region_button = tipped_button("Region", about("drawing", type(wishes))["tip"])
        self.region_button.setCheckable(True)
        self.region_button.clicked.connect(self._on_region_clicked)
        hands.addWidget(self.region_button, 1)
        self.source = Choice(wishes, "source", {IN_HAND: "The model in hand", COLOUR: "Colour alone"})
        self.more_button = tipped_button("More", "Show how nuclei are compared")
        self.more_button.setCheckable(True)
        self.more_button.toggled.connect(self._on_more_toggled)
        form = plain_form()
        compare = QHBoxLayout()
        compare.setSpacing(8)
        compare.addWidget(self.source, 1)
        compare.addWidget(self.more_button)
        form.addRow("Compare by", compare)
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.stop_button = tipped_button("Stop", "Look at this view no longer")
        self._running = QWidget()
        running = QHBoxLayout(self._running)
        running.setContentsMargins(0, 0, 0, 0)
        running.addWidget(self.bar, 1)
        running.addWidget(self.stop_button)
        policy = self._running.sizePolicy()
        policy.setRetainSizeWhenHidden(True)  # nothing jumps when a view is looked at
        self._running.setSizePolicy(policy)
        self._running.hide()
        column = QVBoxLayout()
        column.setSpacing(8)
        column.addLayout(hands)
        column.addLayout(form)
        column.addWidget(self.hint, 1)
        column.addWidget(self._running)
        return column

    def _make_more(self) -> QWidget:
        wishes = self.like.wishes
        self.more = QWidget()
        self.method = Choice(wishes, "method", METHOD_TITLES)
        self.distractors = NumberBox(wishes, "distractors")
        self.switches = {name: Switch(wishes, name) for name in ("background", "whole", "kernels")}
        form = plain_form()
        form.addRow("Method", self.method)
        form.addRow("Unlike by itself", self.distractors)
        column = QVBoxLayout(self.more)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(form)
        for switch in self.switches.values():
            column.addWidget(switch)
        column.addStretch(1)
        self.more.hide()
        return self.more

    def _make_marks(self) -> QVBoxLayout:
        self.marks = LikeMarksList()
        self.no_marks = QLabel(NO_MARKS)
        self.no_marks.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.no_marks.setWordWrap(True)
        self._pages = QStackedLayout()
        self._pages.addWidget(self.no_marks)
        self._pages.addWidget(self.marks)
        self.clear_button = tipped_button("Clear", "Take all marks and proposals away; what was accepted stays")
        column = QVBoxLayout()
        column.addLayout(self._pages, 1)
        column.addWidget(self.clear_button)
        return column

    def _make_proposals(self) -> QVBoxLayout:
        wishes = self.like.wishes
        self.count = QLabel()
        self.count.setStyleSheet("font-size: 18px; font-weight: bold;")  # the theme overrides fonts
        self.known = QLabel()
        self.known.setWordWrap(True)
        self.threshold = NumberSlider(wishes, "threshold")
        self.automatic = Switch(wishes, "automatic")
        self.heatmap = Switch(wishes, "heatmap")
        self.number = Choice(wishes, "number", {NO_CLASS: NO_CLASS_TITLE})  # type: ignore[dict-item]  # what Qt holds
        self.list_button = tipped_button("In the table", "Show those that are nuclei already in the table")
        form = plain_form()
        form.addRow("Similarity", self.threshold)
        switches = QHBoxLayout()
        switches.addWidget(self.automatic)
        switches.addWidget(self.heatmap)
        switches.addStretch(1)
        form.addRow("", switches)
        classes = QHBoxLayout()
        classes.addWidget(self.number, 1)
        classes.addWidget(self.list_button)
        form.addRow("As class", classes)
        self.all_button = tipped_button(
            "Accept all", f"New ones become nuclei; all get the class, if there is one  ({shortcuts.ACCEPT_LIKE.text})"
        )
        self.chosen_button = tipped_button("Accept chosen", "The same, of those that you chose")
        buttons = QHBoxLayout()
        for button in (self.all_button, self.chosen_button):
            button.setMinimumHeight(30)
            buttons.addWidget(button, 1)
        column = QVBoxLayout()
        column.setSpacing(6)
        column.addWidget(self.count)
        column.addWidget(self.known)
        column.addLayout(form)
        column.addStretch(1)
        column.addLayout(buttons)
        return column

    def _connect(self) -> None:
        like, events = self.like, self.like.wishes.events
        like.marks_changed.connect(self._show_marks)
        like.proposed.connect(self._show_proposals)
        like.sources_listed.connect(self._on_sources_listed)
        like.said.connect(self._on_said)
        like.view.progress_changed.connect(self._on_progress)
        like.accepting.busy_changed.connect(self._on_busy_changed)
        like.controller.editing.edited.connect(self._show_classes)
        like.view.changed.connect(self._show_classes)
        events.hand.connect(self._show_hand)
        events.drawing.connect(self._show_hand)
        self.marks.removed.connect(like.remove)
        self.marks.turned.connect(like.turn)
        self.clear_button.clicked.connect(like.clear)
        self.stop_button.clicked.connect(like.view.stop)
        self.all_button.clicked.connect(like.accepting.all)
        self.chosen_button.clicked.connect(like.accepting.chosen)
        self.list_button.clicked.connect(self._on_list_clicked)

    # ------------------------------------------------------------------ what the user does

    def _on_hand_clicked(self, hand: str, *, on: bool) -> None:
        self.like.wishes.hand = hand if on else OFF

    def _on_region_clicked(self, on: bool) -> None:
        if on and self.like.wishes.hand in {OFF, CHOOSE}:
            self.like.wishes.hand = LIKE
        self.like.wishes.drawing = on

    def _on_more_toggled(self, on: bool) -> None:
        self.more.setVisible(on)
        self.more_button.setText("Less" if on else "More")

    def _on_list_clicked(self) -> None:
        self.list_wanted.emit(np.array(self.like.known(), np.uint32))

    # ------------------------------------------------------------------ what is said

    def _on_said(self, hint: Hint) -> None:
        self._hint = hint
        self._show_hint()

    def _show_hint(self) -> None:
        wishes, hint = self.like.wishes, self._hint
        how = DRAW[wishes.hand] if wishes.drawing and wishes.hand in DRAW else HOW[wishes.hand]
        self.hint.setText(hint.text or how)
        self.hint.setStyleSheet(f"color: {self._warning_colour};" if hint.is_warning else "")

    def set_theme(self, theme: str) -> None:
        """Show what needs heed in the colour of this theme."""
        self._warning_colour = warning_colour(theme)
        self._show_hint()

    def _show_hand(self, _value: Any = None) -> None:
        wishes = self.like.wishes
        for hand, button in self.hands.items():
            with signals_blocked(button):
                button.setChecked(wishes.hand == hand)
        with signals_blocked(self.region_button):
            self.region_button.setChecked(wishes.drawing)
        self._hint = Hint()
        self._show_hint()

    def _on_progress(self, progress: Progress | None) -> None:
        self._running.setVisible(progress is not None)
        if progress is not None:
            self.bar.setRange(0, progress.total)
            self.bar.setValue(progress.done)
            self.bar.setFormat(f"{progress.title} {progress.done} of {progress.total}")

    def _on_sources_listed(self, sources: dict[str, str]) -> None:
        self.source.offer({name: model_title(title) for name, title in sources.items()})

    # ------------------------------------------------------------------ marks and proposals

    def _show_marks(self) -> None:
        marks = self.like.marks
        self.marks.show_marks(marks)
        self._pages.setCurrentIndex(1 if marks else 0)
        self.clear_button.setEnabled(bool(marks))

    def _show_proposals(self) -> None:
        like = self.like
        total, known, chosen = len(like.proposals()), len(like.known()), len(like.chosen)
        is_marked = any(mark.is_like for mark in like.marks)
        self.count.setText(count_text(total, chosen) if like.found is not None else "–")
        self.known.setText(known_text(total, known, is_marked=is_marked) if like.found or not is_marked else "…")
        busy = like.accepting.is_busy
        self.all_button.setEnabled(bool(total) and not busy)
        self.chosen_button.setEnabled(bool(chosen) and not busy)
        self.list_button.setEnabled(bool(known))

    def _on_busy_changed(self, _busy: bool) -> None:
        self._show_proposals()

    def _show_classes(self) -> None:
        classes = self.like.classes()
        offered: dict[Any, str] = {NO_CLASS: NO_CLASS_TITLE, **{number: name for number, name, _ in classes}}
        self.number.offer(offered)
        for place, (_number, _name, colour) in enumerate(classes, start=1):
            self.number.setItemIcon(place, swatch(colour))
        if self.like.wishes.number not in offered:
            self.like.wishes.number = NO_CLASS

    # ------------------------------------------------------------------ when it is seen

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Begin to look at views."""
        super().showEvent(event)
        self.like.open()
        self._show_classes()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """Cease to look; marks stay."""
        super().hideEvent(event)
        self.like.close()
