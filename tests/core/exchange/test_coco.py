"""COCO: every nucleus comes back from its polygons or run lengths."""

import json
from dataclasses import replace

import numpy as np
from skimage.draw import polygon2mask

from napari_nucleiseg.core.exchange.coco import write_coco
from napari_nucleiseg.core.exchange.source import NamedClass


def decoded(segmentation, shape):
    if isinstance(segmentation, dict):
        values = np.zeros(len(segmentation["counts"]), bool)
        values[1::2] = True
        assert segmentation["size"] == list(shape)
        return np.repeat(values, segmentation["counts"]).reshape(shape[::-1]).T
    mask = np.zeros(shape, bool)
    for flat in segmentation:
        mask |= polygon2mask(shape, np.array(flat).reshape(-1, 2)[:, ::-1] - 0.5)
    return mask


def test_every_nucleus_comes_back_exactly(source, labels, tmp_path):
    source = replace(source, classes={1: NamedClass("Tumour", "#e6194b")})
    count = write_coco(source, tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert document["images"] == [{"id": 1, "file_name": "field", "width": 900, "height": 700}]
    assert [(one["id"], one["name"]) for one in document["categories"]] == [(0, "nucleus"), (1, "Tumour")]
    assert count == len(document["annotations"]) == len(np.unique(labels)) - 1
    kinds = set()
    for found in document["annotations"]:
        truth = labels == found["id"]
        np.testing.assert_array_equal(decoded(found["segmentation"], labels.shape), truth)
        kinds.add(type(found["segmentation"]))
        ys, xs = np.nonzero(truth)
        assert found["area"] == len(ys)
        assert found["bbox"] == [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
    assert kinds == {list, dict}
