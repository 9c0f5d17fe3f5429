"""Terms of foreground losses and side outputs: as published, unannotated pixels left out, old runs the same."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import torchvision_shim
from napari_nucleiseg.core.errors import DataError, MissingDependencyError
from napari_nucleiseg.core.models.zoo.contract import PRESENT
from napari_nucleiseg.core.training import losses as module
from napari_nucleiseg.core.training.config import LOSS_TERMS, DataSet, TrainConfig, load_config
from napari_nucleiseg.core.training.loop import total_loss, trained_spec
from napari_nucleiseg.core.training.losses import (
    LOSSES,
    SCALE_WEIGHTS,
    TERMS,
    LossOptions,
    class_weights,
    cross_entropy,
    intersection_over_union,
    presence,
    scale_weights,
    soft_dice,
    tversky,
)

SIDE = 64
RUN = TrainConfig(train=(DataSet("pictures", 0.5),), losses={"nuclei": 1.0, "separated": 0.5, "offsets": 1.0})


@pytest.fixture
def imaging():
    """What MS-SSIM comes from, also beside a torchvision of another torch."""
    torchvision_shim.import_timm()
    return pytest.importorskip("torchmetrics.functional.image")


def batch_of(seed=0, side=SIDE):
    noise = torch.Generator().manual_seed(seed)
    nuclei = (functional.avg_pool2d(torch.rand(2, 1, side, side, generator=noise), 9, 1, 4) > 0.5).float()
    return {
        "nuclei": nuclei,
        "separated": nuclei,
        "offsets": torch.randn(2, 2, side, side, generator=noise) * nuclei,
        "known": torch.ones(2, 1, side, side),
        "weights": torch.rand(2, 1, side, side, generator=noise),
    }


def logits_of(seed=1, side=SIDE):
    return torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(seed))


def term(name, raw, batch, **numbers):
    """The loss of nuclei with one term."""
    return LOSSES["nuclei"](raw, batch, LossOptions(terms={name: 1.0}, **numbers))


def test_the_configuration_knows_all_terms_by_name():
    assert set(TERMS) == set(LOSS_TERMS)


@pytest.mark.parametrize("name", [name for name in LOSS_TERMS if name != "ms_ssim"])
def test_a_term_passes_over_what_nobody_annotated_and_pulls_towards_the_truth(name):
    batch, raw = batch_of(), logits_of().requires_grad_()
    batch["known"][..., 40:] = 0
    term(name, raw, batch, focal_gamma=2.0).backward()
    assert raw.grad[..., 40:].abs().max() == 0
    signs = raw.grad[..., :40] * (1 - 2 * batch["nuclei"][..., :40])
    assert signs.max() > 0  # less where it should say no, more where it should say yes
    assert signs.min() >= -1e-9 or name == "dice"  # squares let a small probability fall


def test_similarity_passes_over_what_nobody_annotated(imaging):
    batch, raw = batch_of(), logits_of().requires_grad_()
    batch["known"][..., 40:] = 0
    term("ms_ssim", raw, batch).backward()
    assert raw.grad[..., 40:].abs().max() == 0
    assert raw.grad.isfinite().all()
    assert raw.grad[..., :40].abs().max() > 0


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_a_perfect_map_costs_nothing_in_any_term(name, request):
    if name == "ms_ssim":
        request.getfixturevalue("imaging")
    batch = batch_of()
    perfect = torch.where(batch["nuclei"] > 0, 20.0, -20.0)
    assert float(term(name, perfect, batch, focal_gamma=2.0)) == pytest.approx(0, abs=1e-4)
    assert float(term(name, -perfect, batch, focal_gamma=2.0)) > 0.5


def test_the_focal_term_with_gamma_zero_is_cross_entropy():
    batch, raw = batch_of(), logits_of()
    assert torch.equal(term("focal", raw, batch, focal_gamma=0.0), term("cross_entropy", raw, batch))
    assert term("focal", raw, batch, focal_gamma=2.0) < term("cross_entropy", raw, batch)


def test_the_weighted_term_counts_both_classes_alike_and_the_gap_between_neighbours_more():
    batch, raw = batch_of(), logits_of()
    target, known = batch["nuclei"], batch["known"]
    weights = class_weights(target, known) + batch["weights"] * (1 - target)
    assert torch.equal(term("weighted_cross_entropy", raw, batch), cross_entropy(raw, target, weights))


def test_terms_are_those_of_monai_where_all_is_annotated():
    monai = pytest.importorskip("monai.losses")
    batch, raw = batch_of(), logits_of()
    target, known = batch["nuclei"], batch["known"]
    smooth = {"sigmoid": True, "batch": True, "smooth_nr": 1.0, "smooth_dr": 1.0}
    theirs = {
        "tversky": monai.TverskyLoss(alpha=0.2, beta=0.8, **smooth)(raw, target),
        # It doubles what is in both, and what is in either, before it adds.
        "iou": monai.DiceLoss(jaccard=True, **{**smooth, "smooth_nr": 2.0, "smooth_dr": 2.0})(raw, target),
        "dice": monai.DiceLoss(squared_pred=True, **smooth)(raw, target),
        "focal": monai.FocalLoss(gamma=2.0)(raw, target),
    }
    ours = {
        "tversky": tversky(raw, target, known, 0.2, 0.8),
        "iou": intersection_over_union(raw, target, known),
        "dice": soft_dice(raw, target, known),
        "focal": cross_entropy(raw, target, known, 2.0),
    }
    for name, value in theirs.items():
        assert float(ours[name]) == pytest.approx(float(value), abs=1e-6), name


def test_alpha_is_the_price_of_false_pixels_and_beta_of_missed_ones():
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4] = 1
    known = torch.ones_like(target)
    too_much, too_little = torch.full_like(target, 20.0), torch.full_like(target, -20.0)
    too_little[..., :2] = 20.0
    # 32 right, 32 false; 16 right, 16 missed; one is added above and below.
    assert float(tversky(too_much, target, known, 0.25, 9.0)) == pytest.approx(1 - 33 / (32 + 8 + 1), abs=1e-5)
    assert float(tversky(too_little, target, known, 9.0, 0.5)) == pytest.approx(1 - 17 / (16 + 8 + 1), abs=1e-5)


def test_the_numbers_of_tversky_are_those_of_the_configuration():
    batch = batch_of()
    maps = {"nuclei": logits_of()}
    config = replace(RUN, terms={"tversky": 1.0}, tversky_alpha=0.1, tversky_beta=0.9)
    expected = tversky(maps["nuclei"], batch["nuclei"], batch["known"], 0.1, 0.9)
    assert torch.equal(total_loss(maps, batch, config)[0], expected)


def test_outlines_count_and_the_middle_of_things_does_not():
    target = torch.zeros(1, 1, 40, 40)
    target[..., 10:30, 10:30] = 1
    batch = {"nuclei": target, "known": torch.ones_like(target), "weights": torch.zeros_like(target)}
    raw = torch.zeros_like(target, requires_grad=True)
    term("boundary", raw, batch).backward()
    pull = raw.grad[0, 0].abs()
    assert pull[20, 20] == 0
    assert pull[3, 3] == 0
    assert pull[20, 10] > 2 * pull[20, 12] > 0
    assert pull[10, 10] > pull[20, 10]  # a corner has more neighbours of the other class


def test_similarity_is_that_of_the_library(imaging):
    target = batch_of(side=192)["nuclei"]
    raw = logits_of(side=192)
    theirs = imaging.multiscale_structural_similarity_index_measure(
        torch.sigmoid(raw), target, data_range=1.0, betas=scale_weights(192), normalize="simple"
    )
    known = torch.ones_like(target)
    assert float(module.structural(raw, target, known)) == pytest.approx(1 - float(theirs), abs=1e-6)


def test_small_pictures_are_compared_at_fewer_scales():
    assert scale_weights(256) == pytest.approx([weight / sum(SCALE_WEIGHTS) for weight in SCALE_WEIGHTS])
    assert [len(scale_weights(side)) for side in (176, 175, 99, 98, 44, 32, 16)] == [5, 4, 4, 3, 3, 2, 2]
    for side in (32, 100, 256):
        assert sum(scale_weights(side)) == pytest.approx(1)


def test_every_side_that_is_trained_on_can_be_compared(imaging):
    for side in (32, 48, 100):
        batch, raw = batch_of(side=side), logits_of(side=side)
        assert 0 < float(term("ms_ssim", raw, batch)) < 1


def test_similarity_without_its_package_names_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("napari_nucleiseg.core.models.zoo.contract.importlib.import_module", missing)
    with pytest.raises(MissingDependencyError, match=r"the loss ms_ssim needs torchmetrics.*napari-nucleiseg\[zoo\]"):
        term("ms_ssim", logits_of(), batch_of())


@pytest.mark.parametrize(("gamma", "dice", "balanced"), [(0.0, 1.0, False), (2.0, 0.3, True), (0.0, 0.0, False)])
def test_runs_without_terms_are_the_same_to_the_last_bit(gamma, dice, balanced):
    batch = batch_of()
    batch["known"][..., 50:] = 0
    maps = {"nuclei": logits_of(1), "separated": logits_of(2), "offsets": logits_of(3).expand(-1, 2, -1, -1)}
    config = replace(RUN, focal_gamma=gamma, dice=dice, class_balance=balanced)
    known, nuclei, apart = batch["known"], batch["nuclei"], batch["separated"]
    w_c = class_weights(apart, known) if balanced else torch.ones_like(apart)
    ridge = (w_c + batch["weights"] * (1 - apart)) * known
    first = cross_entropy(maps["nuclei"], nuclei, known, gamma) + dice * soft_dice(maps["nuclei"], nuclei, known)
    second = cross_entropy(maps["separated"], apart, ridge, gamma) + dice * soft_dice(maps["separated"], apart, known)
    third = LOSSES["offsets"](maps["offsets"], batch, LossOptions())
    total, parts = total_loss(maps, batch, config)
    assert torch.equal(total, torch.stack([1.0 * first, 0.5 * second, 1.0 * third]).sum())
    assert parts == {"nuclei": float(first), "separated": float(second), "offsets": float(third)}


def test_cross_entropy_and_dice_as_terms_are_the_default():
    maps, batch = {"nuclei": logits_of(1), "separated": logits_of(2)}, batch_of()
    named = replace(RUN, terms={"cross_entropy": 1.0, "dice": 0.7})
    assert torch.equal(total_loss(maps, batch, named)[0], total_loss(maps, batch, replace(RUN, dice=0.7))[0])


def test_terms_are_summed_with_their_weights():
    maps, batch = {"nuclei": logits_of()}, batch_of()
    both = total_loss(maps, batch, replace(RUN, terms={"iou": 2.0, "boundary": 0.5, "dice": 0.0}))[0]
    apart = 2 * term("iou", maps["nuclei"], batch) + 0.5 * term("boundary", maps["nuclei"], batch)
    assert float(both) == pytest.approx(float(apart), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"terms": {"tverski": 1.0}}, "there is no term tverski; terms can name cross_entropy, weighted_cross"),
        ({"terms": {"iou": 0.0}}, "at least one term needs a weight above 0"),
        ({"terms": {"iou": -1.0}}, "the weight of the loss iou must be at least 0"),
        ({"terms": {"focal": 1.0}}, "focal needs focal_gamma above 0"),
        ({"tversky_beta": -0.1}, "tversky_beta must be at least 0"),
        ({"deep_supervision": 1.5}, "deep_supervision must be between 0 and 1"),
    ],
)
def test_terms_that_make_no_sense_are_explained(changes, words):
    assert words in replace(RUN, **changes).validation_error()


def test_terms_can_be_read_from_a_file(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"terms": {"tversky": 1, "ms_ssim": 0.5}, "tversky_beta": 0.8, "deep_supervision": 0}')
    config = load_config(str(path))
    assert (config.terms, config.tversky_beta, config.deep_supervision) == ({"tversky": 1, "ms_ssim": 0.5}, 0.8, 0)
    path.write_text('{"terms": ["tversky"]}')
    with pytest.raises(DataError, match="terms must be an object"):
        load_config(str(path))


def side_maps():
    """A network's answer in training: three levels."""
    return {f"nuclei{suffix}": logits_of(seed) for seed, suffix in enumerate(("", "/1", "/2"), start=1)}


@pytest.mark.parametrize("share", [0.5, 1.0, 0.25])
def test_side_outputs_count_less_with_each_level(share):
    maps, batch = side_maps(), batch_of()
    alone = [float(LOSSES["nuclei"](value, batch, LossOptions())) for value in maps.values()]
    total, parts = total_loss(maps, batch, replace(RUN, losses={"nuclei": 2.0}, deep_supervision=share))
    assert float(total) == pytest.approx(2 * (alone[0] + share * alone[1] + share**2 * alone[2]), rel=1e-6)
    assert parts["nuclei"] == pytest.approx(alone[0])
    assert parts["side outputs"] == pytest.approx(2 * (share * alone[1] + share**2 * alone[2]), rel=1e-6)


def test_side_outputs_can_be_passed_over():
    maps, batch = side_maps(), batch_of()
    total, parts = total_loss(maps, batch, replace(RUN, deep_supervision=0.0))
    assert torch.equal(total, total_loss({"nuclei": maps["nuclei"]}, batch, RUN)[0])
    assert set(parts) == {"nuclei"}


def test_side_outputs_of_heads_that_are_not_trained_are_passed_over():
    maps, batch = side_maps() | {"distance/1": logits_of(9)}, batch_of()
    assert torch.equal(total_loss(maps, batch, RUN)[0], total_loss(side_maps(), batch, RUN)[0])


