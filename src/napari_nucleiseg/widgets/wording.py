"""Numbers, names and colours as the panel tells them."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Collection, Mapping

from napari.utils.theme import get_theme

from napari_nucleiseg.core.store.journal import Step
from napari_nucleiseg.core.store.lock import Occupant
from napari_nucleiseg.viewer.messages import Counts, Progress
from napari_nucleiseg.viewer.unlabelled_engine import Trained

# Dark enough to read on a light theme, light enough on a dark one: no one colour is both.
WARNING_COLOURS = {"dark": "#e8963a", "light": "#984a00"}
LINK_COLOURS = {"dark": "#7ab7ff", "light": "#0a58ca"}

# What the two scores of a model mean.
SCORES = (
    "AJI: of all pixels in your nuclei and in the model's, the share on which both agree nucleus by nucleus; missed "
    "and false nuclei count against it.\nPQ: the share of nuclei that were found, times how well their outlines fit.\n"
    "Both lie between 0 and 1; 1 is perfect."
)

# Attention that lies on nuclei holds at least so many times the haematoxylin of what is around them.
LEAST_STAIN = 1.3

# As cards say it: nobody has named a licence.
NOT_STATED = "unknown"
PLAIN_LICENCES = {NOT_STATED: "not stated", "LicenseRef-own-picture": "your own picture"}

# What people did, by the kind that the history keeps.
STEPS = {
    "paint": "Painted",
    "erase": "Erased pixels of",
    "draw": "Drew",
    "propose": "Took a proposal:",
    "fill": "Filled",
    "fill holes": "Filled holes of",
    "smooth": "Smoothed",
    "grow": "Enlarged",
    "shrink": "Shrank",
    "merge": "Joined",
    "split": "Split",
    "delete": "Deleted",
    "reject": "Rejected",
    "approve": "Approved",
    "unapprove": "Took the approval back of",
    "classify": "Gave a class to",
    "import": "Imported",
    "like": "Took the like:",
    "region": "Outlined a region",
    "change region": "Changed a region",
    "remove region": "Deleted a region",
    "class": "Added a class",
    "change class": "Changed a class",
    "remove class": "Deleted a class",
    "paint attention": "Painted attention",
    "erase attention": "Erased painted attention",
}
# The same where there is room for a word or two; other kinds are their own words.
SHORT = {
    "paint": "brush",
    "draw": "outline",
    "propose": "proposal",
    "grow": "enlarging",
    "shrink": "shrinking",
    "merge": "join",
    "smooth": "smoothing",
    "like": "the like",
    "delete": "deletion",
    "reject": "rejection",
    "approve": "approval",
    "unapprove": "approval",
    "classify": "class",
    "change region": "region",
    "remove region": "region",
    "change class": "class list",
    "remove class": "class list",
    "class": "class list",
    "paint attention": "attention",
    "erase attention": "erasing",
}


# What becomes of a program whose place is taken.
LOSES = (
    "If you take over, nothing more can be written there: a segmentation that runs there ends, and a stroke that is "
    "being drawn is lost. What was finished is kept. Better close the slide there. Take over nevertheless?"
)


def take_over_text(occupant: Occupant | None) -> tuple[str, str]:
    """Return what to ask before the place of whoever writes is taken, and what comes of it."""
    if occupant is None:
        return "Nobody writes to the results of this slide any more.", "Go on here?"
    holder = occupant.holder
    when = when_text(holder.since, time.time())
    if occupant.is_gone:
        seen = "has ended" if occupant.is_here else f"gave no sign of life for {occupant.silent_s / 60:.0f} minutes"
        return f"The program of {holder.user} on {holder.host} {seen}.", "Go on here? What was finished there is kept."
    if occupant.is_own:
        who = "Another window of this program writes to this slide"
    elif occupant.is_here:
        who = f"{holder.user} writes to this slide in a program that is running on this machine (process {holder.pid})"
    else:
        ago = f"{occupant.silent_s:.0f} s ago"
        who = f"{holder.user} writes to this slide on {holder.host}, whose last sign of life was {ago}"
    return f"{who}, since {when}.", LOSES


def warning_colour(theme: str) -> str:
    """Return the colour of warnings on a napari theme."""
    return WARNING_COLOURS[str(get_theme(theme).type)]


def link_colour(theme: str) -> str:
    """Return the colour of links on a napari theme: Qt's own blue cannot be read on a dark one."""
    return LINK_COLOURS[str(get_theme(theme).type)]


def licence_text(licence: str) -> str:
    """Return a licence as a person would say it; SPDX identifiers of public licences stay as they are."""
    return " AND ".join(PLAIN_LICENCES.get(part, part) for part in licence.split(" AND "))


def data_text(entry: str) -> str:
    """Return what a card says of training data, with the licence in it as a person would say it."""
    for identifier, plain in PLAIN_LICENCES.items():
        entry = entry.replace(f"({identifier})", f"({plain})")
    return entry


