"""The dock "Attention heads": which transformer, which head of which layer, and what all of them look at."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.state import (
    BOTH,
    HEAD_LEVELS,
    LAST_LAYER,
    NO_ENCODER,
    OVER_HEADS,
    PATCHES,
    REGION_LEVEL,
    VALUES,
)
from napari_nucleiseg.viewer.head_parts import HeadParts
from napari_nucleiseg.viewer.head_titles import head_title
from napari_nucleiseg.viewer.heads_engine import PATCH
from napari_nucleiseg.viewer.heads_layer import COLOURS
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.widgets.dialogs import ask_slide_attention
from napari_nucleiseg.widgets.form import Choice, NumberSlider, Switch, about
from napari_nucleiseg.widgets.head_gallery import HeadGallery
from napari_nucleiseg.widgets.head_ranking import HeadRanking
from napari_nucleiseg.widgets.head_teaching import HeadTeachingTab
from napari_nucleiseg.widgets.parts import plain_form
from napari_nucleiseg.widgets.wording import licence_text, warning_colour

SIZE = QSize(1000, 290)
ABOUT = (
    "Shows what each attention head of a transformer looks at in the view. Heads are not taught what a nucleus is: "
    "some look at nuclei, others at stroma, edges or glass. Rank them against the nuclei that were found."
)
LEVEL_NAMES = {PATCHES: "Patches", REGION_LEVEL: "Region", BOTH: "Both together"}
VALUE_NAMES = {"percentile": "Percentile", "share": "Share", "raw": "Raw"}
AVERAGED_NAMES = {1: "One grid", 2: "2 shifted grids", 4: "4 shifted grids"}
NO_PINS = "“Pin” keeps the map that is shown here, to compare it with others."
PUBLISHED_NAMES = {"hipt-256", "hipt-4k"}
GALLERY, PINNED, RANKING, TEACHING = "Gallery", "Pinned", "Nuclei", "Teach"


class HeadsPanel(QWidget):
    """Shows `HeadParts`.

    Parameters
    ----------
    parts : HeadParts
        What is shown and asked for.
    theme : str
        Of napari, when it is made.
    """

    def __init__(self, parts: HeadParts, theme: str) -> None:
        super().__init__()
        self.setObjectName("nucleiseg heads")
        self.heads, self.pointing, self.slide, self.download = parts.heads, parts.pointing, parts.slide, parts.download
        self.ranking = HeadRanking(parts.nuclei)
        self.teaching = HeadTeachingTab(parts.teaching, parts.heads.session)
        self._warning_colour = warning_colour(theme)
        self._hint = Hint()
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 6, 8, 6)
        row.setSpacing(14)
        row.addLayout(self._make_looking(), 3)
        row.addLayout(self._make_choice(), 3)
        row.addWidget(self._make_tabs(), 6)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(210)
        self._connect()
        self._on_level_changed()
        self._show_encoders()
        self._on_progress(None)

    def _make_looking(self) -> QVBoxLayout:
        wishes = self.heads.wishes
        self.encoder = Choice(wishes, "encoder", {NO_ENCODER: "None"})
        self.region_encoder = Choice(wishes, "region_encoder", {NO_ENCODER: "None"})
        form = plain_form(spacing_px=4)
        form.addRow("Patches", self.encoder)
        form.addRow("Regions", self.region_encoder)
        self.look_button = QPushButton("Look at the view")
        self.look_button.setMinimumHeight(30)
        self.look_button.setToolTip(
            "Show what the heads look at in what you see now; what was looked at before is kept"
        )
        self.slide_button = QPushButton("Slide…")
        self.slide_button.setToolTip(
            "Show where a model of whole slides looked: a file that `napari-nucleiseg cohort predict` wrote"
        )
        self.get_button = QPushButton("Get HIPT…")
        self.get_button.setToolTip(
            "Download HIPT's transformers, trained on 10,678 slides (1.1 GB, of which 98 MB stay).\n"
            "Not for commercial use: you are asked for their licence first."
        )
        self.follow = Switch(wishes, "follow")
        self.bar = QProgressBar()
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("Stop looking; what is known stays")
        self.hint = QLabel(ABOUT)
        self.hint.setWordWrap(True)
        self.hint.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.hint.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        running = QHBoxLayout()
        running.addWidget(self.bar, 1)
        running.addWidget(self.stop_button)
        column = QVBoxLayout()
        column.setSpacing(6)
        column.addLayout(form)
        looks = QHBoxLayout()
        looks.addWidget(self.look_button, 1)
        looks.addWidget(self.slide_button)
        looks.addWidget(self.get_button)
        column.addLayout(looks)
        column.addLayout(running)
        column.addWidget(self.follow)
        column.addWidget(self.hint, 1)
        return column

    def _make_choice(self) -> QVBoxLayout:
        wishes = self.heads.wishes
        self.level = Choice(wishes, "level", {level: LEVEL_NAMES[level] for level in HEAD_LEVELS})
        self.head = Choice(wishes, "head", {})
        self.layer = Choice(wishes, "layer", {})
        self.region_head = Choice(wishes, "region_head", {})
        self.region_layer = Choice(wishes, "region_layer", {})
        self.weight = NumberSlider(wishes, "weight")
        self.values = Choice(wishes, "values", {value: VALUE_NAMES[value] for value in VALUES})
        self.averaged = Choice(wishes, "averaged", AVERAGED_NAMES)  # type: ignore[arg-type]  # any value that Qt holds
        self.colours = Choice(wishes, "colours", {name: name.capitalize() for name in COLOURS})
        self.opacity = NumberSlider(wishes, "opacity")
        self.tissue_only = Switch(wishes, "tissue_only")
        self._choice = form = plain_form(spacing_px=4)
        for title, control in (
            ("Level", self.level), ("Head", _pair(self.head, self.layer)),
            ("Region", _pair(self.region_head, self.region_layer)), ("Balance", self.weight),
            ("Values", _pair(self.values, self.averaged)), ("Colours", self.colours), ("Opacity", self.opacity),
        ):  # fmt: skip
            form.addRow(title, control)
        self.ask_button = QPushButton("Ask a token")
        self.ask_button.setCheckable(True)
        self.ask_button.setToolTip(about("asking", type(wishes))["tip"])
        self.pin_button = QPushButton("Pin")
        self.pin_button.setToolTip("Keep this map beside those that you look at next; its layer can be switched on")
        row = QHBoxLayout()
        row.addWidget(self.tissue_only)
        row.addStretch(1)
        row.addWidget(self.ask_button)
        row.addWidget(self.pin_button)
        column = QVBoxLayout()
        column.setSpacing(6)
        column.addLayout(form)
        column.addLayout(row)
        column.addStretch(1)
        return column

    def _make_tabs(self) -> QTabWidget:
        self.gallery = HeadGallery()
        self.pinned = HeadGallery(NO_PINS)
        self.unpin_button = QPushButton("Let go of all")
        self.unpin_button.setToolTip("Take all pinned maps and their layers away")
        self.unpin_button.hide()
        pinned = QWidget()
        column = QVBoxLayout(pinned)
        column.setContentsMargins(0, 4, 0, 0)
        column.addWidget(self.pinned, 1)
        column.addWidget(self.unpin_button, 0, Qt.AlignmentFlag.AlignRight)
        self.tabs = QTabWidget()
        self.tabs.addTab(self.gallery, GALLERY)
        self.tabs.addTab(pinned, PINNED)
        self.tabs.addTab(self.ranking, RANKING)
        self.tabs.addTab(self.teaching, TEACHING)
        return self.tabs

    def _connect(self) -> None:
        heads, events = self.heads, self.heads.wishes.events
        heads.encoders.listed.connect(self._show_encoders)
        heads.progress_changed.connect(self._on_progress)
        heads.shown_changed.connect(self._on_shown)
        heads.gallery_made.connect(self._on_gallery_made)
        heads.looked.connect(self._on_looked)
        heads.pins_changed.connect(self._on_pins_changed)
        heads.said.connect(self.show_hint)
        events.level.connect(self._on_level_changed)
        events.encoder.connect(self._show_encoders)
        events.region_encoder.connect(self._show_encoders)
        events.colours.connect(self._on_colours_changed)
        events.asking.connect(self._on_asking_changed)
        self.look_button.clicked.connect(heads.look)
        self.stop_button.clicked.connect(self._on_stop_clicked)
        self.get_button.clicked.connect(self.download.begin)
        self.download.progress_changed.connect(self._on_downloaded)
        self.slide_button.clicked.connect(self._on_slide_clicked)
        self.pin_button.clicked.connect(heads.pin)
        self.unpin_button.clicked.connect(self._on_unpin_clicked)
        self.ask_button.toggled.connect(self._on_ask_toggled)
        self.gallery.picked.connect(heads.pick)
        self.pinned.picked.connect(self._on_pinned_picked)
        for gallery in (self.gallery, self.pinned):
            gallery.hovered.connect(self._on_hovered)
        self.pointing.pointed.connect(self._on_pointed)

    # ------------------------------------------------------------------ encoders

    def _show_encoders(self, _name: Any = None) -> None:
        encoders, wishes = self.heads.encoders, self.heads.wishes
        patches = {name: _title(encoders.cards[name]) for name in encoders.names(PATCH)}
        self.encoder.offer(patches or {NO_ENCODER: "None"})
        regions = encoders.regions()
        self.region_encoder.offer({NO_ENCODER: "None", **{name: _title(encoders.cards[name]) for name in regions}})
        for box, name in ((self.encoder, wishes.encoder), (self.region_encoder, wishes.region_encoder)):
            card, field = encoders.cards.get(name), "encoder" if box is self.encoder else "region_encoder"
            lines = [about(field, type(wishes))["tip"]]
            if card is not None:
                lines += [card.title, f"Licence: {licence_text(card.licence)}", card.notes]
            box.setToolTip("\n".join(line for line in lines if line))
        self._offer_heads()
        self.get_button.setVisible(not encoders.cards.keys() >= PUBLISHED_NAMES)

    def _offer_heads(self) -> None:
        encoders, wishes = self.heads.encoders, self.heads.wishes
        for name, head, layer in (
            (wishes.encoder, self.head, self.layer), (wishes.region_encoder, self.region_head, self.region_layer),
        ):  # fmt: skip
            spec = encoders.specs.get(name)
            count, depth = (0, 0) if spec is None else (spec.heads, spec.depth)
            heads = [*(str(number) for number in range(count)), *OVER_HEADS]
            head.offer({key: head_title(key).capitalize() for key in heads})
            layers = {LAST_LAYER: "Last layer", **{number: f"Layer {number + 1}" for number in range(depth)}}
            layer.offer(layers)  # type: ignore[arg-type]  # any value that Qt holds
        can_compose = bool(wishes.region_encoder)
        model: Any = self.level.model()
        for place in range(1, self.level.count()):
            item = model.item(place)
            item.setEnabled(can_compose)
            item.setToolTip("" if can_compose else "Choose a transformer of regions first")

    # ------------------------------------------------------------------ what the heads say

    def _on_progress(self, progress: Progress | None) -> None:
        self.bar.setVisible(progress is not None)
        self.stop_button.setVisible(progress is not None)
        if progress is not None:
            self.bar.setRange(0, progress.total)
            self.bar.setValue(progress.done)
            self.bar.setFormat("%v of %m patches" if progress.total else "")

    def _on_downloaded(self, progress: Progress | None) -> None:
        self._on_progress(progress)
        if progress is not None and progress.total:
            self.bar.setFormat(f"{progress.title}: %v of %m MB")

    def _on_stop_clicked(self) -> None:
        self.heads.stop()
        if self.download.is_running:
            self.download.stop()

    def _on_looked(self) -> None:
        if self.heads.looks is None:
            self.gallery.clear()

    def _on_shown(self) -> None:
        wishes = self.heads.wishes
        pair = f"{wishes.head},{wishes.region_head}"
        self.gallery.mark({PATCHES: wishes.head, REGION_LEVEL: wishes.region_head}.get(wishes.level, pair))
        self.pin_button.setEnabled(self.heads.shown is not None)

    def _on_gallery_made(self, maps: Any) -> None:
        titles = {name: head_title(name).capitalize() for name in maps}
        self.gallery.show_maps(maps, titles, self._colormap())
        self._on_shown()

    def _on_pins_changed(self) -> None:
        pins = {str(place): pin for place, pin in enumerate(self.heads.pins)}
        self.pinned.show_maps(
            {name: pin.shown for name, pin in pins.items()},
            {name: pin.title.capitalize() for name, pin in pins.items()},
            self._colormap(),
        )
        self.tabs.setTabText(1, f"{PINNED} ({len(pins)})" if pins else PINNED)
        self.unpin_button.setVisible(bool(pins))

    def _colormap(self) -> Any:
        from napari.utils.colormaps import ensure_colormap

        from napari_nucleiseg.viewer.heads_layer import colours

        return ensure_colormap(colours(self.heads.wishes.colours))

    def show_hint(self, hint: Hint) -> None:
        """Show a sentence in place of what the dock is for."""
        self._hint = hint
        self.hint.setText(hint.text or ABOUT)
        self.hint.setStyleSheet(f"color: {self._warning_colour};" if hint.is_warning else "")

    def set_theme(self, theme: str) -> None:
        """Show warnings so that they can be read in this theme."""
        self._warning_colour = warning_colour(theme)
        self.show_hint(self._hint)

    # ------------------------------------------------------------------ what the user does

    def _on_level_changed(self, _level: Any = None) -> None:
        level = self.heads.wishes.level
        for place, shown in ((1, level != REGION_LEVEL), (2, level != PATCHES), (3, level == BOTH)):
            self._choice.setRowVisible(place, shown)

    def _on_colours_changed(self, _name: str) -> None:
        self.heads.make_gallery()
        self._on_pins_changed()

    def _on_slide_clicked(self) -> None:
        path = ask_slide_attention(self)
        if path:
            self.slide.show(path)

    def _on_ask_toggled(self, on: bool) -> None:
        self.heads.wishes.asking = on

    def _on_asking_changed(self, on: bool) -> None:
        self.ask_button.setChecked(on)

    def _on_unpin_clicked(self) -> None:
        for pin in list(self.heads.pins):
            self.heads.unpin(pin)

    def _on_pinned_picked(self, name: str) -> None:
        """Switch the layer of a pinned map on or off."""
        pins = self.heads.pins
        if int(name) < len(pins):
            layer = pins[int(name)].layer
            layer.visible = not layer.visible

    def _on_hovered(self, place: tuple[float, float] | None) -> None:
        if place is None:
            self.pointing.marker.hide()
        else:
            self.pointing.point(*place)

    def _on_pointed(self, place: tuple[float, float] | None) -> None:
        for gallery in (self.gallery, self.pinned):
            gallery.cross(place)

    # ------------------------------------------------------------------ when it is seen

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Begin to follow."""
        super().showEvent(event)
        self.heads.open()
        self.pointing.open()

    def leave_dock(self) -> None:
        """Ask and follow no longer once the dock is closed."""
        self.heads.wishes.asking = self.heads.wishes.follow = False


def _pair(first: QWidget, second: QWidget) -> QWidget:
    both = QWidget()
    row = QHBoxLayout(both)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(4)
    row.addWidget(first, 1)
    row.addWidget(second, 1)
    return both


def _title(card: Any) -> str:
    return str(card.name if card.commercial_use else f"{card.name} (non-commercial)")
