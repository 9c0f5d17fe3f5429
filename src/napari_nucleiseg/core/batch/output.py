"""Names and files of a slide's results."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from napari_nucleiseg.core.batch.inputs import Input
from napari_nucleiseg.core.batch.job import SlideAdvanced
from napari_nucleiseg.core.exchange.formats import FORMATS, export
from napari_nucleiseg.core.exchange.source import LabelSource


def project_name(entry: Input) -> str:
    """Return the name of a slide's project folder."""
    return f"{entry.stem}.nucleiseg"


def file_name(entry: Input, format_name: str, *, picture: bool) -> str:
    """Return the name of a result: the slide's stem and an ending; a picture's labels are a plain ``.tif``."""
    return entry.stem + (".tif" if picture and format_name == "tif" else FORMATS[format_name].ending)


def write_results(
    source: LabelSource, entry: Input, folder: Path, formats: tuple[str, ...], *, picture: bool
) -> Generator[SlideAdvanced, None, tuple[str, ...]]:
    """Write a slide's nuclei in each of `formats`, replacing what is there; return the paths.

    Raises
    ------
    ExportError
        If a file cannot be written.
    """
    outputs = []
    for name in formats:
        path = folder / file_name(entry, name, picture=picture)
        yield SlideAdvanced(entry.path, f"writing {path.name}", 0, 1)
        export(source, path, name)
        outputs.append(str(path))
        yield SlideAdvanced(entry.path, f"writing {path.name}", 1, 1)
    return tuple(outputs)
