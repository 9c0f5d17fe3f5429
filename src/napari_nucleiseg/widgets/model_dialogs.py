"""What is asked before a model goes to other programs or comes from them, and how a network is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.core.slides.pixelsize import LARGEST_MPP_UM
from napari_nucleiseg.viewer.model_doors import export_formats
from napari_nucleiseg.viewer.model_rows import CLUSTER, TEACH, UNLABELLED, Row

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard

ABOUT_IMPORT = (
    "A bioimage.io model package: a zip, a folder, or the rdf.yaml in it. No Python of it is run. "
    "What is left empty is taken from the package."
)
IN_WINDOW = {TEACH: "Open Teach", UNLABELLED: "Open Train without labels", CLUSTER: "Open Cluster the view"}
HOW = {
    TEACH: "It is taught with nuclei that you corrected: here in the dock Teach, or in a shell.",
    UNLABELLED: "It learns from slides alone, nothing is drawn: here in the dock Train without labels, or in a shell.",
    CLUSTER: "It is fitted to one region of a slide: here in the dock Cluster the view, or in a shell.",
    "": "It learns in a shell from a folder with images/ and labels/ that pair up by file name; what comes of it is a "
    "weight file. “napari-nucleiseg plan FOLDER” sets a training up by what the data are like.",
}
COPIED = "The line is in the clipboard. Words in capitals are for you to fill in."


def ask_model_export(card: ModelCard, parent: QWidget) -> tuple[str, str] | None:
    """Ask where to write a model and in which format, a key of `export_formats`; None for nowhere."""
    formats = export_formats()
    filters = {f"{title} (*{ending})": key for key, (title, ending) in formats.items()}
    first = next(iter(formats.values()))[1]
    chosen, name = QFileDialog.getSaveFileName(
        parent,
        "Export the model",
        str(Path.home() / f"{card.name}{first}"),
        ";;".join(filters),
        # Nothing is overwritten, so there is nothing to confirm: what is in the way is said.
        options=QFileDialog.Option.DontConfirmOverwrite,
    )
    return _with_format(str(chosen), filters.get(name, next(iter(formats)))) if chosen else None


def _with_format(path: str, key: str) -> tuple[str, str]:
    """Return a path and its format: what the name says goes before the choice."""
    said = next((other for other, (_, ending) in export_formats().items() if path.lower().endswith(ending)), key)
    return path, said


class ImportModelDialog(QDialog):
    """Asks which package to import, and what it may not say of itself.

    Parameters
    ----------
    parent : QWidget
        For the theme.
    former : dict, optional
        What was given when it failed before, and why (``reason``).
    """

    def __init__(self, parent: QWidget, former: dict[str, Any] | None = None) -> None:
        super().__init__(parent)
        given = former or {}
        self.setWindowTitle("Import a model")
        about = QLabel(given.get("reason") or ABOUT_IMPORT)
        about.setWordWrap(True)
        about.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.path = QLineEdit(given.get("path", ""))
        self.name = _line(given.get("name", ""), "as the package calls it")
        self.foreground = _line(given.get("foreground", ""), "found by its name")
        self.foreground.setToolTip("Channel that says where nuclei are")
        self.boundary = _line(given.get("boundary", ""), "found by its name, if there is one")
        self.boundary.setToolTip("Channel that says where nuclei touch, or where their borders are")
        self.mpp = QDoubleSpinBox()
        self.mpp.setDecimals(4)
        self.mpp.setRange(0.0, LARGEST_MPP_UM)
        self.mpp.setSingleStep(0.05)
        self.mpp.setSuffix(" µm")
        self.mpp.setSpecialValueText("as the package says")
        self.mpp.setValue(given.get("mpp_um") or 0.0)
        file_button, folder_button = QPushButton("File…"), QPushButton("Folder…")
        for button, slot in ((file_button, self._on_file_clicked), (folder_button, self._on_folder_clicked)):
            button.setAutoDefault(False)
            button.clicked.connect(slot)
        row = QHBoxLayout()
        row.addWidget(self.path, 1)
        row.addWidget(file_button)
        row.addWidget(folder_button)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Package", row)
        form.addRow("Name", self.name)
        form.addRow("Nuclei", self.foreground)
        form.addRow("Borders", self.boundary)
        form.addRow("Pixel size", self.mpp)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setText("Import")
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        column.addWidget(about)
        column.addLayout(form)
        column.addWidget(self.buttons)
        self.setMinimumWidth(520)
        self.path.textChanged.connect(self._on_path_changed)
        self._on_path_changed(self.path.text())

    def _on_path_changed(self, path: str) -> None:
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(bool(path.strip()))

    def _on_file_clicked(self) -> None:
        kinds = "Model packages (*.zip rdf.yaml *.bioimageio.yaml);;All files (*)"
        chosen = QFileDialog.getOpenFileName(self, "Import a model", self._folder(), kinds)[0]
        self.path.setText(str(chosen) or self.path.text())

    def _on_folder_clicked(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Import a model", self._folder())
        self.path.setText(str(chosen) or self.path.text())

    def _folder(self) -> str:
        return str(Path(self.path.text()).parent if self.path.text() else Path.home())

    @property
    def wanted(self) -> dict[str, Any]:
        """What was given: ``path``, ``name``, ``foreground``, ``boundary``, and ``mpp_um`` or None."""
        texts = ("path", "name", "foreground", "boundary")
        given: dict[str, Any] = {name: getattr(self, name).text().strip() for name in texts}
        return {**given, "mpp_um": self.mpp.value() or None}


def ask_model_import(parent: QWidget, former: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Ask which package to import; see `ImportModelDialog.wanted`; None for none."""
    dialog = ImportModelDialog(parent, former)
    answer = dialog.wanted if dialog.exec() == QDialog.DialogCode.Accepted else None
    dialog.deleteLater()
    return answer


class TrainDialog(QDialog):
    """Says how a network is trained: the line for a shell is in the clipboard; blocks nothing.

    Parameters
    ----------
    row : Row
        What is to be trained.
    parent : QWidget
        For the theme.
    """

    def __init__(self, row: Row, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Train {row.name}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        missing = "" if row.entry is None else row.entry.missing
        self.about = QLabel("\n\n".join(filter(None, [HOW[row.trained_in], missing])))
        self.command = QLineEdit(row.command)
        self.command.setReadOnly(True)
        self.command.setCursorPosition(0)
        self.copied = QLabel(COPIED)
        for label in (self.about, self.copied):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        copy_button = QPushButton("Copy")
        copy_button.setToolTip("Put the line into the clipboard again")
        copy_button.setAutoDefault(False)
        copy_button.clicked.connect(self.copy)
        line = QHBoxLayout()
        line.addWidget(self.command, 1)
        line.addWidget(copy_button)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        self.open_button = QPushButton(IN_WINDOW.get(row.trained_in, ""))
        if row.trained_in:
            buttons.addButton(self.open_button, QDialogButtonBox.ButtonRole.ActionRole)
            self.open_button.clicked.connect(self.accept)
        column = QVBoxLayout(self)
        column.addWidget(self.about)
        column.addLayout(line)
        column.addWidget(self.copied)
        column.addWidget(buttons)
        self.setMinimumWidth(720)
        self.copy()

    def copy(self) -> None:
        """Put the line into the clipboard."""
        QApplication.clipboard().setText(self.command.text())


def _line(text: str, placeholder: str) -> QLineEdit:
    line = QLineEdit(text)
    line.setPlaceholderText(placeholder)
    return line
