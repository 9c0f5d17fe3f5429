"""Finds the project of a slide, also where the slide or the project has been renamed or moved."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from napari_nucleiseg.core.slides.fingerprint import former, is_same
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.ledger import read_meta
from napari_nucleiseg.core.store.project import DATABASE, default_folder

logger = logging.getLogger(__name__)

ENDING = ".nucleiseg"
REGISTRY = "projects.json"
MOST_REMEMBERED = 2000

_NAMED_BY_SLIDE = re.compile(r"-[0-9a-f]{8}$")

Entry = dict[str, Any]


def usual_folder(slide: Slide, results_folder: str | os.PathLike[str] = "") -> Path:
    """Return where the project of a slide is made: beside it, or in the folder for all results if there is one."""
    if results_folder:
        # Slides of one name from several folders must not meet here.
        return Path(results_folder) / f"{Path(slide.path).stem}-{slide.fingerprint[:8]}{ENDING}"
    if Path(slide.path).exists():
        return default_folder(slide.path)
    # Slides made on the fly lie nowhere: their results are kept with other caches.
    import platformdirs

    return Path(platformdirs.user_cache_dir("napari-nucleiseg")) / "projects" / f"{slide.fingerprint}{ENDING}"


def find_project(slide: Slide, results_folder: str | os.PathLike[str] = "") -> Path | None:
    """Return the folder of a slide's project, wherever it is.

    First comes the usual folder; then any project of this slide in the folder for results or beside the slide, the
    one that was used last; then the place where this computer last wrote to it. A copy of a slide does not get the
    original's project.

    Parameters
    ----------
    slide : Slide
        Open; projects are recognised by its fingerprint.
    results_folder : path, optional
        Where projects are made; empty is beside the slide.

    Returns
    -------
    Path or None
        None if there is none.
    """
    usual = usual_folder(slide, results_folder)
    if (usual / DATABASE).is_file() and _may_be_of(usual, slide):
        return usual
    places = [Path(results_folder)] if results_folder else []
    if Path(slide.path).exists():
        places.append(Path(slide.path).absolute().parent)
    for place in places:
        found = find_renamed(slide, place)
        if found is not None:
            return found
    return newest(_remembered(slide))


def find_renamed(slide: Slide, folder: Path) -> Path | None:
    """Return the project of a slide in a folder, whatever its name; None if there is none."""
    return newest(path for path in _candidates(slide, folder) if _is_of(path, slide))


def newest(folders: Iterable[Path]) -> Path | None:
    """Return the project that was written to last."""
    return max(folders, key=last_written, default=None)


def registry_path() -> Path:
    """Return the file that remembers where projects lie."""
    import platformdirs

    return Path(platformdirs.user_data_dir("napari-nucleiseg")) / REGISTRY


def remember(folder: str | os.PathLike[str], slide: Slide) -> None:
    """Remember where the project of a slide lies, so that it is found when the slide is moved; never fails."""
    if not slide.fingerprint or not Path(slide.path).exists():
        return
    folder = Path(folder).absolute()
    entry = {"fingerprint": slide.fingerprint, "folder": str(folder), "slide": str(Path(slide.path).absolute())}
    others = [known for known in _registry() if known.get("folder") != entry["folder"]]
    newest_first = sorted([*others, {**entry, "used": time.time()}], key=_age)
    path = registry_path()
    made = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(json.dumps(newest_first[:MOST_REMEMBERED], indent=1), encoding="utf-8")
        made.replace(path)
    except OSError as error:
        logger.info("%s cannot be written (%s)", path, error)


def slide_remembered(folder: str | os.PathLike[str]) -> Path | None:
    """Return where the slide of the project in a folder lay when this computer last wrote to it; None if unknown."""
    here = str(Path(folder).absolute())
    slides = (entry.get("slide") for entry in _registry() if entry.get("folder") == here)
    return next((Path(slide) for slide in slides if isinstance(slide, str)), None)


def _registry() -> list[Entry]:
    try:
        found = json.loads(registry_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _age(entry: Entry) -> float:
    used = entry.get("used")
    return -used if isinstance(used, int | float) else 0.0


def _remembered(slide: Slide) -> Iterator[Path]:
    here = str(Path(slide.path).absolute())
    for entry in _registry():
        known = entry.get("fingerprint")
        if not isinstance(known, str) or not is_same(known, slide.fingerprint):
            continue
        lay, folder = entry.get("slide"), entry.get("folder")
        if not isinstance(folder, str) or not isinstance(lay, str):
            continue
        is_copy = lay != here and Path(lay).exists()
        if not is_copy and (Path(folder) / DATABASE).is_file() and _may_be_of(Path(folder), slide):
            yield Path(folder)


def _candidates(slide: Slide, folder: Path) -> Iterator[Path]:
    """Yield folders that may be the slide's project: not those that belong to another slide by their name."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    owned = {default_folder(entry.path).name for entry in entries if not entry.name.endswith(ENDING)}
    marks = slide.fingerprint[:8], former(slide.fingerprint)[:8]
    for entry in entries:
        if not entry.name.endswith(ENDING) or entry.name in owned:
            continue
        stem = entry.name.removesuffix(ENDING)
        if _NAMED_BY_SLIDE.search(stem) and not stem.endswith(marks):
            continue
        if os.path.isfile(os.path.join(entry.path, DATABASE)):  # noqa: PTH113, PTH118  # there may be thousands
            yield Path(entry.path)


def _is_of(folder: Path, slide: Slide) -> bool:
    """Whether a project is that of a slide, and not that of its twin beside it."""
    meta = _meta(folder)
    if not is_same(meta.get("fingerprint", ""), slide.fingerprint):
        return False
    path = Path(slide.path)
    return meta.get("slide") == path.name or not path.with_name(meta.get("slide", "")).exists()


def _may_be_of(folder: Path, slide: Slide) -> bool:
    """Whether nothing says that a project is another slide's; a damaged one is told about when it is opened."""
    found = _meta(folder).get("fingerprint", "")
    return not found or not slide.fingerprint or is_same(found, slide.fingerprint)


def _meta(folder: Path) -> dict[str, str]:
    try:
        return read_meta(folder / DATABASE)
    except (OSError, sqlite3.Error):
        return {}


def last_written(folder: Path) -> float:
    """Return when a project was last written to, seconds since 1970; 0 if there is none.

    What was edited in a window that crashed stands in the file beside the database until the project is opened again.
    """
    times = [0.0]
    for name in (DATABASE, f"{DATABASE}-wal"):
        try:
            stat = (folder / name).stat()
        except OSError:
            continue
        # Who only looks makes an empty one.
        times.append(stat.st_mtime if stat.st_size else 0.0)
    return max(times)
