"""What a model states about itself: pixel size, normalisation, heads, tiles, licence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from napari_nucleiseg.core.errors import ModelError

# Name of the head that says where a network looks.
ATTENTION = "attention"
# Heads of vectors ``(y, x)``: where a picture is mirrored these point the other way.
VECTORS = frozenset({"offsets", "hover"})
# Whose level of attention decides what is a nucleus: that of the slide at hand, or the one a model was trained with.
SLIDE_LEVEL, MODEL_LEVEL = LEVELS = ("slide", "model")

# Networks of this package that are for z-stacks: lists that import no network leave them out, or show them alone.
STACK_NETWORKS = ("unet-3d", "v-net")


def dimensions_of(network: str) -> int:
    """Return whether a network is for slides and pictures (2) or z-stacks (3), by its name."""
    return 3 if network in STACK_NETWORKS else 2


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """One named output map of a model.

    Parameters
    ----------
    name : str
        Key in the dict that ``forward`` returns.
    channels : int
        Number of channels of that map.
    activation : {"sigmoid", "none"}
        What turns the raw output into the stored map. Sigmoid maps lie in 0..1; others are in model pixels, but for
        ``hover``, which goes from -1 to 1 in each nucleus.
    title : str
        For people; shown as the heatmap's name.
    shown : bool
        Whether it is offered as a heatmap.
    """

    name: str
    channels: int = 1
    activation: str = "sigmoid"
    title: str = ""
    shown: bool = True


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything the engine must know to run a network; frozen and comparable.

    Parameters
    ----------
    name : str
        Registry name, e.g. ``nuclei``.
    title : str
        One line for people.
    mpp_um : float
        Micrometres per pixel of the network's input; the planner resamples every slide to it.
    heads : tuple of HeadSpec
        Outputs, all of the input's height and width (a network with a stride upsamples its own output).
    decoder : str
        Name of the decoder (``core.decoders``) that turns heads into nuclei.
    mean, std : tuple of float
        Normalisation of RGB in 0..1.
    tile_px : int
        Side of a tile's core in model pixels.
    halo_px : int
        Margin read around the core on each side, in model pixels.
    size_multiple : int
        Input sides must be divisible by this.
    output_margin_px : int
        Pixels lost on each side of the input (valid convolutions); 0 for padded networks.
    paper : str
        Source of the method.
    licence : str
        SPDX identifier of the network's code: this package's, or that of the library whose class it is.
    receptive_field_px : int
        Side of what one output pixel can see, in model pixels; 0 where it sees the whole input (attention over all of
        it, pooling over all of it).
    stride : int
        Model pixels of one step at the network's coarsest level.
    good_for : str
        A sentence for people who choose a network.
    needs : str
        Name of the package without which it cannot be built, of the extra ``zoo``; empty where there is none.
    dimensions : int
        2 for pictures ``(batch, 3, y, x)``, 3 for stacks of one channel, ``(batch, 1, z, y, x)``: their voxels are
        cubes of `mpp_um`, their grey values 0..1 from the darkest to the brightest of the stack.
    params : mapping
        Keyword arguments of the build function that this spec was made with.
    """

    name: str
    title: str
    mpp_um: float
    heads: tuple[HeadSpec, ...]
    decoder: str
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    tile_px: int = 1024
    halo_px: int = 56
    size_multiple: int = 16
    output_margin_px: int = 0
    paper: str = ""
    licence: str = "BSD-3-Clause"
    receptive_field_px: int = 0
    stride: int = 1
    good_for: str = ""
    needs: str = ""
    dimensions: int = 2
    params: Mapping[str, int | float | str | bool] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        side = self.tile_px + 2 * self.halo_px
        if side % self.size_multiple and not self.output_margin_px:
            raise ModelError(
                f"model {self.name}: a tile with its halo is {side} px, which is not a multiple of "
                f"{self.size_multiple}; choose tile_px and halo_px so that it is"
            )

    @property
    def channels(self) -> int:
        """Channels of all heads together, in the order of `heads`."""
        return sum(head.channels for head in self.heads)

    @property
    def attends(self) -> bool:
        """Whether it says where it looks, so that painted attention can teach it."""
        return any(head.name == ATTENTION for head in self.heads)

    def for_images_of(self, dimensions: int) -> ModelSpec:
        """Return itself if it is for slides and pictures (2) or z-stacks (3), whichever is meant.

        Raises
        ------
        ModelError
            If it is for the other.
        """
        if self.dimensions == dimensions:
            return self
        if self.dimensions == 3:
            raise ModelError(
                f"network {self.name} is for z-stacks, not for slides and pictures: use its weights with "
                "napari-nucleiseg segment-stack, or in napari with Layers > Segment > Nuclei in a stack."
            )
        raise ModelError(
            f"network {self.name} is for slides and pictures, not for z-stacks. Train one for stacks first: "
            "napari-nucleiseg train --network unet-3d"
        )

    def fitting_side(self, wanted_px: int) -> int:
        """Return the smallest side of an output, at least `wanted_px`, that the network can give.

        Sides that fit differ from a full tile's by whole multiples of `size_multiple`, for padded networks and for
        valid convolutions alike; the input is larger by ``2 * output_margin_px``.
        """
        full = self.tile_px + 2 * self.halo_px
        return wanted_px + (full - wanted_px) % self.size_multiple

    def head(self, name: str) -> HeadSpec:
        """Return the head called `name`.

        Raises
        ------
        ModelError
            If the model has no such head.
        """
        for head in self.heads:
            if head.name == name:
                return head
        raise ModelError(
            f"model {self.name} has no output called {name}; it has {', '.join(h.name for h in self.heads)}"
        )


def as_trained(spec: ModelSpec, decoder: str, mean: Sequence[float], std: Sequence[float]) -> ModelSpec:
    """Return a network's spec with what its weights were trained for; what is empty stays the network's own.

    Parameters
    ----------
    spec : ModelSpec
        Of the network.
    decoder : str
        Name of a decoder.
    mean, std : sequence of float
        Normalisation of RGB in 0..1, three numbers each.
    """
    if decoder:
        spec = replace(spec, decoder=decoder)
    if mean and std:
        spec = replace(spec, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))
    return spec
