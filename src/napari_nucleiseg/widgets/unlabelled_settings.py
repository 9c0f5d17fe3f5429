"""The settings of training without labels that few people turn, in a window of their own."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.state import SHAPE_NETWORKS, UnlabelledWishes
from napari_nucleiseg.widgets.form import Choice, NumberBox, NumberSlider, Switch, TextBox, about

LEVEL_TITLES = {
    "otsu": "What the slide says (Otsu)",
    "own": "The share it learned with",
    "quarter": "A quarter of the pixels",
}


class UnlabelledSettings(QDialog):
    """Controls that act at once; closing it undoes nothing.

    Parameters
    ----------
    wishes : UnlabelledWishes
        What is shown and set.
    parent : QWidget
        For the theme.
    """

    def __init__(self, wishes: UnlabelledWishes, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Train without labels: more settings")
        self._wishes = wishes
        self.controls: dict[str, QWidget] = {
            **{name: NumberBox(wishes, name) for name in ("crop_px", "batch_size", "measure_every", "fit_steps")},
            **{name: NumberSlider(wishes, name) for name in ("hold_out", "sparsity")},
            **{name: Switch(wishes, name) for name in ("by_shape", "imagenet")},
            "licence": TextBox(wishes, "licence", "not stated"),
            "folder": TextBox(wishes, "folder", "the program's own"),
            "level": Choice(wishes, "level", LEVEL_TITLES),
        }
        column = QVBoxLayout(self)
        column.addLayout(self._form())
        for change in (wishes.events.by_shape, wishes.events.network):
            change.connect(self._show_choices)
        self._show_choices()
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        column.addWidget(buttons)
        # Return ends a number that is typed, and presses nothing.
        for button in self.findChildren(QPushButton):
            button.setAutoDefault(False)
        self.setMinimumWidth(440)

    def _show_choices(self) -> None:
        attends = self._wishes.network not in SHAPE_NETWORKS
        for name in ("by_shape", "imagenet"):
            self.controls[name].setEnabled(attends)
        # Shapes say how many pixels are worth a look.
        self.controls["sparsity"].setEnabled(attends and not self._wishes.by_shape)

    def _form(self) -> QFormLayout:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._add(form, "To train", "crop_px", "batch_size", "hold_out", "measure_every", "sparsity")
        for name in ("by_shape", "imagenet"):
            form.addRow(self.controls[name])
        self._add(form, "To keep", "licence")
        form.addRow(about("folder", UnlabelledWishes)["title"], self._folder())
        self._add(form, "To fit the model at hand", "fit_steps", "level")
        return form

    def _add(self, form: QFormLayout, title: str, *names: str) -> None:
        form.addRow(QLabel(f"<b>{title}</b>"))
        for name in names:
            form.addRow(about(name, UnlabelledWishes)["title"], self.controls[name])

    def _folder(self) -> QHBoxLayout:
        self.folder_button = QPushButton("Choose…")
        self.folder_button.clicked.connect(self._on_folder_clicked)
        row = QHBoxLayout()
        row.addWidget(self.controls["folder"], 1)
        row.addWidget(self.folder_button)
        return row

    def _on_folder_clicked(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Folder for what has been learned", str(Path.home()))
        if path:
            self._wishes.folder = str(path)
