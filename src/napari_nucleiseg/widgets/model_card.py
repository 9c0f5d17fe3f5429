"""What a model or a network says of itself, as people read it: the card of the model browser."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from napari_nucleiseg.viewer.model_rows import Row
from napari_nucleiseg.widgets.wording import data_text, licence_text, model_title, use_text

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.catalogue import NetworkEntry

NOT_MEASURED = "not measured"
COUNTING = "being counted…"
NOT_KNOWN = "–"
# How papers are named: arXiv 1505.04597, doi 10.1109/TPAMI.2016.2644615.
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_DOI = re.compile(r"doi (10\.\d+/[^\s,;)]+)")


def short_title(row: Row) -> str:
    """Return the title; that of weights without the pixel size, as in the other lists."""
    return row.title if row.card is None else model_title(row.title)


def millions_text(count: int | str | None) -> str:
    """Return a number of parameters, in millions; nothing where it is not known."""
    return f"{count / 1e6:.1f} M" if isinstance(count, int) else ""


def state_text(row: Row, *, in_use: bool) -> str:
    """Return what may be done with it, in a word or two."""
    if in_use:
        return "in use"
    if not row.is_installed and row.entry is not None:
        return f"needs {row.entry.spec.needs}"
    if row.card is None:
        return "to train"
    return "ready" if row.is_free else "research use only"


def speed_text(entry: NetworkEntry | None) -> str:
    """Return how many megapixels a second its forward pass makes on one core."""
    return NOT_KNOWN if entry is None or entry.measured is None else f"{entry.measured.mp_per_s:.2g}"


def score_text(entry: NetworkEntry | None, name: str) -> str:
    """Return a score (``aji`` or ``pq``) after the training that all networks were given."""
    return NOT_KNOWN if entry is None or entry.measured is None else f"{getattr(entry.measured, name):.3f}"


def paper_html(paper: str, colour: str) -> str:
    """Return papers as rich text, with a link where arXiv or a DOI is named.

    Parameters
    ----------
    paper : str
        As `ModelSpec.paper` has it.
    colour : str
        Of links.
    """
    told = escape(paper)
    told = _ARXIV.sub(rf'<a style="color:{colour}" href="https://arxiv.org/abs/\1">arXiv \1</a>', told)
    return _DOI.sub(rf'<a style="color:{colour}" href="https://doi.org/\1">doi \1</a>', told)


def card_html(row: Row, parameters: int | str | None, colour: str) -> str:
    """Return all there is to know of a model or a network, as rich text.

    Parameters
    ----------
    row : Row
        Which.
    parameters : int, str or None
        Of its network; a sentence says why it cannot be built here; None if that is not known yet.
    colour : str
        Of links.
    """
    facts: list[tuple[str, str]] = []
    if row.card is not None:
        facts += _weight_facts(row)
    if row.entry is not None:
        facts += _network_facts(row, row.entry, parameters, colour)
    good_for = "" if row.entry is None else row.entry.spec.good_for
    rows = "".join(
        f'<tr><td style="padding-right:10px"><b>{title}</b></td><td>{text}</td></tr>' for title, text in facts if text
    )
    said = f"<p>{escape(good_for)}</p>" if good_for else ""
    return f"<p><b>{escape(short_title(row))}</b><br>{escape(row.name)}</p>{said}<table>{rows}</table>"


def _weight_facts(row: Row) -> list[tuple[str, str]]:
    card = row.card
    if card is None:
        return []
    return [
        ("Use", escape(use_text(card.licence, commercial_use=card.commercial_use))),
        ("Licence", escape(licence_text(card.licence))),
        ("Trained on", "<br>".join(escape(data_text(entry)) for entry in card.training_data)),
        ("Network", escape(card.network)),
    ]


def _network_facts(row: Row, entry: NetworkEntry, parameters: int | str | None, colour: str) -> list[tuple[str, str]]:
    spec, measured = entry.spec, entry.measured
    sees = f"{spec.receptive_field_px:,} px" if spec.receptive_field_px else "the whole tile"
    speed = accuracy = NOT_MEASURED
    if measured is not None:
        speed = f"{measured.mp_per_s:.2g} megapixels a second on one core"
        accuracy = (
            f"AJI {measured.aji:.3f}, PQ {measured.pq:.3f} after {measured.training}: "
            "how soon it learns, not how good it becomes"
        )
    return [
        ("Paper", paper_html(spec.paper, colour)),
        ("Code" if row.card is not None else "Licence of its code", escape(spec.licence)),
        ("Library", _library_html(entry, parameters)),
        ("Pixel size", f"{spec.mpp_um:g} µm, {'z-stacks' if spec.dimensions == 3 else 'slides and pictures'}"),
        ("Parameters", COUNTING if parameters is None else f"{parameters:,}" if isinstance(parameters, int) else ""),
        ("One pixel sees", f"{sees}, coarsest step {spec.stride} px"),
        ("Gives", escape("; ".join(head.title or head.name for head in spec.heads))),
        ("Speed", speed),
        ("Accuracy", accuracy),
        ("Weights", escape(", ".join(entry.weights) or "none yet") if row.card is None else ""),
    ]


def _library_html(entry: NetworkEntry, parameters: int | str | None) -> str:
    """Return which package it needs, whether that is here, and the line that installs it if not."""
    if isinstance(parameters, str):
        return escape(parameters)
    if not entry.spec.needs:
        return ""
    return escape(entry.missing or f"{entry.spec.needs}, installed")
