"""TorchScript: one file that PyTorch runs in Python, C++ and Java without this package.

It is made by tracing. Torch advises ``torch.export`` instead; files of that are read by Python's torch alone, while
bioimage.io, deepImageJ and QuPath read this.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import torch

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.networks.exported import example_of, exported_of, facts_as_text
from napari_nucleiseg.core.models.programs import TORCHSCRIPT, Program, open_program, torchscript_allowed
from napari_nucleiseg.core.models.weights import LoadedModel

FACTS = "napari-nucleiseg.json"
_PLACES = ".debug_pkl"


def encode(model: LoadedModel, *, scaled: bool = True) -> bytes:
    """Return a model as TorchScript; what must be known about it is the extra file `FACTS` inside.

    Parameters
    ----------
    model : LoadedModel
        The model.
    scaled : bool
        Whether it takes RGB in 0..255 (of a stack grey values in 0..1), or what is normalised already.

    Raises
    ------
    ExportError
        If its network cannot be traced.
    """
    network = exported_of(model, scaled=scaled)
    example = example_of(model.spec)
    buffer = io.BytesIO()
    try:
        with torchscript_allowed(), torch.no_grad():
            traced = torch.jit.trace(network, example, check_trace=False)
            torch.jit.save(traced, buffer, _extra_files={FACTS: facts_as_text(model)})
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ExportError(f"{model.card.name} cannot be exported as TorchScript: {reason}") from error
    return _without_places(buffer.getvalue())


def _without_places(content: bytes) -> bytes:
    """Return a TorchScript without what says where on whose disk its source code lay; it runs the same."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as former, zipfile.ZipFile(made, "w") as archive:
        for entry in former.infolist():
            if not entry.filename.endswith(_PLACES):
                archive.writestr(zipfile.ZipInfo(entry.filename, entry.date_time), former.read(entry))
    return made.getvalue()


def programs(content: bytes) -> Iterator[tuple[Program, bool]]:
    """Open what `encode` returned; yield the program and whether it takes RGB in 0..255."""
    yield open_program(TORCHSCRIPT, content), True
