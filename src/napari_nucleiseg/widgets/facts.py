"""What is known of the slide, in two lines."""

from __future__ import annotations

from pathlib import PurePath

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_nucleiseg.core.slides.pyramid import Slide


def size_text(slide: Slide) -> str:
    """Return the extent in pixels and, if known, millimetres: width first, as people say it."""
    height, width = slide.shape
    text = f"{width:,} × {height:,} px"
    if slide.mpp_um is None:
        return text
    mm_x, mm_y = width * slide.mpp_um.x / 1000, height * slide.mpp_um.y / 1000
    return f"{text}  ·  {mm_x:.3g} × {mm_y:.3g} mm"


def scan_text(slide: Slide) -> str:
    """Return pixel size, objective and maker, as far as they are known."""
    parts = []
    if slide.mpp_um is not None:
        y, x = slide.mpp_um
        same = abs(y - x) < 0.0005 * max(x, y)
        parts.append(f"{x:.4g} µm/px" if same else f"{x:.4g} × {y:.4g} µm/px")
    if slide.objective_power:
        parts.append(f"{slide.objective_power:g}×")
    if slide.vendor and slide.vendor != "ome" and not slide.vendor.startswith(("unknown", "generic")):
        parts.append(slide.vendor.capitalize() if slide.vendor.isalpha() and slide.vendor.islower() else slide.vendor)
    return "  ·  ".join(parts)


class ElidedLabel(QLabel):
    """A line that is cut in the middle where there is no room, and then tells all in its tooltip."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = ""
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def set_whole(self, text: str) -> None:
        """Show `text`, as much of it as fits."""
        self.whole = text
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Fit the text to the new width."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        room = self.contentsRect().width() - 12  # the theme pads labels
        self.setText(self.fontMetrics().elidedText(self.whole, Qt.TextElideMode.ElideMiddle, room))


class SlideFacts(QWidget):
    """Name, size, pixel size, objective and maker of the slide."""

    pixel_size_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.name = ElidedLabel()
        self.name.setStyleSheet("font-weight: bold;")  # the theme overrides fonts
        self.extent = QLabel()
        self.scan = QLabel()
        self.scan.setTextFormat(Qt.TextFormat.PlainText)
        for label in (self.extent, self.scan):
            label.setWordWrap(True)
        self.button = QPushButton("Set pixel size…")
        self.button.setToolTip("How many micrometres a pixel measures; without it, nothing can be segmented")
        self.button.clicked.connect(self.pixel_size_wanted)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        for widget in (self.name, self.extent, self.scan, self.button):
            column.addWidget(widget)

    def show_slide(self, slide: Slide) -> None:
        """Show the facts of a slide."""
        self.name.set_whole(PurePath(slide.path).name or "slide")
        self.name.setToolTip(f"{slide.path}\nRead by {slide.reader or 'napari-nucleiseg'}")
        self.extent.setText(size_text(slide))
        self.scan.setText(scan_text(slide))
        self.scan.setVisible(bool(self.scan.text()))
        self.button.setVisible(slide.mpp_um is None)
