"""The panel while a slide is open: facts, model, actions, result, settings."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.state import NETWORKS, NO_HEATMAP, Session
from napari_nucleiseg.viewer.messages import Counts, Hint, Progress
from napari_nucleiseg.widgets import shortcuts
from napari_nucleiseg.widgets.attention import PaintAttention
from napari_nucleiseg.widgets.correct import Correct
from napari_nucleiseg.widgets.facts import SlideFacts
from napari_nucleiseg.widgets.form import CHOICE_TITLES, LEVEL_TITLES, Choice, NumberSlider, Switch, about
from napari_nucleiseg.widgets.parts import plain_form, thin_line
from napari_nucleiseg.widgets.wording import (
    WARNING_COLOURS,
    data_text,
    licence_text,
    model_titles,
    progress_text,
    share_text,
    use_text,
)


class Panel(QWidget):
    """Controls and read-outs; does nothing by itself.

    Parameters
    ----------
    session : Session
        What the controls show and set.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.first_heatmap = NO_HEATMAP
        self._warning_colour = WARNING_COLOURS["dark"]
        self._hint = Hint()
        self.facts = SlideFacts()
        self._make_model()
        self._make_actions()
        self._make_result()
        self.correct = Correct(session)
        self.attention = PaintAttention(session)
        self._make_settings()
        column = QVBoxLayout(self)
        column.setContentsMargins(10, 8, 10, 8)
        column.setSpacing(8)
        for part in (
            self.facts, thin_line(), self._model_part, self._actions_part, self._progress_part, self.hint,
            self.take_over_button, self._result_part, thin_line(), self.correct, self.attention, thin_line(),
            self._settings_part,
        ):  # fmt: skip
            column.addWidget(part)
        column.addStretch(1)
        session.events.follow.connect(self._on_follow_changed)

    # ------------------------------------------------------------------ parts

    def _make_model(self) -> None:
        shown = {self._session.model: self._session.model}
        # What tells versions apart stands at the end: what they were taught with, and their number.
        self.model = Choice(self._session, "model", shown, Qt.TextElideMode.ElideMiddle)
        self.licence = QLabel()
        self.licence.setWordWrap(True)
        self._cards: dict[str, Any] = {}
        self._model_part = QWidget()
        form = self._model_form = plain_form()
        self.level = Choice(self._session, "attention_level", LEVEL_TITLES)
        self.browse_button = QPushButton("Browse…")
        self.browse_button.setToolTip("All models and networks: what each is good for, its licence, speed and paper")
        row = QHBoxLayout()
        row.addWidget(self.licence, 1)
        row.addWidget(self.browse_button)
        form.addRow("Model", self.model)
        form.addRow("Level", self.level)
        # Not a row of the form, which would cut a licence of two lines.
        column = QVBoxLayout(self._model_part)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(form)
        column.addLayout(row)
        self._session.events.model.connect(self._show_licence)

    def _make_actions(self) -> None:
        self.follow = QPushButton("Follow the view")
        self.follow.setCheckable(True)
        self.follow.setMinimumHeight(34)
        self.follow.setToolTip(f"{about('follow')['tip']}  ({shortcuts.FOLLOW.text})")
        self.follow.toggled.connect(self._on_follow_toggled)
        self.view_button = _button("View", "Segment what you see now", shortcuts.VIEW)
        self.shape_button = _button("Shape", "Segment the selected rectangle or polygon", shortcuts.SHAPE)
        self.slide_button = _button("Whole slide", "Segment all tissue; goes on where it stopped", shortcuts.SLIDE)
        self._actions_part = QWidget()
        column = QVBoxLayout(self._actions_part)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.follow)
        row = QHBoxLayout()
        row.addWidget(QLabel("Segment"))
        for button in (self.view_button, self.shape_button, self.slide_button):
            row.addWidget(button, 1)
        column.addLayout(row)

    def _make_result(self) -> None:
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.stop_button = _button("Stop", "Stop; what is done is kept", shortcuts.STOP)
        running = QWidget()
        row = QHBoxLayout(running)
        row.setContentsMargins(0, 0, 0, 0)
        # A bar of unknown length shows no text of its own.
        self.doing = QLabel()
        row.addWidget(self.doing)
        row.addWidget(self.bar, 1)
        row.addWidget(self.stop_button)
        self.status = QLabel()
        # One place for both, so that nothing jumps when work begins.
        self._progress_part = QStackedWidget()
        self._progress_part.addWidget(self.status)
        self._progress_part.addWidget(running)
        self._progress_part.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self._progress_part.hide()
        self._was_used = False
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.hint.hide()
        self.take_over_button = QPushButton("Take over…")
        self.take_over_button.setToolTip(
            "Write to the results of this slide in place of the program that does; you are asked"
        )
        self.take_over_button.hide()
        self.count = QLabel("–")
        self.density = QLabel("–")
        for label in (self.count, self.density):
            label.setStyleSheet("font-size: 20px; font-weight: bold;")  # the theme overrides fonts
        self.count_caption = QLabel("nuclei in view")
        self.density_caption = QLabel("per mm² of tissue")
        self.share = QLabel()
        self.share.setWordWrap(True)
        self.share.hide()
        self._result_part = QWidget()
        column = QVBoxLayout(self._result_part)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        columns = QHBoxLayout()
        for number, caption in ((self.count, self.count_caption), (self.density, self.density_caption)):
            pair = QVBoxLayout()
            pair.setSpacing(0)
            pair.addWidget(number)
            pair.addWidget(caption)
            columns.addLayout(pair, 1)
        column.addLayout(columns)
        column.addWidget(self.share)

    def _make_settings(self) -> None:
        self.threshold = NumberSlider(self._session, "threshold")
        self.min_area = NumberSlider(self._session, "min_area_um2")
        self.heatmap = Choice(self._session, "heatmap", {NO_HEATMAP: "None"})
        self.heatmap.setToolTip(f"{about('heatmap')['tip']}  ({shortcuts.HEATMAP.text} shows or hides it)")
        self.device = Choice(
            self._session, "device", {name: CHOICE_TITLES[name] for name in about("device")["choices"]}
        )
        self.outlines = Switch(self._session, "outlines")
        self.outlines.setToolTip(f"{about('outlines')['tip']}  ({shortcuts.OUTLINES.text})")
        self.tissue_only = Switch(self._session, "tissue_only")
        self.thorough = Switch(self._session, "thorough")
        self.ignore_brown = Switch(self._session, "ignore_brown")
        self._settings_part = QWidget()
        form = plain_form(self._settings_part)
        form.addRow("Threshold", self.threshold)
        form.addRow("Smallest", self.min_area)
        self.heads_button = QPushButton("Heads…")
        self.heads_button.setToolTip("See what every attention head of a transformer looks at in the view")
        self.heatmap.setMinimumContentsLength(4)  # beside the button there is less room
        heatmap = QHBoxLayout()
        heatmap.addWidget(self.heatmap, 1)
        heatmap.addWidget(self.heads_button)
        form.addRow("Heatmap", heatmap)
        form.addRow("Device", self.device)
        switches = QGridLayout()
        for place, switch in enumerate((self.outlines, self.tissue_only, self.thorough, self.ignore_brown)):
            switches.addWidget(switch, *divmod(place, 2))
        switches.setColumnStretch(1, 1)
        form.addRow(switches)

    # ------------------------------------------------------------------ what the controller says

    def show_models(self, cards: tuple[Any, ...]) -> None:
        """Offer these models."""
        self._cards = {card.name: card for card in cards}
        if self._cards:
            taught = {card.name for card in cards if card.parent}
            self.model.offer(model_titles({card.name: card.title or card.name for card in cards}, taught))
        self._show_licence(self._session.model)

    def _show_licence(self, name: str) -> None:
        card = self._cards.get(name)
        # A level that was set is not asked for.
        asks = card is not None and card.network in NETWORKS and not card.level_is_set
        self._model_form.setRowVisible(self.level, asks)
        if card is None:
            self.licence.setText("")
            return
        free = card.commercial_use
        self.licence.setText(use_text(card.licence, commercial_use=free))
        self.licence.setStyleSheet("" if free else f"color: {self._warning_colour};")
        lines = [
            f"{(card.title or 'Model').replace(' um/px', ' µm/px')} ({card.name})",
            f"Licence: {licence_text(card.licence)}",
            *(f"Trained on {data_text(entry)}" for entry in card.training_data),
        ]
        self.model.setToolTip("\n".join(line for line in lines if line))

    def show_heads(self, titles: dict[str, str]) -> None:
        """Offer these outputs of the model as heatmaps."""
        self.first_heatmap = next(iter(titles), NO_HEATMAP)
        self.heatmap.offer({NO_HEATMAP: "None", **titles})

    def show_progress(self, progress: Progress | None) -> None:
        """Show how far it is; None means that nothing runs."""
        self._progress_part.setCurrentIndex(0 if progress is None else 1)
        self._show_row()
        if progress is None:
            return
        self.doing.setText(f"{progress.title}…")
        self.doing.setVisible(not progress.total)
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        self.bar.setFormat(progress_text(progress))

    def show_outcome(self, sentence: str) -> None:
        """Show what came of the last segmentation, until the next."""
        self.status.setText(sentence)
        self._show_row()

    def _show_row(self) -> None:
        """Keep the row of progress and outcome once it was used, so that nothing jumps; not empty above a hint."""
        says = bool(self._progress_part.currentIndex() or self.status.text())
        self._was_used = self._was_used or says
        self._progress_part.setVisible(says or (self._was_used and not self._hint.text))

    def show_counts(self, counts: Counts | None) -> None:
        """Show how many nuclei there are; None where nothing is known."""
        self.share.setText("" if counts is None else share_text(counts))
        self.share.setVisible(counts is not None)
        if counts is None or counts.segmented == counts.nuclei == 0:
            self.count.setText("–")
            self.density.setText("–")
            return
        density = counts.per_mm2
        self.count.setText(f"{counts.nuclei:,}")
        self.count_caption.setText(f"nuclei in {counts.where}")
        self.density.setText("–" if density is None else f"{density:,.0f}")
        self.density_caption.setText("per mm² of tissue" if counts.knows_tissue else "per mm² segmented")

    def show_hint(self, hint: Hint) -> None:
        """Show a sentence; an empty one goes away."""
        self._hint = hint
        self.hint.setText(hint.text)
        style = f"color: {self._warning_colour};" if hint.is_warning else ""
        if style != self.hint.styleSheet():
            self.hint.setStyleSheet(style)
        self.hint.setVisible(bool(hint.text))
        self._show_row()
        self.take_over_button.hide()

    def show_in_use(self, sentence: str) -> None:
        """Show who writes to the results of the slide, and offer to take over until the next hint."""
        self.show_hint(Hint(sentence, is_warning=True))
        self.take_over_button.show()

    def set_warning_colour(self, colour: str) -> None:
        """Show what needs heed in this colour."""
        self._warning_colour = colour
        if self._hint.is_warning:
            self.hint.setStyleSheet(f"color: {colour};")
        self._show_licence(self._session.model)

    # ------------------------------------------------------------------ follow

    def _on_follow_toggled(self, on: bool) -> None:
        self._session.follow = on

    def _on_follow_changed(self, on: bool) -> None:
        self.follow.setChecked(on)
        self.follow.setText("Following the view" if on else "Follow the view")


def _button(title: str, tip: str, shortcut: shortcuts.Shortcut) -> QPushButton:
    button = QPushButton(title)
    button.setToolTip(f"{tip}  ({shortcut.text})")
    button.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
    return button
