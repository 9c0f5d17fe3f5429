"""The dock "By text": words, whose weights compare them with nuclei, what was found, and which classes are given."""

from __future__ import annotations

from functools import partial
from textwrap import fill

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QSizePolicy,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.core.fewshot.known_clips import FETCHED, KnownClip
from napari_nucleiseg.viewer.by_text import ByText
from napari_nucleiseg.viewer.by_text_wishes import NO_CLIP
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.widgets import by_text_dialogs as dialogs
from napari_nucleiseg.widgets.by_text_list import ByTextList
from napari_nucleiseg.widgets.by_text_words import (
    ABOUT,
    EXAMPLE,
    NO_CLIPS,
    READY,
    READY_WITH_WORDS,
    WORKING,
    count_text,
)
from napari_nucleiseg.widgets.form import Choice, NumberSlider, TextBox
from napari_nucleiseg.widgets.parts import plain_form, show_progress, tipped_button
from napari_nucleiseg.widgets.wording import warning_colour

SIZE = QSize(1000, 270)
NO_CLIP_TITLE = "No weights yet"
# Its title beside the arrow.
GET_PX = 116
# Of a line of a tool tip in the menu, which is as wide as its longest one.
TIP_CHARACTERS = 76


class ByTextPanel(QWidget):
    """Shows a `ByText`.

    Parameters
    ----------
    by_text : ByText
        What is shown and asked for.
    theme : str
        Of napari, when it is made.
    """

    def __init__(self, by_text: ByText, theme: str) -> None:
        super().__init__()
        self.setObjectName("nucleiseg by text")
        self.by_text = by_text
        self._warning_colour = warning_colour(theme)
        self._hint = Hint()
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 6, 8, 6)
        row.setSpacing(16)
        row.addLayout(self._make_words(), 4)
        row.addLayout(self._make_found(), 5)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(200)
        self._connect()
        self._on_progress(None)

    # ------------------------------------------------------------------ parts

    def _make_words(self) -> QVBoxLayout:
        wishes = self.by_text.wishes
        self.prompts = TextBox(wishes, "prompts", EXAMPLE)
        self.background = TextBox(wishes, "background", "none")
        self.clip = Choice(wishes, "clip", {NO_CLIP: NO_CLIP_TITLE})
        self.get_button = tipped_button("Get weights", "Download weights, or choose those that you have")
        self.get_button.setMinimumWidth(GET_PX)
        self.menu = QMenu(self.get_button)
        self.menu.setToolTipsVisible(True)
        for known in FETCHED:
            action = self.menu.addAction(f"{known.name}  ·  {known.licence}, {known.megabytes} MB…")
            action.setToolTip(fill(f"{known.title}. {known.note}", TIP_CHARACTERS))
            action.triggered.connect(partial(self._on_known_chosen, known))
        self.menu.addSeparator()
        self.menu.addAction("From an address…").triggered.connect(self._on_address_wanted)
        self.menu.addAction("From a folder of yours…").triggered.connect(self._on_folder_wanted)
        self.get_button.setMenu(self.menu)
        weights = QHBoxLayout()
        weights.setSpacing(8)
        weights.addWidget(self.clip, 1)
        weights.addWidget(self.get_button)
        form = plain_form()
        form.addRow("Words", self.prompts)
        form.addRow("Background", self.background)
        form.addRow("Weights", weights)
        self.hint = QLabel(ABOUT)
        self.hint.setWordWrap(True)
        self.hint.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.hint.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        column = QVBoxLayout()
        column.setSpacing(8)
        column.addLayout(form)
        column.addWidget(self.hint, 1)
        column.addLayout(self._make_buttons())
        return column

    def _make_buttons(self) -> QHBoxLayout:
        self.begin_label = QLabel("Score")
        self.view_button = tipped_button("View", "Score the nuclei that you see now")
        self.shape_button = tipped_button("Shape", "Score the nuclei in the selected shape or annotated region")
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.stop_button = tipped_button("Stop", "Stop what is being scored or downloaded")
        buttons = QHBoxLayout()
        buttons.addWidget(self.begin_label)
        for button in (self.view_button, self.shape_button):
            button.setMinimumHeight(30)
            buttons.addWidget(button, 1)
        buttons.addWidget(self.bar, 1)
        buttons.addWidget(self.stop_button)
        return buttons

    def _make_found(self) -> QVBoxLayout:
        self.nothing = QLabel()
        self.nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.nothing.setWordWrap(True)
        self.nothing.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.list = ByTextList()
        self.count = QLabel()
        self.count.setStyleSheet("font-size: 18px; font-weight: bold;")  # the theme overrides fonts
        self.threshold = NumberSlider(self.by_text.wishes, "threshold")
        self.accept_button = tipped_button(
            "Accept as classes", "Give the nuclei the classes of the list; new classes are made  (Ctrl+Z undoes it)"
        )
        self.clear_button = tipped_button("Clear", "Take the colours away; classes that were given stay")
        self.accept_button.setMinimumHeight(30)
        self.clear_button.setMinimumHeight(30)
        form = plain_form()
        form.addRow("Score at least", self.threshold)
        buttons = QHBoxLayout()
        buttons.addWidget(self.accept_button, 2)
        buttons.addWidget(self.clear_button, 1)
        found = QWidget()
        column = QVBoxLayout(found)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.count)
        column.addWidget(self.list, 1)
        column.addLayout(form)
        column.addLayout(buttons)
        self._pages = QStackedLayout()
        self._pages.addWidget(self.nothing)
        self._pages.addWidget(found)
        whole = QVBoxLayout()
        whole.addLayout(self._pages)
        return whole

    def _connect(self) -> None:
        by_text = self.by_text
        by_text.clips_listed.connect(self._on_clips_listed)
        by_text.scored.connect(self._show_found)
        by_text.progress_changed.connect(self._on_progress)
        by_text.download.progress_changed.connect(self._on_progress)
        by_text.busy_changed.connect(self._on_busy_changed)
        by_text.said.connect(self._on_said)
        by_text.controller.editing.edited.connect(self._show_found)
        by_text.wishes.events.prompts.connect(self._on_words_changed)
        self.prompts.returnPressed.connect(by_text.view)
        self.view_button.clicked.connect(by_text.view)
        self.shape_button.clicked.connect(by_text.shape)
        self.stop_button.clicked.connect(by_text.stop)
        self.clear_button.clicked.connect(by_text.clear)
        self.accept_button.clicked.connect(by_text.accept)
        self.list.wanted.connect(by_text.want_class)

    # ------------------------------------------------------------------ weights

    def _on_known_chosen(self, known: KnownClip) -> None:
        if dialogs.ask_known(known, self):
            self.by_text.download.begin(known.name)

    def _on_address_wanted(self) -> None:
        wanted = dialogs.ask_address(self)
        if wanted is not None:
            self.by_text.download.begin(*wanted)

    def _on_folder_wanted(self) -> None:
        folder = dialogs.ask_clip_folder(self)
        if folder:
            self.by_text.use_clip(folder)

    def _on_clips_listed(self, clips: dict[str, str]) -> None:
        self.clip.offer(clips or {NO_CLIP: NO_CLIP_TITLE})
        self._show_found()

    # ------------------------------------------------------------------ what is said

    def _on_said(self, hint: Hint) -> None:
        self._hint = hint
        self.hint.setText(hint.text or ABOUT)
        self.hint.setStyleSheet(f"color: {self._warning_colour};" if hint.is_warning else "")

    def set_theme(self, theme: str) -> None:
        """Show what needs heed in the colour of this theme."""
        self._warning_colour = warning_colour(theme)
        self._on_said(self._hint)

    def _on_progress(self, progress: Progress | None) -> None:
        running = progress is not None
        for widget in (self.bar, self.stop_button):
            widget.setVisible(running)
        for other in (self.begin_label, self.view_button, self.shape_button):
            other.setVisible(not running)
        self.get_button.setEnabled(not running)
        self.clip.setEnabled(not running)
        if progress is not None:
            show_progress(self.bar, progress)
        self._show_found()

    # ------------------------------------------------------------------ what was found

    def _show_found(self) -> None:
        by_text = self.by_text
        self._pages.setCurrentIndex(0 if by_text.found is None else 1)
        if by_text.found is None:
            self.nothing.setText(by_text.missing or self._what_next())
            return
        rows = by_text.rows()
        self.count.setText(count_text(rows, len(by_text.found.look)))
        self.list.show_rows(rows, by_text.classes(), by_text.classes_wanted)
        self.accept_button.setEnabled(bool(by_text.taken()) and not by_text.is_busy)

    def _what_next(self) -> str:
        if not self.by_text.clips:
            return NO_CLIPS
        if self.by_text.is_running:
            return WORKING
        return READY_WITH_WORDS if self.by_text.wishes.prompts.strip() else READY

    def _on_words_changed(self, _prompts: str) -> None:
        if self._hint.is_warning:
            self._on_said(Hint())  # it was about the words before
        self._show_found()

    def _on_busy_changed(self, _busy: bool) -> None:
        self._show_found()

    # ------------------------------------------------------------------ when it is seen

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """List the weights, and show again on the slide what was scored."""
        super().showEvent(event)
        self.by_text.open()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """Show nothing on the slide; scores stay."""
        super().hideEvent(event)
        self.by_text.put_aside()
