"""Versions of models: what was taught from what, kept for good, and which one opens by default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.core.errors import ModelError, WeightsError
from napari_nucleiseg.core.models.files import write_new, write_over
from napari_nucleiseg.core.models.weights import (
    SHIPPED_FOLDER,
    ModelCard,
    read_card,
    user_folder,
    weight_files,
    with_card,
)
from napari_nucleiseg.core.teaching.cards import family_of
from napari_nucleiseg.core.teaching.keeping import cannot_write, inherit_acceptance, move_version, write_version
from napari_nucleiseg.core.teaching.names import (
    ENDING,
    check_name,
    models_folder,
    next_name,
    number_of,
    refused_folder,
    retire,
)
from napari_nucleiseg.core.teaching.preferences import read_preferences, write_preferences

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.verdict import Outcome

SHIPPED, TAUGHT, REFUSED, OWN, IMPORTED = "shipped", "taught", "refused", "own", "imported"


@dataclass(frozen=True, slots=True)
class Version:
    """A weight file that is kept.

    Parameters
    ----------
    card : ModelCard
        What it says about itself.
    path : Path
        Where it lies.
    kind : str
        ``shipped``, ``taught``, ``refused`` (the guard kept it from use), ``own`` (trained, not taught) or
        ``imported`` (a network of another program).
    title : str
        One line for people.
    """

    card: ModelCard
    path: Path
    kind: str
    title: str

    @property
    def name(self) -> str:
        """How it is asked for: the name of its file."""
        return self.path.stem

    @property
    def family(self) -> str:
        """Name of the model that it and its kin were first taught from."""
        return family_of(self.card)

    @property
    def was_refused(self) -> bool:
        """Whether the guard had refused it, also if it was taken anyway."""
        return self.card.metrics.get("adopted") is False

    @property
    def reason(self) -> str:
        """Why the guard adopted or refused it; empty if it was not taught."""
        return str(self.card.metrics.get("reason", ""))


@dataclass(frozen=True, slots=True)
class Branch:
    """A version in the tree.

    Parameters
    ----------
    version : Version
        The version.
    depth : int
        Number of versions above it.
    missing : str
        Version it was taught from, if that is no longer there; such a branch is a root.
    """

    version: Version
    depth: int
    missing: str = ""


def all_versions() -> tuple[Version, ...]:
    """Return all versions, the default model first; unreadable files are left out."""
    found = []
    for path in (*weight_files().values(), *sorted(refused_folder().glob(f"*{ENDING}"))):
        with suppress(WeightsError):
            found.append(_version(path))
    return tuple(sorted(found, key=_order))


def tree() -> tuple[Branch, ...]:
    """Return all versions, each below the one it was taught from, depth first."""
    versions = all_versions()
    by_version = {version.card.version: version for version in reversed(versions)}
    children: dict[str, list[Version]] = {}
    roots: list[Version] = []
    for version in versions:
        parent = version.card.parent
        is_root = parent not in by_version or parent == version.card.version
        (roots if is_root else children.setdefault(parent, [])).append(version)
    done: dict[Path, Branch] = {}
    # Files made by hand may name each other as parents: the first of them stands for a root.
    for root in (*roots, *versions):
        missing = root.card.parent if root.card.parent not in by_version else ""
        for branch in _below(Branch(root, 0, missing), children, by_version, done.keys()):
            done[branch.version.path] = branch
    return tuple(done.values())


def _below(
    root: Branch, children: dict[str, list[Version]], by_version: dict[str, Version], done: Iterable[Path]
) -> Iterator[Branch]:
    """Yield a branch and all below it that are not done yet, depth first."""
    waiting, seen = [root], set(done)
    while waiting:
        branch = waiting.pop()
        version = branch.version
        if version.path in seen:
            continue
        seen.add(version.path)
        yield branch
        # A copy of a file says the same version: what was taught from it stands below the first one.
        if by_version[version.card.version] is version:
            below = children.get(version.card.version, [])
            waiting += [Branch(child, branch.depth + 1) for child in reversed(below)]


def find_version(name: str) -> Version:
    """Return the version of a name, refused ones included.

    Raises
    ------
    ModelError
        If there is none.
    """
    versions = all_versions()
    # Somebody may have given the file of a model another name than its card has.
    for matches in (lambda one: one.name == name, lambda one: one.card.name == name):
        if found := next(filter(matches, versions), None):
            return found
    raise ModelError(f"there is no model called {name}; there are {', '.join(one.name for one in versions)}")


def keep(outcome: Outcome, *, name: str = "", title: str = "") -> Version:
    """Keep what a fine-tune has come to as a new file, whole or not at all; nothing is overwritten.

    A model that the guard refused is kept apart, so that nobody takes it by mistake; see `take_anyway`.

    Parameters
    ----------
    outcome : Outcome
        Of the fine-tune.
    name : str
        Of the new version; empty numbers it, such as ``nuclei-2``.
    title : str
        One line for people; empty says what it was taught with.

    Raises
    ------
    ModelError
        If the name cannot be used.
    WeightsError
        If the file cannot be written; nothing is left of it then.
    """
    if name:
        check_name(name)
    former, model = outcome.model.card, outcome.model
    folder = models_folder() if outcome.adopted else refused_folder()
    metrics = {**former.metrics, "adopted": outcome.adopted, "reason": outcome.reason}
    card = replace(former, title=_one_line(title) or _title(former), metrics=metrics)
    path = write_version(
        folder,
        model.network,
        model.spec,
        card,
        name=name,
        check=check_name,
        following=lambda: next_name(family_of(former), (one.card.parent.partition("@")[0] for one in all_versions())),
        what="model",
    )
    inherit_acceptance(former, path)
    return _version(path)


def take_anyway(version: Version) -> Version:
    """Make a version usable that the guard refused; its card goes on saying so, and why.

    Raises
    ------
    ModelError
        If it was not refused.
    WeightsError
        If its file cannot be moved.
    """
    if version.kind != REFUSED:
        raise ModelError(f"{version.name} is in use already: the guard did not refuse it.")
    return _version(move_version(version.path, models_folder(), "Export this one instead."))


def rename(version: Version, title: str) -> Version:
    """Give a version another title; its name, its tensors and what it was taught from stay.

    Raises
    ------
    ModelError
        If it is shipped, or the title is empty.
    WeightsError
        If its file cannot be written; it stays as it was then.
    """
    _refuse_shipped(version, "renamed")
    if not _one_line(title):
        raise ModelError("A title needs at least one letter.")
    try:
        content = version.path.read_bytes()
        write_over(version.path, with_card(content, replace(read_card(version.path), title=_one_line(title))))
    except OSError as error:
        raise WeightsError(cannot_write(version.path.parent, error)) from error
    return _version(version.path)


def export(version: Version, path: str | Path) -> Path:
    """Copy a version to a file or folder outside; nothing is overwritten.

    Returns
    -------
    Path
        Where the copy lies.

    Raises
    ------
    WeightsError
        If there is a file of that name already, or it cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        target /= version.path.name
    if target.suffix != ENDING:
        target = target.with_name(target.name + ENDING)
    try:
        content = version.path.read_bytes()
        write_new(target, content)
    except FileExistsError as error:
        raise WeightsError(f"{target} is there already and stays as it is. Choose another name.") from error
    except OSError as error:
        raise WeightsError(cannot_write(target.parent, error)) from error
    return target


