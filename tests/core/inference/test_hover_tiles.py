"""A model whose nuclei are made of distances to their centres runs as any other, and alike however it is tiled."""

from dataclasses import replace

import pytest
import torch
from darkness import REACH_PX, RED_LIMIT, _spread, darkness_model
from torch import nn
from torch.nn import functional

from napari_nucleiseg.core.decoders.hover import HoverDecoder
from napari_nucleiseg.core.evaluation import scores
from napari_nucleiseg.core.inference.predict import needed_heads
from napari_nucleiseg.core.inference.segment import segment_picture
from napari_nucleiseg.core.models.turned import turned
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.slides.synthetic import synthetic_slide


class DarkHover(nn.Module):
    """Foreground where red is absorbed; distances to the middle of a dark blob's box, in halves of its sides."""

    def forward(self, x):
        red = functional.avg_pool2d(functional.pad((x[:, :1] * 255).round(), (1, 1, 1, 1), mode="reflect"), 3, 1)
        keep = (red < RED_LIMIT).expand(-1, 4, -1, -1)
        height, width = x.shape[2:]
        ys = torch.arange(height, dtype=torch.float32).view(1, 1, -1, 1).expand_as(red)
        xs = torch.arange(width, dtype=torch.float32).view(1, 1, 1, -1).expand_as(red)
        outside = torch.tensor(-1e6)
        reach = torch.where(keep, torch.cat([ys, -ys, xs, -xs], 1), outside).contiguous()
        for _ in range(REACH_PX):
            reach = torch.where(keep, _spread(_spread(reach, 2), 3), outside)
        most_y, least_y, most_x, least_x = reach[:, :1], -reach[:, 1:2], reach[:, 2:3], -reach[:, 3:]
        away = [(2 * ys - most_y - least_y) / (most_y - least_y).clamp(min=1)]
        away.append((2 * xs - most_x - least_x) / (most_x - least_x).clamp(min=1))
        return {"nuclei": (RED_LIMIT - red) * 0.5, "hover": torch.where(keep[:, :2], torch.cat(away, 1), 0.0)}


def hover_model(**spec):
    plain = darkness_model(DarkHover(), **spec)
    return LoadedModel(replace(plain.spec, heads=HoverDecoder.heads, decoder="hover"), plain.card, plain.network)


@pytest.fixture(scope="module")
def slide():
    return synthetic_slide(600, 500, 0.5, seed=2, glass=False)


@pytest.fixture(scope="module")
def whole(slide):
    return segment_picture(slide, hover_model(tile_px=1024, halo_px=40), device="cpu")


def test_nuclei_are_found(slide, whole):
    agreement = scores(slide.truth_labels(slide.region), whole, distances=False)
    assert agreement.truth_count > 50
    assert agreement.dq > 0.9


def test_tiled_equals_untiled(slide, whole):
    tiled = segment_picture(slide, hover_model(tile_px=128, halo_px=40), device="cpu")
    assert scores(whole, tiled, distances=False).pq >= 0.99
    assert tiled.max() == whole.max()


def test_eight_positions_give_the_same_nuclei(slide, whole):
    eight = segment_picture(slide, turned(hover_model(tile_px=1024, halo_px=40)), device="cpu")
    assert scores(whole, eight, distances=False).pq >= 0.99


def test_both_maps_are_kept_and_one_is_shown():
    spec = hover_model().spec
    assert needed_heads(spec, shown=False) == ("nuclei", "hover")
    assert [head.name for head in spec.heads if head.shown] == ["nuclei"]
