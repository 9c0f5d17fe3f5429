"""The dock "Batch": a queue of slides that are worked through unattended, and what came of each."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QSize, Qt, QUrl
from qtpy.QtGui import QDesktopServices, QDragEnterEvent, QDropEvent, QShowEvent
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.core.batch.unattended.database import DONE
from napari_nucleiseg.viewer.batch import Batch, Doing
from napari_nucleiseg.viewer.batch_pace import Overall
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.widgets.batch_form import BatchForm
from napari_nucleiseg.widgets.batch_table import BatchTable, paths_of, row_text
from napari_nucleiseg.widgets.dialogs import ask_slides
from napari_nucleiseg.widgets.parts import thin_line, tipped_button
from napari_nucleiseg.widgets.wording import time_left, warning_colour

SIZE = QSize(380, 800)
STEPS = 1000
# Of what is known of the selected slide.
LEAST_LINES, MOST_LINES = 5, 8
INTRODUCTION = (
    "Add slides, or drop them here; choose a folder for the results and press Start. "
    "Each slide is segmented and measured in the background, and what is done already is not done again."
)
NOTHING_CHOSEN = "Select a slide to read what is known of it."
STOPPING = "Stopping: what is in work ends first"
PAUSED = "Paused"


class BatchPanel(QWidget):
    """Queue, settings, progress and results.

    Parameters
    ----------
    batch : Batch
        What is shown and asked for.
    theme : str
        Of napari, when it is made.
    """

    def __init__(self, batch: Batch, theme: str) -> None:
        super().__init__()
        self.setObjectName("nucleiseg batch")
        self.batch = batch
        self._warning_colour = warning_colour(theme)
        self._hint, self._place = Hint(), ""
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(8, 6, 8, 6)
        column.setSpacing(6)
        self.told = QLabel(INTRODUCTION)
        self.told.setWordWrap(True)
        self.told.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.table = BatchTable(batch.queue)
        self.form = BatchForm(batch)
        column.addLayout(self._make_list_buttons())
        column.addWidget(self.table, 3)
        column.addWidget(self._make_details(), 2)
        column.addLayout(self._make_result_buttons())
        column.addWidget(thin_line())
        column.addWidget(self.form)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 6)
        whole.setSpacing(6)
        whole.addWidget(_scrolled(body), 1)
        # On a low screen the rest is scrolled; what starts and stops it is always in sight.
        whole.addLayout(self._make_run())
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumWidth(SIZE.width())
        self.setAcceptDrops(True)
        self._connect()
        self._on_listed()
        self._on_doing(batch.doing)
        self.set_theme(theme)

    # ------------------------------------------------------------------ what it is made of

    def _make_list_buttons(self) -> QHBoxLayout:
        self.add_button = tipped_button("Add…", "Put slides into the list; files and folders can also be dropped here")
        menu = QMenu(self)
        menu.addAction("Slides…", self.ask_files)
        menu.addAction("A folder of slides…", self.ask_folder_of_slides)
        menu.addAction("A manifest (CSV)…", self.ask_manifest)
        menu.addAction("The open slide", self.batch.add_open)
        self.add_button.setMenu(menu)
        self.remove_button = tipped_button(
            "Remove", "Take the selected slides off the list; their results stay  (Delete)"
        )
        self.clear_button = tipped_button("Clear", "Empty the list; all results stay")
        row = QHBoxLayout()
        row.setSpacing(6)
        for button in (self.add_button, self.remove_button, self.clear_button):
            row.addWidget(button, 1)
        return row

    def _make_details(self) -> QScrollArea:
        self.details = QLabel(NOTHING_CHOSEN)
        self.details.setWordWrap(True)
        self.details.setTextFormat(Qt.TextFormat.PlainText)
        self.details.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.details.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        scroll = _scrolled(self.details)
        line = self.fontMetrics().lineSpacing()
        scroll.setMinimumHeight(LEAST_LINES * line + 6)
        scroll.setMaximumHeight(MOST_LINES * line + 6)
        return scroll

    def _make_result_buttons(self) -> QHBoxLayout:
        self.open_button = tipped_button(
            "Open result", "Show the selected slide with the nuclei that were found on it  (Return, or double-click)"
        )
        self.summary_button = tipped_button(
            "Summary", "Open the page that shows all slides of the folder, in the browser"
        )
        self.show_button = tipped_button("Show folder", "Open the folder of the results")
        row = QHBoxLayout()
        row.setSpacing(6)
        for button in (self.open_button, self.summary_button, self.show_button):
            row.addWidget(button, 1)
        return row

    def _make_run(self) -> QVBoxLayout:
        self.bar = QProgressBar()
        self.bar.setRange(0, STEPS)
        self.start_button = tipped_button(
            "Start", "Work through the list; what is done with the same settings is passed over"
        )
        self.pause_button = tipped_button("Pause", "Begin nothing new until you continue; what is in work ends first")
        self.stop_button = tipped_button("Stop", "End soon; what is done is kept, and Start goes on from there")
        row = QHBoxLayout()
        row.setSpacing(6)
        for button in (self.start_button, self.pause_button, self.stop_button):
            button.setMinimumHeight(34)
            row.addWidget(button, 1)
        column = QVBoxLayout()
        column.setContentsMargins(8, 0, 8, 0)
        column.setSpacing(6)
        column.addWidget(thin_line())
        column.addWidget(self.told)
        column.addWidget(self.bar)
        column.addLayout(row)
        return column

    def _connect(self) -> None:
        batch = self.batch
        batch.listed.connect(self._on_listed)
        batch.row_changed.connect(self._on_row_changed)
        batch.doing_changed.connect(self._on_doing)
        batch.progress_changed.connect(self._on_progress)
        batch.place_changed.connect(self._on_place)
        batch.folder_read.connect(self._show_buttons)
        batch.said.connect(self._on_said)
        self.table.chosen.connect(self._on_chosen)
        self.table.removed.connect(self._on_remove_clicked)
        self.table.went.connect(batch.open_result)
        self.remove_button.clicked.connect(self._on_remove_clicked)
        self.clear_button.clicked.connect(lambda _on=False: batch.clear())
        self.open_button.clicked.connect(self._on_open_clicked)
        self.summary_button.clicked.connect(self._on_summary_clicked)
        self.show_button.clicked.connect(self._on_show_clicked)
        self.form.folder_wanted.connect(self.ask_folder)
        self.start_button.clicked.connect(self._on_start_clicked)
        self.pause_button.clicked.connect(self._on_pause_clicked)
        self.stop_button.clicked.connect(lambda _on=False: batch.stop())

    # ------------------------------------------------------------------ what is asked

    def ask_files(self) -> None:
        """Ask for slides."""
        self._add(ask_slides(self))

    def ask_folder_of_slides(self) -> None:
        """Ask for a folder whose slides are all meant."""
        path = QFileDialog.getExistingDirectory(self, "A folder of slides", self._near())
        self._add([str(path)] if path else [])

    def ask_manifest(self) -> None:
        """Ask for a file that lists slides."""
        kinds = "Manifests (*.csv *.tsv);;All files (*)"
        path, _ = QFileDialog.getOpenFileName(self, "A list of slides with a column “path”", self._near(), kinds)
        self._add([str(path)] if path else [])

    def ask_folder(self) -> bool:
        """Ask where results are kept; return whether a folder was chosen."""
        start = self.batch.wishes.folder or self._near()
        path = QFileDialog.getExistingDirectory(self, "Folder for the results", start)
        if path:
            self.batch.choose_folder(str(path))
        return bool(path)

    def _near(self) -> str:
        """Return where to look first: beside the slide that was added last."""
        paths = [row.path for row in self.batch.queue]
        return str(Path(paths[-1]).parent) if paths else str(Path.home())

    def _add(self, paths: list[str]) -> None:
        if paths:
            self.batch.add(paths)

    # ------------------------------------------------------------------ what the user does

    def _on_remove_clicked(self) -> None:
        self.batch.remove([row.path for row in self.table.selected])

    def _on_open_clicked(self) -> None:
        chosen = self.table.selected
        if len(chosen) == 1:
            self.batch.open_result(chosen[0].path)

    def _on_summary_clicked(self) -> None:
        if self.batch.summary is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.batch.summary)))

    def _on_show_clicked(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(self.batch.wishes.folder))

    def _on_start_clicked(self) -> None:
        if self.batch.wishes.folder or not len(self.batch.queue) or self.ask_folder():
            self.batch.start()

    def _on_pause_clicked(self) -> None:
        if self.batch.doing is Doing.PAUSED:
            self.batch.go_on()
        else:
            self.batch.pause()

    # ------------------------------------------------------------------ what is told

    def _on_listed(self) -> None:
        self.table.renew()
        self._show_told()
        self._on_progress(self.batch.overall)
        self._show_buttons()

    def _on_row_changed(self, path: str) -> None:
        self.table.slides.show_row(path)
        if any(row.path == path for row in self.table.selected):
            self._on_chosen()

    def _on_chosen(self) -> None:
        chosen = self.table.selected
        text = "\n\n".join(row_text(row) for row in chosen[:20])
        self.details.setText(text or NOTHING_CHOSEN)
        self._show_buttons()

    def _on_doing(self, doing: Doing) -> None:
        running = doing is not Doing.NOTHING
        self.form.set_open(on=not running)
        self.start_button.setEnabled(not running)
        self.pause_button.setText("Continue" if doing is Doing.PAUSED else "Pause")
        self.pause_button.setEnabled(doing in {Doing.RUNNING, Doing.PAUSED})
        self.stop_button.setEnabled(doing in {Doing.RUNNING, Doing.PAUSED})
        self._place = ""
        self._show_told()
        self._show_buttons()

    def _on_progress(self, overall: Overall | None) -> None:
        self.bar.setValue(0 if overall is None else round(STEPS * overall.share))
        text = "No slides" if overall is None else overall_text(overall, self.batch.doing)
        self.bar.setFormat(text)
        self.bar.setToolTip(text)

    def _on_place(self, place: str) -> None:
        self._place = f"{place[:1].upper()}{place[1:]}."
        self._show_told()

    def _on_said(self, hint: Hint) -> None:
        self._hint = hint
        self._show_told()

    def _show_told(self) -> None:
        """Show what was said last, else where it is done, else how to begin."""
        text = self._hint.text or self._place or ("" if len(self.batch.queue) else INTRODUCTION)
        self.told.setText(text)
        self.told.setVisible(bool(text))
        self.told.setStyleSheet(f"color: {self._warning_colour};" if self._hint.is_warning else "")

    def _show_buttons(self) -> None:
        """Let be pressed what has an effect."""
        idle, chosen = not self.batch.is_running, self.table.selected
        self.add_button.setEnabled(idle)
        self.remove_button.setEnabled(idle and bool(chosen))
        self.clear_button.setEnabled(idle and len(self.batch.queue) > 0)
        self.open_button.setEnabled(len(chosen) == 1 and chosen[0].state == DONE)
        self.summary_button.setEnabled(self.batch.summary is not None)
        self.show_button.setEnabled(bool(self.batch.wishes.folder))

    def set_theme(self, theme: str) -> None:
        """Show what needs heed in the colour of this theme."""
        self._warning_colour = warning_colour(theme)
        self.table.set_warning_colour(self._warning_colour)
        self._on_said(self._hint)

    # ------------------------------------------------------------------ Qt

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        """Take files and folders, unless slides are worked on."""
        if event.mimeData().hasUrls() and not self.batch.is_running:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802 - Qt's name
        """Put what was dropped into the list."""
        paths = paths_of(event.mimeData().urls())
        if paths:
            event.acceptProposedAction()
            self._add(paths)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Read what is not known yet."""
        super().showEvent(event)
        self.batch.refresh()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE


def overall_text(overall: Overall, doing: Doing) -> str:
    """Return what stands in the bar: how many slides are done, and how long the rest will take if that is known."""
    text = f"{overall.done:,} of {overall.slides:,} done"
    if overall.failed:
        text += f", {overall.failed:,} failed"
    if doing is Doing.STOPPING:
        return STOPPING
    if doing is Doing.PAUSED:
        return f"{PAUSED}  ·  {text}"
    if doing is Doing.RUNNING and overall.left_s is not None:
        return f"{text}  ·  {time_left(overall.left_s)}"
    return text


def _scrolled(part: QWidget) -> QScrollArea:
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QScrollArea.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(part)
    return scroll
