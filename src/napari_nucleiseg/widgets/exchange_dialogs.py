"""The questions of import and export, and the report of what was taken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QFileDialog, QLabel, QMessageBox, QVBoxLayout, QWidget

from napari_nucleiseg.core.exchange.formats import FORMATS, Format

if TYPE_CHECKING:
    from napari_nucleiseg.core.exchange.report import ImportReport

IMPORTS = "Nuclei and regions (*.geojson *.json *.tif *.tiff);;All files (*)"
IMPORT_ENDINGS = (".geojson", ".json")


def can_import(path: str) -> bool:
    """Whether a dropped file holds nuclei, rather than being a slide."""
    return path.lower().endswith(IMPORT_ENDINGS)


def ask_import(parent: QWidget) -> str:
    """Ask which file to import; empty for none."""
    return str(QFileDialog.getOpenFileName(parent, "Import nuclei and regions", str(Path.home()), IMPORTS)[0])


def ask_overlap(parent: QWidget) -> Literal["keep", "replace"] | None:
    """Ask what becomes of nuclei where others are already; None to import nothing."""
    box = QMessageBox(parent)
    box.setWindowTitle("Import nuclei")
    box.setText("This slide has nuclei already.")
    box.setInformativeText("Where nuclei of the file lie on others: keep those that are here, or replace them?")
    keep = box.addButton("Keep", QMessageBox.ButtonRole.AcceptRole)
    replace = box.addButton("Replace", QMessageBox.ButtonRole.AcceptRole)
    box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(keep)
    box.exec()
    clicked = box.clickedButton()
    box.deleteLater()
    if clicked is keep:
        return "keep"
    return "replace" if clicked is replace else None


def ask_export(slide_path: str, parent: QWidget) -> tuple[str, str] | None:
    """Ask where to write and in which format, a key of `FORMATS`; None for nowhere."""
    filters = {f"{form.title} (*{form.ending})": key for key, form in _offered().items()}
    first = next(iter(_offered().values()))
    path = Path(slide_path)
    folder = path.parent if path.parent.is_dir() and slide_path else Path.home()
    suggested = folder / f"{path.stem or 'slide'}{first.ending}"
    chosen, name = QFileDialog.getSaveFileName(parent, "Export nuclei and regions", str(suggested), ";;".join(filters))
    return with_ending(str(chosen), filters.get(name, "geojson")) if chosen else None


def with_ending(path: str, key: str) -> tuple[str, str]:
    """Return a path that ends as its format wants it, and the format: what the name says goes before the choice."""
    lower = path.lower()
    for other, form in FORMATS.items():
        if lower.endswith(form.ending):
            return path, other
    ending = FORMATS[key].ending
    last = f".{ending.rpartition('.')[2]}"
    return (path[: -len(last)] if lower.endswith(last) else path) + ending, key


def _offered() -> dict[str, Format]:
    """The formats, the one that others read most first."""
    return {"geojson": FORMATS["geojson"], **FORMATS}


def show_report(report: ImportReport, parent: QWidget) -> QDialog:
    """Show what an import took, and what not and why, in a window that blocks nothing."""
    dialog = QDialog(parent)
    dialog.setWindowTitle("Import")
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    first, *others = report.sentences
    column = QVBoxLayout(dialog)
    title = QLabel(first)
    title.setStyleSheet("font-weight: bold;")
    column.addWidget(title)
    lines = [f"•  {sentence}" for sentence in others]
    column.addWidget(QLabel("\n".join([*lines, "", "“Undo” takes the nuclei back."])))
    column.addStretch(1)
    for label in dialog.findChildren(QLabel):
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setWordWrap(True)
        label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok)
    buttons.accepted.connect(dialog.accept)
    column.addWidget(buttons)
    dialog.setMinimumWidth(460)
    dialog.show()
    return dialog
