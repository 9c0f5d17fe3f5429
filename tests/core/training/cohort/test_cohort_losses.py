"""Losses of one slide against plain references, and how time becomes intervals."""

import math

import numpy as np
import pytest
import torch

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.training.cohort.losses import (
    class_loss,
    hazard_loss,
    interval_of,
    quantile_edges,
    risk_of,
    survival_curve,
)

LOGITS = torch.tensor([-1.0, 0.3, 2.0, -0.2], dtype=torch.float64)


def hazards():
    return [1 / (1 + math.exp(-value)) for value in LOGITS.tolist()]


def survival_to(interval):
    return math.prod(1 - hazard for hazard in hazards()[: interval + 1])


@pytest.mark.parametrize("interval", range(4))
def test_an_event_is_likely_who_came_so_far_and_no_farther(interval):
    expected = -math.log(survival_to(interval - 1) if interval else 1.0) - math.log(hazards()[interval])
    assert float(hazard_loss(LOGITS, interval, event=True)) == pytest.approx(expected)


@pytest.mark.parametrize("interval", range(4))
def test_who_was_lost_from_sight_came_at_least_so_far(interval):
    assert float(hazard_loss(LOGITS, interval, event=False)) == pytest.approx(-math.log(survival_to(interval)))


def test_likelihoods_of_all_that_can_happen_add_up_to_one():
    each = [math.exp(-float(hazard_loss(LOGITS, interval, event=True))) for interval in range(4)]
    assert sum(each) + math.exp(-float(hazard_loss(LOGITS, 3, event=False))) == pytest.approx(1)


def test_extreme_logits_keep_the_loss_finite():
    logits = torch.tensor([200.0, -200.0, 200.0], requires_grad=True)
    loss = hazard_loss(logits, 1, event=True)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(400)
    assert torch.isfinite(logits.grad).all()


def test_survival_and_risk_are_those_of_hazards():
    np.testing.assert_allclose(survival_curve(LOGITS).numpy(), [survival_to(interval) for interval in range(4)])
    assert float(risk_of(LOGITS)) == pytest.approx(-sum(survival_to(interval) for interval in range(4)))
    assert float(risk_of(LOGITS + 1)) > float(risk_of(LOGITS))


def test_class_loss_is_cross_entropy():
    weights = [math.exp(value) for value in LOGITS.tolist()]
    assert float(class_loss(LOGITS, 2)) == pytest.approx(-math.log(weights[2] / sum(weights)))


def test_quartiles_hold_the_same_number_of_events_whoever_was_lost():
    rng = np.random.default_rng(0)
    times, events = rng.exponential(10, 400), rng.random(400) > 0.4
    edges = quantile_edges(times, events, 4)
    counts = np.bincount([interval_of(time, edges) for time in times[events]], minlength=4)
    assert counts.max() - counts.min() <= 1
    assert edges == quantile_edges(times[events], np.ones(int(events.sum()), bool), 4)


def test_an_edge_belongs_to_the_later_interval():
    assert [interval_of(time, (1.0, 2.0)) for time in (0, 0.99, 1, 1.5, 2, 99)] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("times", [[1.0, 2.0], [3.0] * 9, []])
def test_events_that_cannot_be_parted_are_told(times):
    with pytest.raises(DataError, match="choose fewer intervals"):
        quantile_edges(np.array(times), np.ones(len(times), bool), 4)
    with pytest.raises(DataError, match="2 intervals of time; give times in days"):  # there are no fewer
        quantile_edges(np.ones(8), np.ones(8, bool), 2)
