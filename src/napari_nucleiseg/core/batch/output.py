"""Names and files of a slide's results."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import suppress
from pathlib import Path

from napari_nucleiseg.core.batch.earlier import EarlierResults
from napari_nucleiseg.core.batch.inputs import Input
from napari_nucleiseg.core.batch.job import SlideAdvanced
from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.formats import FORMATS, export, require_replaceable
from napari_nucleiseg.core.exchange.source import LabelSource


def project_name(entry: Input) -> str:
    """Return the name of a slide's project folder."""
    return f"{entry.stem}.nucleiseg"


def file_name(entry: Input, format_name: str, *, picture: bool) -> str:
    """Return the name of a result: the slide's stem and an ending; a picture's labels are a plain ``.tif``."""
    return entry.stem + (".tif" if picture and format_name == "tif" else FORMATS[format_name].ending)


def require_own(entry: Input, folder: Path, names: Iterable[str], earlier: EarlierResults) -> None:
    """Make sure that results replace nothing but results of earlier runs; to be asked before work begins.

    Parameters
    ----------
    entry : Input
        The slide.
    folder : Path
        Where results are written.
    names : iterable of str
        Of the results, relative to `folder`.
    earlier : EarlierResults
        Of `folder`.

    Raises
    ------
    ExportError
        If something else would be replaced.
    """
    for name in names:
        path = folder / name
        if not path.exists():
            continue
        _require_other(entry, path)
        if not earlier.hold(path):
            raise ExportError(
                f"{path} is there already and is no result of an earlier run, so it is not replaced by results of "
                f"{entry.path}; choose another folder for the results (--out), or move that file away."
            )
        if name.endswith(FORMATS["spatialdata"].ending):
            require_replaceable(path, "spatialdata")  # what others compute is added to such a store


def _require_other(entry: Input, path: Path) -> None:
    same = False
    with suppress(OSError):  # one of them is not there, or is an address
        same = path.samefile(entry.path)
    if same:
        raise ExportError(
            f"{entry.path} would be replaced by its own results, which have the same name; choose another folder for "
            "the results (--out)."
        )


def write_results(
    source: LabelSource, entry: Input, folder: Path, formats: tuple[str, ...], *, picture: bool
) -> Generator[SlideAdvanced, None, tuple[str, ...]]:
    """Write a slide's nuclei in each of `formats`, replacing what is there but for the slide; return the paths.

    Raises
    ------
    ExportError
        If a file cannot be written.
    """
    outputs: list[str] = []
    for name in formats:
        path = folder / file_name(entry, name, picture=picture)
        _require_other(entry, path)
        yield SlideAdvanced(entry.path, f"writing {path.name}", 0, 1)
        export(source, path, name, is_earlier=True)  # see `require_own`
        outputs.append(str(path))
        yield SlideAdvanced(entry.path, f"writing {path.name}", 1, 1)
    return tuple(outputs)
