"""The like in a region of a slide: pixels that are not square change nothing of what is compared."""

import cv2
import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.batch import like
from napari_nucleiseg.core.batch.like import COLOUR, LikeJob, find_like
from napari_nucleiseg.core.errors import DataError
from small_models import small_model

SIDE_UM = 90.0
# Micrometres; every second one lies, the others stand.
PLACES = [(y, x) for y in np.arange(9.0, 85, 18) for x in np.arange(9.0, 85, 18)]


def slide_of(path, mpp):
    """Ellipses of one colour on pink, with the picture's pixel size; return their labels and whether each lies."""
    shape = round(SIDE_UM / 0.125), round(SIDE_UM / 0.125)
    image, labels = np.full((*shape, 3), (226, 160, 196), np.uint8), np.zeros(shape, np.uint16)
    lies = []
    for number, (y, x) in enumerate(PLACES, start=1):
        lies.append(number % 2 == 0)
        axes = (40, 18) if lies[-1] else (18, 40)
        mask = np.zeros(shape, np.uint8)
        cv2.ellipse(mask, (round(x / 0.125), round(y / 0.125)), axes, 0, 0, 360, 1, -1)
        image[mask > 0], labels[mask > 0] = (92, 66, 140), number
    steps = [round(side / 0.125) for side in mpp]
    size = shape[1] // steps[1], shape[0] // steps[0]
    pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    units = [1e4 / side for side in (mpp[1], mpp[0])]
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), resolution=units, resolutionunit="CENTIMETER")
    coarse = labels[steps[0] // 2 :: steps[0], steps[1] // 2 :: steps[1]]
    tifffile.imwrite(path.with_name("labels.tif"), coarse)
    return coarse, np.array(lies)


@pytest.mark.parametrize("mpp", [(0.5, 0.5), (0.5, 0.25), (0.25, 0.5)])
def test_the_network_sees_nuclei_in_their_shape(tmp_path, monkeypatch, mpp):
    labels, _ = slide_of(tmp_path / "a.tif", mpp)
    fields = []
    monkeypatch.setattr(like, "load_model", lambda *_a, **_k: small_model("nuclei"))
    field_of = like.field_of
    monkeypatch.setattr(like, "field_of", lambda *a, **k: fields.append(field_of(*a, **k)) or fields[-1])
    marks = ((9.0 / mpp[0], 9.0 / mpp[1]),)
    given = str(tmp_path / "labels.tif")
    job = LikeJob(str(tmp_path / "a.tif"), str(tmp_path / "out.tif"), marks, candidates=given, device="cpu")
    found = find_like(job)
    (field,) = fields
    assert field.model_shape == (round(SIDE_UM / field.mpp_um),) * 2
    out = tifffile.imread(tmp_path / "out.tif")
    assert out.shape == labels.shape
    assert found.candidates == len(PLACES)
    # Each proposal is one of the candidates, pixel by pixel, and the marked one is among them.
    for number in found.scores:
        (which,) = np.unique(labels[out == number])
        np.testing.assert_array_equal(out == number, labels == which)
    assert out[labels == 1].all()


@pytest.mark.parametrize("mpp", [(0.5, 0.25), (0.25, 0.5)])
def test_candidates_that_are_made_are_those_of_square_pixels(tmp_path, mpp):
    counts = []
    for folder, size in (("square", (0.25, 0.25)), ("other", mpp)):
        (tmp_path / folder).mkdir()
        labels, _ = slide_of(tmp_path / folder / "a.tif", size)
        marks = ((27.0 / size[0], 27.0 / size[1]),)
        out = tmp_path / folder / "out.tif"
        found = find_like(LikeJob(str(tmp_path / folder / "a.tif"), str(out), marks, model=COLOUR))
        proposed = tifffile.imread(out)
        assert proposed.shape == labels.shape
        marked = labels == labels[round(marks[0][0]), round(marks[0][1])]
        assert (proposed[marked] > 0).mean() > 0.8
        counts.append(found.candidates)
    assert counts[1] == pytest.approx(counts[0], rel=0.1)


def test_candidates_of_another_size_are_refused(tmp_path):
    slide_of(tmp_path / "a.tif", (0.5, 0.25))
    tifffile.imwrite(tmp_path / "labels.tif", np.ones((20, 20), np.uint16))
    job = LikeJob(
        str(tmp_path / "a.tif"), str(tmp_path / "out.tif"), ((9.0, 9.0),), candidates=str(tmp_path / "labels.tif")
    )
    with pytest.raises(DataError, match=r"\(20, 20\) px but the view \(180, 360\); they must be equal"):
        find_like(job)
