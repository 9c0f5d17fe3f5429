"""From painted patches to a head that looks there, step by step, or to the reason why the former one stays.

Nothing is written and the encoder is never changed: a lesson that is stopped or killed leaves all as it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.models.encoders import LoadedEncoder
from napari_nucleiseg.core.teaching.heads.config import HeadTeachConfig
from napari_nucleiseg.core.teaching.heads.division import HeadRun
from napari_nucleiseg.core.teaching.heads.measure import Drift, HeadScores
from napari_nucleiseg.core.teaching.heads.painted import PaintedPatch
from napari_nucleiseg.core.teaching.heads.room import HeadRoom
from napari_nucleiseg.core.teaching.heads.verdict import HeadOutcome


@dataclass(frozen=True, slots=True, eq=False)
class HeadStep:
    """What one step reports.

    Parameters
    ----------
    run : str
        Which network is taught, for people; empty of the first and the last report.
    step, total : int
        Steps done of all runs together, and their number at most.
    loss : float
        Weighted sum of all losses of this step.
    parts : dict
        ``paint``, ``evenness``, ``features``, ``tokens``, ``heads``; see `losses`.
    seconds : float
        Wall time of this step, its measurement left out.
    measured : HeadScores or None
        On what is held out, where it was measured at this step.
    drift : Drift or None
        On patches without paint, likewise.
    note : str
        A sentence for people; empty if there is nothing to say.
    outcome : HeadOutcome or None
        Of the last report: the new encoder, and whether it is adopted.
    """

    run: str
    step: int
    total: int
    loss: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    measured: HeadScores | None = None
    drift: Drift | None = None
    note: str = ""
    outcome: HeadOutcome | None = None


def teach_head(
    encoder: LoadedEncoder,
    patches: Sequence[PaintedPatch],
    others: NDArray[np.uint8] | None = None,
    config: HeadTeachConfig | None = None,
) -> Iterator[HeadStep]:
    """Teach one head of an encoder where to look, and judge it by paint that it has not seen.

    Closing the generator stops after the current step; nothing is kept then. The same call with the same seed gives
    the same encoder.

    Parameters
    ----------
    encoder : LoadedEncoder
        The former encoder; not changed.
    patches : sequence of PaintedPatch
        Of one or many slides.
    others : ndarray of uint8, shape (n, side, side, 3), optional
        Patches without paint, best of the same slides. What the encoder says of half of them is held to what it was;
        on the other half it is measured how well that succeeded.
    config : HeadTeachConfig, optional
        Settings.

    Yields
    ------
    HeadStep
        The first says how the former head looks, then one a step, the last has the `HeadOutcome`.

    Raises
    ------
    TeachingError
        If there is nothing to learn from or be judged by, or the network is of another kind.
    DataError
        If the settings make no sense, or the patches are not of this encoder's size.
    """
    room = HeadRoom(encoder, patches, others, config or HeadTeachConfig())
    yield HeadStep("", 0, room.total, measured=room.before(), note=room.told)
    done = 0
    for run in room.division.runs:
        yield from _teach(room, run, done)
        done += room.config.steps
    yield HeadStep("", room.total, room.total, outcome=room.judge())


def _teach(room: HeadRoom, run: HeadRun, done: int) -> Iterator[HeadStep]:
    """Teach one network until the curve on what is held out stops rising; the room keeps what is best."""
    learner, limit = room.learner(run), room.limit(run)
    for step in range(1, limit + 1):
        began = time.perf_counter()
        loss, parts = learner.step(step)
        seconds = time.perf_counter() - began
        measured = drift = None
        if step % room.config.validate_every == 0 or step == limit:
            measured, drift = room.note(run, step, learner)
        yield HeadStep(run.name, done + step, room.total, loss, parts, seconds, measured, drift)
        if room.is_over(run):
            break