def use_text(licence: str, *, commercial_use: bool) -> str:
    """Return what may be done with a model, in a few words."""
    if licence == NOT_STATED:
        said = "Licence not stated"
    elif commercial_use and licence.count(" AND ") > 1:
        # One that was taught with many collections has as many licences.
        said = "Any use (open licences)"
    else:
        said = licence_text(licence)
    said = f"{said[0].upper()}{said[1:]}"
    return said if commercial_use else f"{said} · research use only"


def model_title(title: str) -> str:
    """Return what a model is called where room is short: without the pixel size that it works at."""
    return re.sub(r",? \(?[\d.]+ [uµ]m/px\)?$", "", title)


def model_titles(titles: Mapping[str, str], taught: Collection[str] = ()) -> dict[str, str]:
    """Return what models are called in a list to choose from, where versions of one must be told apart.

    Parameters
    ----------
    titles : mapping
        From names of models to their titles.
    taught : collection of str
        Names of those that were taught: theirs stands behind the title, as it does wherever two are called the same.
    """
    short = {name: model_title(title) for name, title in titles.items()}
    often = Counter(short.values())
    return {
        name: f"{title} ({name})" if title != name and (name in taught or often[title] > 1) else title
        for name, title in short.items()
    }


def turn_text(word: str, kind: str) -> str:
    """Return what a button to undo or redo (`word`) says; `kind` is what it would turn, empty for nothing."""
    return f"{word} {SHORT.get(kind, kind)}".strip()


def step_text(step: Step) -> str:
    """Return what a step of the history did."""
    done = STEPS.get(step.kind, step.kind.capitalize())
    if not step.nuclei:
        return done
    return f"{done} {step.nuclei:,} {'nucleus' if step.nuclei == 1 else 'nuclei'}"


def when_text(at: float, now: float) -> str:
    """Return when something was, to the minute; the day only if it was not today."""
    then, today = time.localtime(at), time.localtime(now)
    if then[:3] == today[:3]:
        return time.strftime("today %H:%M:%S", then)
    return time.strftime("%d %b %H:%M" if then.tm_year == today.tm_year else "%d %b %Y %H:%M", then)


def origin_title(origin: str) -> str:
    """Return a person's name as it is, and the version of a model in a few letters."""
    name, at, version = origin.rpartition("@")
    return f"{name} ({version[:6]})" if at else origin


def time_left(seconds: float) -> str:
    """Return roughly how long it will still take."""
    if seconds < 55:
        return f"{max(10, math.ceil(seconds / 10) * 10)} s left"
    minutes = seconds / 60
    return f"{minutes:.0f} min left" if minutes < 90 else f"{round(minutes / 30) / 2:g} h left"


def progress_text(progress: Progress) -> str:
    """Return what stands in the bar: how much of it is done, and how long the rest will take if that is known."""
    text = f"{progress.done:,} of {progress.total:,}"
    if progress.left_s is None:
        return f"{progress.title} {text}"
    return f"{text}  ·  {time_left(progress.left_s)}"


def trained_text(trained: Trained) -> str:
    """Return what a run without labels has come to, as rich text."""
    whole = trained.steps >= trained.total
    title = (
        f"All {trained.total:,} steps are done"
        if whole
        else f"Stopped after {trained.steps:,} of {trained.total:,} steps"
    )
    told = ["It is kept, and can be used." if whole else "It is kept; start again to go on."]
    if scores := trained.scores:
        if "f1" in scores:
            told.append(
                f"In tissue that it has not seen it and the shapes agree with an F1 of {scores['f1']:.2f}: look at the "
                "tile, and at the view with it, before you count."
            )
            return f"<b>{title}.</b> {' '.join(told)}"
        if "accuracy" in scores:
            told.append(
                f"At best it told the magnification {scores['accuracy']:.0%} of the time on slides that it had not "
                f"seen (chance is {1 / trained.powers:.0%})."
            )
        stain = scores.get("haematoxylin", 0.0)
        if scores.get("covered", 0.0) == 0:
            told.append("It looks nowhere yet: let it learn on.")
        elif stain < LEAST_STAIN:
            told.append(
                f"<b>What it looks at holds only {stain:.1f} times the haematoxylin of the rest: look at the tile, "
                "these may not be nuclei.</b>"
            )
        else:
            told.append(f"What it looks at holds {stain:.1f} times the haematoxylin of the rest.")
    return f"<b>{title}.</b> {' '.join(told)}"


def share_text(counts: Counts) -> str:
    """Return how much of the tissue there the counts speak of."""
    if counts.segmented == counts.nuclei == 0:
        return f"Nothing in {counts.where} is segmented yet"
    if counts.segmented == 0:
        return f"Nothing in {counts.where} was segmented, so there is no density"
    share = "<1%" if counts.segmented < 0.01 else "All" if counts.segmented > 0.995 else f"{counts.segmented:.0%}"
    return f"{share} of the {'tissue in ' if counts.knows_tissue else ''}{counts.where} is segmented"
