"""bioimage.io model package: one zip whose ``rdf.yaml`` says all that other programs must know, format version 0.5.

Besides TorchScript (and ONNX if wanted) it holds the weight file itself, so that this program gets the same model back.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.networks import onnx, torchscript
from napari_nucleiseg.core.exchange.networks.exported import (
    GREY,
    RGB,
    Exported,
    drawn_stack,
    exported_of,
    facts_of,
    input_of,
    least_side,
    side_near,
    tissue,
)
from napari_nucleiseg.core.exchange.networks.presentation import cover_of, readme_of
from napari_nucleiseg.core.models.licences import is_single
from napari_nucleiseg.core.models.programs import KINDS, ONNX, TORCHSCRIPT, Program, open_program
from napari_nucleiseg.core.models.spec import HeadSpec
from napari_nucleiseg.core.models.weights import LoadedModel, encode_model

FORMAT_VERSION = "0.5.4"
DOCUMENT = "rdf.yaml"
CONFIG = "napari-nucleiseg"
_FILES = {TORCHSCRIPT: "weights.pt", ONNX: "weights.onnx"}
_TEST_PX = 256
_LONGEST_NAME, _LONGEST_DESCRIPTION, _LONGEST_TITLE = 64, 512, 128
_TAGS = {2: ("2d", "histology"), 3: ("3d", "fluorescence-light-microscopy")}
_DATE = (1980, 1, 1, 0, 0, 0)
_ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{4,5})")


def encode(model: LoadedModel, *, authors: Sequence[str] = (), with_onnx: bool = False) -> bytes:
    """Return a model as a package.

    Parameters
    ----------
    model : LoadedModel
        The model.
    authors : sequence of str
        Who made it; empty says nothing about that.
    with_onnx : bool
        Whether it holds the weights as ONNX, too.

    Raises
    ------
    ExportError
        If its network cannot be exported.
    MissingDependencyError
        If ONNX is wanted and not installed.
    """
    network = exported_of(model, scaled=False)
    weights = {TORCHSCRIPT: torchscript.encode(model, scaled=False)}
    if with_onnx:
        weights[ONNX] = onnx.encode(model, scaled=False)
    test = _test_of(model)
    outputs = _run(network, test, model)
    names = tensor_names(model.spec.heads)
    files = {_FILES[kind]: content for kind, content in weights.items()}
    files["test_input.npy"] = _npy(test)
    files |= {f"test_output_{name}.npy": _npy(found) for name, found in zip(names, outputs, strict=True)}
    files[f"{_file_name(model.card.name)}.safetensors"] = _weight_file(model)
    files["cover.png"] = cover_of(model, test, outputs)
    files["README.md"] = readme_of(model).encode()
    if not is_single(model.card.licence):
        files["LICENCE.txt"] = f"{model.card.licence}\n".encode()
    document = _document(model, files, names=names, kinds=tuple(weights), authors=authors)
    return _zipped({DOCUMENT: document, **files})


def programs(content: bytes) -> Iterator[tuple[Program, bool]]:
    """Open the weights inside what `encode` returned; they take what is normalised already."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for kind in KINDS:
            if _FILES[kind] in archive.namelist():
                yield open_program(kind, archive.read(_FILES[kind])), False


def tensor_names(heads: Sequence[HeadSpec]) -> list[str]:
    """Return the names of heads as packages allow them: small letters, digits, underscores."""
    names: list[str] = []
    for head in heads:
        name = re.sub(r"\W+", "_", head.name.lower(), flags=re.ASCII).strip("_")
        name = name if name[:1].isalpha() and name not in (RGB.name, GREY.name) else f"map_{name}"
        names.append(f"{name}_{len(names)}" if name in names else name)
    return names


def _test_of(model: LoadedModel) -> NDArray[Any]:
    """Return a drawn picture, uint8 ``(1, 3, y, x)``, or of a stack float32 ``(1, 1, z, y, x)``."""
    if model.spec.dimensions == 3:
        side = least_side(model.spec)
        return drawn_stack(side, side, side)[None, None]
    side = side_near(model.spec, _TEST_PX)
    return np.ascontiguousarray(tissue(side, side, model.spec.mpp_um).transpose(2, 0, 1)[None])


@torch.inference_mode()
def _run(network: Exported, test: NDArray[Any], model: LoadedModel) -> list[NDArray[np.float32]]:
    x = torch.from_numpy(test.astype(np.float32))
    found = network((x - network.mean) / network.std)
    maps = (found,) if isinstance(found, Tensor) else found
    if any(not bool(torch.isfinite(one).all()) for one in maps):
        raise ExportError(f"{model.card.name} says what are no numbers on a drawn picture; it is not exported")
    return [one.numpy() for one in maps]


def _weight_file(model: LoadedModel) -> bytes:
    """Return the weight file of a model: the very same one if it is known by its digest, be it of half precision."""
    content, card = encode_model(model.network, model.spec, model.card)
    same = card.sha256 == model.card.sha256
    return content if same else encode_model(model.network, model.spec, model.card, half=False)[0]


