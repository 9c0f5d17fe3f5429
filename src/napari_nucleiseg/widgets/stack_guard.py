"""What keeps the labels of stacks as long as the window is open, and asks before any are lost with it."""

from __future__ import annotations

import time
from typing import Any

from qtpy.QtCore import QCoreApplication, QEvent, Qt
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox, QProgressDialog, QWidget

from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.stack_keeping import Kept, StackKeeping
from napari_nucleiseg.viewer.stack_layers import voxel_of
from napari_nucleiseg.widgets.window_bound import WindowBound

# So long is waited without a word.
PATIENCE_S = 0.4


class StackGuard(WindowBound):
    """Lives in the window, unseen: the dock of stacks may be closed while somebody goes on painting.

    Parameters
    ----------
    window : QWidget
        It ends with.
    keeping : StackKeeping
        What keeps the labels.
    """

    def __init__(self, window: QWidget, keeping: StackKeeping) -> None:
        super().__init__(window)
        self.keeping = keeping
        self.is_alone = True
        """Whether no dock is there to say what goes wrong."""
        self.hide()
        self._watch(window)
        keeping.said.connect(self._on_said)

    def _on_said(self, hint: Hint) -> None:
        if self.is_alone and hint.is_warning:
            from napari.utils.notifications import show_warning

            show_warning(hint.text)

    def may_close(self) -> bool:
        """Write what is not written yet; where that cannot be done, ask."""
        self.keeping.flush()
        while True:
            if not self._wait():
                return False
            problems = self.keeping.problems
            if not problems:
                return True
            if not self._ask(problems[0]):
                return False

    def _wait(self) -> bool:
        """Wait until all is written; False if the user would rather keep the window open."""
        shown: QProgressDialog | None = None
        began = time.monotonic()
        try:
            while not self.keeping.is_settled:
                if shown is None and time.monotonic() - began > PATIENCE_S:
                    shown = QProgressDialog("The nuclei of the stack are being kept…", "Keep open", 0, 0, self.window())
                    shown.setWindowModality(Qt.WindowModality.WindowModal)
                    shown.show()
                if shown is not None and shown.wasCanceled():
                    return False
                # Until something is shown only answers are let in: nothing is painted in a window that is half gone.
                QCoreApplication.sendPostedEvents(None, QEvent.Type.MetaCall.value)
                if shown is not None:
                    QApplication.processEvents()
                time.sleep(0.005)
        finally:
            if shown is not None:
                shown.close()
                shown.deleteLater()
        return True

    def _ask(self, kept: Kept) -> bool:
        """Ask what is to become of labels that cannot be kept; False if the window is to stay open."""
        box = QMessageBox(self.window())
        box.setIcon(QMessageBox.Icon.Warning)
        box.setWindowTitle("Nuclei of a stack are not kept")
        box.setText(f"What was changed last in “{kept.layer.name}” is not kept.")
        box.setInformativeText(kept.problem)
        save = box.addButton("Save elsewhere…", QMessageBox.ButtonRole.AcceptRole)
        leave = box.addButton("Close and lose it", QMessageBox.ButtonRole.DestructiveRole)
        stay = box.addButton("Keep open", QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(save)
        box.setEscapeButton(stay)
        box.exec()
        chosen = box.clickedButton()
        box.deleteLater()
        if chosen is leave:
            self.keeping.discard(kept)
        elif chosen is save:
            self._save(kept)
        return chosen is not stay

    def _save(self, kept: Kept) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self.window(), "Save nuclei", f"{kept.layer.name}.ome.tif", "TIFF (*.tif *.tiff)"
        )
        if path:
            self.keeping.save(kept, path, voxel_of(kept.layer))

    def end(self) -> None:
        """Let go of the layers; what is being written still is."""
        self.keeping.close()


def guard_of(window: QWidget, viewer: Any) -> StackGuard:
    """Return what keeps the labels in a window; the same as long as it is open."""
    found = next((guard for guard in window.findChildren(StackGuard) if not guard.has_ended), None)
    return found or StackGuard(window, StackKeeping(viewer))
