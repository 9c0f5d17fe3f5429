"""CLIPs by name or address: downloaded once into the user's folder of CLIPs, their licence first, then the weights.

Nothing of them is unpickled; the checksums of the first download are kept, see `clip_source`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.fewshot.clip_files import (
    CONFIG,
    MERGES,
    PICKLED,
    PICKLES,
    PREPROCESSOR,
    TOKENIZER,
    VOCABULARY,
    WEIGHTS,
)
from napari_nucleiseg.core.fewshot.clip_source import (
    README,
    check_wanted,
    checked_digest,
    clip_card,
    licence_in,
    licence_must_be_accepted,
    read_source,
    write_source,
)
from napari_nucleiseg.core.fewshot.known_clips import UNKNOWN, known_clip
from napari_nucleiseg.core.models.download import Progress, Source, download
from napari_nucleiseg.core.models.weights import remember_acceptance, user_folder

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard

FOLDER = "clips"
_WHAT = "the files of that CLIP"
_SCHEMES = ("http", "https")
_HUB = "huggingface.co"
_HERE = re.compile(r"[^\w.-]+")
# Of an address of the hub: owner, name, resolve, revision.
_OWNER_AND_NAME, _WITH_REVISION = 2, 4
_NOT_FOUND = (404, 410)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the files of a CLIP are.

    Parameters
    ----------
    base : str
        What the names of files are put behind.
    weights : tuple of str
        Files of weights, the first that is there counts.
    name : str
        Of the folder that they are kept in.
    licence : str
        Of a published one that is known here; else unknown, and a README may state it.
    """

    base: str
    weights: tuple[str, ...]
    name: str
    licence: str = UNKNOWN


def clips_folder() -> Path:
    """Folder of the CLIPs that were downloaded."""
    return user_folder() / FOLDER


def downloaded_clips() -> dict[str, ModelCard]:
    """Return the cards of the CLIPs that were downloaded, by the path of their folder; damaged ones are left out."""
    found = {}
    for folder in sorted(path for path in clips_folder().glob("*") if path.is_dir()):
        with suppress(WeightsError):
            if read_source(folder) is not None:
                found[str(folder)] = clip_card(folder, licence_in(folder))
    return found


def address_of(where: str) -> Address | None:
    """Return where the files of a CLIP are.

    Parameters
    ----------
    where : str
        Name of a published one, address of its weights (``.safetensors``, ``.bin``, ``.pt``, ``.pth``), of the folder
        that they are in, or of a page of the Hugging Face hub.

    Returns
    -------
    Address or None
        None for anything else, such as a folder of this machine.
    """
    known = known_clip(where)
    if known is not None:
        one = Address(known.files, (known.weights,), known.name.replace("/", "--"), known.licence)
        return one if known.weights else None
    parts = urlsplit(where.strip())
    if parts.scheme not in _SCHEMES or not parts.netloc:
        return None
    steps = [step for step in parts.path.split("/") if step]
    weights: tuple[str, ...] = (WEIGHTS, PICKLED)
    if steps and Path(steps[-1]).suffix in {".safetensors", *PICKLES}:
        weights = (steps.pop(),)
    shown = steps
    if parts.netloc == _HUB and len(steps) >= _OWNER_AND_NAME:
        shown = steps[:_OWNER_AND_NAME]
        revision = steps[_WITH_REVISION - 1 : _WITH_REVISION] or ["main"]
        steps = [*shown, "resolve", *revision, *steps[_WITH_REVISION:]]
    base = f"{parts.scheme}://{parts.netloc}/{'/'.join(steps)}".rstrip("/")
    same = known_clip("/".join(shown))
    if same is not None and same.weights and base == same.files:
        return address_of(same.name)
    mark = hashlib.sha256("\n".join((base, *weights)).encode()).hexdigest()[:8]
    name = _HERE.sub("-", "--".join(shown[-_OWNER_AND_NAME:]) or parts.netloc)
    return Address(base, weights, f"{name}-{mark}")


def folder_of(where: str, folder: str | Path | None = None) -> Path:
    """Return the folder that a CLIP is or will be in; a path of this machine is returned as it is."""
    address = None if Path(where).exists() else address_of(where)
    return Path(where) if address is None else Path(folder or clips_folder()) / address.name


