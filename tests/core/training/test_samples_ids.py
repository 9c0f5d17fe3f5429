"""Labels of any id can be learned from: those that we export are tile << 14 | n, and from 2**31 where people drew."""

import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.exchange.formats import export
from napari_nucleiseg.core.exchange.source import source_of_labels
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.core.training.batches import colours_of
from napari_nucleiseg.core.training.config import DataSet
from napari_nucleiseg.core.training.planner.fingerprint import measure_picture
from napari_nucleiseg.core.training.samples import (
    CropSampler,
    load_data_set,
    picture_files,
    read_ids,
    read_labels,
    read_pair,
    read_picture,
)
from napari_nucleiseg.core.training.volumes import load_stacks
from napari_nucleiseg.core.training.weightmap import border_weights
from stack_parts import write_labelled

PERSONS = PERSON_ID_START


def touching(first, second, dtype=np.uint32):
    """Two nuclei of 20 x 20 px that touch."""
    labels = np.zeros((64, 64), dtype)
    labels[20:40, 10:30], labels[20:40, 30:50] = first, second
    return labels


@pytest.fixture
def data_set(tmp_path):
    """Write labels beside a grey picture."""

    def write(labels):
        for name in ("images", "labels"):
            (tmp_path / name).mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "images" / "a.tif", np.full((64, 64, 3), 200, np.uint8), photometric="rgb")
        tifffile.imwrite(tmp_path / "labels" / "a.tif", labels)
        return DataSet(str(tmp_path), mpp_um=0.5)

    return write


def _first(data):
    """Return the first picture of a data set, and the set."""
    return picture_files(data)[0], data


@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [
        (2**24, 2**24 + 1, np.uint32),
        (2**30, 2**30 + 1, np.uint32),
        (7 << 14 | 3, PERSONS, np.uint32),
        (PERSONS, PERSONS + 1, np.uint32),
        (2**32 - 2, 2**32 - 1, np.uint32),
        (2**40, 2**40 + 1, np.int64),
        (2**63, 2**63 + 1, np.uint64),
    ],
)
def test_nuclei_with_large_ids_are_the_same_as_with_small_ones(data_set, first, second, dtype):
    (wanted,) = load_data_set(data_set(touching(1, 2)), 10.0, 2.5)
    (found,) = load_data_set(data_set(touching(first, second, dtype)), 10.0, 2.5)
    assert found.labels.dtype == np.int32
    np.testing.assert_array_equal(found.labels, wanted.labels)
    # The last digit depends on where memory lies.
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-6)
    assert found.weights.max() > 9
    crops = [CropSampler([([one], 1.0)], 0.5, 64, scale=1.0, elastic_um=0.0, seed=0) for one in (wanted, found)]
    crops = [sampler.draw(sampler.rng(0)) for sampler in crops]
    np.testing.assert_array_equal(crops[1].labels, crops[0].labels)
    assert len(np.unique(crops[1].labels[crops[1].labels > 0])) >= 2


def test_what_a_person_drew_and_we_exported_is_learned_from(data_set, tmp_path):
    data = data_set(touching(1, 2))
    drawn = touching(PERSONS, PERSONS + 1)
    (tmp_path / "labels" / "a.tif").unlink()  # of another program, which no export replaces
    export(source_of_labels(drawn, YX(0.5, 0.5)), tmp_path / "labels" / "a.tif", "tif")
    assert np.unique(tifffile.imread(tmp_path / "labels" / "a.tif")).tolist() == [0, PERSONS, PERSONS + 1]
    (found,) = load_data_set(data, 0.0, 1.0)
    np.testing.assert_array_equal(found.labels, touching(1, 2))


def test_what_nobody_annotated_stays_so_beside_large_ids(data_set):
    labels = touching(2**40, 2**40 + 1, np.int64)
    labels[:5], labels[5:8] = -1, -9
    _, found, _ = read_pair(*_first(data_set(labels)))
    assert (found[:8] == -1).all()
    np.testing.assert_array_equal(found[8:], touching(1, 2)[8:])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.uint32])
def test_small_ids_are_left_as_they_are(data_set, tmp_path, dtype):
    labels = touching(3, 200, dtype)
    if np.issubdtype(dtype, np.signedinteger):
        labels[:5] = -1
    data_set(labels)
    found = read_labels(tmp_path / "labels" / "a.tif")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels)


