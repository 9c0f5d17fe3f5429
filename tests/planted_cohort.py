"""Files of features of slides that nobody scanned: which of a slide's regions carry its label is known."""

import csv

import numpy as np

from napari_nucleiseg.core.training.cohort.bags import ENDING, Bag, BagCard, write_bag

ENCODERS = ("patches@0123456789ab", "regions@ba9876543210")
WIDTH = 12
PLANTED = 3


def card(name, **changes):
    facts = {"fingerprint": name, "encoders": ENCODERS, "settings": "test", "licence": "CC0-1.0"}
    return BagCard(f"{name}.svs", **{**facts, "commercial_use": True, **changes})


def write_slide(folder, name, *, kind=0.0, regions=16, seed=0, **changes):
    """Write a bag of noise whose first regions differ from it by what `kind` says; return its path."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (regions, WIDTH)).astype(np.float32)
    features[:PLANTED, 0] += 5
    features[:PLANTED, 1] += 5 * kind
    starts = np.stack(np.divmod(np.arange(regions), 4), axis=1) * 100
    path = folder / f"{name}{ENDING}"
    write_bag(path, Bag(card(name, **changes), features, np.concatenate((starts, starts + 100), axis=1)))
    return path


def write_labels(path, columns, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows((columns, *rows))
    return path


def write_classes(folder, count=24, *, names=("no response", "response"), shuffled=False, seed=0):
    """Write slides of as many classes as there are names, two a patient; return the labels' path."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) // 2 % len(names)
    for number, kind in enumerate(kinds):
        write_slide(folder, f"s{number:03d}", kind=2 * kind / (len(names) - 1) - 1, seed=1000 * seed + number)
    told = kinds[::2].copy()
    if shuffled:
        rng.shuffle(told)
    rows = [(f"s{number:03d}", names[told[number // 2]], f"p{number // 2:03d}") for number in range(count)]
    return write_labels(folder / "labels.csv", ("slide", "label", "patient"), rows)


def write_survival(folder, count=30, *, shuffled=False, seed=0):
    """Write slides whose planted regions say how soon it happens; a quarter is lost from sight before."""
    rng = np.random.default_rng(seed)
    hazards = rng.uniform(-1, 1, count)
    times = 20 * np.exp(-2 * hazards) * rng.exponential(1, count) ** 0.3
    events = rng.random(count) > 0.25
    times = np.where(events, times, times * rng.uniform(0.3, 1, count))
    for number, hazard in enumerate(hazards):
        write_slide(folder, f"s{number:03d}", kind=hazard, seed=1000 * seed + number)
    order = rng.permutation(count) if shuffled else np.arange(count)
    rows = [(f"s{number:03d}", f"{times[o]:.3f}", int(events[o])) for number, o in enumerate(order)]
    return write_labels(folder / "labels.csv", ("slide", "time", "event"), rows)
