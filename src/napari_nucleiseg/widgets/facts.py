"""What is known of the slide, in two lines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QHBoxLayout, QLabel, QMenu, QPushButton, QSizePolicy, QToolButton, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

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
    srgb_wanted = Signal(bool)
    picture_wanted = Signal(str)

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
        self._make_menu()
        head = QHBoxLayout()
        head.addWidget(self.name, 1)
        head.addWidget(self.more)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(head)
        for widget in (self.extent, self.scan, self.button):
            column.addWidget(widget)

    def _make_menu(self) -> None:
        self.menu = QMenu(self)
        self.menu.addAction("Change the pixel size…").triggered.connect(self._on_pixel_size_chosen)
        self.srgb = self.menu.addAction("Colours by the scanner's profile (sRGB)")
        self.srgb.setCheckable(True)
        self.srgb.toggled.connect(self.srgb_wanted)
        self.pictures = self.menu.addSeparator()
        self.more = QToolButton()
        self.more.setText("⋯")
        self.more.setStyleSheet("QToolButton::menu-indicator { image: none; }")  # it would lie over the dots
        self.more.setToolTip("Pixel size, colours, label and overview of this slide")
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.more.setMenu(self.menu)

    def _on_pixel_size_chosen(self) -> None:
        self.pixel_size_wanted.emit()

    def _offer_pictures(self, names: Iterable[str]) -> None:
        """List the pictures that come with the slide at the end of the menu."""
        actions = self.menu.actions()
        for action in actions[actions.index(self.pictures) + 1 :]:
            self.menu.removeAction(action)
        for name in sorted(names):
            action = self.menu.addAction(f"Show the {name}")
            action.triggered.connect(lambda _checked=False, name=name: self.picture_wanted.emit(name))

    def show_slide(self, slide: Slide) -> None:
        """Show the facts of a slide."""
        self.name.set_whole(PurePath(slide.path).name or "slide")
        self.name.setToolTip(f"{slide.path}\nRead by {slide.reader or 'napari-nucleiseg'}")
        self.extent.setText(size_text(slide))
        self.scan.setText(scan_text(slide))
        self.scan.setVisible(bool(self.scan.text()))
        self.button.setVisible(slide.mpp_um is None)
        self._offer_pictures(slide.associated)
        self.srgb.setEnabled(slide.icc_profile is not None)

    def show_colours(self, *, in_srgb: bool) -> None:
        """Show whether the slide's colours are converted."""
        with signals_blocked(self.srgb):
            self.srgb.setChecked(in_srgb)
