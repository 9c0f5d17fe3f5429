import numpy as np
import pytest

from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.viewer.layers import slide_of
from napari_nucleiseg.viewer.reader import get_reader, read_slides


def test_what_is_no_slide_is_left_to_others(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a slide")
    assert get_reader(str(text)) is None
    assert get_reader([]) is None
    assert get_reader([str(text)]) is None
    assert get_reader(str(tmp_path / "missing.txt")) is None


def test_several_slides_are_one_layer_each(disc_slide, disc_png):
    read = get_reader([str(disc_slide), str(disc_png)])
    assert len(read([str(disc_slide), str(disc_png)])) == 2


def test_a_broken_slide_is_told_in_a_sentence(tmp_path):
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"II*\0" + b"\xff" * 100)
    with pytest.raises(SlideError, match=r"broken\.svs"):
        read_slides(str(broken))


@pytest.mark.parametrize(
    "name",
    [
        "wsi/cmu-1-small-region.svs",
        "wsi/tcga-cr-7395-01a-01-ts1.svs",
        "wsi/OS-1-detail.ome.tif",
        "wsi/cmu_small_region_dicom",
        "wsi_mosaic_dev/tnbc_dev_mosaic_40x.tiff",
        "wsi_mosaic_dev/tnbc_dev_mosaic_40x.ome.tif",
    ],
)
def test_napari_opens_real_slides(name, shared_data):
    from napari.components import ViewerModel

    path = str(shared_data / name)
    read = get_reader(path)
    assert read is not None
    from napari.layers import Layer

    model = ViewerModel()
    for data in read(path):
        model.add_layer(Layer.create(*data))
    (layer,) = model.layers
    slide = slide_of(layer)
    assert layer.scale == pytest.approx(slide.mpp_um or (1, 1))
    assert layer.metadata["needs_mpp"] == (slide.mpp_um is None)
    assert layer.thumbnail[..., :3].std() > 1  # something was read and drawn
    assert np.asarray(layer.data[-1]).shape[-1] == 3
    slide.close()


@pytest.mark.parametrize("key", ["tissue", "synthetic"])
def test_samples_need_no_network(key):
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("napari-nucleiseg")
    (sample,) = (sample for sample in manifest.contributions.sample_data if sample.key == key)
    (command,) = (one for one in manifest.contributions.commands if one.id == sample.command)
    from importlib import import_module

    module, name = command.python_name.split(":")
    ((levels, attributes, kind),) = getattr(import_module(module), name)()
    assert kind == "image"
    assert attributes["metadata"]["mpp_um"] == (0.5, 0.5)
    assert levels[0].shape == ((512, 512, 3) if key == "tissue" else (100_000, 100_000, 3))
