"""Attention that was learned without labels is corrected like any model: by nuclei, and by paint on the attention."""

import numpy as np
import torch
from tissue import example

from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.scale_attention import at_level
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.finetune import finetune
from napari_nucleiseg.core.training.losses import LOSSES, LossOptions
from napari_nucleiseg.core.training.scales.slide_level import takes_slide_level


def small_model():
    torch.manual_seed(0)
    spec = network_spec("scale-attention-fast", {"width": 4})
    card = ModelCard("look", spec.name, dict(spec.params), licence="CC0-1.0", sha256="0" * 64)
    return LoadedModel(spec, card, build_network(spec).eval())


def test_corrected_nuclei_teach_it():
    config = FinetuneConfig(
        steps=2, validate_every=2, crop_px=64, batch_size=2, warmup=1, threads=1, device="cpu", trust_labels=True
    )
    lesson = Lesson((example(1), example(2), example(9, "hold out")), ())
    model = small_model()
    *_, last = finetune(model, lesson, config)
    assert last.outcome is not None
    assert last.outcome.model.network.tau == model.network.tau


def test_taught_by_labels_it_keeps_the_level_it_was_taught_at():
    config = FinetuneConfig(
        steps=1, validate_every=1, crop_px=64, batch_size=2, warmup=1, threads=1, device="cpu", trust_labels=True
    )
    model = small_model()
    *_, last = finetune(at_level(model, 0.125), Lesson((example(1), example(9, "hold out")), ()), config)
    taught = last.outcome.model
    assert float(taught.network.tau) == 0.125
    assert taught.card.level_is_set
    assert not takes_slide_level(taught)
    # The parent is a version that is kept, not what it was for one slide.
    assert taught.card.parent == model.card.version


def test_paint_moves_attention_and_nuclei_together():
    network = small_model().network
    x = torch.randn(1, 3, 64, 64)
    painted = torch.zeros(1, 1, 64, 64)
    painted[..., 20:40, 20:40] = 1
    batch = {"attention": torch.ones_like(painted), "painted": painted}
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    before = network(x)["nuclei"][painted > 0].mean().item()
    for _ in range(5):
        optimiser.zero_grad()
        LOSSES["attention"](network(x)["attention"], batch, LossOptions()).backward()
        optimiser.step()
    after = network(x)["nuclei"][painted > 0].mean().item()
    assert np.isfinite(after)
    assert after > before + 1
