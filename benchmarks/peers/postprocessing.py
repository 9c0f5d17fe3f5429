"""Post-processing of another tool on a field of known nuclei; runs in that tool's environment.

``python postprocessing.py TOOL FIELD.npz`` prints a JSON list of what, yardsticks (times scipy.ndimage.label on the
field's mask), and nuclei found.
"""

import json
import sys
import time

import numpy as np
import torch
from scipy import ndimage

ROUNDS = 3


def cheapest(function, rounds=ROUNDS):
    """CPU seconds of the cheapest round after one that does not count, and what came out."""
    found, times = function(), []
    for _ in range(rounds):
        start = time.process_time()
        found = function()
        times.append(time.process_time() - start)
    return min(times), found


def tiatoolbox(labels, hover):
    """Labels from horizontal and vertical distances, and labels with outlines."""
    if "+cpu" in torch.__version__:  # as in tiatoolbox_engine.py
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from tiatoolbox.models.architecture.hovernet import HoVerNet

    inside = (labels > 0).astype(np.float32)[..., None]
    maps = np.ascontiguousarray(np.stack([hover[1], hover[0]], axis=-1))  # horizontal first
    seconds, found = cheapest(lambda: HoVerNet._proc_np_hv(inside, maps))  # noqa: SLF001 - the step alone
    yield "HoVerNet._proc_np_hv", seconds, int(found.max())
    net = HoVerNet(num_types=2)
    seconds, _ = cheapest(lambda: net.postproc([inside, maps, inside]))
    yield "HoVerNet.postproc", seconds, "-"


def cellpose(labels, hover):
    """Masks from flows, with and without the check of flows."""
    del hover
    from cellpose import dynamics

    device = torch.device("cpu")
    flows = dynamics.labels_to_flows([labels], device=device)[0]
    steps, logits = (flows[2:4] * 5).astype(np.float32), np.where(labels > 0, 6.0, -6.0).astype(np.float32)
    for title, checked in (("compute_masks", {}), ("compute_masks, flows not checked", {"flow_threshold": 0})):
        call = {"niter": 200, "device": device, **checked}
        seconds, found = cheapest(lambda call=call: dynamics.resize_and_compute_masks(steps, logits, **call), 1)
        yield title, seconds, int(found.max())


def instanseg(labels, hover):
    """Labels from embeddings, seeds and a small classifier of pixels that is fitted here, for several windows."""
    del hover
    from instanseg.utils.loss.instanseg_loss import InstanSeg, ProbabilityNet

    side, inside = labels.shape[0], labels > 0
    every = np.arange(1, labels.max() + 1)
    centres = np.zeros((labels.max() + 1, 2))
    centres[1:] = ndimage.center_of_mass(inside, labels, every)
    places = np.mgrid[:side, :side]
    away = np.stack([(centres[labels, axis] - places[axis]) * inside for axis in (1, 0)])
    scaled = np.clip(away / 32 + 0.5, 1e-3, 1 - 1e-3)
    seeds = np.where(inside, np.clip(1 - np.hypot(*away) / 8, 0.05, 1), -1) * 7
    maps = torch.tensor(
        np.concatenate([np.log(scaled / (1 - scaled)), np.ones((2, side, side)), seeds[None]]), dtype=torch.float32
    )
    method = InstanSeg(device="cpu", n_sigma=2, window_size=32)
    method.pixel_classifier = classifier = _fitted(ProbabilityNet(4, 10))
    for window in (32, 64, 128):
        call = {"window_size": window, "device": "cpu", "classifier": classifier, "peak_distance": 5,
                "seed_threshold": 0.7, "max_seeds": 5000}  # fmt: skip
        with torch.inference_mode():
            seconds, found = cheapest(lambda call=call: method.postprocessing(maps, **call), 1)
        yield f"postprocessing, window {window}", seconds, len(torch.unique(found)) - 1


def _fitted(network, steps=300):
    """A classifier for which a pixel belongs to a seed that it lands near."""
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(steps):
        landed = torch.randn(4096, 2) * 2
        near = (landed.norm(dim=1) < 0.7).float()
        said = network(torch.cat([landed, torch.ones(4096, 2)], 1))[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(said, near)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


if __name__ == "__main__":
    torch.set_num_threads(1)
    field = np.load(sys.argv[2])
    mask = field["labels"] > 0
    yard, _ = cheapest(lambda: ndimage.label(mask), 9)
    tool = {"tiatoolbox": tiatoolbox, "cellpose": cellpose, "instanseg": instanseg}[sys.argv[1]]
    print(json.dumps([(what, seconds / yard, found) for what, seconds, found in tool(field["labels"], field["hover"])]))
