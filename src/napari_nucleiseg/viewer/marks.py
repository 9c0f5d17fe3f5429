"""What people said of nuclei, as the layers show it: a class by its colour, an approval by a dotted outline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.outlines import NO_CLASSES, NO_IDS, Classes, Ids, Labels


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What was said of some nuclei.

    Parameters
    ----------
    classes : Classes
        Number 0 for those without a class.
    approved : ndarray of uint32, shape (n,)
        Those that are approved, ascending.
    """

    classes: Classes
    approved: Ids


class Marks:
    """Marks on the layers of the slide that is corrected; all methods are for the main thread.

    Parameters
    ----------
    session : Session
        Says whether to show what is approved.
    painted, overview : callable
        Return the layer that is painted on, and that of the whole slide; None where there is none. Approvals are shown
        on the first, which knows those around the view: all of a slide may be very many.
    """

    def __init__(
        self, session: Session, painted: Callable[[], Labels | None], overview: Callable[[], Labels | None]
    ) -> None:
        self._session, self._painted, self._overview = session, painted, overview
        self._classes = NO_CLASSES
        self._approved: Ids = NO_IDS
        session.events.show_approved.connect(self.show)

    def show(self) -> None:
        """Show what is known on the layers that there are."""
        painted = self._painted()
        if painted is not None:
            painted.show_classes(self._classes)
            painted.show_approved(self._approved if self._session.show_approved else NO_IDS)

    def put(self, said: Said) -> None:
        """Show what was said of all nuclei."""
        self._put_classes(said.classes)
        self.put_approved(said.approved)

    def _put_classes(self, classes: Classes) -> None:
        overview = self._overview()
        if classes is not self._classes and overview is not None:
            overview.show_classes(classes)
        self._classes = classes

    def put_approved(self, ids: Ids) -> None:
        """Show these nuclei (ascending) as approved, and no others."""
        self._approved = ids
        self.show()

    def change(self, said: Said) -> None:
        """Show what was said of some nuclei; of others it remains."""
        others = np.setdiff1d(self._approved, said.classes.ids, assume_unique=True)
        self._put_classes(self._classes.changed(said.classes))
        self.put_approved(np.union1d(others, said.approved))
