"""Packages of this program hold the weight file itself, so that the very same model comes back."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from napari_nucleiseg.core.exchange.networks.exported import Exported
from napari_nucleiseg.core.exchange.networks.package import Package
from napari_nucleiseg.core.models.registry import network_names
from napari_nucleiseg.core.models.spec import dimensions_of
from napari_nucleiseg.core.models.weights import LoadedModel, load_model, read_card

ENDING = ".safetensors"


def own_model(package: Package) -> tuple[LoadedModel, bytes] | None:
    """Return the model whose weight file a package holds, and that file's content.

    None if it holds none, or its network is not known here.

    Raises
    ------
    WeightsError
        If the weight file is damaged or does not fit its network.
    """
    found = [one for one in package.document.get("attachments") or () if str(one.get("source", "")).endswith(ENDING)]
    if not found:
        return None
    content = package.source(found[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{ENDING}"
        path.write_bytes(content)
        network = read_card(path).network
        if network not in network_names():
            return None
        # To look at it is no use of it: whoever uses it later is asked.
        return load_model(str(path), accept_licence=True, dimensions=dimensions_of(network)), content


def own_outputs(model: LoadedModel, values: Tensor) -> Sequence[Tensor]:
    """Return what a model says of what `Exported` takes, not normalised, in the order of its heads."""
    found = Exported(model, scaled=True).eval()(values)
    return (found,) if isinstance(found, Tensor) else found
