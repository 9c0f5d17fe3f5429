"""The part of the panel with which attention is painted: what to paint, undo, and what it is good for."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_nucleiseg.state import BRUSHES, DO_NOT, ERASE, LOOK, Session
from napari_nucleiseg.viewer.attention_layer import COLOURS, TITLES
from napari_nucleiseg.widgets import shortcuts
from napari_nucleiseg.widgets.correct import swatch
from napari_nucleiseg.widgets.parts import show_turns

TIPS = {
    LOOK: "Paint nuclei, or other places, that the model overlooks  (1)",
    DO_NOT: "Paint what the model looks at although it is no nucleus  (2)",
    ERASE: "Take paint away: nothing is said of these places  (E)",
}
SHORT = {LOOK: "Look here", DO_NOT: "Do not look", ERASE: "Erase"}
HINT = (
    "Paint green over nuclei that the heatmap misses, and black over what it lights up wrongly; N hides the outlines. "
    "Teach… then moves the model's attention, and its nuclei with it."
)
LOOK_FIRST = (
    "<b>There is no heatmap yet: press View first, and the model shows where it looks.</b> "
    "What was painted before is shown already."
)


class PaintAttention(QWidget):
    """A button to begin, and what is needed while attention is painted; does nothing by itself.

    Parameters
    ----------
    session : Session
        What the controls show and set.
    """

    brush_wanted = Signal(str)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.toggle = QPushButton("Paint attention")
        self.toggle.setCheckable(True)
        self.toggle.setToolTip(
            f"Show the model on its heatmap where it should look, and where it should not  "
            f"({shortcuts.PAINT_ATTENTION.text})"
        )
        self.toggle.toggled.connect(self._on_toggled)
        self.buttons: dict[str, QPushButton] = {}
        self._body = QWidget()
        body = QVBoxLayout(self._body)
        body.setContentsMargins(0, 0, 0, 0)
        body.setSpacing(6)
        body.addLayout(self._make_brushes())
        body.addLayout(self._make_history())
        self.hint = QLabel(HINT)
        self.hint.setWordWrap(True)
        body.addWidget(self.hint)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.toggle)
        column.addWidget(self._body)
        self._body.hide()
        self.hide()
        session.events.painting.connect(self._on_painting_changed)
        session.events.brush.connect(self._on_brush_changed)
        self._on_brush_changed(session.brush)

    def _make_brushes(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(4)
        group = QButtonGroup(self)
        for brush in BRUSHES:
            button = QPushButton(SHORT[brush])
            button.setCheckable(True)
            button.setToolTip(TIPS[brush])
            button.setAccessibleName(TITLES[brush])
            if brush in COLOURS:
                button.setIcon(swatch(COLOURS[brush]))
            button.clicked.connect(lambda _on=True, brush=brush: self.brush_wanted.emit(brush))
            group.addButton(button)
            self.buttons[brush] = button
            row.addWidget(button, 1)
        return row

    def _make_history(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.undo_button = QPushButton("Undo")
        self.redo_button = QPushButton("Redo")
        for button, shortcut in ((self.undo_button, shortcuts.UNDO), (self.redo_button, shortcuts.REDO)):
            button.setToolTip(f"Anywhere on the slide, also after a restart  ({shortcut.text})")
            button.setEnabled(False)
            row.addWidget(button, 1)
        return row

    # ------------------------------------------------------------------ what the controller says

    def offer(self, offered: bool) -> None:
        """Offer to paint, or not: only some models say where they look."""
        self.setVisible(offered)

    def show_awaited(self, awaited: bool) -> None:
        """Say what is to be done first where there is no heatmap to paint on."""
        self.hint.setText(LOOK_FIRST if awaited else HINT)

    def show_history(self, turns: tuple[str, str]) -> None:
        """Show what undo and redo would turn; empty for nothing."""
        show_turns(self.undo_button, self.redo_button, turns)

    # ------------------------------------------------------------------ session

    def _on_toggled(self, on: bool) -> None:
        self._session.painting = on

    def _on_painting_changed(self, on: bool) -> None:
        self.toggle.setChecked(on)
        self.toggle.setText("Painting attention" if on else "Paint attention")
        self._body.setVisible(on)

    def _on_brush_changed(self, brush: str) -> None:
        self.buttons[brush].setChecked(True)
