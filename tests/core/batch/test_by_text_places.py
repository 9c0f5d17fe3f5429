"""What ``by-text`` writes lies where the nuclei lie on the slide, under the ids of the label image."""

import csv
import json
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from napari_nucleiseg.core.batch import by_text
from napari_nucleiseg.core.batch.by_text import LARGEST_ID, PlacedLevel, TextJob, score_region
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.fewshot.crops import Crops
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from tiny_clip import nuclei, write_clip

VIEW = nuclei()
PART = Region(40, 80, 120, 160)
PROMPTS = (("tumour", "dark"), ("stroma", "pale"))
NUMBERS = ("y_px", "x_px", "y_um", "x_um", "y0_px", "x0_px", "y1_px", "x1_px")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A picture, its label image, that of a part of it, and a CLIP."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "a.png").write_bytes(imagecodecs.png_encode(VIEW.image))
    tifffile.imwrite(folder / "all.tif", VIEW.labels.astype(np.uint16))
    tifffile.imwrite(folder / "part.tif", VIEW.labels[PART.slices].astype(np.uint16))
    write_clip(folder / "tiny")
    return folder


@pytest.fixture
def scored(folder, tmp_path):
    """Score all nuclei, or those of the part, and return the file that was written."""

    def score(labels, ending, region=None, **more):
        out = tmp_path / f"{labels}{ending}"
        job = TextJob(
            str(folder / "a.png"), str(folder / f"{labels}.tif"), str(out), PROMPTS, str(folder / "tiny"),
            region=region, mpp_um=0.5, device="cpu", **more,
        )  # fmt: skip
        score_region(job)
        return out

    return score


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row["id"]): row for row in csv.DictReader(file)}


def outlines_of(path):
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    return {one["properties"]["measurements"]["Label"]: one["geometry"] for one in features}


def test_a_table_of_a_region_has_places_on_the_slide(scored):
    everywhere, part = rows_of(scored("all", ".csv")), rows_of(scored("part", ".csv", PART))
    assert len(part) == 12
    assert set(NUMBERS) <= set(part[min(part)])
    for number, row in part.items():
        assert [row[name] for name in NUMBERS] == [everywhere[number][name] for name in NUMBERS]
        assert row["class_name"] == everywhere[number]["class_name"]


def test_outlines_of_a_region_lie_on_their_nuclei(scored):
    everywhere, part = outlines_of(scored("all", ".geojson")), outlines_of(scored("part", ".geojson", PART))
    assert len(part) == 12
    assert part == {number: everywhere[number] for number in part}


def test_typed_tables_of_a_region_have_places_on_the_slide(scored):
    parquet = pytest.importorskip("pyarrow.parquet")
    everywhere, part = (
        parquet.read_table(scored(*words)).to_pandas().set_index("id")
        for words in (("all", ".parquet"), ("part", ".parquet", PART))
    )
    assert len(part) == 12
    np.testing.assert_array_equal(part[list(NUMBERS)], everywhere.loc[part.index, list(NUMBERS)])


def test_annotated_tables_of_a_region_have_places_on_the_slide(scored):
    anndata = pytest.importorskip("anndata")
    everywhere, part = (anndata.read_h5ad(scored(*words)) for words in (("all", ".h5ad"), ("part", ".h5ad", PART)))
    assert part.n_obs == 12
    np.testing.assert_array_equal(part.obsm["spatial"], everywhere[part.obs_names].obsm["spatial"])


def test_a_picture_that_begins_further_in_keeps_its_places_without_a_region(scored, monkeypatch):
    everywhere = rows_of(scored("all", ".csv"))
    opened = by_text.open_slide
    monkeypatch.setattr(by_text, "open_slide", lambda *a, **k: replace(opened(*a, **k), bounds=PART))
    part = rows_of(scored("part", ".csv"))
    assert len(part) == 12
    for number, row in part.items():
        assert [row[name] for name in NUMBERS] == [everywhere[number][name] for name in NUMBERS]


