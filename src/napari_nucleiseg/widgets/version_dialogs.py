"""What is asked before a version of a model is used, copied or deleted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_nucleiseg.widgets.wording import model_title

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.versions import Version


def ask_use_refused(version: Version, parent: QWidget) -> bool:
    """Ask whether to use a version that the guard refused."""
    return _ask(
        "Use a refused model?",
        f"“{model_title(version.title)}” was refused after it was taught.",
        f"{version.reason}\n\nUse it nevertheless? You can go back at any time.",
        "Use it",
        parent,
    )


def ask_delete(version: Version, children: Sequence[Version], parent: QWidget) -> bool:
    """Ask whether to delete a version for good."""
    told = "It cannot be brought back. Nuclei that it found stay where they are."
    if children:
        names = "\n".join(f"•  {model_title(child.title)} ({child.name})" for child in children)
        told += f"\n\nTaught from it, and kept as they are:\n{names}"
    return _ask(
        "Delete a model?", f"Delete “{model_title(version.title)}” ({version.name}) for good?", told, "Delete", parent
    )


def _ask(title: str, text: str, more: str, yes: str, parent: QWidget) -> bool:
    box = QMessageBox(parent)
    box.setWindowTitle(title)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(text)
    box.setInformativeText(more)
    wanted = box.addButton(yes, QMessageBox.ButtonRole.AcceptRole)
    stay = box.addButton("Cancel", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(stay)
    box.exec()
    answer = box.clickedButton() is wanted
    box.deleteLater()
    return answer


def ask_export(version: Version, parent: QWidget) -> str:
    """Ask where to copy a version to; empty if nowhere."""
    chosen, _ = QFileDialog.getSaveFileName(
        parent,
        "Export the model",
        str(Path.home() / version.path.name),
        "Weights with their card (*.safetensors)",
        # Nothing is overwritten, so there is nothing to confirm: what is in the way is said.
        options=QFileDialog.Option.DontConfirmOverwrite,
    )
    return str(chosen)
