"""The question with which reference, and where, the nuclei of a slide are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.core.store.regions import HOLD_OUT, REFERENCE, AnnotatedRegion
from napari_nucleiseg.viewer.judging import ALL, COVERED, FOR_HOLD_OUT, FOR_REFERENCE, VIEW, Wish

FILES = "References (*.geojson *.json *.tif *.tiff);;All files (*)"
ABOUT = (
    "A reference says which nuclei there are: QuPath GeoJSON or a label TIFF (File…), an OME-Zarr label image or the "
    "results of another run, NAME.nucleiseg (Folder…). Nothing of it gets into your nuclei."
)
WIDTH_PX = 520


class JudgingDialog(QDialog):
    """A path and a choice.

    Parameters
    ----------
    parent : QWidget
        Above which it is shown.
    regions : sequence of AnnotatedRegion
        Of the slide.
    wish : Wish, optional
        What was asked for last.
    """

    def __init__(self, parent: QWidget, regions: Sequence[AnnotatedRegion], wish: Wish | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Compare with a reference")
        self.path = QLineEdit("" if wish is None else wish.path)
        self.path.setPlaceholderText("File or folder of the reference")
        self.file_button = QPushButton("File…")
        self.file_button.setToolTip("QuPath GeoJSON, or a label TIFF of the slide's size")
        self.folder_button = QPushButton("Folder…")
        self.folder_button.setToolTip("An OME-Zarr label image, or the results of another run (NAME.nucleiseg)")
        self.place = QComboBox()
        for key, title in _places(regions):
            self.place.addItem(title, key)
        if wish is not None:
            self.place.setCurrentIndex(max(0, self.place.findData(wish.place)))
        row = QHBoxLayout()
        row.addWidget(self.path, 1)
        row.addWidget(self.file_button)
        row.addWidget(self.folder_button)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Reference", row)
        form.addRow("Compare", self.place)
        about = QLabel(ABOUT)
        about.setWordWrap(True)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        self.ok_button = self.buttons.button(QDialogButtonBox.StandardButton.Ok)
        self.ok_button.setText("Compare")
        column = QVBoxLayout(self)
        column.addWidget(about)
        column.addLayout(form)
        column.addStretch(1)
        column.addWidget(self.buttons)
        self.setMinimumWidth(WIDTH_PX)
        self.path.textChanged.connect(self._on_path_changed)
        self.file_button.clicked.connect(self._on_file_clicked)
        self.folder_button.clicked.connect(self._on_folder_clicked)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self._on_path_changed()

    @property
    def wish(self) -> Wish:
        """What is asked for."""
        return Wish(self.path.text().strip(), str(self.place.currentData()))

    def _on_path_changed(self, _text: str = "") -> None:
        path = self.path.text().strip()
        self.ok_button.setEnabled(bool(path) and Path(path).exists())

    def _on_file_clicked(self) -> None:
        self._take(QFileDialog.getOpenFileName(self, "Reference", self._folder(), FILES)[0])

    def _on_folder_clicked(self) -> None:
        self._take(QFileDialog.getExistingDirectory(self, "Reference", self._folder()))

    def _take(self, path: str) -> None:
        if path:
            self.path.setText(path)

    def _folder(self) -> str:
        path = Path(self.path.text().strip())
        return str(path.parent if self.path.text().strip() and path.parent.is_dir() else Path.home())


def _places(regions: Sequence[AnnotatedRegion]) -> list[tuple[str, str]]:
    """Return where nuclei can be compared, the usual place first."""
    counts = Counter(region.role for region in regions)
    found = [(COVERED, "The whole slide, or the regions that the reference states"), (VIEW, "What you see now")]
    if regions:
        found.append((ALL, f"All annotated regions ({len(regions)})"))
    for key, role, title in ((FOR_REFERENCE, REFERENCE, "Reference"), (FOR_HOLD_OUT, HOLD_OUT, "Hold out")):
        if counts[role]:
            found.append((key, f"Regions for “{title}” ({counts[role]})"))
    return found


def ask_comparison(parent: QWidget, regions: Sequence[AnnotatedRegion], wish: Wish | None = None) -> Wish | None:
    """Ask with which reference, and where, nuclei are compared; None for no comparison."""
    dialog = JudgingDialog(parent, regions, wish)
    answer = dialog.wish if dialog.exec() == QDialog.DialogCode.Accepted else None
    dialog.deleteLater()
    return answer


def ask_mistakes_file(parent: QWidget, wish: Wish | None) -> str:
    """Ask where to write the nuclei that are wrong; empty for nowhere."""
    path = Path(wish.path) if wish is not None else Path.home() / "reference"
    suggested = path.with_name(f"{path.name.split('.')[0]}-mistakes.geojson")
    chosen, _ = QFileDialog.getSaveFileName(parent, "Write mistakes", str(suggested), "QuPath GeoJSON (*.geojson)")
    return chosen if not chosen or chosen.lower().endswith((".geojson", ".json")) else f"{chosen}.geojson"
