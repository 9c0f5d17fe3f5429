"""A slide becomes a data set by the shape of its nuclei: in place, at the network's pixel size, doubt left out."""

import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.samples import read_labels, read_picture
from napari_nucleiseg.core.training.scales.shape_set import labelled_windows

SPEC = network_spec("nuclei")


@pytest.mark.parametrize(("mpp_um", "side"), [(0.25, 128), (0.5, 288)])
def test_windows_have_the_networks_pixels_and_nuclei_where_it_is_dark(tissue, mpp_um, side):
    slide = open_slide(tissue / "p0.tif", mpp_um=mpp_um)
    (window,) = labelled_windows(slide, "p0", SPEC, most=1)
    assert window.image.shape == (side, side, 3)
    assert window.labels.shape == (side, side)
    assert window.name.startswith("p0_")
    assert window.labels.max() >= 5
    ids = np.unique(window.labels[window.labels > 0])
    assert ids.tolist() == list(range(1, len(ids) + 1))
    dark = window.image.mean(axis=2)
    assert dark[window.labels > 0].mean() < dark[window.labels == 0].mean() - 40


def test_windows_do_not_overlap(tissue, tmp_path):
    wide = np.concatenate([read_picture(tissue / f"p{number}.tif") for number in range(4)], axis=1)
    tifffile.imwrite(tmp_path / "wide.tif", wide, photometric="rgb")
    slide = open_slide(tmp_path / "wide.tif", mpp_um=0.5)
    starts = sorted(int(window.name.split("_")[2]) for window in labelled_windows(slide, "wide", SPEC))
    assert len(starts) >= 2
    assert min(np.diff(starts)) >= 288
    assert len(list(labelled_windows(slide, "wide", SPEC, most=1))) == 1


def test_the_same_seed_chooses_the_same_windows_and_they_can_be_trained_on(tissue, tmp_path):
    slide = open_slide(tissue / "p1.tif", mpp_um=0.25)
    first, again = (next(labelled_windows(slide, "p1", SPEC, most=1, seed=4)) for _ in range(2))
    assert first.name == again.name
    assert np.array_equal(first.labels, again.labels)
    first.write(tmp_path)
    assert np.array_equal(read_picture(tmp_path / "images" / f"{first.name}.tif"), first.image)
    assert np.array_equal(read_labels(tmp_path / "labels" / f"{first.name}.tif"), first.labels)


def test_labels_that_differ_count_as_corrected(tissue, tmp_path):
    window = next(labelled_windows(open_slide(tissue / "p1.tif", mpp_um=0.25), "p1", SPEC, most=1))
    assert not window.is_corrected_in(tmp_path)
    window.write(tmp_path)
    assert not window.is_corrected_in(tmp_path)
    path = tmp_path / "labels" / f"{window.name}.tif"
    tifffile.imwrite(path, np.where(window.labels == 1, 0, window.labels))
    assert window.is_corrected_in(tmp_path)
    path.write_bytes(b"of an editor's own")
    assert window.is_corrected_in(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_named(tissue, tmp_path):
    (tmp_path / "images").write_text("in the way")
    window = next(labelled_windows(open_slide(tissue / "p1.tif", mpp_um=0.25), "p1", SPEC, most=1))
    with pytest.raises(DataError, match="cannot be written to"):
        window.write(tmp_path)
