"""The dock "Cluster the view": settings, progress, the clusters to choose from, and what is made of them."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.viewer.clustering import Clustering, ClusterProgress
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.widgets.cluster_form import ClusterForm
from napari_nucleiseg.widgets.cluster_list import ClusterList
from napari_nucleiseg.widgets.wording import warning_colour

SIZE = QSize(1000, 280)
ABOUT = (
    "Finds groups of pixels that look alike, with no model and nothing drawn before. You then say which of them are "
    "nuclei. Zoom in to where nuclei are seen, at most about 1 mm across."
)
NOTHING = "The clusters are listed here once they are found."
RUNNING = (
    "Clusters that look alike become one, step by step. Of a large view a part is learned from; the rest is coloured "
    "at the end. Stop when you like what you see."
)
# Nuclei of the densest tissue cover less.
MOST_NUCLEI = 0.5
TOO_MUCH = ", more than nuclei cover: untick what is not nuclei."
BOUND = "As published the network belongs to this view and cannot be used elsewhere; take the preset “For nuclei”."


class ClusterPanel(QWidget):
    """Shows a `Clustering`.

    Parameters
    ----------
    clustering : Clustering
        What is shown and asked for.
    theme : str
        Of napari, when it is made.
    """

    def __init__(self, clustering: Clustering, theme: str) -> None:
        super().__init__()
        self.setObjectName("nucleiseg cluster")
        self.clustering = clustering
        self._warning_colour = warning_colour(theme)
        self._hint = Hint()
        self.form = ClusterForm()
        self.list = ClusterList()
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 6, 8, 6)
        row.setSpacing(16)
        row.addWidget(self.form, 2)
        row.addWidget(self.form.more, 2)
        row.addLayout(self._make_middle(), 3)
        row.addLayout(self._make_picker(), 4)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(190)
        self._connect()
        self.list.set_theme(theme)
        self._on_running_changed(clustering.is_running)
        self._on_found_changed()

    def _make_middle(self) -> QVBoxLayout:
        self.about = QLabel(ABOUT)
        self.hint = QLabel()
        self.share = QLabel()
        for label in (self.about, self.hint, self.share):
            label.setWordWrap(True)
            label.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.hint.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.view_button = QPushButton("View")
        self.view_button.setToolTip("Cluster what you see now")
        self.shape_button = QPushButton("Shape")
        self.shape_button.setToolTip("Cluster the rectangle around the selected shape or annotated region")
        self.bar = QProgressBar()
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("Stop after this step; the last clusters of which there were enough are kept")
        buttons = QHBoxLayout()
        self.begin_label = QLabel("Cluster")
        buttons.addWidget(self.begin_label)
        for button in (self.view_button, self.shape_button):
            button.setMinimumHeight(30)
            buttons.addWidget(button, 1)
        buttons.addWidget(self.bar, 1)
        buttons.addWidget(self.stop_button)
        column = QVBoxLayout()
        column.addWidget(self.about)
        column.addWidget(self.hint)
        column.addWidget(self.share)
        column.addStretch(1)
        column.addLayout(buttons)
        return column

    def _make_picker(self) -> QVBoxLayout:
        self.nuclei_button = QPushButton("Make nuclei of it")
        self.nuclei_button.setToolTip(
            "Make nuclei of the ticked clusters, in place of what models found here; what people drew, changed or "
            "approved stays"
        )
        self.slide_button = QPushButton("Use for the whole slide")
        self.slide_button.setToolTip(
            "Keep the fitted network with the ticked clusters as a model, and segment the whole slide with it"
        )
        self.model_button = QPushButton("Keep as a model")
        self.model_button.setToolTip(
            "Keep the fitted network with the ticked clusters in the list of models, for this and other slides"
        )
        buttons = QHBoxLayout()
        for button in (self.nuclei_button, self.slide_button, self.model_button):
            button.setMinimumHeight(30)
            buttons.addWidget(button, 1)
        self.nothing = QLabel(NOTHING)
        self.nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.nothing.setWordWrap(True)
        self._pages = QStackedLayout()
        self._pages.addWidget(self.nothing)
        self._pages.addWidget(self.list)
        column = QVBoxLayout()
        column.addLayout(self._pages, 1)
        column.addLayout(buttons)
        return column

    def _connect(self) -> None:
        clustering = self.clustering
        clustering.running_changed.connect(self._on_running_changed)
        clustering.progress_changed.connect(self._on_progress_changed)
        clustering.found_changed.connect(self._on_found_changed)
        clustering.chosen_changed.connect(self._on_chosen_changed)
        clustering.said.connect(self._on_said)
        clustering.nuclei.busy_changed.connect(self._on_busy_changed)
        self.view_button.clicked.connect(lambda: clustering.view(self.form.config))
        self.shape_button.clicked.connect(lambda: clustering.shape(self.form.config))
        self.stop_button.clicked.connect(self._on_stop_clicked)
        self.list.ticked.connect(lambda cluster, on: clustering.choose(cluster, on=on))
        self.list.pointed.connect(clustering.light)
        self.nuclei_button.clicked.connect(clustering.nuclei.make)
        self.slide_button.clicked.connect(lambda: clustering.nuclei.use(whole=True))
        self.model_button.clicked.connect(lambda: clustering.nuclei.use(whole=False))

    # ------------------------------------------------------------------ what is said

    def _on_said(self, hint: Hint) -> None:
        self._hint = hint
        self.hint.setText(hint.text)
        self.hint.setStyleSheet(f"color: {self._warning_colour};" if hint.is_warning else "")
        self._show_about()

    def set_theme(self, theme: str) -> None:
        """Show what needs heed in the colour of this theme."""
        self._warning_colour = warning_colour(theme)
        self.list.set_theme(theme)
        self._on_said(self._hint)
        self._show_share()

    def _show_about(self) -> None:
        idle = self.clustering.found is None and not self.clustering.is_running
        self.about.setVisible(idle and not self._hint.text)
        self.hint.setVisible(bool(self._hint.text))

    # ------------------------------------------------------------------ the fit

    def _on_running_changed(self, running: bool) -> None:
        for widget in (self.bar, self.stop_button):
            widget.setVisible(running)
        for other in (self.begin_label, self.view_button, self.shape_button):
            other.setVisible(not running)
        self.stop_button.setEnabled(running)
        self.form.setEnabled(not running)
        self.form.more.setEnabled(not running)
        if running:
            self._on_said(Hint())
        self._show_about()

    def _on_progress_changed(self, progress: ClusterProgress) -> None:
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        self.bar.setFormat(f"Step {progress.done} of {progress.total}  ·  {progress.clusters} clusters")
        self.nothing.setText(RUNNING if progress.total else f"{progress.title}…")

    def _on_stop_clicked(self) -> None:
        self.stop_button.setEnabled(False)
        self.clustering.stop()

    # ------------------------------------------------------------------ what was found

    def _on_found_changed(self) -> None:
        found = self.clustering.found
        if found is not None:
            self.list.show_clusters(found.ranked, self.clustering.colours, self.clustering.chosen)
        elif not self.clustering.is_running:
            self.nothing.setText(NOTHING)
        self._pages.setCurrentIndex(0 if found is None else 1)
        self._on_chosen_changed()
        self._show_about()

    def _on_chosen_changed(self) -> None:
        self.list.show_ticked(self.clustering.chosen)
        found, busy = self.clustering.found, self.clustering.nuclei.is_busy
        ready = bool(self.clustering.chosen) and not busy
        elsewhere = found is not None and found.result.config.offsets != "free"
        self.nuclei_button.setEnabled(ready)
        for button in (self.slide_button, self.model_button):
            button.setEnabled(ready and elsewhere)
            button.setVisible(found is not None)
        self.nuclei_button.setVisible(found is not None)
        if found is not None and not elsewhere:
            self.slide_button.setToolTip(BOUND)
            self.model_button.setToolTip(BOUND)

        self._show_share()

    def _show_share(self) -> None:
        """Say how much is ticked: too much for nuclei is mostly the other stain."""
        share = self.clustering.ticked_share
        much = share > MOST_NUCLEI
        self.share.setText(f"{share:.0%} of the area is ticked{TOO_MUCH if much else '.'}")
        self.share.setStyleSheet(f"color: {self._warning_colour};" if much else "")
        self.share.setVisible(self.clustering.found is not None)

    def _on_busy_changed(self, _busy: bool) -> None:
        self._on_chosen_changed()

    # ------------------------------------------------------------------ Qt

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE
