"""Decoding where the network has run: label images come back in place of the maps they are made from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.decoders.offsets_on_device import label_offsets
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.spec import ModelSpec

VARIABLE = "NUCLEISEG_DEVICE_DECODE"
LABELS = "label image"  # among the maps; no head is called so


@dataclass(frozen=True, slots=True)
class DeviceDecode:
    """Turns maps of a batch into label images, on their device.

    Parameters
    ----------
    mpp_um : float
        Micrometres per pixel of the maps.
    threshold : float
        Foreground probability above which a pixel belongs to a nucleus, 0..1.
    kept : frozenset of str
        Maps that come back too.
    """

    mpp_um: float
    threshold: float
    kept: frozenset[str]

    def __call__(self, maps: Mapping[str, Tensor], windows: Sequence[Region]) -> dict[str, Tensor]:
        """Return the maps that come back, and under `LABELS` what nuclei there are, int32, ``(n, 1, y, x)``.

        Parameters
        ----------
        maps : mapping of str to Tensor, shape (n, channels, y, x)
            Foreground and offsets as they are stored, and others.
        windows : sequence of Region
            Part of each picture, in its pixels, that lies on the slide: nothing else votes.
        """
        nuclei, offsets = maps["nuclei"], maps["offsets"]
        labels = torch.zeros(nuclei.shape, dtype=torch.int32, device=nuclei.device)
        for window in dict.fromkeys(windows):  # nearly all are the same: only the slide's edges cut some
            alike = [place for place, other in enumerate(windows) if other == window]
            # All of a batch without a list of indices, which would have to be sent to the device first.
            which = slice(None) if len(alike) == len(windows) else alike
            rows, columns = window.slices
            found = label_offsets(
                nuclei[which][..., rows, columns], offsets[which][..., rows, columns], self.mpp_um, self.threshold
            )
            labels[which, 0, rows, columns] = found
        return {name: values for name, values in maps.items() if name in self.kept} | {LABELS: labels}


def device_decode_wanted() -> bool:
    """Whether the environment asks for decoding on the device: ``NUCLEISEG_DEVICE_DECODE=1``."""
    return os.environ.get(VARIABLE, "") == "1"


def device_decode(
    spec: ModelSpec, mpp_um: float, options: DecodeOptions | None, heads: Sequence[str] | None
) -> DeviceDecode | None:
    """Return how to decode on the device; None where that is not asked for or there is no way.

    Parameters
    ----------
    spec : ModelSpec
        Names the decoder: only ``offsets`` can.
    mpp_um : float
        Micrometres per pixel of the maps.
    options : DecodeOptions or None
        None if maps alone are wanted.
    heads : sequence of str or None
        Maps wanted beside the nuclei; None for no more than finding nuclei needs.
    """
    if options is None or spec.decoder != "offsets" or not device_decode_wanted():
        return None
    return DeviceDecode(mpp_um, options.threshold, frozenset(("nuclei",) if heads is None else heads))
