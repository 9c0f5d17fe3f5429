"""What is done to nuclei that were selected in a plot: judged, given a class, listed, written to a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from napari_nucleiseg.viewer.editing import LANE as EDIT_LANE
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.long_work import LongWork, StoppedError
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.plot_lanes import WRITING
from napari_nucleiseg.viewer.plots import Plots
from napari_nucleiseg.viewer.project_view import has_class


class PlotActs:
    """Acts on the selection of one viewer's plots; all methods are for the main thread.

    Parameters
    ----------
    plots : Plots
        Whose selection is meant.
    """

    def __init__(self, plots: Plots) -> None:
        self._plots, self._editing, self._jobs = plots, plots.editing, plots.jobs
        self.long_work = LongWork(self._jobs, WRITING)
        """How far writing is, where it takes long."""

    @property
    def can_change(self) -> bool:
        """Whether nuclei are being corrected, and something is selected."""
        return self._editing.project is not None and bool(len(self._plots.selected))

    def approve(self) -> None:
        """Mark the selected nuclei as right, as one step."""
        if self.can_change:
            self._editing.approve(self._ids(), approved=True)

    def reject(self) -> None:
        """Take the selected nuclei away for good, as one step."""
        if self.can_change:
            self._editing.delete(self._ids(), kind="reject")
            self._plots.clear()

    def classify(self, number: int) -> None:
        """Give the selected nuclei a class as one step; 0 takes it, and a number that is no class does nothing."""
        if self.can_change and has_class(self._plots.project, number):
            self._editing.classify(self._ids(), number)

    def show_in_list(self) -> None:
        """Have the selected nuclei shown in the table, and no others."""
        if len(self._plots.selected):
            self._plots.list_wanted.emit(self._plots.selected)

    def export(self, path: str) -> None:
        """Write the selected nuclei with all that is measured of them to a CSV file."""
        project, ids, plots = self._plots.project, self._plots.selected, self._plots
        if project is None or not len(ids) or self.long_work.is_running:
            return

        def note(done: int, total: int) -> None:
            if self.long_work.is_stopped:
                raise StoppedError
            self.long_work.note(title, done, total)

        def work(_cancelled: Cancelled) -> Iterator[int]:
            yield plots.engine.write(project, ids, path, note)

        def on_error(error: BaseException) -> None:
            if isinstance(error, StoppedError):
                plots.said.emit(Hint("Stopped; no table was written."))
            else:
                plots.on_failed(error)

        def on_value(number: int) -> None:
            plots.said.emit(Hint(f"{number:,} nuclei written to {Path(path).name}."))

        title = f"Writing {Path(path).name}"
        self.long_work.begin(title, after_s=0.4)
        # What was drawn last goes with it.
        self._editing.commit("paint")
        self._jobs.enqueue(
            EDIT_LANE, lambda: None, on_value=lambda _none: self.long_work.run(title, work, on_value, on_error)
        )

    def _ids(self) -> list[int]:
        return [int(nucleus) for nucleus in self._plots.selected]
