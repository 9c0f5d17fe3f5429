"""ONNX: one file that many runtimes run, without PyTorch.

It is made by torch's exporter on top of ``torch.export``, which needs onnx and onnxscript (extra ``exchange``).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from napari_nucleiseg.core.errors import ExportError, MissingDependencyError
from napari_nucleiseg.core.exchange.networks.exported import (
    example_of,
    exported_of,
    facts_as_text,
    input_of,
    least_side,
)
from napari_nucleiseg.core.models.programs import ONNX, Program, onnx_modules, open_program
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel

OPSET = 18
FACTS = "napari-nucleiseg"
_SIDES = {"z": "planes", "y": "rows", "x": "columns"}


def encode(model: LoadedModel, *, scaled: bool = True) -> bytes:
    """Return a model as ONNX, any number of pictures of any fitting size; see `torchscript.encode`.

    What must be known about it is the property `FACTS` of the file.

    Raises
    ------
    ExportError
        If its network cannot be exported.
    MissingDependencyError
        If onnx, onnxscript or onnxruntime is not installed.
    """
    onnx = _modules()
    network = exported_of(model, scaled=scaled)
    given = input_of(model.spec)
    example = example_of(model.spec)
    sides = {place: _any_side(_SIDES[axis], model.spec) for place, axis in enumerate(given.axes, start=2)}
    sizes = {0: torch.export.Dim("batch"), **sides}
    try:
        with _quiet(), torch.no_grad():
            made = torch.onnx.export(
                network,
                (example,),
                input_names=[given.name],
                output_names=[head.name for head in model.spec.heads],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=(sizes,),
                verbose=False,
            )
    except (RuntimeError, TypeError, ValueError) as error:
        raise ExportError(
            f"{model.card.name} cannot be exported as ONNX: torch's exporter does not understand its network "
            f"({type(error).__name__}). Choose TorchScript."
        ) from error
    if made is None:
        raise ExportError(f"{model.card.name} cannot be exported as ONNX: this torch {torch.__version__} made nothing")
    document = made.model_proto
    _forget_places(document.graph)
    onnx.helper.set_model_props(document, {FACTS: facts_as_text(model)})
    return bytes(document.SerializeToString())


def _any_side(name: str, spec: ModelSpec) -> Any:
    """Return the length of an axis as the exporter has it: sides that fit differ by whole multiples."""
    step, first = spec.size_multiple, least_side(spec) % spec.size_multiple
    multiple = step * torch.export.Dim(name, min=1)
    return multiple + first if first else multiple


def _forget_places(graph: Any) -> None:
    """Take out of a graph what says where on whose disk its source code lay."""
    parts = (graph.node, graph.value_info, graph.input, graph.output, graph.initializer)
    for part in (graph, *(one for many in parts for one in many)):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def programs(content: bytes) -> Iterator[tuple[Program, bool]]:
    """Open what `encode` returned; yield the program and whether it takes RGB in 0..255."""
    yield open_program(ONNX, content), True


def _modules() -> Any:
    """Return the module ``onnx`` if all that is needed is there."""
    onnx, _ = onnx_modules()
    try:
        import onnxscript  # noqa: F401 - torch uses it
    except ImportError as error:
        raise MissingDependencyError(
            f"ONNX needs {error.name or 'onnxscript'}, which is not installed: pip install 'napari-nucleiseg[exchange]'"
        ) from error
    return onnx


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling of its own affairs, such as that torchvision is not installed."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    former = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(former)
