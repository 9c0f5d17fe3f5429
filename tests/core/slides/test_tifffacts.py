"""The pixel size of a TIFF is that of the image which is shown, not of another one in the file."""

import numpy as np
import pytest
import tifffile
from slide_files import smaller, tissue

from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.stacks import open_stack

COARSE = {"resolution": (2500, 2500), "resolutionunit": "CENTIMETER", "photometric": "rgb"}
FINE = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "photometric": "rgb"}
IMAGE = (
    '<Image ID="Image:{number}" Name="{name}"><Pixels ID="Pixels:{number}" DimensionOrder="XYZCT" Type="uint8" '
    'SizeX="{x}" SizeY="{y}" SizeC="{c}" SizeZ="{z}" SizeT="1" PhysicalSizeX="{um}" PhysicalSizeY="{um}" '
    'PhysicalSizeZ="{um}"><Channel ID="Channel:{number}:0" SamplesPerPixel="{c}" Name="{name}"/>'
    '<TiffData IFD="0" PlaneCount="{z}"><UUID FileName="{file}">urn:uuid:{file}</UUID></TiffData></Pixels></Image>'
)


def write_part(path, array, images):
    """One file of an OME-TIFF of several: `images` are `(file, name, (z, y, x, c), µm)`, one of them in this file."""
    parts = "".join(
        IMAGE.format(number=number, file=file, name=name, z=z, y=y, x=x, c=c, um=um)
        for number, (file, name, (z, y, x, c), um) in enumerate(images)
    )
    xmlns = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    text = f'<?xml version="1.0"?><OME {xmlns} UUID="urn:uuid:{path.name}">{parts}</OME>'
    with tifffile.TiffWriter(path) as file:
        for number, plane in enumerate(array):
            file.write(plane, description="" if number else text, metadata=None, contiguous=False)
    return path


@pytest.mark.parametrize("layout", [{}, {"tile": (256, 256)}], ids=["strips", "tiles"])
def test_the_resolution_of_a_thumbnail_is_not_that_of_the_slide(tmp_path, layout):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(smaller(tissue(), 8), metadata=None, **COARSE)
        file.write(tissue(), metadata=None, **FINE, **layout)
    assert open_slide(tmp_path / "a.tif").mpp_um == pytest.approx((0.5, 0.5))


def test_the_resolution_of_an_overview_in_ome_is_not_that_of_the_slide(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(tissue(100, 150), metadata={"axes": "YXS", "Name": "overview"}, **COARSE)
        file.write(tissue(), metadata={"axes": "YXS", "Name": "slide"}, **FINE)
    assert open_slide(tmp_path / "a.ome.tif").mpp_um == pytest.approx((0.5, 0.5))


def test_an_image_in_a_missing_file_does_not_lend_its_pixel_size(tmp_path):
    lost, here = ("lost.ome.tif", "overview", (1, 30, 40, 3), 5), ("a.ome.tif", "slide", (1, 300, 400, 3), 0.25)
    path = write_part(tmp_path / "a.ome.tif", tissue(300, 400)[None], [lost, here])
    assert open_slide(path).mpp_um == (0.25, 0.25)


def test_images_of_one_size_are_told_apart_by_their_names(tmp_path):
    lost, here = ("lost.ome.tif", "other", (1, 300, 400, 3), 0.5), ("a.ome.tif", "slide", (1, 300, 400, 3), 0.25)
    path = write_part(tmp_path / "a.ome.tif", tissue(300, 400)[None], [lost, here])
    assert open_slide(path).mpp_um == (0.25, 0.25)


def test_images_of_one_size_and_name_are_told_apart_by_their_number(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for um in (0.25, 0.5):
            sizes = {"PhysicalSizeX": um, "PhysicalSizeY": um}
            file.write(tissue(300, 400), photometric="rgb", metadata={"axes": "YXS", "Name": "slide", **sizes})
    assert open_slide(tmp_path / "a.ome.tif").mpp_um == (0.25, 0.25)


def test_an_ome_document_of_another_picture_states_no_pixel_size(tmp_path):
    path = tmp_path / "a.ome.tif"
    write_part(path, tissue(300, 400)[None], [(path.name, "slide", (1, 30, 40, 3), 0.25)])
    assert open_slide(path).mpp_um is None


def test_a_stack_beside_a_missing_one_keeps_its_voxel_size_and_channel(tmp_path):
    planes = np.random.default_rng(0).integers(0, 255, (6, 40, 50)).astype(np.uint8)
    lost, here = ("lost.ome.tif", "DAPI", (3, 20, 30, 1), 5), ("a.ome.tif", "Actin", (6, 40, 50, 1), 0.25)
    stack = open_stack(write_part(tmp_path / "a.ome.tif", planes, [lost, here]))
    assert (stack.voxel_um, stack.channels) == ((0.25, 0.25, 0.25), ("Actin",))
