"""Where a downloaded CLIP is from, written down beside it: address, licence, and the checksum of each of its files.

No checksum of a published CLIP is known here, so that the first download is trusted, and every later use must find the
same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, WeightsError
from napari_nucleiseg.core.fewshot.known_clips import UNKNOWN
from napari_nucleiseg.core.models.download import sha256_of
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.licences import FREE, NOT_COMMERCIAL, allows_commercial_use
from napari_nucleiseg.core.models.weights import ModelCard, licence_accepted, must_be_accepted

SOURCE = "source.json"
README = "README.md"
NETWORK = "CLIPModel"
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_LICENCE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ClipSource:
    """Where the files of a folder were downloaded from.

    Parameters
    ----------
    url : str
        Of the weights.
    licence : str
        Of the weights.
    digests : mapping of str to str
        SHA-256 of each file by name, as hexadecimal digits.
    """

    url: str
    licence: str
    digests: Mapping[str, str]

    @property
    def weights(self) -> str:
        """Name of the file of weights."""
        return self.url.rsplit("/", 1)[-1]


def read_source(folder: Path) -> ClipSource | None:
    """Return where a folder's files are from; None where that is not known, because they came here otherwise.

    Raises
    ------
    WeightsError
        If it cannot be read.
    """
    path = folder / SOURCE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        digests = {str(name): str(digest) for name, digest in found["sha256"].items()}
        return ClipSource(str(found["url"]), str(found["licence"]), digests)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} cannot be read, so it is not known whether these weights are those that were downloaded. Delete "
            f"the folder {folder} and get them again."
        ) from error


def write_source(folder: Path, url: str, licence: str, names: tuple[str, ...]) -> ClipSource:
    """Write down where files of a folder are from, with their checksums.

    Raises
    ------
    WeightsError
        If it cannot be written.
    """
    try:
        source = ClipSource(url, licence, {name: sha256_of(folder / name) for name in names})
        content = {"url": url, "licence": licence, "sha256": source.digests}
        write_over(folder / SOURCE, json.dumps(content, indent=1).encode())
    except OSError as error:
        raise WeightsError(f"{folder / SOURCE} cannot be written: {error}") from error
    return source


def check_unchanged(path: Path, source: ClipSource | None, digest: str = "") -> None:
    """Refuse a file that is no longer the one that was downloaded.

    Parameters
    ----------
    path : Path
        The file.
    source : ClipSource or None
        Of its folder; of files that came otherwise nothing can be said.
    digest : str
        SHA-256 of the file, where it is known already.

    Raises
    ------
    WeightsError
        If it is another one.
    """
    wanted = "" if source is None else source.digests.get(path.name, "")
    if wanted and (digest or sha256_of(path)) != wanted:
        raise WeightsError(
            f"{path} is no longer the file that was downloaded: its checksum is not the one in {SOURCE} beside it "
            f"(which begins with {wanted[:8]}). Delete the folder {path.parent} and get the weights again."
        )


def check_wanted(path: Path, wanted: str) -> None:
    """Refuse weights that are here already and are not those that a person wants; they stay where they are.

    Parameters
    ----------
    path : Path
        The file, which is read piece by piece.
    wanted : str
        SHA-256 as `checked_digest` returns it; empty if any will do.

    Raises
    ------
    WeightsError
        If it is another file, or cannot be read.
    """
    if not wanted:
        return
    again = f"delete the folder {path.parent} and get the weights again."
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read, so it is not known whether it is the file that is wanted; {again}"
        ) from error
    if digest != wanted:
        raise WeightsError(
            f"{path} is here already and is not the file that is wanted: its SHA-256 is {digest}, not {wanted}. "
            f"Nothing of it was changed. Look the checksum up where the file is from; if it is right, {again}"
        )


def checked_digest(text: str) -> str:
    """Return a SHA-256 that a person gave, in small letters; empty if none was given.

    Raises
    ------
    WeightsError
        If it is none.
    """
    text = text.strip()
    if text and not _DIGEST.fullmatch(text):
        raise WeightsError(f"{text} is no SHA-256: that has 64 hexadecimal digits. It is copied from the file's page.")
    return text.lower()


def licence_in(folder: Path) -> str:
    """Return the licence of the weights of a folder: as it was written down, else as the head of a README says it."""
    source = read_source(folder)
    if source is not None:
        return source.licence
    try:
        text = (folder / README).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return UNKNOWN
    head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    stated = _LICENCE.search(head)
    names = {name.lower(): name for name in FREE | NOT_COMMERCIAL}
    return names.get(stated[1].lower(), stated[1]) if stated else UNKNOWN


def clip_card(folder: Path, licence: str, digest: str = "") -> ModelCard:
    """Return what is known of the weights in a folder."""
    return ModelCard(
        name=folder.resolve().name or "clip",
        network=NETWORK,
        title=f"CLIP {folder.resolve().name}",
        licence=licence,
        commercial_use=allows_commercial_use(licence),
        sha256=digest,
    )


def licence_must_be_accepted(card: ModelCard, *, accept_licence: bool) -> None:
    """Refuse weights whose licence is restrictive or not stated and was accepted neither now nor before.

    Raises
    ------
    LicenceNotAcceptedError
        With how to accept it.
    """
    if card.licence == UNKNOWN and not (accept_licence or licence_accepted(card)):
        raise LicenceNotAcceptedError(
            f"no file beside the weights {card.name} states their licence. Read it where they are from, then accept it "
            "(in the window, with --accept-licence, or accept_licence=True), or put the README.md from there beside "
            "them."
        )
    must_be_accepted(card, accept_licence=accept_licence)
