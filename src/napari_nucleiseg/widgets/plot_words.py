"""What plots say in words: how values are spread, and what is selected."""

from __future__ import annotations

from napari_nucleiseg.viewer.plot_data import Summary


def number_text(value: float) -> str:
    """Return a value with about three digits that mean something."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"


def summary_text(title: str, summary: Summary | None) -> str:
    """Return what there is to say of one quantity of some nuclei, as rich text."""
    if summary is None:
        return f"<b>{title}</b><br>not measured of any nucleus"
    missing = f"<br>{summary.missing:,} without a value" if summary.missing else ""
    return (
        f"<b>{title}</b>, {summary.number:,} {'nucleus' if summary.number == 1 else 'nuclei'}<br>"
        f"median {number_text(summary.median)}, "
        f"middle half {number_text(summary.low)} to {number_text(summary.high)}<br>"
        f"mean {number_text(summary.mean)} ± {number_text(summary.spread)}{missing}"
    )


def selected_text(selected: int, plotted: int) -> str:
    """Return how many nuclei are selected, and how many of them the plot shows."""
    if not selected:
        return "Nothing selected."
    shown = "" if plotted == selected else f", {plotted:,} of them plotted"
    return f"{selected:,} selected{shown}."
