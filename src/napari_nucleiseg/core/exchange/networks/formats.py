"""The one table of formats that models are exported in; a file is written only when it says what the model says."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.models.files import write_new

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import LoadedModel

# Told of a stage, how many are done, and of how many; what it raises ends the work, and nothing is kept.
OnProgress = Callable[[str, int, int], None]
_PACKAGE = "napari_nucleiseg.core.exchange.networks"


@dataclass(frozen=True, slots=True)
class NetworkFormat:
    """A way to write a model.

    Parameters
    ----------
    title : str
        For people.
    ending : str
        Of the file's name.
    module : str
        Where it is written: its ``encode`` returns the content of the file, its ``programs`` opens that again.
    takes : tuple of str
        Keyword arguments that its ``encode`` knows of those that `export_model` is given.
    """

    title: str
    ending: str
    module: str
    takes: tuple[str, ...] = field(default=())


NETWORK_FORMATS: Mapping[str, NetworkFormat] = {
    "bioimageio": NetworkFormat("bioimage.io model package", ".zip", "bioimageio", ("authors", "with_onnx")),
    "torchscript": NetworkFormat("TorchScript", ".pt", "torchscript"),
    "onnx": NetworkFormat("ONNX", ".onnx", "onnx"),
}


def network_format_of(path: str | os.PathLike[str]) -> str:
    """Return the key of `NETWORK_FORMATS` that a file's name asks for; empty if it asks for none."""
    ending = Path(path).suffix.lower()
    return next((key for key, form in NETWORK_FORMATS.items() if form.ending == ending), "")


def export_model(
    model: LoadedModel,
    path: str | os.PathLike[str],
    format_name: str,
    *,
    authors: Sequence[str] = (),
    with_onnx: bool = False,
    on_progress: OnProgress = lambda _stage, _done, _total: None,
) -> Path:
    """Write a model for other programs, whole or not at all; nothing is overwritten.

    What is written was opened again before and says the same as the model on pictures of several sizes, one or two at
    once, within `exported.TOLERANCE`.

    Parameters
    ----------
    model : LoadedModel
        Its licence was accepted if need be (`load_model` sees to that); its card goes into the file.
    path : path
        File, or folder in which it is named after the model. The format's ending is added where it is missing.
    format_name : str
        Key of `NETWORK_FORMATS`.
    authors : sequence of str
        Of a bioimage.io package: who made the model.
    with_onnx : bool
        Of a bioimage.io package: whether it holds the weights as ONNX, too.
    on_progress : callable
        See `OnProgress`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ExportError
        If there is no such format, the file is there already or cannot be written, or does not say the same.
    MissingDependencyError
        If the format needs a package that is not installed.
    """
    if format_name not in NETWORK_FORMATS:
        raise ExportError(f"there is no format {format_name} for models; choose from {', '.join(NETWORK_FORMATS)}")
    form = NETWORK_FORMATS[format_name]
    target = _target(path, model.card.name, form)
    module = importlib.import_module(f"{_PACKAGE}.{form.module}")
    given: dict[str, Any] = {"authors": tuple(authors), "with_onnx": with_onnx}
    on_progress("making", 0, 2)
    content = module.encode(model, **{name: given[name] for name in form.takes})
    on_progress("comparing", 1, 2)
    check_export(model, content, format_name)
    on_progress("writing", 2, 2)
    try:
        write_new(target, content)
    except FileExistsError as error:
        raise ExportError(_taken(target)) from error
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def check_export(model: LoadedModel, content: bytes, format_name: str) -> None:
    """Open the content of an exported file and compare what it says with the model.

    Raises
    ------
    ExportError
        If it cannot be run or says something else.
    """
    from napari_nucleiseg.core.exchange.networks.exported import must_agree

    form = NETWORK_FORMATS[format_name]
    module = importlib.import_module(f"{_PACKAGE}.{form.module}")
    for program, scaled in module.programs(content):
        must_agree(model, program, scaled=scaled, what=form.title)


def _target(path: str | os.PathLike[str], name: str, form: NetworkFormat) -> Path:
    target = Path(path)
    if target.is_dir():
        target /= name + form.ending
    if target.suffix.lower() != form.ending:
        target = target.with_name(target.name + form.ending)
    if target.exists():  # before minutes of work
        raise ExportError(_taken(target))
    return target


def _taken(target: Path) -> str:
    return f"{target} is there already and stays as it is. Choose another name."
