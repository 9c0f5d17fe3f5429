"""The question before somebody's place at a slide is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QMessageBox, QWidget

from napari_nucleiseg.widgets.wording import take_over_text

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.lock import Occupant


def ask_take_over(occupant: Occupant | None, parent: QWidget) -> bool:
    """Ask whether to take the place of whoever writes; a program that runs is warned of, and left alone by default."""
    text, details = take_over_text(occupant)
    is_alive = occupant is not None and not occupant.is_gone
    box = QMessageBox(parent)
    box.setWindowTitle("Take over this slide")
    box.setIcon(QMessageBox.Icon.Warning if is_alive else QMessageBox.Icon.Question)
    box.setText(text)
    box.setInformativeText(details)
    box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
    box.button(QMessageBox.StandardButton.Yes).setText("Take over")
    box.button(QMessageBox.StandardButton.No).setText("Leave it")
    box.setDefaultButton(QMessageBox.StandardButton.No if is_alive else QMessageBox.StandardButton.Yes)
    wanted = bool(box.exec() == QMessageBox.StandardButton.Yes)
    box.deleteLater()
    return wanted
