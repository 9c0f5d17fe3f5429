"""The dock "Train without labels": slides, settings, the curve, what the network looks at, and what came of it."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.state import FRESH, METHODS, SHAPE_NETWORKS
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.unlabelled import FIT, Seen, Unlabelled
from napari_nucleiseg.viewer.unlabelled_engine import Begun, Fitted, Trained
from napari_nucleiseg.widgets.attention_view import AttentionView
from napari_nucleiseg.widgets.curve import CurveView, CurveWording
from napari_nucleiseg.widgets.facts import ElidedLabel
from napari_nucleiseg.widgets.form import Choice, NumberBox
from napari_nucleiseg.widgets.parts import thin_line
from napari_nucleiseg.widgets.slide_choice import SlideChoice
from napari_nucleiseg.widgets.unlabelled_settings import UnlabelledSettings
from napari_nucleiseg.widgets.wording import model_title, model_titles, progress_text, trained_text, warning_colour

SIZE = QSize(1000, 310)
METHOD_TITLES = dict(
    zip(
        METHODS,
        (
            "Nuclei by their shape",
            "Nuclei by their shape, fine",
            "Attention, fast (half resolution)",
            "Attention, full (as published)",
        ),
        strict=True,
    )
)
SHAPE_WORDING = CurveWording(
    "shapes met (F1)",
    "",
    "The curve appears here: how well what has the shape of a nucleus is found in tissue that was not learned from",
    begins_at_former=False,
)
WORDING = CurveWording(
    "told right",
    "chance",
    "The curve appears here: how often the network tells the magnification of tissue that it has not seen",
    begins_at_former=False,
)
SHAPE_INTRODUCTION = (
    "Nuclei are found by their shape in haematoxylin, and the network learns what they have in common. "
    "Nothing needs to be drawn."
)
INTRODUCTION = (
    "The network learns to tell at which magnification tissue was scanned, and finds nuclei by the way. "
    "Nothing needs to be drawn."
)
NOTHING_TO_FIT = "For models of attention only: train one here and use it, then adapt it to other slides"


class UnlabelledPanel(QWidget):
    """Slides, settings, progress, curve, attention and outcome.

    Parameters
    ----------
    unlabelled : Unlabelled
        What is shown and asked for.
    theme : str
        Of napari, when it is made.
    """

    def __init__(self, unlabelled: Unlabelled, theme: str) -> None:
        super().__init__()
        self.setObjectName("nucleiseg without labels")
        self.unlabelled = unlabelled
        self._warning_colour = warning_colour(theme)
        self._hint = Hint()
        self._run = ""
        self._settings: UnlabelledSettings | None = None
        row = QHBoxLayout()
        row.setSpacing(14)
        self.slides = SlideChoice(unlabelled.sources)
        row.addWidget(self.slides, 3)
        row.addLayout(self._make_settings(), 4)
        self.curve = CurveView(WORDING)
        row.addWidget(self.curve, 5)
        self.attention = AttentionView()
        row.addWidget(self.attention, 5)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(8, 6, 8, 6)
        rows.addLayout(self._make_told())
        rows.addLayout(row, 1)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(220)
        self._connect()
        self._show_words(by_shape=self._is_by_shape)
        self._on_said(Hint())
        self._show_models()
        self._show_running(unlabelled.is_running)

    def _make_settings(self) -> QVBoxLayout:
        wishes = self.unlabelled.wishes
        self.network = Choice(wishes, "network", METHOD_TITLES)
        self.start = Choice(wishes, "start", {FRESH: "Nothing"}, Qt.TextElideMode.ElideMiddle)
        self.steps = NumberBox(wishes, "steps")
        self.more_button = QPushButton("More…")
        self.more_button.setToolTip("Crops, what is held out, the licence of the slides, where runs are kept")
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setVerticalSpacing(4)
        steps = QHBoxLayout()
        steps.setSpacing(6)
        steps.addWidget(self.steps, 1)
        steps.addWidget(self.more_button)
        for title, field in (("Method", self.network), ("Start from", self.start), ("Steps", steps)):
            form.addRow(title, field)
        column = QVBoxLayout()
        column.setSpacing(5)
        column.addLayout(form)
        column.addLayout(self._make_running())
        column.addStretch(1)
        column.addWidget(thin_line())
        column.addLayout(self._make_fit())
        return column

    def _make_running(self) -> QHBoxLayout:
        """One row, so that nothing jumps when work begins."""
        self.start_button = QPushButton("Start")
        self.start_button.setToolTip("Learn from the ticked slides; the same again goes on from where it stopped")
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("Stop after this step; what was learned is kept and can be used")
        for button in (self.start_button, self.stop_button):
            button.setMinimumHeight(34)
        # A bar of unknown length shows no text of its own.
        self.doing = QLabel()
        self.bar = QProgressBar()
        row = QHBoxLayout()
        row.addWidget(self.start_button, 1)
        row.addWidget(self.doing)
        row.addWidget(self.bar, 1)
        row.addWidget(self.stop_button)
        return row

    def _make_fit(self) -> QVBoxLayout:
        self.fitted = ElidedLabel()
        self.fit_button = QPushButton("Slide")
        self.fit_view_button = QPushButton("View")
        self.level_button = QPushButton("Level only")
        for button, tip in (
            (self.fit_button, "A short run without labels on the slide in hand; the model at hand stays as it is"),
            (self.fit_view_button, "The same on what you see of the slide"),
            (self.level_button, "In seconds: only how many pixels are worth a look is set from the slide in hand"),
        ):
            button.setToolTip(tip)
        row = QHBoxLayout()
        row.addWidget(QLabel("to"))
        for button in (self.fit_button, self.fit_view_button, self.level_button):
            row.addWidget(button, 1)
        column = QVBoxLayout()
        column.setSpacing(4)
        column.addWidget(self.fitted)
        column.addLayout(row)
        return column

    def _make_told(self) -> QHBoxLayout:
        """What is said, in the whole width, and the button that may belong to it."""
        self.told = QLabel()
        self.told.setWordWrap(True)
        self.told.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.use_button = QPushButton("Use it")
        self.use_button.setToolTip("Find nuclei with it from now on, at once in the view")
        self.use_button.setMinimumWidth(110)
        self.use_button.hide()
        row = QHBoxLayout()
        row.addWidget(self.told, 1)
        row.addWidget(self.use_button)
        return row

    def _connect(self) -> None:
        unlabelled = self.unlabelled
        unlabelled.models_changed.connect(self._show_models)
        unlabelled.running_changed.connect(self._show_running)
        unlabelled.progress_changed.connect(self._on_progress)
        unlabelled.begun.connect(self._on_begun)
        unlabelled.stepped.connect(self._on_step)
        unlabelled.ended.connect(self._on_ended)
        unlabelled.used.connect(self._on_used)
        unlabelled.said.connect(self._on_said)
        unlabelled.wishes.events.start.connect(self._show_choices)
        unlabelled.wishes.events.network.connect(self._on_network_changed)
        self.start_button.clicked.connect(self._on_start_clicked)
        self.stop_button.clicked.connect(unlabelled.stop)
        self.more_button.clicked.connect(self.show_more)
        self.fit_button.clicked.connect(lambda: unlabelled.fit(view=False))
        self.fit_view_button.clicked.connect(lambda: unlabelled.fit(view=True))
        self.level_button.clicked.connect(self._on_level_clicked)
        self.use_button.clicked.connect(self._on_use_clicked)
        self.slides.list.itemChanged.connect(self._on_slide_ticked)

    def show_more(self) -> None:
        """Show the other settings."""
        if self._settings is None:
            self._settings = UnlabelledSettings(self.unlabelled.wishes, self)
        self._settings.show()
        self._settings.raise_()

    # ------------------------------------------------------------------ what is said

    def _on_said(self, hint: Hint) -> None:
        self._tell(hint.text or (SHAPE_INTRODUCTION if self._is_by_shape else INTRODUCTION), hint)

    def _tell(self, text: str, hint: Hint | None = None) -> None:
        self._hint = hint or Hint()
        self.told.setText(text)
        self.told.setStyleSheet(f"color: {self._warning_colour};" if self._hint.is_warning else "")

    def set_theme(self, theme: str) -> None:
        """Show what needs heed in the colour of this theme."""
        self._warning_colour = warning_colour(theme)
        self._tell(self.told.text(), self._hint)

    def _on_slide_ticked(self) -> None:
        """What was wrong with the slides is no longer said of those that are ticked now."""
        if self._hint.is_warning:
            self._on_said(Hint())

    def _show_models(self) -> None:
        models = self.unlabelled.models
        self.start.offer({FRESH: "Nothing", **model_titles(models)})
        self._show_fit()

    def _show_fit(self) -> None:
        can_fit, name = self.unlabelled.can_fit, self.unlabelled.model
        title = model_title(self.unlabelled.models.get(name, ""))
        self.fitted.set_whole(f"Adapt {title}" if can_fit else "Adapt the model at hand")
        self.fitted.setToolTip(title if can_fit else NOTHING_TO_FIT)
        for button in (self.fit_button, self.fit_view_button, self.level_button):
            button.setEnabled(can_fit and not self.unlabelled.is_running)

    @property
    def _is_by_shape(self) -> bool:
        return self.unlabelled.wishes.network in SHAPE_NETWORKS

    def _on_network_changed(self) -> None:
        """Say what this method does; what a run of another kind has come to is no longer shown."""
        self._show_choices()
        if self.attention.is_of_nuclei is not self._is_by_shape:
            self._show_words(by_shape=self._is_by_shape)
            self.use_button.hide()
            self._clear("")
            self._on_said(Hint())

    def _show_words(self, *, by_shape: bool) -> None:
        self.curve.wording = SHAPE_WORDING if by_shape else WORDING
        self.attention.is_of_nuclei = by_shape

    def _show_choices(self) -> None:
        """What learns from shapes begins with nothing; what begins from a model has its network."""
        self.start.setEnabled(not self._is_by_shape)
        self.network.setEnabled(self._is_by_shape or self.unlabelled.wishes.start == FRESH)

    def _show_running(self, running: bool) -> None:
        for widget in (self.bar, self.stop_button, self.doing):
            widget.setVisible(running)
        self.start_button.setVisible(not running)
        for field in (self.network, self.start, self.steps):
            field.setEnabled(not running)
        if not running:
            self._show_choices()
        self._show_fit()
        if running:
            self.stop_button.setEnabled(True)
            self.use_button.hide()
            if self.unlabelled.doing == FIT:
                # Only attention is fitted, whatever would be trained.
                self._show_words(by_shape=False)
                self._clear("")

    def _on_progress(self, progress: Progress | None) -> None:
        if progress is None:
            return
        self.doing.setVisible(not progress.total)
        self.doing.setText(f"{progress.title}…")
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        self.bar.setFormat(progress_text(progress))
        self.bar.setToolTip(progress_text(progress))

    # ------------------------------------------------------------------ what is learned

    def _clear(self, run: str) -> None:
        self._run = run
        self.curve.clear()
        self.attention.clear()

    def _on_begun(self, begun: Begun) -> None:
        """Another run begins anew; one that goes on is still in sight."""
        total = self.unlabelled.wishes.steps
        if begun.run == self._run:
            self.curve.go_on(total)
        else:
            self._show_words(by_shape=not begun.powers)
            self._clear(begun.run)
            self.curve.begin(total, 1 / len(begun.powers) if begun.powers else None)
            self.curve.recall(begun.measured)

    def _on_step(self, seen: Seen) -> None:
        if not self.curve.runs:
            self.curve.begin(seen.total, None)
        self.curve.add("", seen.step, seen.loss, seen.accuracy, None)
        if seen.picture is not None and seen.attention is not None:
            self.attention.show_tile(seen.picture, seen.attention, seen.step)

    def _on_ended(self, last: Trained | Fitted | None) -> None:
        if last is None:
            return
        if isinstance(last, Trained):
            text, use = f"{trained_text(last)} {last.note}", "Use it"
        else:
            outcome = last.outcome
            judged = bool(outcome.after.nuclei)
            title = "The adapted model is in use." if outcome.adopted else "The former model stays."
            text = f"<b>{title if judged else 'The model is adapted.'}</b> {outcome.reason}"
            use = "Use it" if outcome.adopted else "Use it anyway"
        self._tell(text)
        self.use_button.setText(use)
        self.use_button.setEnabled(True)
        self.use_button.setVisible(use_is_open(last))

    def _on_used(self, version: object) -> None:
        title = model_title(getattr(version, "title", ""))
        self._tell(f"In use: {title}. It is in the list of models and under Versions.")
        self.use_button.hide()

    # ------------------------------------------------------------------ what the user does

    def _on_start_clicked(self) -> None:
        self.unlabelled.train()

    def _on_level_clicked(self) -> None:
        self.unlabelled.set_level()

    def _on_use_clicked(self) -> None:
        self.use_button.setEnabled(False)
        self.unlabelled.use()

    # ------------------------------------------------------------------ Qt

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Say what there is now."""
        super().showEvent(event)
        self.unlabelled.refresh()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE


def use_is_open(last: Trained | Fitted) -> bool:
    """Return whether it is for the user to say that it is used: what was found better is in use already."""
    return isinstance(last, Trained) or not (last.outcome.adopted and last.outcome.after.nuclei)
