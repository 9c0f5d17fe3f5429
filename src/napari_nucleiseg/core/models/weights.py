"""Weight files with their cards: shipped, the user's own, or by path; never unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, ModelError, WeightsError
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.spec import ModelSpec, as_trained

if TYPE_CHECKING:
    from torch import Tensor, nn

SHIPPED = "napari_nucleiseg.weights"
SHIPPED_FOLDER = Path(str(resources.files(SHIPPED)))
CARD_KEY = "card"
_LENGTH = 8


class NamedSpec(Protocol):
    """What a card takes from the spec of any network."""

    @property
    def name(self) -> str:
        """Registry name."""

    @property
    def params(self) -> Mapping[str, int | float | str | bool]:
        """Build parameters."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known about a weight file.

    Parameters
    ----------
    name : str
        How users call it.
    network : str
        Registry name of the network it fits.
    params : mapping
        Build parameters of the network.
    title : str
        One line for people.
    decoder, mean, std : str, tuple of float
        Decoder and normalisation of RGB in 0..1 to use; empty means the network's own.
    threshold, min_area_um2 : float
        Defaults of the decode options for these weights.
    licence : str
        SPDX expression of the weights (that of their training data).
    commercial_use : bool
        False asks the user to accept the licence before the weights are used.
    training_data : tuple of str
        Data sets with their licences.
    metrics : mapping
        Scores with what they were measured on.
    parent : str
        Version this one was fine-tuned from.
    created : str
        UTC date and time.
    sha256 : str
        Of the tensors' bytes; filled on saving.
    notes : str
        Anything else.
    taught : mapping
        Of weights that were fine-tuned: slides, regions and settings; empty for all others.
    level_is_set : bool
        Of a network with a level of attention: a person or labels have settled it, so that no slide changes it.
    features_of : str
        Of a transformer of regions: version of the encoder whose features it reads; empty for all others.
    """

    name: str
    network: str
    params: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    title: str = ""
    decoder: str = ""
    threshold: float = 0.5
    min_area_um2: float = 8.0
    licence: str = "unknown"
    commercial_use: bool = False
    training_data: tuple[str, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parent: str = ""
    created: str = ""
    sha256: str = ""
    notes: str = ""
    taught: Mapping[str, Any] = field(default_factory=dict)
    level_is_set: bool = False
    features_of: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def version(self) -> str:
        """``name@`` and the first twelve digits of the content hash: changes with every weight."""
        return f"{self.name}@{self.sha256[:12]}"


@dataclass(eq=False, slots=True)
class LoadedModel:
    """A network with weights, on the CPU, in eval mode, float32.

    Parameters
    ----------
    spec : ModelSpec
        What it needs.
    card : ModelCard
        Of the weight file.
    network : nn.Module
        Takes ``(batch, channels, y, x)``, returns a dict of heads.
    suffix : str
        How it is used otherwise than the weight file says, such as ``+turned``; empty where it is not.
    """

    spec: ModelSpec
    card: ModelCard
    network: nn.Module
    suffix: str = ""

    @property
    def version(self) -> str:
        """Version of the weights, see `ModelCard.version`, and how they are used: what results go by."""
        return self.card.version + self.suffix


def user_folder() -> Path:
    """Folder of the user's own weight files and accepted licences."""
    import platformdirs

    return Path(platformdirs.user_data_dir("napari-nucleiseg"))


def weight_files() -> dict[str, Path]:
    """Return the weight files that can be used by name: shipped ones and the user's."""
    return files_in(user_folder() / "models", SHIPPED_FOLDER)


def files_in(*folders: Path) -> dict[str, Path]:
    """Return the weight files of folders by name; of one name that of the last folder."""
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.safetensors"))}


def available_models() -> tuple[ModelCard, ...]:
    """Return the cards of all weights that can be used by name; unreadable files are left out."""
    return tuple(sorted(cards_of(weight_files()), key=lambda card: (card.name != "nuclei", card.name)))


