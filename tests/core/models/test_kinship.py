"""Who reads the features of an encoder reads those of one that was taught to stay near it, and of no other."""

from dataclasses import replace

import pytest

from napari_nucleiseg.core.models.kinship import MOST_CHANGE, MOST_DRIFT, features_within, reads_features_of
from napari_nucleiseg.core.models.weights import ModelCard

FORMER = ModelCard("patches", "hipt-256", sha256="a" * 64)
REGION = ModelCard("regions", "hipt-4k", features_of=FORMER.version)


def child(parent, number, drift=0.001, change=0.01, **metrics):
    taught = {"features": features_within(parent, drift, change)}
    return ModelCard(
        f"patches-{number}", "hipt-256", parent=parent.version, sha256=str(number) * 64, taught=taught,
        metrics={"adopted": True} | metrics,
    )  # fmt: skip


def test_it_reads_what_it_was_trained_on_and_what_it_does_not_say():
    assert reads_features_of(REGION, FORMER)
    assert reads_features_of(replace(REGION, features_of=""), FORMER)
    assert not reads_features_of(REGION, replace(FORMER, sha256="b" * 64))


def test_it_reads_an_adopted_child_that_stayed_near():
    assert reads_features_of(REGION, child(FORMER, 2))
    assert reads_features_of(REGION, child(FORMER, 2, MOST_DRIFT, MOST_CHANGE))
    assert not reads_features_of(REGION, child(FORMER, 2, drift=MOST_DRIFT + 1e-6))
    assert not reads_features_of(REGION, child(FORMER, 2, change=MOST_CHANGE + 1e-6))
    assert not reads_features_of(REGION, child(FORMER, 2, adopted=False))


def test_small_steps_add_up_over_generations():
    one = child(FORMER, 2, change=0.04)
    two = child(one, 3, change=0.01)
    assert two.taught["features"][FORMER.version]["change"] == pytest.approx(0.09)
    assert two.taught["features"][one.version]["change"] == 0.01
    assert reads_features_of(REGION, two)
    three = child(two, 4, change=0.01)
    assert three.taught["features"][FORMER.version]["change"] == pytest.approx(0.16)
    assert not reads_features_of(REGION, three)
    assert reads_features_of(replace(REGION, features_of=two.version), three)


def test_a_card_that_says_nonsense_is_not_believed():
    for features in ("near", {FORMER.version: "near"}, {FORMER.version: {"drift": 0.0}}, {FORMER.version: {}}):
        assert not reads_features_of(REGION, replace(child(FORMER, 2), taught={"features": features}))


def test_encoders_that_belong_together_are_told_by_their_features():
    from napari_nucleiseg.core.attention.look import fits
    from napari_nucleiseg.core.models.encoders import build_encoder

    patches, _ = build_encoder("hipt-256", {"embed": 24, "depth": 1, "heads": 2})
    regions, _ = build_encoder("hipt-4k", {"features": 24, "embed": 8, "depth": 1, "heads": 1})
    assert fits(child(FORMER, 2), patches, REGION, regions)
    assert not fits(child(FORMER, 2, change=1.0), patches, REGION, regions)
    assert not fits(child(FORMER, 2), replace(patches, embed=48), REGION, regions)
