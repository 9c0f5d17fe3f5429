"""Made-up lessons of a head, which are adopted or refused as a test wants, and wait while it holds them."""

import copy
from dataclasses import replace

from napari_nucleiseg.core.models.encoders import LoadedEncoder, load_encoder
from napari_nucleiseg.core.teaching.heads.measure import Drift, HeadGain, HeadScores
from napari_nucleiseg.core.teaching.heads.teach import HeadStep
from napari_nucleiseg.core.teaching.heads.verdict import HeadOutcome

BEFORE, AFTER = HeadScores(0.3, 0.2, 1.0, 0.3, 0.55, 8), HeadScores(0.7, 0.6, 3.0, 0.1, 0.9, 8)
REASON = "It looks better where it was judged."
TOLD = "It was judged by 8 patches."
REFUSAL = "The new head does not look better where it was judged."


def outcome_of(*, adopted, encoder):
    """What a lesson comes to."""
    return HeadOutcome(
        encoder, BEFORE, AFTER if adopted else BEFORE, HeadGain(0.4, 0.2, 0.6, 1.0),
        Drift(0.001, 0.01, 0.1, 0.1, 0.1, 9), adopted, REASON if adopted else REFUSAL, TOLD, 2, 1.0, 8, 4,
    )  # fmt: skip


class Lesson:
    """A lesson of two steps; `gate` holds the second one."""

    def __init__(self, *, adopted):
        self.adopted, self.gate = adopted, None
        self.begun, self.closed = 0, False

    def __call__(self, name, **_options):
        former = load_encoder(name)
        network = copy.deepcopy(former.network)
        for value in network.parameters():
            value.data.mul_(1.05)
        guard = {"adopted": self.adopted, "reason": "" if self.adopted else REFUSAL}
        card = replace(former.card, parent=former.version, taught={"guard": guard, "slides": [], "head": 0, "layer": 1})
        self.begun += 1
        try:
            yield HeadStep("", 0, 2, note="8 painted patches in 4 places.", measured=BEFORE)
            yield HeadStep("judged", 1, 2, measured=BEFORE)
            if self.gate is not None:
                assert self.gate.wait(60), "nobody opened the gate"
            yield HeadStep("judged", 2, 2, measured=AFTER)
            encoder = LoadedEncoder(former.spec, card, network)
            yield HeadStep("", 2, 2, outcome=outcome_of(adopted=self.adopted, encoder=encoder))
        finally:
            self.closed = True
