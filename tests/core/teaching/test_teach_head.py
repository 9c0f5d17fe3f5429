"""Paint teaches a head to look at what it has never seen; the rest stays, and what taught nothing is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from blob_encoder import (
    CONFIG,
    SIDE,
    blobs,
    encoder,
    lesson,
    looked_at,
    mass_on,
    patch,
    shares,
    unpainted,
)
from napari_nucleiseg.core.errors import DataError, ModelError, TeachingError, WeightsError
from napari_nucleiseg.core.models.encoders import build_encoder, load_encoder, own_encoders_folder
from napari_nucleiseg.core.models.files import ENDING
from napari_nucleiseg.core.teaching.heads.config import HeadTeachConfig
from napari_nucleiseg.core.teaching.heads.curve import HeadCurve, choose
from napari_nucleiseg.core.teaching.heads.division import divide_painted
from napari_nucleiseg.core.teaching.heads.learner import TURNS, turned
from napari_nucleiseg.core.teaching.heads.losses import anchor_losses, paint_losses
from napari_nucleiseg.core.teaching.heads.measure import Drift, HeadGain, HeadScores, measured, scores_of
from napari_nucleiseg.core.teaching.heads.tail import Tail, run_stem, run_tail
from napari_nucleiseg.core.teaching.heads.teach import teach_head
from napari_nucleiseg.core.teaching.heads.verdict import head_verdict
from napari_nucleiseg.core.teaching.heads.versions import (
    encoder_versions,
    keep_head,
    refused_encoders_folder,
    take_head_anyway,
)

FRESH = range(900, 912)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))
    monkeypatch.setattr("napari_nucleiseg.core.models.encoders.SHIPPED_FOLDER", tmp_path / "none")
    return tmp_path / "home"


def taught(patches=None, config=CONFIG, former=None, others=None):
    *_, last = teach_head(
        former or encoder(),
        lesson() if patches is None else patches,
        unpainted() if others is None else others,
        config,
    )
    return last.outcome


@pytest.fixture(scope="module")
def outcome():
    return taught()


def state(loaded):
    return {name: value.clone() for name, value in loaded.network.state_dict().items()}


def test_it_looks_at_blobs_in_pictures_that_nobody_painted(outcome):
    assert outcome.adopted, outcome.reason
    before, after = (mass_on(one, FRESH, CONFIG.head) for one in (encoder(), outcome.encoder))
    assert after > 2 * before
    assert outcome.after.look > 2 * outcome.before.look
    assert outcome.after.ratio > outcome.before.ratio
    assert outcome.after.avoid < outcome.before.avoid
    assert outcome.after.auroc > 0.8
    assert 0 < outcome.gain.low <= outcome.gain.score <= outcome.gain.high
    assert outcome.reason.startswith("It looks better where it was judged: attention on “look here”")


def test_what_it_says_of_patches_stays_within_the_limit(outcome):
    assert outcome.drift.is_within(CONFIG.most_drift, CONFIG.most_change)
    assert outcome.drift.patches == 8
    for pictures, slack in ((unpainted()[1::2], 1.0), (np.stack([blobs(seed)[0] for seed in FRESH]), 1.5)):
        (before, _), (after, _) = (looked_at(one, pictures) for one in (encoder(), outcome.encoder))
        cosine = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
        change = ((after - before) ** 2).sum(1).mean() / ((before - before.mean(0)) ** 2).sum(1).mean()
        assert 1 - cosine.mean() < CONFIG.most_drift
        assert 0 < change < slack * CONFIG.most_change
        if slack == 1:
            assert change == pytest.approx(outcome.drift.change, rel=0.01)


def test_every_other_head_attends_to_exactly_what_it_did(outcome):
    pictures = unpainted(4)
    for layer in range(2):
        (_, before), (_, after) = (looked_at(one, pictures, layer) for one in (encoder(), outcome.encoder))
        for head in range(2):
            same = np.array_equal(before[:, head], after[:, head])
            assert same == ((layer, head) != (1, 0))
    assert outcome.drift.heads == outcome.drift.worst_head == 0


def test_only_the_weights_of_the_head_are_others(outcome):
    former, new = encoder().network.state_dict(), outcome.encoder.network.state_dict()
    changed = {name for name in former if not torch.equal(former[name], new[name])}
    assert changed == {"blocks.1.attn.qkv.weight", "blocks.1.attn.qkv.bias", "blocks.1.attn.proj.weight"}
    rows = (former["blocks.1.attn.qkv.weight"] != new["blocks.1.attn.qkv.weight"]).any(dim=1).view(3, 2, 16)
    assert rows[:, 0].any()
    assert not rows[:, 1].any()
    columns = (former["blocks.1.attn.proj.weight"] != new["blocks.1.attn.proj.weight"]).any(dim=0)
    assert columns[:16].any()
    assert not columns[16:].any()


def test_a_head_of_an_earlier_layer_can_be_taught_and_whole_layers_too():
    config = replace(CONFIG, layer=0, head=1, blocks=1, steps=10, learning_rate=1e-3)
    found = taught(config=config)
    former, new = encoder().network.state_dict(), found.encoder.network.state_dict()
    changed = {name for name in former if not torch.equal(former[name], new[name])}
    assert changed
    assert all(name.startswith("blocks.0.") for name in changed)
    assert found.encoder.card.taught["layer"] == 0
    assert found.after.score > found.before.score
    assert found.drift.heads > 0


def test_the_same_seed_gives_the_same_encoder_and_the_former_is_not_changed(outcome):
    former = encoder()
    before = state(former)
    again = taught(former=former)
    assert all(
        torch.equal(value, again.encoder.network.state_dict()[name]) for name, value in state(outcome.encoder).items()
    )
    assert all(torch.equal(value, before[name]) for name, value in former.network.state_dict().items())
    other = taught(config=replace(CONFIG, seed=1, steps=10))
    assert other.gain != outcome.gain


def test_a_lesson_that_is_stopped_leaves_all_as_it_was(home):
    former = encoder()
    before = state(former)
    steps = teach_head(former, lesson(), unpainted(), CONFIG)
    for _ in range(5):
        next(steps)
    steps.close()
    assert all(torch.equal(value, before[name]) for name, value in former.network.state_dict().items())
    assert all(value.requires_grad for value in former.network.parameters())
    assert not home.exists()


def test_steps_tell_how_it_goes():
    first, *steps, last = teach_head(encoder(), lesson(), unpainted(), replace(CONFIG, steps=20))
    assert first.measured.patches == 4
    assert first.note == "Judged on 2 of 8 painted places, kept aside (4 patches)."
    assert [step.step for step in steps] == list(range(1, 21))
    assert {step.total for step in (first, *steps, last)} == {20}
    assert [step.step for step in steps if step.measured is not None] == [10, 20]
    assert steps[0].parts.keys() == {"paint", "evenness", "features", "tokens", "heads"}
    assert steps[-1].parts["paint"] < steps[0].parts["paint"]
    assert last.outcome.patches == 16
    assert last.outcome.places == 8


@pytest.mark.parametrize("head", [0, 1])
def test_paint_without_sense_is_refused(head):
    found = taught(lesson(shuffled=True), replace(CONFIG, head=head))
    assert not found.adopted
    assert "See whether" in found.reason


def test_paint_that_contradicts_itself_is_refused():
    turned_round = [
        replace(one, look=one.avoid, avoid=one.look) if int(one.group[2:]) % 2 else one for one in lesson(6)
    ]
    found = taught(turned_round)
    assert not found.adopted


def test_features_that_may_not_move_leave_no_room_to_learn():
    found = taught(config=replace(CONFIG, most_change=0.0))
    assert not found.adopted
    assert found.drift.change == 0
    assert "would have to change what the encoder says of patches" in found.reason
    assert "features may turn by 0.02 and change by 0%" in found.reason


def test_few_places_are_judged_in_turn_and_learnt_from_together():
    first, *_, last = teach_head(encoder(), lesson(3), unpainted(), CONFIG)
    assert first.note.startswith("Judged on all 3 painted places, each by a network that did not learn from it")
    assert last.outcome.adopted, last.outcome.reason
    assert last.outcome.after.patches == 6
    assert all(one["taught"] for one in last.outcome.encoder.card.taught["patches"])
    assert mass_on(last.outcome.encoder, FRESH, 0) > 2 * mass_on(encoder(), FRESH, 0)


def test_avoided_tissue_alone_teaches_too():
    red = []
    for number in range(16):
        image, _ = blobs(number)
        there = shares((image[..., 0] > 150) & (image[..., 1] < 90))
        red.append(replace(patch(number, f"a:{number // 2}"), look=np.zeros_like(there), avoid=there))
    found = taught(red)
    assert found.after.avoid < found.before.avoid
    assert np.isnan(found.after.look)
    assert found.encoder.card.metrics["held out"]["look"] is None


def test_too_few_patches_are_refused_in_a_sentence():
    found = taught(lesson(2, 1), replace(CONFIG, steps=10))
    assert not found.adopted
    assert found.reason.startswith("Only 2 painted patches to judge by")


def test_without_other_tissue_it_is_said_that_painted_patches_were_watched():
    found = taught(others=unpainted(4)[:0], config=replace(CONFIG, steps=10))
    assert found.told.endswith("whether features stay was seen on painted patches.")
    assert found.drift.patches == 16


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head": 2}, "there is no head 2: each layer of hipt-256 has heads 0 to 1"),
        ({"layer": -3}, "there is no layer -3: hipt-256 has layers 0 to 1; -1 is the last"),
        ({"steps": 0}, "steps must be between 1 and 100000, not 0"),
        ({"unpainted": 1.5}, "unpainted must be between 0 and 1, not 1.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, said):
    with pytest.raises(DataError) as error:
        taught(config=replace(CONFIG, **change))
    assert str(error.value) == said


def test_what_cannot_be_taught_is_refused():
    former = encoder()
    with pytest.raises(TeachingError, match=r"Nothing is painted\. Paint where this head should look"):
        taught([], former=former)
    with pytest.raises(DataError, match="looks at patches of 128 x 128 px"):
        taught([replace(one, pixels=one.pixels[:64, :64]) for one in lesson(2)], former=former)
    with pytest.raises(TeachingError, match="cannot be taught: it is a network of another package"):
        taught(former=replace(former, network=torch.nn.Linear(1, 1)))
    spec, network = build_encoder("hipt-4k", {"features": 8, "embed": 8, "depth": 1, "heads": 1})
    with pytest.raises(DataError, match="looks at features of patches, not at pixels"):
        taught(former=replace(former, spec=spec, network=network))


def test_patches_that_touch_are_never_parted():
    patches = [patch(seed, f"s:{seed // 3}", row=9 * (seed // 3), column=seed % 3) for seed in range(30)]
    for count in (6, 15, 30):
        division = divide_painted(patches[:count], 0.25, 0)
        assert set(division.held) == set(division.groups)
        for run in division.runs:
            assert {patches[place].group for place in run.teach}.isdisjoint(patches[place].group for place in run.held)
    assert len(division.runs) == 1
    assert len(division.held) == 6
    assert len(divide_painted(patches[:15], 0.25, 0).runs) == 5
    assert divide_painted(patches, 0.25, 3).held != division.held


def test_many_places_of_one_patch_are_judged_in_turn_until_a_share_of_them_is_enough():
    patches = [patch(0, f"s:{number}") for number in range(16)]
    assert len(divide_painted(patches[:12], 0.25, 0).runs) == 5
    assert len(divide_painted(patches[:12], 0.25, 0).held) == 12
    assert len(divide_painted(patches, 0.25, 0).runs) == 1


def test_one_place_is_cut_with_a_strip_between():
    patches = [patch(0, row=row, column=column) for row in range(5) for column in range(2)]
    division = divide_painted(patches, 0.25, 0)
    first, second, last = division.runs
    assert {patches[place].row for place in first.held} == {0, 1} == {patches[place].row for place in second.teach}
    assert {patches[place].row for place in second.held} == {3, 4} == {patches[place].row for place in first.teach}
    assert len(last.teach) == 10
    assert division.told.startswith("Only one place is painted: it was cut in two, with a strip between")
    with pytest.raises(TeachingError, match="Only one place is painted, and it is too small"):
        divide_painted(patches[:4], 0.25, 0)


def test_what_is_held_out_is_judged_by_with_all_that_touches_it():
    patches = [patch(seed, f"s:{seed // 2}", held=seed == 3) for seed in range(8)]
    (run,) = divide_painted(patches, 0.25, 0).runs
    assert run.held == (2, 3)
    assert run.teach == (0, 1, 4, 5, 6, 7)
    with pytest.raises(TeachingError, match="nothing is left to learn from"):
        divide_painted(patches[2:4], 0.25, 0)


def test_slides_are_all_among_what_is_kept_aside():
    patches = [replace(patch(number, f"p{number}"), fingerprint="ab"[number > 14]) for number in range(16)]
    for seed in range(5):
        (run,) = divide_painted(patches, 0.25, seed).runs
        assert {patches[place].fingerprint for place in run.held} == {"a", "b"}


def test_the_loss_is_the_formula():
    attention = torch.tensor([[0.1, 0.2, 0.3, 0.2], [0.1, 0.2, 0.3, 0.2]])  # 0.2 lies on the class token
    look = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    avoid = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.5]])
    paint, uneven = paint_losses(attention, look, avoid, 0.25)
    first = -np.log(0.2 / (0.2 + 0.3 + 0.25 * 0.3))
    second = -np.log(1 - 0.5 * 0.25)
    assert float(paint) == pytest.approx((first + second) / 2, rel=1e-5)
    assert float(uneven) == pytest.approx(2 / 3 * np.log(2 / 3 / 0.5) + 1 / 3 * np.log(1 / 3 / 0.5), rel=1e-5)
    moved = torch.tensor([[0.2, 0.4, 0.6, 0.4]]) / 2
    assert float(paint_losses(moved * 0.01, look[:1], avoid[:1], 0.25)[0]) == pytest.approx(first, rel=1e-5)


def test_anchors_are_distances_in_units_of_spread():
    before = Tail(torch.zeros(2, 3), torch.zeros(2, 4, 3), torch.full((2, 1, 2, 4), 0.2))
    now = Tail(torch.ones(2, 3), torch.full((2, 4, 3), 2.0), torch.full((2, 1, 2, 4), 0.1))
    found = anchor_losses(now, before, (6.0, 3.0), (0, 0))
    assert float(found["features"]) == pytest.approx(0.5)
    assert float(found["tokens"]) == pytest.approx(4.0)
    assert float(found["heads"]) == pytest.approx(0.8 * np.log(2) + 0.2 * np.log(0.2 / 0.6), rel=1e-4)


def test_measures_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    one = replace(patch(1), avoid=np.zeros((8, 8), np.float32))
    values = rng.integers(1, 9, 64).astype(float)
    (row,) = measured(values[None], [one], 0.25)
    weights, look = values / values.sum(), one.look.ravel().astype(float)
    score, share, ratio, avoid, auroc = row
    assert share == pytest.approx((weights * look).sum())
    assert ratio == pytest.approx(share / look.mean())
    assert score == pytest.approx(share / (share + 0.25 * (1 - share)))
    assert np.isnan(avoid)
    wins = sum(
        look[a] * (1 - look[b]) * ((values[a] > values[b]) + (values[a] == values[b]) / 2)
        for a in range(64)
        for b in range(64)
    )
    assert auroc == pytest.approx(wins / (look.sum() * (1 - look).sum()))
    assert np.isnan(scores_of(measured(values[None], [replace(one, look=0 * one.look)], 0.25)).auroc)


def test_nothing_is_judged_at_a_step_that_it_chose_itself():
    def rows(*scores):
        return np.array([[score, 0, 0, 0, 0] for score in scores], float)

    curve = HeadCurve(4, (0, 1, 2), rows(0.1, 0.1, 0.1))
    curve.note(10, rows(0.9, 0.2, 0.2), 0.4, {"a": torch.zeros(1)})
    curve.note(20, rows(0.1, 0.3, 0.3), 0.2, {"a": torch.ones(1)})
    choice = choose([curve], {0: "a", 1: "b", 2: "b"})
    assert choice.step == 10
    assert choice.after[:, 0].tolist() == [0.1, 0.2, 0.2]
    assert not choice.strayed
    assert curve.best["a"] == 0
    curve.note(30, rows(0.1, 0.1, 0.1), 0.9, {})
    assert choose([curve], {0: "a", 1: "b", 2: "b"}).strayed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "It looks better where it was judged"),
        ({"patches": 3}, "Only 3 painted patches"),
        ({"cosine": 0.03}, "would have to change what the encoder says"),
        ({"change": 0.3}, "would have to change what the encoder says"),
        ({"look": 0.05}, "does not look better"),
        ({"score": 0.005}, "does not look better"),
        ({"score": 0.005, "strayed": True}, "would have to change what the encoder says"),
        ({"auroc": 0.52}, "still does not tell what is painted from the rest"),
        ({"auroc": 0.65}, "gathers attention in a few spots"),
        ({"not_worse": 0.8}, "that may be chance"),
    ],
)
def test_the_verdict_says_why(change, said):
    facts = {"patches": 8, "cosine": 0.0, "change": 0.0, "look": 0.3, "score": 0.2, "auroc": 0.9, "not_worse": 1.0}
    facts |= {"strayed": False} | change
    before = HeadScores(0.1, 0.1, 1.0, 0.9, 0.7, facts["patches"])
    after = HeadScores(0.1 + facts["score"], facts["look"], 3.0, 0.7, facts["auroc"], facts["patches"])
    gain = HeadGain(facts["score"], 0.0, 0.4, facts["not_worse"])
    drift = Drift(facts["cosine"], facts["change"])
    adopted, reason = head_verdict(before, after, gain, drift, HeadTeachConfig(), strayed=facts["strayed"])
    assert said in reason
    assert adopted == (change == {})


def test_the_layers_by_themselves_say_what_the_network_says():
    loaded = encoder()
    pictures = unpainted(3)
    features, attention = looked_at(loaded, pictures, 1)
    x = run_stem(loaded.network, torch.from_numpy(pictures), loaded.spec, 1)
    with torch.no_grad():
        tail = run_tail(loaded.network, x, 1)
    np.testing.assert_allclose(tail.features, features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tail.attention[:, 0], attention, rtol=1e-4, atol=1e-6)


def test_pixels_and_paint_are_turned_alike():
    image, dark = blobs(3)
    found = {shares(turned(dark, turn)).tobytes() for turn in range(TURNS)}
    assert len(found) == TURNS
    for turn in range(TURNS):
        np.testing.assert_array_equal(shares(turned(dark, turn)), turned(shares(dark), turn))
        assert turned(image, turn).shape == (SIDE, SIDE, 3)


def test_the_card_says_what_it_was_taught_by(outcome):
    card, former = outcome.encoder.card, encoder().card
    assert card.parent == former.version
    assert (card.licence, card.commercial_use) == (former.licence, former.commercial_use)
    assert card.training_data[-1] == "paint on 16 patches of a.svs"
    told = card.taught
    assert (told["family"], told["layer"], told["head"], told["places"]) == ("blobs", 1, 0, 8)
    assert told["slides"] == [{"name": "a.svs", "fingerprint": "print"}]
    assert sum(not one["taught"] for one in told["patches"]) == 4
    assert told["settings"]["seed"] == CONFIG.seed
    assert told["features"][former.version]["change"] == outcome.drift.change
    assert card.metrics["adopted"] is True
    assert card.metrics["held out"]["look"] == round(outcome.after.look, 4)
    assert told["paint"] != taught(lesson(7), replace(CONFIG, steps=1)).encoder.card.taught["paint"]


def test_versions_are_kept_side_by_side_and_nothing_is_written_over(outcome, home):
    first, second = keep_head(outcome), keep_head(outcome, title="A second  one")
    assert (first.name, second.name) == ("blobs-2", "blobs-3")
    assert first.title == "blobs, head 0 of layer 1 taught by paint on a.svs"
    assert second.title == "A second one"
    loaded = load_encoder("blobs-2")
    assert all(torch.equal(value, loaded.network.state_dict()[name]) for name, value in state(outcome.encoder).items())
    assert loaded.card.parent == encoder().card.version
    assert loaded.card.created
    assert [version.name for version in encoder_versions()] == ["blobs-2", "blobs-3"]
    before = first.path.read_bytes()
    with pytest.raises(ModelError, match="there is an encoder called blobs-2 already"):
        keep_head(outcome, name="blobs-2")
    assert first.path.read_bytes() == before
    grandchild = taught(config=replace(CONFIG, steps=10, head=1), former=loaded)
    third = keep_head(grandchild)
    assert third.name == "blobs-4"
    assert third.card.parent == loaded.version
    assert third.card.taught["features"].keys() == {loaded.version, encoder().card.version}
    assert not list(home.rglob(f"*{ENDING}"))


def test_what_was_refused_is_kept_apart_and_can_be_taken_anyway(outcome):
    refused = keep_head(replace(outcome, adopted=False, reason="No."))
    assert refused.path.parent == refused_encoders_folder()
    assert refused.kind == "refused"
    with pytest.raises(ModelError):
        load_encoder(refused.name)
    taken = take_head_anyway(refused)
    assert load_encoder(taken.name).card.sha256 == refused.card.sha256
    with pytest.raises(ModelError, match="is in use already"):
        take_head_anyway(taken)


def test_a_full_disk_leaves_nothing_half_written(outcome, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_nucleiseg.core.models.files.os.fsync", full)
    with pytest.raises(WeightsError, match=r"is full\. Make space and try again"):
        keep_head(outcome)
    assert list(own_encoders_folder().iterdir()) == []
