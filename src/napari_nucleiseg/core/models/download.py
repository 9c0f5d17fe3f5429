"""Published weight files from where their authors keep them: downloaded once, checked, kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from napari_nucleiseg.core.errors import WeightsError

# Told how many bytes are there, of how many (0 where the server does not say).
Progress = Callable[[int, int], None]
_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file is published, and how it is known to be that one.

    Parameters
    ----------
    what : str
        What it holds, for people, in the plural: the ImageNet weights.
    url : str
        Where it is; its last part names the file.
    begins : str
        First hexadecimal digits of its SHA-256, or all of them.
    ends : str
        Last hexadecimal digits of it.
    size_bytes : int
        Its exact size; 0 where it is not known.
    """

    what: str
    url: str
    begins: str
    ends: str = ""
    size_bytes: int = 0

    def is_it(self, path: Path) -> bool:
        """Whether a file has the size and the digest of the published one."""
        if self.size_bytes and path.stat().st_size != self.size_bytes:
            return False
        digest = sha256_of(path)
        return digest.startswith(self.begins) and digest.endswith(self.ends)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits; it is not held in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(source: Source, folder: str | Path | None = None, progress: Progress | None = None) -> Path:
    """Download a published file if it is not there yet, check it, return where it is.

    Parameters
    ----------
    source : Source
        What and where.
    folder : path-like, optional
        Where to keep it; default the package's cache folder.
    progress : callable, optional
        Told how many bytes are there, of how many.

    Raises
    ------
    WeightsError
        If it cannot be downloaded or is not the published file; then it is not kept.
    """
    import platformdirs
    import pooch

    place = Path(folder) if folder is not None else Path(platformdirs.user_cache_dir("napari-nucleiseg")) / "weights"
    name = source.url.rsplit("/", 1)[-1]
    bar = _Bar(progress) if progress is not None else False
    fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK_BYTES, timeout=_TIMEOUT_S)
    try:
        found = Path(pooch.retrieve(source.url, known_hash=None, fname=name, path=place, downloader=fetch))
        is_published = source.is_it(found)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{source.what} cannot be downloaded from {source.url}. Check the connection, or download them with a "
            f"browser, put them at {place / name}, and start again."
        ) from error
    if not is_published:
        size, digest = found.stat().st_size, sha256_of(found)
        found.unlink()
        wanted = f" and {source.size_bytes:,} bytes" if source.size_bytes else ""
        raise WeightsError(
            f"what {source.url} sent is not the published file: {size:,} bytes whose checksum begins with {digest[:8]},"
            f" not {source.begins[:8]}{wanted}. Try again later, or download it with a browser."
        )
    return found


class _Bar:
    """What the downloader calls a progress bar."""

    def __init__(self, tell: Progress) -> None:
        self.tell, self.total, self._done = tell, 0, 0

    def update(self, size: int) -> None:
        """Count bytes."""
        self._done += size
        self.tell(min(self._done, self.total) if self.total else self._done, self.total)

    def reset(self) -> None:
        """Start anew: at the end all is said at once."""
        self._done = 0

    def close(self) -> None:
        """Do nothing: the bar is the caller's."""
