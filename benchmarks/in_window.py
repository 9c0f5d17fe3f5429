"""What benchmarks in a real window share: the window, and projects in a folder of theirs."""

from pathlib import Path

from napari_nucleiseg.viewer.engine import Engine


class FolderEngine(Engine):
    """The engine with its projects in a temporary folder."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def project_folder(self, slide, results_folder=""):  # noqa: ARG002 - as the engine has it
        return self.folder / f"{Path(slide.path).stem}.nucleiseg"


def shown(engine, session=None):
    """Open a window of 1,400 x 900 px with the Nuclei panel; return viewer and panel."""
    # Some scripts import this before they say which settings napari is to read.
    import napari

    from napari_nucleiseg.state import Session
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.widgets.nuclei import NucleiWidget

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1400, 900)
    panel = NucleiWidget(viewer, Controller(viewer, session or Session(), engine))
    viewer.window.add_dock_widget(panel, name="Nuclei", area="right")
    return viewer, panel
