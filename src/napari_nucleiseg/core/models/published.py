"""Published transformers as encoders of this program: their authors' checkpoints read safely and converted once.

Only tensors and plain values are unpickled. What is kept is a weight file with a card, like all others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, ModelError, WeightsError
from napari_nucleiseg.core.models.checkpoints import read_checkpoint
from napari_nucleiseg.core.models.download import Progress, Source, download
from napari_nucleiseg.core.models.encoders import build_encoder, encoder_files, own_encoders_folder
from napari_nucleiseg.core.models.files import sweep, write_new, write_over
from napari_nucleiseg.core.models.hipt import PAPER, PATCH_ENCODER, REGION_ENCODER
from napari_nucleiseg.core.models.timm_encoder import TimmTransformer, adapted
from napari_nucleiseg.core.models.weights import (
    ModelCard,
    encode_model,
    fit_tensors,
    licence_accepted,
    load_tensors,
    read_card,
    remember_acceptance,
)

_ENDING = ".safetensors"
_NAME = re.compile(r"\w[\w-]{0,63}")
_WRAPPERS = ("module.", "backbone.")
_PIXELS, _FEATURES = "patch_embed.proj.weight", "phi.0.weight"
_HIPT = "https://media.githubusercontent.com/media/mahmoodlab/HIPT/master/HIPT_4K/Checkpoints/"
_HIPT_LICENCE = "Apache-2.0 WITH Commons-Clause (non-commercial, academic)"
_HIPT_TERMS = (
    "The authors give them for non-commercial academic use, and the Commons Clause forbids to sell them or a service "
    "whose value comes from them."
)
_HIPT_DATA = ("TCGA: 10,678 slides of 33 kinds of cancer, patches at 20x (NIH GDC)",)


@dataclass(frozen=True, slots=True)
class Published:
    """An encoder whose weights its authors publish.

    Parameters
    ----------
    name : str
        Registry name of the encoder, and how its weights are called.
    title : str
        One line for people.
    source : Source
        Their checkpoint.
    licence, terms : str
        Name of the licence; what it asks, as a sentence.
    training_data : tuple of str
        What it was trained on.
    paper : str
        Source of the method.
    reads : str
        Name of the published encoder whose features it reads; empty for one on pixels.
    """

    name: str
    title: str
    source: Source
    licence: str
    terms: str
    training_data: tuple[str, ...]
    paper: str
    reads: str = ""

    def card(self) -> ModelCard:
        """Return what is known about the weights before they are here."""
        return ModelCard(
            name=self.name,
            network=self.name,
            title=self.title,
            licence=self.licence,
            commercial_use=False,
            training_data=self.training_data,
            notes=f"{self.terms} Paper: {self.paper}. Converted from {self.source.url}",
        )


PUBLISHED: Mapping[str, Published] = {
    PATCH_ENCODER: Published(
        PATCH_ENCODER,
        "HIPT's transformer of patches, trained by DINO on TCGA",
        Source("the weights of HIPT", _HIPT + "vit256_small_dino.pth", "6960cd5a8657", "89e24", 704_238_867),
        _HIPT_LICENCE,
        _HIPT_TERMS,
        _HIPT_DATA,
        PAPER,
    ),
    REGION_ENCODER: Published(
        REGION_ENCODER,
        "HIPT's transformer of regions, trained by DINO on TCGA",
        Source("the weights of HIPT", _HIPT + "vit4k_xs_dino.pth", "2b0bd9e9a602", "2b7b", 395_710_078),
        _HIPT_LICENCE,
        _HIPT_TERMS,
        _HIPT_DATA,
        PAPER,
        reads=PATCH_ENCODER,
    ),
}


def published_called(name: str) -> Published:
    """Return the published encoder of that name.

    Raises
    ------
    ModelError
        If there is none.
    """
    if name not in PUBLISHED:
        raise ModelError(f"nobody publishes an encoder called {name}; there are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def read_teacher(path: str | Path) -> dict[str, Tensor]:
    """Read the teacher of a DINO checkpoint, or a file of named tensors; the names are those of the transformer.

    Parameters
    ----------
    path : path-like
        A ``.pth`` file as DINO writes it (Caron et al., ICCV 2021), ``{student, teacher, optimizer, epoch, args,
        dino_loss}``, or one with tensors alone, or a safetensors file.

    Raises
    ------
    WeightsError
        If it is missing, damaged, holds code, or no teacher.
    """
    path = Path(path)
    found = load_tensors(path) if path.suffix == _ENDING else read_checkpoint(path)
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path} holds no named tensors; take the checkpoint that DINO writes.")
    if "teacher" not in found and "student" in found:
        raise WeightsError(
            f"{path} holds a student without its teacher, and it is the teacher that is used. Take the checkpoint that "
            "DINO writes while it trains, which holds both."
        )
    teacher = found.get("teacher", found)
    if not isinstance(teacher, Mapping):
        raise WeightsError(f"{path} holds no named tensors as its teacher; take the checkpoint that DINO writes.")
    tensors = {_bare(str(key)): value for key, value in teacher.items() if isinstance(value, Tensor)}
    tensors = {key: value.float() for key, value in tensors.items() if not key.startswith("head.")}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors of a transformer; take the checkpoint that DINO writes.")
    return tensors


def _bare(key: str) -> str:
    for wrapper in _WRAPPERS:
        key = key.removeprefix(wrapper)
    return key


def convert(
    path: str | Path,
    network: str,
    *,
    name: str = "",
    reads: str = "",
    params: Mapping[str, int | float | str | bool] | None = None,
) -> ModelCard:
    """Make a weight file of a DINO checkpoint in the folder of the user's encoders, whole or not at all.

    A file that is the published one, by size and digest, gets the name and the licence of that; of any other nothing
    is known but its tensors.

    Parameters
    ----------
    path : path-like
        The checkpoint, see `read_teacher`.
    network : str
        Name of the encoder it fits.
    name : str
        How the weights are called; default the published name, or that of the file.
    reads : str
        Of a transformer of regions: name of the encoder whose features it reads; default that of the published one.
    params : mapping, optional
        Build parameters of an encoder of another size than the published one.

    Returns
    -------
    ModelCard
        Of the weight file.

    Raises
    ------
    WeightsError
        If the checkpoint cannot be read, does not fit the encoder exactly, or the weight file cannot be written.
    ModelError
        If the name is taken or cannot be one, or there is no such encoder.
    """
    path = Path(path)
    spec, built = build_encoder(network, params)
    tensors = read_teacher(path)
    if isinstance(built, TimmTransformer):
        tensors = adapted(built, tensors)
    _must_be(tensors, built.state_dict(), path, network)
    fit_tensors(built, tensors, path=path, network_name=network)
    card, read = _card_of(path, network, name)
    if reads or read:
        card = replace(card, features_of=_version_of(reads or read, network))
    content, card = encode_model(built, spec, card, half=False)
    return _kept(content, card)


def get_published(
    name: str, *, accept_licence: bool = False, folder: str | Path | None = None, progress: Progress | None = None
) -> ModelCard:
    """Download a published encoder, check it, convert it; nothing is done if it is here already.

    Parameters
    ----------
    name : str
        One of `PUBLISHED`.
    accept_licence : bool
        Whether the user accepts its licence, which is remembered.
    folder : path-like, optional
        Where the checkpoint is kept until it is converted; default the package's cache folder.
    progress : callable, optional
        Told how many bytes are there, of how many.

    Raises
    ------
    LicenceNotAcceptedError
        If the licence was accepted neither now nor before; nothing is downloaded then.
    WeightsError
        If it cannot be downloaded, is not the published file, or cannot be kept.
    ModelError
        If nobody publishes one of that name, or the encoder whose features it reads is missing.
    """
    published = published_called(name)
    card = published.card()
    if not (accept_licence or licence_accepted(card)):
        raise LicenceNotAcceptedError(
            f"the weights {card.name} are under {card.licence}. {published.terms} "
            "Accept that licence first (in the window, or with --accept-licence)."
        )
    if accept_licence:
        remember_acceptance(card)
    if (here := _present(own_encoders_folder() / f"{name}{_ENDING}")) is not None:
        return here
    if published.reads:
        _version_of(published.reads, name)
    path = download(published.source, folder, progress)
    card = convert(path, name)
    path.unlink(missing_ok=True)  # its optimizer and its student are of no use here
    return card


def _card_of(path: Path, network: str, name: str) -> tuple[ModelCard, str]:
    """Return what is known about a checkpoint, and the name of the encoder whose features it reads."""
    published = PUBLISHED.get(network)
    if published is not None and published.source.is_it(path):
        card, reads = published.card(), published.reads
        card = replace(card, name=name or card.name)
    else:
        name = name or re.sub(r"[^\w-]+", "-", path.stem).strip("-")
        card, reads = ModelCard(name, network, title=f"Made of {path.name}"), ""
        if name in PUBLISHED:
            raise ModelError(
                f"{path} is not the file that its authors published as {name}; give it another name (--name)."
            )
    if not _NAME.fullmatch(card.name):
        raise ModelError(
            f"{card.name!r} cannot be the name of an encoder. Take letters, digits, - and _, such as ours-2 (--name)."
        )
    return card, reads


def _version_of(reads: str, network: str) -> str:
    files = encoder_files()
    if reads not in files:
        how = f": napari-nucleiseg models get {reads}" if reads in PUBLISHED else ""
        raise ModelError(f"{network} reads the features of {reads}, which is not here. Get that first{how}")
    return read_card(files[reads]).version


def _must_be(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, network: str) -> None:
    """Refuse what is a transformer of the other kind, or of other patches, in words that say so."""
    for mark, wanted, kind in ((_PIXELS, _FEATURES, "of patches"), (_FEATURES, _PIXELS, "of regions")):
        if mark in tensors and wanted in expected:
            fitting = ", ".join(one.name for one in PUBLISHED.values() if bool(one.reads) == (mark == _FEATURES))
            raise WeightsError(f"{path} holds a transformer {kind}, and {network} is none; convert it as {fitting}.")
    if _PIXELS in tensors and _PIXELS in expected and tensors[_PIXELS].ndim == expected[_PIXELS].ndim:
        side, wanted_side = tensors[_PIXELS].shape[-1], expected[_PIXELS].shape[-1]
        if side != wanted_side:
            raise WeightsError(
                f"{path} looks at squares of {side} px, and {network} at squares of {wanted_side} px; take a "
                f"checkpoint that was trained with those."
            )


def _present(path: Path) -> ModelCard | None:
    try:
        return read_card(path)
    except WeightsError:
        return None


def _kept(content: bytes, card: ModelCard) -> ModelCard:
    """Write a weight file; the same weights may be there already, others may not."""
    folder = own_encoders_folder()
    path = folder / f"{card.name}{_ENDING}"
    here = _present(path)
    if here is not None and here.sha256 == card.sha256:
        return here
    if here is not None:
        raise ModelError(f"there is another encoder called {card.name} already; give this one another name (--name).")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        (write_over if path.is_file() else write_new)(path, content)  # what cannot be read is of no use to anyone
    except OSError as error:
        raise WeightsError(f"the weights cannot be written to {path}: {error}") from error
    return card
