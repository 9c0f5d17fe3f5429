"""Our engine with a stand-in for its network: read, forward, decode into nuclei, settle seams, write into a project."""

from dataclasses import replace

import numpy as np
import stand_in
import torch

from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.segment import segment
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project

SHIPPED = load_model("nuclei")  # for what it says of itself; its network is not run


class Dark(torch.nn.Module):
    """Says of the labels that the others are given what the shipped model says of nuclei: a probability, and how far
    the centre is."""

    def __init__(self, level):
        super().__init__()
        self.level = level

    def forward(self, x):
        with stand_in.inside():
            labels, centroids = stand_in.pieces(stand_in.darkness(x[0].permute(1, 2, 0).numpy()) > self.level)
            inside = labels > 0
            places = np.ogrid[: labels.shape[0], : labels.shape[1]]
            offsets = [
                (centroids[:, axis].take(labels) - place.astype(np.float32)) * inside
                for axis, place in zip((1, 0), places, strict=True)
            ]
            heads = {"nuclei": inside[None] * np.float32(24) - np.float32(12), "offsets": np.stack(offsets)}
            return {name: torch.from_numpy(values[None]) for name, values in heads.items()}


def run(path, folder, job):
    spec = replace(SHIPPED.spec, mpp_um=job["mpp_um"], mean=(0.0,) * 3, std=(1 / 255,) * 3)
    model = replace(SHIPPED, spec=spec, network=Dark(job["level"]).eval())
    slide = open_slide(path)
    plan = plan_inference(slide, spec)
    with Project.create(folder / "slide.nucleiseg", slide) as project:
        nuclei = sum(event.n_nuclei for event in segment(slide, model, project, plan, device="cpu"))
    slide.close()
    return nuclei


if __name__ == "__main__":
    stand_in.measure(run)
