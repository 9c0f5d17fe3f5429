"""The legend of a comparison of two models: colours, what differs, who is right; and the button that ends it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QWidget

from napari_nucleiseg.viewer.comparing import Comparing
from napari_nucleiseg.viewer.comparison_layers import FORMER_COLOUR, KINDS, NOW_COLOUR
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.widgets.parts import show_progress
from napari_nucleiseg.widgets.wording import model_title

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.comparison import Comparison

CUT = "Only the middle of the view was compared; zoom in to compare all that you see."


class ComparisonBar(QWidget):
    """Hidden as long as nothing is compared.

    Parameters
    ----------
    comparing : Comparing
        What is shown, stopped and ended.
    """

    def __init__(self, comparing: Comparing) -> None:
        super().__init__()
        self.setObjectName("nucleiseg comparison")
        self._comparing = comparing
        self.legend = QLabel()
        self.legend.setWordWrap(True)
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.bar = QProgressBar()
        self.stop_button = QPushButton("Stop comparing")
        self.stop_button.setToolTip("Take the outlines of both models away and show again what was there before")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.legend, 1)
        row.addWidget(self.bar, 1)
        row.addWidget(self.stop_button)
        comparing.running_changed.connect(self._on_changed)
        comparing.progress_changed.connect(self._on_progress)
        comparing.shown.connect(self._on_shown)
        comparing.said.connect(self._on_said)
        self.stop_button.clicked.connect(comparing.stop)
        self._on_changed()

    def _on_changed(self, _running: bool = False) -> None:
        running = self._comparing.is_running
        self.bar.setVisible(running)
        self.legend.setVisible(not running and bool(self.legend.text()))
        self.stop_button.setVisible(running or self._comparing.is_shown)
        self.setVisible(self.stop_button.isVisibleTo(self) or self.legend.isVisibleTo(self))

    def _on_progress(self, progress: Progress) -> None:
        show_progress(self.bar, progress)

    def _on_shown(self, comparison: Comparison | None) -> None:
        self.legend.setText("" if comparison is None else self._text(comparison))
        self._on_changed()

    def _on_said(self, hint: Hint) -> None:
        self.legend.setText(escape(hint.text))
        self._on_changed()

    def _text(self, comparison: Comparison) -> str:
        former, now = (escape(model_title(title)) for title in self._comparing.titles)
        outlines = f"{_swatch(FORMER_COLOUR)} former: {former} &nbsp; {_swatch(NOW_COLOUR)} new: {now}"
        summary = comparison.differences.summary
        told = f"<b>{escape(summary[0].upper() + summary[1:])}.</b>"
        if not comparison.differences.are_equal:
            told += "".join(f" &nbsp; {_swatch(colour)} {word}" for word, colour in KINDS.values())
        lines = [outlines, told]
        if comparison.agreement is not None:
            lines.append(escape(agreement_text(comparison)))
        if self._comparing.is_cut:
            lines.append(CUT)
        return "<br>".join(lines)


def agreement_text(comparison: Comparison) -> str:
    """Return how well either model agrees with what was corrected there; empty where nothing was."""
    if comparison.agreement is None:
        return ""
    former, now = comparison.agreement
    regions = "one region" if now.regions == 1 else f"{now.regions} regions"
    nuclei = "nucleus" if now.nuclei == 1 else "nuclei"
    return (
        f"Against your {now.nuclei} {nuclei} in {regions} here: AJI {former.aji:.3f} → {now.aji:.3f}, "
        f"PQ {former.pq:.3f} → {now.pq:.3f}."
    )


def _swatch(colour: str) -> str:
    return f'<span style="color:{colour}">■</span>'
