"""Each rule goes one way as its measure grows, stays within sane limits, and keeps the default for what is unknown."""

import itertools
import math

import pytest
import torch

from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.planner import rules_data as data
from napari_nucleiseg.core.training.planner import rules_network as net
from napari_nucleiseg.core.training.planner import rules_schedule as schedule

USUAL = TrainConfig()
DIAMETERS = (0.5, 2.0, 4.0, 7.5, 12.0, 30.0, 100.0)
SHARES = (0.0, 0.001, 0.02, 0.1, 0.3, 0.6, 1.0)


def rises(values):
    """Whether no value is below the one before it."""
    return all(a <= b for a, b in itertools.pairwise(values))


# ---------------------------------------------------------------------- network


def test_fine_pixels_are_for_small_nuclei_that_the_pictures_show():
    assert net.network(4.5, 0.25, 0) == "nuclei-fine"
    assert net.network(8.0, 0.25, 0) == "nuclei"
    assert net.network(4.5, 0.5, 0) == "nuclei", "enlarged pictures show no more"
    assert net.network(0.0, 0.25, 0) == "nuclei", "without nuclei nothing says that they are small"


def test_pixel_sizes_of_the_rules_are_those_of_the_networks():
    assert {name: network_spec(name).mpp_um for name in net.PIXEL_UM} == net.PIXEL_UM
    assert network_spec("nuclei").size_multiple == net.SIDE_STEP_PX


@pytest.mark.parametrize("mpp_um", [0.25, 0.5])
def test_crops_grow_with_nuclei_pictures_and_memory(mpp_um):
    assert rises([net.crop_px(500, diameter, mpp_um, 1e4) for diameter in DIAMETERS])
    assert rises([net.crop_px(side, 7.5, mpp_um, 1e4) for side in (1, 30, 60, 130, 260, 1e6)])
    assert rises([net.crop_px(500, 7.5, mpp_um, most) for most in (1, 50, 100, 200, 400, 1e6)])


@pytest.mark.parametrize("side_um", [0.1, 40.0, 128.0, 1e6])
@pytest.mark.parametrize("diameter_um", [0.0, *DIAMETERS])
def test_a_crop_is_one_that_the_networks_take_whatever_the_data(side_um, diameter_um):
    for name, mpp_um in net.PIXEL_UM.items():
        side = net.crop_px(side_um, diameter_um, mpp_um, 1000)
        assert 96 <= side <= 512
        assert network_spec(name).fitting_side(side) == side


def test_a_crop_is_no_larger_than_its_picture():
    assert net.crop_px(52.0, 7.5, 0.5, 1e4) == 96 <= 52.0 / 0.5
    assert net.crop_px(1e4, 0.0, 0.5, 1e4) == USUAL.crop_px, "without nuclei the default"


