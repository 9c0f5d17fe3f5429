"""One run without labels: its settings, where it is kept, what it told before, what its slides allow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.weights import user_folder
from napari_nucleiseg.core.training.by_shape.config import ByShapeConfig
from napari_nucleiseg.core.training.scales.config import SHAPED, ScaleConfig, judge
from napari_nucleiseg.state import SHAPE_NETWORKS, SIZES, UnlabelledWishes

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import LoadedModel
    from napari_nucleiseg.core.training.scales.examination import Glance
    from napari_nucleiseg.core.training.scales.samples import ScaleSource

Run = ScaleConfig | ByShapeConfig
OneRun = TypeVar("OneRun", bound=Run)

# What the small network needs besides: half the width, and a rate that fits.
SMALL = ScaleConfig(params={"width": 32}, learning_rate=5e-4, classifier_width=32)
CHECKPOINT_EVERY = 50
VALIDATION_CROPS = 16
PLACES_HELD_OUT = (
    "Of one slide the curve is of places that it does not learn from, where there is room for some. Two slides or more "
    "give a curve that says more."
)
# Settings that do not make another run of it.
_SAME_RUN = ("steps", "out", "device", "threads", "slides", "validate", "validate_every", "checkpoint_every")


def config_of(wishes: UnlabelledWishes, device: str) -> Run:
    """Return the run that the user wants; slides and folder are not named yet."""
    if wishes.network not in SHAPE_NETWORKS:
        return _attention(wishes, device)
    return ByShapeConfig(
        network=wishes.network,
        steps=wishes.steps,
        crop_px=wishes.crop_px,
        batch_size=wishes.batch_size,
        hold_out=round(wishes.hold_out, 2),
        validate_every=min(wishes.measure_every, wishes.steps),
        device=device,
    )


def fit_of(wishes: UnlabelledWishes, network: str, device: str) -> ScaleConfig:
    """Return how a model of attention is fitted to a slide; it has the sizes of a run of its network."""
    if wishes.network in SHAPE_NETWORKS:
        sizes: dict[str, Any] = dict(SIZES[network])
        wishes = replace(wishes, network=network, **sizes)
    config, steps = _attention(wishes, device), wishes.fit_steps
    return replace(config, steps=steps, validate_every=max(1, min(config.validate_every, steps // 2)))


def _attention(wishes: UnlabelledWishes, device: str) -> ScaleConfig:
    base = ScaleConfig() if wishes.network == "scale-attention" else SMALL
    params = {**base.params, "sparsity": round(wishes.sparsity, 3)}
    return replace(
        base,
        network=wishes.network,
        params=params,
        losses=dict(SHAPED if wishes.by_shape else base.losses),
        steps=wishes.steps,
        crop_px=wishes.crop_px,
        batch_size=wishes.batch_size,
        hold_out=round(wishes.hold_out, 2),
        validate_every=min(wishes.measure_every, wishes.steps),
        validation_crops=VALIDATION_CROPS,
        checkpoint_every=CHECKPOINT_EVERY,
        imagenet="download" if wishes.imagenet else "",
        device=device,
    )


def runs_folder() -> Path:
    """Folder of all runs, where the user names none."""
    return user_folder() / "pretraining"


def magnifications_of(sources: Sequence[ScaleSource], config: ScaleConfig) -> tuple[float, ...]:
    """Return the magnifications that at least one slide is fine enough for."""
    found = tuple(power for power in config.magnifications if any(one.factor(power) is not None for one in sources))
    if len(found) < 2:
        raise DataError(
            "These slides are too coarse: at least two of 10×, 20× and 40× are needed, which takes 0.5 µm per pixel or "
            "less. Add slides that were scanned at 20× or 40×."
        )
    return found


def with_magnifications(sources: Sequence[ScaleSource], config: Run) -> tuple[Run, tuple[float, ...]]:
    """Return a run with the magnifications that its slides have, and these; none where it does not tell them apart."""
    if isinstance(config, ByShapeConfig):
        return config, ()
    powers = magnifications_of(sources, config)
    return replace(config, magnifications=powers), powers


def run_folder(runs: Path, config: Run, sources: Sequence[ScaleSource], initial: LoadedModel | None) -> Path:
    """Return where a run is kept: the same slides and settings come back to the same place."""
    told = {key: value for key, value in asdict(config).items() if key not in _SAME_RUN}
    seen = sorted(
        (source.slide.fingerprint or source.name, str(source.slide.mpp_um), str(source.regions)) for source in sources
    )
    start = "" if initial is None else initial.version
    digest = hashlib.sha256(json.dumps([told, seen, start], sort_keys=True, default=str).encode()).hexdigest()[:10]
    return runs / f"{'by-shape' if isinstance(config, ByShapeConfig) else config.network}-{digest}"


def _log(out: Path) -> list[dict[str, float]]:
    """Return what was measured; half a line that a crash has left says nothing."""
    try:
        lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [json.loads(line) for line in lines if line.endswith("}")]


def measured_before(out: Path) -> tuple[tuple[int, float], ...]:
    """Return step and score of what was measured in a run that goes on."""
    if not (out / "last.pt").exists():
        return ()
    return tuple((int(line["step"]), score_in(line)) for line in _log(out))


def score_in(measured: Mapping[str, float]) -> float:
    """Return what the curve shows: how often the magnification is told, or how well shapes are met (F1)."""
    return float(measured["accuracy"] if "accuracy" in measured else measured["f1"])


def _chosen_by(measured: Mapping[str, float]) -> float:
    return measured["choice"] if "choice" in measured else judge(measured)


def best_of(out: Path) -> dict[str, float]:
    """Return the best of what was measured; of equals the later one, as the weights are chosen."""
    return max(reversed(_log(out)), key=_chosen_by, default={})


def seen_on(glance: Glance) -> dict[str, float]:
    """Return which share of the tile is looked at, and how many times denser haematoxylin is there."""
    from napari_nucleiseg.core.slides.stains import stain_densities

    looked = glance.attention > 0.5
    share = float(looked.mean())
    if not 0 < share < 1:
        return {"covered": share, "haematoxylin": float(share)}
    stain = stain_densities(glance.picture)[..., 0]
    return {"covered": share, "haematoxylin": float(stain[looked].mean() / max(stain[~looked].mean(), 1e-6))}


def note_on(sources: Sequence[ScaleSource], config: Run) -> str:
    """Return what there is to say of the slides."""
    if isinstance(config, ByShapeConfig):
        if not config.hold_out:
            return "Nothing is held out, so there is no curve of how well it does."
        return "" if len(sources) > 1 else PLACES_HELD_OUT
    said = []
    if len(config.magnifications) < 3:
        told = " and ".join(f"{power:g}×" for power in config.magnifications)
        said.append(f"No slide is as fine as 0.25 µm per pixel: {told} are told apart.")
    if len(sources) < 2 or not config.hold_out:
        said.append(
            "Nothing is held out, so the curve is of what it learns from. Two slides or more give a curve that says "
            "more."
        )
    return " ".join(said)
