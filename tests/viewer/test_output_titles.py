"""Whatever a model returns can be shown: every channel of every output by itself."""

import numpy as np

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec
from napari_nucleiseg.core.store.layout import MapLayout
from napari_nucleiseg.core.store.maps import MapStore
from napari_nucleiseg.viewer.opened import OpenedSlide
from napari_nucleiseg.viewer.segmenter import titles_of

SPEC = ModelSpec(
    "heads",
    "Three heads of attention",
    0.5,
    (HeadSpec("nuclei", title="Nuclei"), HeadSpec("attention", 3), HeadSpec("hidden", shown=False)),
    "border",
    tile_px=64,
    halo_px=0,
)


def test_an_output_of_several_channels_is_offered_channel_by_channel():
    assert titles_of(SPEC) == {
        "nuclei": "Nuclei",
        "attention:0": "attention 1",
        "attention:1": "attention 2",
        "attention:2": "attention 3",
    }


def test_each_channel_has_its_own_heatmap(tmp_path):
    store = MapStore(tmp_path / "maps.zarr", tmp_path, writable=True)
    store.declare("m@1", MapLayout(64, 64, 64, 0, 16, "g"))
    planes = np.stack([np.full((64, 64), value, np.uint8) for value in (10, 20, 30)])
    store.put("m@1", 0, {"attention": planes, "nuclei": planes[:1]})

    class Plan:
        class grid:
            downsample = YX(1.0, 1.0)

    class Project:
        maps = store

    opened = OpenedSlide(None, None, project=Project(), plan=Plan(), done_key=("m@1", ""), head_titles=titles_of(SPEC))
    for name, title, value in (
        ("attention:2", "attention 3", 30),
        ("nuclei", "Nuclei", 10),
        ("attention:0", "attention 1", 10),
    ):
        levels, said, step = opened.heatmap_levels(name)
        assert said == title
        assert step == YX(1.0, 1.0)
        assert np.unique(np.asarray(levels[0][Region(0, 0, 64, 64).slices])).tolist() == [value]
    assert opened.heatmap_levels("missing") is None
