"""Lets torchvision of the package index be imported beside torch for CPUs; runs in other tools' environments.

It is built for CUDA and cannot load its operators beside torch for CPUs, and then not even be imported. Nothing that
is measured uses them. Call `declare_operators` before the first import of torchvision.
"""

import torch

declared = []


def declare_operators():
    """Name the operators that torchvision looks for, without what they do."""
    if "+cpu" in torch.__version__ and not declared:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        declared.append(operators)  # they are there as long as this is