def test_whether_there_is_a_nucleus_is_learnt_from_pictures_that_tell():
    batch = batch_of()
    batch["nuclei"] = torch.zeros(4, 1, 8, 8)
    batch["known"] = torch.ones(4, 1, 8, 8)
    batch["nuclei"][:2, :, 3, 3] = 1  # the first two hold a nucleus
    batch["known"][1, :, 0] = 0  # of the second and the last a part is not annotated
    batch["known"][3, :, 0] = 0
    raw = torch.zeros(4, 1, 1, 1, requires_grad=True)
    presence(raw, batch).backward()
    assert raw.grad.flatten().tolist() == pytest.approx([-0.5 / 3, -0.5 / 3, 0.5 / 3, 0])


def test_a_nucleus_that_nobody_annotated_is_no_answer():
    batch = {"nuclei": torch.ones(1, 1, 8, 8), "known": torch.zeros(1, 1, 8, 8)}
    raw = torch.zeros(1, 1, 1, 1, requires_grad=True)
    presence(raw, batch).backward()
    assert raw.grad.abs().max() == 0


def test_the_answer_whether_there_is_a_nucleus_counts_one_unless_it_is_named():
    batch, maps = batch_of(), {"nuclei": logits_of(), PRESENT: torch.full((2, 1, 1, 1), -1.0)}
    plain = float(total_loss({"nuclei": maps["nuclei"]}, batch, RUN)[0])
    expected = float(functional.softplus(torch.tensor(1.0)))
    total, parts = total_loss(maps, batch, RUN)
    assert parts[PRESENT] == pytest.approx(expected)
    assert float(total) == pytest.approx(plain + expected, rel=1e-6)
    named = replace(RUN, losses={"nuclei": 1.0, PRESENT: 0.25})
    assert float(total_loss(maps, batch, named)[0]) == pytest.approx(plain + 0.25 * expected, rel=1e-6)
    assert trained_spec(named).name == "nuclei"


def test_without_any_foreground_there_is_no_such_answer():
    batch = {"attention": torch.zeros(1, 1, 8, 8), "painted": torch.ones(1, 1, 8, 8), "known": torch.ones(1, 1, 8, 8)}
    maps = {"attention": torch.zeros(1, 1, 8, 8), PRESENT: torch.zeros(1, 1, 1, 1)}
    assert set(total_loss(maps, batch, replace(RUN, losses={"attention": 1.0}))[1]) == {"attention"}
