"""Post-processing of another tool on a field of known nuclei; runs in that tool's environment.

``python postprocessing.py TOOL FIELD.npz`` prints a JSON list of what, yardsticks (times scipy.ndimage.label on the
field's mask), CPU per wall second, and the file with the labels that were found, beside the field's; null where what
comes out is no label image.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

ROUNDS = 3


def cheapest(function, rounds=ROUNDS):
    """CPU seconds of the cheapest round after one that does not count, its CPU per wall second, and what came out."""
    found, times = function(), []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        found = function()
        cpu = time.process_time() - cpu
        times.append((cpu, cpu / (time.perf_counter() - wall)))
    return *min(times), found


def one_thread_of_torch():
    import torch

    torch.set_num_threads(1)
    return torch


def tiatoolbox(labels, hover):
    """Labels from horizontal and vertical distances, and labels with outlines."""
    one_thread_of_torch()
    from cpu_torchvision import declare_operators

    declare_operators()
    from tiatoolbox.models.architecture.hovernet import HoVerNet

    inside = (labels > 0).astype(np.float32)[..., None]
    maps = np.ascontiguousarray(np.stack([hover[1], hover[0]], axis=-1))  # horizontal first
    yield "HoVerNet._proc_np_hv", *cheapest(lambda: HoVerNet._proc_np_hv(inside, maps))  # noqa: SLF001 - the step alone
    net = HoVerNet(num_types=2)
    yield "HoVerNet.postproc", *cheapest(lambda: net.postproc([inside, maps, inside]))[:2], None


def cellpose(labels, hover):
    """Masks from flows, with and without the check of flows."""
    del hover
    torch = one_thread_of_torch()
    from cpu_torchvision import declare_operators

    declare_operators()
    from cellpose import dynamics

    device = torch.device("cpu")
    flows = dynamics.labels_to_flows([labels], device=device)[0]
    steps, logits = (flows[2:4] * 5).astype(np.float32), np.where(labels > 0, 6.0, -6.0).astype(np.float32)
    for title, checked in (("compute_masks", {}), ("compute_masks, flows not checked", {"flow_threshold": 0})):
        call = {"niter": 200, "device": device, **checked}
        yield title, *cheapest(lambda call=call: dynamics.resize_and_compute_masks(steps, logits, **call), 1)


def instanseg(labels, hover):
    """Labels from embeddings, seeds and a small classifier of pixels that is fitted here, for several windows."""
    del hover
    torch = one_thread_of_torch()
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
            seconds, share, found = cheapest(lambda call=call: method.postprocessing(maps, **call), 1)
        yield f"postprocessing, window {window}", seconds, share, found.numpy().reshape(labels.shape)


def _fitted(network, steps=300):
    """A classifier for which a pixel belongs to a seed that it lands near."""
    torch = one_thread_of_torch()
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


def stardist(labels, hover):
    """Polygons that are kept of those of every second pixel, and labels drawn of them."""
    del hover
    from stardist.geometry import polygons_to_label, star_dist
    from stardist.nms import non_maximum_suppression
    from stardist.utils import edt_prob

    grid, places = (2, 2), (slice(None, None, 2),) * 2
    rays = star_dist(labels.astype(np.uint16), 32, mode="cpp")[places].astype(np.float32)
    probability = edt_prob(labels)[places].astype(np.float32)
    call = {"grid": grid, "prob_thresh": 0.5, "nms_thresh": 0.3}

    def kept():
        return non_maximum_suppression(rays, probability, **call)

    def drawn():
        points, scores, dists = kept()
        return polygons_to_label(dists, points, labels.shape, prob=scores)

    yield "non_maximum_suppression", *cheapest(kept)[:2], None
    yield "non_maximum_suppression and polygons_to_label", *cheapest(drawn)


def measured(tool, given):
    """Rows of a tool on the field in a file, with the labels that it found beside it."""
    field = np.load(given)
    mask = field["labels"] > 0
    yard = cheapest(lambda: ndimage.label(mask), 9)[0]
    for what, seconds, share, found in tool(field["labels"], field["hover"]):
        kept = None
        if found is not None:
            kept = str(given.with_name(f"{what}.npy"))
            np.save(kept, np.asarray(found).astype(np.int32))
        yield what, seconds / yard, share, kept


if __name__ == "__main__":
    tools = {"tiatoolbox": tiatoolbox, "cellpose": cellpose, "instanseg": instanseg, "stardist": stardist}
    print(json.dumps(list(measured(tools[sys.argv[1]], Path(sys.argv[2])))))
