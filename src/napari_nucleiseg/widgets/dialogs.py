"""The few questions that a segmentation may have to ask: pixel size, folder, licence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.core.slides.pixelsize import LARGEST_MPP_UM, SMALLEST_MPP_UM
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import FILENAME_PATTERNS
from napari_nucleiseg.widgets.wording import NOT_STATED, data_text, licence_text, model_title

LARGEST_SHOWN_PX = 800
# What scanners deliver at each objective, micrometres per pixel.
USUAL_MPP_UM = {40.0: 0.25, 20.0: 0.5, 10.0: 1.0}


class PixelSizeDialog(QDialog):
    """Asks for micrometres per pixel; offers what the objective suggests but takes nothing for granted.

    Parameters
    ----------
    slide : Slide
        Whose pixel size is wanted.
    parent : QWidget
        For the theme.
    """

    def __init__(self, slide: Slide, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Pixel size")
        self.box = QDoubleSpinBox()
        self.box.setDecimals(4)
        self.box.setRange(0.0, LARGEST_MPP_UM)
        self.box.setSingleStep(0.01)
        self.box.setSuffix(" µm")
        self.box.setSpecialValueText("not known")
        self._stated = slide.mpp_um
        if slide.mpp_um is not None:
            self.box.setValue((slide.mpp_um.y + slide.mpp_um.x) / 2)
        self._shown = self.box.value()
        presets = QHBoxLayout()
        self.presets: list[QPushButton] = []
        for power, mpp in USUAL_MPP_UM.items():
            button = QPushButton(f"{power:g}×: {mpp:g} µm")
            button.setAutoDefault(False)
            button.clicked.connect(lambda _checked=False, mpp=mpp: self.box.setValue(mpp))
            presets.addWidget(button)
            self.presets.append(button)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.question = QLabel(_question_text(slide))
        self.question.setWordWrap(True)
        form = QFormLayout()
        form.addRow("One pixel measures", self.box)
        column = QVBoxLayout(self)
        column.addWidget(self.question)
        column.addLayout(presets)
        column.addLayout(form)
        column.addWidget(self.buttons)
        self.setMinimumWidth(420)
        self.box.valueChanged.connect(self._on_value_changed)
        self._on_value_changed(self.box.value())

    def _on_value_changed(self, value: float) -> None:
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(value >= SMALLEST_MPP_UM)

    @property
    def mpp_um(self) -> YX:
        """What was given, micrometres per level-0 pixel; as the slide says, with all digits, if nothing was changed."""
        if self._stated is not None and self.box.value() == self._shown:
            return self._stated
        return YX(self.box.value(), self.box.value())


def _question_text(slide: Slide) -> str:
    name = Path(slide.path).name or "This slide"
    if slide.mpp_um is not None:
        height, width = (f"{side:.4g}" for side in slide.mpp_um)
        said = f"{width} µm" if height == width else f"{width} µm in width and {height} µm in height"
        return f"{name} says {said} per pixel. Change it only if you know better."
    text = (
        f"{name} does not say how large its pixels are. Models look at tissue at a fixed size, "
        "so a wrong value gives wrong nuclei, areas and densities."
    )
    usual = USUAL_MPP_UM.get(slide.objective_power or 0.0)
    if slide.objective_power and usual:
        text += f" It was scanned with a {slide.objective_power:g}× objective, which usually means {usual:g} µm."
    elif slide.objective_power:
        text += f" It was scanned with a {slide.objective_power:g}× objective."
    return text


def ask_pixel_size(slide: Slide, parent: QWidget) -> YX | None:
    """Ask how large the pixels of a slide are; None if the user does not say."""
    dialog = PixelSizeDialog(slide, parent)
    answer = dialog.mpp_um if dialog.exec() == QDialog.DialogCode.Accepted else None
    dialog.deleteLater()
    return answer


def show_picture(name: str, picture: NDArray[np.uint8], parent: QWidget) -> QDialog:
    """Show a picture that comes with a slide, ``(y, x, 3)`` uint8, in a window of its own that blocks nothing."""
    dialog = QDialog(parent)
    dialog.setWindowTitle(name.capitalize())
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    height, width = picture.shape[:2]
    pixels = np.ascontiguousarray(picture)
    image = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    label = QLabel()
    pixmap = QPixmap.fromImage(image)
    if max(width, height) > LARGEST_SHOWN_PX:
        keep, smooth = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
        pixmap = pixmap.scaled(LARGEST_SHOWN_PX, LARGEST_SHOWN_PX, keep, smooth)
    label.setPixmap(pixmap)
    label.setAccessibleName(name)
    QVBoxLayout(dialog).addWidget(label)
    dialog.show()
    return dialog


def ask_slides(parent: QWidget) -> list[str]:
    """Ask which slides to open."""
    patterns = " ".join(FILENAME_PATTERNS)
    chosen, _ = QFileDialog.getOpenFileNames(
        parent, "Open slides", str(Path.home()), f"Slides and pictures ({patterns});;All files (*)"
    )
    return list(chosen)


def ask_slide_folder(parent: QWidget) -> str:
    """Ask which folder to open as a slide; empty if none."""
    return str(QFileDialog.getExistingDirectory(parent, "Open a folder that is a slide", str(Path.home())))


def ask_folder(slide: Slide, reason: str, parent: QWidget) -> Path | None:
    """Ask where the results of a slide may be kept; None if nowhere."""
    box = QMessageBox(parent)
    box.setWindowTitle("Where to keep the results")
    box.setText("The results cannot be kept beside the slide.")
    box.setInformativeText(f"{reason}\n\nChoose a folder for them?")
    box.setStandardButtons(QMessageBox.StandardButton.Open | QMessageBox.StandardButton.Cancel)
    box.button(QMessageBox.StandardButton.Open).setText("Choose a folder…")
    wanted = box.exec() == QMessageBox.StandardButton.Open
    box.deleteLater()
    if not wanted:
        return None
    chosen = QFileDialog.getExistingDirectory(parent, "Folder for the results", str(Path.home()))
    return Path(chosen) / f"{Path(slide.path).stem or 'slide'}.nucleiseg" if chosen else None


def ask_licence(card: ModelCard, parent: QWidget) -> bool:
    """Ask whether a restrictive licence is accepted."""
    box = QMessageBox(parent)
    box.setWindowTitle("Licence of the model")
    box.setTextFormat(Qt.TextFormat.PlainText)
    name = model_title(card.title or card.name)
    box.setText(f"“{name}” may not be used commercially. Its licence: {licence_text(card.licence)}.")
    data = "\n".join(f"•  {data_text(entry)}" for entry in card.training_data)
    wanted = "Do you accept that?" if card.licence == NOT_STATED else "Do you accept this licence?"
    box.setInformativeText(f"It was trained on:\n{data}\n\n{wanted}" if data else wanted)
    box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
    box.setDefaultButton(QMessageBox.StandardButton.No)
    box.button(QMessageBox.StandardButton.Yes).setText("Accept")
    box.button(QMessageBox.StandardButton.No).setText("Do not use it")
    accepted = bool(box.exec() == QMessageBox.StandardButton.Yes)
    box.deleteLater()
    return accepted


def ask_leave(parent: QWidget | None) -> bool:
    """Ask whether to close the window while a model is being taught, or learns without labels."""
    return _ask_leave(
        "A model is learning",
        "Closing stops it. What is in use stays as it is. Starting again goes on from where it stopped; the lesson of "
        "a head begins anew.",
        parent,
    )


def ask_leave_batch(parent: QWidget | None) -> bool:
    """Ask whether to close the window while slides are worked through unattended."""
    return _ask_leave(
        "A batch is at work",
        "Slides are being worked through. Closing stops that; what is done is kept. Start with the same folder goes "
        "on from there.",
        parent,
    )


def _ask_leave(title: str, text: str, parent: QWidget | None) -> bool:
    box = QMessageBox(QMessageBox.Icon.Question, title, text, parent=parent)
    leave = box.addButton("Stop and close", QMessageBox.ButtonRole.AcceptRole)
    stay = box.addButton("Keep open", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(stay)
    box.exec()
    return box.clickedButton() is leave


def ask_slide_attention(parent: QWidget) -> str:
    """Ask for a file that says where a model of whole slides looked; empty for none."""
    kinds = "Attention to a slide (*.attention.json);;All files (*)"
    return str(QFileDialog.getOpenFileName(parent, "Show where a model looked", str(Path.home()), kinds)[0])
