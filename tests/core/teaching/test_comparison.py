"""Two models on one part of a slide: at their own pixel sizes, joined on one grid, measured with people's labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tissue import painted_slide

from dark_model import CARD, SPEC
from napari_nucleiseg.core.errors import MissingPixelSizeError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.store.regions import AnnotatedRegion, put_region
from napari_nucleiseg.core.teaching.comparison import HALOS, MOST_PX, PIECE_PX, compare_models, part_to_compare
from napari_nucleiseg.core.teaching.differences import Kind


class Darker(torch.nn.Module):
    """Calls a nucleus what is darker than a limit; notes the sizes of what it saw."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.seen = limit, []

    def __deepcopy__(self, _memo):
        return self

    def forward(self, x):
        self.seen.append(tuple(x.shape[-2:]))
        return {"separated": (self.limit - x.mean(dim=1, keepdim=True)) * 24}


def model(limit=0.5, mpp_um=0.5, **card):
    return LoadedModel(replace(SPEC, mpp_um=mpp_um), replace(CARD, **card), Darker(limit))


def last(stages):
    return list(stages)[-1].comparison


def test_of_two_equal_models_nothing_differs(slide_and_project):
    slide, _ = slide_and_project
    stages = list(compare_models(model(), model(), slide, Region(100, 60, 300, 400)))
    assert [(stage.done, stage.total) for stage in stages] == [(0, 2), (1, 2), (2, 2)]
    assert [stage.comparison is None for stage in stages] == [True, True, False]
    found = stages[-1].comparison
    assert found.differences.are_equal
    assert found.step == YX(2.0, 2.0)
    assert found.former.shape == (150, 200)
    assert found.agreement is None


def test_labels_lie_where_the_nuclei_are(slide_and_project):
    slide, _ = slide_and_project
    region = Region(102, 64, 240, 300)
    found = last(compare_models(model(), model(), slide, region))
    _, truth = painted_slide()
    seen = truth[region.slices][1::2, 1::2] > 0
    assert ((found.now > 0) == seen).mean() > 0.97


def test_pieces_are_joined_without_a_seam(slide_and_project, monkeypatch):
    slide, _ = slide_and_project
    whole = last(compare_models(model(), model(), slide, slide.region)).now
    monkeypatch.setattr("napari_nucleiseg.core.teaching.comparison.PIECE_PX", 96)
    one = model()
    stages = list(compare_models(one, model(), slide, slide.region))
    assert stages[-1].total == 18
    np.testing.assert_array_equal(stages[-1].comparison.now > 0, whole > 0)
    assert len(one.network.seen) == 9
    assert max(max(size) for size in one.network.seen) <= SPEC.fitting_side(96 + 2 * HALOS * SPEC.halo_px)


def test_models_of_other_pixel_sizes_meet_on_the_finer_grid(slide_and_project):
    slide, _ = slide_and_project
    found = last(compare_models(model(mpp_um=1.0), model(mpp_um=0.5), slide, slide.region))
    assert found.step == YX(2.0, 2.0)
    assert found.former.shape == found.now.shape == (256, 256)
    assert found.differences.counts[Kind.ADDED] == found.differences.counts[Kind.MISSED] == 0
    both = (found.former > 0) & (found.now > 0)
    assert both.sum() / ((found.former > 0) | (found.now > 0)).sum() > 0.75


def test_what_only_the_new_model_sees_is_added_and_each_has_its_own_threshold(slide_and_project):
    slide, _ = slide_and_project
    nuclei = last(compare_models(model(), model(), slide, slide.region)).differences.counts[Kind.SAME]
    blind = last(compare_models(model(limit=0.1), model(), slide, slide.region))
    assert blind.differences.counts[Kind.ADDED] == nuclei
    strict = last(compare_models(model(threshold=0.999), model(threshold=0.5), slide, slide.region))
    assert strict.differences.counts[Kind.ADDED] == nuclei


def test_both_are_measured_with_what_people_corrected(slide_and_project):
    slide, project = slide_and_project
    corners = ((60.0, 60.0), (60.0, 300.0), (300.0, 300.0), (300.0, 60.0))
    put_region(project, AnnotatedRegion(0, "", "hold out", corners, done=True))
    beside = last(compare_models(model(), model(), slide, Region(320, 320, 150, 150), project=project))
    assert beside.agreement is None
    found = last(compare_models(model(limit=0.1), model(), slide, slide.region, project=project))
    former, now = found.agreement
    assert former.aji == 0.0
    assert now.aji > 0.7
    assert former.nuclei == now.nuclei > 10
    assert now.regions == 1


def test_of_a_wide_view_the_middle_is_compared():
    slide, _ = painted_slide()
    assert part_to_compare(slide.region, slide, [model()]) == slide.region
    wide = Region(1000, 2000, 5000, 6000)
    part = part_to_compare(wide, slide, [model(mpp_um=1.0), model()])
    assert (part.height, part.width) == (2 * MOST_PX, 2 * MOST_PX)
    assert part.centre == wide.centre
    assert MOST_PX % PIECE_PX == 0
    with pytest.raises(MissingPixelSizeError):
        part_to_compare(wide, replace(slide, mpp_um=None), [model()])
