"""The part of the panel with which nuclei are corrected: tools, classes, undo."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QButtonGroup, QGridLayout, QHBoxLayout, QLabel, QMenu, QPushButton, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.gestures import TOOLS
from napari_nucleiseg.widgets import shortcuts
from napari_nucleiseg.widgets.form import Switch
from napari_nucleiseg.widgets.parts import show_turns, tipped_button

COLUMNS = 5
CLASS_COLUMNS = 7
SWATCH_PX = 12
# Of a button with a swatch and a number: seven in a row fit the panel at its narrowest, beside its scroll bar.
CLASS_PX = 32
FRAME = "#858585"
KEYS = (
    "D delete · Y approve · R reject · U next\n"
    "G fill holes · S smooth · . grow · , shrink\n"
    "1–9 class, 0 none · Space moves the slide"
)
KEYS_TIP = "All of these act on the nucleus under the mouse. Nothing needs to be saved: every stroke is kept at once."


class Correct(QWidget):
    """Tools and their keys; does nothing by itself.

    Parameters
    ----------
    session : Session
        What the controls show and set.
    """

    class_wanted = Signal(int)
    classes_edited = Signal()
    """The classes themselves are to be changed."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.toggle = QPushButton("Correct nuclei")
        self.toggle.setCheckable(True)
        self.toggle.setMinimumHeight(34)
        self.toggle.setToolTip(f"Draw, erase, split and join nuclei on the slide itself  ({shortcuts.CORRECT.text})")
        self.toggle.toggled.connect(self._on_toggled)
        self._make_tools()
        self._make_history()
        self._classes = QGridLayout()
        self._classes.setSpacing(4)
        self.keys = QLabel(KEYS)
        self.keys.setToolTip(KEYS_TIP)
        self.keys.setWordWrap(True)
        self._body = QWidget()
        body = QVBoxLayout(self._body)
        body.setContentsMargins(0, 0, 0, 0)
        body.setSpacing(6)
        for part in (self._tools_part, self._history_part, self._classes):
            body.addLayout(part)
        body.addWidget(self.keys)
        self.show_approved = Switch(session, "show_approved")
        body.addWidget(self.show_approved)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.toggle)
        column.addWidget(self._body)
        column.addLayout(self._make_docks())
        self._body.hide()
        self._shown: list[tuple[int, str, str]] = []
        self.classes_button: QPushButton | None = None
        session.events.editing.connect(self._on_editing_changed)
        session.events.painting.connect(self._on_editing_changed)
        session.events.tool.connect(self._on_tool_changed)
        self._on_tool_changed(session.tool)

    def _make_tools(self) -> None:
        self._tools_part = QGridLayout()
        self._tools_part.setSpacing(3)
        self.buttons: dict[str, QPushButton] = {}
        group = QButtonGroup(self)
        for index, tool in enumerate(TOOLS.values()):
            button = QPushButton(tool.title)
            button.setCheckable(True)
            button.setToolTip(f"{tool.tip}  ({tool.key.replace('-', '+')})")
            button.clicked.connect(lambda _on=True, name=tool.name: self._on_tool_clicked(name))
            group.addButton(button)
            self.buttons[tool.name] = button
            self._tools_part.addWidget(button, index // COLUMNS, index % COLUMNS)

    def _make_history(self) -> None:
        self._history_part = QHBoxLayout()
        self.undo_button = QPushButton("Undo")
        self.redo_button = QPushButton("Redo")
        for button, shortcut in ((self.undo_button, shortcuts.UNDO), (self.redo_button, shortcuts.REDO)):
            button.setToolTip(f"Anywhere on the slide, also after a restart  ({shortcut.text})")
            button.setEnabled(False)
            self._history_part.addWidget(button, 1)

    def _make_docks(self) -> QGridLayout:
        self.table_button = tipped_button(
            "Table…", "Every nucleus of the slide: sort, filter, go there, approve many at once"
        )
        self.regions_button = tipped_button(
            "Regions…", "Say where everything is corrected: to teach a model, or to measure it"
        )
        self.history_button = tipped_button(
            "History…", "What was done on this slide, where, when and by whom; go back to any state"
        )
        self.teach_button = tipped_button(
            "Teach…", "Make a better model of what you corrected; it is used only if it is better"
        )
        self.import_button = tipped_button(
            "Import…", "Take nuclei and regions from a GeoJSON file (QuPath) or a label image"
        )
        self.export_button = tipped_button(
            "Export…", "Write nuclei and regions for QuPath and other programs, or as a table"
        )
        self.plots_button = tipped_button(
            "Plots…",
            f"Measurements as histogram or scatter plot; nuclei are selected by them  ({shortcuts.PLOTS.text})",
        )
        self.like_button = tipped_button(
            "Find the like…",
            f"Mark one to five nuclei: everything similar in view is proposed  ({shortcuts.LIKE.text})",
        )
        self.more_button = tipped_button(
            "More…", "Compare with a reference, cluster, score by text, train without labels, many slides"
        )
        self.more_button.setMenu(self._make_menu())
        grid = QGridLayout()
        grid.setSpacing(4)
        # What corrections are for comes first: on a low screen the rest has to be scrolled to.
        rows = (
            (self.teach_button, self.regions_button, self.table_button),
            (self.history_button, self.import_button, self.export_button),
            (self.plots_button, self.like_button, self.more_button),
        )
        for row, buttons in enumerate(rows):
            for column, button in enumerate(buttons):
                grid.addWidget(button, row, column)
        return grid

    def _make_menu(self) -> QMenu:
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        self.compare_action = menu.addAction("Compare with a reference…")
        self.compare_action.setToolTip(
            "Compare with a reference (QuPath, label image, another run): what was missed, added, split or merged"
        )
        self.cluster_action = menu.addAction("Cluster the view…")
        self.cluster_action.setToolTip(
            "Without a model: find groups of pixels in the view that look alike, and choose those that are nuclei"
        )
        self.by_text_action = menu.addAction("Score by text…")
        self.by_text_action.setToolTip("Say in words what nuclei are like: those in view are scored and get classes")
        menu.addSeparator()
        self.unlabelled_action = menu.addAction("Train without labels…")
        self.unlabelled_action.setToolTip("A network learns where nuclei are from the slides alone: nothing is drawn")
        self.batch_action = menu.addAction("Many slides unattended…")
        self.batch_action.setToolTip(
            f"Many slides, one after the other, without anybody beside them  ({shortcuts.BATCH.text})"
        )
        return menu

    # ------------------------------------------------------------------ what the controller says

    def show_history(self, turns: tuple[str, str]) -> None:
        """Show what undo and redo would turn; empty for nothing."""
        show_turns(self.undo_button, self.redo_button, turns)

    def show_classes(self, classes: Sequence[tuple[int, str, str]]) -> None:
        """Offer classes: number, name, colour."""
        if list(classes) == self._shown:
            return
        self._shown = list(classes)
        while (item := self._classes.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()
        for place, (number, name, colour) in enumerate(self._shown[:9]):
            button = QPushButton(str(number))
            button.setIcon(swatch(colour))
            button.setIconSize(QSize(SWATCH_PX, SWATCH_PX))
            button.setToolTip(f"{name}: press {number} over a nucleus, or click here for the one drawn or picked last")
            button.setMinimumWidth(CLASS_PX)
            button.clicked.connect(lambda _on=False, number=number: self.class_wanted.emit(number))
            self._classes.addWidget(button, place // CLASS_COLUMNS, place % CLASS_COLUMNS)
        edit = QPushButton("Edit…")
        edit.setToolTip("Name, colour, add or remove classes")
        edit.clicked.connect(lambda _on=False: self.classes_edited.emit())
        place = len(self._shown[:9])
        self._classes.addWidget(edit, place // CLASS_COLUMNS, place % CLASS_COLUMNS)
        self.classes_button = edit

    # ------------------------------------------------------------------ session

    def _on_toggled(self, on: bool) -> None:
        self._session.painting = False
        self._session.editing = on

    def _on_editing_changed(self, _on: bool) -> None:
        on = self._session.editing and not self._session.painting
        with signals_blocked(self.toggle):
            self.toggle.setChecked(on)
        self.toggle.setText("Correcting nuclei" if on else "Correct nuclei")
        self._body.setVisible(on)

    def _on_tool_clicked(self, name: str) -> None:
        self._session.tool = name

    def _on_tool_changed(self, name: str) -> None:
        self.buttons[name].setChecked(True)


def swatch(colour: str) -> QIcon:
    """Return a square of a colour, framed so that it is seen on every theme; see-through for what is none."""
    pixmap = QPixmap(SWATCH_PX, SWATCH_PX)
    pixmap.fill(QColor(colour) if QColor(colour).isValid() else Qt.GlobalColor.transparent)
    if QColor(colour).isValid():
        painter = QPainter(pixmap)
        painter.setPen(QColor(FRAME))
        painter.drawRect(0, 0, SWATCH_PX - 1, SWATCH_PX - 1)
        painter.end()
    return QIcon(pixmap)
