"""What differs between the two stages: what is looked at, and what the encoder must know of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.encoders import PATCH, REGION, EncoderSpec, LoadedEncoder, build_encoder, load_encoder
from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.dino.examination import HELD_OUT_STREAM
from napari_nucleiseg.core.training.dino.grids import GridReader, GridSamples
from napari_nucleiseg.core.training.dino.learner import Params
from napari_nucleiseg.core.training.dino.patches import PatchSamples, read_patches
from napari_nucleiseg.core.training.dino.processes import Processes
from napari_nucleiseg.core.training.dino.views import Samples
from napari_nucleiseg.core.training.scales.samples import ScaleSource


class Stage(Protocol):
    """One of the two stages."""

    @property
    def params(self) -> Params:
        """Parameters of the encoder's build function, complete."""

    @property
    def patch_card(self) -> ModelCard | None:
        """Card of the encoder of patches whose features are read; None on pixels."""

    def samples(self, sources: Sequence[ScaleSource], *, held_out: bool = False) -> Samples:
        """Return what to take crops from."""


def stage_of(
    config: DinoConfig, processes: Processes, device: str, patch_encoder: LoadedEncoder | None = None
) -> Stage:
    """Return the stage that a configuration names.

    Raises
    ------
    DataError
        If the encoder does not fit it.
    ModelError
        If an encoder is not there.
    """
    if config.stage == 1:
        return PatchStage(config)
    return RegionStage(config, patch_encoder or load_encoder(config.patch_encoder), device, processes)


class PatchStage:
    """An encoder of patches learns from pixels.

    Parameters
    ----------
    config : DinoConfig
        The run.

    Raises
    ------
    DataError
        If the encoder reads no pixels, or its tokens do not fit the crops.
    ModelError
        If there is no such encoder.
    """

    patch_card: ModelCard | None = None

    def __init__(self, config: DinoConfig) -> None:
        self.config = config
        given = dict(config.params)
        self.spec, _ = build_encoder(config.encoder_name, given)
        check_kind(self.spec, PATCH)
        for name in ("global_px", "local_px"):
            side = getattr(config, name)
            if side % self.spec.patch_px:
                lower = side // self.spec.patch_px * self.spec.patch_px
                nearest = " or ".join(str(fit) for fit in (lower, lower + self.spec.patch_px) if fit)
                raise DataError(
                    f"{name} of {side} is no multiple of the {self.spec.patch_px} pixels of a token of "
                    f"{self.spec.name}; choose {nearest}"
                )
        # Positions are learned for the crops that both see.
        self.params: Params = {"grid": config.global_px // self.spec.patch_px, **given}

    def samples(self, sources: Sequence[ScaleSource], *, held_out: bool = False) -> PatchSamples:
        """Read patches to take crops from."""
        config = self.config
        count, stream = (config.measured, HELD_OUT_STREAM) if held_out else (config.patches, 0)
        return PatchSamples(read_patches(sources, self.spec, config, count, stream), config)


class RegionStage:
    """An encoder of regions learns from the features of their patches.

    Parameters
    ----------
    config : DinoConfig
        The run.
    patches : LoadedEncoder
        Of patches.
    device : str
        Where it runs.
    processes : Processes
        That make features.

    Raises
    ------
    DataError
        If one of the encoders is of another kind, or they do not fit each other.
    ModelError
        If there is no such encoder.
    """

    def __init__(self, config: DinoConfig, patches: LoadedEncoder, device: str, processes: Processes) -> None:
        self.config = config
        if patches.spec.kind != PATCH:
            raise DataError(
                f"{patches.version} is an encoder of regions, and its features are not what regions are made of; "
                "give the one that stage 1 has made (patch_encoder)"
            )
        spec = patches.spec
        self.params: Params = {
            "features": spec.embed,
            "input_px": spec.input_px,
            "mpp_um": spec.mpp_um,
            "grid": config.global_cells,
            **config.params,
        }
        found, _ = build_encoder(config.encoder_name, self.params)
        check_kind(found, REGION)
        if (found.features, found.input_px, found.mpp_um) != (spec.embed, spec.input_px, spec.mpp_um):
            raise DataError(
                f"{patches.version} gives {spec.embed} features of patches of {spec.input_px} px at {spec.mpp_um:g} µm "
                f"each, that of regions was told {found.features}, {found.input_px} px, {found.mpp_um:g} µm: "
                "leave features, input_px and mpp_um out of its params"
            )
        self.patch_card: ModelCard | None = patches.card
        self.reader = GridReader(config, patches, device, processes)

    def samples(self, sources: Sequence[ScaleSource], *, held_out: bool = False) -> GridSamples:
        """Make the features of regions to take crops from."""
        count, stream = (self.config.measured, HELD_OUT_STREAM) if held_out else (self.config.regions, 0)
        return GridSamples(self.reader.read(sources, count, stream), self.config)


def check_kind(spec: EncoderSpec, kind: str) -> None:
    """Refuse an encoder that reads something else than a stage gives.

    Raises
    ------
    DataError
        With which stage it is for.
    """
    if spec.kind != kind:
        stage = 1 if spec.kind == PATCH else 2
        raise DataError(f"encoder {spec.name} is one of a {spec.kind}; it learns in stage {stage}, choose that")