def _npy(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "model"


def _zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            # Numbers of a network cannot be made smaller, all else can.
            packed = zipfile.ZIP_STORED if name.endswith((".pt", ".onnx", ".safetensors")) else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, _DATE), content, packed)
    return buffer.getvalue()


def _document(
    model: LoadedModel,
    files: Mapping[str, bytes],
    *,
    names: Sequence[str],
    kinds: Sequence[str],
    authors: Sequence[str],
) -> bytes:
    import yaml

    card, spec = model.card, model.spec
    name = re.sub(r"[^A-Za-z0-9_+\-() ]+", " ", card.name)
    document: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": f"Nuclei - {' '.join(name.split())}"[:_LONGEST_NAME].strip(),
        "description": f"{card.title or spec.title}. Made with napari-nucleiseg."[:_LONGEST_DESCRIPTION],
        "authors": [{"name": re.sub(r"[/\\]", "-", author)} for author in authors],
        "license": card.licence if is_single(card.licence) else _source("LICENCE.txt", files),
        "cite": _citations(spec.paper),
        "tags": [*_TAGS[spec.dimensions], "nuclei", "nucleus", "segmentation", "instance-segmentation", "pytorch"],
        "documentation": _source("README.md", files),
        "covers": [_source("cover.png", files)],
        "attachments": [_source(name, files) for name in files if name.endswith(".safetensors")],
        "inputs": [_input(model, files)],
        "outputs": [_output(model, head, name, files) for head, name in zip(spec.heads, names, strict=True)],
        "weights": {kind: _weights(kind, files) for kind in kinds},
        "config": {CONFIG: {"outputs_are_heads": list(names), **facts_of(model)}},
    }
    if card.created:
        document["timestamp"] = card.created.replace(" ", "T") + ":00+00:00"
    left_out = [key for key, value in document.items() if value == []]
    for key in left_out:
        del document[key]
    return bytes(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120).encode())


def _source(name: str, files: Mapping[str, bytes]) -> dict[str, str]:
    return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}


def _citations(paper: str) -> list[dict[str, str]]:
    """Return the papers that can be found by an arXiv number, which is what packages ask for."""
    found = ((part.strip(), _ARXIV.search(part)) for part in paper.split(";"))
    return [{"text": text, "url": f"https://arxiv.org/abs/{number[1]}"} for text, number in found if number]


def _weights(kind: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    entry: dict[str, Any] = _source(_FILES[kind], files)
    if kind == TORCHSCRIPT:
        return {**entry, "pytorch_version": torch.__version__.partition("+")[0]}
    return {**entry, "opset_version": onnx.OPSET, "parent": TORCHSCRIPT}


def _input(model: LoadedModel, files: Mapping[str, bytes]) -> dict[str, Any]:
    spec = model.spec
    given = input_of(spec)
    size = {"min": least_side(spec), "step": spec.size_multiple}
    mean, std = ([given.most * one for one in values[: len(given.channels)]] for values in (spec.mean, spec.std))
    normalising = {"axis": "channel", "mean": mean, "std": std}
    seen = "H&E, RGB" if given is RGB else "one channel, dark to bright stretched to 0..1"
    kind, most = ("uint8", 255) if given is RGB else ("float32", given.most)
    return {
        "id": given.name,
        "description": f"{seen}, at {spec.mpp_um:g} micrometres per pixel",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": list(given.channels)},
            *({**_space(axis, spec.mpp_um), "size": dict(size)} for axis in given.axes),
        ],
        "test_tensor": _source("test_input.npy", files),
        "data": {"type": kind, "range": [0, most]},
        # Readers make what comes out of the type of what went in, unless the last step says otherwise.
        "preprocessing": [
            {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
            {"id": "fixed_zero_mean_unit_variance", "kwargs": normalising},
            {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
        ],
    }


def _output(model: LoadedModel, head: HeadSpec, name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    spec = model.spec
    channels = [name] if head.channels == 1 else [f"{name}_{number}" for number in range(head.channels)]
    given = input_of(spec)
    size = {"tensor_id": given.name, "offset": -2 * spec.output_margin_px}
    halo = {"halo": spec.halo_px} if spec.halo_px else {}
    probability = head.activation == "sigmoid"
    return {
        "id": name,
        "description": (head.title or head.name)[:_LONGEST_TITLE],
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": channels},
            *({**_space(axis, spec.mpp_um), "size": {**size, "axis_id": axis}, **halo} for axis in given.axes),
        ],
        "test_tensor": _source(f"test_output_{name}.npy", files),
        "data": {"type": "float32", **({"range": [0.0, 1.0]} if probability else {})},
    }


def _space(axis: str, mpp_um: float) -> dict[str, Any]:
    return {"type": "space", "id": axis, "unit": "micrometer", "scale": float(mpp_um)}
