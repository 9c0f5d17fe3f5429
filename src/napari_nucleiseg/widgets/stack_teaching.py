"""The part of the dock "Nuclei in a stack" in which planes are drawn or corrected, and a model is taught with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QLineEdit, QProgressBar, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.teaching.stacks.planes import planes_of, written
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.sentences import sentence_of
from napari_nucleiseg.viewer.stack_layers import volume_of
from napari_nucleiseg.viewer.stack_teaching import NO_PLANE, StackTask, StackTaught, StackTeaching
from napari_nucleiseg.viewer.stacks import Stacks
from napari_nucleiseg.widgets.curve import CurveView, CurveWording
from napari_nucleiseg.widgets.parts import show_progress, thin_line, tipped_button
from napari_nucleiseg.widgets.wording import SCORES, warning_colour

if TYPE_CHECKING:
    from napari_nucleiseg.core.geometry import ZYX
    from napari_nucleiseg.core.teaching.finetune import Step
    from napari_nucleiseg.core.teaching.versions import Version

ABOUT = "Draw or correct all nuclei of a few planes, say which planes are right, and let a model learn from them."
NOT_DRAWN = "No nuclei to learn from yet: draw or find some."
NO_PLANES = "No planes yet: those on which every nucleus is right."
EMPTY = "The curve appears here while the model learns"
WORDING = CurveWording("held out", "former", EMPTY)
FIRST = CurveWording("held out", "", EMPTY, begins_at_former=False)
HELD_OUT = "The mean of AJI and PQ on nuclei that are held out: the model does not learn from them."
TEACH, LEARN = "Teach", "Learn a first model"
CURVE_PX = 165


class StackTeachPart(QWidget):
    """Draw, name planes, one button, the curve, the verdict.

    Parameters
    ----------
    stacks : Stacks
        Which stacks and labels there are.
    teaching : StackTeaching
        What is shown and asked for.
    """

    def __init__(self, stacks: Stacks, teaching: StackTeaching) -> None:
        super().__init__()
        self.setObjectName("nucleiseg stack teaching")
        self.stacks, self.teaching = stacks, teaching
        self._layer: Any = None
        self._nuclei: Any = None
        self._model = ""
        self._voxel_um: ZYX | None = None
        self._planes: tuple[int, ...] = ()
        self._problem = ""
        self._count: int | None = None
        self._make_controls()
        self._lay_out()
        self._connect()
        self._show_state()

    def _make_controls(self) -> None:
        self.draw_button = tipped_button(
            "Draw nuclei", "Lay empty labels over the stack, and paint nuclei with a brush"
        )
        self.planes = QLineEdit()
        self.planes.setPlaceholderText("such as 12, 16, 20-24")
        self.planes.setToolTip("Planes on which every nucleus is right, by the numbers that the slider shows")
        self.planes.setAccessibleName("Right planes")
        self.add_button = tipped_button("Add this plane", "Add the plane that is shown: all of its nuclei are right")
        self.count = _told("")
        self.anew = QCheckBox("Begin anew")
        self.anew.setToolTip("Learn from nothing instead of improving the model that is chosen")
        self.teach_button = tipped_button(TEACH, "")
        self.teach_button.setMinimumHeight(30)
        self.stop_button = tipped_button("Stop", "Stop after this step; your models stay as they are")
        self.bar = QProgressBar()
        self.curve = CurveView(WORDING)
        self.curve.setFixedHeight(CURVE_PX)
        self.curve.setToolTip(f"{HELD_OUT}\n{SCORES}")
        self.verdict = _told("")
        self.verdict.setToolTip(SCORES)
        self.take_button = tipped_button("Use it anyway", "Use the new model although it was refused")

    def _lay_out(self) -> None:
        title = QLabel("<b>Teach</b>")
        label = QLabel("Right planes")
        label.setBuddy(self.planes)
        self._about = _told(ABOUT)
        named, teach, running = QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        named.addWidget(self.planes, 1)
        named.addWidget(self.add_button)
        teach.addWidget(self.teach_button, 1)
        teach.addWidget(self.anew)
        running.addWidget(self.bar, 1)
        running.addWidget(self.stop_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        above: tuple[QWidget, ...] = (thin_line(), title, self._about, self.draw_button, label)
        for widget in above:
            column.addWidget(widget)
        column.addLayout(named)
        column.addWidget(self.count)
        column.addLayout(teach)
        column.addLayout(running)
        column.addWidget(self.curve)
        column.addWidget(self.verdict)
        column.addWidget(self.take_button)

    def _connect(self) -> None:
        teaching = self.teaching
        teaching.counted.connect(self._on_counted)
        teaching.stepped.connect(self._on_stepped)
        teaching.progress_changed.connect(self._on_progress)
        teaching.ended.connect(self._on_ended)
        teaching.used.connect(self._on_used)
        self.draw_button.clicked.connect(self._on_draw_clicked)
        self.planes.textChanged.connect(self._on_planes_changed)
        self.add_button.clicked.connect(self._on_add_clicked)
        self.anew.toggled.connect(self._show_state)
        self.teach_button.clicked.connect(self._on_teach_clicked)
        self.stop_button.clicked.connect(teaching.stop)
        self.take_button.clicked.connect(teaching.take)

    # ------------------------------------------------------------------ what is chosen in the dock

    def offer(self, layer: Any, model: str, voxel_um: ZYX | None) -> None:
        """Show what can be taught: a stack, with a model.

        Parameters
        ----------
        layer : napari.layers.Image or None
            The stack that is chosen.
        model : str
            Name or weight file of the model that is chosen; empty for none.
        voxel_um : ZYX or None
            Micrometres per voxel; None where they are not known.
        """
        self._layer, self._model, self._voxel_um = layer, model, voxel_um
        nuclei = None if layer is None else next(iter(self.stacks.nuclei_of(layer)), None)
        keeping = self.stacks.keeping
        if nuclei != self._nuclei:
            self._nuclei = nuclei
            with signals_blocked(self.planes):
                # Planes are right in the labels that were corrected, not in others of the same stack.
                self.planes.setText("" if keeping is None else keeping.planes_of(nuclei))
            self._on_planes_changed()
        self._show_state()

    def _on_planes_changed(self, _text: str = "") -> None:
        self._planes, self._problem, self._count = (), "", None
        if self._layer is not None:
            try:
                self._planes = planes_of(self.planes.text(), volume_of(self._layer).shape[0])
            except TeachingError as error:
                self._problem = sentence_of(error)
        keeping = self.stacks.keeping
        if keeping is not None and self._nuclei is not None and not self._problem:
            keeping.note_planes(self._nuclei, self.planes.text())
        self.teaching.follow(self._nuclei, self._planes)
        self._show_state()

    # ------------------------------------------------------------------ what the user does

    def _on_draw_clicked(self) -> None:
        self.teaching.draw(self._layer, self._voxel_um)

    def _on_add_clicked(self) -> None:
        plane = self.teaching.plane_shown(self._layer)
        if plane is None:
            self.stacks.said.emit(Hint(NO_PLANE, is_warning=True))
        else:
            self.planes.setText(written((*self._planes, plane)))

    def _on_teach_clicked(self) -> None:
        if self._voxel_um is not None:
            model = "" if self._is_first else self._model
            self.teaching.teach(StackTask(self._layer, self._nuclei, self._planes, self._voxel_um, model))
            self.curve.wording = FIRST if self._is_first else WORDING
            self.curve.clear()
            self.verdict.clear()
            self._show_state()

    @property
    def _is_first(self) -> bool:
        return not self._model or self.anew.isChecked()

    # ------------------------------------------------------------------ what comes of it

    def _on_counted(self, nuclei: int) -> None:
        self._count = nuclei
        self._show_state()

    def _on_progress(self, progress: Progress | None) -> None:
        if progress is not None:
            show_progress(self.bar, progress)
        self._show_state()

    def _on_stepped(self, step: Step) -> None:
        measured = step.measured
        score = measured.choice if measured is not None and measured.nuclei else None
        if step.note:
            self.verdict.setText(step.note)
        if step.step == 0:
            self.curve.begin(step.total, score)
        elif step.run:
            self.curve.add(step.run, step.step, step.loss, score, step.former)
        self._show_state()

    def _on_ended(self, taught: StackTaught | None) -> None:
        if taught is None:
            self.verdict.clear()
        else:
            outcome = taught.outcome
            title = f"The new model: {taught.version.name}" if outcome.adopted else "The former model stays"
            self.verdict.setText(f"<b>{title}</b><br>{outcome.reason}<br><br>{outcome.told}")
        self._show_state()

    def _on_used(self, version: Version) -> None:
        self.anew.setChecked(False)
        last = self.teaching.last
        if self.teaching.is_taken and last is not None:
            title = f"{version.name} is used although it was refused"
            self.verdict.setText(f"<b>{title}</b><br>{last.outcome.reason}<br><br>{last.outcome.told}")
        self._show_state()

    # ------------------------------------------------------------------ what is shown

    def _show_state(self, _on: object = None) -> None:
        running, finding = self.teaching.is_running, self.stacks.is_running
        has_stack, is_free = self._layer is not None, not (running or finding)
        is_ready = self._nuclei is not None and bool(self._planes) and self._voxel_um is not None
        self.draw_button.setVisible(has_stack and self._nuclei is None)
        self.draw_button.setEnabled(is_free)
        self.planes.setEnabled(self._nuclei is not None and is_free)
        self.add_button.setEnabled(self._nuclei is not None and is_free and not self._problem)
        self.anew.setVisible(bool(self._model) and not running)
        self.anew.setEnabled(is_free)
        self.teach_button.setText(LEARN if self._is_first else TEACH)
        self.teach_button.setToolTip(
            "Learn a first model from nothing but these planes"
            if self._is_first
            else "Make a better model of these planes. It is used only if it is better on nuclei that it has not seen."
        )
        self.teach_button.setVisible(not running)
        self.teach_button.setEnabled(is_ready and is_free)
        self.bar.setVisible(running)
        self.stop_button.setVisible(running)
        self.curve.setVisible(running or any(run.losses for run in self.curve.runs))
        self._about.setVisible(self.curve.isHidden())
        self.verdict.setVisible(bool(self.verdict.text()))
        self.take_button.setVisible(not running and self.teaching.can_take)
        self.count.setText(self._told_planes())
        self.count.setVisible(has_stack)
        colour = warning_colour(self.stacks.viewer.theme) if self._problem else ""
        self.count.setStyleSheet(f"color: {colour}" if colour else "")

    def _told_planes(self) -> str:
        """Return how many planes and nuclei there are, or what is missing."""
        if self._problem:
            return self._problem
        if self._nuclei is None:
            return NOT_DRAWN
        if not self._planes:
            return NO_PLANES
        told = _several(len(self._planes), "plane", "planes")
        if self._count is not None:
            told += f", {_several(self._count, 'nucleus', 'nuclei')}"
        several = len(self.stacks.nuclei_of(self._layer)) > 1
        return f"{told} of “{self._nuclei.name}”" if several else told


def _told(text: str) -> QLabel:
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def _several(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
