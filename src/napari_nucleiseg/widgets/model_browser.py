"""The dock "Models": all models and networks, what each is good for, and what can be done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QSplitter,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.model_browser import ModelBrowser
from napari_nucleiseg.viewer.model_rows import FILTERS, Row, chosen_rows
from napari_nucleiseg.widgets.comparison_bar import ComparisonBar
from napari_nucleiseg.widgets.model_card import card_html
from napari_nucleiseg.widgets.model_dialogs import TrainDialog, ask_model_export, ask_model_import
from napari_nucleiseg.widgets.model_list import ModelList
from napari_nucleiseg.widgets.parts import show_progress
from napari_nucleiseg.widgets.wording import link_colour, warning_colour

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard

LISTING = "Looking which models there are…"
NOTHING_FOUND = "Nothing is like that. Search for less, or lift a filter."
USE_TIPS = {
    "use": "Find nuclei with this model from now on",
    "in use": "It is in use already",
    "network": "It has no weights yet: train it first",
    "stacks": "It is for z-stacks: Layers > Segment > Nuclei in a stack",
}
COMPARE_TIP = "Outline on the slide what the model in use and this one find in the view, and what differs"
NO_COMPARE_TIP = "Choose another model with weights than the one in use"
TRAIN_TIP = "How it is trained: the line for a shell goes into the clipboard, and the window opens what it has for it"
NO_TRAIN_TIP = "A network of another program is run as it came, and cannot be taught"
EXPORT_TIP = "Write it for other programs: a bioimage.io package, TorchScript, ONNX, or its weights with their card"
NO_EXPORT_TIP = "A network without weights says nothing yet: train it first"
IMPORT_TIP = "Take a model from a bioimage.io package"
SIZE = QSize(1000, 330)


class ModelBrowserPanel(QWidget):
    """Shows a `ModelBrowser`.

    Parameters
    ----------
    browser : ModelBrowser
        What is shown and asked for; it is followed as long as this is seen.
    theme : str
        Of napari, when it is made.
    """

    train_wanted = Signal(str)
    """The dock in which something is trained is to be opened: see `Row.trained_in`."""

    def __init__(self, browser: ModelBrowser, theme: str) -> None:
        super().__init__()
        self.setObjectName("nucleiseg models")
        self.browser = browser
        self._hint = Hint()
        self._former: dict[str, Any] | None = None
        self._link_colour, self._warning_colour = link_colour(theme), warning_colour(theme)
        parts = QSplitter()
        parts.addWidget(self._make_list())
        parts.addWidget(self._make_card())
        parts.setStretchFactor(0, 3)
        parts.setStretchFactor(1, 2)
        parts.setSizes([600, 400])
        parts.setChildrenCollapsible(False)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 6, 8, 6)
        column.setSpacing(6)
        column.addWidget(parts, 1)
        column.addWidget(ComparisonBar(browser.comparing))
        column.addLayout(self._make_buttons())
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(220)
        self._connect()
        self._on_listed()

    # ------------------------------------------------------------------ parts

    def _make_list(self) -> QWidget:
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search name, title, paper, use")
        self.search.setToolTip("Words that must all occur in name, title, paper, use, licence or training data")
        self.search.setClearButtonEnabled(True)
        self.search.setMinimumWidth(140)
        self.filters: dict[str, QPushButton] = {}
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(self.search, 1)
        for key, (title, tip, _keeps) in FILTERS.items():
            chip = self.filters[key] = QPushButton(title)
            chip.setToolTip(f"Show only these: {tip[0].lower()}{tip[1:]}")
            chip.setCheckable(True)
            chip.toggled.connect(self._on_filtered)
            row.addWidget(chip)
        self.list = ModelList()
        self.nothing = QLabel(LISTING)
        self.nothing.setWordWrap(True)
        part = QWidget()
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(row)
        column.addWidget(self.list, 1)
        column.addWidget(self.nothing)
        return part

    def _make_card(self) -> QWidget:
        self.card = QLabel()
        self.card.setWordWrap(True)
        self.card.setTextFormat(Qt.TextFormat.RichText)
        self.card.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.card.setMargin(8)
        self.card.setOpenExternalLinks(True)
        self.card.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.LinksAccessibleByMouse
        )
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(self.card)
        scroll.setMinimumWidth(260)
        return scroll

    def _make_buttons(self) -> QHBoxLayout:
        self.use_button = QPushButton("Use")
        self.train_button = QPushButton("Train…")
        self.compare_button = QPushButton("Compare in view…")
        self.export_button = QPushButton("Export…")
        self.import_button = QPushButton("Import…")
        self.import_button.setToolTip(IMPORT_TIP)
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.hint.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.bar = QProgressBar()
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("Stop after what is being done; nothing is kept of it")
        row = QHBoxLayout()
        for button in (self.use_button, self.train_button, self.compare_button):
            row.addWidget(button)
        row.addWidget(self.hint, 1)
        row.addWidget(self.bar, 1)
        row.addWidget(self.stop_button)
        row.addWidget(self.import_button)
        row.addWidget(self.export_button)
        self.bar.hide()
        self.stop_button.hide()
        return row

    def _connect(self) -> None:
        browser, exchange = self.browser, self.browser.exchange
        browser.listed.connect(self._on_listed)
        browser.counted.connect(self._on_counted)
        browser.said.connect(self._on_said)
        exchange.said.connect(self._on_said)
        exchange.imported.connect(self._on_imported)
        exchange.unclear.connect(self._on_unclear)
        exchange.progress_changed.connect(self._on_progress)
        self.search.textChanged.connect(self._on_filtered)
        self.list.chosen.connect(self._on_chosen)
        self.list.itemDoubleClicked.connect(self._on_double_clicked)
        self.use_button.clicked.connect(self._on_use_clicked)
        self.train_button.clicked.connect(self._on_train_clicked)
        self.compare_button.clicked.connect(self._on_compare_clicked)
        self.export_button.clicked.connect(self._on_export_clicked)
        self.import_button.clicked.connect(self._on_import_clicked)
        self.stop_button.clicked.connect(exchange.stop)

    # ------------------------------------------------------------------ what there is

    def _on_filtered(self, _what: Any = None) -> None:
        self._on_listed()

    def _on_listed(self) -> None:
        browser = self.browser
        filters = [key for key, chip in self.filters.items() if chip.isChecked()]
        rows = chosen_rows(browser.rows, self.search.text(), filters)
        self.list.show_rows(rows, browser.parameters, browser.is_in_use)
        self.nothing.setText(NOTHING_FOUND if browser.was_read else LISTING)
        self.nothing.setVisible(not rows)

    def _on_counted(self, network: str) -> None:
        self.list.show_parameters(network, self.browser.parameters[network])
        row = self.list.selected
        if row is not None and row.entry is not None and row.entry.spec.name == network:
            self._show_card(row)

    def _on_chosen(self) -> None:
        row = self.list.selected
        self._show_buttons(row)
        self._show_card(row)
        if row is not None:
            self.browser.look_at(row)

    def _show_card(self, row: Row | None) -> None:
        if row is None:
            self.card.setText("")
            return
        known = None if row.entry is None else self.browser.parameters.get(row.entry.spec.name)
        self.card.setText(card_html(row, known, self._link_colour))

    def _show_buttons(self, row: Row | None) -> None:
        has_weights = row is not None and row.card is not None
        in_use = row is not None and self.browser.is_in_use(row)
        for_stacks = row is not None and row.is_for_stacks
        can_compare = has_weights and not in_use and not for_stacks
        why = "in use" if in_use else "network" if not has_weights else "stacks" if for_stacks else "use"
        self.use_button.setEnabled(why == "use")
        self.use_button.setToolTip(USE_TIPS[why])
        self.compare_button.setEnabled(can_compare)
        self.compare_button.setToolTip(COMPARE_TIP if can_compare else NO_COMPARE_TIP)
        can_train = row is not None and bool(row.command)
        self.train_button.setEnabled(can_train)
        self.train_button.setToolTip(TRAIN_TIP if can_train or row is None else NO_TRAIN_TIP)
        self.export_button.setEnabled(has_weights)
        self.export_button.setToolTip(EXPORT_TIP if has_weights else NO_EXPORT_TIP)

    # ------------------------------------------------------------------ what the user does

    def _on_double_clicked(self, item: QTreeWidgetItem, _column: int) -> None:
        if item.parent() is not None and self.use_button.isEnabled():
            self._on_use_clicked()

    def _on_use_clicked(self) -> None:
        row = self.list.selected
        if row is not None:
            self.browser.use(row)

    def _on_train_clicked(self) -> None:
        row = self.list.selected
        if row is None:
            return
        dialog = TrainDialog(row, self)
        dialog.accepted.connect(lambda: self.train_wanted.emit(row.trained_in))
        dialog.show()

    def _on_compare_clicked(self) -> None:
        row = self.list.selected
        if row is not None:
            self.browser.compare(row)

    def _on_export_clicked(self) -> None:
        row = self.list.selected
        if row is not None and row.card is not None:
            wanted = ask_model_export(row.card, self)
            if wanted is not None:
                self.browser.exchange.export(row.card, *wanted)

    def _on_import_clicked(self) -> None:
        wanted = ask_model_import(self, self._former)
        if wanted is not None:
            self._former = wanted
            self.browser.exchange.import_package(**wanted)

    # ------------------------------------------------------------------ what is said

    def _on_unclear(self, sentence: str) -> None:
        """Ask what the package does not say the next time, with what was given so far."""
        self._former = {**(self._former or {}), "reason": sentence}
        self._on_import_clicked()

    def _on_imported(self, card: ModelCard) -> None:
        """Show it as soon as it is listed, whatever was searched for."""
        self._former = None
        self.search.clear()
        for chip in self.filters.values():
            chip.setChecked(False)
        self.list.wanted = f"model {card.name}"

    def _on_progress(self, progress: Progress | None) -> None:
        self.bar.setVisible(progress is not None)
        self.stop_button.setVisible(progress is not None)
        self.hint.setVisible(progress is None)
        self.import_button.setEnabled(progress is None)
        if progress is not None:
            show_progress(self.bar, progress)

    def _on_said(self, hint: Hint) -> None:
        self._hint = hint
        self.hint.setText(hint.text)
        self.hint.setStyleSheet(f"color: {self._warning_colour};" if hint.is_warning else "")

    def set_theme(self, theme: str) -> None:
        """Show links and what needs heed in the colours of this theme."""
        self._link_colour, self._warning_colour = link_colour(theme), warning_colour(theme)
        self._on_said(self._hint)
        self._show_card(self.list.selected)

    # ------------------------------------------------------------------ Qt

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Begin to follow."""
        super().showEvent(event)
        self.browser.open()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """Cease to follow."""
        super().hideEvent(event)
        self.browser.close()
