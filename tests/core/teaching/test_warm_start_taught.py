"""A warm start can be taught as any model, and what comes out is a model, not a warm start."""

import torch
from tissue import example

from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.starts import taught_tensors, warm_start_note
from napari_nucleiseg.core.models.weights import ModelCard, load_model, save_model
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.finetune import finetune


def test_a_warm_start_is_taught(tmp_path):
    torch.manual_seed(0)
    spec = network_spec("nuclei", {"width": 4, "depth": 2, "widest": 8})
    network = build_network(spec)
    names = [name for name in network.state_dict() if name.startswith(("stem", "encoder"))]
    card = ModelCard(
        "warm",
        "nuclei",
        title="Warm start",
        licence="CC0-1.0",
        commercial_use=True,
        taught=warm_start_note("masked", names),
    )
    save_model(tmp_path / "warm.safetensors", network, spec, card)
    model = load_model(str(tmp_path / "warm.safetensors"))
    config = FinetuneConfig(
        steps=2, validate_every=2, crop_px=64, batch_size=2, warmup=1, threads=1, device="cpu", trust_labels=True
    )
    outcome = list(finetune(model, Lesson((example(1), example(2), example(9, "hold out"))), config))[-1].outcome
    assert outcome.model.card.parent == model.version
    assert taught_tensors(model.card) == tuple(sorted(names))
    assert taught_tensors(outcome.model.card) is None
    assert outcome.model.card.title == spec.title != card.title