def test_ids_can_be_read_as_they_stand_in_the_file(data_set, tmp_path):
    data_set(touching(PERSONS, 2**32 - 1))
    found = read_ids(tmp_path / "labels" / "a.tif")
    np.testing.assert_array_equal(found, touching(PERSONS, 2**32 - 1))


def test_the_pixel_size_is_estimated_from_nuclei_that_people_drew(data_set):
    guesses = []
    for ids in ((1, 2), (PERSONS, PERSONS + 1)):
        data = data_set(touching(*ids))
        path, _ = _first(data)
        guesses.append(read_pair(path, DataSet(data.path, mpp_um=None))[2])
    assert guesses[0] == guesses[1] != 0.5


def test_a_plan_counts_the_nuclei_that_people_drew(data_set):
    small, large = (
        measure_picture(*read_pair(*_first(data_set(touching(*ids))))) for ids in ((1, 2), (2**30, PERSONS))
    )
    assert large.nuclei == small.nuclei == 2
    np.testing.assert_array_equal(large.areas_um2, small.areas_um2)


def test_border_weights_do_not_depend_on_how_large_the_ids_are():
    wanted = border_weights(touching(1, 2, np.int32), 10.0, 5.0)
    np.testing.assert_allclose(border_weights(touching(2**30, 2**30 + 1, np.int32), 10.0, 5.0), wanted, atol=1e-6)
    np.testing.assert_allclose(border_weights(touching(PERSONS, PERSONS + 1), 10.0, 5.0), wanted, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint32, np.float64])
def test_stacks_with_large_ids_are_the_same_as_with_small_ones(tmp_path, dtype):
    folder = write_labelled(tmp_path / "set", (0,))
    data, path = DataSet(str(folder), None), folder / "labels" / "0.tif"
    (wanted,) = load_stacks(data)
    assert len(wanted.boxes) > 2
    tifffile.imwrite(path, np.where(wanted.labels > 0, wanted.labels + np.int64(PERSONS), 0).astype(dtype))
    (found,) = load_stacks(data)
    assert found.labels.dtype == np.int32
    assert (found.labels >= 0).all()
    np.testing.assert_array_equal(found.labels > 0, wanted.labels > 0)
    np.testing.assert_array_equal(found.boxes, wanted.boxes)


def test_endings_of_labels_may_be_written_in_capitals(data_set, tmp_path):
    data = data_set(touching(1, 2))
    for path in [*(tmp_path / "images").iterdir(), *(tmp_path / "labels").iterdir()]:
        path.rename(path.with_suffix(path.suffix.upper()))
    (image,) = load_data_set(data, 0.0, 1.0)
    assert np.unique(image.labels).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.tif"])
@pytest.mark.parametrize("read", [read_picture, read_labels])
def test_an_empty_file_is_named(tmp_path, name, read):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=f"{name} cannot be read as a .*: the file is empty"):
        read(tmp_path / name)


@pytest.mark.parametrize(("shape", "windows"), [((100, 90), 1), ((128, 600), 1), ((140, 140), 1), ((600, 700), 2)])
def test_small_pictures_lend_their_colours_too(tmp_path, shape, windows):
    tifffile.imwrite(tmp_path / "p.tif", np.full((*shape, 3), 120, np.uint8), photometric="rgb")
    assert len(colours_of(str(tmp_path), ())) == windows


def test_a_folder_whose_pictures_lend_no_colours_is_told(tmp_path):
    assert colours_of("", ()) == []
    tifffile.imwrite(tmp_path / "glass.tif", np.full((140, 140, 3), 240, np.uint8), photometric="rgb")
    with pytest.raises(DataError, match="lend no colours: none is there, or all are nearly white"):
        colours_of(str(tmp_path), ())
    tifffile.imwrite(tmp_path / "tissue.tif", np.full((140, 140, 3), 120, np.uint8), photometric="rgb")
    assert len(colours_of(str(tmp_path), ())) == 1
    with pytest.raises(DataError, match="lend no colours"):
        colours_of(str(tmp_path), ("tissue",))
    with pytest.raises(DataError, match=r"there is no folder .*elsewhere"):
        colours_of(str(tmp_path / "elsewhere"), ())
