"""What is shown while no slide is open."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.widgets import shortcuts
from napari_nucleiseg.widgets.wording import WARNING_COLOURS


class Welcome(QWidget):
    """Says how to begin."""

    def __init__(self) -> None:
        super().__init__()
        self.title = QLabel("Drop a slide here")
        self.title.setStyleSheet("font-size: 16px; font-weight: bold;")  # the theme overrides fonts
        self.text = QLabel("SVS, TIFF, OME-Zarr, DICOM, NDPI, MRXS … or a PNG or JPEG picture")
        for label in (self.title, self.text):
            label.setAlignment(Qt.AlignmentFlag.AlignCenter)
            label.setWordWrap(True)
        self.open_button = QPushButton("Open a slide…")
        self.open_button.setToolTip("Choose slides or pictures on this computer")
        self.folder_button = QPushButton("Open a folder…")
        self.folder_button.setToolTip("Choose a folder that is a slide: OME-Zarr or DICOM")
        self.sample_button = QPushButton("Try it on a sample")
        self.sample_button.setToolTip("A small tissue picture; more under File > Open Sample")
        self.batch_button = QPushButton("Many slides unattended…")
        self.batch_button.setToolTip(
            f"Segment and measure a list of slides while you do something else  ({shortcuts.BATCH.text})"
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 24, 24, 24)
        column.setSpacing(10)
        column.addStretch(1)
        for widget in (self.title, self.text):
            column.addWidget(widget)
        column.addSpacing(8)
        for button in (self.open_button, self.folder_button, self.batch_button, self.sample_button):
            column.addWidget(button)
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        column.addWidget(self.hint)
        column.addStretch(2)
        self._shown = Hint()
        self._warning_colour = WARNING_COLOURS["dark"]

    def show_hint(self, hint: Hint) -> None:
        """Show a sentence; an empty one goes away."""
        self._shown = hint
        self.hint.setText(hint.text)
        self.hint.setStyleSheet(f"color: {self._warning_colour};" if hint.is_warning else "")

    def set_warning_colour(self, colour: str) -> None:
        """Show what needs heed in this colour."""
        self._warning_colour = colour
        self.show_hint(self._shown)
