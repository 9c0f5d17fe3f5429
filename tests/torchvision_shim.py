"""timm, which needs torchvision, on machines whose torchvision was built for another torch than is installed.

Beside a CPU build of torch the registry's torchvision has no compiled operators, and importing it fails because it
declares what they give for shapes. Once they are declared here it imports; what would call them still cannot run, and
nothing in the tests does.
"""

import importlib
import sys
from functools import cache

import pytest
import torch

# Names and schemas that torchvision's own library declares. Backward passes are only looked up, so any schema will do.
_BOXES = "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({_BOXES}, int sampling_ratio, bool aligned) -> Tensor",
    f"qroi_align({_BOXES}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool({_BOXES}) -> (Tensor, Tensor)",
    f"ps_roi_align({_BOXES}, int sampling_ratio) -> (Tensor, Tensor)",
    f"ps_roi_pool({_BOXES}) -> (Tensor, Tensor)",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt[] sizes) -> Tensor",
    *(f"_{name}_backward(Tensor grad) -> Tensor" for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")),
    "_deform_conv2d_backward(Tensor grad) -> Tensor",
)


@cache
def _library():
    """Declare the operators; they are gone when this is forgotten."""
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    return library


def import_timm():
    """Import timm, or skip the test with the reason why not."""
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        pytest.skip(f"timm is not installed (the extra zoo): {error}")
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] in {"timm", "torchvision"}]:
            del sys.modules[name]
        _library()
        return importlib.import_module("timm")
