"""Nuclei that are put where none are: what they mean for the tables follows from their own pixels alone."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.census import Census
from napari_nucleiseg.core.store.ledger import APPROVED
from napari_nucleiseg.core.store.merge import State
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.core.store.packing import Row
from napari_nucleiseg.core.store.pixels import encode_runs
from napari_nucleiseg.core.store.retouch import Runs, measure_runs


@dataclass(frozen=True, slots=True, eq=False)
class Newcomers:
    """Nuclei that the project does not know, on pixels that are background.

    Parameters
    ----------
    place : Region
        Contains them, level-0 pixels.
    pixels : ndarray of int64, shape (n,)
        Their pixels as indices into the flat place, each once; those of a row of one nucleus ascending and together.
    owners : ndarray of integers, shape (n,)
        Whose each pixel is, an index into `ids`.
    ids : ndarray of uint32, shape (m,)
        Their ids, 0 for one that is not to be put in and has no pixels.
    classes : ndarray of integers, shape (k,)
        Class of each that is put in, 0 for none.
    scores : ndarray of float32, shape (k,)
        0..1.
    approved : ndarray of bool, shape (k,)
        Whether a person approved it.
    runs : tuple of ndarray, optional
        The same pixels as row and first column inside the place, length and owner, if that is known.
    """

    place: Region
    pixels: NDArray[np.int64]
    owners: NDArray[Any]
    ids: NDArray[np.uint32]
    classes: NDArray[Any]
    scores: NDArray[np.float32]
    approved: NDArray[np.bool_]
    runs: Runs | None = None

    def put_into(self, image: NDArray[np.uint32]) -> None:
        """Put them into the ids over `place`, uint32 ``(y, x)``, contiguous."""
        image.reshape(-1)[self.pixels] = self.ids[self.owners]

    def encoded(self) -> bytes:
        """Return the ids over `place`, which was background, as `pixels` encodes them."""
        ys, xs, lengths, owners = self.runs or self._runs()
        return encode_runs(ys * self.place.width + xs, lengths, self.ids[owners])

    def rows(self, census: Census, mpp_um: YX, person: str) -> list[Row]:
        """Return their rows for the table."""
        measured = measure_runs(self.runs or self._runs(), len(self.ids), self.place)
        some = self.ids > 0
        ids = self.ids[some]
        n = len(ids)
        columns = (
            ids.tolist(),
            [None] * n,
            [person] * n,
            census.cells(measured.centroids[some]).tolist(),
            *measured.centroids[some].T.tolist(),
            *measured.boxes[some].T.tolist(),
            (measured.areas[some] * (mpp_um.y * mpp_um.x)).tolist(),
            self.classes.tolist(),
            self.scores.tolist(),
            [int(State.SHOWN)] * n,
            # As in `Retouch`: an id that is no person's would not keep a nucleus safe from models.
            np.where(self.approved | (ids < PERSON_ID_START), APPROVED, 0).tolist(),
        )
        return list(zip(*columns, strict=True))

    def _runs(self) -> Runs:
        new = np.ones(len(self.pixels), np.bool_)
        new[1:] = (np.diff(self.pixels) != 1) | (self.owners[1:] != self.owners[:-1])
        # What goes on in the next row is another run.
        new |= self.pixels % self.place.width == 0
        starts = np.flatnonzero(new)
        ys, xs = np.divmod(self.pixels[starts], self.place.width)
        return ys, xs, np.diff(starts, append=len(new)), self.owners[starts]


def are_pixels_claimed(database: sqlite3.Connection, region: Region) -> bool:
    """Tell whether a nucleus claims pixels in a region that it does not show."""
    found = database.execute(
        "SELECT EXISTS (SELECT 1 FROM claim_boxes WHERE y0 < ? AND y1 > ? AND x0 < ? AND x1 > ?)",
        (region.y1, region.y, region.x1, region.x),
    )
    return bool(found.fetchone()[0])
