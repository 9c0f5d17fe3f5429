"""A tile beside what a network looks at in it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QImage, QPainter, QPaintEvent, QPixmap
from qtpy.QtWidgets import QSizePolicy, QWidget

GAP, CAPTION = 8, 20
SIDE = QSize(260, 150)
EMPTY = "A tile, and what the network sees in it, appear here at each measurement"


class AttentionView(QWidget):
    """Draws the tile and the attention on it, as large as there is room, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("nucleiseg attention")
        self.setMinimumSize(SIDE)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.pictures: tuple[QPixmap, ...] = ()
        self._caption = ""
        self.is_of_nuclei = False

    @property
    def is_of_nuclei(self) -> bool:
        """Whether what is shown is how likely a pixel is one of a nucleus; else where the network looks."""
        return self._is_of_nuclei

    @is_of_nuclei.setter
    def is_of_nuclei(self, is_of_nuclei: bool) -> None:
        self._is_of_nuclei = is_of_nuclei
        bright = (
            "what the network takes for a nucleus" if is_of_nuclei else "where it looks to tell magnifications apart"
        )
        self.setToolTip(
            f"Bright is {bright}. Nuclei should light up; fibres, folds or everything alike say that it has not "
            "learned yet, or the wrong thing."
        )
        self.update()

    def clear(self) -> None:
        """Show nothing."""
        self.pictures = ()
        self.update()

    def show_tile(self, picture: NDArray[np.uint8], attention: NDArray[np.float32], step: int) -> None:
        """Show a tile ``(y, x, 3)`` uint8 RGB and what is seen in it, ``(y, x)`` in 0..1, after a step."""
        shade = np.rint(np.clip(attention, 0, 1) * 255).astype(np.uint8)
        coloured = cv2.cvtColor(cv2.applyColorMap(shade, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
        self.pictures = (_pixmap(picture), _pixmap(coloured.astype(np.uint8)))
        self._caption = f"{'nuclei' if self.is_of_nuclei else 'attention'}, step {step:,}"
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw both, or say what comes."""
        painter = QPainter(self)
        painter.setPen(self.palette().windowText().color())
        if not self.pictures:
            wrapped = int(Qt.AlignmentFlag.AlignCenter) | int(Qt.TextFlag.TextWordWrap)
            painter.drawText(self.rect().adjusted(12, 0, -12, 0), wrapped, EMPTY)
            return
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        side = max(16, min((self.width() - GAP) // 2, self.height() - CAPTION))
        for place, (pixmap, caption) in enumerate(zip(self.pictures, ("tile", self._caption), strict=True)):
            left = place * (side + GAP)
            painter.drawPixmap(QRect(left, CAPTION, side, side), pixmap)
            painter.drawText(QRect(left, 0, side, CAPTION), Qt.AlignmentFlag.AlignVCenter, caption)


def _pixmap(picture: NDArray[np.uint8]) -> QPixmap:
    pixels = np.ascontiguousarray(picture)
    height, width = pixels.shape[:2]
    return QPixmap.fromImage(QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888))
