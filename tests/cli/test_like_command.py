"""``like`` from the shell: marks in, a label image of all that is like them out."""

import imagecodecs
import numpy as np
import pytest
import tifffile


@pytest.fixture
def files(tmp_path):
    """A picture of discs, every second one brown, and their label image."""
    ys, xs = np.mgrid[:160, :160]
    image = np.full((160, 160, 3), (226, 160, 196), np.uint8)
    labels = np.zeros((160, 160), np.uint16)
    for number, (y, x) in enumerate(((y, x) for y in range(10, 160, 20) for x in range(10, 160, 20)), start=1):
        disc = (ys - y) ** 2 + (xs - x) ** 2 <= 36
        labels[disc] = number
        image[disc] = (92, 66, 140) if number % 2 else (140, 90, 50)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image))
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    return tmp_path / "a.png", tmp_path / "labels.tif", labels


def test_all_that_is_like_the_mark_is_written(shell, files, tmp_path):
    picture, candidates, labels = files
    words = ("--mark", "10,10", "--not", "10,30", "--mpp", 0.5, "--model", "colour", "--candidates", candidates)
    answer = shell("like", picture, *words, "--out", tmp_path / "like.tif", "--json")
    assert answer.status == 0, answer.err
    found = tifffile.imread(tmp_path / "like.tif")
    np.testing.assert_array_equal(found > 0, labels % 2 == 1)
    assert answer.document["proposed"] == len(np.unique(found)) - 1 == 32
    assert len(answer.document["scores"]) == 32
    assert "32 of 64 candidates" in answer.err


@pytest.mark.parametrize("model", ["nuclei", "tissue-patches"])
def test_candidates_are_made_and_places_are_those_of_the_whole_picture(shell, files, tmp_path, model):
    words = ("--mark", "70,70", "--region", "40,40,100,110", "--mpp", 0.5, "--model", model, "--device", "cpu")
    answer = shell("like", files[0], *words, "--out", tmp_path / "like.tif", "--json")
    assert answer.status == 0, answer.err
    found = tifffile.imread(tmp_path / "like.tif")
    assert found.shape == (100, 110)
    assert found[30, 30] > 0
    assert answer.document["region"] == {"y": 40, "x": 40, "height": 100, "width": 110}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mark", "500,10"), "beside the view"),
        (("--mark", "10,10", "--region", "900,900,9,9"), "--region"),
        (("--mark", "10,10", "--method", "best"), "no method called best"),
        (("--mark", "10,10", "--layer", "nowhere", "--model", "nuclei"), "no layer nowhere"),
        (("--mark", "10;10"), "no place"),
        ((), "--mark"),
    ],
)
def test_bad_input_gets_a_sentence(shell, files, tmp_path, words, said):
    model = () if "--model" in words else ("--model", "colour")
    answer = shell("like", files[0], *words, *model, "--mpp", 0.5, "--out", tmp_path / "x.tif")
    assert answer.status in {1, 2}
    assert said in answer.err
    assert not (tmp_path / "x.tif").exists()


@pytest.mark.parametrize("which", ["picture", "candidates"])
def test_what_is_read_is_not_written_over(shell, files, tmp_path, which):
    picture = tmp_path / "b.tif"
    tifffile.imwrite(picture, imagecodecs.png_decode(files[0].read_bytes()))
    target = {"picture": picture, "candidates": files[1]}[which]
    before = target.read_bytes()
    words = ("--mark", "10,10", "--mpp", 0.5, "--model", "colour", "--candidates", files[1])
    answer = shell("like", picture, *words, "--out", target)
    assert answer.status != 0
    assert "would be lost. Choose another name" in answer.err
    assert target.read_bytes() == before


@pytest.mark.parametrize("mpp", [0.2525, 0.37, 0.6])
def test_colour_is_compared_at_any_pixel_size(shell, files, tmp_path, mpp):
    words = ("--mark", "10,10", "--mpp", mpp, "--model", "colour", "--candidates", files[1])
    answer = shell("like", files[0], *words, "--out", tmp_path / "like.tif", "--json")
    assert answer.status == 0, answer.err
    assert answer.document["proposed"] > 0
