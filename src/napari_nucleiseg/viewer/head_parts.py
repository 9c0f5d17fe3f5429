"""All that the heads of one viewer can do, made and closed together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_nucleiseg.viewer.encoder_download import EncoderDownload
from napari_nucleiseg.viewer.heads import Heads
from napari_nucleiseg.viewer.heads_nuclei import HeadsNuclei
from napari_nucleiseg.viewer.heads_pointing import HeadsPointing
from napari_nucleiseg.viewer.heads_slide import HeadsSlide
from napari_nucleiseg.viewer.heads_teaching import HeadsTeaching

if TYPE_CHECKING:
    from napari_nucleiseg.viewer.controller import Controller


class HeadParts:
    """The parts of one viewer.

    Parameters
    ----------
    controller : Controller
        Of that viewer.
    """

    def __init__(self, controller: Controller) -> None:
        self.heads = Heads(controller)
        """Looks at the view and shows maps of it."""
        self.pointing = HeadsPointing(self.heads)
        """Ties the pointer on the slide to the maps."""
        self.nuclei = HeadsNuclei(self.heads)
        """Ranks heads against nuclei."""
        self.teaching = HeadsTeaching(self.heads)
        """Teaches a head what was painted."""
        self.slide = HeadsSlide(self.heads)
        """Shows where a model of whole slides looked."""
        self.download = EncoderDownload(self.heads)
        """Gets the encoders that others publish."""
        controller.display.viewer.layers.events.removed.connect(self._on_layer_removed)

    def _on_layer_removed(self, event: Any) -> None:
        """A pinned map may be taken away in the list of layers as well."""
        for pin in [pin for pin in self.heads.pins if pin.layer == event.value]:
            self.heads.unpin(pin)

    def close(self) -> None:
        """Stop, and take all layers away."""
        for part in (self.slide, self.teaching, self.nuclei, self.pointing, self.heads):
            part.close()
