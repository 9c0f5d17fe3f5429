"""Fluorescence: told by its channels, whatever the format, and refused with a sentence that says what to do."""

import numpy as np
import pytest
import tifffile
from slide_files import tissue

from napari_nucleiseg.core.errors import UnsupportedImageError
from napari_nucleiseg.core.slides.channels import names_a_dye
from napari_nucleiseg.core.slides.registry import open_slide
from slide_factory import write_ome_zarr

DYES = ("DAPI", "Hoechst 33342", "EGFP", "mCherry", "Cy3", "ch2_Cy5.5", "Alexa Fluor 488", "Texas Red", "Opal 520")
STAINS = ("Red", "Green", "Blue", "Haematoxylin", "Eosin", "DAB", "Brightfield", "Cytokeratin 7", "CY27", "Grey", "")


@pytest.mark.parametrize("name", DYES)
def test_dyes_are_known_by_name(name):
    assert names_a_dye(["Brightfield", name])


def test_stains_and_colours_are_no_dyes():
    assert [name for name in STAINS if names_a_dye([name])] == []


def write(path, shape, **options):
    tifffile.imwrite(path, np.full(shape, 40, np.uint8), **{"photometric": "minisblack", **options})
    return path


LAYOUTS = {
    "strips": {},
    "tiles": {"tile": (128, 128)},
    "strips without a word": {"metadata": None},
    "tiles without a word": {"metadata": None, "tile": (128, 128)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("samples", [2, 3, 4])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_grey_samples_beside_each_other_are_no_colours(tmp_path, layout, samples, planar):
    shape = (300, 300, samples) if planar == "contig" else (samples, 300, 300)
    path = write(tmp_path / "a.tif", shape, planarconfig=planar, **LAYOUTS[layout])
    sentence = rf"it has {samples} channels a pixel that are no colours.*Export the bright-field image as RGB"
    with pytest.raises(UnsupportedImageError, match=sentence):
        open_slide(path)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 300, 300), (3, 300, 300), (3, 300, 300, 3)])
def test_pages_of_one_size_that_nobody_names_are_refused(tmp_path, layout, shape):
    options = {"photometric": "rgb"} if len(shape) == 4 else {}
    path = write(tmp_path / "a.tif", shape, **options, **LAYOUTS[layout])
    sentence = rf"it holds {shape[0]} images of one size and does not say what they are.*as an RGB picture of its own"
    with pytest.raises(UnsupportedImageError, match=sentence):
        open_slide(path)


def test_a_pyramid_of_fluorescence_without_a_word_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for side in (600, 300, 150):
            for _channel in range(2):
                image = np.full((side, side), 40, np.uint8)
                file.write(image, tile=(128, 128), metadata=None, photometric="minisblack")
    with pytest.raises(UnsupportedImageError, match="it holds 2 images of one size and does not say what they are"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [{}, {"tile": (128, 128)}])
def test_images_of_one_size_one_after_another_are_refused(tmp_path, options):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for value in (10, 20):
            file.write(np.full((300, 300), value, np.uint8), photometric="minisblack", **options)
    with pytest.raises(UnsupportedImageError, match="it holds 2 images of one size and does not say what they are"):
        open_slide(tmp_path / "a.tif")


def test_of_the_images_of_an_ome_file_the_first_is_taken_and_that_is_said(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for value in (10, 20):
            file.write(np.full((300, 300, 3), value, np.uint8), photometric="rgb", metadata={"axes": "YXS"})
    slide = open_slide(tmp_path / "a.ome.tif")
    assert slide.levels[0][0, 0].tolist() == [10, 10, 10]
    sentence = (
        "This file is a collection of 2 images of one size; only number 1, the first one, is used. Save the wanted"
    )
    assert [note.startswith(sentence) for note in slide.notes] == [True]


def test_grey_with_transparency_stays_a_picture(tmp_path):
    grey = np.stack([tissue()[..., 0], np.full(tissue().shape[:2], 255, np.uint8)], -1)
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="minisblack", extrasamples=["unassalpha"], metadata=None)
    slide = open_slide(tmp_path / "a.tif")
    assert np.array_equal(np.asarray(slide.levels[0])[..., 1], tissue()[..., 0])


@pytest.mark.parametrize("name", ["DAPI", "Cy3"])
def test_one_channel_named_for_a_dye_is_refused_in_both_formats_and_any_other_is_grey(tmp_path, name):
    def write_named(channel):
        path = tmp_path / f"{channel}.ome.tif"
        return write(path, (300, 300), metadata={"axes": "YX", "Channel": {"Name": [channel]}})

    with pytest.raises(UnsupportedImageError, match=rf"it has one fluorescence channel \({name}\).*Export the bright-"):
        open_slide(write_named(name))
    assert open_slide(write_named("Brightfield")).levels[0][0, 0].tolist() == [40, 40, 40]
    write_ome_zarr(tmp_path / "a.zarr", np.zeros((64, 64, 3), np.uint8), levels=1, labels=("R", "G", name))
    with pytest.raises(UnsupportedImageError, match=rf"\(R, G, {name}\), as in fluorescence"):
        open_slide(tmp_path / "a.zarr")


def test_a_channel_without_a_name_is_known_by_its_dye(tmp_path):
    metadata = {"axes": "YX", "Channel": {"Fluor": ["Cy5"]}}
    with pytest.raises(UnsupportedImageError, match=r"it has one fluorescence channel \(Cy5\)"):
        open_slide(write(tmp_path / "a.ome.tif", (300, 300), metadata=metadata))


def test_the_names_are_those_of_the_image_that_is_shown(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(tissue(60, 50), photometric="rgb", metadata={"axes": "YXS", "Name": "label"})
        file.write(
            np.zeros((300, 300), np.uint8),
            photometric="minisblack",
            metadata={"axes": "YX", "Name": "scan", "Channel": {"Name": ["Hoechst"]}},
        )
    with pytest.raises(UnsupportedImageError, match=r"it has one fluorescence channel \(Hoechst\)"):
        open_slide(tmp_path / "a.ome.tif")


@pytest.mark.parametrize(
    ("axis", "value", "sentence"),
    [
        (
            "Z",
            20,
            "This file is a stack of 3 focal planes; only number 2, the middle one, is used. Save the wanted one",
        ),
        ("T", 10, "This file is a series of 3 points in time; only number 1, the first one, is used. Save the wanted"),
    ],
)
def test_the_plane_that_was_chosen_is_said(tmp_path, axis, value, sentence):
    stack = np.stack([np.full((300, 300, 3), value, np.uint8) for value in (10, 20, 30)])
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": f"{axis}YXS"}, photometric="rgb")
    slide = open_slide(tmp_path / "a.ome.tif")
    assert slide.levels[0][0, 0].tolist() == [value] * 3
    assert [note.startswith(sentence) for note in slide.notes] == [True]
