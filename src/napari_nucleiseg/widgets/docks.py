"""The docks beside the panel, each imported and made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QWidget

from napari_nucleiseg.viewer import model_rows
from napari_nucleiseg.viewer.batch import Batch
from napari_nucleiseg.viewer.by_text import ByText
from napari_nucleiseg.viewer.by_text_engine import ByTextEngine
from napari_nucleiseg.viewer.clustering import Clustering
from napari_nucleiseg.viewer.comparing import Comparing
from napari_nucleiseg.viewer.controller import Controller
from napari_nucleiseg.viewer.head_parts import HeadParts
from napari_nucleiseg.viewer.history import History
from napari_nucleiseg.viewer.judging import Judging
from napari_nucleiseg.viewer.like import Like
from napari_nucleiseg.viewer.like_engine import LikeEngine
from napari_nucleiseg.viewer.like_wishes import OFF
from napari_nucleiseg.viewer.measured_nuclei import MeasuredNuclei
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.model_browser import ModelBrowser
from napari_nucleiseg.viewer.next_region import NextRegion
from napari_nucleiseg.viewer.nuclei_list import NucleiList
from napari_nucleiseg.viewer.one_click import OneClick
from napari_nucleiseg.viewer.plot_data import Ids
from napari_nucleiseg.viewer.plots import Plots
from napari_nucleiseg.viewer.regions import Regions
from napari_nucleiseg.viewer.unlabelled import Unlabelled
from napari_nucleiseg.viewer.versions import Versions
from napari_nucleiseg.widgets.dock_frame import DockFrame

if TYPE_CHECKING:
    from napari_nucleiseg.widgets.history_list import HistoryList
    from napari_nucleiseg.widgets.like import LikePanel
    from napari_nucleiseg.widgets.model_browser import ModelBrowserPanel
    from napari_nucleiseg.widgets.nuclei_table import NucleiTable
    from napari_nucleiseg.widgets.teach import TeachPanel
    from napari_nucleiseg.widgets.version_list import VersionList

TABLE, REGIONS, HISTORY, TEACH, VERSIONS = "Nuclei table", "Regions", "History", "Teach", "Versions"
CLUSTER = "Cluster the view"
UNLABELLED = "Train without labels"
HEADS = "Attention heads"
PLOTS = "Measurements"
BATCH = "Batch"
JUDGING = "Against a reference"
LIKE = "Find the like"
BY_TEXT = "By text"
MODELS = "Models"


class Docks:
    """Docks of one viewer, until `close`.

    Parameters
    ----------
    viewer : napari.Viewer
        In whose window they are docked.
    controller : Controller
        What they show and change.
    """

    def __init__(self, viewer: Any, controller: Controller) -> None:
        self._viewer, self._controller = viewer, controller
        self._frames: dict[str, DockFrame] = {}
        self._docks: dict[str, Any] = {}
        # Regions are seen on the slide also while nobody looks at their list.
        self.regions = Regions(controller.editing, controller.display)
        self.comparing = Comparing(controller.teaching, controller.display)
        self.next_region = NextRegion(controller.teaching, self.regions, controller.display)
        self.unlabelled = Unlabelled(controller.teaching, controller.catalogue, controller.display)
        controller.slide_changed.connect(self._on_slide_changed)
        # Its key works while the dock is closed.
        self.next_region.said.connect(self._on_said)
        self.clustering = Clustering(controller)
        self.head_parts = HeadParts(controller)
        self.heads, self.heads_nuclei = self.head_parts.heads, self.head_parts.nuclei
        self.judging = Judging(controller.editing, controller.display)
        self.plots = Plots(controller.editing, controller.display, self.regions)
        self.plots.list_wanted.connect(self._on_list_wanted)
        self.like = Like(controller, LikeEngine(controller.teaching.engine, self.heads.engine))
        self._one_click = OneClick(controller.display.session, self.heads.wishes, self.like.wishes)
        self.by_text = ByText(controller, ByTextEngine())
        self.models = ModelBrowser(controller, self.comparing)
        # It goes on while its dock is closed.
        self.batch = Batch(controller)
        viewer.events.theme.connect(self._on_theme_changed)

    def _on_said(self, hint: Hint) -> None:
        self._controller.hint_changed.emit(hint)

    def show_table(self) -> None:
        """Show the table of nuclei."""
        self._show(TABLE, "bottom", self._make_table)

    def _make_table(self) -> NucleiTable:
        from napari_nucleiseg.widgets.nuclei_table import NucleiTable

        attention = MeasuredNuclei(self.heads, self.heads_nuclei)
        nuclei = NucleiList(self._controller.editing, self._controller.display, attention)
        nuclei.chosen.connect(self.plots.choose)
        self._controller.slide_changed.connect(nuclei.begin_anew)
        return NucleiTable(nuclei)

    def _on_list_wanted(self, ids: Ids) -> None:
        from napari_nucleiseg.widgets.nuclei_table import NucleiTable

        self.show_table()
        table = self.widget(TABLE)
        if isinstance(table, NucleiTable):
            table.nuclei.show_only(ids)

    def show_regions(self) -> None:
        """Show the list of annotated regions."""
        from napari_nucleiseg.widgets.region_list import RegionList

        self._show(REGIONS, "bottom", lambda: RegionList(self.regions))

    def show_history(self) -> None:
        """Show what was done on the slide."""
        self._show(HISTORY, "bottom", self._make_history)

    def _make_history(self) -> HistoryList:
        from napari_nucleiseg.widgets.history_list import HistoryList

        history = History(self._controller.editing, self._controller.display)
        self._controller.slide_changed.connect(history.begin_anew)
        return HistoryList(history)

    def show_teach(self) -> None:
        """Show where a model is taught."""
        self._show(TEACH, "bottom", self._make_teach)

    def _make_teach(self) -> TeachPanel:
        from napari_nucleiseg.widgets.teach import TeachPanel

        panel = TeachPanel(self._controller.teaching, self.comparing, self.next_region)
        panel.versions_button.clicked.connect(self.show_versions)
        return panel

    def show_unlabelled(self) -> None:
        """Show where a model is trained without labels."""
        from napari_nucleiseg.widgets.unlabelled import UnlabelledPanel

        self._show(UNLABELLED, "bottom", lambda: UnlabelledPanel(self.unlabelled, self._viewer.theme))

    def _on_slide_changed(self, _slide: Any) -> None:
        """Another pixel size, too, says whether a slide can be learned from; its nuclei and regions are others then."""
        self.regions.begin_anew()
        self.unlabelled.refresh()
        self.judging.stop()
        self.comparing.stop()
        self.next_region.drop()

    def show_versions(self) -> None:
        """Show the versions of all models."""
        self._show(VERSIONS, "bottom", self._make_versions)

    def _make_versions(self) -> VersionList:
        from napari_nucleiseg.widgets.version_list import VersionList

        controller = self._controller
        return VersionList(Versions(controller.teaching, controller.catalogue, controller.display), self.comparing)

    def show_models(self) -> None:
        """Show all models and networks, and what each is good for."""
        self._show(MODELS, "bottom", self._make_models)

    def _make_models(self) -> ModelBrowserPanel:
        from napari_nucleiseg.widgets.model_browser import ModelBrowserPanel

        panel = ModelBrowserPanel(self.models, self._viewer.theme)
        panel.train_wanted.connect(self._on_train_wanted)
        return panel

    def _on_train_wanted(self, where: str) -> None:
        shown = {
            model_rows.TEACH: self.show_teach,
            model_rows.UNLABELLED: self.show_unlabelled,
            model_rows.CLUSTER: self.show_cluster,
        }
        shown[where]()

    def show_cluster(self) -> None:
        """Show where the view is clustered."""
        from napari_nucleiseg.widgets.cluster import ClusterPanel

        self._show(CLUSTER, "bottom", lambda: ClusterPanel(self.clustering, self._viewer.theme))

    def show_heads(self) -> None:
        """Show what the heads of transformers look at."""
        from napari_nucleiseg.widgets.heads import HeadsPanel

        self._show(HEADS, "bottom", lambda: HeadsPanel(self.head_parts, self._viewer.theme))

    def show_like(self) -> None:
        """Show where the like of a few marked nuclei is found."""
        self._show(LIKE, "bottom", self._make_like)

    def _make_like(self) -> LikePanel:
        from napari_nucleiseg.widgets.like import LikePanel

        panel = LikePanel(self.like, self._viewer.theme)
        panel.list_wanted.connect(self._on_list_wanted)
        return panel

    def show_by_text(self) -> None:
        """Show where nuclei are scored by words."""
        from napari_nucleiseg.widgets.by_text import ByTextPanel

        self._show(BY_TEXT, "bottom", lambda: ByTextPanel(self.by_text, self._viewer.theme))

    def take_like(self, hand: str) -> None:
        """Let a click on the slide mark or choose what is alike, or no longer."""
        self.show_like()
        self.like.wishes.hand = OFF if self.like.wishes.hand == hand else hand

    def show_plots(self) -> None:
        """Show plots of what is measured of nuclei."""
        from napari_nucleiseg.widgets.plots import PlotsPanel

        self._show(PLOTS, "bottom", lambda: PlotsPanel(self.plots, self._viewer.theme))

    def compare_with_reference(self) -> None:
        """Show how the nuclei compare with a reference, and ask with which if none is compared yet."""
        from napari_nucleiseg.widgets.judging import JudgingPanel

        self._show(JUDGING, "bottom", lambda: JudgingPanel(self.judging, self.regions))
        panel = self.widget(JUDGING)
        if isinstance(panel, JudgingPanel) and not (self.judging.is_running or self.judging.is_shown):
            panel.ask()

    def show_batch(self) -> None:
        """Show where many slides are worked through unattended, beside the panel."""
        from napari_nucleiseg.widgets.batch import BatchPanel

        self._show(BATCH, "right", lambda: BatchPanel(self.batch, self._viewer.theme))

    def _on_theme_changed(self, _event: Any = None) -> None:
        for frame in self._frames.values():
            if hasattr(frame.panel, "set_theme"):
                frame.panel.set_theme(self._viewer.theme)

    def widget(self, name: str) -> QWidget | None:
        """Return what a dock shows; None as long as nobody has asked for it."""
        frame = self._frames.get(name)
        return None if frame is None else frame.panel

    def frame(self, name: str) -> DockFrame | None:
        """Return what napari has in that dock, around what it shows; None as long as nobody has asked for it."""
        return self._frames.get(name)

    def _show(self, name: str, area: str, make: Callable[[], QWidget]) -> None:
        frame = self._frames.get(name)
        if frame is None:
            frame = self._frames[name] = DockFrame(make())
            if hasattr(frame.panel, "leave_dock"):
                frame.left.connect(frame.panel.leave_dock)
        if frame.parent() is None:  # new, or its dock was closed
            self._docks[name] = self._viewer.window.add_dock_widget(frame, name=name, area=area, tabify=True)
        self._docks[name].show()
        self._docks[name].raise_()

    def close(self) -> None:
        """Take all of them away."""
        self.regions.close()
        self.comparing.close()
        self.judging.close()
        self.next_region.close()
        self.plots.close()
        self.clustering.close()
        self.like.end()
        self.by_text.close()
        self.models.close()
        self.models.exchange.stop()
        self.head_parts.close()
        self._viewer.events.theme.disconnect(self._on_theme_changed)
        self.unlabelled.close()
        self.batch.close()
        for frame in self._frames.values():
            frame.hide()
            if frame.parent() is not None:
                self._viewer.window.remove_dock_widget(frame)
            frame.deleteLater()
        self._frames.clear()
        self._docks.clear()
