"""The dock widget "Nuclei": what a pathologist sees and turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QScrollArea, QSizePolicy, QStackedWidget, QVBoxLayout

from napari_nucleiseg.state import NO_HEATMAP, Session
from napari_nucleiseg.viewer import classes
from napari_nucleiseg.viewer.attention import AttentionPainting
from napari_nucleiseg.viewer.controller import Controller
from napari_nucleiseg.viewer.like_wishes import CHOOSE, LIKE, UNLIKE
from napari_nucleiseg.viewer.messages import (
    FolderQuestion,
    Hint,
    InUseQuestion,
    LicenceQuestion,
    PixelSizeQuestion,
    Question,
)
from napari_nucleiseg.viewer.preferences import Preferences
from napari_nucleiseg.viewer.sentences import NOT_FLAT
from napari_nucleiseg.widgets import dialogs, exchange_dialogs, shortcuts
from napari_nucleiseg.widgets.classes_dialog import ask_classes
from napari_nucleiseg.widgets.docks import Docks
from napari_nucleiseg.widgets.exchange_dialogs import can_import
from napari_nucleiseg.widgets.panel import Panel
from napari_nucleiseg.widgets.take_over_dialog import ask_take_over
from napari_nucleiseg.widgets.welcome import Welcome
from napari_nucleiseg.widgets.window_bound import WindowBound
from napari_nucleiseg.widgets.wording import warning_colour

if TYPE_CHECKING:
    import napari

    from napari_nucleiseg.core.exchange.report import ImportReport
    from napari_nucleiseg.core.slides.pyramid import Slide


class NucleiWidget(WindowBound):
    """Panel, controller and session of one viewer, tied together.

    Parameters
    ----------
    viewer : napari.Viewer
        The window it is docked in.
    controller : Controller, optional
        Default a new one with a new session.
    """

    def __init__(self, viewer: napari.viewer.Viewer, controller: Controller | None = None) -> None:
        super().__init__()
        self.setObjectName("nucleiseg")
        self._viewer = viewer
        self.controller = controller or Controller(viewer, Session())
        self.session = self.controller.session
        self._preferences = Preferences(self.session) if controller is None else None
        self._last_heatmap = NO_HEATMAP
        self.panel = Panel(self.session)
        self.welcome = Welcome()
        self.docks = Docks(viewer, self.controller)
        made = self.controller
        self.attention = AttentionPainting(made.editing, made.segmenter, made.display, made.catalogue)
        self._pages = QStackedWidget()
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(self.panel)
        self._pages.addWidget(self.welcome)
        self._pages.addWidget(scroll)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._pages)
        # All the height there is; otherwise napari adds a stretch below.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumWidth(300)
        self.setAcceptDrops(True)  # napari takes drops on the canvas only
        self._connect()
        self._viewer.dims.events.ndisplay.connect(self._on_dimensions_changed)
        self._on_theme_changed()
        self._keys = shortcuts.Keys(viewer, self._key_actions())
        self.controller.start()

    def _connect(self) -> None:
        controller, panel = self.controller, self.panel
        controller.slide_changed.connect(self._on_slide_changed)
        controller.models_listed.connect(panel.show_models)
        controller.segmenter.heads_changed.connect(panel.show_heads)
        controller.segmenter.outcome_changed.connect(panel.show_outcome)
        controller.segmenter.progress_changed.connect(panel.show_progress)
        controller.display.counted.connect(panel.show_counts)
        controller.hint_changed.connect(self._on_hint_changed)
        controller.question_asked.connect(self._on_question_asked)
        panel.view_button.clicked.connect(self._on_view_clicked)
        panel.shape_button.clicked.connect(self._on_shape_clicked)
        panel.slide_button.clicked.connect(self._on_slide_clicked)
        panel.stop_button.clicked.connect(self._on_stop_clicked)
        panel.correct.cluster_action.triggered.connect(self.docks.show_cluster)
        panel.take_over_button.clicked.connect(self._on_take_over_clicked)
        controller.pictures.read.connect(self._on_picture_read)
        controller.editing.edited.connect(self._on_edited)
        controller.editing.long_work.changed.connect(panel.show_progress)
        for part in (panel.correct, panel.attention):
            part.undo_button.clicked.connect(controller.editing.undo)
            part.redo_button.clicked.connect(controller.editing.redo)
        self.attention.offered.connect(panel.attention.offer)
        self.attention.awaited.connect(panel.attention.show_awaited)
        panel.attention.brush_wanted.connect(self.attention.choose)
        panel.correct.class_wanted.connect(controller.tools.choose_class)
        controller.exchange.progress_changed.connect(panel.show_progress)
        controller.exchange.imported.connect(self._on_imported)
        panel.correct.import_button.clicked.connect(self.ask_import)
        panel.correct.export_button.clicked.connect(self.ask_export)
        panel.correct.classes_edited.connect(self._on_classes_edited)
        panel.correct.table_button.clicked.connect(self.docks.show_table)
        panel.correct.regions_button.clicked.connect(self.docks.show_regions)
        panel.correct.history_button.clicked.connect(self.docks.show_history)
        panel.correct.plots_button.clicked.connect(self.docks.show_plots)
        panel.correct.compare_action.triggered.connect(self.docks.compare_with_reference)
        panel.correct.like_button.clicked.connect(self.docks.show_like)
        panel.correct.by_text_action.triggered.connect(self.docks.show_by_text)
        panel.correct.batch_action.triggered.connect(self.docks.show_batch)
        panel.correct.teach_button.clicked.connect(self.docks.show_teach)
        panel.correct.unlabelled_action.triggered.connect(self.docks.show_unlabelled)
        panel.browse_button.clicked.connect(self.docks.show_models)
        panel.heads_button.clicked.connect(self.docks.show_heads)
        self.docks.heads.shown_changed.connect(self._on_heads_shown)
        panel.facts.pixel_size_wanted.connect(self._on_pixel_size_wanted)
        panel.facts.srgb_wanted.connect(self._on_srgb_wanted)
        panel.facts.picture_wanted.connect(self._on_picture_wanted)
        self.welcome.open_button.clicked.connect(self._on_open_clicked)
        self.welcome.folder_button.clicked.connect(self._on_folder_clicked)
        self.welcome.batch_button.clicked.connect(self.docks.show_batch)
        self.welcome.sample_button.clicked.connect(self._on_sample_clicked)
        self._viewer.events.theme.connect(self._on_theme_changed)

    def _key_actions(self) -> dict[shortcuts.Shortcut, Any]:
        return {
            shortcuts.FOLLOW: self._toggle_follow,
            shortcuts.VIEW: self._on_view_clicked,
            shortcuts.SHAPE: self._on_shape_clicked,
            shortcuts.SLIDE: self._on_slide_clicked,
            shortcuts.STOP: self._on_stop_clicked,
            shortcuts.OUTLINES: self._toggle_outlines,
            shortcuts.HEATMAP: self._toggle_heatmap,
            shortcuts.PAINT_ATTENTION: self._toggle_painting,
            shortcuts.CORRECT: self._toggle_correct,
            shortcuts.UNDO: self.controller.editing.undo,
            shortcuts.REDO: self.controller.editing.redo,
            shortcuts.NEXT: self.controller.tools.tour.next,
            shortcuts.PROPOSE: self.docks.next_region.next,
            shortcuts.PLOTS: self.docks.show_plots,
            shortcuts.BATCH: self.docks.show_batch,
            shortcuts.LIKE: lambda: self.docks.take_like(LIKE),
            shortcuts.UNLIKE: lambda: self.docks.take_like(UNLIKE),
            shortcuts.CHOOSE: lambda: self.docks.take_like(CHOOSE),
            shortcuts.ACCEPT_LIKE: self.docks.like.accepting.all,
        }

    # ------------------------------------------------------------------ what the user does

    def _toggle_follow(self) -> None:
        self.session.follow = not self.session.follow

    def _toggle_correct(self) -> None:
        self.session.editing = not self.session.editing

    def _toggle_outlines(self) -> None:
        self.session.outlines = not self.session.outlines

    def _toggle_heatmap(self) -> None:
        if self.session.heatmap:
            self._last_heatmap, self.session.heatmap = self.session.heatmap, NO_HEATMAP
        else:
            self.session.heatmap = self._last_heatmap or self.panel.first_heatmap

    def _toggle_painting(self) -> None:
        self.session.painting = not self.session.painting

    def _on_view_clicked(self) -> None:
        self.controller.segment_view()

    def _on_shape_clicked(self) -> None:
        self.controller.segment_shape()

    def _on_slide_clicked(self) -> None:
        self.controller.segment_slide()

    def _on_stop_clicked(self) -> None:
        self.session.follow = False
        self.controller.cancel()
        self.controller.exchange.stop()
        self.controller.editing.long_work.stop()
        self.docks.clustering.stop()

    def _on_open_clicked(self) -> None:
        paths = dialogs.ask_slides(self)
        if paths:
            self.controller.open_slides(paths)

    def _on_folder_clicked(self) -> None:
        path = dialogs.ask_slide_folder(self)
        if path:
            self.controller.open_slides([path])

    def _on_sample_clicked(self) -> None:
        self._viewer.open_sample("napari-nucleiseg", "tissue")

    def _on_pixel_size_wanted(self) -> None:
        slide = self.controller.slide
        if slide is not None:
            mpp_um = dialogs.ask_pixel_size(slide, self)
            if mpp_um is not None:
                self.controller.set_pixel_size(mpp_um)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        """Take files and folders."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802 - Qt's name
        """Open what was dropped; nuclei go into the slide that is open."""
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            nuclei = [path for path in paths if self.controller.slide is not None and can_import(path)]
            if nuclei:
                self.import_file(nuclei[0])
            else:
                self.controller.open_slides(paths)

    def _on_theme_changed(self, _event: Any = None) -> None:
        for page in (self.panel, self.welcome):
            page.set_warning_colour(warning_colour(self._viewer.theme))

    def _on_srgb_wanted(self, on: bool) -> None:
        self.controller.pictures.show_srgb(on=on)
        self.panel.facts.show_colours(in_srgb=self.controller.pictures.in_srgb)

    def ask_import(self) -> None:
        """Ask which nuclei to take into the slide."""
        path = exchange_dialogs.ask_import(self) if self.controller.slide is not None else ""
        if path:
            self.import_file(path)

    def import_file(self, path: str) -> None:
        """Take the nuclei of a file into the slide."""
        overlap = exchange_dialogs.ask_overlap(self) if self.controller.exchange.has_nuclei else "keep"
        if overlap is not None:
            self.controller.exchange.import_file(path, overlap=overlap)

    def ask_export(self) -> None:
        """Ask where to write the nuclei of the slide."""
        slide = self.controller.slide
        wanted = None if slide is None else exchange_dialogs.ask_export(slide.path, self)
        if wanted is not None:
            self.controller.exchange.export_file(*wanted)

    def _on_imported(self, report: ImportReport) -> None:
        exchange_dialogs.show_report(report, self)

    def _on_classes_edited(self) -> None:
        def on_found(found: classes.Found) -> None:
            wanted = ask_classes(*found, self)
            if wanted is not None:
                classes.change_classes(self.controller.editing, wanted)

        classes.ask_classes(self.controller.editing, on_found)

    def _on_picture_wanted(self, name: str) -> None:
        self.controller.pictures.ask(name)

    # ------------------------------------------------------------------ what the controller says

    def _on_edited(self) -> None:
        for part in (self.panel.correct, self.panel.attention):
            part.show_history(self.controller.editing.turns())
        self.panel.correct.show_classes(self.controller.editing.classes())

    def _on_slide_changed(self, slide: Slide | None) -> None:
        self._pages.setCurrentIndex(0 if slide is None else 1)
        if slide is not None:
            self.panel.facts.show_slide(slide)
            self.panel.facts.show_colours(in_srgb=self.controller.pictures.in_srgb)

    def _on_heads_shown(self) -> None:
        self.attention.offer_for_heads(on=self.docks.heads.shown is not None)

    def _on_hint_changed(self, hint: Hint) -> None:
        self.panel.show_hint(hint)
        self.welcome.show_hint(hint)

    def _on_question_asked(self, question: Question) -> None:
        if isinstance(question, PixelSizeQuestion):
            self._on_pixel_size_wanted()
        elif isinstance(question, FolderQuestion):
            folder = dialogs.ask_folder(question.slide, question.reason, self)
            if folder is not None:
                self.controller.use_folder(folder)
        elif isinstance(question, InUseQuestion):
            self.panel.show_in_use(question.sentence)
        elif isinstance(question, LicenceQuestion) and dialogs.ask_licence(question.card, self):
            self.controller.accept_licence(question)

    def _on_dimensions_changed(self, _event: Any = None) -> None:
        """Who was asked to switch to two dimensions has done it."""
        if self.panel.hint.text() == NOT_FLAT and self._viewer.dims.ndisplay == 2:
            self._on_hint_changed(Hint())

    def _on_take_over_clicked(self) -> None:
        if ask_take_over(self.controller.taking_over.occupant(), self):
            self.panel.show_hint(Hint())
            self.controller.taking_over.begin()

    def _on_picture_read(self, name: str, picture: Any) -> None:
        dialogs.show_picture(name, picture, self)

    # ------------------------------------------------------------------ the end

    def end(self) -> None:
        """Stop all work and let go of the viewer."""
        self._keys.release()
        self.attention.close()
        self.docks.close()
        self._viewer.events.theme.disconnect(self._on_theme_changed)
        self._viewer.dims.events.ndisplay.disconnect(self._on_dimensions_changed)
        if self._preferences is not None:
            self._preferences.close()
        self.controller.close()

    def may_close(self) -> bool:
        """Ask before something that learns or a batch is ended."""
        docks = self.docks
        learns = any(
            part.is_running for part in (self.controller.teaching, docks.unlabelled, docks.head_parts.teaching)
        )
        works = docks.batch.is_running
        return not ((learns and not dialogs.ask_leave(self)) or (works and not dialogs.ask_leave_batch(self)))
