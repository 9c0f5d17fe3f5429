"""Attention fitted to one slide: its level tau alone, in a second, or all weights, in a short run without labels."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import PurePath

from napari_nucleiseg.core.errors import DataError, ModelError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.scale_attention import ScaleAttention, estimate_tau, with_tau
from napari_nucleiseg.core.models.weights import LoadedModel, encode_model
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.training.scales.config import ScaleConfig
from napari_nucleiseg.core.training.scales.loop import PretrainStep, pretrain
from napari_nucleiseg.core.training.scales.samples import ScaleSource
from napari_nucleiseg.core.training.scales.slide_level import choose_windows

ADAPTATION = ScaleConfig(
    out="", steps=200, batch_size=12, learning_rate=5e-5, hold_out=0.0, reinhard=0.0, validate_every=50
)
"""Settings of a short fit; what a slide looks like is what is learned, so its colours stay its own."""


def adapt(
    model: LoadedModel,
    slide: Slide,
    regions: Sequence[Region] = (),
    config: ScaleConfig = ADAPTATION,
    *,
    licence: str = "",
) -> Iterator[PretrainStep]:
    """Fit a model to a slide without labels; closing the generator stops, the former model is never changed.

    Parameters
    ----------
    model : LoadedModel
        Of a network of scale attention; it says where nuclei are before the fit.
    slide : Slide
        With a stated pixel size.
    regions : sequence of Region
        Level-0 pixels to learn from; empty means all tissue.
    config : ScaleConfig
        Settings; where `out` is empty, nothing is left on disk. Magnifications that the slide lacks are left out.
    licence : str
        SPDX identifier of the slide; without it the licence of the new weights is not known.

    Yields
    ------
    PretrainStep
        One a step; the last one holds the fitted model, whose parent is `model`.

    Raises
    ------
    DataError
        If there is too little tissue in the regions.
    ModelError
        If the model is of another network.
    """
    _require_attention(model)
    source = ScaleSource(PurePath(slide.path).name, slide, tuple(regions), licence)
    powers = tuple(power for power in config.magnifications if source.factor(power) is not None)
    if len(powers) < 2:
        raise DataError(f"{source.name} is too coarse: two of the magnifications must be no finer than it is")
    config = replace(config, magnifications=powers)
    with tempfile.TemporaryDirectory(prefix="nucleiseg-") as scratch:
        settings = config if config.out else replace(config, out=scratch, resume=False)
        with closing(pretrain(settings, [source], model)) as steps:  # type: ignore[type-var] # a generator
            for step in steps:
                fitted = None if step.model is None else _descendant(model, step.model, source, config)
                yield replace(step, model=fitted)


def _descendant(parent: LoadedModel, fitted: LoadedModel, source: ScaleSource, config: ScaleConfig) -> LoadedModel:
    """Return the fitted model with a card that says what it comes from; its licence is that of its parent."""
    card = replace(
        parent.card,
        parent=parent.version,
        licence=" AND ".join(dict.fromkeys(filter(None, (parent.card.licence, source.licence)))),
        commercial_use=parent.card.commercial_use and "-NC" not in source.licence,
        training_data=(*parent.card.training_data, f"{source.name}, no labels ({source.licence or 'the own slide'})"),
        metrics=fitted.card.metrics,
        notes=fitted.card.notes,
        created="",
        sha256="",
        level_is_set=config.level_is_fixed,  # the weights are others, and so is their level
        taught={
            "family": str(parent.card.taught.get("family", parent.card.name)),
            "slides": [{"name": source.name, "fingerprint": source.slide.fingerprint}],
            "regions": [asdict(region) for region in source.regions],
            "settings": asdict(config),
        },
    )
    _, card = encode_model(fitted.network, fitted.spec, card, half=False)
    return LoadedModel(fitted.spec, card, fitted.network)


def tau_of_slide(
    model: LoadedModel,
    slide: Slide,
    regions: Sequence[Region] = (),
    *,
    share: float | None = None,
    otsu: bool = False,
    seed: int = 0,
) -> float:
    """Return the level of attention that a stated share of a slide's tissue exceeds.

    Tiles share it, so it makes no seams; give the model to `with_tau` and segment with what that returns.

    Parameters
    ----------
    model : LoadedModel
        Of a network of scale attention.
    slide : Slide
        With a stated pixel size.
    regions : sequence of Region
        Level-0 pixels to look at; empty means all tissue. Up to 24 windows are looked at.
    share : float, optional
        0..1; default the network's own, 0.07 as published, which is less than nuclei take up in most tissue.
    otsu : bool
        Let Otsu's threshold say how much of this tissue is worth a look, in place of `share`.
    seed : int
        Chooses the windows.

    Raises
    ------
    DataError
        If there is no tissue in the regions.
    ModelError
        If the model is of another network.
    """
    network = _require_attention(model)
    windows = choose_windows(model.spec, slide, regions, seed=seed)
    pictures = (windows.read(slide, number) for number in range(len(windows)))
    return estimate_tau(network, model.spec, pictures, share=share, otsu=otsu)


def at_slide_level(
    model: LoadedModel,
    slide: Slide,
    regions: Sequence[Region] = (),
    *,
    share: float | None = None,
    otsu: bool = False,
) -> LoadedModel:
    """Return a copy of a model whose level is set to that of a slide or of regions of it; see `tau_of_slide`."""
    return with_tau(model, tau_of_slide(model, slide, regions, share=share, otsu=otsu))


def _require_attention(model: LoadedModel) -> ScaleAttention:
    if not isinstance(model.network, ScaleAttention):
        raise ModelError(
            f"{model.card.name} is a model of the network {model.spec.name}, which has no attention to fit; "
            "choose one of scale-attention"
        )
    return model.network