def cards_of(files: Mapping[str, Path]) -> Iterator[ModelCard]:
    """Iterate over the cards of weight files; unreadable ones are left out."""
    for path in files.values():
        with suppress(WeightsError):
            yield read_card(path)


def find_file(name_or_path: str, files: Mapping[str, Path]) -> Path:
    """Return the weight file of a name, or the path itself.

    Raises
    ------
    ModelError
        If it is neither a path nor a name.
    """
    path = files.get(name_or_path, Path(name_or_path))
    if name_or_path in files or path.suffix == ".safetensors" or path.exists():
        return path
    for path in files.values():  # models are listed by the name on their card, and a file may be called otherwise
        with suppress(WeightsError):
            if read_card(path).name == name_or_path:
                return path
    raise ModelError(f"there is no model called {name_or_path}; there are {', '.join(files) or 'none yet'}")


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Read the card inside a weight file without loading the tensors.

    Raises
    ------
    WeightsError
        If the file is missing, is no safetensors file or has no card.
    """
    from safetensors import SafetensorError, safe_open

    _refuse_pickle(Path(path))
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(f"{path} is not a readable weight file (safetensors is needed): {error}") from error
    if CARD_KEY not in metadata:
        raise WeightsError(
            f"{path} has no card, so it is not known which network it fits. "
            "Use a file that `napari-nucleiseg train` or a model export has written."
        )
    return card_from_json(metadata[CARD_KEY])


def card_from_json(text: str) -> ModelCard:
    """Read a card; unknown fields of newer versions are ignored.

    Raises
    ------
    WeightsError
        If it is not a card.
    """
    known = {item.name for item in fields(ModelCard)}
    try:
        raw = {key: value for key, value in json.loads(text).items() if key in known}
        raw |= {key: tuple(raw.get(key, ())) for key in ("training_data", "mean", "std")}
        raw |= {key: dict(raw.get(key, {})) for key in ("params", "metrics", "taught")}
        return ModelCard(**raw)
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"the card of the weight file is damaged: {error}") from error


def _refuse_pickle(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"there is no weight file {path}")
    with path.open("rb") as file:
        head = file.read(_LENGTH + 1)
    # A weight file starts with the length of its header, which may look like the mark of a pickle by chance.
    is_weights = head[_LENGTH:] == b"{" and int.from_bytes(head[:_LENGTH], "little") < path.stat().st_size
    if not is_weights and (head[:2] == b"PK" or head[:1] == b"\x80"):
        raise WeightsError(
            f"{path} is a pickled checkpoint. Loading it could run foreign code, so it is refused; "
            "ask its maker for a safetensors file."
        )


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a weight file as float32 (integers stay).

    Raises
    ------
    WeightsError
        If it is missing, damaged or a pickle.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _refuse_pickle(Path(path))
    try:
        tensors = load_file(str(path))
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(f"{path} is damaged or not a weight file: {error}") from error
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def load_model(name_or_path: str, *, accept_licence: bool = False, dimensions: int = 2) -> LoadedModel:
    """Load a model by name (shipped or the user's) or from a file.

    Parameters
    ----------
    name_or_path : str
        For example ``nuclei`` or ``/data/mine.safetensors``.
    accept_licence : bool
        Accept a restrictive licence for this call (the GUI asks and remembers, see `remember_acceptance`).
    dimensions : int
        2 for slides and pictures, 3 for z-stacks: one that is not for these is refused.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, a pickle, or its tensors do not fit its network.
    LicenceNotAcceptedError
        If the weights are restricted and the licence was not accepted.
    ModelError
        If the network is unknown, or for other images.
    """
    from napari_nucleiseg.core.models.registry import build_network, network_spec

    card = read_card(path := find_file(name_or_path, weight_files()))
    must_be_accepted(card, accept_licence=accept_licence)
    spec = as_trained(network_spec(card.network, card.params), card.decoder, card.mean, card.std)
    network = build_network(spec)
    fit_tensors(network, load_tensors(path), path=path, network_name=card.network)
    return LoadedModel(spec.for_images_of(dimensions), card, network.eval())


def fit_tensors(network: nn.Module, tensors: Mapping[str, Tensor], *, path: Path, network_name: str) -> None:
    """Give a network the tensors of a file, all of them and no others.

    Raises
    ------
    WeightsError
        If some are missing, foreign or of another size.
    """
    expected = network.state_dict()
    wrong = [key for key in expected if key not in tensors or tensors[key].shape != expected[key].shape]
    surplus = [key for key in tensors if key not in expected]
    if wrong or surplus:
        raise WeightsError(
            f"{path} does not fit the network {network_name}: {len(wrong)} tensors are missing or of another size, "
            f"{len(surplus)} are foreign (first: {(wrong + surplus)[0]}). Use a file made for this network."
        )
    network.load_state_dict(dict(tensors))


def save_model(
    path: str | os.PathLike[str], network: nn.Module, spec: NamedSpec, card: ModelCard, *, half: bool = True
) -> ModelCard:
    """Write weights and card into one safetensors file, whole or not at all; return the finished card.

    Parameters
    ----------
    half : bool
        Store floating-point tensors as float16 (half the size).
    """
    content, card = encode_model(network, spec, card, half=half)
    try:
        write_over(Path(path), content)
    except OSError as error:
        raise WeightsError(f"the weights cannot be written to {path}: {error}") from error
    return card


def encode_model(network: nn.Module, spec: NamedSpec, card: ModelCard, *, half: bool = True) -> tuple[bytes, ModelCard]:
    """Return the content of a weight file and its finished card; see `save_model`."""
    import torch
    from safetensors.torch import save

    tensors: dict[str, Any] = {}
    for key, value in network.state_dict().items():
        shrink = half and value.is_floating_point()
        tensors[key] = value.detach().to("cpu", torch.float16 if shrink else value.dtype).contiguous()
    digest = hashlib.sha256(save(tensors)).hexdigest()
    card = replace(
        card,
        network=spec.name,
        params=dict(spec.params),
        sha256=digest,
        created=card.created or datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    )
    return save(tensors, {CARD_KEY: json.dumps(asdict(card))}), card


def with_card(content: bytes, card: ModelCard) -> bytes:
    """Return the content of a weight file with another card; its tensors stay as they are, byte by byte.

    Parameters
    ----------
    content : bytes
        Of a safetensors file: the length of the header as 8 bytes (little endian), the header as JSON, the tensors.
    card : ModelCard
        The new card.
    """
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    header = json.loads(content[_LENGTH:end])
    header["__metadata__"] = {**header.get("__metadata__", {}), CARD_KEY: json.dumps(asdict(card))}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH)  # the tensors start at a multiple of 8 bytes
    return len(text).to_bytes(_LENGTH, "little") + text + content[end:]


def must_be_accepted(card: ModelCard, *, accept_licence: bool) -> None:
    """Refuse weights whose licence must be accepted and was not, neither now nor before.

    Raises
    ------
    LicenceNotAcceptedError
        With how to accept it.
    """
    if not (card.commercial_use or accept_licence or licence_accepted(card)):
        raise LicenceNotAcceptedError(
            f"the weights {card.name} are under {card.licence} and not for commercial use. "
            "Accept that licence first (in the window, or with --accept-licence)."
        )


def licence_accepted(card: ModelCard) -> bool:
    """Whether the user has accepted the licence of these weights on this machine."""
    try:
        return f"{card.name} {card.licence}" in json.loads(_acceptances().read_text())
    except (OSError, ValueError):
        return False


def remember_acceptance(card: ModelCard) -> None:
    """Remember that the user accepted the licence of these weights."""
    path = _acceptances()
    try:
        accepted = set(json.loads(path.read_text()))
    except (OSError, ValueError):
        accepted = set()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sorted(accepted | {f"{card.name} {card.licence}"})))


def _acceptances() -> Path:
    return user_folder() / "accepted_licences.json"