def get_clip(
    where: str,
    *,
    sha256: str = "",
    accept_licence: bool = False,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return where a CLIP is on this machine; one that is asked for by name or address is downloaded once.

    Parameters
    ----------
    where : str
        See `address_of`; a path of this machine is returned as it is.
    sha256 : str
        Checksum that the weights must have, 64 hexadecimal digits, whether they are downloaded now or were before;
        empty where none is known: then the first download is trusted.
    accept_licence : bool
        Accept a licence that is restrictive or not stated, which is remembered.
    folder : path-like, optional
        Where folders of CLIPs are kept; default the user's.
    progress : callable, optional
        Told how many bytes of the weights are there, of how many. What it raises ends the download, and nothing is
        kept of a file that is not whole.

    Raises
    ------
    WeightsError
        If something cannot be downloaded, is missing, or is not what it should be. What was there before stays.
    LicenceNotAcceptedError
        If the licence must be accepted first; no weights are downloaded then.
    """
    digest = checked_digest(sha256)
    address = None if Path(where).exists() else address_of(where)
    if address is None:
        return Path(where)
    target = Path(folder or clips_folder()) / address.name
    source = read_source(target)
    if source is not None:
        check_wanted(target / source.weights, digest)
        return target
    small = _get_small_files(address, target)
    licence = licence_in(target) if address.licence == UNKNOWN else address.licence
    card = clip_card(target, licence)
    licence_must_be_accepted(card, accept_licence=accept_licence)
    if accept_licence and not card.commercial_use:
        remember_acceptance(card)
    weights = _get_weights(address, target, digest, progress)
    write_source(target, f"{address.base}/{weights}", licence, (*small, weights))
    return target


def _get_small_files(address: Address, target: Path) -> tuple[str, ...]:
    """Download what is needed beside the weights, and say which files those are."""
    config = _get(address, CONFIG, target)
    if config is None:
        raise WeightsError(
            f"there is no {CONFIG} at {address.base}, so no CLIP in transformers' layout. Give the address of its "
            f"{WEIGHTS} or {PICKLED}, with the other files beside it."
        )
    _must_be_clip(target / CONFIG, address)
    there = [_get(address, name, target) for name in (VOCABULARY, MERGES)]
    if None in there:
        there = [_get(address, TOKENIZER, target)]
    if None in there:
        raise WeightsError(
            f"the vocabulary is missing at {address.base}: {VOCABULARY} and {MERGES}, or {TOKENIZER}. Take another "
            "address."
        )
    there += [_get(address, name, target) for name in (PREPROCESSOR, README)]
    return tuple(name for name in (config, *there) if name)


def _must_be_clip(path: Path, address: Address) -> None:
    """Refuse another network before its weights are downloaded, and forget the file: it may be right next time."""
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        kind = None
    if kind != "clip":
        path.unlink(missing_ok=True)
        raise WeightsError(
            f"what is at {address.base} is a {kind or 'network of no kind'}, not a clip; nothing of it was kept."
        )


def _get_weights(address: Address, target: Path, digest: str, progress: Progress | None) -> str:
    for name in address.weights:
        # Of a run that ended before it wrote down where they are from: a download that is no good would be deleted.
        if (target / name).is_file():
            check_wanted(target / name, digest)
        if _get(address, name, target, digest, progress) is not None:
            return name
    raise WeightsError(
        f"there is no {' and no '.join(address.weights)} at {address.base}; give the address of the weights themselves."
    )


def _get(address: Address, name: str, target: Path, digest: str = "", progress: Progress | None = None) -> str | None:
    """Download a file and return its name; None if the server says that there is none."""
    try:
        download(Source(_WHAT, f"{address.base}/{name}", digest), target, progress)
    except WeightsError as error:
        if any(code in _NOT_FOUND for code in _codes(error)):
            return None
        raise
    return name


def _codes(error: BaseException) -> Iterator[int]:
    """Iterate over what servers answered, by the errors that led to this one."""
    cause = error.__cause__
    while cause is not None:
        yield int(getattr(getattr(cause, "response", None), "status_code", 0))
        cause = cause.__cause__
