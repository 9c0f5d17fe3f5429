"""Networks that come as one file of instructions and numbers: TorchScript and ONNX, opened with care.

Neither is a pickle of Python's: nothing in them is Python. TorchScript is a small language of its own, though, two of
whose words read and write files; a program with such words is refused before it is opened.
"""

from __future__ import annotations

import importlib
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from napari_nucleiseg.core.errors import MissingDependencyError, WeightsError

TORCHSCRIPT, ONNX = KINDS = ("torchscript", "onnx")
# From a batch, shape (batch, ...) as the program wants it, to its outputs in their order.
Program = Callable[[Tensor], tuple[Tensor, ...]]

_CALLS_OUT = re.compile(r"\b(save|from_file|rpc_async|rpc_sync|rpc_remote)\b")
# Not the names of modules that classes come from, such as ``torchvision.ops.misc``.
_OPERATORS = re.compile(r"(?<![.\w])ops\s*\.\s*(\w+)")
_KNOWN_OPERATORS = frozenset({"aten", "prim", "quantized", "_quantized", "mkldnn", "torchvision"})
_FORBIDDEN = frozenset({"aten::save", "aten::from_file", "prim::rpc_async", "prim::rpc_sync", "prim::rpc_remote"})
_MOST_CODE_BYTES = 64 * 1024**2
_EXTRA = "pip install 'napari-nucleiseg[exchange]'"


def open_program(kind: str, content: bytes, device: torch.device | str = "cpu") -> Program:
    """Open a program.

    Parameters
    ----------
    kind : {"torchscript", "onnx"}
        What it is.
    content : bytes
        Of the whole file.
    device : device
        Where a TorchScript runs; ONNX runs on the CPU.

    Returns
    -------
    callable
        Its outputs lie where its input does.

    Raises
    ------
    WeightsError
        If it is damaged, needs other files, or would reach for them.
    MissingDependencyError
        If it is ONNX and what runs that is not installed.
    """
    if kind not in KINDS:
        raise WeightsError(f"a network that is {kind} cannot be opened; it must be one of {', '.join(KINDS)}")
    return _open_torchscript(content, device) if kind == TORCHSCRIPT else _open_onnx(content)


@contextmanager
def torchscript_allowed() -> Iterator[None]:
    """Keep torch from advising against TorchScript for the length of the block.

    What follows it in torch is read by no other program yet, while bioimage.io, deepImageJ and others read this.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined] # public, by its page
        yield


def _open_torchscript(content: bytes, device: torch.device | str) -> Program:
    _refuse_calling_out(content)
    try:
        with torchscript_allowed():
            module = torch.jit.load(io.BytesIO(content), map_location=device).eval()
        graph = module.inlined_graph
    except (RuntimeError, ValueError, OSError, AttributeError) as error:
        raise WeightsError(f"the TorchScript is damaged or none: {_first_line(error)}") from error
    if forbidden := _FORBIDDEN & set(_kinds_in(graph)):
        raise WeightsError(_calls_out(min(forbidden)))

    def run(x: Tensor) -> tuple[Tensor, ...]:
        return _as_tuple(module(x))

    return run


def _refuse_calling_out(content: bytes) -> None:
    """Refuse a TorchScript whose code names what reads or writes files or speaks to other machines."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            code = [entry for entry in archive.infolist() if "code/" in entry.filename and entry.file_size]
            texts = [entry for entry in code if not entry.filename.endswith(".debug_pkl")]
            if not texts or sum(entry.file_size for entry in texts) > _MOST_CODE_BYTES:
                raise WeightsError("the TorchScript holds no code, or far too much of it, and is not opened")
            found = [archive.read(entry).decode("utf-8") for entry in texts]
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"the TorchScript is damaged or none: {_first_line(error)}") from error
    for text in found:
        if word := _CALLS_OUT.search(text):
            raise WeightsError(_calls_out(word[1]))
        if foreign := set(_OPERATORS.findall(text)) - _KNOWN_OPERATORS:
            raise WeightsError(
                f"the TorchScript needs operators called {min(foreign)}, which are no part of PyTorch; ask its maker "
                "for one that does without"
            )


def _calls_out(word: str) -> str:
    return (
        f"the TorchScript can reach files or other machines (it says {word!r}), which no network needs; it is "
        "refused. Ask its maker for one that only computes."
    )


def _kinds_in(graph: Any) -> Iterator[str]:
    """Iterate over the operators of a graph, those of its blocks and of graphs within it included."""
    for node in graph.nodes():
        yield node.kind()
        for block in node.blocks():
            yield from _kinds_in(block)
        for name in node.attributeNames():
            if node.kindOf(name) == "g":
                yield from _kinds_in(node.g(name))


def _as_tuple(found: Any) -> tuple[Tensor, ...]:
    """Return the outputs of a program, which may come bare, in a row or by name."""
    values = found.values() if isinstance(found, Mapping) else found if isinstance(found, tuple | list) else (found,)
    outputs = tuple(values)
    if not outputs or not all(isinstance(value, Tensor) for value in outputs):
        raise WeightsError("the network returns something else than maps; it cannot be used")
    return outputs


def onnx_modules() -> tuple[Any, Any]:
    """Return the modules ``onnx`` and ``onnxruntime``.

    Raises
    ------
    MissingDependencyError
        If one of them is not installed.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(f"ONNX needs {error.name or 'onnx'}, which is not installed: {_EXTRA}") from error
    return onnx, onnxruntime


def _open_onnx(content: bytes) -> Program:
    onnx, runtime = onnx_modules()
    damage = importlib.import_module("google.protobuf.message").DecodeError  # comes with onnx
    try:
        model = onnx.load_model_from_string(content)
    except (damage, ValueError, TypeError) as error:
        raise WeightsError(f"the ONNX file is damaged or none: {_first_line(error)}") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors_in(model)):
        raise WeightsError("the ONNX file keeps its numbers in other files; ask its maker for one that holds all")
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3
    failures = tuple(value for value in vars(runtime.capi.onnxruntime_pybind11_state).values() if _is_failure(value))
    try:
        session = runtime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    except (*failures, RuntimeError, ValueError) as error:
        raise WeightsError(f"the ONNX file cannot be run here: {_first_line(error)}") from error
    (name,) = [one.name for one in session.get_inputs()][:1] or ("",)

    def run(x: Tensor) -> tuple[Tensor, ...]:
        try:
            found = session.run(None, {name: x.detach().cpu().numpy()})
        except (*failures, ValueError) as error:
            raise RuntimeError(_first_line(error)) from error
        return _as_tuple([torch.from_numpy(value.copy()).to(x.device) for value in found])

    return run


def _is_failure(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def _tensors_in(message: Any) -> Iterator[Any]:
    """Iterate over all tensors anywhere in an ONNX message."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if hasattr(value, "__len__") else (value,):
                if hasattr(part, "DESCRIPTOR"):
                    yield from _tensors_in(part)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
