"""``heads`` from the shell: maps as OME-TIFF and arrays, the same as the functions give, and heads ranked by nuclei."""

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch

from napari_nucleiseg.core.attention.look import look
from napari_nucleiseg.core.attention.patches import plan_patches
from napari_nucleiseg.core.attention.shown import MapWish, shown_map
from napari_nucleiseg.core.batch.heads import richest_region
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.encoders import load_encoder
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.tissue import TissueMask, tissue_mask
from napari_nucleiseg.core.store.nuclei import TileNuclei
from napari_nucleiseg.core.store.project import MAPS, Project, default_folder
from tiny_encoders import noise, patch_encoder, slide_of, write_encoders

REGION = Region(0, 0, 96, 160)
MPP = ("--mpp", 0.5, "--device", "cpu")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    return write_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(noise(150, 200)))
    return path


@pytest.fixture
def words(picture, encoders):
    return ("heads", picture, "--encoder", encoders[0], "--region", "0,0,96,160", *MPP)


def looked_at(picture, encoders):
    slide = open_slide(str(picture), mpp_um=0.5)
    patch, region = (load_encoder(path) for path in encoders)
    *_, last = look(slide, plan_patches(slide, patch.spec, REGION), patch, region, device="cpu")
    return last.looked, tissue_mask(slide)


def test_all_heads_become_channels_with_the_size_of_a_token(shell, words, picture, encoders, tmp_path):
    answer = shell(*words, "--out", tmp_path / "m.ome.tif", "--json")
    assert answer.status == 0, answer.err
    assert answer.document["maps"] == ["0", "1", "2", "mean", "max", "rollout"]
    assert answer.document["region"] == {"y": 0, "x": 0, "height": 96, "width": 160}
    assert answer.document["token_um"] == [4.0, 4.0]
    looked, tissue = looked_at(picture, encoders)
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as tiff:
        series = tiff.series[0]
        assert (series.axes, series.dtype, series.shape) == ("CYX", np.float32, (6, 12, 20))
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        maps = series.asarray()
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"], pixels["PhysicalSizeXUnit"]) == (4, 4, "µm")
    assert [str(channel["Name"]) for channel in pixels["Channel"]] == answer.document["maps"]
    assert [plane["PositionX"] for plane in pixels["Plane"]] == [2] * 6
    for head, values in zip(answer.document["maps"], maps, strict=True):
        np.testing.assert_allclose(values, shown_map([looked], MapWish(head=head), tissue).values, atol=0.07)


@pytest.mark.parametrize(
    ("more", "wish", "name"),
    [
        (("--head", "1", "--layer", 0, "--values", "raw"), MapWish(head="1", layer=0, scale="raw"), "1"),
        (("--level", "region", "--region-head", "0"), MapWish("region", region_head="0"), "0"),
        (
            ("--level", "both", "--head", "2", "--region-head", "max", "--weight", 0.3),
            MapWish("both", head="2", region_head="max", weight=0.3),
            "2,max",
        ),
        (("--level", "both", "--head", "rollout"), MapWish("both", head="rollout", region_head="mean"), "rollout,mean"),
    ],
)
def test_one_map_is_the_one_that_the_window_shows(shell, words, picture, encoders, tmp_path, more, wish, name):
    out = tmp_path / "m.npz"
    answer = shell(*words, "--region-encoder", encoders[1], "--out", out, *more)
    assert answer.status == 0, answer.err
    looked, tissue = looked_at(picture, encoders)
    wanted = shown_map([looked], wish, tissue)
    with np.load(out) as found:
        assert found["names"].tolist() == [name]
        assert found["maps"].dtype == np.float32
        np.testing.assert_allclose(found["maps"][0], wanted.values, atol=1e-6)
        np.testing.assert_array_equal(found["token_px"], wanted.grid.token_px)
        np.testing.assert_array_equal(found["origin_px"], wanted.grid.origin)
        np.testing.assert_array_equal(found["mpp_um"], (0.5, 0.5))


def test_shifted_grids_are_averaged(shell, words, tmp_path):
    answer = shell(*words, "--averaged", 2, "--out", tmp_path / "m.npz", "--json")
    assert answer.document["token_um"] == [2.0, 2.0]
    assert answer.document["forwarded"] == 30


