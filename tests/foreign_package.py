"""A bioimage.io package as others make them: a tiny network that calls dark pixels nuclei, and their rims boundary."""

import copy
import hashlib
import io
import zipfile

import numpy as np
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from dark_model import disc_picture
from napari_nucleiseg.core.models.programs import torchscript_allowed

SIDE = 64
MPP_UM = 0.5


class Rims(nn.Module):
    """From RGB in 0..1 to two probabilities, ``(batch, 2, y, x)``: inside of a dark disc or its rim; its rim."""

    def forward(self, x):
        dark = torch.sigmoid((0.55 - x.mean(dim=1, keepdim=True)) * 24)
        deep = -F.max_pool2d(-dark, 3, stride=1, padding=1)
        return torch.cat([dark, dark - deep], dim=1)


def torchscript_of(network, example=None):
    """A network as TorchScript."""
    buffer = io.BytesIO()
    with torchscript_allowed():
        x = torch.zeros(1, 3, SIDE, SIDE) if example is None else example
        torch.jit.save(torch.jit.trace(network, x, check_trace=False), buffer)
    return buffer.getvalue()


def scripted(network):
    """A network as TorchScript, with all that the language can say."""
    buffer = io.BytesIO()
    with torchscript_allowed():
        torch.jit.save(torch.jit.script(network), buffer)
    return buffer.getvalue()


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def space(axis, size, **more):
    return {"type": "space", "id": axis, "unit": "micrometer", "scale": MPP_UM, "size": size, **more}


def parts(network=None, *, kind="torchscript", weights=None):
    """The document, and the other files by name."""
    network = Rims() if network is None else network
    picture = np.ascontiguousarray(disc_picture((SIDE, SIDE)).transpose(2, 0, 1)[None])
    with torch.no_grad():
        said = network(torch.from_numpy(picture).float() / 255).numpy()
    name = {"torchscript": "weights.pt", "onnx": "weights.onnx"}[kind]
    files = {
        "in.npy": npy(picture),
        "out.npy": npy(said),
        name: torchscript_of(network) if weights is None else weights,
    }
    reference = {axis: {"tensor_id": "raw", "axis_id": axis} for axis in "yx"}
    document = {
        "format_version": "0.5.3",
        "type": "model",
        "name": "Dark Discs",
        "description": "Finds dark discs.",
        "license": "MIT",
        "authors": [{"name": "Ada"}],
        "cite": [{"text": "Discs, 1843", "doi": "10.1000/182"}],
        "inputs": [
            {
                "id": "raw",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["r", "g", "b"]},
                    *(space(axis, {"min": 32, "step": 16}) for axis in "yx"),
                ],
                "test_tensor": {"source": "in.npy"},
                "data": {"type": "uint8"},
                "preprocessing": [
                    {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
                    {"id": "scale_linear", "kwargs": {"gain": 1 / 255}},
                ],
            }
        ],
        "outputs": [
            {
                "id": "maps",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["foreground", "boundary"]},
                    *(space(axis, reference[axis], halo=8) for axis in "yx"),
                ],
                "test_tensor": {"source": "out.npy"},
            }
        ],
        "weights": {kind: {"source": name}},
    }
    return copy.deepcopy(document), files


def written(path, document, files):
    """A zip of a package; what the document names is told with its digest."""
    entries = [
        *(tensor["test_tensor"] for tensor in (*document["inputs"], *document["outputs"])),
        *document["weights"].values(),
    ]
    for entry in entries:
        if entry.get("source") in files:
            entry.setdefault("sha256", hashlib.sha256(files[entry["source"]]).hexdigest())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rdf.yaml", yaml.safe_dump(document, sort_keys=False))
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def foreign_zip(path):
    """The package as it is."""
    return written(path, *parts())
