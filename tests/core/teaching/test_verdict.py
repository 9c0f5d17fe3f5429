"""Adopted only if surely not worse; refused with what to do."""

import numpy as np
import pytest

from napari_nucleiseg.core.teaching.agreement import Agreement, Gain
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.verdict import verdict

CONFIG = FinetuneConfig(certainty=0.8, least_agreement=0.5)


def agreement(nuclei=60, regions=2):
    return Agreement(np.array([[50.0, 100, 8, 10, 6]]), nuclei, regions)


def gain(choice=0.04, not_worse=0.95):
    return Gain(choice, choice, choice, choice, choice - 0.02, choice + 0.02, not_worse)


@pytest.mark.parametrize(
    ("after", "change", "kept", "word"),
    [
        (agreement(nuclei=12), gain(), 0.9, "Only 12 nuclei in 2 regions"),
        (agreement(nuclei=3, regions=1), gain(), 0.9, "Only 3 nuclei in one region"),
        (agreement(), gain(), 0.3, "forgotten too much"),
        (agreement(), gain(-0.01, 0.2), 0.9, "not better where it was judged"),
        (agreement(), gain(0.0, 1.0), 0.9, "not better where it was judged"),
        (agreement(), gain(0.02, 0.7), 0.9, "may be chance"),
    ],
)
def test_refused_with_a_reason_that_says_what_to_do(after, change, kept, word):
    adopted, reason = verdict(agreement(), after, change, kept, CONFIG)
    assert not adopted
    assert word in reason
    assert "orrect" in reason


def test_adopted_with_the_figures():
    adopted, reason = verdict(agreement(), agreement(), gain(), None, CONFIG)
    assert adopted
    assert "AJI 0.500 → 0.500" in reason
    assert "+0.020 to +0.060, 60 nuclei" in reason
