"""Plain parts that docks are made of: a button with its tip, a form, a line, how far a bar and undo are."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QFrame, QProgressBar, QPushButton, QWidget

from napari_nucleiseg.viewer.messages import Progress
from napari_nucleiseg.widgets.wording import progress_text, turn_text


def tipped_button(title: str, tip: str) -> QPushButton:
    """Return a button that says what it does."""
    button = QPushButton(title)
    button.setToolTip(tip)
    return button


def plain_form(part: QWidget | None = None, *, spacing_px: int = 6) -> QFormLayout:
    """Return a form without margins, its titles on the left; that of `part` if there is one."""
    form = QFormLayout() if part is None else QFormLayout(part)
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
    form.setVerticalSpacing(spacing_px)
    return form


def thin_line() -> QFrame:
    """Return a horizontal line that parts what is above from what is below."""
    line = QFrame()
    line.setFixedHeight(1)
    # The theme lets no frame be seen; this grey is, on light and dark.
    line.setStyleSheet("background-color: rgba(128, 128, 128, 90);")
    return line


def show_progress(bar: QProgressBar, progress: Progress) -> None:
    """Let a bar say how far something is; only what is being done where nobody knows how much there is."""
    bar.setRange(0, progress.total)
    bar.setValue(progress.done)
    bar.setFormat(progress_text(progress) if progress.total else progress.title)


def show_turns(undo: QPushButton, redo: QPushButton, turns: tuple[str, str]) -> None:
    """Let two buttons say what undo and redo would turn; empty for nothing."""
    for button, word, kind in ((undo, "Undo", turns[0]), (redo, "Redo", turns[1])):
        button.setEnabled(bool(kind))
        button.setText(turn_text(word, kind))
