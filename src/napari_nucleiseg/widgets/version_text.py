"""What a version of a model says of itself, as people read it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.widgets.wording import data_text, licence_text, model_title, when_text

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard
    from napari_nucleiseg.core.teaching.versions import Version

NOT_KNOWN = "–"
KINDS = {"shipped": "shipped", "taught": "taught", "refused": "refused", "own": "trained", "imported": "imported"}


def kind_text(version: Version, *, in_use: bool) -> str:
    """Return what kind of version it is, and whether it is in use."""
    kind = "taken anyway" if version.kind == "taught" and version.was_refused else KINDS[version.kind]
    return f"{kind}, in use" if in_use else kind


def made_text(card: ModelCard) -> str:
    """Return when it was made, in the time of this machine; cards are written in UTC."""
    with suppress(ValueError):
        made = datetime.strptime(card.created, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
        text = when_text(made.timestamp(), time.time())
        return text.removesuffix(":00") if text.startswith("today") else text
    return card.created or NOT_KNOWN


def learnt_text(card: ModelCard) -> str:
    """Return how much it learnt from, in a few words."""
    if not card.taught:
        return NOT_KNOWN
    taught = [region for region in card.taught.get("regions", ()) if region.get("role") == "teach"]
    counts = (
        (card.taught.get("nuclei", 0), "nucleus", "nuclei"),
        (len(taught), "region", "regions"),
        (len(card.taught.get("slides", ())), "slide", "slides"),
    )
    return ", ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in counts if count)


def score_text(card: ModelCard, name: str) -> str:
    """Return a score (``aji`` or ``pq``) on what was held out, before and after it was taught."""
    scores = [card.metrics.get(when) for when in ("before", "held out")]
    if any(isinstance(one, Mapping) and one.get("nuclei") == 0 for one in scores):
        return NOT_KNOWN  # of nothing, all was found
    values = [one.get(name) if isinstance(one, Mapping) else None for one in scores]
    return NOT_KNOWN if None in values or not card.taught else f"{values[0]:.3f} → {values[1]:.3f}"


def details_text(version: Version, parent: Version | None) -> str:
    """Return all there is to know about a version, as rich text."""
    card = version.card
    facts = [("", version.reason)] if version.reason else []
    if card.taught:
        facts += _taught_facts(card, parent)
    licence = licence_text(card.licence)
    facts.append(("Licence", f"{licence}, {'free' if card.commercial_use else 'not'} for commercial use"))
    if card.training_data:
        facts.append(("Trained on", "; ".join(map(data_text, card.training_data))))
    facts += [("Notes", card.notes)] if card.notes else []
    facts.append(("File", str(version.path)))
    rows = [f"<p><b>{escape(model_title(version.title))}</b><br>{escape(version.name)}</p>"]
    rows += [f"<p>{f'<b>{title}</b><br>' if title else ''}{escape(text)}</p>" for title, text in facts if text]
    return "".join(rows)


def _taught_facts(card: ModelCard, parent: Version | None) -> list[tuple[str, str]]:
    taught = card.taught
    former = card.parent.partition("@")[0]
    told = model_title(parent.title) if parent is not None else f"{former}, which is no longer there"
    regions = [f"{one['name']} of {one['slide']} ({one['role']})" for one in taught.get("regions", ()) if "name" in one]
    return [
        ("Judged", str(taught.get("judged", ""))),
        ("Taught from", told),
        ("Regions", _few(regions)),
        ("Settings", _settings(taught)),
    ]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 7 else ""
    return ", ".join(names[: 6 if more else 7]) + more


def _settings(taught: Mapping[str, Any]) -> str:
    settings = taught.get("settings", {})
    named = (("steps", "steps"), ("learning_rate", "learning rate"), ("crop_px", "crop, px"), ("seed", "seed"))
    told = [f"{title} {settings[key]:g}" for key, title in named if key in settings]
    return "; ".join([*told, str(taught.get("made with", ""))]).strip("; ")