def labelled(picture):
    """The project of the picture, with some nuclei."""
    labels = np.zeros((150, 200), np.int32)
    labels[20:40, 30:50], labels[60:80, 100:130] = 1, 2
    slide = open_slide(str(picture), mpp_um=0.5)
    folder = default_folder(picture)
    with Project.create(folder, slide) as project:
        boxes = np.array([[20, 30, 40, 50], [60, 100, 80, 130]])
        middles, ones = boxes[:, :2] + 10.0, np.ones(2, np.float32)
        nuclei = TileNuclei(0, slide.region, slide.region, labels, middles, ones, boxes, ones)
        project.write_tile(nuclei, "m@1", "k")
    return folder


def test_heads_are_ranked_against_nuclei_and_what_was_seen_is_kept(shell, words, picture, encoders, tmp_path):
    folder = labelled(picture)
    more = ("--region-encoder", encoders[1], "--out", tmp_path / "m.npz", "--rank", folder)
    document = shell(*words, *more, "--json").document
    assert document["forwarded"] == 15
    assert len(document["ranking"]) == 9
    assert len(document["region_ranking"]) == 4
    aurocs = [score["auroc"] for score in document["ranking"]]
    assert aurocs == sorted(aurocs, reverse=True)
    assert list((folder / MAPS).glob("*.tokens"))
    answer = shell(*words, *more)  # and the project says how large pixels are
    assert "0 patches computed" in answer.err
    assert "Heads of patches against nuclei" in answer.out
    assert f"{aurocs[0]:.3f}" in answer.out
    without = [word for word in words if word not in MPP[:2]]
    assert shell(*without, *more).status == 0


def test_where_no_project_is_none_is_made(shell, words, picture, tmp_path):
    assert shell(*words, "--out", tmp_path / "m.npz").status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "m.npz"]


def test_by_default_it_looks_where_there_is_most_tissue_and_says_where(shell, picture, encoders, tmp_path):
    answer = shell("heads", picture, "--encoder", encoders[0], *MPP, "--out", tmp_path / "m.npz")
    assert answer.status == 0
    assert "Looking where there is most tissue: --region 0,0,150,200" in answer.err


def test_the_richest_region_lies_on_the_grid_and_holds_most_tissue():
    slide = slide_of(np.zeros((640, 960, 3), np.uint8))
    mask = np.zeros((80, 120), np.bool_)
    mask[40:60, 80:110] = True
    found = richest_region(slide, patch_encoder().spec, TissueMask(mask, YX(8, 8)), cells=6)
    assert found == Region(320, 640, 192, 192) or found.intersect(Region(320, 640, 160, 240)).area == 160 * 192
    assert (found.y % 32, found.x % 32, found.height, found.width) == (0, 0, 192, 192)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--out", "m.png"), "maps are written to .tif or .npz"),
        (("--out", "m.npz", "--level", "both"), "needs an encoder of regions"),
        (("--out", "m.npz", "--averaged", 0), "1 to 16 shifted grids"),
        (("--out", "m.npz", "--head", "7"), "there is no head 7; there are 3"),
        (("--out", "m.npz", "--layer", 9), "there is no layer 10"),
        (("--out", "m.npz", "--region", "900,900,9,9"), "nothing of the slide lies in this region"),
        (("--out", "nowhere/m.npz"), "cannot be written"),
        (("--out", "m.npz", "--rank", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_done_is_said(shell, words, tmp_path, monkeypatch, more, sentence):
    monkeypatch.chdir(tmp_path)
    answer = shell(*words, *more)
    assert answer.status == 1
    assert sentence in answer.err
    assert [path.name for path in tmp_path.iterdir() if path.name != "a.png"] in ([], ["m.npz"])


def test_a_picture_without_a_pixel_size_is_asked_for_it(shell, picture, encoders, tmp_path):
    answer = shell("heads", picture, "--encoder", encoders[0], "--out", tmp_path / "m.npz", "--device", "cpu")
    assert answer.status == 1
    assert "--mpp" in answer.err


def test_a_region_larger_than_one_piece_is_cut_and_said(shell, encoders, tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(imagecodecs.png_encode(noise(40, 20 * 32)))
    where = ("--region", "0,0,40,640", "--out", tmp_path / "m.npz")
    answer = shell("heads", path, "--encoder", encoders[0], *MPP, *where, "--json")
    assert answer.document["is_cut"]
    assert answer.document["columns"] == 16 * 4
    assert "its middle, 0,64,40,512" in answer.err


def test_the_slide_is_not_written_over(shell, encoders, tmp_path):
    picture = tmp_path / "a.tif"
    tifffile.imwrite(picture, noise(150, 200))
    before = picture.read_bytes()
    answer = shell("heads", picture, "--encoder", encoders[0], *MPP, "--out", picture)
    assert answer.status != 0
    assert "would be lost. Choose another name" in answer.err
    assert picture.read_bytes() == before
