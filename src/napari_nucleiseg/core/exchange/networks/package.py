"""Files of a model package, in a zip or a folder: read one by one, never unpacked, none from outside of it."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from napari_nucleiseg.core.errors import WeightsError

DOCUMENTS = ("rdf.yaml", "bioimageio.yaml", "model.yaml")
MOST_BYTES = 4 * 1024**3
_MOST_DOCUMENT_BYTES = 4 * 1024**2
_MOST_ENTRIES = 10_000
_DAMAGE = (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, ValueError)


class Package(AbstractContextManager["Package"]):
    """An opened package; to be closed.

    Parameters
    ----------
    path : path
        A zip, a folder, or the ``rdf.yaml`` in one.

    Attributes
    ----------
    document : dict
        What ``rdf.yaml`` says.

    Raises
    ------
    WeightsError
        If it is missing or damaged, holds no ``rdf.yaml``, or names a place outside of itself.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._open = ExitStack()
        self._zip: zipfile.ZipFile | None = None
        try:
            name = self._find()
            self.document = self._parse(self.read(name, _MOST_DOCUMENT_BYTES))
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._open.close()

    def _find(self) -> str:
        """Open the zip or the folder; return the name of the document in it."""
        if self.path.is_dir():
            self._folder = self.path.resolve()
            names = [name for name in DOCUMENTS if (self._folder / name).is_file()]
        elif self.path.suffix.lower() in {".yaml", ".yml"} and self.path.is_file():
            self._folder, names = self.path.resolve().parent, [self.path.name]
        elif self.path.is_file():
            self._zip = self._open_zip()
            within = set(self._zip.namelist())
            names = [name for name in DOCUMENTS if name in within]
        else:
            raise WeightsError(f"there is no model package {self.path}")
        if not names:
            raise WeightsError(
                f"{self.path} holds no {DOCUMENTS[0]}, so it is no bioimage.io model package. Take the zip that was "
                "downloaded, as it is."
            )
        return names[0]

    def _open_zip(self) -> zipfile.ZipFile:
        try:
            archive = self._open.enter_context(zipfile.ZipFile(self.path))
        except _DAMAGE as error:
            raise WeightsError(f"{self.path} is no zip, or is damaged or cut off; get it again.") from error
        entries = archive.infolist()
        if len(entries) > _MOST_ENTRIES:
            raise WeightsError(f"{self.path} holds {len(entries):,} files, far more than a model package has")
        for entry in entries:
            must_be_inside(entry.filename, self.path)
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise WeightsError(f"{self.path} holds a link ({entry.filename}), which no package needs; refused")
        return archive

    def read(self, name: str, most_bytes: int = MOST_BYTES) -> bytes:
        """Return the content of a file of the package.

        Raises
        ------
        WeightsError
            If there is none of that name, it is damaged or too large, or lies outside.
        """
        must_be_inside(name, self.path)
        name = str(PurePosixPath(name))
        try:
            content = self._content(name, most_bytes)
        except (KeyError, FileNotFoundError, IsADirectoryError) as error:
            raise WeightsError(f"{self.path} names a file {name} that it does not hold; get it again.") from error
        except _DAMAGE as error:
            raise WeightsError(f"{name} in {self.path} is damaged ({error}); get it again.") from error
        if len(content) > most_bytes:
            raise WeightsError(f"{name} in {self.path} is larger than {most_bytes // 1024**2:,} MB; refused")
        return content

    def _content(self, name: str, most_bytes: int) -> bytes:
        """Return the first bytes of a file, one more than allowed if there are more."""
        if self._zip is not None:
            # What the directory says of sizes may be a lie; what is read is not.
            with self._zip.open(name) as file:
                return file.read(most_bytes + 1)
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder):
            raise WeightsError(_outside(name, self.path))
        with path.open("rb") as file:
            return file.read(most_bytes + 1)

    def source(self, entry: Any) -> bytes:
        """Return the content of a file that the document names with its ``source`` and perhaps its ``sha256``.

        Raises
        ------
        WeightsError
            As for `read`; or if its content is not the one the document tells of.
        """
        entry = {"source": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, Mapping) or not isinstance(entry.get("source"), str):
            raise WeightsError(f"{self.path} does not name a file where its document should: {entry!r:.80}")
        content, expected = self.read(entry["source"]), entry.get("sha256")
        if expected and hashlib.sha256(content).hexdigest() != str(expected).lower():
            raise WeightsError(
                f"{entry['source']} in {self.path} is not the file that its document tells of (another digest); "
                "get the package again."
            )
        return content

    def _parse(self, content: bytes) -> dict[str, Any]:
        import yaml

        try:
            found = yaml.safe_load(content)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise WeightsError(f"the {DOCUMENTS[0]} of {self.path} is damaged; get it again.") from error
        if not isinstance(found, dict):
            raise WeightsError(f"the {DOCUMENTS[0]} of {self.path} says nothing; get it again.")
        return found


def must_be_inside(name: str, path: Path) -> None:
    """Refuse the name of a file that is an address, or leads out of the package.

    Raises
    ------
    WeightsError
        With what to do.
    """
    if re.match(r"[a-z][a-z0-9+.-]+://", name, re.IGNORECASE):
        raise WeightsError(
            f"{path} keeps a part on the internet ({name}), and nothing is downloaded here. Take the whole package as "
            "one zip, which bioimage.io offers for download."
        )
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or parts[0] == "/" or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name):
        raise WeightsError(_outside(name, path))


def _outside(name: str, path: Path) -> str:
    return f"{path} names a file outside of itself ({name!r}); such a package is refused."
