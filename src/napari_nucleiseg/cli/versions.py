"""What ``napari-nucleiseg models`` says of versions, and does to them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import OK, Console

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard
    from napari_nucleiseg.core.teaching.versions import Branch, Version


def card_of(name: str) -> ModelCard:
    """Return the card of a version, refused ones included."""
    from napari_nucleiseg.core.teaching.versions import find_version

    return find_version(name).card


def show_tree(console: Console) -> int:
    """Show all versions, each below the one it was taught from."""
    from napari_nucleiseg.core.teaching.versions import preferred, tree

    branches = tree()
    chosen = {family: preferred(family) for family in {branch.version.family for branch in branches}}
    default = {version.path for version in chosen.values() if version is not None}
    console.table(
        "",
        ("version", "title", "kind", "AJI", "PQ", "made", ""),
        [_row(branch, is_default=branch.version.path in default) for branch in branches],
    )
    documents = [_document(branch, is_default=branch.version.path in default) for branch in branches]
    console.result({"versions": documents})
    return OK


def change(action: str, name: str, to: str, console: Console) -> int:
    """Rename, export, delete, prefer or take a version."""
    from napari_nucleiseg.core.teaching import versions

    version = versions.find_version(name)
    document: dict[str, Any] = {"name": version.name, "version": version.card.version}
    if action == "rename":
        version = versions.rename(version, to)
        said = f"{version.name} is now called “{version.title}”."
    elif action == "export":
        document["file"] = str(versions.export(version, to))
        said = f"{version.name} is copied to {document['file']}"
    elif action == "delete":
        below = versions.delete(version)
        document["taught_from_it"] = [one.name for one in below]
        said = _deleted(version, document["taught_from_it"])
    elif action == "prefer":
        versions.prefer(version)
        said = f"{version.name} opens by default from now on."
    else:
        version = versions.take_anyway(version)
        said = f"{version.name} can be used from now on. The guard had refused it: {version.reason}"
    console.say(said)
    console.result({**document, "title": version.title, "weights": str(version.path)})
    return OK


def _deleted(version: Version, below: list[str]) -> str:
    said = f"{version.name} is deleted."
    return f"{said} Taught from it, and still there: {', '.join(below)}." if below else said


def _row(branch: Branch, *, is_default: bool) -> tuple[str, ...]:
    version = branch.version
    marks = [
        "opens by default" * is_default,
        "refused, taken anyway" * (version.was_refused and version.kind != "refused"),
        f"taught from {branch.missing}, which is no longer there" if branch.missing else "",
    ]
    return (
        "  " * branch.depth + version.name,
        version.title,
        version.kind,
        _change(version, "aji"),
        _change(version, "pq"),
        version.card.created,
        "; ".join(filter(None, marks)),
    )


def _change(version: Version, score: str) -> str:
    """Return a score before and after teaching; empty for a model that was not taught."""
    before, after = (version.card.metrics.get(key) for key in ("before", "held out"))
    if not (isinstance(before, dict) and isinstance(after, dict)) or score not in before or score not in after:
        return ""
    return f"{before[score]:.3f} → {after[score]:.3f}"


def _document(branch: Branch, *, is_default: bool) -> dict[str, Any]:
    version = branch.version
    return {
        "name": version.name,
        "depth": branch.depth,
        "missing_parent": branch.missing,
        "kind": version.kind,
        "was_refused": version.was_refused,
        "reason": version.reason,
        "preferred": is_default,
        "weights": str(version.path),
        "version": version.card.version,
        "card": asdict(version.card),
    }
