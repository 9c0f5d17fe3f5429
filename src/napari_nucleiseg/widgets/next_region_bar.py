"""Proposes where to correct next: one button, one reason, and one that makes a region of it."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.next_region import NextRegion
from napari_nucleiseg.widgets.parts import show_progress
from napari_nucleiseg.widgets.shortcuts import PROPOSE


class NextRegionBar(QWidget):
    """Buttons, progress and the reason of the proposal.

    Parameters
    ----------
    next_region : NextRegion
        What is asked for and shown.
    """

    def __init__(self, next_region: NextRegion) -> None:
        super().__init__()
        self.setObjectName("nucleiseg next region")
        self._next = next_region
        self.reason = QLabel()
        self.reason.setWordWrap(True)
        self.propose_button = QPushButton("Propose a region")
        self.propose_button.setToolTip(
            "Look for the place where correcting helps the model most, among what is segmented, and go there "
            f"({PROPOSE.text})"
        )
        self.make_button = QPushButton("Make it a region")
        self.make_button.setToolTip("Let the model be taught with this place, and correct its nuclei at once")
        self.bar = QProgressBar()
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("Look no further and take the best of what was looked at so far")
        buttons = QHBoxLayout()
        for button in (self.propose_button, self.make_button):
            buttons.addWidget(button, 1)
        buttons.addWidget(self.bar, 1)
        buttons.addWidget(self.stop_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.reason)
        column.addLayout(buttons)
        next_region.running_changed.connect(self._on_changed)
        next_region.progress_changed.connect(self._on_progress)
        next_region.changed.connect(self._on_changed)
        next_region.said.connect(self._on_said)
        self.propose_button.clicked.connect(next_region.next)
        self.make_button.clicked.connect(next_region.make)
        self.stop_button.clicked.connect(next_region.stop)
        self._on_said(Hint())
        self._on_changed()

    def _on_changed(self, _running: bool = False) -> None:
        running, proposed = self._next.is_running, self._next.now is not None
        for widget in (self.bar, self.stop_button):
            widget.setVisible(running)
        self.propose_button.setVisible(not running)
        self.propose_button.setText("Propose another" if proposed else "Propose a region")
        self.make_button.setVisible(proposed and not running)

    def _on_progress(self, progress: Progress) -> None:
        show_progress(self.bar, progress)

    def _on_said(self, hint: Hint) -> None:
        self.reason.setText(hint.text)
        self.reason.setVisible(bool(hint.text))
