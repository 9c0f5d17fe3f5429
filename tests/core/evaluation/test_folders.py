"""Evaluation of folders: pairing by name, file formats, and the sentences for what does not fit."""

import json

import cv2
import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.evaluation import evaluate_folders, scores
from napari_nucleiseg.core.evaluation.folders import read_label_image


@pytest.fixture
def folders(tmp_path):
    truth, pred = tmp_path / "truth", tmp_path / "pred"
    truth.mkdir()
    pred.mkdir()
    return pred, truth


def nuclei(seed, shape=(40, 50)):
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    for k in range(1, 8):
        y, x = rng.integers(0, shape[0] - 8), rng.integers(0, shape[1] - 8)
        labels[y : y + 8, x : x + 8] = 100 * k
    return labels


def test_images_are_paired_by_stem_across_formats(folders):
    pred, truth = folders
    images = {stem: (nuclei(k), nuclei(k + 10)) for k, stem in enumerate(("a", "b", "c"))}
    tifffile.imwrite(truth / "a.tif", images["a"][0])
    cv2.imwrite(str(truth / "b.png"), images["b"][0])
    np.save(truth / "c.npy", images["c"][0].astype(np.float32))
    np.save(pred / "a.npy", images["a"][1])
    tifffile.imwrite(pred / "b.ome.tif", images["b"][1].astype(np.uint32))
    cv2.imwrite(str(pred / "c.png"), images["c"][1])
    tifffile.imwrite(pred / "d.tif", images["c"][1])
    (pred / "notes.txt").write_text("not an image")
    seen = []

    report = evaluate_folders(pred, truth, on_image=lambda *step: seen.append(step))

    assert dict(report.images) == {stem: scores(*pair) for stem, pair in images.items()}
    assert report.mean.pq == pytest.approx(np.mean([image.pq for _, image in report.images]))
    assert report.unused == ("d",)
    assert seen == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]


def test_report_is_written_as_json(folders, tmp_path):
    pred, truth = folders
    np.save(truth / "a.npy", np.zeros((5, 5), int))
    np.save(pred / "a.npy", np.eye(5, dtype=int))
    report = evaluate_folders(pred, truth)
    report.write_json(tmp_path / "scores.json")
    read = json.loads((tmp_path / "scores.json").read_text())
    assert read["images"]["a"]["pq"] == 0
    assert read["mean"]["ahd"] is None
    with pytest.raises(DataError, match="cannot be written"):
        report.write_json(tmp_path / "nowhere" / "scores.json")


def test_missing_predictions_are_named(folders):
    pred, truth = folders
    for stem in "abcde":
        np.save(truth / f"{stem}.npy", np.zeros((5, 5), int))
    np.save(pred / "a.npy", np.zeros((5, 5), int))
    with pytest.raises(DataError, match=r"no prediction for b, c, d and 1 more; each true label image needs one"):
        evaluate_folders(pred, truth)


def test_a_pair_of_other_sizes_is_named(folders):
    pred, truth = folders
    np.save(truth / "a.npy", np.zeros((5, 5), int))
    np.save(pred / "a.npy", np.zeros((5, 6), int))
    with pytest.raises(DataError, match=r"a: the predicted labels are 5 x 6 px but the true ones 5 x 5 px"):
        evaluate_folders(pred, truth)


def test_missing_empty_and_ambiguous_folders_are_refused(folders, tmp_path):
    pred, truth = folders
    with pytest.raises(DataError, match="is not a folder"):
        evaluate_folders(pred, tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no label image"):
        evaluate_folders(pred, truth)
    np.save(truth / "a.npy", np.zeros((5, 5), int))
    tifffile.imwrite(truth / "a.tif", np.zeros((5, 5), np.uint16))
    with pytest.raises(DataError, match=r"a.npy and a.tif in .* are both called a"):
        evaluate_folders(pred, truth)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((5, 5, 3), np.uint8), "looks like a picture"),
        (np.zeros((5, 5), bool), "yes/no mask"),
        (np.full((5, 5), 0.5), "holds fractions"),
        (np.full((5, 5), np.nan), "holds fractions"),
    ],
)
def test_what_is_no_label_image_is_refused(tmp_path, image, sentence):
    np.save(tmp_path / "a.npy", image)
    with pytest.raises(DataError, match=sentence):
        read_label_image(tmp_path / "a.npy")


def test_damaged_files_and_pickles_are_refused(tmp_path):
    for name in ("a.tif", "a.png", "a.npy"):
        (tmp_path / name).write_bytes(b"this is not an image")
        with pytest.raises(DataError, match="cannot be read as a label image"):
            read_label_image(tmp_path / name)
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as a label image"):
        read_label_image(tmp_path / "b.npy")
