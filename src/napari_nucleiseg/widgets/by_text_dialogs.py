"""What is asked before weights are downloaded: whether to, from where, and which checksum they have."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.core.fewshot.known_clips import KnownClip
from napari_nucleiseg.widgets.wording import licence_text

ABOUT = (
    "The address of the weights of a CLIP in transformers' layout (model.safetensors or pytorch_model.bin, with the "
    "other files beside it), or of its page on huggingface.co. Of a pickled file only tensors are read."
)
TRUST = "Without a checksum the first download is trusted, and checked from then on."
WIDTH_PX = 560


def ask_known(known: KnownClip, parent: QWidget) -> bool:
    """Ask whether to download published weights, with their licence."""
    box = QMessageBox(parent)
    box.setWindowTitle("Get weights")
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(f"Download {known.name} (about {known.megabytes} MB)? Licence: {licence_text(known.licence)}.")
    box.setInformativeText(f"{known.note}\n\nNo checksum of it is known here. {TRUST}")
    box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
    box.setDefaultButton(QMessageBox.StandardButton.No)
    box.button(QMessageBox.StandardButton.Yes).setText("Download")
    box.button(QMessageBox.StandardButton.No).setText("Do not download")
    accepted = bool(box.exec() == QMessageBox.StandardButton.Yes)
    box.deleteLater()
    return accepted


def ask_clip_folder(parent: QWidget) -> str:
    """Ask for a folder with weights; empty for none."""
    return str(QFileDialog.getExistingDirectory(parent, "Folder with the files of a CLIP", str(Path.home())))


def ask_address(parent: QWidget) -> tuple[str, str] | None:
    """Ask for the address of weights and their checksum; None for none."""
    dialog = AddressDialog(parent)
    accepted = dialog.exec() == QDialog.DialogCode.Accepted
    found = dialog.address.text().strip(), dialog.sha256.text().strip()
    dialog.deleteLater()
    return found if accepted and found[0] else None


class AddressDialog(QDialog):
    """Asks for an address and a checksum.

    Parameters
    ----------
    parent : QWidget
        For the theme.
    """

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Get weights from an address")
        self.setMinimumWidth(WIDTH_PX)
        self.about = QLabel(ABOUT)
        self.trust = QLabel(TRUST)
        for label in (self.about, self.trust):
            label.setWordWrap(True)
        self.address, self.sha256 = QLineEdit(), QLineEdit()
        self.address.setPlaceholderText("https://…/model.safetensors")
        self.sha256.setPlaceholderText("64 digits, if you know it")
        form = QFormLayout()
        form.addRow("Address", self.address)
        form.addRow("SHA-256", self.sha256)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        self.ok_button = buttons.button(QDialogButtonBox.StandardButton.Ok)
        self.ok_button.setText("Download")
        self.ok_button.setEnabled(False)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        self.address.textChanged.connect(self._on_address_changed)
        column = QVBoxLayout(self)
        column.addWidget(self.about)
        column.addLayout(form)
        column.addWidget(self.trust)
        column.addWidget(buttons)

    def _on_address_changed(self, text: str) -> None:
        self.ok_button.setEnabled(text.strip().startswith(("http://", "https://")))
