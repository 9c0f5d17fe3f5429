"""What benchmarks in a real window share: projects in a folder of theirs."""

from pathlib import Path

from napari_nucleiseg.viewer.engine import Engine


class FolderEngine(Engine):
    """The engine with its projects in a temporary folder."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def project_folder(self, slide, results_folder=""):  # noqa: ARG002 - as the engine has it
        return self.folder / f"{Path(slide.path).stem}.nucleiseg"
