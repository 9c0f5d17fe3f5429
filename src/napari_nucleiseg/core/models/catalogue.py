"""Every network there is, with what people ask before they choose one; none is built for it, no library imported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING

from napari_nucleiseg.core.errors import NucleiSegError
from napari_nucleiseg.core.models.licences import allows_commercial_use
from napari_nucleiseg.core.models.registry import network_names, network_spec

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.spec import ModelSpec
    from napari_nucleiseg.core.models.weights import ModelCard

PIP_LINE = 'pip install "napari-nucleiseg[zoo]"'
_TABLE = "zoo_table.json"
# It learns from one region, not from pictures with labels.
_FITTED = "s3net"


@dataclass(frozen=True, slots=True)
class Measured:
    """What ``benchmarks/zoo.py`` measured of a network, trained like all others.

    Parameters
    ----------
    network : str
        Registry name.
    parameters : int
        Of the network with its defaults.
    mp_per_s : float
        Megapixels a second of a forward pass on one core.
    aji, pq : float
        Scores on the 14 test images of Kumar (HoVer-Net's split), 0..1.
    steps : int
        Steps of training, from nothing on that split's 16 images.
    seconds : float
        What they took.
    batch : int
        Crops a step.
    device : str
        What they ran on.
    """

    network: str
    parameters: int
    mp_per_s: float
    aji: float
    pq: float
    steps: int
    seconds: float
    batch: int = 4
    device: str = "one core"

    @property
    def training(self) -> str:
        """How it was trained before it was scored."""
        return f"{self.steps:,} steps of {self.batch} crops ({self.seconds:.0f} s on {self.device})"


@dataclass(frozen=True, slots=True)
class NetworkEntry:
    """One network of the catalogue.

    Parameters
    ----------
    spec : ModelSpec
        What it states about itself.
    is_installed : bool
        Whether the package that it needs is here; True where it needs none.
    weights : tuple of str
        Names of the models that are weights of it, and can be used.
    measured : Measured or None
        None where nobody has measured it.
    """

    spec: ModelSpec
    is_installed: bool = True
    weights: tuple[str, ...] = ()
    measured: Measured | None = None

    @property
    def allows_commercial_use(self) -> bool:
        """Whether the licence of its code does; what weights allow depends on what they were trained on."""
        return allows_commercial_use(self.spec.licence)

    @property
    def missing(self) -> str:
        """What to install before it can be built, as a sentence; empty if nothing is missing."""
        return "" if self.is_installed else f"It needs {self.spec.needs}, which is not installed: {PIP_LINE}"

    @property
    def command(self) -> str:
        """How it is trained, as a line for a shell; words in capitals are for the reader to fill in."""
        name = self.spec.name
        if self.spec.attends:
            return f"napari-nucleiseg pretrain scale-attention SLIDES --network {name} --out runs/{name}"
        if name == _FITTED:
            return f"napari-nucleiseg cluster SLIDE --region Y,X,H,W --out runs/{name}"
        where = "FOLDER" if self.spec.dimensions == 3 else "FOLDER,mpp_um=UM"
        return f"napari-nucleiseg train --network {name} --train {where} --out runs/{name}"


def network_entries(cards: Sequence[ModelCard] | None = None) -> tuple[NetworkEntry, ...]:
    """Return all networks that can be built without weights, sorted by name.

    Parameters
    ----------
    cards : sequence of ModelCard, optional
        Models whose networks are looked for; default all that can be used.
    """
    if cards is None:
        from napari_nucleiseg.core.models.weights import available_models

        cards = available_models()
    measured = measured_networks()
    return tuple(
        NetworkEntry(
            spec,
            is_installed(spec.needs),
            tuple(card.name for card in cards if card.network == spec.name),
            measured.get(spec.name),
        )
        for spec in map(network_spec, network_names())
    )


def is_installed(package: str) -> bool:
    """Whether a package of Python is installed, by its name in registries; it is not imported. True for no name."""
    return not package or find_spec(package.replace("-", "_")) is not None


def network_entry(name: str) -> NetworkEntry:
    """Return one network of the catalogue.

    Raises
    ------
    ModelError
        If there is no such network.
    """
    network_spec(name)  # says which there are
    return next(entry for entry in network_entries() if entry.spec.name == name)


def parameters_of(entry: NetworkEntry) -> int | str:
    """Return how many parameters a network has by default; where it cannot be built here, the sentence that says why.

    What was not measured is counted: what the network needs is imported for it, so not for the main thread of a window.
    """
    if entry.measured is not None:
        return entry.measured.parameters
    if entry.missing:
        return entry.missing
    from napari_nucleiseg.core.models.counting import count_parameters

    try:
        return count_parameters(entry.spec.name)
    except NucleiSegError as error:
        return str(error)


@cache
def measured_networks() -> Mapping[str, Measured]:
    """Return what was measured of networks, by name, from the table that is shipped."""
    text = resources.files(__package__).joinpath(_TABLE).read_text(encoding="utf-8")
    known = [item.name for item in fields(Measured)]
    return {row["network"]: Measured(**{key: row[key] for key in known if key in row}) for row in json.loads(text)}