def delete(version: Version) -> tuple[Version, ...]:
    """Delete a version for good; return those that were taught from it, which stay as they are.

    No other version gets its name.

    Raises
    ------
    ModelError
        If it is shipped.
    WeightsError
        If its file cannot be removed.
    """
    _refuse_shipped(version, "deleted")
    try:
        # In this order, so that a full disk can be relieved.
        version.path.unlink(missing_ok=True)
        retire(version.name)
        preferences = read_preferences()
        if preferences.get(version.family) == version.card.version:
            write_preferences({key: value for key, value in preferences.items() if key != version.family})
    except OSError as error:
        raise WeightsError(cannot_write(version.path.parent, error)) from error
    return tuple(other for other in all_versions() if other.card.parent == version.card.version)


def preferred(family: str) -> Version | None:
    """Return the version of a family that opens by default; None if nobody chose one that is still there."""
    wanted = read_preferences().get(family)
    usable = (version for version in all_versions() if version.kind != REFUSED)
    return next((version for version in usable if version.card.version == wanted), None)


def prefer(version: Version) -> None:
    """Let a version open by default from now on; going back is to prefer its parent.

    Raises
    ------
    ModelError
        If the guard refused it.
    WeightsError
        If that cannot be noted.
    """
    if version.kind == REFUSED:
        raise ModelError(f"The guard refused {version.name}: {version.reason} Take it anyway first.")
    try:
        write_preferences({**read_preferences(), version.family: version.card.version})
    except OSError as error:
        raise WeightsError(cannot_write(user_folder(), error)) from error


def _version(path: Path) -> Version:
    card = read_card(path)
    if path.parent == SHIPPED_FOLDER:
        kind = SHIPPED
    elif path.parent == refused_folder():
        kind = REFUSED
    elif card.network == IMPORTED:
        kind = IMPORTED
    else:
        kind = TAUGHT if card.parent else OWN
    return Version(card, path, kind, card.title or path.stem)


def _order(version: Version) -> tuple[bool, str, str, int, str]:
    """Return what versions are sorted by: the default model, then by age and number."""
    return version.name != "nuclei", version.card.created, *number_of(version.name), str(version.path)


def _title(card: ModelCard) -> str:
    """Return what a model was taught with, one line."""
    names = [str(slide.get("name", "")) for slide in card.taught.get("slides", ())]
    more = f" and {len(names) - 2} more" if len(names) > 3 else ""
    shown = ", ".join(names[: 2 if more else 3])
    return f"{family_of(card)}, taught with {shown or 'your regions'}{more}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _refuse_shipped(version: Version, what: str) -> None:
    if version.kind == SHIPPED:
        raise ModelError(f"{version.name} comes with the program and cannot be {what}.")