def test_depth_grows_with_nuclei_and_ends_where_the_coarsest_map_is_small():
    for side in (96, 128, 256, 512):
        depths = [net.depth(diameter, 0.5, side) for diameter in DIAMETERS]
        assert rises(depths)
        assert side / 2 / 2 ** max(depths) >= 4
        assert min(depths) >= 1
        assert max(depths) <= 4
        assert net.depth(0.0, 0.5, side) == max(depths), "without nuclei as deep as the crop allows"


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_receptive_field_is_that_of_the_network(levels):
    network = build_network(network_spec("nuclei", {"width": 4, "depth": levels, "widest": 4})).double().eval()
    for module in network.modules():
        # Nothing may cut a path: all weights count alike, and what is pooled or rectified passes.
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 0.1)
    side = 256
    picture = torch.rand(1, 3, side, side, dtype=torch.float64).requires_grad_()
    network(picture)["nuclei"][0, 0, side // 2, side // 2].backward()
    seen = picture.grad[0].abs().sum(dim=0) > 0
    widest = max(int(seen.any(dim=axis).nonzero().max() - seen.any(dim=axis).nonzero().min()) + 1 for axis in (0, 1))
    # Pooling passes on one of four pixels, which need not be the farthest.
    assert widest <= net.receptive_field_px(levels) <= widest + 4 * 2**levels


def test_batches_hold_fewer_crops_of_many_nuclei_and_no_more_than_fit():
    sizes = [net.batch_size(128, density, 1000, "cpu") for density in (0.0, 100.0, 1000.0, 5000.0, 1e5)]
    assert rises(sizes[::-1])
    assert min(sizes) >= 4
    assert max(sizes) <= 32
    assert rises([net.batch_size(128, 500.0, most, "cpu") for most in (1, 2, 8, 100)])
    assert net.batch_size(128, 500.0, 1, "cuda") == 1
    assert net.batch_size(128, 1e5, 1000, "cuda") == 16


def test_what_fits_grows_with_memory_and_never_vanishes():
    assert rises([net.most_crop_px(memory, 1500.0) for memory in (0.1, 1, 8, 80)])
    assert rises([net.most_crops(memory, 1500.0, 256) for memory in (0.001, 1, 8, 80)])
    assert net.most_crops(0.001, 1500.0, 512) == 1
    side = net.most_crop_px(8.0, 1500.0)
    assert math.isclose(4 * side**2 * 1500.0, 4 * 2**30)


# ---------------------------------------------------------------------- schedule


def test_steps_grow_with_data_and_time_and_end():
    assert rises([schedule.steps(area, 1e5, 0.3, 0.0) for area in (0, 1e4, 1e6, 1e7, 1e12)])
    assert rises([schedule.steps(1e6, 1e5, 0.3, minutes) for minutes in (1e-6, 1, 10, 100, 1e5)])
    assert schedule.steps(0.0, 1e5, 0.0, 0.0) == USUAL.steps, "a small set needs the steps all the same"
    assert schedule.steps(1e12, 1e5, 0.0, 0.0) == 20_000
    assert schedule.steps(1e6, 1e5, 60.0, 0.01) == 1


def test_steps_leave_time_to_validate():
    assert 0.8 * 600 <= schedule.steps(1e9, 1e5, 0.1, 1.0) * 1.0 <= 0.95 * 600


def test_the_rate_grows_with_the_pixels_of_a_step_around_the_default():
    rates = [schedule.learning_rate(pixels) for pixels in (1e3, 1e5, 5e5, 1e6, 1e9)]
    assert rises(rates)
    assert USUAL.learning_rate / 2 == rates[0]
    assert rates[-1] == pytest.approx(USUAL.learning_rate * 1.5)
    assert schedule.learning_rate(USUAL.batch_size * USUAL.crop_px**2) == USUAL.learning_rate


@pytest.mark.parametrize("total", [1, 5, 60, 500, 20_000])
def test_a_schedule_fits_into_its_run(total):
    assert 1 <= schedule.warmup(total) <= max(total / 2, 1)
    assert 0.9 <= schedule.ema(total) <= 0.999
    assert 1 <= schedule.validate_every(total, 1e5, 1e6) <= total


def test_long_runs_warm_up_and_remember_longer():
    totals = (1, 5, 60, 500, 3000, 20_000)
    assert rises([schedule.warmup(total) for total in totals])
    assert rises([schedule.ema(total) for total in totals])


def test_validation_takes_no_more_than_a_tenth_of_the_time():
    assert rises([schedule.validate_every(1000, 1e5, pixels) for pixels in (0, 1e5, 1e7, 1e9, 1e12)])
    assert schedule.validate_every(1000, 1e5, 0.0) == 100
    assert schedule.validate_every(1000, 1e5, 1e12) == 1000, "once in any case"


# ---------------------------------------------------------------------- data


def test_small_sets_are_seen_and_large_ones_rule():
    counts = [10, 1000, 100_000]
    shares = [data.share(count, counts) for count in counts]
    assert rises(shares)
    assert sum(shares) == pytest.approx(1, abs=0.01)
    assert shares[0] > 10 / sum(counts)
    assert data.share(0, [0]) == 1


def test_normalisation_follows_the_tissue_and_never_divides_by_next_to_nothing():
    assert data.mean((0.7, 0.5, 0.65432)) == (0.7, 0.5, 0.654)
    assert data.std((0.2, 0.0, 0.9)) == (0.2, 0.08, 0.5)
    assert (
        TrainConfig.validation_error(TrainConfig(train=USUAL.train, mean=data.mean((0, 1, 2)), std=data.std((0, 0, 0))))
        == USUAL.validation_error()
    ), "the limits themselves are allowed"


@pytest.mark.parametrize(
    ("rule", "least", "most", "usual"),
    [(data.stain, 0.1, 0.4, USUAL.augment.stain), (data.colour, 0.05, 0.2, USUAL.augment.colour)],
)
def test_colours_are_varied_as_much_as_they_vary(rule, least, most, usual):
    values = [rule(spread, 10) for spread in (0.0, 0.01, 0.05, 0.2, 0.5, 10.0)]
    assert rises(values)
    assert (values[0], values[-1]) == (least, most)
    assert rule(0.0, 1) == rule(9.0, 2) == usual, "one or two pictures have no spread"


def test_magnification_grows_with_the_spread_of_sizes():
    factors = [data.scale(4.0, high, mpp_given=True) for high in (4.0, 6.0, 8.0, 12.0, 1000.0)]
    assert rises(factors)
    assert (factors[0], factors[-1]) == (1.1, 1.6)
    assert data.scale(4.0, 4.0, mpp_given=False) == 1.4, "a guessed pixel size is often wrong"
    assert data.scale(0.0, 0.0, mpp_given=False) == USUAL.augment.scale


@pytest.mark.parametrize(
    ("rule", "usual"), [(data.elastic_um, USUAL.augment.elastic_um), (data.border_sigma_um, USUAL.border_sigma_um)]
)
def test_lengths_grow_with_nuclei_and_are_the_defaults_for_usual_ones(rule, usual):
    values = [rule(diameter) for diameter in DIAMETERS]
    assert rises(values)
    assert (values[0], values[-1]) == (0.5, 3.0)
    assert rule(7.5) == rule(0.0) == usual


def test_borders_weigh_by_how_many_nuclei_touch():
    weights = [data.border_weight(share, 100) for share in SHARES]
    assert rises(weights)
    assert (weights[0], weights[-1]) == (0.0, 15.0)
    assert data.border_weight(0.3, 100) == data.border_weight(0.0, 0) == USUAL.border_weight


def test_only_rare_nuclei_are_balanced():
    assert [data.class_balance(share) for share in SHARES] == [False, True, True, False, False, False, False]


def test_wide_nuclei_are_parted_by_distance():
    assert [data.decoder(diameter) for diameter in (0.0, 7.5, 12.0, 30.0)] == [*["offsets"] * 3, "distance"]


def test_the_threshold_falls_for_small_nuclei():
    values = [data.threshold(diameter, 0.5) for diameter in DIAMETERS]
    assert rises(values)
    assert 0.4 <= values[0] < values[-1] == 0.5
    assert data.threshold(0.0, 0.5) == USUAL.threshold


def test_what_is_dropped_is_smaller_than_the_smallest_nuclei():
    smallest = (0.01, 2.0, 8.0, 40.0, 1e4)
    values = [data.min_area_um2(area) for area in smallest]
    assert rises(values)
    assert (values[0], values[-1]) == (1.0, 30.0)
    assert all(value < area for value, area in zip(values[1:], smallest[1:], strict=True))
    assert data.min_area_um2(0.0) == USUAL.min_area_um2