def test_a_label_image_of_a_region_is_as_large_as_the_slide(scored):
    found = zarr.open_group(scored("part", ".zarr", PART), mode="r")["0"][:]
    wanted = np.zeros_like(VIEW.labels)
    wanted[PART.slices] = VIEW.labels[PART.slices]
    np.testing.assert_array_equal(found, wanted)


def test_a_map_of_the_classes_is_as_large_as_the_label_image_given(scored):
    found = tifffile.imread(scored("part", ".tif", PART))
    everywhere = tifffile.imread(scored("all", ".tif"))
    np.testing.assert_array_equal(found, everywhere[PART.slices])


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_placed_level_reads_what_a_whole_label_image_would(factor):
    rng = np.random.default_rng(0)
    whole = np.zeros((61, 75), np.uint32)
    region = Region(13, 22, 30, 41)
    whole[region.slices] = rng.integers(1, 99, (region.height, region.width))
    level = PlacedLevel(whole[region.slices], region, Region(0, 0, 61, 75), factor)
    coarse = whole[::factor, ::factor]
    assert level.shape == coarse.shape
    keys = [
        (slice(None), slice(None)),
        (slice(3, 9), slice(2, 99)),
        (slice(0, 2), slice(0, 2)),
        (slice(5, 5), slice(4)),
    ]
    for key in keys:
        np.testing.assert_array_equal(level[key], coarse[key])


def test_nuclei_that_people_drew_keep_their_ids(scored, folder):
    drawn = np.where(VIEW.labels > 0, VIEW.labels.astype(np.uint32) + PERSON_ID_START, 0).astype(np.uint32)
    tifffile.imwrite(folder / "drawn.tif", drawn)
    everywhere, found = rows_of(scored("all", ".csv")), rows_of(scored("drawn", ".csv"))
    assert sorted(found) == np.unique(drawn)[1:].tolist()
    for number, row in found.items():
        before = everywhere[number - PERSON_ID_START]
        assert row | {"id": before["id"]} == before
    # The table that was written is one that can be joined.
    again = scored("drawn", ".csv", known=str(scored("drawn", ".csv")))
    assert sorted(rows_of(again)) == sorted(found)
    np.testing.assert_array_equal(tifffile.imread(scored("drawn", ".tif")), tifffile.imread(scored("all", ".tif")))


def test_an_id_that_no_table_has_room_for_gets_a_sentence(scored, folder):
    tifffile.imwrite(folder / "far.tif", np.where(VIEW.labels > 0, np.int64(LARGEST_ID + 1), 0))
    with pytest.raises(DataError, match=r"has the id 4294967296; the largest that can be written is 4294967295"):
        scored("far", ".csv")


@pytest.mark.parametrize("mpp", [(0.5, 0.5), (1.0, 0.5), (0.5, 1.0)])
def test_nuclei_are_seen_in_their_shape_where_pixels_are_not_square(folder, tmp_path, monkeypatch, mpp):
    rows, columns = (round(2 * side) for side in mpp)
    units = [1e4 / side for side in (mpp[1], mpp[0])]
    picture = VIEW.image[rows - 1 :: rows, columns - 1 :: columns]
    labels = VIEW.labels[rows - 1 :: rows, columns - 1 :: columns]
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb", resolution=units, resolutionunit="CENTIMETER")
    tifffile.imwrite(tmp_path / "labels.tif", labels.astype(np.uint16))
    boxes, alone = [], Crops.alone
    monkeypatch.setattr(Crops, "alone", lambda crops, n: boxes.append(crops.boxes[n - 1]) or alone(crops, n))
    places = [str(tmp_path / name) for name in ("a.tif", "labels.tif", "out.csv")]
    found = score_region(TextJob(*places, PROMPTS, str(folder / "tiny"), device="cpu"))
    assert found.nuclei == len(boxes) == len(np.unique(VIEW.labels)) - 1
    # They are discs, whichever side the pixels are longer at.
    heights, widths = (np.array([box[axis].stop - box[axis].start for box in boxes]) for axis in (0, 1))
    assert (np.abs(heights - widths) <= 1).all()
